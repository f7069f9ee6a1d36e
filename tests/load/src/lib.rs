//! Load on the data plane, and what benches measure with.
//!
//! A package of its own because it needs the router and nothing else of the platform, so that it is
//! built with optimisation in a fraction of the time.
//!
//! * [`machine`] reads what processes and the machine spend.
//! * [`router_bench`] measures the router beside its peers.
//! * [`statistics`] makes figures of samples.
//! * [`sandbox`] is a scripted sandbox that says who it is, [`client`] who talks to it; [`pattern`] and
//!   [`websocket`] are what both ends of its bodies and tunnels agree on.

pub mod client;
pub mod machine;
pub mod pattern;
pub mod router_bench;
pub mod sandbox;
pub mod statistics;
pub mod websocket;
