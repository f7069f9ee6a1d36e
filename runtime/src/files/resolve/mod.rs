//! Resolving `..` and links to a path without either.
//!
//! Used where the kernel's own confined resolution is too strict: for `..` behind a name that does not
//! exist, and for links whose text is absolute, or climbs above the root and comes back. The
//! result is a plain path, and every operation on it is confined by the kernel again, so a link swapped
//! in after this look leads to an error, not outside.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::error::FileError;
use super::path::TreePath;
use super::root::Opened;

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// The path relative to the root that `path` means, every link on it resolved; names that do not exist
/// are kept as they are. The root itself is `.`.
///
/// # Errors
/// [`FileError::Escapes`] when it means something outside, or too many links.
pub(super) fn resolve(root: &Opened, path: &TreePath) -> Result<PathBuf, FileError> {
    let [_, real] = &*root.names;
    let base = names(real);
    // An absolute position: the base's own names, then names beneath it.
    let mut at = base.clone();
    let mut open: VecDeque<OsString> = names(path.as_path()).into();
    let mut links = 0;
    while let Some(name) = open.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        let Some(inside) = beneath(&base, &at) else {
            if base.starts_with(&at) {
                continue;
            }
            // What outside looks like is nobody's business here, so no link there is read.
            return Err(FileError::Escapes);
        };
        let Some(target) = link(root, &inside)? else {
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(FileError::new("following links", Errno::LOOP));
        }
        at.pop();
        if let Some(rest) = root
            .names
            .iter()
            .find_map(|name| target.strip_prefix(name).ok())
        {
            at.clone_from(&base);
            push_front(&mut open, rest);
        } else {
            if target.is_absolute() {
                at.clear();
            }
            push_front(&mut open, &target);
        }
    }
    let inside = beneath(&base, &at).ok_or(FileError::Escapes)?;
    Ok(if inside.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        inside
    })
}

/// The text of the link at a path without links; `None` when there is none.
fn link(root: &Opened, inside: &Path) -> Result<Option<PathBuf>, FileError> {
    if inside.as_os_str().is_empty() {
        return Ok(None);
    }
    match root.dir.read_link_contents(inside) {
        Ok(target) => Ok(Some(target)),
        Err(error) if is_no_link(&error) => Ok(None),
        Err(error) => Err(FileError::new("following links", error)),
    }
}

/// Not a link, or nothing there: whatever is wrong shows when the operation is run.
fn is_no_link(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ACCESS)
    )
}

fn beneath(base: &[OsString], at: &[OsString]) -> Option<PathBuf> {
    at.strip_prefix(base).map(|rest| rest.iter().collect())
}

fn push_front(open: &mut VecDeque<OsString>, path: &Path) {
    for name in names(path).into_iter().rev() {
        open.push_front(name);
    }
}

fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
