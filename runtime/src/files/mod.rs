//! The file engine: one tree beneath a root directory, whichever face asks.
//!
//! Every path a client sends is resolved beneath a handle of the root by the kernel
//! (`openat2(RESOLVE_BENEATH)` where it exists, component by component where not), so neither `..`,
//! nor links, nor links swapped in at the wrong moment lead outside. Links whose text leaves the root
//! and comes back are followed as users expect, through a second resolution that the same kernel check
//! confines. Only regular files are read and written; FIFOs, sockets and devices are refused before
//! they could block anybody. Writes are atomic: a reader sees the old file or the new one.
//!
//! The engine blocks and knows nothing of HTTP; [`read`] and [`write`] bring it to async callers.

mod archive;
mod attributes;
mod caller;
mod condition;
mod copy;
mod error;
mod glob;
mod list;
mod mkdir;
mod names;
mod path;
mod pattern;
pub(crate) mod read;
mod remove;
mod replace;
mod resolve;
mod root;
mod search;
mod spot;
mod stat;
mod template;
mod temporary;
mod text;
mod transfer;
mod walk;
mod watch;
pub(crate) mod write;

pub use archive::{Packing, UnpackError, Unpacked};
pub use attributes::Owner;
pub use caller::{Caller, Waiting};
pub use condition::{Condition, Versions};
pub use copy::Copied;
pub use error::FileError;
pub use glob::{Bare, Globbed, Globs};
pub use list::{Kind, Listed, Listing};
pub use mkdir::{Made, Parents};
pub use path::TreePath;
pub use pattern::{Pattern, Syntax};
pub use read::{OpenFile, Reading};
pub use remove::Removal;
pub use replace::{Replaced, Replacement, Targets};
pub use root::{Root, RootError};
pub use search::{Line, Search, Searched};
pub use spot::LastLink;
pub use stat::{Status, Type};
pub use temporary::Existing;
pub use text::Selection;
pub use watch::{Change, Depth, Drained, MAX_DIRECTORIES, Watch};
pub use write::{Dangling, FileMode, Upload, UploadOptions};

#[cfg(test)]
mod tests;
