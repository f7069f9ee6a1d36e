//! The process engine: one table of commands, whichever face started them.
//!
//! ```text
//! Command --Processes::spawn--> Process ---- driver: pipes or terminal -> Journal, exit -> Exit
//!   (in a thread: streams,         |              (numbered, bounded)   (once, when it happened)
//!    limits, user, clone)          +-- input: pipe or keyboard
//!              collect::run_to_end +-- follows the journal, keeps both ends of each output
//!              Leash --------------+-- ends it when its caller goes away
//!              tree::Hunt ---------+-- signals every descendant
//! ```
//!
//! A command leads a session of its own. Its output goes to a [`Journal`] of bounded size; a reader that
//! falls behind either holds the command back or skips, never grows memory. When the leader exits,
//! its exit is reported at once; children it left in the background keep running and no longer
//! matter to the command. A deadline, a cancel or a shutdown ends the whole tree, also those
//! children that moved to a session of their own.
//!
//! The engine knows nothing of HTTP and never decides what a face answers.

mod budget;
mod capture;
mod collect;
mod command;
mod driver;
mod environment;
mod input;
mod journal;
mod leftovers;
mod limits;
mod lookup;
mod process;
mod reaper;
mod start;
mod streams;
mod table;
mod terminal;
mod tree;
mod user;

pub use capture::Captured;
pub use collect::{Held, Limits, Outcome, run_to_end};
pub use command::{Command, Input};
pub use environment::Environment;
pub use input::InputError;
pub use journal::{Entry, Follow, Item, Journal, Stream};
pub use limits::{LimitError, ResourceLimits};
pub use process::{Cause, Ended, Exit, Leash, Process, ProcessId};
pub use table::{Processes, Settings, SpawnError};
pub use terminal::TerminalSize;
pub use user::{User, UserError};
