//! Making directories.

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::error::FileError;
use super::path::TreePath;
use super::root::Root;
use super::spot::{LastLink, kind_of, open_subdirectory};
use super::stat::look;

/// What is made besides the directory itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parents {
    /// Missing parents are made too, with 0777 as reduced by the process's umask.
    Create,
    /// They must exist.
    Require,
}

/// Whether anything was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Made {
    /// The directory is new.
    New,
    /// There was a directory already.
    Existed,
}

impl Root {
    /// Makes a directory. With `mode` it gets exactly these permission bits, without it 0777 as reduced
    /// by the process's umask. A directory that exists is left as it is.
    ///
    /// # Errors
    /// See [`FileError`]: something else at the path is `EXIST`, a parent that is no directory
    /// `NOTDIR`.
    pub fn make_directory(
        &self,
        path: &TreePath,
        parents: Parents,
        mode: Option<u32>,
    ) -> Result<Made, FileError> {
        let context = "making the directory";
        let failed = |error: Errno| FileError::new(context, error);
        if parents == Parents::Create
            && let Some(parent) = path.as_path().parent()
        {
            self.create_directory(context, &TreePath::relative(parent))?;
        }
        let Some(spot) = self.spot(context, path, LastLink::Follow)? else {
            return Ok(Made::Existed);
        };
        // Until the mode is set, others see nothing of it.
        let creation = Mode::from_raw_mode(if mode.is_some() { 0o700 } else { 0o777 });
        match rustix::fs::mkdirat(&spot.dir, &spot.name, creation) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = look(&spot.dir, &spot.name).map_err(failed)?;
                return match found.as_ref().map(kind_of) {
                    Some(FileType::Directory) => Ok(Made::Existed),
                    _ => Err(failed(Errno::EXIST)),
                };
            }
            Err(error) => return Err(failed(error)),
        }
        if let Some(mode) = mode {
            let opened = open_subdirectory(&spot.dir, &spot.name).map_err(failed)?;
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode)).map_err(failed)?;
        }
        Ok(Made::New)
    }
}
