//! Starting a container, from stage 0 to the running program.
//!
//! With privileges the mounts are made by the real superuser before the user namespace is entered,
//! so nothing inside owns them; without, the user namespace comes first because it is what allows
//! mounting at all. Every step fails closed: an error ends the start, nothing runs half confined.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::message::{Confinement, Launch, Main, RANGE, Report, UserMap};
use super::sys::Forked;
use super::{Control, Failure, Step, die_with_parent, restrict, rootfs, supervise, sys};

/// Runs the request and returns the helper's exit status.
pub(super) fn run(launch: &Launch, control: &mut Control) -> Result<u8, Failure> {
    match &launch.confinement {
        Confinement::Namespaces(UserMap::Single) => single_user(launch, control),
        Confinement::Namespaces(UserMap::Range { base }) => user_range(launch, control, *base),
        Confinement::Landlock { .. } | Confinement::Plain { .. } => {
            without_namespaces(launch, control)
        }
    }
}

/// Unprivileged: a user namespace that holds one user, then everything else inside it.
fn single_user(launch: &Launch, control: &mut Control) -> Result<u8, Failure> {
    let user = &launch.process.user;
    let (host_user, host_group) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID)
        .step(|| "create user and pid namespaces".into())?;
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc(
        "/proc/self/uid_map",
        &format!("{} {} 1", user.uid, host_user.as_raw()),
    )?;
    write_proc(
        "/proc/self/gid_map",
        &format!("{} {} 1", user.gid, host_group.as_raw()),
    )?;
    match sys::fork_for_parent().step(|| "fork into the pid namespace".into())? {
        Forked::Parent(child) => placed(control, child).map(|()| 0),
        Forked::Child => {
            die_with_parent(control)?;
            sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
                .step(|| "create mount, IPC and UTS namespaces".into())?;
            rootfs::enter(&launch.root, &launch.process, None)?;
            confine_and_run(launch, control, restrict::Groups::Keep)
        }
    }
}

/// Privileged: mounts first, then a user namespace with a range of ids that nobody else uses. The
/// maps must be written from outside, so stage 0 stays until the child has asked for them.
fn user_range(launch: &Launch, control: &mut Control, base: u32) -> Result<u8, Failure> {
    let pipes = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (asked, ask) = pipes().step(|| "create a pipe".into())?;
    let (answered, answer) = pipes().step(|| "create a pipe".into())?;
    sys::unshare(UnshareFlags::NEWPID).step(|| "create a pid namespace".into())?;
    match sys::fork_for_parent().step(|| "fork into the pid namespace".into())? {
        Forked::Parent(child) => {
            placed(control, child)?;
            drop((ask, answered));
            let pid = child.as_raw_nonzero();
            if await_byte(asked).is_ok() {
                let map = format!("0 {base} {RANGE}");
                write_proc(&format!("/proc/{pid}/uid_map"), &map)?;
                write_proc(&format!("/proc/{pid}/gid_map"), &map)?;
                send_byte(answer).step(|| "tell the child that its ids are mapped".into())?;
            }
            // A child that ended before it asked has reported the reason itself.
            Ok(0)
        }
        Forked::Child => {
            drop((asked, answer));
            die_with_parent(control)?;
            sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
                .step(|| "create mount, IPC and UTS namespaces".into())?;
            set_hostname(launch)?;
            rootfs::enter(&launch.root, &launch.process, Some(base))?;
            sys::unshare(UnshareFlags::NEWUSER).step(|| "create a user namespace".into())?;
            send_byte(ask).step(|| "ask for the id maps".into())?;
            await_byte(answered).step(|| "wait for the id maps".into())?;
            confine_and_run(launch, control, restrict::Groups::Set)
        }
    }
}

/// No namespaces: this process itself becomes the supervisor of the container.
fn without_namespaces(launch: &Launch, control: &mut Control) -> Result<u8, Failure> {
    placed(control, rustix::process::getpid())?;
    rustix::process::setsid().step(|| "start a session".into())?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .step(|| "become the reaper of the container".into())?;
    let base = match launch.confinement {
        Confinement::Landlock { uid_base } | Confinement::Plain { uid_base } => uid_base,
        Confinement::Namespaces(_) => None,
    };
    rootfs::prepare_plain(&launch.root, &launch.process, base)?;
    restrict::apply(
        &launch.process,
        &launch.confinement,
        &launch.root,
        if base.is_some() {
            restrict::Groups::Set
        } else {
            restrict::Groups::Keep
        },
    )?;
    supervise::run(
        launch.main,
        &launch.process,
        control,
        supervise::Scope::Descendants,
    )
}

/// The common end: hostname, identity, limits, and the program.
fn confine_and_run(
    launch: &Launch,
    control: &mut Control,
    groups: restrict::Groups,
) -> Result<u8, Failure> {
    if groups == restrict::Groups::Keep {
        set_hostname(launch)?;
    }
    restrict::apply(&launch.process, &launch.confinement, &launch.root, groups)?;
    die_with_parent(control)?;
    match launch.main {
        Main::PidOne => Err(restrict::execute(&launch.process)),
        Main::Probe => {
            control
                .send(&Report::Started)
                .step(|| "report success".into())?;
            Ok(0)
        }
        Main::Supervised | Main::Pause => supervise::run(
            launch.main,
            &launch.process,
            control,
            supervise::Scope::PidNamespace,
        ),
    }
}

fn set_hostname(launch: &Launch) -> Result<(), Failure> {
    if launch.hostname.is_empty() {
        return Ok(());
    }
    rustix::system::sethostname(launch.hostname.as_bytes())
        .step(|| format!("set the host name {:?}", launch.hostname))
}

fn placed(control: &mut Control, pid: Pid) -> Result<(), Failure> {
    control
        .send(&Report::Placed {
            pid: pid.as_raw_nonzero().get(),
        })
        .step(|| "report the process id".into())
}

fn write_proc(path: &str, content: &str) -> Result<(), Failure> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .step(|| format!("write {content:?} to {path}"))
}

fn send_byte(pipe: OwnedFd) -> io::Result<()> {
    fs::File::from(pipe).write_all(&[1])
}

fn await_byte(pipe: OwnedFd) -> io::Result<()> {
    fs::File::from(pipe).read_exact(&mut [0])
}
