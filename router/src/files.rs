//! Values made from files, and made again when the files change: certificates, keys, tokens.
//!
//! The files are read once a second and compared by content, which sees an atomic rename and the
//! `..data` swap of a mounted Secret alike. Content that makes no value is reported once, and the
//! value before stays in use.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

/// The content of each file, in the order they were named.
pub(crate) type Contents = Vec<Vec<u8>>;

type Parse<T, E> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, E> + Send + Sync>;

/// A value and the files it is made from.
pub(crate) struct Followed<T, E> {
    paths: Vec<PathBuf>,
    parse: Option<Parse<T, E>>,
    current: ArcSwap<T>,
    first: Contents,
    asked: Notify,
}

impl<T, E> Followed<T, E>
where
    E: Error + From<ReadError>,
{
    /// A value that comes from no file and never changes.
    pub(crate) fn fixed(value: T) -> Self {
        Self {
            paths: Vec::new(),
            parse: None,
            current: ArcSwap::from_pointee(value),
            first: Vec::new(),
            asked: Notify::new(),
        }
    }

    /// Makes the value for the first time.
    pub(crate) fn load(
        paths: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let first = read(&paths)?;
        let value = parse(&first)?;
        Ok(Self {
            paths,
            parse: Some(Box::new(parse)),
            current: ArcSwap::from_pointee(value),
            first,
            asked: Notify::new(),
        })
    }

    /// The value now.
    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Has the files looked at now.
    pub(crate) fn look_again(&self) {
        self.asked.notify_one();
    }

    /// Follows the files until cancelled, and reports every new value and every failure.
    pub(crate) async fn follow(&self, mut report: impl FnMut(Result<(), &E>)) {
        let Some(parse) = &self.parse else {
            return std::future::pending().await;
        };
        let mut seen = Some(self.first.clone());
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.asked.notified() => {}
            }
            let contents = match read(&self.paths) {
                Ok(contents) if seen.as_ref() == Some(&contents) => continue,
                Ok(contents) => contents,
                Err(error) => {
                    // Possibly between the two renames of a rotation; told once.
                    if seen.take().is_some() {
                        report(Err(&error.into()));
                    }
                    continue;
                }
            };
            match parse(&contents) {
                Ok(value) => {
                    self.current.store(Arc::new(value));
                    report(Ok(()));
                }
                Err(error) => report(Err(&error)),
            }
            seen = Some(contents);
        }
    }
}

fn read(paths: &[PathBuf]) -> Result<Contents, ReadError> {
    paths
        .iter()
        .map(|path| {
            std::fs::read(path).map_err(|source| ReadError {
                path: path.clone(),
                source,
            })
        })
        .collect()
}

impl<T, E> fmt::Debug for Followed<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be a secret.
        f.debug_struct("Followed")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::str::Utf8Error;
    use std::time::Duration;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum TextError {
        #[error(transparent)]
        Read(#[from] ReadError),
        #[error(transparent)]
        Text(#[from] Utf8Error),
    }

    #[tokio::test(start_paused = true)]
    async fn good_content_is_taken_over_and_bad_content_reported_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        std::fs::write(&path, "one").unwrap();
        let value = Followed::load(vec![path.clone()], |contents| {
            Ok::<_, TextError>(std::str::from_utf8(&contents[0])?.to_owned())
        })
        .unwrap();
        let reports = std::cell::RefCell::new(Vec::new());
        let following = value.follow(|outcome| reports.borrow_mut().push(outcome.is_ok()));
        let script = async {
            let step = async |content: Option<&[u8]>, shown: &str| {
                match content {
                    Some(content) => std::fs::write(&path, content).unwrap(),
                    None => std::fs::remove_file(&path).unwrap(),
                }
                tokio::time::sleep(3 * INTERVAL).await;
                assert_eq!(*value.current(), shown);
            };
            step(Some(b"two"), "two").await;
            step(Some(b"\xff"), "two").await;
            step(None, "two").await;
            step(Some(b"three"), "three").await;
        };
        tokio::select! {
            () = following => {}
            () = script => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("not followed"),
        }
        assert_eq!(*reports.borrow(), [true, false, false, true]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = Followed::load(vec!["/nowhere/key".into()], |_| Ok::<_, ReadError>(()));
        assert_eq!(missing.unwrap_err().to_string(), "cannot read /nowhere/key");
    }
}
