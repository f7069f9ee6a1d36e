//! Running one more program inside a container that runs already: exec probes, lifecycle hooks and
//! `kubectl exec`.
//!
//! The helper joins the container's namespaces and forks, because a pid namespace applies to
//! children only; it then waits and exits with the program's status. When the node kills the
//! helper, the program dies with it.

use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::ThreadNameSpaceType;

use super::message::{Confinement, Enter, Main, Report, UserMap};
use super::restrict::Groups;
use super::supervise::Scope;
use super::sys::Forked;
use super::{Control, Failure, Step, die_with_parent, restrict, supervise, sys};
use crate::process::proc_stat;

/// Runs the request and returns the program's exit status.
pub(super) fn run(enter: &Enter, control: &mut Control) -> Result<u8, Failure> {
    match enter.confinement {
        Confinement::Namespaces(UserMap::Single) => inside(enter, control, Groups::Keep),
        Confinement::Namespaces(UserMap::Range { .. }) => inside(enter, control, Groups::Set),
        Confinement::Landlock { uid_base } | Confinement::Plain { uid_base } => {
            let groups = uid_base.map_or(Groups::Keep, |_| Groups::Set);
            beside(enter, control, groups)
        }
    }
}

/// With namespaces: what the program leaves behind ends with the container.
fn inside(enter: &Enter, control: &mut Control, groups: Groups) -> Result<u8, Failure> {
    join(enter)?;
    die_with_parent(control)?;
    match sys::fork().step(|| "fork into the container".into())? {
        Forked::Parent(child) => {
            control
                .send(&Report::Placed {
                    pid: child.as_raw_nonzero().get(),
                })
                .step(|| "report the process id".into())?;
            wait_for(child).step(|| "wait for the program".into())
        }
        Forked::Child => {
            rustix::process::setsid().step(|| "start a session".into())?;
            restrict::apply(&enter.process, &enter.confinement, &enter.root, groups)?;
            // After the last change of credentials, which would undo it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .step(|| "ask to end with the helper".into())?;
            Err(restrict::execute(&enter.process))
        }
    }
}

/// Without: confined in the same way, but a process tree of its own, which ends with the program.
fn beside(enter: &Enter, control: &mut Control, groups: Groups) -> Result<u8, Failure> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .step(|| "become the reaper of the program".into())?;
    restrict::apply(&enter.process, &enter.confinement, &enter.root, groups)?;
    supervise::run(
        Main::Supervised,
        &enter.process,
        control,
        Scope::Descendants,
    )
}

/// Enters all namespaces of the container's first process at once, so that the kernel judges
/// permissions by the identity outside.
fn join(enter: &Enter) -> Result<(), Failure> {
    let gone = || io::Error::other("it has ended");
    let pid = Pid::from_raw(enter.pid)
        .ok_or_else(gone)
        .step(|| "find the container".into())?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|_| gone())
        .step(|| "find the container".into())?;
    let same = proc_stat::read(enter.pid).is_ok_and(|stat| stat.start_time == enter.start_time);
    if !same {
        return Err(gone()).step(|| "find the container".into());
    }
    rustix::thread::move_into_thread_name_spaces(
        std::os::fd::AsFd::as_fd(&pidfd),
        ThreadNameSpaceType::USER
            | ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::PROCESS_ID
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
    )
    .step(|| "join the namespaces of the container".into())
}

fn wait_for(child: Pid) -> io::Result<u8> {
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(supervise::exit_code(status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
