//! Writing to a command's standard input.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

use super::terminal::Terminal;

/// Why input was not taken.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The command was started without one.
    #[error("the process was started without an open standard input")]
    None,
    /// It was closed before.
    #[error("the standard input of the process is closed")]
    Closed,
    /// Nobody reads it any more: the process has ended or closed its side.
    #[error("the process no longer reads its standard input")]
    Unread,
    /// The system refused.
    #[error("writing to the standard input of the process failed")]
    System(#[from] io::Error),
}

/// A command's standard input. Writers take turns; a write that is cancelled may have written a part.
#[derive(Debug)]
pub(super) enum Writer {
    None,
    Pipe(Mutex<Option<pipe::Sender>>),
    Terminal(Mutex<Option<Keyboard>>),
}

#[derive(Debug)]
pub(super) struct Keyboard {
    keys: pipe::Sender,
    terminal: Arc<Terminal>,
    /// Whether a line was begun and not ended.
    line_open: bool,
}

impl Writer {
    pub(super) fn pipe(sender: pipe::Sender) -> Self {
        Self::Pipe(Mutex::new(Some(sender)))
    }

    pub(super) fn terminal(terminal: Arc<Terminal>) -> io::Result<Self> {
        let keyboard = Keyboard {
            keys: pipe::Sender::from_owned_fd_unchecked(terminal.handle()?)?,
            terminal,
            line_open: false,
        };
        Ok(Self::Terminal(Mutex::new(Some(keyboard))))
    }

    /// Writes all of `bytes`, waiting while the command does not read.
    pub(super) async fn write(&self, bytes: &[u8]) -> Result<(), InputError> {
        match self {
            Self::None => Err(InputError::None),
            Self::Pipe(sender) => {
                let mut open = sender.lock().await;
                let sender = open.as_mut().ok_or(InputError::Closed)?;
                sender.write_all(bytes).await.map_err(unread)
            }
            Self::Terminal(keyboard) => {
                let mut open = keyboard.lock().await;
                let keyboard = open.as_mut().ok_or(InputError::Unread)?;
                keyboard.press(bytes).await
            }
        }
    }

    /// Says that nothing will follow. A pipe is closed; at a terminal the key for it is pressed, and
    /// more may be written later, as people do.
    pub(super) async fn finish(&self) -> Result<(), InputError> {
        match self {
            Self::None => Err(InputError::None),
            Self::Pipe(sender) => match sender.lock().await.take() {
                Some(_) => Ok(()),
                None => Err(InputError::Closed),
            },
            Self::Terminal(keyboard) => {
                let mut open = keyboard.lock().await;
                let keyboard = open.as_mut().ok_or(InputError::Unread)?;
                let keys = keyboard.terminal.end_of_input(keyboard.line_open)?;
                keyboard.press(&keys).await?;
                keyboard.line_open = false;
                Ok(())
            }
        }
    }

    /// Lets go of it when the command has ended.
    pub(super) async fn close(&self) {
        match self {
            Self::None => {}
            Self::Pipe(sender) => drop(sender.lock().await.take()),
            Self::Terminal(keyboard) => drop(keyboard.lock().await.take()),
        }
    }
}

impl Keyboard {
    async fn press(&mut self, keys: &[u8]) -> Result<(), InputError> {
        if let Some(last) = keys.last() {
            self.line_open = !matches!(last, b'\n' | b'\r');
        }
        self.keys.write_all(keys).await.map_err(unread)
    }
}

fn unread(error: io::Error) -> InputError {
    match error.raw_os_error() {
        Some(libc::EPIPE | libc::EIO) => InputError::Unread,
        _ => InputError::System(error),
    }
}
