//! Terminals of commands: a pair of ends, of which this process keeps one.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize};

/// How many characters fit a terminal. A dimension of 0 means unknown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl TerminalSize {
    /// From numbers of any size; a terminal's are cut to what the kernel can hold.
    pub fn clamped(columns: u32, rows: u32) -> Self {
        let clamp = |number| u16::try_from(number).unwrap_or(u16::MAX);
        Self {
            columns: clamp(columns),
            rows: clamp(rows),
        }
    }
}

/// This process's end of a command's terminal, until the command has ended.
#[derive(Debug)]
pub(super) struct Terminal {
    end: Mutex<Option<Arc<OwnedFd>>>,
}

impl Terminal {
    /// A terminal of this size, and the end the command gets.
    pub(super) fn open(size: TerminalSize) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&ours)?;
        rustix::pty::unlockpt(&ours)?;
        // Reading and writing never wait in the system, but for the event loop.
        rustix::io::ioctl_fionbio(&ours, true)?;
        let theirs = match rustix::pty::ioctl_tiocgptpeer(&ours, flags) {
            Ok(theirs) => theirs,
            Err(error) if is_unknown(error) => by_name(&ours)?,
            Err(error) => return Err(error.into()),
        };
        // Before the program starts, so that it never sees another size.
        set_size(&ours, size)?;
        let terminal = Self {
            end: Mutex::new(Some(Arc::new(ours))),
        };
        Ok((terminal, theirs))
    }

    /// Another handle of this process's end, for reading or writing.
    pub(super) fn handle(&self) -> io::Result<OwnedFd> {
        match self.end.lock().as_deref() {
            Some(end) => Ok(rustix::io::fcntl_dupfd_cloexec(end, 3)?),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Changes the size and tells the programs in the foreground; `false` when the command has ended.
    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<bool> {
        match self.end.lock().as_deref() {
            Some(end) => set_size(end, size).map(|()| true),
            None => Ok(false),
        }
    }

    /// What to type so that whoever reads the terminal sees the end of its input. `line_open`: whether
    /// something was typed since the last end of a line; the first end then only hands that over.
    pub(super) fn end_of_input(&self, line_open: bool) -> io::Result<Vec<u8>> {
        let guard = self.end.lock();
        let Some(end) = guard.as_deref() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let modes = rustix::termios::tcgetattr(end)?;
        let key = modes.special_codes[SpecialCodeIndex::VEOF];
        let lines = modes.local_modes.contains(LocalModes::ICANON);
        Ok(vec![key; if lines && line_open { 2 } else { 1 }])
    }

    /// Lets go of the terminal.
    pub(super) fn close(&self) {
        *self.end.lock() = None;
    }
}

/// Whether this kernel cannot hand out the other end by itself: Linux before 4.13, and kernels in user
/// space.
fn is_unknown(error: Errno) -> bool {
    matches!(error, Errno::NOTTY | Errno::INVAL | Errno::NOSYS)
}

/// The command's end by its name, which the file system may have given to something else.
fn by_name(ours: &OwnedFd) -> io::Result<OwnedFd> {
    let name = rustix::pty::ptsname(ours, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let theirs = rustix::fs::open(name.as_c_str(), flags | OFlags::NONBLOCK, Mode::empty())?;
    let found = rustix::fs::fstat(&theirs)?;
    let number = name.to_str().ok().and_then(|name| name.rsplit('/').next());
    let is_it = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && TERMINALS.contains(&rustix::fs::major(found.st_rdev))
        && number == Some(&rustix::fs::minor(found.st_rdev).to_string());
    if !is_it {
        let text = format!("{name:?} is not the other end of the terminal");
        return Err(io::Error::other(text));
    }
    // The command must wait when it reads.
    rustix::io::ioctl_fionbio(&theirs, false)?;
    Ok(theirs)
}

/// The numbers of the kernel's driver for the commands' ends.
const TERMINALS: RangeInclusive<u32> = 136..=143;

fn set_size(end: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(end, size)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_end_by_name_is_the_other_end_of_the_same_terminal() {
        let size = TerminalSize {
            columns: 91,
            rows: 17,
        };
        let (terminal, _theirs) = Terminal::open(size).unwrap();
        let ours = terminal.handle().unwrap();
        let named = by_name(&ours).unwrap();
        let seen = rustix::termios::tcgetwinsize(&named).unwrap();
        assert_eq!((seen.ws_col, seen.ws_row), (91, 17));
        assert!(
            !rustix::fs::fcntl_getfl(&named)
                .unwrap()
                .contains(OFlags::NONBLOCK)
        );
        assert!(
            rustix::io::fcntl_getfd(&named)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        let mut named = File::from(named);
        File::from(ours).write_all(b"typed\n").unwrap();
        let mut line = [0; 6];
        named.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"typed\n");
    }

    #[test]
    fn only_a_kernel_without_the_call_is_asked_by_name() {
        for (error, unknown) in [
            (Errno::NOTTY, true),
            (Errno::INVAL, true),
            (Errno::NOSYS, true),
            (Errno::MFILE, false),
            (Errno::IO, false),
            (Errno::ACCESS, false),
        ] {
            assert_eq!(is_unknown(error), unknown, "{error}");
        }
        // What is no terminal has no other end.
        assert!(by_name(&File::open("/dev/null").unwrap().into()).is_err());
    }
}
