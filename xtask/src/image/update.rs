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
