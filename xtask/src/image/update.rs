//! Writing the lock file: the newest packages of the release and of its security updates.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::debian::index::Index;
use super::debian::lock::{self, Lock, Package};
use super::debian::mirror::Mirror;
use super::debian::release;
use super::definition::{ARCHITECTURES, SECURITY, SETS, SUITE};
use crate::{cargo, report};

/// Looks up every set of packages for every architecture and writes the lock file.
pub(crate) fn run(mirrors: &[String], keyring: &Path, work: &Path) -> Result<()> {
    let mirror = Mirror::choose(mirrors)?;
    let work = work.join("indexes");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let mut packages = Vec::new();
    for architecture in ARCHITECTURES {
        report::step(&format!(
            "the newest packages of {SUITE} for {architecture}"
        ));
        let mut index = Index::default();
        for suite in [SUITE.to_owned(), format!("{SUITE}{SECURITY}")] {
            let text = release::index(&mirror, (&suite, architecture), keyring, &work)?;
            index
                .add(&text)
                .with_context(|| format!("the index of {suite}"))?;
        }
        packages.extend(chosen(&index, architecture)?);
    }
    let lock = Lock {
        suite: SUITE.to_owned(),
        packages,
    };
    let text = lock.to_string();
    // What is written must be what the next build reads.
    Lock::parse(&text).context("the mirror's index gives a malformed lock file")?;
    let path = cargo::root()?.join(lock::FILE);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    report::line(&format!(
        "{}: {} packages",
        path.display(),
        lock.packages.len()
    ));
    Ok(())
}

/// The packages of all sets, each in the lowest set that needs it.
fn chosen(index: &Index, architecture: &str) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    let mut below: BTreeSet<String> = BTreeSet::new();
    let (mut roots, mut omitted) = (Vec::new(), Vec::new());
    for set in SETS {
        roots.extend_from_slice(set.roots);
        omitted.extend_from_slice(set.omitted);
        let all = index
            .closure(&roots, &omitted)
            .with_context(|| format!("the packages of {} for {architecture}", set.name))?;
        for name in all.difference(&below) {
            let record = index.get(name).with_context(|| name.clone())?;
            packages.push(Package {
                architecture: architecture.to_owned(),
                set: set.name.to_owned(),
                name: name.clone(),
                version: record.version.clone(),
                size: record.size,
                sha256: record.sha256.clone(),
                path: record.path.clone(),
            });
        }
        below = all;
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::definition::{DATA, PYTHON, SHELL};

    const LOCK: &str = include_str!("../../../images/packages.lock");

    #[test]
    fn the_lock_file_has_what_the_definitions_want() {
        let lock = Lock::parse(LOCK).unwrap();
        assert_eq!(lock.suite, SUITE);
        for architecture in ARCHITECTURES {
            for set in SETS {
                let names: Vec<&str> = lock
                    .set(architecture, set.name)
                    .map(|package| package.name.as_str())
                    .collect();
                for root in set.roots {
                    assert!(
                        names.contains(root),
                        "{architecture}: {root}; update the lock file"
                    );
                }
                for omitted in set.omitted {
                    assert!(
                        !names.contains(omitted),
                        "{architecture}: {omitted}; update the lock file"
                    );
                }
            }
        }
        assert_eq!(lock.to_string(), LOCK, "edited by hand");
    }

    #[test]
    fn a_package_is_in_the_lowest_set_that_needs_it() {
        let mut index = Index::default();
        let more = "Depends: shared\n";
        for (name, depends) in SETS
            .iter()
            .flat_map(|set| set.roots)
            .map(|name| (*name, more))
            .chain([("shared", ""), ("unwanted", "")])
        {
            let text = format!(
                "Package: {name}\nVersion: 1\nSize: 1\nSHA256: 0\nFilename: {name}.deb\n{depends}\n"
            );
            index.add(&text).unwrap();
        }
        let packages = chosen(&index, "amd64").unwrap();
        let of = |set: &str| packages.iter().filter(|package| package.set == set).count();
        assert_eq!(of(SHELL.name), SHELL.roots.len() + 1, "and what they share");
        assert_eq!(of(PYTHON.name), PYTHON.roots.len());
        assert_eq!(of(DATA.name), DATA.roots.len());
    }
}
