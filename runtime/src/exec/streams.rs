//! The standard streams of a command about to start: both ends of its pipes, or of its terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe;

use super::command::Input;
use super::driver::Output;
use super::input::Writer;
use super::terminal::Terminal;

/// Both ends, until the command has started.
#[derive(Debug)]
pub(super) struct Streams<'a> {
    writer: Writer,
    terminal: Option<Arc<Terminal>>,
    output: Output,
    theirs: Theirs<'a>,
}

/// The command's ends.
#[derive(Debug)]
enum Theirs<'a> {
    Pipes {
        input: ReadEnd<'a>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal(OwnedFd),
}

#[derive(Debug)]
enum ReadEnd<'a> {
    Null(&'a OwnedFd),
    Pipe(OwnedFd),
}

impl<'a> Streams<'a> {
    /// Opens what `input` asks for; `null` is what a command without input reads.
    pub(super) fn open(input: Input, null: &'a OwnedFd) -> io::Result<Self> {
        if let Input::Terminal(size) = input {
            let (terminal, theirs) = Terminal::open(size)?;
            let terminal = Arc::new(terminal);
            let output = pipe::Receiver::from_owned_fd_unchecked(terminal.handle()?)?;
            return Ok(Self {
                writer: Writer::terminal(terminal.clone())?,
                terminal: Some(terminal),
                output: Output::Terminal(output),
                theirs: Theirs::Terminal(theirs),
            });
        }
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let (writer, input) = if input == Input::Pipe {
            let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            let ours = pipe::Sender::from_owned_fd_unchecked(ours)?;
            (Writer::pipe(ours), ReadEnd::Pipe(theirs))
        } else {
            (Writer::None, ReadEnd::Null(null))
        };
        Ok(Self {
            writer,
            terminal: None,
            output: Output::Pipes(stdout, stderr),
            theirs: Theirs::Pipes {
                input,
                stdout: stdout_end,
                stderr: stderr_end,
            },
        })
    }

    /// Standard input, output and error of the command.
    pub(super) fn ends(&self) -> [BorrowedFd<'_>; 3] {
        match &self.theirs {
            Theirs::Terminal(end) => [end.as_fd(); 3],
            Theirs::Pipes {
                input,
                stdout,
                stderr,
            } => {
                let input = match input {
                    ReadEnd::Null(null) => null.as_fd(),
                    ReadEnd::Pipe(end) => end.as_fd(),
                };
                [input, stdout.as_fd(), stderr.as_fd()]
            }
        }
    }

    pub(super) fn are_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// This process's ends. The command's are closed here, so that the end of its output is seen.
    pub(super) fn keep(self) -> (Writer, Option<Arc<Terminal>>, Output) {
        (self.writer, self.terminal, self.output)
    }
}

/// A pipe: our end, the command's end.
fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd_unchecked(ours)?, theirs))
}
