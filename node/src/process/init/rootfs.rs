//! The file tree of a container.
//!
//! With namespaces: a private root assembled from a directory of the container's own, read-only
//! views of the host's programs, a minimal `/dev`, a fresh `/proc` and the volumes; afterwards the
//! host's tree is detached, so there is nothing left to escape to. Without: the same directories
//! beneath the container's directory, volumes as symbolic links.
//!
//! Volumes hold what a pod put there, symbolic links included, so no path inside the new root is
//! resolved by name: `openat2` resolves it as if the root had been entered already.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::message::{Access, Bind, Process, Root, TextFile};
use super::{Failure, Step, sys};

/// Devices every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Symbolic links every container has in `/dev`.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Bytes a container may put into `/dev/shm`, as container engines allow by default.
const SHM_SIZE: &str = "67108864";

/// Builds the root and makes it `/`. `base` is the first host id of the container's range when the
/// caller is the superuser outside.
pub(super) fn enter(root: &Root, process: &Process, base: Option<u32>) -> Result<(), Failure> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step(|| "make mounts private".into())?;
    let tree = Tree::mount(&root.directory, Owner::new(process, base))?;
    for directory in &root.directories {
        tree.directory(directory, tree.owner.user())?;
    }
    tree.directory(&process.cwd, tree.owner.user())?;
    for file in &root.files {
        tree.write(file)?;
    }
    tree.mount_proc()?;
    tree.mount_dev()?;
    for path in &root.host_paths {
        tree.show_host_path(path)?;
    }
    for (link, target) in &root.links {
        tree.symlink(target, link)?;
    }
    for bind in &root.binds {
        tree.bind(bind)?;
    }
    if root.read_only {
        let own =
            rustix::mount::open_tree(&tree.root, "", open_flags(OpenTreeFlags::AT_EMPTY_PATH))
                .step(|| "open the root".into())?;
        sys::set_mount_attributes(
            own.as_fd(),
            MountAttrFlags::MOUNT_ATTR_RDONLY,
            sys::Reach::One,
        )
        .step(|| "make the root read-only".into())?;
    }
    tree.become_root()
}

/// Creates what a container without namespaces may use beneath its own directory.
pub(super) fn prepare_plain(
    root: &Root,
    process: &Process,
    base: Option<u32>,
) -> Result<(), Failure> {
    let owner = Owner::new(process, base);
    let own = |path: &Path| -> io::Result<()> {
        match owner.user() {
            Some((uid, gid)) => Ok(rustix::fs::chown(path, Some(uid), Some(gid))?),
            None => Ok(()),
        }
    };
    let inside = |path: &Path| root.directory.join(path.strip_prefix("/").unwrap_or(path));
    let make = |path: &Path| {
        std::fs::create_dir_all(path)
            .and_then(|()| own(path))
            .step(|| format!("create {}", path.display()))
    };
    make(&root.directory)?;
    for directory in &root.directories {
        make(&inside(directory))?;
    }
    for file in &root.files {
        let path = inside(&file.path);
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        std::fs::write(&path, &file.content).step(|| format!("write {}", path.display()))?;
    }
    for (link, target) in &root.links {
        let path = inside(link);
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        symlink(target, &path).step(|| format!("create the link {}", path.display()))?;
    }
    for bind in &root.binds {
        let path = inside(&bind.target);
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        let source = match &bind.sub_path {
            Some(sub_path) => bind.source.join(sub_path),
            None => bind.source.clone(),
        };
        // A workspace directory that the image declares gives way to the volume.
        match std::fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(&source, &path),
        }
        .step(|| format!("link {} to its volume", path.display()))?;
    }
    if !process.cwd.exists() {
        make(&process.cwd)?;
    }
    Ok(())
}

/// Who owns files, as ids of the host. Nothing is changed for an unprivileged node: its own user is
/// the container's.
#[derive(Debug, Clone, Copy)]
struct Owner {
    ids: Option<(u32, u32, u32)>,
}

impl Owner {
    fn new(process: &Process, base: Option<u32>) -> Self {
        Self {
            ids: base.map(|base| (base, process.user.uid, process.user.gid)),
        }
    }

    /// The container's own user.
    fn user(self) -> Option<(Uid, Gid)> {
        self.ids.map(|(base, uid, gid)| {
            (
                Uid::from_raw(base.saturating_add(uid)),
                Gid::from_raw(base.saturating_add(gid)),
            )
        })
    }

    /// The container's superuser.
    fn superuser(self) -> Option<(Uid, Gid)> {
        self.ids
            .map(|(base, ..)| (Uid::from_raw(base), Gid::from_raw(base)))
    }
}

/// The root under construction.
#[derive(Debug)]
struct Tree {
    root: OwnedFd,
    owner: Owner,
}

impl Tree {
    /// Turns `directory` into a mount of its own: set-user-id programs and devices in it have no
    /// effect.
    fn mount(directory: &Path, owner: Owner) -> Result<Self, Failure> {
        let describe = || format!("mount the root {}", directory.display());
        let clone = rustix::mount::open_tree(CWD, directory, clone_flags()).step(describe)?;
        sys::set_mount_attributes(
            clone.as_fd(),
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
            sys::Reach::Tree,
        )
        .step(describe)?;
        rustix::mount::move_mount(
            &clone,
            "",
            CWD,
            directory,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .step(describe)?;
        let root = rustix::fs::open(
            directory,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step(describe)?;
        if let Some((uid, gid)) = owner.superuser() {
            rustix::fs::chownat(&root, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .step(describe)?;
        }
        Ok(Self { root, owner })
    }

    /// Opens a path inside the root as a process inside would see it.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(
            &self.root,
            path,
            flags | OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Opens a directory inside the root, creating what is missing on the way.
    fn directory(&self, path: &Path, owner: Option<(Uid, Gid)>) -> Result<OwnedFd, Failure> {
        self.make_directory(path, owner)
            .step(|| format!("create the directory {} in the container", path.display()))
    }

    fn make_directory(&self, path: &Path, owner: Option<(Uid, Gid)>) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let mut here = PathBuf::from("/");
        let mut parent = self.open(&here, OFlags::DIRECTORY)?;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            here.push(name);
            parent = match self.open(&here, OFlags::DIRECTORY) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    let made = self.open(&here, OFlags::DIRECTORY)?;
                    chown(&made, owner.or_else(|| self.owner.superuser()))?;
                    made
                }
                found => found?,
            };
        }
        Ok(parent)
    }

    /// Opens the parent directory of a path inside the root and names the last component.
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Failure> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::other("it has no file name"))
            .step(|| format!("create {} in the container", path.display()))?;
        let parent = path.parent().unwrap_or_else(|| Path::new("/"));
        Ok((self.directory(parent, None)?, name))
    }

    fn write(&self, file: &TextFile) -> Result<(), Failure> {
        let (parent, name) = self.parent(&file.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        rustix::fs::openat(
            &parent,
            name,
            flags | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .and_then(|fd| chown(&fd, self.owner.superuser()).map(|()| fd))
        .map_err(io::Error::from)
        .and_then(|fd| File::from(fd).write_all(file.content.as_bytes()))
        .step(|| format!("write {} in the container", file.path.display()))
    }

    /// Opens the place where a file is going to be shown, creating an empty file when there is none.
    fn file_target(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let describe = || format!("create {} in the container", path.display());
        match self.open(path, OFlags::empty()) {
            Err(Errno::NOENT) => {}
            found => return found.step(describe),
        }
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))
            .and_then(|fd| chown(&fd, self.owner.superuser()))
            .and_then(|()| self.open(path, OFlags::empty()))
            .step(describe)
    }

    fn symlink(&self, target: &Path, path: &Path) -> Result<(), Failure> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::symlinkat(target, &parent, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => {
                Err(error).step(|| format!("create the link {} in the container", path.display()))
            }
        }
    }

    /// Attaches a detached mount at an open place.
    fn attach(mount: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
        rustix::mount::move_mount(
            mount,
            "",
            target,
            "",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
    }

    /// Creates and attaches a file system.
    fn filesystem(
        &self,
        kind: &str,
        path: &str,
        options: &[(&str, &str)],
        attributes: MountAttrFlags,
    ) -> Result<(), Failure> {
        let target = self.directory(Path::new(path), None)?;
        let mount = || -> Result<(), Errno> {
            let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            for (key, value) in options {
                rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
            }
            rustix::mount::fsconfig_create(context.as_fd())?;
            let mount = rustix::mount::fsmount(
                context.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                attributes | MountAttrFlags::MOUNT_ATTR_NOSUID,
            )?;
            Self::attach(&mount, &target)
        };
        mount().step(|| format!("mount {kind} on {path}"))
    }

    fn mount_proc(&self) -> Result<(), Failure> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        self.filesystem("proc", "/proc", &[], attributes)
    }

    fn mount_dev(&self) -> Result<(), Failure> {
        let noexec = MountAttrFlags::MOUNT_ATTR_NOEXEC;
        self.filesystem(
            "tmpfs",
            "/dev",
            &[("mode", "0755"), ("size", "65536")],
            noexec,
        )?;
        for device in DEVICES {
            let host = Path::new("/dev").join(device);
            if !host.exists() {
                continue;
            }
            let target = self.file_target(&host)?;
            rustix::mount::open_tree(CWD, &host, clone_flags())
                .and_then(|mount| Self::attach(&mount, &target))
                .step(|| format!("show the device {}", host.display()))?;
        }
        let pts = [("ptmxmode", "0666"), ("mode", "0620")];
        self.filesystem("devpts", "/dev/pts", &pts, noexec)?;
        let shm = [("mode", "1777"), ("size", SHM_SIZE)];
        let nodev = MountAttrFlags::MOUNT_ATTR_NODEV;
        self.filesystem("tmpfs", "/dev/shm", &shm, noexec | nodev)?;
        for (target, link) in DEVICE_LINKS {
            self.symlink(Path::new(target), Path::new(link))?;
        }
        Ok(())
    }

    /// Shows a host path read-only at the same place. One that does not exist is left out.
    fn show_host_path(&self, path: &Path) -> Result<(), Failure> {
        let describe = || format!("show {} in the container", path.display());
        let kind = match rustix::fs::lstat(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            stat => FileType::from_raw_mode(stat.step(describe)?.st_mode),
        };
        let target = match kind {
            FileType::Symlink => {
                let link = std::fs::read_link(path).step(describe)?;
                return self.symlink(&link, path);
            }
            FileType::Directory => self.directory(path, None)?,
            _ => self.file_target(path)?,
        };
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mount = rustix::mount::open_tree(CWD, path, clone_flags()).step(describe)?;
        sys::set_mount_attributes(mount.as_fd(), attributes, sys::Reach::Tree).step(describe)?;
        Self::attach(&mount, &target).step(describe)
    }

    fn bind(&self, bind: &Bind) -> Result<(), Failure> {
        let describe = || format!("mount {} in the container", bind.target.display());
        let source = self.bind_source(bind)?;
        let stat = rustix::fs::fstat(&source).step(describe)?;
        let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.directory(&bind.target, None)?
        } else {
            self.file_target(&bind.target)?
        };
        let mount = rustix::mount::open_tree(
            &source,
            "",
            clone_flags() | open_flags(OpenTreeFlags::AT_EMPTY_PATH),
        )
        .step(describe)?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        if bind.access == Access::ReadOnly {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        sys::set_mount_attributes(mount.as_fd(), attributes, sys::Reach::Tree).step(describe)?;
        Self::attach(&mount, &target).step(describe)
    }

    /// Opens what is to be shown. A sub-path is resolved beneath its volume and, as on any node, a
    /// missing one is created as a directory.
    fn bind_source(&self, bind: &Bind) -> Result<OwnedFd, Failure> {
        let describe = || match &bind.sub_path {
            Some(sub) => format!(
                "open {} of the volume for {}",
                sub.display(),
                bind.target.display()
            ),
            None => format!("open the volume for {}", bind.target.display()),
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let volume = rustix::fs::open(&bind.source, flags, Mode::empty()).step(describe)?;
        let Some(sub_path) = &bind.sub_path else {
            return Ok(volume);
        };
        let beneath = |at: BorrowedFd<'_>, path: &Path| {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            rustix::fs::openat2(at, path, flags, Mode::empty(), resolve)
        };
        match beneath(volume.as_fd(), sub_path) {
            Err(Errno::NOENT) => {}
            found => return found.step(describe),
        }
        let mut here = PathBuf::new();
        let mut parent = rustix::io::fcntl_dupfd_cloexec(&volume, 3).step(describe)?;
        for component in sub_path.components() {
            here.push(component);
            parent = match beneath(volume.as_fd(), &here) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&parent, component.as_os_str(), Mode::from_raw_mode(0o755))
                        .step(describe)?;
                    let made = beneath(volume.as_fd(), &here).step(describe)?;
                    chown(&made, self.owner.user()).step(describe)?;
                    made
                }
                found => found.step(describe)?,
            };
        }
        Ok(parent)
    }

    /// Makes the tree `/` and lets go of the old one.
    fn become_root(self) -> Result<(), Failure> {
        let pivot = || -> Result<(), Errno> {
            rustix::process::fchdir(&self.root)?;
            // With both paths equal the old root ends up on top of the new one, from where it is
            // detached without needing a directory to put it.
            rustix::process::pivot_root(".", ".")?;
            rustix::mount::unmount(".", UnmountFlags::DETACH)?;
            rustix::process::chdir("/")
        };
        pivot().step(|| "enter the new root".into())
    }
}

fn chown(fd: &OwnedFd, owner: Option<(Uid, Gid)>) -> Result<(), Errno> {
    match owner {
        Some((uid, gid)) => rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH),
        None => Ok(()),
    }
}

fn open_flags(more: OpenTreeFlags) -> OpenTreeFlags {
    more | OpenTreeFlags::OPEN_TREE_CLOEXEC
}

/// A detached copy of a tree. Always recursive: a user namespace may not uncover what a mount hides.
fn clone_flags() -> OpenTreeFlags {
    open_flags(OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE)
}
