//! An append-only file of commits, so that a server can continue where another process stopped.
//!
//! Each record is framed by its length and a checksum. A process that is killed loses nothing that
//! was answered, because records reach the kernel before the commit is visible; a torn last record
//! is cut off at the next start. Rewriting the file to the live objects happens beside the running
//! store: the new file takes the commits made meanwhile before it replaces the old one by rename.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::watch::{Event, EventKind};
use super::{Key, Object, Revision, Store};

const MAGIC: &[u8] = b"agent-sandbox-journal 1\n";
/// Length and checksum in front of each record.
const FRAME: usize = 8;
/// A longer record is damage, not data: no request body comes near it.
const MAX_RECORD: usize = 64 << 20;
/// Below this size rewriting is not worth it.
const MIN_REWRITE: u64 = 4 << 20;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file was not written by this program.
    #[error("{} is not a journal of this version; move it away to start empty", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{} is in use by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Held for its lock.
    _lock: File,
    bytes: u64,
    bytes_when_rewritten: u64,
    /// Records appended while a rewrite runs.
    meanwhile: Option<Vec<u8>>,
}

/// What a journal held.
#[derive(Debug, Default)]
pub struct Contents {
    /// The latest revision.
    pub revision: Revision,
    /// Live objects with the qualified resource they belong to.
    pub objects: Vec<(String, Revision, Value)>,
}

impl Journal {
    /// Opens or creates the file and reads it.
    ///
    /// # Errors
    /// When it belongs to another process or program, or the operating system refuses.
    pub fn open(path: &Path) -> Result<(Self, Contents), JournalError> {
        let io = |action| {
            move |source| JournalError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| JournalError::Io {
                action: "create",
                path: lock_path,
                source,
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::Busy {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .append(true)
            .open(path)
            .map_err(io("open"))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io("read"))?;
        let (replayed, intact) = match text.strip_prefix(MAGIC) {
            Some(records) => {
                let (replayed, used) = replay(records);
                (replayed, MAGIC.len() + used)
            }
            // A crash before the first record may leave a part of the magic.
            None if MAGIC.starts_with(&text) => (Replayed::default(), 0),
            None => {
                return Err(JournalError::Foreign {
                    path: path.to_owned(),
                });
            }
        };
        if intact < text.len() {
            let lost = text.len() - intact;
            tracing::warn!(path = %path.display(), lost, "cut a damaged end off the journal");
            file.set_len(intact as u64).map_err(io("truncate"))?;
        }
        if intact == 0 {
            file.write_all(MAGIC).map_err(io("write"))?;
        }
        let journal = Self {
            path: path.to_owned(),
            file,
            _lock: lock,
            bytes: intact.max(MAGIC.len()) as u64,
            bytes_when_rewritten: 0,
            meanwhile: None,
        };
        Ok((journal, replayed.into()))
    }

    /// Appends one record; on error nothing of it remains in the file.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&record.0) {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += record.0.len() as u64;
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.extend_from_slice(&record.0);
        }
        Ok(())
    }

    /// Another handle on the file, for flushing without the store's lock.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn is_worth_rewriting(&self) -> bool {
        self.meanwhile.is_none() && self.bytes > MIN_REWRITE.max(self.bytes_when_rewritten * 2)
    }
}

/// One framed record.
#[derive(Debug)]
pub(super) struct Record(Vec<u8>);

impl Record {
    pub(super) fn of(resource: &str, event: &Event) -> Self {
        match event.kind {
            EventKind::Added | EventKind::Modified => Self::put(resource, &event.object),
            EventKind::Deleted => Self::removed(resource, &event.object),
        }
    }

    fn put(resource: &str, object: &Object) -> Self {
        let mut record = Self::start(b'+', object.revision(), resource, object.size() + 128);
        object.write("", "", &mut record.0);
        record.finish()
    }

    fn removed(resource: &str, object: &Object) -> Self {
        let mut record = Self::start(b'-', object.revision(), resource, 256);
        record.text(object.namespace());
        record.text(object.name());
        record.finish()
    }

    fn start(kind: u8, revision: Revision, resource: &str, capacity: usize) -> Self {
        let mut record = Self(Vec::with_capacity(FRAME + capacity));
        record.0.extend_from_slice(&[0; FRAME]);
        record.0.push(kind);
        record.0.extend_from_slice(&revision.get().to_le_bytes());
        record.text(resource);
        record
    }

    fn text(&mut self, text: &str) {
        // Names are at most 253 bytes long.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(
            text.as_bytes()
                .get(..usize::from(length))
                .unwrap_or_default(),
        );
    }

    fn finish(mut self) -> Self {
        let (frame, payload) = self.0.split_at_mut(FRAME);
        let length = u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes();
        let sum = crc32(payload).to_le_bytes();
        for (slot, byte) in frame.iter_mut().zip(length.into_iter().chain(sum)) {
            *slot = byte;
        }
        self
    }
}

/// Rewrites the store's journal if it has grown enough.
pub(super) fn compact(store: &Store) -> io::Result<()> {
    let (path, objects, revision) = {
        let mut state = store.state.write();
        let (objects, revision) = (state.dump(), state.revision());
        let Some(journal) = state.journal_mut().filter(|j| j.is_worth_rewriting()) else {
            return Ok(());
        };
        journal.meanwhile = Some(Vec::new());
        (journal.path.clone(), objects, revision)
    };
    let fresh = path.with_extension("new");
    let outcome = write_fresh(&fresh, &objects, revision).and_then(|(mut file, mut bytes)| {
        let mut state = store.state.write();
        let Some(journal) = state.journal_mut() else {
            return Ok(());
        };
        let meanwhile = journal.meanwhile.take().unwrap_or_default();
        file.write_all(&meanwhile)?;
        bytes += meanwhile.len() as u64;
        std::fs::rename(&fresh, &path)?;
        journal.file = file;
        journal.bytes = bytes;
        journal.bytes_when_rewritten = bytes;
        Ok(())
    });
    if outcome.is_err() {
        if let Some(journal) = store.state.write().journal_mut() {
            journal.meanwhile = None;
        }
        if let Err(error) = std::fs::remove_file(&fresh) {
            tracing::debug!(path = %fresh.display(), %error, "cannot remove");
        }
    }
    outcome
}

fn write_fresh(
    path: &Path,
    objects: &[(Arc<str>, Arc<Object>)],
    revision: Revision,
) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)?;
    let mut writer = BufWriter::new(file);
    writer.write_all(MAGIC)?;
    let mut bytes = MAGIC.len();
    // The revision survives even when the objects that reached it are gone.
    let records = objects
        .iter()
        .map(|(resource, object)| Record::put(resource, object));
    for record in records.chain([Record::start(b'=', revision, "", 0).finish()]) {
        writer.write_all(&record.0)?;
        bytes += record.0.len();
    }
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_data()?;
    Ok((file, bytes as u64))
}

/// The state that a sequence of records amounts to.
#[derive(Debug, Default)]
struct Replayed {
    revision: Revision,
    objects: BTreeMap<(String, Key), (Revision, Value)>,
}

impl From<Replayed> for Contents {
    fn from(replayed: Replayed) -> Self {
        Self {
            revision: replayed.revision,
            objects: replayed
                .objects
                .into_iter()
                .map(|((resource, _), (revision, value))| (resource, revision, value))
                .collect(),
        }
    }
}

/// Replays records until the end or the first damaged one, and says how many bytes were intact.
fn replay(records: &[u8]) -> (Replayed, usize) {
    let mut replayed = Replayed::default();
    let mut rest = records;
    while let Some((payload, after)) = next_record(rest) {
        if replayed.apply(payload).is_none() {
            break;
        }
        rest = after;
    }
    (replayed, records.len() - rest.len())
}

fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_RECORD {
        return None;
    }
    let (payload, after) = rest.split_at_checked(length)?;
    (crc32(payload) == u32::from_le_bytes(*sum)).then_some((payload, after))
}

impl Replayed {
    fn apply(&mut self, payload: &[u8]) -> Option<()> {
        let (kind, rest) = payload.split_first()?;
        let (revision, rest) = rest.split_first_chunk::<8>()?;
        let revision = Revision::new(u64::from_le_bytes(*revision));
        let (resource, rest) = take_text(rest)?;
        match kind {
            b'+' => {
                let value: Value = serde_json::from_slice(rest).ok()?;
                let metadata = value.get("metadata")?;
                let text = |field| metadata.get(field).and_then(Value::as_str).unwrap_or("");
                let key = Key::new(text("namespace"), text("name"));
                self.objects
                    .insert((resource.to_owned(), key), (revision, value));
            }
            b'-' => {
                let (namespace, rest) = take_text(rest)?;
                let (name, _) = take_text(rest)?;
                self.objects
                    .remove(&(resource.to_owned(), Key::new(namespace, name)));
            }
            b'=' => {}
            _ => return None,
        }
        self.revision = self.revision.max(revision);
        Some(())
    }
}

fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

/// CRC-32 (IEEE 802.3), the polynomial of gzip and zip.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            #[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    (value >> 1) ^ 0xEDB8_8320
                } else {
                    value >> 1
                };
                bit += 1;
            }
            #[expect(
                clippy::indexing_slicing,
                reason = "the index is below the array's length"
            )]
            {
                table[at] = value;
            }
            at += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, byte| {
        let index = (sum ^ u32::from(*byte)) & 0xFF;
        (sum >> 8) ^ TABLE.get(index as usize).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Change, Draft, Fields, WindowLimits};
    use super::*;

    fn draft(name: &str, n: u64) -> Draft {
        let object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"n": n}});
        Draft::new(&object, Fields::default())
    }

    fn store_on(path: &Path) -> Store {
        let (journal, contents) = Journal::open(path).unwrap();
        let store = Store::new(WindowLimits::default());
        store.restore(
            contents.revision,
            contents
                .objects
                .into_iter()
                .map(|(resource, at, value)| (resource, at, Draft::new(&value, Fields::default()))),
        );
        store.attach_journal(journal);
        store
    }

    fn create(store: &Store, name: &str, n: u64) -> Arc<Object> {
        store
            .commit("things", Change::Create(draft(name, n)), None)
            .unwrap()
    }

    #[test]
    fn crc_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_second_process_continues_with_objects_and_revision() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        let store = store_on(&path);
        create(&store, "a", 1);
        let b = create(&store, "b", 1);
        let change = Change::Delete {
            key: b.key().clone(),
            expected: b.revision(),
        };
        store.commit("things", change, None).unwrap();
        let a = store.get("things", "ns", "a").unwrap();
        let change = Change::Replace {
            expected: a.revision(),
            draft: draft("a", 2),
        };
        let a = store.commit("things", change, None).unwrap();
        drop(store);

        let store = store_on(&path);
        assert_eq!(store.revision(), Revision::new(4));
        let again = store.get("things", "ns", "a").unwrap();
        assert_eq!(again.value("v1", "T"), a.value("v1", "T"));
        assert!(store.get("things", "ns", "b").is_none());
        assert!(
            store
                .subscribe("things", super::super::Scope::All, Revision::new(3))
                .is_err(),
            "events from before the restart are not replayed"
        );
    }

    #[test]
    fn a_torn_end_costs_only_the_torn_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        let store = store_on(&path);
        create(&store, "a", 1);
        let intact = std::fs::read(&path).unwrap().len();
        create(&store, "b", 1);
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        for cut in intact..whole.len() {
            let file = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            (&file).write_all(&whole[..cut]).unwrap();
            drop(file);
            let store = store_on(&path);
            assert!(store.get("things", "ns", "a").is_some(), "cut at {cut}");
            assert!(store.get("things", "ns", "b").is_none(), "cut at {cut}");
            create(&store, "c", 1);
            drop(store);
            assert!(
                store_on(&path).get("things", "ns", "c").is_some(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_not_read_as_data() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        let store = store_on(&path);
        create(&store, "a", 1);
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(store_on(&path).get("things", "ns", "a").is_none());
    }

    #[test]
    fn rewriting_keeps_the_live_objects_and_later_commits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        let store = store_on(&path);
        let mut a = create(&store, "a", 0);
        let text = "x".repeat(64 << 10);
        for n in 1..100 {
            let object = json!({"metadata": {"name": "a", "namespace": "ns"}, "n": n, "t": text});
            let change = Change::Replace {
                expected: a.revision(),
                draft: Draft::new(&object, Fields::default()),
            };
            a = store.commit("things", change, None).unwrap();
        }
        let before = std::fs::metadata(&path).unwrap().len();
        store.compact_journal().unwrap();
        let after = std::fs::metadata(&path).unwrap().len();
        assert!(after < before / 10, "{before} -> {after}");
        create(&store, "b", 1);
        store.sync_journal().unwrap();
        drop(store);
        let store = store_on(&path);
        assert_eq!(store.revision(), Revision::new(101));
        assert_eq!(
            store.get("things", "ns", "a").unwrap().value("", "")["n"],
            99
        );
        assert!(store.get("things", "ns", "b").is_some());
    }

    #[test]
    fn foreign_and_busy_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.journal");
        std::fs::write(&path, "something else entirely, with text").unwrap();
        assert!(matches!(
            Journal::open(&path),
            Err(JournalError::Foreign { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        let held = Journal::open(&path).unwrap();
        assert!(matches!(
            Journal::open(&path),
            Err(JournalError::Busy { .. })
        ));
        drop(held);
        assert!(Journal::open(&path).is_ok());
    }
}
