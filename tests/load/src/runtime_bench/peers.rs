//! Who is measured: the runtime by each of its faces, the floors under it, and the upstream Python stack.

use serde::Serialize;

use crate::bench::figures;

/// One of those that are measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Spawning and waiting alone, in the bench.
    Spawn,
    /// The same, and reading both outputs to their ends.
    SpawnPiped,
    /// The program cp.
    Cp,
    /// The runtime: `/execute`, `/v1/files`.
    Runtime,
    /// The runtime: gRPC.
    Grpc,
    /// The runtime: `/upload`, `/download`.
    Legacy,
    /// The runtime in a process of the bench's own that could be larger.
    Embedded,
    /// The same, with 1 GiB resident.
    Grown,
    /// uvicorn, FastAPI and subprocess.
    Python,
    /// The same, with 1 GiB resident.
    PythonGrown,
}

/// A program that serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Who {
    /// The runtime.
    Runtime,
    /// grown-runtime with nothing to hold.
    Embedded,
    /// grown-runtime.
    Grown,
    /// The Python script.
    Python,
    /// The Python script with something to hold.
    PythonGrown,
}

impl Kind {
    /// Whose answers are measured; `None` when nobody serves.
    pub fn who(self) -> Option<Who> {
        match self {
            Self::Spawn | Self::SpawnPiped | Self::Cp => None,
            Self::Runtime | Self::Grpc | Self::Legacy => Some(Who::Runtime),
            Self::Embedded => Some(Who::Embedded),
            Self::Grown => Some(Who::Grown),
            Self::Python => Some(Who::Python),
            Self::PythonGrown => Some(Who::PythonGrown),
        }
    }

    /// Whether it may fail without ending the run.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Python | Self::PythonGrown)
    }
}

impl Who {
    /// Whether it is the upstream stack.
    pub fn is_python(self) -> bool {
        matches!(self, Self::Python | Self::PythonGrown)
    }

    /// Whether it holds memory.
    pub fn is_grown(self) -> bool {
        matches!(self, Self::Grown | Self::PythonGrown)
    }
}

impl figures::Peer for Kind {
    const OURS: Self = Self::Runtime;
    const RATIOS: &'static str = "runtime_to";

    fn name(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::SpawnPiped => "spawn+pipes",
            Self::Cp => "cp",
            Self::Runtime => "runtime",
            Self::Grpc => "runtime gRPC",
            Self::Legacy => "runtime legacy",
            Self::Embedded => "embedded",
            Self::Grown => "embedded, 1 GiB",
            Self::Python => "python",
            Self::PythonGrown => "python, 1 GiB",
        }
    }

    fn is_ours(self) -> bool {
        self.who().is_some() && !self.is_foreign()
    }
}
