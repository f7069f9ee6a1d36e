//! Nodes register themselves with the status they have.

use serde_json::Value;

use super::Strategy;

#[derive(Debug)]
pub(super) struct Node;

impl Strategy for Node {
    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }
}
