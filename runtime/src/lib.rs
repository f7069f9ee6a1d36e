//! The in-pod runtime: commands and files of one sandbox over HTTP.
//!
//! ```text
//! main: args -> Config -> Runtime::builder(config).build()? -> bind -> serve
//!
//!   connection loop (service::server)
//!     -> routes: access log, token, then one of the faces
//!          api::legacy   /execute /upload /download /list /exists   (k8s-agent-sandbox SDKs)
//!          api::daemon   /v1/files /v1/fs /v1/archive /v1/processes ... (the daemon API)
//!          api::grpc     process.v1.ProcessService, health and reflection
//!          api::health   /healthz /metrics
//!     -> exec::Processes   one table of commands        -> sys (clone, /proc)
//!        files::Root       one tree beneath a handle    -> cap-std (openat2)
//! ```
//!
//! Faces are thin: they parse, call an engine, and format. Both engines are shared by all faces on all
//! ports. The crate knows neither Kubernetes nor the platform's resources, and runs as well inside
//! another process: no globals, no signal handlers, no process exit outside `main`.

mod api;
pub mod app;
pub mod args;
pub mod config;
pub mod exec;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod install;
mod metrics;
pub mod program;
pub mod proto;
mod routes;
mod sys;

pub use app::{Runtime, StartError};
pub use config::Config;
