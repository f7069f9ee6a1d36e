//! Records of running containers, and the end of those whose node is gone.
//!
//! A container ends with its node in every way the kernel offers (parent-death signal, control
//! socket, pid namespace). The records cover what is left: a node *and* an init that were killed
//! together where there is no pid namespace. They also make the state directory self-describing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use super::proc_stat;

/// The directory with one file per running container, named by process id.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    boot: String,
}

impl Records {
    /// Opens the directory, creating it when missing.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        // Process ids and start times begin anew with every boot.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            directory,
            boot: boot.trim().to_owned(),
        })
    }

    /// Notes a running container.
    pub(crate) fn add(&self, pid: i32, start_time: u64) -> io::Result<()> {
        fs::write(self.path(pid), format!("{} {start_time}\n", self.boot))
    }

    /// Forgets a container that has ended.
    pub(crate) fn remove(&self, pid: i32) {
        match fs::remove_file(self.path(pid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(pid, %error, "removing a process record failed");
            }
            _ => {}
        }
    }

    /// Kills every recorded process that is still the one recorded, with all its descendants, and
    /// empties the directory. Returns how many were found alive.
    pub(crate) fn kill_all(&self) -> io::Result<usize> {
        let mut killed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if let Some((pid, start_time)) = self.parse(&path) {
                let same = proc_stat::read(pid).is_ok_and(|stat| stat.start_time == start_time);
                if same {
                    kill_tree(pid)?;
                    killed += 1;
                }
            }
            fs::remove_file(&path)?;
        }
        Ok(killed)
    }

    fn path(&self, pid: i32) -> PathBuf {
        self.directory.join(pid.to_string())
    }

    fn parse(&self, path: &Path) -> Option<(i32, u64)> {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let content = fs::read_to_string(path).ok()?;
        let (boot, start_time) = content.trim().split_once(' ')?;
        (boot == self.boot).then_some((pid, start_time.parse().ok()?))
    }
}

/// Stops a process so that it cannot fork, kills its descendants likewise, then itself.
fn kill_tree(pid: i32) -> io::Result<()> {
    let Some(target) = Pid::from_raw(pid) else {
        return Ok(());
    };
    rustix::process::kill_process(target, Signal::STOP).ok();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let parent = proc_stat::read(child).map(|stat| stat.parent);
        if parent.is_ok_and(|parent| i32::try_from(parent) == Ok(pid)) {
            kill_tree(child)?;
        }
    }
    rustix::process::kill_process(target, Signal::KILL).ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_recorded_tree_is_killed_and_a_stranger_is_spared() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path().join("running")).unwrap();
        let mut tree = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufRead::read_line(
            &mut io::BufReader::new(tree.stdout.take().unwrap()),
            &mut line,
        )
        .unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        let start = proc_stat::read(id(&tree)).unwrap().start_time;
        records.add(id(&tree), start).unwrap();
        // The id was reused: same number, another start time.
        records.add(id(&stranger), 1).unwrap();
        assert_eq!(records.kill_all().unwrap(), 1);
        let status = tree.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
        let gone = proc_stat::read(grandchild)
            .map(|stat| stat.parent)
            .is_ok_and(|parent| parent == std::process::id());
        assert!(!gone, "the grandchild is not ours and cannot be alive");
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(
            fs::read_dir(directory.path().join("running"))
                .unwrap()
                .count(),
            0
        );
    }
}
