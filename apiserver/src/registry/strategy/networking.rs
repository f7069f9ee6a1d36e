//! Kinds that only have rules: policies, ingresses, slices, budgets and leases.

use serde_json::Value;

use super::{Context, Strategy};
use crate::registry::rules;
use crate::schema::FieldError;

/// A kind whose only hook is the rules it checks.
macro_rules! checked {
    ($name:ident, $rules:expr) => {
        #[derive(Debug)]
        pub(super) struct $name;

        impl Strategy for $name {
            fn validate(
                &self,
                _ctx: &Context<'_>,
                new: &Value,
                old: Option<&Value>,
            ) -> Vec<FieldError> {
                let rules: fn(&Value, Option<&Value>) -> Vec<FieldError> = $rules;
                rules(new, old)
            }
        }
    };
}

checked!(NetworkPolicy, |new, _old| rules::network_policy(new));
checked!(Ingress, |new, _old| rules::ingress(new));
checked!(EndpointSlice, rules::endpoint_slice);
checked!(DisruptionBudget, |new, _old| rules::disruption_budget(new));
checked!(Lease, |new, _old| rules::lease(new));
