//! Giving up everything a container must not have, and executing its program.
//!
//! Applied by the process that is about to become the container's init, so the init is confined as
//! tightly as the program it starts. The order matters: groups and ids while the right to change
//! them is still there, then capabilities, then the doors that close behind (no new privileges,
//! Landlock), limits last.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::message::{Access, Confinement, Limits, Process, Root, User};
use super::{Failure, Step};

/// Highest capability number that can exist; the kernel refuses numbers it does not know.
const LAST_CAPABILITY: u32 = 63;

/// Host devices that a program without a private `/dev` may use.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// What to do about supplementary groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Groups {
    /// They cannot be changed without privileges. Inside a user namespace that maps one group the
    /// others are nobody's.
    Keep,
    /// Replace them by the container's.
    Set,
}

/// Confines the calling process for good.
pub(super) fn apply(
    process: &Process,
    confinement: &Confinement,
    root: &Root,
    groups: Groups,
) -> Result<(), Failure> {
    let base = match confinement {
        Confinement::Namespaces(_) => None,
        Confinement::Landlock { uid_base } | Confinement::Plain { uid_base } => *uid_base,
    };
    // Ids of the host stay as they are when there is neither a user namespace nor a base to add.
    let change_ids = base.is_some() || matches!(confinement, Confinement::Namespaces(_));
    drop_bounding_set(&process.capabilities)?;
    if groups == Groups::Set {
        set_groups(&process.user, base.unwrap_or(0))?;
    }
    if change_ids {
        set_ids(&process.user, base.unwrap_or(0))?;
    }
    drop_capabilities(&process.capabilities, confinement)?;
    rustix::thread::set_no_new_privs(true).step(|| "forbid new privileges".into())?;
    restrict_with_landlock(confinement, root)?;
    set_limits(&process.limits)?;
    rustix::process::chdir(&process.cwd)
        .step(|| format!("enter the working directory {}", process.cwd.display()))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// Replaces this process by the program; returns only on failure.
pub(super) fn execute(process: &Process) -> Failure {
    let Some((program, arguments)) = process.argv.split_first() else {
        return Failure::exec("execute", io::Error::other("the command is empty"));
    };
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(process.env.iter().map(|(name, value)| (name, value)))
        .exec();
    let step = format!("exec {program:?}");
    match error.kind() {
        io::ErrorKind::NotFound if !program.contains('/') => {
            Failure::exec(step, io::Error::other("executable file not found in $PATH"))
        }
        _ => Failure::exec(step, error),
    }
}

fn kept(capabilities: &[u32]) -> CapabilitySet {
    capabilities
        .iter()
        .filter(|number| **number <= LAST_CAPABILITY)
        .fold(CapabilitySet::empty(), |set, number| {
            set | CapabilitySet::from_bits_retain(1 << number)
        })
}

fn drop_bounding_set(keep: &[u32]) -> Result<(), Failure> {
    let keep = kept(keep);
    for number in 0..=LAST_CAPABILITY {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // Asking first: without CAP_SETPCAP dropping is refused, and a process that has nothing
        // to lose (an ordinary user without namespaces) cannot gain anything either, because new
        // privileges are forbidden next.
        let present = rustix::thread::capability_is_in_bounding_set(capability).unwrap_or(false);
        if !present || keep.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) if holds_nothing() => return Ok(()),
            Err(error) => return Err(error).step(|| format!("drop capability {number}")),
        }
    }
    Ok(())
}

fn holds_nothing() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.permitted.is_empty())
}

fn drop_capabilities(keep: &[u32], confinement: &Confinement) -> Result<(), Failure> {
    rustix::thread::clear_ambient_capability_set().step(|| "clear ambient capabilities".into())?;
    let held = rustix::thread::capabilities(None).step(|| "read capabilities".into())?;
    let keep = match confinement {
        Confinement::Namespaces(_) => held.permitted & kept(keep),
        // Without a user namespace a capability would count on the host.
        Confinement::Landlock { .. } | Confinement::Plain { .. } => CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        },
    )
    .step(|| "drop capabilities".into())
}

fn set_groups(user: &User, base: u32) -> Result<(), Failure> {
    let groups: Vec<Gid> = user
        .groups
        .iter()
        .map(|group| Gid::from_raw(base.saturating_add(*group)))
        .collect();
    rustix::thread::set_thread_groups(&groups).step(|| "set supplementary groups".into())
}

fn set_ids(user: &User, base: u32) -> Result<(), Failure> {
    let gid = Gid::from_raw(base.saturating_add(user.gid));
    let uid = Uid::from_raw(base.saturating_add(user.uid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .step(|| format!("change to group {}", user.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .step(|| format!("change to user {}", user.uid))
}

fn restrict_with_landlock(confinement: &Confinement, root: &Root) -> Result<(), Failure> {
    match confinement {
        Confinement::Plain { .. } => Ok(()),
        // File access is settled by the private root. What namespaces of ours do not cover are
        // abstract sockets of the host's programs, because the network is the host's. Kernels
        // that cannot scope them are reported by the probe, not refused.
        Confinement::Namespaces(_) => Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .scope(Scope::AbstractUnixSocket)
            .and_then(Ruleset::create)
            .and_then(landlock::RulesetCreated::restrict_self)
            .map(|_| ())
            .map_err(io::Error::other)
            .step(|| "restrict abstract sockets with Landlock".into()),
        Confinement::Landlock { .. } => {
            confine_files(root).step(|| "restrict file access with Landlock".into())
        }
    }
}

/// Everything is denied except what the container's root lists.
fn confine_files(root: &Root) -> io::Result<()> {
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi);
    let all = AccessFs::from_all(abi);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::ReadDir;
    let rules = root
        .host_paths
        .iter()
        .map(|path| (path.as_path(), read))
        .chain([(Path::new("/proc"), read)])
        .chain(DEVICES.iter().map(|path| (Path::new(path), devices)))
        .chain([(root.directory.as_path(), all)])
        .chain(root.binds.iter().map(|bind| {
            let access = match bind.access {
                Access::ReadOnly => read,
                Access::ReadWrite => all,
            };
            (bind.source.as_path(), access)
        }));
    for (path, access) in rules {
        // The path may be a link; what counts is what it leads to. A path that does not exist
        // grants nothing.
        let Ok(fd) = PathFd::new(path) else { continue };
        let directory = path.is_dir();
        let access: BitFlags<AccessFs> = if directory {
            access
        } else {
            access & AccessFs::from_file(abi)
        };
        ruleset = ruleset
            .add_rule(PathBeneath::new(fd, access))
            .map_err(io::Error::other)?;
    }
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::other("the kernel does not enforce it"));
    }
    Ok(())
}

fn set_limits(limits: &Limits) -> Result<(), Failure> {
    let bounded = [
        (Resource::Nofile, limits.open_files, "open files"),
        (Resource::Nproc, limits.processes, "processes"),
        (Resource::Fsize, limits.file_size, "file size"),
        // A crash must not write a core file of unbounded size into a volume.
        (Resource::Core, Some(0), "core size"),
    ];
    for (resource, limit, name) in bounded {
        let Some(limit) = limit else { continue };
        let inherited = rustix::process::getrlimit(resource).maximum;
        let limit = inherited.map_or(limit, |inherited| inherited.min(limit));
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        )
        .step(|| format!("limit {name}"))?;
    }
    Ok(())
}
