//! Terminals of commands: a pair of ends, of which this process keeps one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
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
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
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

fn set_size(end: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(end, size)?)
}
