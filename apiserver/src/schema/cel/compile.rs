//! Rules of a schema, compiled: parsed, checked and priced once.

use kube_cel::cel::common::ast::IdedExpr;
use kube_cel::cel::parser::Parser;
use serde_json::Value;

use super::super::error::FieldError;
use super::super::path::Path;
use super::super::render;
use super::super::structural::{ListType, Name, Rule, Structural};
use super::declared::{MAX_REQUEST, Place, Sized, Ty, most_entries, smallest};
use super::inspect::{self, Inspection};

/// Units that one rule may cost at most, for all the places of an object where it applies.
const MAX_RULE_COST: u64 = 10_000_000;

/// Units that all rules of a schema may cost at most.
const MAX_TOTAL_COST: u64 = 100_000_000;

/// The rules of one level of a schema and of those below it.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) schema: Structural,
    pub(super) place: Place,
    pub(super) rules: Vec<Compiled>,
    pub(super) properties: Vec<(Name, Self)>,
    pub(super) items: Option<Box<Self>>,
    pub(super) additional: Option<Box<Self>>,
}

/// One rule, ready to run.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    pub(super) expression: IdedExpr,
    pub(super) message: Option<IdedExpr>,
    pub(super) uses_old_self: bool,
    /// Units of one evaluation at most.
    pub(super) cost: u64,
}

/// Where in a schema the compiler is.
#[derive(Clone, Copy)]
struct Spot<'a> {
    path: &'a Path<'a>,
    /// How many values an object can have here; `None` without a bound.
    values: Option<u64>,
    /// The schema below which old and new values cannot be told to belong together.
    uncorrelated: Option<&'a str>,
}

/// Compiles the rules of a schema.
pub(super) struct Compiler {
    pub(super) errors: Vec<FieldError>,
    /// Schemas that comparisons without order refer to.
    pub(super) unordered: Vec<Structural>,
    total: u64,
    /// Rules by cost, the most expensive ones last.
    expensive: Vec<(u64, String)>,
}

impl Compiler {
    pub(super) const fn new() -> Self {
        Self {
            errors: Vec::new(),
            unordered: Vec::new(),
            total: 0,
            expensive: Vec::new(),
        }
    }

    /// The rules of an object's schema.
    pub(super) fn root(&mut self, schema: &Structural) -> Level {
        let spot = Spot {
            path: &Path::ROOT,
            values: Some(1),
            uncorrelated: None,
        };
        let level = self.level(schema, Place::Object, spot);
        self.check_total();
        level
    }

    fn level(&mut self, schema: &Structural, place: Place, spot: Spot<'_>) -> Level {
        let mut level = Level {
            schema: schema.clone(),
            place,
            rules: Vec::new(),
            properties: Vec::new(),
            items: None,
            additional: None,
        };
        let rules_path = spot.path.field("x-kubernetes-validations");
        for (i, rule) in schema.rules().iter().enumerate() {
            let spot = Spot {
                path: &rules_path.index(i),
                ..spot
            };
            if let Some(rule) = self.rule(schema, place, rule, spot) {
                level.rules.push(rule);
            }
        }
        let properties = spot.path.field("properties");
        for (name, property) in schema.properties() {
            if needs_level(property) {
                let path = properties.key(name);
                let spot = Spot {
                    path: &path,
                    ..spot
                };
                let place = place.property(name, property);
                let below = self.level(property, place, spot);
                level.properties.push((Name::clone(name), below));
            }
        }
        let own_path = spot.path.to_string();
        if let Some(items) = schema.items().filter(|items| needs_level(items)) {
            let path = spot.path.field("items");
            let correlated = schema.list_type == ListType::Map;
            let spot = Spot {
                path: &path,
                values: spot.times(schema),
                uncorrelated: match spot.uncorrelated {
                    None if !correlated => Some(&own_path),
                    outer => outer,
                },
            };
            let below = self.level(items, Place::of(items, false), spot);
            level.items = Some(Box::new(below));
        }
        let additional = schema.additional_properties();
        if let Some(additional) = additional.filter(|below| needs_level(below)) {
            let path = spot.path.field("additionalProperties");
            let spot = Spot {
                path: &path,
                values: spot.times(schema),
                ..spot
            };
            let below = self.level(additional, Place::of(additional, false), spot);
            level.additional = Some(Box::new(below));
        }
        level
    }

    fn rule(
        &mut self,
        schema: &Structural,
        place: Place,
        rule: &Rule,
        spot: Spot<'_>,
    ) -> Option<Compiled> {
        let rule_path = spot.path.field("rule");
        let mut refuse = |path: &Path<'_>, detail: &str| {
            self.errors
                .push(FieldError::invalid_shown(path, &shown(rule), detail));
        };
        let mut expression = match parse(&rule.rule) {
            Ok(expression) => expression,
            Err(problem) => {
                refuse(&rule_path, &format!("compilation failed: {problem}"));
                return None;
            }
        };
        let this = Sized::declared(schema, place);
        let old = old_self(rule, &this);
        let inspection = inspect::inspect(&mut expression, &this, &old, &mut self.unordered);
        if !self.accept(rule, &rule_path, &inspection, &Ty::Bool) {
            return None;
        }
        self.charge(schema, &inspection, "estimated rule cost", &rule_path, spot);
        if inspection.uses_old_self {
            if let Some(within) = spot.uncorrelated {
                self.errors.push(FieldError::invalid(
                    rule_path,
                    &Value::String(rule.rule.clone()),
                    format_args!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                    ),
                ));
            }
        } else if rule.optional_old_self {
            self.errors.push(FieldError::invalid(
                spot.path.field("optionalOldSelf"),
                &Value::Bool(true),
                "may not be set if oldSelf is not used in rule",
            ));
        }
        let message = self.message(schema, rule, (&this, &old), spot)?;
        Some(Compiled {
            rule: rule.clone(),
            expression,
            message,
            uses_old_self: inspection.uses_old_self,
            cost: inspection.cost,
        })
    }

    /// The expression for the message; the outer `None` when it cannot be used.
    #[expect(
        clippy::option_option,
        reason = "refused, absent and present are three things"
    )]
    fn message(
        &mut self,
        schema: &Structural,
        rule: &Rule,
        (this, old): (&Sized, &Sized),
        spot: Spot<'_>,
    ) -> Option<Option<IdedExpr>> {
        if rule.message_expression.is_empty() {
            return Some(None);
        }
        let path = spot.path.field("messageExpression");
        let mut expression = match parse(&rule.message_expression) {
            Ok(expression) => expression,
            Err(problem) => {
                let detail = format!("messageExpression compilation failed: {problem}");
                self.errors
                    .push(FieldError::invalid_shown(path, &shown(rule), detail));
                return None;
            }
        };
        let inspection = inspect::inspect(&mut expression, this, old, &mut self.unordered);
        if !self.accept(rule, &path, &inspection, &Ty::String) {
            return None;
        }
        self.charge(
            schema,
            &inspection,
            "estimated messageExpression cost",
            &path,
            spot,
        );
        Some(Some(expression))
    }

    /// Reports what is wrong with an expression; whether nothing is.
    fn accept(
        &mut self,
        rule: &Rule,
        path: &Path<'_>,
        inspection: &Inspection,
        expected: &Ty,
    ) -> bool {
        let result = &inspection.result.ty;
        let problem = if !inspection.problems.is_empty() {
            format!("compilation failed: {}", inspection.problems.join("\n"))
        } else if result.is_dyn() || result.name() == expected.name() {
            return true;
        } else if matches!(expected, Ty::Bool) {
            "cel expression must evaluate to a bool".to_owned()
        } else {
            "messageExpression must evaluate to a string".to_owned()
        };
        self.errors
            .push(FieldError::invalid_shown(path, &shown(rule), problem));
        false
    }

    /// Adds the cost of an expression at all its places.
    fn charge(
        &mut self,
        schema: &Structural,
        inspection: &Inspection,
        what: &str,
        path: &Path<'_>,
        spot: Spot<'_>,
    ) {
        let places = spot
            .values
            .unwrap_or_else(|| MAX_REQUEST / (smallest(schema) + 1));
        let cost = inspection.cost.saturating_mul(places);
        if cost > MAX_RULE_COST {
            self.errors.push(FieldError::forbidden(
                path,
                over_budget(what, cost, MAX_RULE_COST),
            ));
        }
        self.total = self.total.saturating_add(cost);
        self.expensive.push((cost, path.to_string()));
        self.expensive.sort();
        // Only the four most expensive rules are ever named.
        if self.expensive.len() > 4 {
            self.expensive.remove(0);
        }
    }

    fn check_total(&mut self) {
        if self.total <= MAX_TOTAL_COST {
            return;
        }
        for (_, path) in &self.expensive {
            self.errors.push(FieldError::forbidden(
                path,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            ));
        }
        self.errors.push(FieldError::forbidden(
            "",
            over_budget(
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema",
                self.total,
                MAX_TOTAL_COST,
            ),
        ));
    }
}

impl Spot<'_> {
    /// The number of values in a list or map of this schema, over all its places.
    fn times(&self, schema: &Structural) -> Option<u64> {
        let bounded = schema
            .checks()
            .is_some_and(|checks| checks.max_items.is_some() || checks.max_properties.is_some());
        if !bounded {
            return None;
        }
        Some(self.values?.saturating_mul(most_entries(schema)?))
    }
}

/// Whether there are rules at or below a schema.
fn needs_level(schema: &Structural) -> bool {
    !schema.is_recursive() && schema.has_rules()
}

/// What `oldSelf` is: the same as `self`, or an optional of it.
fn old_self(rule: &Rule, this: &Sized) -> Sized {
    if rule.optional_old_self {
        Sized::of(Ty::Optional(this.clone().into()), this.size)
    } else {
        this.clone()
    }
}

/// Parses an expression, with the optional syntax.
fn parse(text: &str) -> Result<IdedExpr, String> {
    Parser::new()
        .enable_optional_syntax(true)
        .parse(text.trim())
        .map_err(|errors| errors.to_string())
}

/// A rule as messages show it: with the names and the order of Kubernetes' internal form.
fn shown(rule: &Rule) -> String {
    let text = |text: &str| render::json(&Value::String(text.to_owned()));
    let reason = if rule.reason.is_empty() {
        "null".to_owned()
    } else {
        text(&rule.reason)
    };
    let optional = if rule.optional_old_self {
        "true"
    } else {
        "null"
    };
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{reason},\"FieldPath\":{},\"OptionalOldSelf\":{optional}}}",
        text(&rule.rule),
        text(&rule.message),
        text(&rule.message_expression),
        text(&rule.field_path),
    )
}

fn over_budget(what: &str, cost: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rough factor for people")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
