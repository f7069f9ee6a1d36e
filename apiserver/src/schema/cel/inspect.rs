//! What a rule refers to, returns and costs, before it runs.
//!
//! A walk over the parsed expression with the types that the schema declares. It refuses what can
//! only be a mistake (fields and functions that do not exist, operands that never fit), and leaves
//! alone what depends on values. Costs follow the published model of cel-go; loops multiply by the
//! largest size of what they walk along.
//!
//! The walk also rewrites comparisons of values with lists of type set or map, in which the order
//! does not count.

use std::rc::Rc;

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, SelectExpr,
    operators,
};

use super::super::pattern::Pattern;
use super::super::structural::Structural;
use super::declared::{MAX_REQUEST, Sized, Ty};
use super::functions::{self, scaled};

/// What an expression is.
#[derive(Debug)]
pub(super) struct Inspection {
    /// What it returns.
    pub(super) result: Sized,
    /// Units of one evaluation at most.
    pub(super) cost: u64,
    /// Whether it refers to the old value.
    pub(super) uses_old_self: bool,
    /// Why it cannot be used.
    pub(super) problems: Vec<String>,
}

/// Inspects `expression`, in which `self` and `oldSelf` are what is given. `unordered` collects the
/// schemas that rewritten comparisons refer to.
pub(super) fn inspect(
    expression: &mut IdedExpr,
    this: &Sized,
    old: &Sized,
    unordered: &mut Vec<Structural>,
) -> Inspection {
    let mut walk = Walk {
        scopes: vec![
            ("self".to_owned(), this.clone()),
            ("oldSelf".to_owned(), old.clone()),
        ],
        problems: Vec::new(),
        uses_old_self: false,
        unordered,
    };
    let Found { value, cost } = walk.expression(expression);
    Inspection {
        result: value,
        cost,
        uses_old_self: walk.uses_old_self,
        problems: walk.problems,
    }
}

/// What a part of an expression is.
struct Found {
    value: Sized,
    cost: u64,
}

impl Found {
    const fn new(value: Sized, cost: u64) -> Self {
        Self { value, cost }
    }
}

struct Walk<'u> {
    scopes: Vec<(String, Sized)>,
    problems: Vec<String>,
    uses_old_self: bool,
    unordered: &'u mut Vec<Structural>,
}

impl Walk<'_> {
    fn expression(&mut self, expression: &mut IdedExpr) -> Found {
        match &mut expression.expr {
            Expr::Unspecified => Found::new(Sized::fixed(Ty::Null), 0),
            Expr::Literal(literal) => Found::new(literal_type(literal), 0),
            Expr::Ident(name) => Found::new(self.variable(name), 1),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => {
                let mut cost = 30_u64;
                let mut values: Option<Sized> = None;
                let size = map.entries.len() as u64;
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        cost = cost.saturating_add(self.expression(&mut entry.key).cost);
                        let value = self.expression(&mut entry.value);
                        cost = cost.saturating_add(value.cost);
                        values = Some(joined(values, value.value));
                    }
                }
                let value = values.unwrap_or(Sized::fixed(Ty::Dyn));
                Found::new(Sized::of(Ty::Map(Rc::new(value)), size), cost)
            }
            Expr::Struct(made) => {
                self.problems.push(format!(
                    "undeclared reference to '{}' (in container '')",
                    made.type_name
                ));
                Found::new(Sized::ANY, 40)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn variable(&mut self, name: &str) -> Sized {
        let known = self.scopes.iter().rev().find(|(known, _)| known == name);
        if let Some((_, value)) = known {
            let value = value.clone();
            self.uses_old_self |= name == "oldSelf";
            return value;
        }
        if functions::TYPES.contains(&name) {
            return Sized::fixed(Ty::Type);
        }
        self.undeclared(name);
        Sized::ANY
    }

    fn undeclared(&mut self, name: &str) {
        self.problems.push(format!(
            "undeclared reference to '{name}' (in container '')"
        ));
    }

    fn select(&mut self, select: &mut SelectExpr) -> Found {
        let operand = self.expression(&mut select.operand);
        let field = self.field(&operand.value, &select.field);
        if select.test {
            return Found::new(Sized::fixed(Ty::Bool), operand.cost);
        }
        Found::new(field, operand.cost.saturating_add(1))
    }

    fn field(&mut self, operand: &Sized, name: &str) -> Sized {
        if let Some(field) = operand.field(name) {
            return match operand.ty {
                Ty::Optional(_) => Sized::fixed(Ty::Optional(Rc::new(field))),
                _ => field,
            };
        }
        self.problems.push(match &operand.ty {
            Ty::Schema(..) | Ty::Record(_) => format!("undefined field '{name}'"),
            ty => format!("type '{}' does not support field selection", ty.name()),
        });
        Sized::ANY
    }

    fn list(&mut self, list: &mut ListExpr) -> Found {
        let mut cost = 10_u64;
        let mut element: Option<Sized> = None;
        let size = list.elements.len() as u64;
        for item in &mut list.elements {
            let found = self.expression(item);
            cost = cost.saturating_add(found.cost);
            element = Some(joined(element, found.value));
        }
        let element = element.unwrap_or(Sized::fixed(Ty::Dyn));
        Found::new(Sized::of(Ty::List(Rc::new(element)), size), cost)
    }

    fn call(&mut self, call: &mut CallExpr) -> Found {
        let name = self.function_name(call);
        let mut operands = Vec::with_capacity(call.args.len() + 1);
        let mut cost = 0_u64;
        let receiver = call
            .target
            .as_deref_mut()
            .filter(|_| name == call.func_name);
        for operand in receiver.into_iter().chain(&mut call.args) {
            let found = self.expression(operand);
            cost = cost.saturating_add(found.cost);
            operands.push(found.value);
        }
        if let Some((value, own)) = self.operator(&name, &operands, call) {
            return Found::new(value, cost.saturating_add(own));
        }
        let Some(function) = functions::find(&name) else {
            self.undeclared(&call.func_name);
            return Found::new(Sized::ANY, cost);
        };
        if matches!(name.as_str(), "matches" | "find" | "findAll") {
            self.check_pattern(&name, call);
        }
        let own = function.cost(&operands);
        Found::new(function.result(&operands), cost.saturating_add(own))
    }

    /// The name of a function, with the namespace that stands where a receiver would.
    fn function_name(&self, call: &CallExpr) -> String {
        if let Some(target) = &call.target
            && let Expr::Ident(prefix) = &target.expr
            && !self.scopes.iter().any(|(known, _)| known == prefix)
        {
            let qualified = format!("{prefix}.{}", call.func_name);
            if functions::find(&qualified).is_some() {
                return qualified;
            }
        }
        call.func_name.clone()
    }

    /// A literal regular expression must be one.
    fn check_pattern(&mut self, name: &str, call: &CallExpr) {
        if let Some(IdedExpr {
            expr: Expr::Literal(LiteralValue::String(pattern)),
            ..
        }) = call.args.first()
            && Pattern::parse(pattern.inner()).is_err()
        {
            self.problems.push(format!("invalid {name} argument"));
        }
    }

    /// What an operator returns and costs; `None` when `name` is not one.
    fn operator(
        &mut self,
        name: &str,
        operands: &[Sized],
        call: &mut CallExpr,
    ) -> Option<(Sized, u64)> {
        let boolean = Sized::fixed(Ty::Bool);
        let found = match (name, operands) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.expect_bool(name, &[condition]);
                (yes.or(no), 0)
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [a, b]) => {
                self.expect_bool(name, &[a, b]);
                (boolean, 0)
            }
            (operators::LOGICAL_NOT, [a]) => {
                self.expect_bool(name, &[a]);
                (boolean, 1)
            }
            (operators::NOT_STRICTLY_FALSE, [_]) => (boolean, 1),
            (operators::NEGATE, [a]) => (a.clone(), 1),
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
                if !comparable(&a.ty, &b.ty) {
                    self.no_overload(name, &[a, b]);
                }
                if let (Some(schema), Some(_)) = (a.ty.unordered(), b.ty.unordered()) {
                    self.ignore_order(schema.clone(), call);
                }
                (boolean, compared(a, b))
            }
            (functions::EQUAL, [a, b, _]) => (boolean, compared(a, b)),
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [a, b],
            ) => {
                let numbers = a.ty.is_number() && b.ty.is_number();
                if !numbers && !comparable(&a.ty, &b.ty) {
                    self.no_overload(name, &[a, b]);
                }
                (boolean, compared(a, b))
            }
            (operators::ADD, [a, b]) => self.add(a, b),
            (
                operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
                [a, b],
            ) => (self.arithmetic(name, a, b), 1),
            (operators::IN, [_, container]) => match container.ty.name() {
                "list" | "dyn" => (boolean, container.size.max(1)),
                _ => (boolean, 1),
            },
            (operators::INDEX, [container, _]) => (container.element(), 1),
            (operators::OPT_INDEX, [container, _]) => {
                (Sized::fixed(Ty::Optional(Rc::new(container.element()))), 1)
            }
            (operators::OPT_SELECT, [operand, _]) => {
                let name = match call.args.get(1).map(|arg| &arg.expr) {
                    Some(Expr::Literal(LiteralValue::String(name))) => name.inner().to_owned(),
                    _ => return Some((Sized::ANY, 1)),
                };
                let field = self.field(operand, &name);
                // The evaluator's own selection fails on a missing field; indexing does not.
                operators::OPT_INDEX.clone_into(&mut call.func_name);
                let field = match field.ty {
                    Ty::Optional(_) => field,
                    _ => Sized::fixed(Ty::Optional(Rc::new(field))),
                };
                (field, 1)
            }
            _ => return None,
        };
        Some(found)
    }

    fn add(&mut self, a: &Sized, b: &Sized) -> (Sized, u64) {
        let size = a.size.saturating_add(b.size);
        match (&a.ty, &b.ty) {
            (Ty::String, Ty::String) => (Sized::of(Ty::String, size), scaled(size, 10)),
            (Ty::Bytes, Ty::Bytes) => (Sized::of(Ty::Bytes, size), scaled(size, 10)),
            (left, right) if left.name() == "list" && right.name() == "list" => {
                let element = a.element().or(&b.element());
                // An empty list has no opinion about its elements.
                let element = match (a.size, b.size) {
                    (0, _) => b.element(),
                    (_, 0) => a.element(),
                    _ => element,
                };
                (Sized::of(Ty::List(Rc::new(element)), size), 1)
            }
            _ => (self.arithmetic(operators::ADD, a, b), 1),
        }
    }

    fn arithmetic(&mut self, name: &str, a: &Sized, b: &Sized) -> Sized {
        let time = |ty: &Ty| matches!(ty, Ty::Timestamp | Ty::Duration);
        match (&a.ty, &b.ty) {
            (Ty::Dyn, _) | (_, Ty::Dyn) => Sized::ANY,
            (Ty::Timestamp, Ty::Timestamp) => Sized::of(Ty::Duration, 32),
            (left, right) if time(left) && time(right) => {
                if matches!((left, right), (Ty::Duration, Ty::Duration)) {
                    a.clone()
                } else {
                    Sized::of(Ty::Timestamp, 32)
                }
            }
            (left, right) if left.is_number() && left.name() == right.name() => a.clone(),
            _ => {
                self.no_overload(name, &[a, b]);
                Sized::ANY
            }
        }
    }

    fn expect_bool(&mut self, name: &str, operands: &[&Sized]) {
        let fits = operands
            .iter()
            .all(|operand| matches!(operand.ty, Ty::Bool | Ty::Dyn));
        if !fits {
            self.no_overload(name, operands);
        }
    }

    fn no_overload(&mut self, name: &str, operands: &[&Sized]) {
        let types: Vec<_> = operands.iter().map(|operand| operand.ty.name()).collect();
        self.problems.push(format!(
            "found no matching overload for '{name}' applied to '({})'",
            types.join(", ")
        ));
    }

    /// Turns a comparison into a call of [`functions::EQUAL`].
    fn ignore_order(&mut self, schema: Structural, call: &mut CallExpr) {
        let number = self.unordered.len();
        self.unordered.push(schema);
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let mut operands = std::mem::take(&mut call.args);
        operands.push(IdedExpr {
            id: 0,
            expr: Expr::Literal(LiteralValue::Int(number.into())),
        });
        let equal = CallExpr {
            func_name: functions::EQUAL.to_owned(),
            target: None,
            args: operands,
        };
        if call.func_name == operators::EQUALS {
            *call = equal;
        } else {
            operators::LOGICAL_NOT.clone_into(&mut call.func_name);
            call.args = vec![IdedExpr {
                id: 0,
                expr: Expr::Call(equal),
            }];
        }
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr) -> Found {
        let range = self.expression(&mut comprehension.iter_range);
        let start = self.expression(&mut comprehension.accu_init);
        let entry = match range.value.ty.name() {
            "list" => range.value.element(),
            "map" => Sized::of(Ty::String, MAX_REQUEST),
            "dyn" => Sized::ANY,
            other => {
                self.problems.push(format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                ));
                Sized::ANY
            }
        };
        let depth = self.scopes.len();
        self.scopes
            .push((comprehension.accu_var.clone(), start.value.clone()));
        self.scopes.push((comprehension.iter_var.clone(), entry));
        if let Some(second) = &comprehension.iter_var2 {
            self.scopes.push((second.clone(), range.value.element()));
        }
        let condition = self.expression(&mut comprehension.loop_cond);
        let step = self.expression(&mut comprehension.loop_step);
        self.scopes.truncate(depth);
        let accumulated = match &step.value.ty {
            Ty::List(element) => Sized::of(Ty::List(Rc::clone(element)), range.value.size),
            _ => start.value.or(&step.value),
        };
        self.scopes
            .push((comprehension.accu_var.clone(), accumulated));
        let result = self.expression(&mut comprehension.result);
        self.scopes.truncate(depth);
        let turn = condition.cost.saturating_add(step.cost);
        let cost = range
            .cost
            .saturating_add(start.cost)
            .saturating_add(result.cost)
            .saturating_add(range.value.size.saturating_mul(turn));
        Found::new(result.value, cost)
    }
}

/// What is `value` or one of the values before it.
fn joined(before: Option<Sized>, value: Sized) -> Sized {
    match before {
        Some(before) => before.or(&value),
        None => value,
    }
}

fn literal_type(literal: &LiteralValue) -> Sized {
    match literal {
        LiteralValue::Boolean(_) => Sized::fixed(Ty::Bool),
        LiteralValue::Bytes(bytes) => Sized::of(Ty::Bytes, bytes.inner().len() as u64),
        LiteralValue::Double(_) => Sized::fixed(Ty::Double),
        LiteralValue::Int(_) => Sized::fixed(Ty::Int),
        LiteralValue::Null => Sized::fixed(Ty::Null),
        LiteralValue::String(text) => Sized::of(Ty::String, text.inner().len() as u64),
        LiteralValue::UInt(_) => Sized::fixed(Ty::Uint),
    }
}

/// Whether values of both types can be equal at all.
fn comparable(a: &Ty, b: &Ty) -> bool {
    if a.is_dyn() || b.is_dyn() || matches!(a, Ty::Null) || matches!(b, Ty::Null) {
        return true;
    }
    let container = |ty: &Ty| !ty.is_scalar();
    if container(a) && container(b) {
        let is_list = |ty: &Ty| ty.name() == "list";
        let optional = |ty: &Ty| matches!(ty, Ty::Optional(_));
        return is_list(a) == is_list(b) && optional(a) == optional(b);
    }
    a.name() == b.name()
}

/// Units of comparing both.
fn compared(a: &Sized, b: &Sized) -> u64 {
    if a.ty.has_length() && b.ty.has_length() {
        scaled(a.size.min(b.size), 10).max(1)
    } else {
        1
    }
}
