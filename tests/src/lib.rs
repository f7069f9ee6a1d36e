//! The harness of the suites: a cluster in the test's own process, a node that simulates pods, and
//! ways to wait and to count.
//!
//! Suites use it and nothing else starts servers. Everything ends with the value that started it.

pub mod cluster;
pub mod eventually;
pub mod replica;
pub mod simulated_node;
pub mod writes;

pub use cluster::Cluster;
pub use eventually::eventually;
pub use replica::Replica;
