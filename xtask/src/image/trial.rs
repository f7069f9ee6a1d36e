//! What an image holds, started: as its user, on a root that cannot be written, in namespaces of its own. No engine and
//! no privilege, but the kernel must let this user make user namespaces.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;

use super::definition::{Image, PROGRAM, USER, WORKSPACE};
use super::oci::config::Settings;
use super::oci::layer::Layer;
use super::scratch::Directory;
use crate::report;

/// Does something with every library, and prints its name.
const LIBRARIES: &str = include_str!("../../../images/libraries.py");
/// Where it is in the image while it is tried.
const SCRIPT: &str = "libraries.py";
/// That what is tried is as shut in as it should be.
const CONFINED: &[&str] = &[
    "sh",
    "-c",
    "test \"$(id -un)\" = sandbox && touch /workspace/file /tmp/file && ! touch /usr/file 2> /tmp/complaint && \
     grep -q 'Read-only file system' /tmp/complaint && echo confined",
];
const PIP: &[&str] = &["pip", "--version"];
const GIT: &[&str] = &["git", "--version"];
/// Makes of the directory `$1` the root of what follows, as a node does: read-only but for the volumes, which
/// belong to the user `$2`. Standard input becomes a file in the first volume.
const ENTER: &str = r#"
root=$1 user=$2 home=$3 file=$4; shift 4
mount --bind "$root" "$root" &&
mount -o remount,bind,ro "$root" &&
mount -t tmpfs tmpfs "$root/$home" &&
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp" &&
cat > "$root/$home/$file" || exit
if test -d "$root/dev"; then
    mount --rbind /proc "$root/proc" &&
    mount --rbind /sys "$root/sys" &&
    mount -t tmpfs tmpfs "$root/dev" &&
    mkdir "$root/dev/shm" || exit
    for device in null zero random urandom; do
        touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device" || exit
    done
    chmod 1777 "$root/dev/shm" || exit
fi
exec unshare --user --map-user="$user" --map-group="$user" --root="$root" --wd="/$home" -- "$@"
"#;

/// Starts everything that an image of these layers should be able to.
///
/// # Errors
/// When something ends with another status than 0, or complains, or cannot be tried on this machine.
pub(crate) fn run(image: Image, settings: &Settings, layers: &[&Layer], work: &Path) -> Result<()> {
    report::step(&format!("trying {}", image.name()));
    let directory = Directory::create(work.join(format!("trial-{}", std::process::id())))?;
    for layer in layers {
        unpack(layer, directory.path())?;
    }
    let root = fs::canonicalize(directory.path())?;
    let program = format!("/{PROGRAM}");
    let own: &[&[&str]] = match image {
        Image::Runtime => &[],
        Image::Shell => &[CONFINED],
        Image::Python => &[CONFINED, PIP, GIT],
        Image::PythonData => &[CONFINED, PIP, GIT, &["python", SCRIPT]],
    };
    let every = [program.as_str(), "--version"];
    for command in own.iter().copied().chain([&every[..]]) {
        let output = start(&root, settings, command)?;
        let said = judged(&output)
            .with_context(|| format!("`{}` in the image {}", command.join(" "), image.name()))?;
        report::line(&said);
    }
    Ok(())
}

/// Runs a command in the root file system, with the environment of the image.
fn start(root: &Path, settings: &Settings, command: &[&str]) -> Result<Output> {
    const NEEDED: &str = "the image cannot be tried on this machine";
    let user = USER.to_string();
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--ipc", "--"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(root)
        .args([user.as_str(), WORKSPACE, SCRIPT])
        .args(command)
        .env_clear()
        .envs(
            settings
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{NEEDED}: `unshare` of util-linux does not start"))?;
    // A child that ended reads nothing, and its own complaint tells more than ours would.
    let mut input = child.stdin.take().context("the input is a pipe")?;
    let written = input.write_all(LIBRARIES.as_bytes());
    drop(input);
    let output = child.wait_with_output()?;
    if output.status.success() {
        written.context("the image did not read the script")?;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // Nor does the command start if it is not there, but then it is the image that is wrong.
    let entering = said.starts_with("unshare:") || said.starts_with("mount:");
    if !output.status.success() && entering && !said.contains("failed to execute") {
        bail!(
            "{NEEDED}; it needs user namespaces, in which directories may be mounted: {}",
            said.trim()
        );
    }
    Ok(output)
}

/// What a command printed that went well, in one line.
fn judged(output: &Output) -> Result<String> {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (printed, complaint) = (said(&output.stdout), said(&output.stderr));
    ensure!(
        output.status.success(),
        "{}, after {printed:?}:\n{complaint}",
        output.status
    );
    ensure!(complaint.is_empty(), "complains:\n{complaint}");
    ensure!(!printed.is_empty(), "prints nothing");
    Ok(printed.lines().collect::<Vec<_>>().join(", "))
}

/// Writes the files of a layer, as files of this user.
fn unpack(layer: &Layer, to: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(layer.compressed.as_slice()));
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(false);
    archive
        .unpack(to)
        .with_context(|| format!("cannot unpack the layer: {}", layer.what))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;
    use crate::image::tree::{Entry, Tree};

    #[test]
    fn a_command_that_fails_or_complains_or_says_nothing_is_no_success() {
        let output = |code: i32, stdout: &str, stderr: &str| Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        assert_eq!(
            judged(&output(0, "numpy\nscipy\n", "")).unwrap(),
            "numpy, scipy"
        );
        for (bad, expected) in [
            (output(1, "numpy\n", "ImportError: x"), "ImportError: x"),
            (output(0, "numpy\n", "UserWarning: slow"), "UserWarning"),
            (output(0, "\n", ""), "nothing"),
        ] {
            let error = judged(&bad).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn layers_are_unpacked_one_over_the_other() {
        let directory = tempfile::tempdir().unwrap();
        for (path, content) in [("usr/a", "first"), ("usr/b", "second")] {
            let mut tree = Tree::default();
            tree.insert(path, Entry::file(content)).unwrap();
            let layer = Layer::pack("a file", &tree, 1).unwrap();
            unpack(&layer, directory.path()).unwrap();
        }
        let read = |path| fs::read_to_string(directory.path().join(path)).unwrap();
        assert_eq!(
            (read("usr/a").as_str(), read("usr/b").as_str()),
            ("first", "second")
        );
    }
}
