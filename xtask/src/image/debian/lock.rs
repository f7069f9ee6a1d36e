//! The lock file: every package of every image, with the digest of its content.
//!
//! One record per line, fields between single spaces; lines that begin with `#` are comments:
//!
//! ```text
//! suite NAME
//! package ARCHITECTURE SET NAME VERSION SIZE SHA256 PATH
//! ```
//!
//! `PATH` begins at the base of the mirror.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

use crate::image::tree::clean;

/// Where it is in the repository.
pub(crate) const FILE: &str = "images/packages.lock";

const HEAD: &str =
    "# Written by `cargo xtask image --update-packages`; not to be edited by hand.\n";

/// One package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Debian's name of the architecture of the image; the package may be for `all`.
    pub(crate) architecture: String,
    /// The set of packages it belongs to, which is a layer.
    pub(crate) set: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Digest in lower-case hexadecimal digits.
    pub(crate) sha256: String,
    /// Where it is below the base of a mirror.
    pub(crate) path: String,
}

/// All packages, of one release of Debian.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) suite: String,
    pub(crate) packages: Vec<Package>,
}

impl Lock {
    /// Reads the text of a lock file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut suite = None;
        let mut packages: Vec<Package> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split(' ').collect();
            match fields.as_slice() {
                ["suite", name] if suite.is_none() => suite = Some((*name).to_owned()),
                ["suite", ..] => bail!("{FILE}:{}: expected one `suite NAME`", index + 1),
                ["package", rest @ ..] => {
                    let package = record(rest).with_context(|| format!("{FILE}:{}", index + 1))?;
                    let twice = packages.iter().any(|other| {
                        other.name == package.name && other.architecture == package.architecture
                    });
                    ensure!(
                        !twice,
                        "{FILE}:{}: {} is there twice",
                        index + 1,
                        package.name
                    );
                    packages.push(package);
                }
                _ => bail!("{FILE}:{}: expected `suite` or `package`", index + 1),
            }
        }
        Ok(Self {
            suite: suite.with_context(|| format!("{FILE}: has no line `suite NAME`"))?,
            packages,
        })
    }

    /// The packages of one layer of one architecture.
    pub(crate) fn set<'a>(
        &'a self,
        architecture: &'a str,
        set: &'a str,
    ) -> impl Iterator<Item = &'a Package> {
        self.packages
            .iter()
            .filter(move |package| package.architecture == architecture && package.set == set)
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{HEAD}suite {}", self.suite)?;
        for package in &self.packages {
            let Package {
                architecture,
                set,
                name,
                version,
                size,
                sha256,
                path,
            } = package;
            writeln!(
                out,
                "package {architecture} {set} {name} {version} {size} {sha256} {path}"
            )?;
        }
        Ok(())
    }
}

fn record(fields: &[&str]) -> Result<Package> {
    let [architecture, set, name, version, size, sha256, path] = fields else {
        bail!(
            "expected the fields ARCHITECTURE SET NAME VERSION SIZE SHA256 PATH, found {}",
            fields.len()
        );
    };
    let empty = fields.iter().any(|field| field.is_empty());
    ensure!(!empty, "a field is empty");
    // It becomes the name of a file in the cache.
    ensure!(!name.contains('/'), "name: {name:?} contains a slash");
    let size = size
        .parse()
        .with_context(|| format!("size: expected a number of bytes, found {size:?}"))?;
    let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    ensure!(
        sha256.len() == 64 && sha256.chars().all(digits),
        "sha256: expected 64 lower-case hexadecimal digits, found {sha256:?}"
    );
    ensure!(
        clean(path).is_ok_and(|cleaned| cleaned == *path),
        "path: expected one below the mirror's base, found {path:?}"
    );
    Ok(Package {
        architecture: (*architecture).to_owned(),
        set: (*set).to_owned(),
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        size,
        sha256: (*sha256).to_owned(),
        path: (*path).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn line(rest: &str) -> String {
        format!("suite trixie\npackage amd64 shell bash 5.2-1 {rest}\n")
    }

    #[test]
    fn what_is_written_is_read() {
        let text = line(&format!("12 {DIGEST} pool/main/b/bash.deb"));
        let lock = Lock::parse(&text).unwrap();
        assert_eq!(lock.to_string(), format!("{HEAD}{text}"));
        assert_eq!(Lock::parse(&lock.to_string()).unwrap(), lock);
        assert_eq!(lock.set("amd64", "shell").count(), 1);
        assert_eq!(lock.set("arm64", "shell").count(), 0);
        assert_eq!(lock.set("amd64", "python").count(), 0);
    }

    #[test]
    fn errors_name_the_line_and_the_field() {
        let good = format!("12 {DIGEST} pool/b.deb");
        for (text, expected) in [
            (
                line(&format!("many {DIGEST} pool/b.deb")),
                "lock:2: size: expected a number",
            ),
            (line("12 E3B0 pool/b.deb"), "lock:2: sha256: expected 64"),
            (
                line(&format!("12 {DIGEST} ../b.deb")),
                "lock:2: path: expected",
            ),
            (
                line(&format!("12 {DIGEST} /b.deb")),
                "lock:2: path: expected",
            ),
            (line("12"), "lock:2: expected the fields"),
            (line(&format!("12  {DIGEST}")), "lock:2: a field is empty"),
            (
                format!("{}package amd64 python bash 1 {good}\n", line(&good)),
                "lock:3: bash is there twice",
            ),
            (
                format!("suite a\npackage amd64 shell a/b 1 {good}\n"),
                "lock:2: name",
            ),
            ("suite a\nsuite b\n".into(), "lock:2: expected one"),
            ("other\n".into(), "lock:1: expected `suite` or"),
            ("# nothing\n\n".into(), "no line `suite NAME`"),
        ] {
            let error = format!("{:#}", Lock::parse(&text).unwrap_err());
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
