//! Which local program an image stands for.
//!
//! Nothing is pulled and nothing is unpacked: an image reference is looked up in a table that the
//! node's owner filled, and what is found says what to run, with which defaults. A reference that
//! is not in the table is an error that the pod shows, with the remedy.
//!
//! Pure apart from [`ImageTable::host_defaults`], which looks which interpreters the host has.

use std::fmt;
use std::path::{Path, PathBuf};

/// Directory inside a container with what its image adds to the host's programs; first in `PATH`.
pub(crate) const BIN: &str = "/.image/bin";

/// Where programs are looked up inside containers, unless the image or the pod says otherwise.
pub(crate) const PATH: &str =
    "/.image/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image: what a container runs unless its pod says otherwise.
///
/// In arguments and environment values `$(POD_IP)` is the pod's address, so that a server can bind
/// it and nothing else, and `$(CONTAINER_ROOT)` is the directory that holds the container's
/// writable tree: empty with a private root, a host path without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub(crate) names: Vec<ImageName>,
    pub(crate) program: Program,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: PathBuf,
    pub(crate) user: (u32, u32),
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) ports: Vec<u16>,
    pub(crate) host_paths: Vec<PathBuf>,
    pub(crate) links: Vec<(String, PathBuf)>,
    pub(crate) init: Init,
}

/// What an image brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// Nothing but what the host has installed.
    Host,
    /// One program of the host, shown in [`BIN`].
    Binary(PathBuf),
    /// No program; the container waits for its end.
    Pause,
}

/// Who is PID 1 in the containers of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// A small init that reaps orphans and passes signals on (the default).
    #[default]
    Provided,
    /// The program itself. It must reap its orphans and handle SIGTERM, as in any container; in
    /// exchange a container is one process.
    Own,
}

impl Image {
    /// An image that offers the programs installed on the host and runs `command` by default.
    pub fn host<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self::new(Program::Host).command(command)
    }

    /// An image whose entry point is `program`, an absolute path on the host. It is shown to the
    /// container under its own name in `/.image/bin`.
    pub fn program(program: impl Into<PathBuf>) -> Self {
        let path = program.into();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let entrypoint = format!("{BIN}/{name}");
        let mut image = Self::new(Program::Binary(path));
        image.entrypoint = vec![entrypoint];
        image
    }

    /// An image that does nothing until it is told to stop.
    pub fn pause() -> Self {
        Self::new(Program::Pause)
    }

    fn new(program: Program) -> Self {
        Self {
            names: Vec::new(),
            program,
            entrypoint: Vec::new(),
            command: Vec::new(),
            env: Vec::new(),
            working_dir: PathBuf::from("/"),
            user: (0, 0),
            directories: Vec::new(),
            ports: Vec::new(),
            host_paths: Vec::new(),
            links: Vec::new(),
            init: Init::default(),
        }
    }

    /// Image references this stands for; see [`ImageName`] for the form.
    ///
    /// # Errors
    /// When a name is not an image reference.
    pub fn names<S: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Self, InvalidImageName> {
        for name in names {
            self.names.push(ImageName::parse(name.as_ref())?);
        }
        Ok(self)
    }

    /// Adds arguments to the entry point; a pod's `args` follow them, a pod's `command` replaces
    /// them.
    #[must_use]
    pub fn entrypoint_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.entrypoint.extend(args.into_iter().map(Into::into));
        self
    }

    /// Default arguments; a pod's `command` or `args` replace them.
    #[must_use]
    pub fn command<S: Into<String>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a default environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Default working directory (`/`); created, owned by the container's user.
    #[must_use]
    pub fn working_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.working_dir = path.into();
        self
    }

    /// Default user and group (0 and 0).
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = (uid, gid);
        self
    }

    /// Adds a directory that exists in the image and belongs to its user.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directories.push(path.into());
        self
    }

    /// Adds a TCP port on which the program listens. A pod is given an address where it is free.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Shows one more path of the host, read-only, for programs that are installed elsewhere.
    #[must_use]
    pub fn host_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.host_paths.push(path.into());
        self
    }

    /// Adds a name under which a program of the host can be called.
    #[must_use]
    pub fn link(mut self, name: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        self.links.push((name.into(), target.into()));
        self
    }

    /// Chooses who is PID 1.
    #[must_use]
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Whether the program finds its directories through `$(CONTAINER_ROOT)`, so that it also
    /// works where nothing can be mounted at an absolute path.
    pub(crate) fn is_relocatable(&self) -> bool {
        let mut values = self
            .entrypoint
            .iter()
            .chain(&self.command)
            .chain(self.env.iter().map(|(_, value)| value));
        values.any(|value| value.contains("$(CONTAINER_ROOT)"))
    }

    /// What to execute for a pod's `command` and `args`, by the rules of container images: a
    /// command replaces the entry point and the default arguments, args replace only the latter.
    pub(crate) fn argv(&self, command: &[String], args: &[String]) -> Vec<String> {
        let (head, tail) = match (command.is_empty(), args.is_empty()) {
            (true, true) => (&self.entrypoint[..], &self.command[..]),
            (true, false) => (&self.entrypoint[..], args),
            (false, _) => (command, args),
        };
        head.iter().chain(tail).cloned().collect()
    }
}

/// A pattern for image references.
///
/// `python-runtime-sandbox` means that last path component in any registry and repository, with
/// any tag or digest; `team/tool` means those last two components; `registry.k8s.io/pause:3.10`
/// names registry and tag as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    components: Vec<String>,
    tag: Option<String>,
}

/// An image reference that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "image {name:?} is not a valid reference: {why}; expected [registry/]repository[:tag][@digest]"
)]
pub struct InvalidImageName {
    name: String,
    why: &'static str,
}

impl ImageName {
    /// Parses a reference or a pattern; both have the same form.
    ///
    /// # Errors
    /// When it is empty or holds characters that references cannot hold.
    pub fn parse(text: &str) -> Result<Self, InvalidImageName> {
        let fail = |why| InvalidImageName {
            name: text.to_owned(),
            why,
        };
        if text.is_empty() {
            return Err(fail("it is empty"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !digest.contains(':')) {
            return Err(fail("the digest has no algorithm"));
        }
        // A colon before a slash belongs to the registry's port.
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| tag.is_empty() || !tag.chars().all(is_tag_character)) {
            return Err(fail(
                "the tag is not made of letters, digits, '.', '_' and '-'",
            ));
        }
        let components: Vec<String> = path.split('/').map(str::to_owned).collect();
        for (index, component) in components.iter().enumerate() {
            let registry = index == 0 && components.len() > 1;
            let valid = component.chars().all(|c| {
                is_path_character(c) || (registry && (c == ':' || c.is_ascii_uppercase()))
            });
            if component.is_empty() || !valid {
                return Err(fail(
                    "a path component is not made of lower-case letters, digits, '.', '_' and '-'",
                ));
            }
        }
        Ok(Self {
            components,
            tag: tag.map(str::to_owned),
        })
    }

    /// Whether this pattern covers `reference`.
    fn covers(&self, reference: &Self) -> bool {
        let tag = self.tag.is_none() || self.tag == reference.tag;
        tag && reference.components.ends_with(&self.components)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.components.join("/"))?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

fn is_path_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
}

fn is_tag_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The images a node can run.
#[derive(Debug, Clone, Default)]
pub struct ImageTable {
    images: Vec<Image>,
    remedy: Option<String>,
}

/// Why an image cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The reference is malformed; the pod must be changed.
    #[error(transparent)]
    Invalid(#[from] InvalidImageName),
    /// The table has no entry.
    #[error(
        "image {name:?} maps to no local program: this node runs processes and pulls nothing. Use \
         one of [{}], or {remedy}",
        known.join(", ")
    )]
    Unknown {
        /// The reference that was asked for.
        name: String,
        /// Every name in the table, sorted.
        known: Vec<String>,
        /// How an entry is added, see [`ImageTable::remedy`].
        remedy: String,
    },
}

impl ImageTable {
    /// A table without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// What makes sense on every host: `pause`; the programs of the host under the names of common
    /// base images; Python when it is installed where containers can see it.
    pub fn host_defaults() -> Self {
        let base = [
            "alpine",
            "bash",
            "busybox",
            "debian",
            "debian-slim",
            "ubuntu",
            "shell",
        ];
        let mut table = Self::new();
        table.add(named(Image::pause(), &["pause"]));
        table.add(named(Image::host(["sh"]), &base));
        if let Some(python) = find_program("python3") {
            let image = Image::host(["python3"]).link("python", python);
            table.add(named(image, &["python"]));
        }
        table
    }

    /// Adds an image. Later ones take precedence, so that an owner can replace the defaults.
    pub fn add(&mut self, image: Image) {
        self.images.push(image);
    }

    /// Adds an image, for building a table in one expression.
    #[must_use]
    pub fn with(mut self, image: Image) -> Self {
        self.add(image);
        self
    }

    /// Lets `name` stand for the same as `known` from now on.
    ///
    /// # Errors
    /// When `name` is not an image reference, or the table has no entry for `known`.
    pub fn add_alias(&mut self, name: &str, known: &str) -> Result<(), ImageError> {
        let alias = self.resolve(known)?.clone();
        let alias = Image {
            names: vec![ImageName::parse(name)?],
            ..alias
        };
        self.add(alias);
        Ok(())
    }

    /// How the table's owner lets users add entries: it completes the sentence "use one of these,
    /// or ...".
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Finds what a reference stands for.
    pub(crate) fn resolve(&self, reference: &str) -> Result<&Image, ImageError> {
        let name = ImageName::parse(reference)?;
        self.images
            .iter()
            .rev()
            .find(|image| image.names.iter().any(|pattern| pattern.covers(&name)))
            .ok_or_else(|| ImageError::Unknown {
                name: reference.to_owned(),
                known: self.known(),
                remedy: self
                    .remedy
                    .clone()
                    .unwrap_or_else(|| "add it to the node's image table".to_owned()),
            })
    }

    /// Every name in the table, sorted.
    fn known(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .images
            .iter()
            .flat_map(|image| image.names.iter().map(ToString::to_string))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Names that are constants of this file and therefore valid; the tests prove it.
fn named(mut image: Image, names: &[&str]) -> Image {
    image.names = names
        .iter()
        .filter_map(|name| ImageName::parse(name).ok())
        .collect();
    image
}

/// Looks for a program in the directories that containers can see.
fn find_program(name: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .into_iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ImageTable {
        let image = |name: &str, command: &str| Image::host([command]).names([name]).unwrap();
        ImageTable::new()
            .with(image("python-runtime-sandbox", "runtime"))
            .with(image("team/tool", "tool"))
            .with(image("registry.k8s.io/pause:3.10", "pause"))
            .with(image("busybox", "sh"))
    }

    fn resolved(reference: &str) -> Option<String> {
        let table = table();
        let image = table.resolve(reference).ok()?;
        Some(image.command[0].clone())
    }

    #[test]
    fn a_name_matches_from_its_end_with_any_registry_and_tag() {
        for (reference, expected) in [
            ("python-runtime-sandbox", Some("runtime")),
            ("python-runtime-sandbox:v0.1.0", Some("runtime")),
            (
                "registry.example/a/b/python-runtime-sandbox:latest",
                Some("runtime"),
            ),
            (
                "localhost:5000/python-runtime-sandbox@sha256:abc",
                Some("runtime"),
            ),
            (
                "localhost:5000/python-runtime-sandbox:x@sha256:abc",
                Some("runtime"),
            ),
            ("my-python-runtime-sandbox", None),
            ("python-runtime-sandbox/other", None),
            ("tool", None),
            ("registry.example/team/tool:1", Some("tool")),
            ("registry.example/otherteam/tool:1", None),
            ("registry.k8s.io/pause:3.10", Some("pause")),
            ("registry.k8s.io/pause:3.9", None),
            ("docker.io/library/busybox:1.36", Some("sh")),
        ] {
            assert_eq!(resolved(reference).as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn malformed_references_are_told_from_unknown_ones() {
        for bad in [
            "", "UPPER", "a//b", "a:b:c", "a:", "a b", "a@digest", "/a", "a/",
        ] {
            let error = table().resolve(bad).unwrap_err();
            assert!(matches!(error, ImageError::Invalid(_)), "{bad:?}: {error}");
        }
        let error = table().resolve("nginx:1.29").unwrap_err().to_string();
        for part in ["nginx:1.29", "busybox", "team/tool", "image table"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let table = table().with(Image::host(["mine"]).names(["busybox"]).unwrap());
        assert_eq!(table.resolve("busybox:1").unwrap().command, ["mine"]);
    }

    #[test]
    fn an_alias_is_the_same_image_under_one_more_name() {
        let mut table = table().remedy("ask the owner");
        table.add_alias("mine:1", "team/tool").unwrap();
        let resolve = |reference| table.resolve(reference).map(|image| &image.command[..]);
        assert_eq!(resolve("registry.example/mine:1").unwrap(), ["tool"]);
        assert_eq!(resolve("team/tool").unwrap(), ["tool"]);
        let error = resolve("mine:2").unwrap_err().to_string();
        assert!(error.ends_with("mine:1, python-runtime-sandbox, registry.k8s.io/pause:3.10, team/tool], or ask the owner"), "{error}");
        let mut table = ImageTable::new();
        assert!(table.add_alias("mine", "absent").is_err());
    }

    #[test]
    fn command_and_args_follow_the_rules_of_images() {
        let image = Image::program("/opt/tool")
            .entrypoint_args(["--serve"])
            .command(["default"]);
        let argv = |command: &[&str], args: &[&str]| {
            let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            image.argv(&own(command), &own(args))
        };
        assert_eq!(argv(&[], &[]), ["/.image/bin/tool", "--serve", "default"]);
        assert_eq!(argv(&[], &["a"]), ["/.image/bin/tool", "--serve", "a"]);
        assert_eq!(argv(&["c"], &[]), ["c"]);
        assert_eq!(argv(&["c"], &["a"]), ["c", "a"]);
    }

    #[test]
    fn the_defaults_are_complete() {
        let table = ImageTable::host_defaults();
        for name in [
            "registry.k8s.io/pause:3.10",
            "busybox:1.36",
            "debian:bookworm-slim",
        ] {
            table.resolve(name).unwrap();
        }
        assert_eq!(
            table.resolve("pause").unwrap().program,
            Program::Pause,
            "pause runs nothing"
        );
        assert_eq!(
            table.resolve("python:3.14").is_ok(),
            find_program("python3").is_some()
        );
    }
}
