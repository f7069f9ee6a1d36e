//! What nothing that runs commands can be faster than: spawning and waiting, in this process.
//!
//! The standard library calls `posix_spawn` here, for nothing is asked of it that needs `fork`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::time::Instant;

use crate::bench::installed;

/// A command and what it writes.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// The program and its arguments.
    pub words: &'static [&'static str],
    /// Its output.
    pub output: &'static str,
}

/// Does nothing.
pub const TRUE: Task = Task {
    words: &["true"],
    output: "",
};
/// Says something.
pub const ECHO: Task = Task {
    words: &["echo", "hi"],
    output: "hi\n",
};

/// How long it takes, each time: spawn and wait, outputs to nowhere.
pub fn bare(task: Task, runs: usize) -> Result<Vec<Duration>> {
    let mut command = command(task.words)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    each(runs, || {
        let status = command.status().context("cannot spawn")?;
        ensure!(status.success(), "{:?} failed ({status})", task.words);
        Ok(())
    })
}

/// How long it takes, each time: with a pipe for each output, read to its end.
pub fn piped(task: Task, runs: usize) -> Result<Vec<Duration>> {
    let mut command = command(task.words)?;
    command.stdin(Stdio::null());
    each(runs, || {
        let output = command.output().context("cannot spawn")?;
        ensure!(
            output.status.success() && output.stdout == task.output.as_bytes(),
            "{:?} answered {output:?}",
            task.words
        );
        Ok(())
    })
}

/// How long a shell's line takes, each time, whose output has this length.
pub fn shell(line: &str, length: usize, runs: usize) -> Result<Vec<Duration>> {
    let mut command = command(&["sh", "-c", line])?;
    command.stdin(Stdio::null());
    each(runs, || {
        let output = command.output().context("cannot spawn")?;
        ensure!(
            output.status.success() && output.stdout.len() == length,
            "{} bytes came of {length} ({})",
            output.stdout.len(),
            output.status
        );
        Ok(())
    })
}

/// How many a second: one loop for each of these processors, each on its own.
pub fn rate(task: Task, time: Duration, processors: &[usize]) -> Result<f64> {
    let start = Instant::now();
    let counts: Vec<Result<u32>> = std::thread::scope(|scope| {
        let loops: Vec<_> = processors
            .iter()
            .map(|processor| scope.spawn(move || on(*processor, task, time)))
            .collect();
        let ended = loops.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended
            .map(|found| found.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
            .collect()
    });
    let mut all = 0;
    for count in counts {
        all += count?;
    }
    Ok(f64::from(all) / start.elapsed().as_secs_f64())
}

fn on(processor: usize, task: Task, time: Duration) -> Result<u32> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).context("cannot choose a processor")?;
    let mut command = command(task.words)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time || count == 0 {
        let status = command.status().context("cannot spawn")?;
        ensure!(status.success(), "{:?} failed ({status})", task.words);
        count += 1;
    }
    Ok(count)
}

/// The program by its whole path, so that nothing is searched.
fn command(words: &[&str]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("a command has a program")?;
    let path: PathBuf =
        installed::located(program).with_context(|| format!("{program} is not installed"))?;
    let mut command = Command::new(path);
    command.args(arguments);
    Ok(command)
}

fn each(runs: usize, mut once: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        once()?;
        samples.push(start.elapsed());
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_checked() {
        assert_eq!(bare(TRUE, 3).unwrap().len(), 3);
        assert_eq!(piped(ECHO, 2).unwrap().len(), 2);
        let silent = Task {
            words: &["true"],
            output: "something",
        };
        assert!(piped(silent, 1).is_err());
        let failing = Task {
            words: &["false"],
            output: "",
        };
        assert!(bare(failing, 1).is_err());
        assert!(rate(failing, Duration::ZERO, &[0]).is_err());
        assert_eq!(shell("printf abc", 3, 1).unwrap().len(), 1);
        assert!(shell("printf abc", 4, 1).is_err());
        let unknown = Task {
            words: &["no-such-program-anywhere"],
            output: "",
        };
        let error = bare(unknown, 1).unwrap_err().to_string();
        assert!(error.contains("no-such-program-anywhere"), "{error}");
    }
}
