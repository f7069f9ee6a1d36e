//! The process chassis that the programs share: argument groups, logging, metrics, readiness, the
//! admin endpoints, listeners, the connection loop, TLS, shutdown and joined tasks, the allocator, and
//! errors as their users read them.
//!
//! Nothing here knows Kubernetes or the platform's own kinds. Everything is constructed by its
//! caller and handed on; there are no globals besides the `tracing` subscriber, which only a
//! program's `main` installs. A program in one process with others (local mode, tests) therefore
//! behaves as it does alone.
//!
//! ```text
//! main: args -> log::init -> Shutdown + signals ->  app: Tasks, Metrics, Readiness
//!                                                   |- listen::bind -> Server::serve (data)
//!                                                   `- listen::bind -> Server::serve (admin::router)
//! ```

pub mod admin;
pub mod allocator;
pub mod args;
pub mod causes;
pub mod clock;
pub mod gather;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod pprof;
pub mod process;
pub mod readiness;
pub mod server;
pub mod shutdown;
pub mod tasks;
pub mod tls;
