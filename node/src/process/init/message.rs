//! What the node and its init helpers say to each other over the control socket.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON. The node writes one
//! [`Request`] and later any number of [`Command`]s; the helper answers with [`Report`]s. Closing
//! the node's end is itself a message: the node is gone, so everything must end.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Frames larger than this are refused; a launch request is a few kilobytes, most of it
/// environment.
pub(crate) const MAX_FRAME: usize = 16 << 20;

/// What a helper is asked to do; the first frame on the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start a container and, unless its program is its own PID 1, stay as its init.
    Launch(Box<Launch>),
    /// Run one more program inside a running container and exit with its status.
    Enter(Box<Enter>),
}

/// A container to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) confinement: Confinement,
    pub(crate) root: Root,
    pub(crate) hostname: String,
    pub(crate) main: Main,
    pub(crate) process: Process,
}

/// A program to run inside a container that runs already.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Enter {
    pub(crate) confinement: Confinement,
    /// First process of the container, in the node's process-id namespace.
    pub(crate) pid: i32,
    /// Its start time (`/proc/PID/stat` field 22), which tells it from a later process of that id.
    pub(crate) start_time: u64,
    /// The paths of the container, for confinement without namespaces.
    pub(crate) root: Root,
    pub(crate) process: Process,
}

/// What runs as the container's main program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Main {
    /// The program, with the helper staying as PID 1: it reaps orphans and passes signals on.
    Supervised,
    /// The program itself as PID 1; for programs that reap their children.
    PidOne,
    /// No program: wait to be told to stop (a pause container).
    Pause,
    /// No program: report success and exit. Proves at start that the confinement works.
    Probe,
}

/// How the processes are confined; chosen once per node (see `process::isolation`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Confinement {
    /// User, mount, pid, IPC and UTS namespaces and a private root.
    Namespaces(UserMap),
    /// No namespaces: Landlock confines file access. As the superuser, programs change to
    /// `uid_base` plus the container's user id.
    Landlock { uid_base: Option<u32> },
    /// No confinement of files at all; only where the operator asked for it.
    Plain { uid_base: Option<u32> },
}

/// How ids inside the user namespace map to ids of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UserMap {
    /// The container's user is the node's own user; no other id exists inside.
    Single,
    /// Ids 0..65536 are `base`..`base + 65536` on the host. Needs privileges.
    Range { base: u32 },
}

/// Number of ids in [`UserMap::Range`].
pub(crate) const RANGE: u32 = 65_536;

/// The file tree a container sees.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Directory of the host that becomes the root (or, without namespaces, the place where the
    /// container may write).
    pub(crate) directory: PathBuf,
    pub(crate) read_only: bool,
    /// Host paths shown at the same path, read-only. Symbolic links are recreated; paths that do
    /// not exist are left out.
    pub(crate) host_paths: Vec<PathBuf>,
    /// Directories inside the root to create, owned by the container's user.
    pub(crate) directories: Vec<PathBuf>,
    /// Files inside the root to write.
    pub(crate) files: Vec<TextFile>,
    /// Symbolic links inside the root, as link and target.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Volumes and single files shown inside the root, parents before children.
    pub(crate) binds: Vec<Bind>,
}

/// A small generated file such as `/etc/hosts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TextFile {
    pub(crate) path: PathBuf,
    pub(crate) content: String,
}

/// A host file or directory shown inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    /// Path beneath `source`; never leaves it, whatever symbolic links the volume holds.
    pub(crate) sub_path: Option<PathBuf>,
    pub(crate) target: PathBuf,
    pub(crate) access: Access,
}

/// Whether a bind can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// A program with everything it is started with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Program and arguments; the program is looked up in the container's `PATH`.
    pub(crate) argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub(crate) env: Vec<(String, String)>,
    /// Working directory, created when missing.
    pub(crate) cwd: PathBuf,
    pub(crate) user: User,
    pub(crate) limits: Limits,
    /// Capabilities (bit numbers) that a superuser inside keeps.
    pub(crate) capabilities: Vec<u32>,
}

/// Ids as seen inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Resource limits; `None` leaves the inherited one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) open_files: Option<u64>,
    pub(crate) processes: Option<u64>,
    pub(crate) file_size: Option<u64>,
}

/// What the node tells a running init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Send this signal to the main program.
    Signal(i32),
    /// Kill the whole process tree.
    Kill,
}

/// What a helper tells the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The container's first process, a child of the node: exists from now on.
    Placed { pid: i32 },
    /// The program is running. Also implied by the end of the stream without a failure, because
    /// the socket closes when the program is executed.
    Started,
    /// Nothing runs.
    Failed { kind: FailureKind, message: String },
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// The confinement or the file tree could not be set up.
    Setup,
    /// The program could not be executed.
    Exec,
}

/// Writes one frame.
pub(crate) fn write_frame<T: Serialize>(out: &mut impl Write, message: &T) -> io::Result<()> {
    out.write_all(&encode_frame(message)?)
}

/// One frame as bytes.
pub(crate) fn encode_frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    let prefix = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME)
        .ok_or_else(|| io::Error::other(format!("a frame of {length} bytes is too long")))?;
    frame.splice(..4, prefix.to_le_bytes());
    Ok(frame)
}

/// Reads one frame; `None` when the peer closed the socket between frames.
pub(crate) fn read_frame<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    let mut filled = 0;
    while let Some(rest) = prefix.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut body = vec![0; frame_length(prefix)?];
    input.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// The length of the body that follows `prefix`.
pub(crate) fn frame_length(prefix: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_le_bytes(prefix))
        .ok()
        .filter(|length| *length <= MAX_FRAME)
        .ok_or_else(|| io::Error::other("a frame is longer than the protocol allows"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_round_trip_and_end_cleanly() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Report::Placed { pid: 7 }).unwrap();
        write_frame(&mut wire, &Report::Started).unwrap();
        let mut input = wire.as_slice();
        assert_eq!(
            read_frame::<Report>(&mut input).unwrap(),
            Some(Report::Placed { pid: 7 })
        );
        assert_eq!(read_frame(&mut input).unwrap(), Some(Report::Started));
        assert_eq!(read_frame::<Report>(&mut input).unwrap(), None);
    }

    #[test]
    fn a_torn_or_oversized_frame_is_an_error() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Report::Started).unwrap();
        for cut in 1..wire.len() {
            assert!(
                read_frame::<Report>(&mut &wire[..cut]).is_err(),
                "cut {cut}"
            );
        }
        let huge = u32::MAX.to_le_bytes();
        assert!(read_frame::<Report>(&mut huge.as_slice()).is_err());
    }
}
