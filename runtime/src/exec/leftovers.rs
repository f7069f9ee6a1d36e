//! The pipes of commands that have ended, which their children in the background still hold.
//!
//! Such children must neither be stopped by a full pipe nor killed by a closed one: they may be the
//! servers an agent started. So what they write is taken and thrown away. But whoever leaves child after
//! child behind must not use up the descriptors of this process, without which nothing here works any
//! more, so there are places for a number of commands only.

use std::io;
use std::sync::Arc;

use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

/// Places for ended commands whose outputs are held. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Leftovers {
    places: Arc<Semaphore>,
}

/// A command has two outputs, and all may use a quarter of the descriptors.
const DESCRIPTORS: u64 = 2 * 4;
/// How much is thrown away at once.
const PIECE: usize = 4 << 10;

impl Leftovers {
    /// Places for `most` commands, or for as many as a process with so many descriptors can hold.
    pub(super) fn new(most: usize, descriptors: u64) -> Self {
        let held = usize::try_from(descriptors / DESCRIPTORS).unwrap_or(usize::MAX);
        Self {
            places: Arc::new(Semaphore::new(most.min(held))),
        }
    }

    /// Takes what comes out of the pipes until nobody writes to them any more. When there is no place, they
    /// are closed at once: who still writes to them gets SIGPIPE.
    pub(super) async fn drain(&self, [stdout, stderr]: [Option<pipe::Receiver>; 2]) {
        if stdout.is_none() && stderr.is_none() {
            return;
        }
        let Ok(_place) = self.places.try_acquire() else {
            tracing::warn!("too many outputs are held, those of a command's children are closed");
            return;
        };
        tokio::join!(discard(stdout), discard(stderr));
    }
}

/// Holds no memory while nothing comes.
async fn discard(pipe: Option<pipe::Receiver>) {
    let Some(pipe) = pipe else { return };
    while pipe.readable().await.is_ok() && throw_away(&pipe) {
        // Neither of both counts as work of this task, and a child that writes without end would keep
        // everybody else from their turn.
        tokio::task::coop::consume_budget().await;
    }
}

/// `false` when nothing will come any more.
fn throw_away(pipe: &pipe::Receiver) -> bool {
    let mut buffer = [0; PIECE];
    match pipe.try_read(&mut buffer) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;
    use crate::exec::{
        Captured, Command, Environment, Limits, Processes, ResourceLimits, Settings, run_to_end,
    };

    /// Far longer than anything here takes; reached only by a failure.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Commands that have places for so many leftovers.
    fn processes(leftovers: usize) -> Processes {
        Processes::new(Settings {
            environment: Environment::new([("PATH".into(), "/usr/bin:/bin".into())]),
            max_processes: 10,
            kept: 0,
            leftovers,
            open_files: None,
            limits: ResourceLimits::default(),
            journal_bytes: 1 << 20,
            collected_bytes: 1 << 20,
        })
        .unwrap()
    }

    fn shell(script: &str) -> Command {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        Command::new(words, Arc::new(File::open("/").unwrap().into())).unwrap()
    }

    /// Starts a shell that ends at once, and returns the number of the child it leaves behind.
    async fn leave_behind(processes: &Processes, child: &str) -> i32 {
        let command = shell(&format!("({child}) & echo $!"));
        let limits = Limits {
            timeout: PATIENCE,
            stream_bytes: 1 << 20,
        };
        let outcome = run_to_end(processes, command, limits).await.unwrap();
        let Captured { head, .. } = outcome.stdout;
        let text = String::from_utf8(head).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    fn runs(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            let (_, fields) = stat.rsplit_once(')').unwrap();
            !fields.trim_start().starts_with(['Z', 'X'])
        })
    }

    async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_pipes_of_no_more_commands_than_there_are_places_for_are_held() {
        let processes = processes(1);
        let writes = "while :; do echo more; sleep 0.01; done";
        let first = leave_behind(&processes, writes).await;
        let second = leave_behind(&processes, writes).await;
        eventually("the second finds its output closed", || !runs(second)).await;
        // Who writes nothing does not notice.
        let quiet = leave_behind(&processes, "exec sleep 1000").await;
        assert!(runs(first) && runs(quiet), "the first has its place");
        processes.shutdown(Duration::ZERO).await;
        assert!(!runs(first) && !runs(quiet));
    }

    #[tokio::test]
    async fn what_is_held_for_children_is_no_output_of_their_command() {
        let processes = processes(1);
        let script = "head -c 100000 /dev/zero; exec sleep 1000 &";
        let process = processes.spawn(shell(script)).await.unwrap();
        let leader = process.leader().as_raw_nonzero().get();
        let journal = Arc::downgrade(process.journal());
        process.exited().await;
        drop(process);
        eventually("the output is forgotten", || journal.strong_count() == 0).await;
        let left = std::fs::read_dir("/proc").unwrap().any(|entry| {
            let stat = std::fs::read_to_string(entry.unwrap().path().join("stat"));
            // The fourth field behind the name is the session.
            stat.is_ok_and(|stat| {
                let (_, fields) = stat.rsplit_once(')').unwrap();
                fields.split_whitespace().nth(3) == Some(&leader.to_string())
            })
        });
        assert!(left, "the child runs on");
        processes.shutdown(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_place_is_given_back_when_nobody_writes_any_more() {
        let leftovers = Leftovers::new(1, u64::MAX);
        let (sender, receiver) = pipe::pipe().unwrap();
        let (other, too_many) = pipe::pipe().unwrap();
        let first = leftovers.drain([Some(receiver), None]);
        tokio::pin!(first);
        assert!((&mut first).now_or_never().is_none(), "it has the place");
        leftovers.drain([None, Some(too_many)]).await;
        other.writable().await.unwrap();
        let broken = other.try_write(b"more").unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
        // More than a pipe holds.
        let write = async {
            let mut left = 1 << 20;
            while left > 0 {
                sender.writable().await.unwrap();
                match sender.try_write(&vec![0; left]) {
                    Ok(written) => left -= written,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            drop(sender);
        };
        tokio::join!(first, write);
        let (_sender, receiver) = pipe::pipe().unwrap();
        assert!(
            leftovers
                .drain([Some(receiver), None])
                .now_or_never()
                .is_none(),
            "there is a place again"
        );
    }

    #[test]
    fn a_process_with_few_descriptors_has_few_places() {
        for (most, descriptors, places) in [
            (1024, 1 << 20, 1024),
            (1024, u64::MAX, 1024),
            (1024, 4096, 512),
            (1024, 64, 8),
        ] {
            let leftovers = Leftovers::new(most, descriptors);
            assert_eq!(
                leftovers.places.available_permits(),
                places,
                "{descriptors}"
            );
        }
    }
}
