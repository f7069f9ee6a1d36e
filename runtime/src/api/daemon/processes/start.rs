//! `POST /v1/processes`: starting a command and leaving it to itself.

use agent_sandbox_service::causes;
use axum::body::Body;
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use rustix::io::Errno;

use super::state::describe;
use crate::api::daemon::members::{Members, Refused};
use crate::api::daemon::reply;
use crate::api::{App, answer, command};
use crate::exec::{Command, Input, ResourceLimits, SpawnError, TerminalSize, User, UserError};

/// Every member of a request.
const MEMBERS: [&str; 10] = [
    "argv",
    "shell",
    "login",
    "env",
    "cwd",
    "user",
    "stdin",
    "pty",
    "timeout_seconds",
    "limits",
];

pub(super) async fn start(app: &App, body: Body) -> Response<Body> {
    let wanted = match Members::read(body, app.config.max_request_bytes).await {
        Ok(members) => command(app, members),
        Err(refused) => return refused.answer(),
    };
    let command = match wanted {
        Ok(command) => command,
        Err(Refusal::Members(refused)) => return refused.answer(),
        Err(Refusal::Answer(answer)) => return *answer,
    };
    match app.processes.spawn(command.kept()).await {
        Ok(process) => {
            app.metrics.detached();
            let mut response = answer::json(StatusCode::CREATED, &describe(&process));
            let location = format!("/v1/processes/{}", process.id());
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(LOCATION, location);
            }
            response
        }
        Err(error) => refused(&error),
    }
}

/// Why a request names no command.
enum Refusal {
    Members(Refused),
    Answer(Box<Response<Body>>),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::Members(refused)
    }
}

impl From<Response<Body>> for Refusal {
    fn from(answer: Response<Body>) -> Self {
        Self::Answer(Box::new(answer))
    }
}

fn command(app: &App, mut members: Members) -> Result<Command, Refusal> {
    let argv = members.texts("argv")?;
    let shell = members.optional_text("shell")?;
    let login = members.flag("login", false)?;
    let cwd = members.optional_text("cwd")?;
    let user = members.optional_text("user")?;
    let stdin = members.flag("stdin", false)?;
    let timeout = members.seconds("timeout_seconds")?;
    let size = members.members("pty")?.map(size).transpose()?;
    let variables = variables(&mut members)?;
    let limits = limits(&mut members)?;
    members.finish(&MEMBERS)?;
    if login && shell.is_none() {
        return Err(Refused::new("\"login\" is of use only with \"shell\"").into());
    }
    let directory = command::directory(&app.root, cwd.as_deref()).map_err(|error| {
        let text = format!("\"cwd\": {}", reply::text(&error));
        reply::file_with(&error, &text)
    })?;
    let command = match (argv.is_empty(), shell) {
        (false, None) => Command::new(argv, directory),
        (true, Some(line)) => Command::shell(&line, login, directory),
        _ => {
            let text =
                "expected either \"argv\", a list of strings, or \"shell\", a line for /bin/sh";
            return Err(Refused::new(text).into());
        }
    };
    let mut command =
        command.map_err(|_| Refused::new("\"argv\" or \"shell\" has a NUL byte in it"))?;
    for (name, value) in variables {
        command = command.variable(name, value);
    }
    if let Some(user) = user {
        let user = User::find(&user).map_err(|error| no_user(&error))?;
        command = match user {
            Some(user) => command.user(user),
            None => command,
        };
    }
    if let Some(timeout) = timeout {
        command = command.timeout(timeout);
    }
    Ok(command.limits(limits).input(match size {
        Some(size) => Input::Terminal(size),
        None if stdin => Input::Pipe,
        None => Input::Empty,
    }))
}

/// A terminal's size from an object with two members.
pub(super) fn size(mut members: Members) -> Result<TerminalSize, Refused> {
    let columns = members.number("cols", &(0..=u16::MAX))?.unwrap_or_default();
    let rows = members.number("rows", &(0..=u16::MAX))?.unwrap_or_default();
    members.finish(&["cols", "rows"])?;
    Ok(TerminalSize { columns, rows })
}

fn variables(members: &mut Members) -> Result<Vec<(String, String)>, Refused> {
    let Some(mut env) = members.members("env")? else {
        return Ok(Vec::new());
    };
    let mut variables = Vec::new();
    for name in env.names() {
        // Null takes nothing away: a variable is either given or not.
        let value = env.text(&name)?;
        command::check_variable(&name, &value)
            .map_err(|error| Refused::new(format!("\"env\" {error}")))?;
        variables.push((name, value));
    }
    Ok(variables)
}

fn limits(members: &mut Members) -> Result<ResourceLimits, Refused> {
    let mut limits = ResourceLimits::default();
    let Some(mut named) = members.members("limits")? else {
        return Ok(limits);
    };
    for name in named.names() {
        let value = named.number(&name, &(0..=u64::MAX))?.unwrap_or(u64::MAX);
        limits
            .set(&name, value)
            .map_err(|error| Refused::new(format!("\"limits\": {error}")))?;
    }
    Ok(limits)
}

fn no_user(error: &UserError) -> Response<Body> {
    let (status, code) = match error {
        UserError::Unknown(_) | UserError::UnknownGroup(_) => {
            (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT")
        }
        UserError::Unprivileged => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        UserError::Unreadable { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
    };
    reply::error(status, code, format!("\"user\": {error}"))
}

fn refused(error: &SpawnError) -> Response<Body> {
    let text = causes::on_one_line(error);
    let (status, code) = match error {
        SpawnError::Busy { .. } | SpawnError::Closing => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let mut response = reply::error(status, "UNAVAILABLE", text);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        SpawnError::Empty => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        SpawnError::Program { .. } => match error.errno() {
            Some(Errno::ACCESS | Errno::PERM) => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            _ => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        },
        SpawnError::System { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
    };
    reply::error(status, code, text)
}
