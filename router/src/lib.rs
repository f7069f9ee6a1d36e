//! The data plane: carries requests to the sandbox named in their headers.
//!
//! ```text
//!                    watches (pods, Sandboxes)
//!                              |
//!                              v
//! client -> server ->  stack -> forward -> resolve: table -> address of the live pod
//!           parking,   routes   phases of    |
//!           drain               a request    v
//!                                       upstream -> connection -> sandbox
//! ```
//!
//! * [`target`] reads the routing headers, and nothing else does.
//! * [`resolve`] keeps the table that says where each sandbox is. Addresses come from there, not from
//!   callers.
//! * [`authz`] decides who may reach which sandbox.
//! * `forward` is the proxy itself: streaming bodies, upgrades, timeouts, repeated dialling.
//! * `upstream` holds connections to sandboxes; `server` holds those of clients.
//! * [`error`] is every answer the router makes itself.
//!
//! Everything is constructed by its caller: [`Router::builder`] with a [`Config`], then
//! [`Router::serve`]. There are no globals, so routers can share a process with other programs.

pub mod access_log;
mod app;
pub mod args;
pub mod authz;
pub mod config;
pub mod error;
mod files;
mod forward;
mod limits;
pub mod metrics;
pub mod resolve;
mod server;
mod stack;
pub mod target;
pub mod tls;
mod upstream;

pub use app::{BuildError, Control, Listener, Router, RouterBuilder};
pub use config::Config;
pub use files::ReadError;
