//! The calls of `process.v1.ProcessService`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use rustix::process::Signal;
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use super::{deadline, output, start, status};
use crate::api::{App, command, held};
use crate::exec::{Command, Exit, Input, Limits, Process, ProcessId, TerminalSize, run_to_end};
use crate::files::Root;
use crate::proto::process::v1::process_service_server::ProcessService;
use crate::proto::process::v1::write_stdin_request::Payload;
use crate::proto::process::v1::{
    ExecuteRequest, ExecuteResponse, ProcessConfig, ResizeTtyRequest, ResizeTtyResponse,
    SendSignalRequest, SendSignalResponse, StartRequest, StartResponse, WriteStdinRequest,
    WriteStdinResponse,
};

/// For callers that wait for as long as it takes; far below where times overflow.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The signal that killed a command, beside an answer that has one number for everything.
const EXIT_SIGNAL: &str = "agent-sandbox-exit-signal";
/// How many bytes an answer leaves out of the middle of each output.
const OMITTED: [&str; 2] = [
    "agent-sandbox-stdout-omitted-bytes",
    "agent-sandbox-stderr-omitted-bytes",
];

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    app: App,
}

impl Commands {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }

    fn process(&self, id: i32) -> Result<Arc<Process>, Status> {
        u64::try_from(id)
            .ok()
            .and_then(|id| self.app.processes.get(ProcessId(id)))
            .ok_or_else(|| Status::not_found(format!("there is no process {id}")))
    }
}

/// The command that a message asks for.
///
/// # Errors
/// Names the field and what was expected.
pub(crate) fn command(root: &Root, config: Option<ProcessConfig>) -> Result<Command, Status> {
    let ProcessConfig {
        command: words,
        env_vars,
        cwd,
    } = config.ok_or_else(|| Status::invalid_argument("config is missing"))?;
    let directory =
        command::directory(root, cwd.as_deref()).map_err(|error| status::directory(&error))?;
    let mut command = Command::new(words, directory).map_err(|error| {
        let position = error.nul_position();
        Status::invalid_argument(format!(
            "config.command has a NUL byte at position {position} of an argument"
        ))
    })?;
    for (name, value) in env_vars {
        command::check_variable(&name, &value)
            .map_err(|error| Status::invalid_argument(format!("config.env_vars {error}")))?;
        command = command.variable(name, value);
    }
    Ok(command)
}

#[tonic::async_trait]
impl ProcessService for Commands {
    type StartStream = BoxStream<'static, Result<StartResponse, Status>>;

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<Self::StartStream>, Status> {
        let timeout = deadline::of(request.metadata())?;
        let StartRequest { config, pty } = request.into_inner();
        let input = pty.map_or(Input::Pipe, |size| {
            Input::Terminal(TerminalSize::clamped(size.cols, size.rows))
        });
        let mut command = command(&self.app.root, config)?.input(input);
        if let Some(timeout) = timeout {
            command = command.timeout(timeout);
        }
        let mut running = self.app.metrics.command(Instant::now());
        match self.app.processes.spawn_held(command).await {
            Ok((leash, output)) => {
                let events =
                    start::events(output, self.app.config.stream_chunk_bytes, leash, running);
                Ok(Response::new(events))
            }
            Err(error) => {
                running.refused();
                Err(status::spawn(&error))
            }
        }
    }

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteResponse>, Status> {
        let timeout = deadline::of(request.metadata())?;
        let room = output::room(request.metadata())?;
        let command = command(&self.app.root, request.into_inner().config)?;
        let limits = Limits {
            timeout: timeout.unwrap_or(FOREVER),
            stream_bytes: self.app.config.max_output_bytes.min(room),
        };
        let mut running = self.app.metrics.command(Instant::now());
        match run_to_end(&self.app.processes, command, limits).await {
            Ok(outcome) => {
                running.finished(&outcome);
                if outcome.timed_out {
                    return Err(Status::deadline_exceeded(
                        "the command was ended at the deadline",
                    ));
                }
                let exit = outcome.exit.unwrap_or(Exit::Unknown);
                let [stdout, stderr] = output::fit(outcome.stdout, outcome.stderr, room);
                let omitted = [stdout.1, stderr.1];
                let mut response = Response::new(ExecuteResponse {
                    exit_code: exit.shell_code(),
                    stdout: stdout.0,
                    stderr: stderr.0,
                });
                describe(response.metadata_mut(), exit, omitted);
                held::until_sent(response.extensions_mut(), outcome.held);
                Ok(response)
            }
            Err(error) => {
                running.refused();
                Err(status::spawn(&error))
            }
        }
    }

    async fn write_stdin(
        &self,
        request: Request<WriteStdinRequest>,
    ) -> Result<Response<WriteStdinResponse>, Status> {
        let timeout = deadline::of(request.metadata())?;
        let WriteStdinRequest {
            process_id,
            payload,
        } = request.into_inner();
        let process = self.process(process_id)?;
        let work = async {
            match payload {
                None => Ok(()),
                Some(Payload::Input(bytes)) if bytes.is_empty() => Ok(()),
                Some(Payload::Input(bytes)) => process.write(&bytes).await,
                Some(Payload::Eof(())) => process.finish_input().await,
            }
        };
        match tokio::time::timeout(timeout.unwrap_or(FOREVER), work).await {
            Ok(Ok(())) => Ok(Response::new(WriteStdinResponse {})),
            Ok(Err(error)) => Err(status::input(&error)),
            Err(_) => Err(Status::deadline_exceeded(
                "the process did not read its standard input; a part of the input may be written",
            )),
        }
    }

    async fn send_signal(
        &self,
        request: Request<SendSignalRequest>,
    ) -> Result<Response<SendSignalResponse>, Status> {
        let SendSignalRequest { process_id, signal } = request.into_inner();
        let process = self.process(process_id)?;
        let signal = Signal::from_named_raw(signal).ok_or_else(|| {
            Status::invalid_argument(format!(
                "signal is {signal}; expected the number of a signal, such as 2, 9 or 15"
            ))
        })?;
        // To have exited meanwhile is no failure: there is nothing left to signal.
        process.signal(signal).await;
        Ok(Response::new(SendSignalResponse {}))
    }

    async fn resize_tty(
        &self,
        request: Request<ResizeTtyRequest>,
    ) -> Result<Response<ResizeTtyResponse>, Status> {
        let ResizeTtyRequest {
            process_id,
            cols,
            rows,
        } = request.into_inner();
        let process = self.process(process_id)?;
        match process.resize(TerminalSize::clamped(cols, rows)) {
            Ok(true) => Ok(Response::new(ResizeTtyResponse {})),
            Ok(false) if process.has_terminal() => {
                Err(Status::failed_precondition("the process has ended"))
            }
            Ok(false) => Err(Status::failed_precondition("the process has no terminal")),
            Err(error) => Err(Status::internal(format!(
                "cannot resize the terminal: {error}"
            ))),
        }
    }
}

/// What the messages have no field for.
fn describe(metadata: &mut MetadataMap, exit: Exit, omitted: [u64; 2]) {
    if let Some(signal) = exit.signal() {
        metadata.insert(EXIT_SIGNAL, MetadataValue::from(signal));
    }
    for (name, bytes) in OMITTED.into_iter().zip(omitted) {
        if bytes > 0 {
            metadata.insert(name, MetadataValue::from(bytes));
        }
    }
}
