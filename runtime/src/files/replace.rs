//! Replacing text in files.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use regex::bytes::Regex;
use rustix::fs::{Gid, Mode, Stat, Uid};
use rustix::io::Errno;

use super::caller::Caller;
use super::error::FileError;
use super::path::TreePath;
use super::pattern::{Pattern, Syntax};
use super::root::Root;
use super::spot::{LastLink, bits_of};
use super::stat::version;
use super::template::{Bounded, Template};
use super::temporary::{Existing, Temporary};
use super::text::{Content, Selection, read_text};
use super::walk::vanished;

/// What to replace with what.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// What is replaced. It may span lines.
    pub pattern: Pattern,
    /// What comes in its place. With [`Syntax::Regex`], `$1` and `${name}` stand for groups and `$$` for a dollar.
    pub with: String,
    /// Whether `with` is taken as it is.
    pub syntax: Syntax,
    /// How many occurrences there must be in all; otherwise nothing is written.
    pub expected: Option<u64>,
    /// The largest file in bytes.
    pub max_file_bytes: u64,
}

/// Where to replace.
#[derive(Clone, Debug)]
pub enum Targets {
    /// These files, each of which must exist and be text.
    Named(Vec<TreePath>),
    /// Files below a path.
    Below(TreePath, Selection),
}

/// What was replaced.
#[derive(Debug, Default)]
pub struct Replaced {
    /// The files that were written, relative to the root, and how many occurrences each had.
    pub files: Vec<(PathBuf, u64)>,
    /// The files that should have been written and were not.
    pub failed: Vec<(PathBuf, FileError)>,
    /// Files left out because they are not text.
    pub binary: u64,
    /// Files left out because they are larger than the limit.
    pub large: u64,
    /// Files and directories that could not be read.
    pub unreadable: u64,
}

/// So many files are written at once.
const MAX_FILES: usize = 10_000;
/// What a file may become, in bytes.
const MAX_RESULT: usize = 128 << 20;

/// A file that has occurrences.
struct Planned {
    path: PathBuf,
    count: u64,
    version: String,
}

impl Root {
    /// Replaces text in files. Everything is counted first; then every file is written for itself, in
    /// one step, unless somebody else has changed it since it was counted.
    ///
    /// # Errors
    /// See [`FileError`]; nothing was written then. What could not be written after others were is in
    /// [`Replaced::failed`].
    pub fn replace(
        &self,
        targets: &Targets,
        replacement: &Replacement,
        caller: &Caller,
    ) -> Result<Replaced, FileError> {
        let mut replaced = Replaced::default();
        let planned = match targets {
            Targets::Named(paths) => self.count_named(paths, replacement, caller)?,
            Targets::Below(path, selection) => {
                self.count_below(path, selection, replacement, &mut replaced, caller)?
            }
        };
        let total: u64 = planned.iter().map(|file| file.count).sum();
        if let Some(expected) = replacement.expected.filter(|expected| *expected != total) {
            return Err(FileError::Conflict(format!(
                "{total} occurrences were found and {expected} expected; nothing was written"
            )));
        }
        for file in planned {
            caller.check()?;
            match self.rewrite(&file, replacement, caller) {
                Ok(()) => replaced.files.push((file.path, file.count)),
                // Nobody is left to be told of the others.
                Err(FileError::Cancelled) => return Err(FileError::Cancelled),
                Err(error) if replaced.files.is_empty() && replaced.failed.is_empty() => {
                    return Err(error);
                }
                Err(error) => replaced.failed.push((file.path, error)),
            }
        }
        Ok(replaced)
    }

    fn count_named(
        &self,
        paths: &[TreePath],
        replacement: &Replacement,
        caller: &Caller,
    ) -> Result<Vec<Planned>, FileError> {
        let mut planned: Vec<Planned> = Vec::new();
        let mut buffer = Vec::new();
        for path in paths {
            caller.check()?;
            let path = path.as_path();
            // Named twice, it is still one file.
            if planned.iter().any(|file| file.path == path) {
                continue;
            }
            let spot = self.spot_below(
                "opening the file",
                &TreePath::relative(path),
                LastLink::Follow,
            )?;
            match read_text(
                &spot.dir,
                &spot.name,
                &mut buffer,
                replacement.max_file_bytes,
            )? {
                Content::Text(stat) => {
                    planned.extend(replacement.plan(path.to_owned(), &buffer, &stat, caller)?);
                }
                Content::Binary => {
                    return Err(FileError::Invalid(format!(
                        "{} is not text; expected text files",
                        path.display()
                    )));
                }
                Content::Large => {
                    let limit = replacement.max_file_bytes;
                    return Err(FileError::TooLarge { limit });
                }
            }
        }
        Ok(planned)
    }

    fn count_below(
        &self,
        path: &TreePath,
        selection: &Selection,
        replacement: &Replacement,
        replaced: &mut Replaced,
        caller: &Caller,
    ) -> Result<Vec<Planned>, FileError> {
        let mut planned = Vec::new();
        let mut buffer = Vec::new();
        let mut outcome = Ok(());
        let unreadable = self.select(path, selection, caller, |dir, name, path| {
            match read_text(dir, name, &mut buffer, replacement.max_file_bytes) {
                Ok(Content::Text(stat)) => match replacement.plan(path, &buffer, &stat, caller) {
                    Ok(file) => planned.extend(file),
                    Err(error) => {
                        outcome = Err(error);
                        return ControlFlow::Break(());
                    }
                },
                Ok(Content::Binary) => replaced.binary += 1,
                Ok(Content::Large) => replaced.large += 1,
                Err(error) if vanished(&error) => {}
                Err(_) => replaced.unreadable += 1,
            }
            if planned.len() > MAX_FILES {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        outcome?;
        if planned.len() > MAX_FILES {
            return Err(FileError::Invalid(format!(
                "more than {MAX_FILES} files match; expected a narrower selection; nothing was written"
            )));
        }
        replaced.unreadable += unreadable;
        Ok(planned)
    }

    fn rewrite(
        &self,
        planned: &Planned,
        replacement: &Replacement,
        caller: &Caller,
    ) -> Result<(), FileError> {
        let changed = || FileError::Conflict("the file was changed by somebody else".into());
        let path = TreePath::relative(&planned.path);
        let spot = self.spot_below("opening the file", &path, LastLink::Follow)?;
        let mut content = Vec::new();
        let stat = match read_text(
            &spot.dir,
            &spot.name,
            &mut content,
            replacement.max_file_bytes,
        )? {
            Content::Text(stat) if version(&stat) == planned.version => stat,
            _ => return Err(changed()),
        };
        let content = replacement.apply(&content, caller)?;
        let failed = |error| FileError::new("writing the file", error);
        let (temporary, mut file) = Temporary::file(&spot.dir).map_err(failed)?;
        file.write_all(&content).map_err(failed)?;
        resemble(&file, &stat)?;
        file.sync_data().map_err(failed)?;
        let _moment = self.commits();
        match spot.stat() {
            Ok(now) if version(&now) == planned.version => {}
            _ => return Err(changed()),
        }
        temporary
            .place(&spot.name, Existing::Replace)
            .map_err(|error| failed(error.into()))
    }
}

/// The owner, where that is allowed, and the permission bits.
fn resemble(file: &std::fs::File, stat: &Stat) -> Result<(), FileError> {
    let failed = |error: Errno| FileError::new("keeping the permissions", error);
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let mut bits = bits_of(stat);
    match rustix::fs::fchown(file, Some(uid), Some(gid)) {
        Ok(()) => {}
        // It is another's now, who must not run it with this user's rights.
        Err(Errno::PERM) => bits &= 0o1777,
        Err(error) => return Err(failed(error)),
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(bits)).map_err(failed)
}

impl Replacement {
    fn plan(
        &self,
        path: PathBuf,
        content: &[u8],
        stat: &Stat,
        caller: &Caller,
    ) -> Result<Option<Planned>, FileError> {
        let mut count = 0;
        let regex = &self.pattern.regex;
        let find = |text, at| regex.find_at(text, at).map(|found| (found.range(), ()));
        self.pattern.each(content, caller, find, |_, ()| {
            count += 1;
            Ok(())
        })?;
        Ok((count > 0).then(|| Planned {
            path,
            count,
            version: version(stat),
        }))
    }

    fn apply(&self, content: &[u8], caller: &Caller) -> Result<Vec<u8>, FileError> {
        let regex: &Regex = &self.pattern.regex;
        let template = match self.syntax {
            Syntax::Regex => Template::parse(&self.with, regex),
            Syntax::Literal => Template::literal(&self.with),
        };
        let mut result = Bounded {
            bytes: Vec::with_capacity(content.len()),
            limit: MAX_RESULT,
        };
        let mut end = 0;
        let find = |text, at| {
            let captures = regex.captures_at(text, at)?;
            Some((captures.get(0)?.range(), captures))
        };
        self.pattern
            .each(content, caller, find, |found, captures| {
                result.push(content.get(end..found.start).unwrap_or_default())?;
                template.expand(&captures, &mut result)?;
                end = found.end;
                Ok(())
            })?;
        result.push(content.get(end..).unwrap_or_default())?;
        Ok(result.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replacement(pattern: &str, with: String) -> Replacement {
        Replacement {
            pattern: Pattern::compile(pattern, Syntax::Regex, false).unwrap(),
            with,
            syntax: Syntax::Regex,
            expected: None,
            max_file_bytes: u64::MAX,
        }
    }

    #[test]
    fn one_match_cannot_grow_beyond_the_limit() {
        // It would be 1 TiB.
        let replacement = replacement("(?s).+", "$0".repeat(1 << 20));
        let content = vec![b'a'; 1 << 20];
        let error = replacement.apply(&content, &Caller::default()).unwrap_err();
        assert!(matches!(error, FileError::Invalid(_)), "{error}");
    }

    #[test]
    fn matches_are_not_looked_for_when_nobody_waits() {
        let replacement = replacement("a", "b".into());
        let (caller, waiting) = Caller::new();
        assert_eq!(replacement.apply(b"banana", &caller).unwrap(), b"bbnbnb");
        drop(waiting);
        let error = replacement.apply(b"banana", &caller).unwrap_err();
        assert!(matches!(error, FileError::Cancelled), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(directory.path()).unwrap();
        let stat = rustix::fs::fstat(directory).unwrap();
        let planned = replacement.plan("f".into(), b"banana", &stat, &caller);
        assert!(matches!(planned, Err(FileError::Cancelled)));
    }
}
