//! Load on the data plane, and what benches measure with.
//!
//! A package of its own because it needs the router and nothing else of the platform, so
//! that it is built with optimisation in a fraction of the time.
//!
//! * [`machine`] reads what processes and the machine spend.
//! * [`router_bench`] measures the router beside its peers, [`runtime_bench`] the runtime; [`bench`](mod@bench) is what they share.
//! * [`statistics`] makes figures of samples.
//! * [`bodies`] are large and slow, [`many`] connections open at once, and [`soak`] is mixed load while pods
//!   are replaced: the suite of the router.
//! * [`router`] is the router as a program beside the suite, [`programs`] what any such program needs.
//! * [`sandbox`] is a scripted sandbox that says who it is, [`client`] who talks to it; [`pattern`] and
//!   [`websocket`] are what both ends of its bodies and tunnels agree on, and [`network`] has addresses for it.

pub mod bench;
pub mod bodies;
pub mod client;
pub mod machine;
pub mod many;
pub mod network;
pub mod pattern;
pub mod programs;
pub mod router;
pub mod router_bench;
pub mod runtime_bench;
pub mod sandbox;
pub mod soak;
pub mod statistics;
pub mod websocket;
