//! Load on the data plane, and what benches measure with.
//!
//! A package of its own because it needs the router and nothing else of the platform, so that it is
//! built with optimisation in a fraction of the time.
//!
//! * [`machine`] reads what processes and the machine spend.
//! * [`statistics`] makes figures of samples.

pub mod machine;
pub mod statistics;
