//! The harness of the suites: a cluster in the test's own process, a node that simulates pods, ways to
//! wait and to count, and the load that the benches make.
//!
//! Suites use it and nothing else starts servers. Everything ends with the value that started it.

pub mod cluster;
pub mod eventually;
pub mod load;
pub mod replica;
pub mod simulated_node;
pub mod writes;

pub use cluster::Cluster;
pub use eventually::eventually;
pub use replica::Replica;
