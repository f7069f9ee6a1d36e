//! `allOf`, `anyOf`, `oneOf` and `not`.

use serde_json::Value;

use super::super::error::FieldError;
use super::super::path::Path;
use super::super::render;
use super::super::structural::{Checks, Structural};
use super::Walk;

impl Walk {
    pub(super) fn junctors(&mut self, checks: &Checks, value: &Value, path: &Path<'_>) {
        if !checks.any_of.is_empty() {
            self.any_of(&checks.any_of, value, path);
        }
        if !checks.one_of.is_empty() {
            self.one_of(&checks.one_of, value, path);
        }
        if !checks.all_of.is_empty() {
            self.all_of(&checks.all_of, value, path);
        }
        if let Some(not) = &checks.not
            && attempt(not, value, path).errors.is_empty()
        {
            self.whole(format!(
                "{} must not validate the schema (not)",
                quoted(path)
            ));
        }
        self.checked += 1;
    }

    fn any_of(&mut self, alternatives: &[Structural], value: &Value, path: &Path<'_>) {
        let mut best: Option<Self> = None;
        for alternative in alternatives {
            let result = attempt(alternative, value, path);
            if result.errors.is_empty() {
                self.checked += result.checked;
                return;
            }
            if best
                .as_ref()
                .is_none_or(|best| result.checked > best.checked)
            {
                best = Some(result);
            }
        }
        self.whole(format!(
            "{} must validate at least one schema (anyOf)",
            quoted(path)
        ));
        self.merge(best);
    }

    fn one_of(&mut self, alternatives: &[Structural], value: &Value, path: &Path<'_>) {
        let mut best: Option<Self> = None;
        let mut valid = 0_usize;
        for alternative in alternatives {
            let result = attempt(alternative, value, path);
            if result.errors.is_empty() {
                valid += 1;
                best = None;
            } else if valid == 0
                && best
                    .as_ref()
                    .is_none_or(|best| result.checked > best.checked)
            {
                best = Some(result);
            }
        }
        if valid == 1 {
            return;
        }
        let found = if valid == 0 {
            "Found none valid".to_owned()
        } else {
            format!("Found {valid} valid alternatives")
        };
        self.whole(format!(
            "{} must validate one and only one schema (oneOf). {found}",
            quoted(path)
        ));
        self.merge(best);
    }

    fn all_of(&mut self, parts: &[Structural], value: &Value, path: &Path<'_>) {
        let mut valid = 0_usize;
        for part in parts {
            let result = attempt(part, value, path);
            if result.errors.is_empty() {
                valid += 1;
            }
            self.merge(Some(result));
        }
        if valid < parts.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            self.whole(format!(
                "{} must validate all the schemas (allOf){none}",
                quoted(path)
            ));
        }
    }

    /// An error that Kubernetes reports without a path.
    pub(super) fn whole(&mut self, detail: String) {
        self.add(FieldError::invalid(
            "",
            &Value::String(String::new()),
            detail,
        ));
    }

    fn merge(&mut self, other: Option<Self>) {
        let Some(other) = other else {
            return;
        };
        self.checked += other.checked;
        for error in other.errors {
            self.add(error);
        }
    }

    /// Adds an error unless it is there already.
    fn add(&mut self, error: FieldError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

fn attempt(schema: &Structural, value: &Value, path: &Path<'_>) -> Walk {
    let mut walk = Walk::default();
    walk.value(schema, value, None, path);
    walk
}

fn quoted(path: &Path<'_>) -> String {
    render::quote(&path.to_string())
}
