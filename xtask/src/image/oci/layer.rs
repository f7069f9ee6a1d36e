//! A layer: a tree as a compressed tar archive that depends on nothing but the tree and one time.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::image::digest;
use crate::image::tree::{Entry, Kind, Tree};

/// A compressed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// What the layer brings, for the image's history.
    pub(crate) what: String,
    /// Digest of the archive before compression.
    pub(crate) diff_id: String,
    pub(crate) compressed: Vec<u8>,
    /// Bytes before compression.
    pub(crate) size: u64,
}

impl Layer {
    /// Packs a tree. Every file gets the same time, in seconds since 1970.
    pub(crate) fn pack(what: &str, tree: &Tree, time: u64) -> Result<Self> {
        let archive =
            archive(tree, time).with_context(|| format!("cannot pack the layer: {what}"))?;
        // No time and no name in its header.
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::new(LEVEL));
        gzip.write_all(&archive)?;
        Ok(Self {
            what: what.to_owned(),
            diff_id: digest::oci(&archive),
            compressed: gzip.finish()?,
            size: archive.len() as u64,
        })
    }
}

/// The best that is still quick.
const LEVEL: u32 = 9;

fn archive(tree: &Tree, time: u64) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let second_name = |entry: &Entry| matches!(entry.kind, Kind::Hardlink(_));
    // A second name must come after the file, wherever that is in the order of paths.
    let first = tree.entries().filter(|(_, entry)| !second_name(entry));
    let then = tree.entries().filter(|(_, entry)| second_name(entry));
    for (path, entry) in first.chain(then) {
        append(&mut builder, path, entry, time).with_context(|| path.to_owned())?;
    }
    Ok(builder.into_inner()?)
}

fn append(builder: &mut Builder<Vec<u8>>, path: &str, entry: &Entry, time: u64) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(time);
    header.set_size(0);
    match &entry.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Kind::File(content) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_slice())?;
        }
        Kind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, path, target)?;
        }
        Kind::Hardlink(target) => {
            header.set_entry_type(EntryType::Link);
            builder.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let long = format!("usr/{}/{}", "a".repeat(120), "b".repeat(120));
        tree.insert("usr/z", Entry::file("content")).unwrap();
        tree.insert("usr/a", Entry::root(Kind::Hardlink("usr/z".into()), 0o644))
            .unwrap();
        tree.insert(&long, Entry::file("")).unwrap();
        tree.insert("link", Entry::symlink("../absent")).unwrap();
        tree.insert("work", Entry::directory(0o1777).owned_by(1000))
            .unwrap();
        tree
    }

    fn unpacked(layer: &Layer) -> Vec<u8> {
        let mut bytes = Vec::new();
        GzDecoder::new(layer.compressed.as_slice())
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_whatever_the_order() {
        let mut other = Tree::default();
        for (path, entry) in tree().entries().collect::<Vec<_>>().into_iter().rev() {
            if !matches!(entry.kind, Kind::Hardlink(_)) {
                other.insert(path, entry.clone()).unwrap();
            }
        }
        other
            .insert("usr/a", Entry::root(Kind::Hardlink("usr/z".into()), 0o644))
            .unwrap();
        let layer = Layer::pack("x", &tree(), 7).unwrap();
        assert_eq!(Layer::pack("x", &other, 7).unwrap(), layer);
        assert_ne!(Layer::pack("x", &tree(), 8).unwrap(), layer);
    }

    #[test]
    fn what_is_packed_can_be_read() {
        let layer = Layer::pack("x", &tree(), 7).unwrap();
        let bytes = unpacked(&layer);
        assert_eq!(layer.size, bytes.len() as u64);
        assert_eq!(layer.diff_id, digest::oci(&bytes));
        let mut found = BTreeMap::new();
        let mut order = Vec::new();
        for file in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut file = file.unwrap();
            let path = file.path().unwrap().to_str().unwrap().to_owned();
            assert_eq!(file.header().mtime().unwrap(), 7, "{path}");
            let ids = (file.header().uid().unwrap(), file.header().gid().unwrap());
            let link = file.link_name().unwrap().map(Cow::into_owned);
            let mode = file.header().mode().unwrap();
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            order.push(path.clone());
            found.insert(path, (mode, ids, content, link));
        }
        assert_eq!(found["work/"], (0o1777, (1000, 1000), String::new(), None));
        assert_eq!(found["usr/z"].2, "content");
        assert_eq!(found["link"].3.as_deref(), Some("../absent".as_ref()));
        assert_eq!(found["usr/a"].3.as_deref(), Some("usr/z".as_ref()));
        assert!(found.keys().any(|path| path.len() > 240), "{order:?}");
        assert_eq!(order.last().unwrap(), "usr/a", "after the file it names");
    }
}
