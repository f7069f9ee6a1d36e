//! Nodes register themselves with the status they have.

use super::Strategy;

#[derive(Debug)]
pub(super) struct Node;

impl Strategy for Node {
    fn keeps_status_on_create(&self) -> bool {
        true
    }
}
