//! Unpacking a Debian package into a tree, without dpkg and without its maintainer scripts.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use lzma_rust2::XzReader;
use tar::EntryType;

use super::ar;
use crate::image::tree::{Entry, Kind, Tree, clean};

/// The only version of the format there is; a later minor one is compatible.
const FORMAT: &[u8] = b"2.";
/// The most that one member of a package may unpack to, so that a broken one does not fill the memory.
const LARGEST: u64 = 1 << 30;

/// Adds the wanted files of a package to the tree, by their cleaned paths. Returns its control file.
pub(crate) fn unpack(
    package: &[u8],
    tree: &mut Tree,
    wanted: impl Fn(&str) -> bool,
) -> Result<String> {
    let members = ar::members(package)?;
    let Some((("debian-binary", version), rest)) = members
        .split_first()
        .map(|((name, data), rest)| ((name.as_str(), *data), rest))
    else {
        bail!("is no Debian package: the first member is not `debian-binary`");
    };
    ensure!(
        version.starts_with(FORMAT),
        "has the package format {:?}; expected 2.x",
        String::from_utf8_lossy(version).trim()
    );
    let control = control_file(&member(rest, "control.tar")?)?;
    add(&member(rest, "data.tar")?, tree, wanted)?;
    Ok(control)
}

/// A member by the beginning of its name, decompressed.
fn member(members: &[(String, &[u8])], stem: &str) -> Result<Vec<u8>> {
    let (name, data) = members
        .iter()
        .find(|(name, _)| name.starts_with(stem))
        .with_context(|| format!("has no member `{stem}`"))?;
    let reader: Box<dyn Read + '_> = match name.strip_prefix(stem).unwrap_or_default() {
        "" => Box::new(*data),
        ".gz" => Box::new(GzDecoder::new(*data)),
        ".xz" => Box::new(XzReader::new(*data, true)),
        other => bail!("{name}: the compression `{other}` is unknown; expected .xz, .gz or none"),
    };
    let mut bytes = Vec::new();
    reader
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{name}: cannot be decompressed"))?;
    ensure!(
        bytes.len() as u64 <= LARGEST,
        "{name}: is larger than {LARGEST} bytes"
    );
    Ok(bytes)
}

fn control_file(archive: &[u8]) -> Result<String> {
    for file in tar::Archive::new(archive).entries()? {
        let mut file = file.context("control.tar: is damaged")?;
        if file.path_bytes().as_ref() == b"./control" || file.path_bytes().as_ref() == b"control" {
            let mut text = String::new();
            file.read_to_string(&mut text)
                .context("control.tar: the file `control` is no text")?;
            return Ok(text);
        }
    }
    bail!("control.tar: has no file `control`")
}

fn add(archive: &[u8], tree: &mut Tree, wanted: impl Fn(&str) -> bool) -> Result<()> {
    for file in tar::Archive::new(archive)
        .entries()
        .context("data.tar: is no tar archive")?
    {
        let mut file = file.context("data.tar: is damaged")?;
        let written = text(file.path_bytes().as_ref())?;
        // The root itself.
        if matches!(written.as_str(), "./" | ".") {
            continue;
        }
        let path = clean(&written)?;
        if !wanted(&path) {
            continue;
        }
        let link = match file.link_name_bytes() {
            Some(bytes) => text(&bytes)?,
            None => String::new(),
        };
        let kind = match file.header().entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                let mut content = Vec::new();
                file.read_to_end(&mut content)
                    .with_context(|| format!("data.tar: {path}: is cut off"))?;
                Kind::File(content)
            }
            EntryType::Symlink => Kind::Symlink(link),
            EntryType::Link => Kind::Hardlink(clean(&link)?),
            other => bail!(
                "data.tar: {path}: is of the kind {other:?}; expected a file, link or directory"
            ),
        };
        let header = file.header();
        // Nobody in a sandbox becomes another user: the bits that would do so go.
        let mode = match kind {
            Kind::Directory => header.mode()? & 0o1777,
            Kind::Symlink(_) => 0o777,
            Kind::File(_) | Kind::Hardlink(_) => header.mode()? & 0o777,
        };
        let id =
            |value: u64| u32::try_from(value).with_context(|| format!("{path}: owner {value}"));
        let (uid, gid) = (id(header.uid()?)?, id(header.gid()?)?);
        tree.insert(
            &path,
            Entry {
                kind,
                mode,
                uid,
                gid,
            },
        )
        .context("data.tar")?;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).with_context(|| {
        format!(
            "data.tar: {:?}: is no UTF-8",
            String::from_utf8_lossy(bytes)
        )
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::image::debian::ar::tests::archive;

    fn tar_of(files: &[(&str, EntryType, &str, u32)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content, mode) in files {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            let data = if *kind == EntryType::Regular {
                *content
            } else {
                ""
            };
            header.set_size(data.len() as u64);
            // Written past the crate's own checks: packages may name anything.
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            if *kind != EntryType::Regular {
                let link = &mut header.as_old_mut().linkname;
                link[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn package(data: &[u8]) -> Vec<u8> {
        let control = tar_of(&[("./control", EntryType::Regular, "Package: x\n", 0o644)]);
        archive(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar.gz", &gzip(&control)),
            ("data.tar.gz", &gzip(data)),
        ])
    }

    fn refused(package: &[u8]) -> String {
        let outcome = unpack(package, &mut Tree::default(), |_| true);
        format!("{:#}", outcome.unwrap_err())
    }

    #[test]
    fn files_and_links_arrive_without_setuid_and_unwanted_ones_do_not() {
        let data = tar_of(&[
            ("./", EntryType::Directory, "", 0o755),
            ("./bin/su", EntryType::Regular, "su", 0o4755),
            ("./bin/sg", EntryType::Link, "./bin/su", 0o4755),
            ("./tmp/", EntryType::Directory, "", 0o3777),
            ("./bin/link", EntryType::Symlink, "../../x", 0o777),
            ("./usr/share/man/su.1", EntryType::Regular, "manual", 0o644),
        ]);
        let mut tree = Tree::default();
        let wanted = |path: &str| !path.starts_with("usr/share/man/");
        assert_eq!(
            unpack(&package(&data), &mut tree, wanted).unwrap(),
            "Package: x\n"
        );
        assert_eq!(tree.file("usr/bin/su"), Some(&b"su"[..]));
        let found: Vec<(&str, u32)> = tree.entries().map(|(path, e)| (path, e.mode)).collect();
        let expected = [
            ("tmp", 0o1777),
            ("usr", 0o755),
            ("usr/bin", 0o755),
            ("usr/bin/link", 0o777),
            ("usr/bin/sg", 0o755),
            ("usr/bin/su", 0o755),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn paths_out_of_the_root_are_refused() {
        for path in ["../etc/passwd", "/etc/passwd", "./usr/../../x"] {
            let data = tar_of(&[(path, EntryType::Regular, "x", 0o644)]);
            let error = refused(&package(&data));
            assert!(error.contains(path), "{error}");
        }
        let through = tar_of(&[
            ("./etc", EntryType::Symlink, "/", 0o777),
            ("./etc/passwd", EntryType::Regular, "x", 0o644),
        ]);
        assert!(refused(&package(&through)).contains("no directory"));
        let outside = tar_of(&[("./x", EntryType::Link, "../../etc/passwd", 0o644)]);
        assert!(refused(&package(&outside)).contains(".."));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
            let error = refused(&package(&tar_of(&[("./dev/x", kind, "", 0o644)])));
            assert!(
                error.contains("dev/x") && error.contains("expected"),
                "{error}"
            );
        }
    }

    #[test]
    fn broken_packages_are_refused_with_what_is_wrong() {
        let control = gzip(&tar_of(&[("control", EntryType::Regular, "x", 0o644)]));
        let other = gzip(&tar_of(&[("other", EntryType::Regular, "x", 0o644)]));
        let data = tar_of(&[("./a", EntryType::Regular, &"x".repeat(2000), 0o644)]);
        let cut = gzip(&data[..1024]);
        let version: (&str, &[u8]) = ("debian-binary", b"2.0\n");
        for (members, expected) in [
            (&[("control.tar.gz", &control[..])][..], "`debian-binary`"),
            (&[("debian-binary", b"3.0\n")], "3.0"),
            (&[version], "control.tar"),
            (&[version, ("control.tar.gz", &control)], "data.tar"),
            (&[version, ("control.tar.zst", &control)], ".zst"),
            (&[version, ("control.tar.gz", b"no gzip")], "decompressed"),
            (&[version, ("control.tar.xz", b"no xz")], "decompressed"),
            (&[version, ("control.tar.gz", &other)], "no file `control`"),
            (
                &[version, ("control.tar.gz", &control), ("data.tar.gz", &cut)],
                "data.tar",
            ),
        ] {
            let error = refused(&archive(members));
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
