//! Every operation of the engine, on any paths.

use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::*;

/// What can be called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Stat(LastLink),
    Exists,
    List,
    Read,
    Put(Dangling),
    PutOver,
    Remove(Removal),
    Mkdir(Parents),
    Move(Existing),
    Copy(Existing),
    Change,
    Glob,
    Search,
    Replace,
    ReplaceNamed,
    Pack,
    Unpack,
    Watch,
}

pub(super) const CALLS: [Call; 24] = [
    Call::Stat(LastLink::Follow),
    Call::Stat(LastLink::Keep),
    Call::Exists,
    Call::List,
    Call::Read,
    Call::Put(Dangling::Follow),
    Call::Put(Dangling::Replace),
    Call::PutOver,
    Call::Remove(Removal::Single),
    Call::Remove(Removal::Recursive),
    Call::Mkdir(Parents::Create),
    Call::Mkdir(Parents::Require),
    Call::Move(Existing::Keep),
    Call::Move(Existing::Replace),
    Call::Copy(Existing::Keep),
    Call::Copy(Existing::Replace),
    Call::Change,
    Call::Glob,
    Call::Search,
    Call::Replace,
    Call::ReplaceNamed,
    Call::Pack,
    Call::Unpack,
    Call::Watch,
];

impl Call {
    /// Runs it, and panics if the answer tells of the outside. That it fails is as good as that it
    /// succeeds.
    pub(super) fn run(
        self,
        root: &Root,
        one: &str,
        other: &str,
        runtime: &tokio::runtime::Runtime,
    ) {
        let outcome = self.answer(root, one, other, runtime);
        if let Ok(answer) = outcome {
            assert!(!told(&answer), "{self:?} {one:?} {other:?} tells");
        }
    }

    fn answer(
        self,
        root: &Root,
        one: &str,
        other: &str,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Vec<u8>, FileError> {
        let path = root.parse_absolute(one.as_ref())?;
        let to = root.parse_absolute(other.as_ref())?;
        let caller = Caller::default();
        match self {
            Self::Stat(last) => {
                let status = root.stat(&path, last)?;
                assert_ne!(status.size, SIZE as u64, "{one:?} is outside");
            }
            Self::Exists => {
                root.exists(&path, LastLink::Follow)?;
            }
            Self::List => {
                let listed: Vec<Listed> = root.list(&path, &caller)?.collect();
                let outside = |entry: &Listed| entry.size == SIZE as u64 || entry.name == MARKER;
                assert!(!listed.iter().any(outside), "{one:?} lists the outside");
            }
            Self::Read => {
                let file = root.open_file(&path)?;
                let size = usize::try_from(file.size).unwrap();
                let read = runtime.block_on(async {
                    let buffer = BytesMut::new();
                    file.begin_read(0, size, buffer).done().await
                });
                return Ok(read.map(|(read, _)| read.to_vec()).unwrap_or_default());
            }
            Self::Put(dangling) => put(root, path, dangling, Condition::default(), runtime)?,
            Self::PutOver => {
                let condition = Condition {
                    only: Some(Versions::Any),
                    never: None,
                };
                put(root, path, Dangling::Follow, condition, runtime)?;
            }
            Self::Remove(removal) => root.remove(&path, removal)?,
            Self::Mkdir(parents) => {
                root.make_directory(&path, parents, Some(0o750))?;
            }
            Self::Move(existing) => root.move_to(&path, &to, existing, &caller)?,
            Self::Copy(existing) => {
                root.copy(&path, &to, existing, &caller)?;
            }
            Self::Change => root.change(&path, Some(0o700), Owner::default())?,
            Self::Glob => {
                let found = root.glob(&path, "**", 1000, &caller)?;
                let marker = |path: &Path| path.file_name().is_some_and(|name| name == MARKER);
                assert!(
                    !found.matches.iter().any(|(path, _)| marker(path)),
                    "{one:?}"
                );
            }
            Self::Search => {
                let found = root.search(&path, &search(), &caller)?;
                return Ok(format!("{:?}", found.lines).into_bytes());
            }
            Self::Replace => {
                let targets = Targets::Below(path, everything());
                root.replace(&targets, &replacement(), &caller)?;
            }
            Self::ReplaceNamed => {
                root.replace(&Targets::Named(vec![path, to]), &replacement(), &caller)?;
            }
            Self::Pack => {
                let mut packed = Vec::new();
                let take = |bytes: Bytes| {
                    packed.extend_from_slice(&bytes);
                    Ok(())
                };
                root.pack(&path)?.run(take, &caller)?;
                return Ok(packed);
            }
            Self::Unpack => {
                let pieces = [Ok(archive(other).into())].into_iter();
                drop(root.unpack(&path, pieces, None, &caller));
            }
            Self::Watch => {
                let mut watch = root.watch(&path, Depth::Recursive, &caller)?;
                let mut changes = Vec::new();
                watch.drain(&mut changes)?;
                let told = format!("{changes:?}");
                assert!(!told.contains(MARKER), "{one:?}: {told}");
            }
        }
        Ok(Vec::new())
    }
}

fn put(
    root: &Root,
    path: TreePath,
    dangling: Dangling,
    condition: Condition,
    runtime: &tokio::runtime::Runtime,
) -> Result<(), FileError> {
    runtime.block_on(async {
        let options = UploadOptions {
            mode: FileMode::KeptOr(0o644),
            dangling,
            condition,
            ..UploadOptions::default()
        };
        let mut upload = Upload::begin(root, path, options).await?;
        upload.write(Bytes::from_static(b"inside")).await?;
        upload.commit().await.map(drop)
    })
}

fn everything() -> Selection {
    let none = Globs::parse(&[], Bare::Name).unwrap();
    Selection {
        only: none.clone(),
        except: none,
    }
}

fn search() -> Search {
    Search {
        pattern: Pattern::compile(CANARY, Syntax::Literal, false).unwrap(),
        selection: everything(),
        limit: 100,
        max_file_bytes: 1 << 20,
        max_line_bytes: 100,
    }
}

fn replacement() -> Replacement {
    Replacement {
        pattern: Pattern::compile("(CANARY|inside)", Syntax::Regex, false).unwrap(),
        with: "changed".into(),
        syntax: Syntax::Literal,
        expected: None,
        max_file_bytes: 1 << 20,
    }
}

/// A file, a link of the same name as a directory that is used after it, and hard links.
fn archive(name: &str) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut add = |kind: tar::EntryType, name: &str, target: &str| {
        let content: &[u8] = if kind.is_file() { b"inside" } else { b"" };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        let put = |field: &mut [u8; 100], text: &str| {
            for (place, byte) in field.iter_mut().zip(text.bytes()) {
                *place = byte;
            }
        };
        put(&mut header.as_old_mut().name, name);
        put(&mut header.as_old_mut().linkname, target);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    };
    add(tar::EntryType::Regular, "a/f", "");
    add(tar::EntryType::Directory, "sub", "");
    add(tar::EntryType::Symlink, "up", "../../outside");
    add(tar::EntryType::Link, "hard", name);
    add(tar::EntryType::Regular, name, "");
    add(tar::EntryType::Regular, "up/f", "");
    archive
}
