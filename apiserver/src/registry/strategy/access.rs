//! Roles and bindings: names with few rules, and references that stay.

use serde_json::Value;

use super::{Context, NameRule, Strategy};
use crate::registry::rules;
use crate::schema::FieldError;

/// Roles and cluster roles.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) namespaced: bool,
}

impl Strategy for Role {
    fn validate(&self, _ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        rules::role(new, self.namespaced)
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

/// Bindings of roles and of cluster roles.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) namespaced: bool,
}

impl Strategy for Binding {
    fn validate(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        rules::binding(new, old, self.namespaced)
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}
