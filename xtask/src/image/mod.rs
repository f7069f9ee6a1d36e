//! `cargo xtask image`: container images of the in-pod runtime, without a container engine.
//!
//! ```text
//! packages.lock -> mirror -> verified packages -> trees -> layers --+-> archive per image
//!                          the static runtime -> tree  -> layer  --/
//! ```
//!
//! The same sources, lock file and time give the same bytes.

mod bytecode;
mod debian;
mod definition;
mod digest;
#[cfg(test)]
mod dockerfile;
mod elf;
mod name;
mod oci;
pub(crate) mod program;
mod rootfs;
mod scratch;
mod tree;
mod trial;
mod update;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use self::debian::lock::{self, Lock};
use self::debian::mirror::Mirror;
use self::debian::{package, release};
use self::definition::{ARCHITECTURES, DATA, Image, PYTHON, SHELL, Set};
use self::oci::archive::{Archive, Name};
use self::oci::config::Build;
use self::oci::layer::Layer;
use self::tree::Tree;
use crate::{cargo, report};

/// Which images to build and where they go.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The images; all of them if none is named
    #[arg(value_enum, value_name = "NAME")]
    images: Vec<Image>,
    /// Directory for the archives, one per image [default: `images` in the target directory]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The images' tag
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"), value_parser = name::tag)]
    tag: String,
    /// What the images' names begin with: a registry's host, and a path there if you like
    ///
    /// Nothing is sent there. With the default, a node that lacks an image can get it from nowhere else.
    #[arg(long, default_value = "localhost", value_name = "HOST[/PATH]", value_parser = name::registry)]
    registry: String,
    /// URL of the project's sources, for the images' labels
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// Base of a Debian mirror, with `dists` and `pool` in it; may be repeated
    ///
    /// [default: the mirrors that apt is configured for]
    #[arg(long, value_name = "URL")]
    mirror: Vec<String>,
    /// Also start what the images hold, each library among it, as their user on a root that cannot be written
    ///
    /// Fails where the kernel lets this user make no user namespaces.
    #[arg(long = "try")]
    trial: bool,
    /// Look up the newest packages and write the lock file, instead of building images
    #[arg(long, conflicts_with_all = ["images", "output", "source", "trial"])]
    update_packages: bool,
    /// Keys that the mirror's release files must be signed with
    #[arg(long, default_value = release::KEYRING, requires = "update_packages", value_name = "FILE")]
    keyring: PathBuf,
}

/// Builds the images, or updates the lock file.
pub(crate) fn run(args: &Args) -> Result<()> {
    let work = cargo::target_directory()?.join("xtask").join("images");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    if args.update_packages {
        return update::run(&args.mirror, &args.keyring, &work);
    }
    let output = match &args.output {
        Some(directory) => directory.clone(),
        None => cargo::target_directory()?.join("images"),
    };
    fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
    let images: &[Image] = if args.images.is_empty() {
        &Image::ALL
    } else {
        &args.images
    };
    let build = Build {
        architecture: architecture()?,
        time: time()?,
    };
    report::step("the runtime, linked statically");
    let path = program::build()?;
    let program = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let program = rootfs::program(program)?;
    let program = Layer::pack("the runtime", &program, build.time)?;
    let layers = Layers::build(images, build, &args.mirror, &work)?;
    for image in images {
        let mut each = layers.of(*image);
        each.push(&program);
        let repository = format!("{}/{}", args.registry, image.name());
        let name = Name {
            repository: &repository,
            tag: &args.tag,
        };
        let settings = image.settings(args.source.as_deref());
        let archive = Archive::build(name, &settings, build, &each)?;
        let path = output.join(format!("{}-{}.tar", image.name(), build.architecture));
        fs::write(&path, &archive.bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let unpacked: u64 = each.iter().map(|layer| layer.size).sum();
        report::line(&format!(
            "{repository}:{}  {}\n  {}, {} MiB ({} MiB unpacked)",
            args.tag,
            archive.digest,
            path.display(),
            mebibytes(archive.bytes.len() as u64),
            mebibytes(unpacked),
        ));
        if args.trial {
            trial::run(*image, &settings, &each, &work)?;
        }
    }
    Ok(())
}

/// The layers below the runtime's that the wanted images have.
#[derive(Default)]
struct Layers {
    bare: Option<Layer>,
    shell: Option<Layer>,
    python: Option<Layer>,
    data: Option<Layer>,
}

impl Layers {
    fn build(images: &[Image], build: Build<'_>, mirrors: &[String], work: &Path) -> Result<Self> {
        let mut layers = Self::default();
        if images.contains(&Image::Runtime) {
            let tree = rootfs::bare()?;
            layers.bare = Some(Layer::pack(
                "a user and its directories",
                &tree,
                build.time,
            )?);
        }
        let wanted = |set: &Set| {
            let mut sets = images.iter().flat_map(|image| image.sets());
            sets.any(|other| other.name == set.name)
        };
        if !wanted(&SHELL) {
            return Ok(layers);
        }
        let mirror = Mirror::choose(mirrors)?;
        let packages = Packages::read(&mirror, build.architecture, work)?;
        report::step("packages of the shell");
        let mut shell = rootfs::merged()?;
        packages.unpack(&SHELL, &mut shell)?;
        rootfs::finish_shell(&mut shell).context("cannot complete the shell")?;
        let what = "a shell and the usual small programs, from Debian";
        layers.shell = Some(Layer::pack(what, &shell, build.time)?);
        if !wanted(&PYTHON) {
            return Ok(layers);
        }
        report::step("packages of Python");
        let mut python = Tree::default();
        packages.unpack(&PYTHON, &mut python)?;
        rootfs::finish_python(&mut python).context("cannot complete Python")?;
        report::step("byte code of Python's modules");
        bytecode::compile(&[&shell], &mut python, work)
            .context("cannot compile Python's modules")?;
        python.check_above(&shell)?;
        let what = "Python, pip and git, from Debian";
        layers.python = Some(Layer::pack(what, &python, build.time)?);
        if !wanted(&DATA) {
            return Ok(layers);
        }
        report::step("packages for data analysis");
        let mut data = Tree::default();
        packages.unpack(&DATA, &mut data)?;
        rootfs::finish_data(&mut data).context("cannot complete the libraries")?;
        report::step("byte code of the libraries' modules");
        bytecode::compile(&[&shell, &python], &mut data, work)
            .context("cannot compile the libraries' modules")?;
        for below in [&shell, &python] {
            data.check_above(below)?;
        }
        let what = "Python's libraries for data analysis and machine learning, from Debian";
        layers.data = Some(Layer::pack(what, &data, build.time)?);
        Ok(layers)
    }

    fn of(&self, image: Image) -> Vec<&Layer> {
        let each = match image {
            Image::Runtime => [&self.bare, &None, &None],
            Image::Shell => [&self.shell, &None, &None],
            Image::Python => [&self.shell, &self.python, &None],
            Image::PythonData => [&self.shell, &self.python, &self.data],
        };
        each.into_iter().flatten().collect()
    }
}

/// The locked packages of one architecture.
struct Packages<'a> {
    mirror: &'a Mirror,
    lock: Lock,
    architecture: &'a str,
    cache: PathBuf,
}

impl<'a> Packages<'a> {
    fn read(mirror: &'a Mirror, architecture: &'a str, work: &Path) -> Result<Self> {
        let path = cargo::root()?.join(lock::FILE);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; {UPDATE} writes it", path.display()))?;
        Ok(Self {
            mirror,
            lock: Lock::parse(&text)?,
            architecture,
            cache: work.join("packages"),
        })
    }

    fn unpack(&self, set: &Set, tree: &mut Tree) -> Result<()> {
        let mut count = 0_u32;
        for locked in self.lock.set(self.architecture, set.name) {
            let file = (locked.path.as_str(), locked.size, locked.sha256.as_str());
            let bytes = self.mirror.verified(file, &self.cache).context(GONE)?;
            let single = set.single.iter().find(|(name, _)| *name == locked.name);
            let wanted = |path: &str| match single {
                Some((_, file)) => path == *file || rootfs::is_licence(path),
                None => rootfs::wanted(path),
            };
            let control = package::unpack(&bytes, tree, wanted)
                .with_context(|| format!("the package {} {}", locked.name, locked.version))?;
            rootfs::record(tree, &locked.name, &control)?;
            count += 1;
        }
        ensure!(
            count > 0,
            "{} has no packages of {} for {}; {UPDATE} writes it",
            lock::FILE,
            set.name,
            self.architecture
        );
        Ok(())
    }
}

const UPDATE: &str = "`cargo xtask image --update-packages`";
const GONE: &str = "a locked package is not to be had (mirrors keep only the newest versions: \
                    `cargo xtask image --update-packages` locks those, or name with --mirror one that keeps all)";

/// This machine's architecture, which the runtime is built for.
fn architecture() -> Result<&'static str> {
    let [amd64, arm64] = ARCHITECTURES;
    match std::env::consts::ARCH {
        "x86_64" => Ok(amd64),
        "aarch64" => Ok(arm64),
        other => bail!("there are images for x86_64 and aarch64 only, and this machine is {other}"),
    }
}

/// The time of every file in an image, in seconds since 1970: that of the commit, unless
/// `SOURCE_DATE_EPOCH` says another.
fn time() -> Result<u64> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    if let Some(value) = std::env::var_os(VARIABLE) {
        let seconds = value.to_str().and_then(|text| text.parse().ok());
        return seconds.with_context(|| {
            format!(
                "{VARIABLE}: expected seconds since 1970, found {}",
                value.display()
            )
        });
    }
    let output = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(cargo::root()?)
        .output();
    let seconds = output.ok().filter(|output| output.status.success());
    seconds
        .and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok())
        .with_context(|| format!("git does not tell the time of the commit; set {VARIABLE}"))
}

/// With one digit after the point, without a float.
fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{}", tenths / 10, tenths % 10)
}
