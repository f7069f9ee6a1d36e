//! What to run: arguments, environment, working directory and what surrounds them, in the form the
//! kernel takes.

use std::ffi::{CStr, CString, NulError, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::limits::ResourceLimits;
use super::terminal::TerminalSize;
use super::user::User;

/// A command to start. The face that builds it has already confined the directory.
#[derive(Clone, Debug)]
pub struct Command {
    arguments: Vec<CString>,
    directory: Arc<OwnedFd>,
    variables: Vec<(OsString, OsString)>,
    input: Input,
    user: Option<User>,
    limits: ResourceLimits,
    timeout: Option<Duration>,
    kept: bool,
}

/// What a command reads and where it writes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Input {
    /// Nothing: its standard input is at its end from the start.
    #[default]
    Empty,
    /// What is written to it, until it is closed.
    Pipe,
    /// A terminal of this size is its standard input, output and error, and its controlling
    /// terminal. All output is one stream.
    Terminal(TerminalSize),
}

/// The shell of commands that name none: every image that has a shell has it here.
const SHELL: &CStr = c"/bin/sh";

impl Command {
    /// A command from its argument list, program first. An empty list is refused at the start.
    ///
    /// # Errors
    /// An argument with a NUL byte, which no program can receive.
    pub fn new<I>(arguments: I, directory: Arc<OwnedFd>) -> Result<Self, NulError>
    where
        I: IntoIterator,
        I::Item: Into<Vec<u8>>,
    {
        let arguments = arguments
            .into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            arguments,
            directory,
            variables: Vec::new(),
            input: Input::Empty,
            user: None,
            limits: ResourceLimits::default(),
            timeout: None,
            kept: false,
        })
    }

    /// A line for a shell, `/bin/sh`; a login shell reads the profile first.
    ///
    /// # Errors
    /// A NUL byte in the line.
    pub fn shell(line: &str, login: bool, directory: Arc<OwnedFd>) -> Result<Self, NulError> {
        let options: &[&CStr] = if login { &[c"-l", c"-c"] } else { &[c"-c"] };
        let arguments = [SHELL]
            .into_iter()
            .chain(options.iter().copied())
            .map(CStr::to_bytes)
            .chain([line.as_bytes()]);
        Self::new(arguments, directory)
    }

    /// Adds a variable to the environment, replacing one of the same name.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// What it reads; nothing unless this is called.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Runs it as another user, which only a privileged server can. `HOME`, `USER` and `LOGNAME`
    /// become that user's unless the command sets them.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Limits that are stricter than the server's own for commands.
    #[must_use]
    pub fn limits(mut self, limits: ResourceLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Ends its whole tree after this time; no limit unless this is called.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Leaves it in the table after its end, with its output, until room is needed or it is forgotten.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// The argument list, program first.
    pub fn arguments(&self) -> impl Iterator<Item = &CStr> {
        self.arguments.iter().map(CString::as_c_str)
    }

    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// What is laid over the server's environment, in order, the last of equal names winning.
    pub(crate) fn variables(&self) -> Vec<(OsString, OsString)> {
        let mut variables = Vec::new();
        if let Some(user) = &self.user {
            variables.extend(user.variables());
        }
        variables.extend(self.variables.iter().cloned());
        variables
    }

    pub(super) fn reads(&self) -> Input {
        self.input
    }

    pub(super) fn runs_as(&self) -> Option<&User> {
        self.user.as_ref()
    }

    pub(super) fn resource_limits(&self) -> &ResourceLimits {
        &self.limits
    }

    pub(super) fn time_limit(&self) -> Option<Duration> {
        self.timeout
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }
}
