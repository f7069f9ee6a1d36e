//! The index of a mirror (`Packages`), and what a few named packages depend on.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use super::version;

/// What the index says about a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) version: String,
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
    /// What must be there too: of each group, one.
    depends: Vec<Vec<String>>,
    provides: Vec<String>,
}

/// The newest version of each package, by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    records: BTreeMap<String, Record>,
}

impl Index {
    /// Adds the text of an index; of two versions, the newer stays.
    pub(crate) fn add(&mut self, text: &str) -> Result<()> {
        for stanza in text
            .split("\n\n")
            .filter(|stanza| !stanza.trim().is_empty())
        {
            let fields: BTreeMap<&str, &str> = stanza
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(key, value)| (key, value.trim()))
                .collect();
            let name = *fields
                .get("Package")
                .context("a stanza has no field Package")?;
            let record =
                record(&fields).with_context(|| format!("the package {name} in the index"))?;
            let newer = self.records.get(name).is_none_or(|old| {
                version::compare(&record.version, &old.version) == Ordering::Greater
            });
            if newer {
                self.records.insert(name.to_owned(), record);
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Record> {
        self.records.get(name)
    }

    /// The names of `roots`, of all they depend on, and of all that depends on, in order; without what
    /// is in `omitted`. A package that several alternatives satisfy is the one already chosen, else the
    /// first that exists.
    ///
    /// Versions in dependencies are not compared: all packages are of one release, which is consistent.
    pub(crate) fn closure(&self, roots: &[&str], omitted: &[&str]) -> Result<BTreeSet<String>> {
        let mut chosen = BTreeSet::new();
        for root in roots {
            if !self.records.contains_key(*root) {
                bail!("the package {root} is not in the index");
            }
            chosen.insert((*root).to_owned());
        }
        let mut waiting: Vec<String> = chosen.iter().cloned().collect();
        while let Some(name) = waiting.pop() {
            let record = self.records.get(&name).with_context(|| name.clone())?;
            for group in &record.depends {
                if group.iter().any(|other| omitted.contains(&other.as_str()))
                    || group.iter().any(|other| self.satisfied(other, &chosen))
                {
                    continue;
                }
                let choice = self
                    .choice(group)
                    .with_context(|| format!("{name} depends on {}", group.join(" | ")))?;
                if chosen.insert(choice.clone()) {
                    waiting.push(choice);
                }
            }
        }
        Ok(chosen)
    }

    fn satisfied(&self, name: &str, chosen: &BTreeSet<String>) -> bool {
        chosen.contains(name)
            || chosen
                .iter()
                .any(|other| self.records.get(other).is_some_and(|r| r.provides(name)))
    }

    /// The first of the group that is a package, or that exactly one package provides.
    fn choice(&self, group: &[String]) -> Result<String> {
        let real = group.iter().find(|name| self.records.contains_key(*name));
        if let Some(name) = real {
            return Ok(name.clone());
        }
        let providers: Vec<&String> = self
            .records
            .iter()
            .filter(|(_, record)| group.iter().any(|name| record.provides(name)))
            .map(|(name, _)| name)
            .collect();
        match providers.as_slice() {
            [one] => Ok((*one).clone()),
            [] => bail!("nothing in the index provides it"),
            several => bail!(
                "{} packages provide it, such as {}; name one in xtask/src/image/definition.rs",
                several.len(),
                several.first().map_or("", |name| name)
            ),
        }
    }
}

impl Record {
    fn provides(&self, name: &str) -> bool {
        self.provides.iter().any(|provided| provided == name)
    }
}

fn record(fields: &BTreeMap<&str, &str>) -> Result<Record> {
    let field = |key: &str| {
        let value = fields.get(key).copied();
        value.with_context(|| format!("has no field {key}"))
    };
    let list = |key: &str| fields.get(key).copied().unwrap_or_default();
    let size = field("Size")?;
    let depends = ["Pre-Depends", "Depends"]
        .into_iter()
        .flat_map(|key| list(key).split(','))
        .map(names)
        .filter(|group| !group.is_empty())
        .collect();
    Ok(Record {
        version: field("Version")?.to_owned(),
        path: field("Filename")?.to_owned(),
        size: size
            .parse()
            .with_context(|| format!("Size: expected a number, found {size:?}"))?,
        sha256: field("SHA256")?.to_owned(),
        depends,
        provides: list("Provides").split(',').flat_map(names).collect(),
    })
}

/// The names in `a (>= 1) | b:any [amd64]`.
fn names(group: &str) -> Vec<String> {
    let name = |text: &str| {
        let word = text.split([' ', '(']).find(|word| !word.is_empty())?;
        Some(word.split(':').next().unwrap_or(word).to_owned())
    };
    group.split('|').filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(packages: &[(&str, &str, &str)]) -> Index {
        let mut index = Index::default();
        for (name, version, more) in packages {
            let text = format!(
                "Package: {name}\nVersion: {version}\nSize: 1\nSHA256: 0\nFilename: pool/{name}.deb\n{more}\n\n"
            );
            index.add(&text).unwrap();
        }
        index
    }

    fn closure(index: &Index, roots: &[&str], omitted: &[&str]) -> Vec<String> {
        index.closure(roots, omitted).unwrap().into_iter().collect()
    }

    #[test]
    fn dependencies_are_followed_through_versions_and_qualifiers() {
        let index = index(&[
            (
                "a",
                "1",
                "Pre-Depends: b (>= 1:2), c:any\nDepends: d(>= 2) | e",
            ),
            ("b", "1", "Depends: a"),
            ("c", "1", "Depends: left-out"),
            ("d", "1", ""),
            ("e", "1", ""),
        ]);
        assert_eq!(closure(&index, &["a"], &["left-out"]), ["a", "b", "c", "d"]);
        assert_eq!(
            closure(&index, &["a", "e"], &["left-out"]),
            ["a", "b", "c", "e"]
        );
        let error = format!("{:#}", index.closure(&["a"], &[]).unwrap_err());
        assert!(error.contains("c depends on left-out"), "{error}");
        assert!(index.closure(&["absent"], &[]).is_err());
    }

    #[test]
    fn a_provided_name_needs_one_provider_or_a_chosen_one() {
        let index = index(&[
            ("a", "1", "Depends: awk"),
            ("mawk", "1", "Provides: awk (= 1)"),
            ("gawk", "1", "Provides: x, awk"),
            ("b", "1", "Depends: x"),
        ]);
        let error = format!("{:#}", index.closure(&["a"], &[]).unwrap_err());
        assert!(error.contains("2 packages provide it"), "{error}");
        assert_eq!(closure(&index, &["a", "mawk"], &[]), ["a", "mawk"]);
        assert_eq!(closure(&index, &["b"], &[]), ["b", "gawk"]);
    }

    #[test]
    fn the_newer_version_stays() {
        let index = index(&[("a", "1.9", ""), ("a", "1.10", ""), ("a", "1.2", "")]);
        assert_eq!(index.get("a").unwrap().version, "1.10");
    }

    #[test]
    fn a_malformed_index_is_refused_with_package_and_field() {
        let complete = "Package: a\nVersion: 1\nSize: 1\nSHA256: 0\nFilename: x\n";
        for key in ["Package", "Version", "Size", "SHA256", "Filename"] {
            let without: Vec<&str> = complete
                .lines()
                .filter(|line| !line.starts_with(&format!("{key}:")))
                .collect();
            let without = without.join("\n");
            let error = format!("{:#}", Index::default().add(&without).unwrap_err());
            assert!(error.contains(key), "{error}");
        }
        let size = complete.replace("Size: 1", "Size: big");
        let error = format!("{:#}", Index::default().add(&size).unwrap_err());
        assert!(
            error.contains("the package a") && error.contains("big"),
            "{error}"
        );
    }
}
