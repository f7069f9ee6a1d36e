//! Root file systems: the packages' files, without what nobody reads in a sandbox, and by hand what the
//! packages' own scripts would have done.

use anyhow::{Context, Result};

use super::definition::{APP, PROGRAM, TEMPORARY, USER, USER_NAME, WORKSPACE};
use super::tree::{Entry, Kind, MERGED, Tree};

/// Not for programs; but licences must stay with what they are for.
const READ_BY_PEOPLE: &[&str] = &[
    "usr/share/bash-completion/",
    "usr/share/bug/",
    "usr/share/doc-base/",
    "usr/share/doc/",
    "usr/share/git-core/contrib/",
    "usr/share/gitweb/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/menu/",
    "usr/share/pixmaps/",
    "usr/share/zsh/",
];
/// Not for sandboxes: what serves or mails repositories (each of these programs is a copy of most of git), and
/// what does not work without the packages that are left out.
const UNUSED: &[&str] = &[
    "etc/rmt",
    "usr/bin/git-shell",
    "usr/bin/scalar",
    "usr/lib/git-core/git-daemon",
    "usr/lib/git-core/git-http-backend",
    "usr/lib/git-core/git-http-push",
    "usr/lib/git-core/git-imap-send",
    "usr/lib/git-core/git-shell",
    "usr/lib/git-core/scalar",
    GIT_AGAIN,
    "usr/sbin/update-passwd",
];
/// Conversions between character sets that the C library does not do by itself; Python has its own.
const CONVERSIONS: &str = "/gconv/";
/// A second copy of the whole of git, where its own scripts look for it.
const GIT_AGAIN: &str = "usr/lib/git-core/git";
/// Libraries whose tests of themselves, about as large as they, nobody imports. Numpy and openpyxl do import theirs.
const TESTED: &[&str] = &[
    "matplotlib",
    "mpl_toolkits",
    "networkx",
    "pandas",
    "scipy",
    "sklearn",
    "statsmodels",
    "sympy",
];
const LIBRARIES: &str = "usr/lib/python3/dist-packages/";
const TESTS: &str = "/tests/";
const LICENCE: &str = "/copyright";
/// Where scanners of images look for the packages in one that has no package manager.
const PACKAGES: &str = "var/lib/dpkg/status.d";

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const AUTHORITIES: &str = "usr/share/ca-certificates/";

/// Where linear algebra is, and what programs are linked to.
const BLAS: &str = "openblas-serial";
const BLAS_LIBRARIES: [&str; 3] = ["libblas.so.3", "liblapack.so.3", "libopenblas.so.0"];

/// Whether a package's file belongs in an image.
pub(crate) fn wanted(path: &str) -> bool {
    let by_people = READ_BY_PEOPLE.iter().any(|part| path.starts_with(part));
    let unused = UNUSED.contains(&path) || path.contains(CONVERSIONS);
    is_licence(path) || !(by_people || unused || is_test(path))
}

/// Whether a file is what a package's licence asks to go with it.
pub(crate) fn is_licence(path: &str) -> bool {
    path.starts_with("usr/share/doc/") && path.ends_with(LICENCE)
}

fn is_test(path: &str) -> bool {
    let inside = path.strip_prefix(LIBRARIES);
    let split = inside.and_then(|path| path.split_once('/'));
    split.is_some_and(|(library, _)| TESTED.contains(&library)) && path.contains(TESTS)
}

/// The layer of the image that has no packages.
pub(crate) fn bare() -> Result<Tree> {
    let mut tree = Tree::default();
    tree.insert(
        "etc/passwd",
        Entry::file(include_str!("../../../images/passwd")),
    )?;
    tree.insert(
        "etc/group",
        Entry::file(include_str!("../../../images/group")),
    )?;
    writable(&mut tree)?;
    Ok(tree)
}

/// The layer that every image has on top.
pub(crate) fn program(program: Vec<u8>) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.insert(PROGRAM, Entry::root(Kind::File(program), 0o755))?;
    Ok(tree)
}

/// What there is before the first package: the links of the merged `usr`, which packages may lead through.
pub(crate) fn merged() -> Result<Tree> {
    let mut tree = Tree::default();
    for name in MERGED {
        tree.insert(&format!("usr/{name}"), Entry::directory(0o755))?;
        tree.insert(name, Entry::symlink(&format!("usr/{name}")))?;
    }
    Ok(tree)
}

/// Notes that a package is there.
pub(crate) fn record(tree: &mut Tree, package: &str, control: &str) -> Result<()> {
    tree.insert(&format!("{PACKAGES}/{package}"), Entry::file(control))
}

/// What the scripts of the shell's packages would have done.
pub(crate) fn finish_shell(tree: &mut Tree) -> Result<()> {
    // base-passwd copies these; the user is ours.
    for (name, line) in [
        (
            "passwd",
            format!("{USER_NAME}:x:{USER}:{USER}::/{WORKSPACE}:/bin/bash\n"),
        ),
        ("group", format!("{USER_NAME}:x:{USER}:\n")),
    ] {
        let master = format!("usr/share/base-passwd/{name}.master");
        let accounts = tree
            .file(&master)
            .with_context(|| format!("base-passwd brings no {master}"))?;
        let accounts = [accounts, line.as_bytes()].concat();
        tree.insert(&format!("etc/{name}"), Entry::file(accounts))?;
    }
    writable(tree)?;
    // The `alternatives` of these packages.
    for (name, target) in [("awk", "mawk"), ("which", "which.debianutils")] {
        link_program(tree, name, target)?;
    }
    link_program(tree, "sh", "dash")?;
    // base-files and tzdata make these.
    tree.insert(
        "etc/localtime",
        Entry::symlink("/usr/share/zoneinfo/Etc/UTC"),
    )?;
    tree.insert("etc/timezone", Entry::file("Etc/UTC\n"))?;
    authorities(tree)
}

/// What the scripts of Python's packages would have done.
pub(crate) fn finish_python(tree: &mut Tree) -> Result<()> {
    link_program(tree, "python", "python3")?;
    tree.insert(GIT_AGAIN, Entry::symlink("../../bin/git"))?;
    // It keeps pip from touching what dpkg manages, and nothing here is managed by dpkg. Without it
    // `pip install` works, and writes to the home of the user, who cannot write elsewhere.
    tree.retain(|path| !path.ends_with("/EXTERNALLY-MANAGED"));
    Ok(())
}

/// What the scripts of the libraries' packages would have done.
pub(crate) fn finish_data(tree: &mut Tree) -> Result<()> {
    // The `alternatives` of OpenBLAS, which are in a directory beside the other libraries.
    let inside = format!("/{BLAS}/{}", BLAS_LIBRARIES[0]);
    let libraries = tree
        .entries()
        .find_map(|(path, _)| path.strip_suffix(&inside))
        .with_context(|| format!("no package brings {inside}"))?
        .to_owned();
    for name in BLAS_LIBRARIES {
        let target = format!("{BLAS}/{name}");
        anyhow::ensure!(
            tree.contains(&format!("{libraries}/{target}")),
            "no package brings {libraries}/{target}"
        );
        tree.insert(&format!("{libraries}/{name}"), Entry::symlink(&target))?;
    }
    Ok(())
}

/// Makes `usr/bin/NAME` a link, unless a package did. The target must be there.
fn link_program(tree: &mut Tree, name: &str, target: &str) -> Result<()> {
    let path = format!("usr/bin/{target}");
    anyhow::ensure!(tree.contains(&path), "no package brings {path}");
    let link = format!("usr/bin/{name}");
    if tree.contains(&link) {
        return Ok(());
    }
    tree.insert(&link, Entry::symlink(target))
}

/// The directories that the user may write to; the rest of an image may be mounted read-only.
fn writable(tree: &mut Tree) -> Result<()> {
    for path in [WORKSPACE, APP] {
        tree.insert(path, Entry::directory(0o755).owned_by(USER))?;
    }
    tree.insert(TEMPORARY, Entry::directory(0o1777))
}

/// One file with all certificate authorities, where programs look for it.
fn authorities(tree: &mut Tree) -> Result<()> {
    let mut bundle = Vec::new();
    for (path, entry) in tree.entries() {
        if let Kind::File(content) = &entry.kind
            && path.starts_with(AUTHORITIES)
        {
            bundle.extend_from_slice(content);
            if !content.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    anyhow::ensure!(!bundle.is_empty(), "no package brings {AUTHORITIES}");
    tree.insert(BUNDLE, Entry::file(bundle))?;
    // Where OpenSSL looks by itself; the package `openssl` would bring the directory.
    for (path, target) in [
        ("cert.pem", "certs/ca-certificates.crt"),
        ("certs", "certs"),
    ] {
        tree.insert(
            &format!("usr/lib/ssl/{path}"),
            Entry::symlink(&format!("/etc/ssl/{target}")),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_stay_and_manuals_go() {
        for (path, expected) in [
            ("usr/share/doc/bash/copyright", true),
            ("usr/share/doc/bash/README", false),
            ("usr/share/man/man1/bash.1.gz", false),
            ("usr/share/common-licenses/GPL-3", true),
            ("usr/bin/bash", true),
            ("usr/bin/git", true),
            ("usr/lib/git-core/git", false),
            ("usr/lib/x86_64-linux-gnu/gconv/EUC-JP.so", false),
            ("usr/lib/python3/dist-packages/scipy/fft/tests/a.py", false),
            ("usr/lib/python3/dist-packages/scipy/fft/a.py", true),
            ("usr/lib/python3/dist-packages/numpy/tests/a.py", true),
            ("usr/lib/python3.13/unittest/tests/a.py", true),
        ] {
            assert_eq!(wanted(path), expected, "{path}");
        }
    }

    #[test]
    fn the_user_of_every_image_can_write_where_it_should() {
        let mut packages = merged().unwrap();
        for (path, content) in [
            (
                "usr/share/base-passwd/passwd.master",
                "root:*:0:0:root:/root:/bin/bash\n",
            ),
            ("usr/share/base-passwd/group.master", "root:*:0:\n"),
            ("usr/share/ca-certificates/a.crt", "A"),
            ("usr/share/ca-certificates/b.crt", "B\n"),
            ("usr/bin/mawk", ""),
            ("usr/bin/dash", ""),
            ("usr/bin/which.debianutils", ""),
        ] {
            packages.insert(path, Entry::file(content)).unwrap();
        }
        finish_shell(&mut packages).unwrap();
        assert_eq!(packages.file(BUNDLE), Some(&b"A\nB\n"[..]));
        for tree in [&packages, &bare().unwrap()] {
            let text = |path| String::from_utf8(tree.file(path).unwrap().to_vec()).unwrap();
            assert!(text("etc/passwd").contains("\nsandbox:x:1000:1000::/workspace:"));
            assert!(text("etc/group").contains("\nsandbox:x:1000:\n"));
            let by_path =
                |wanted: &str| tree.entries().find(|(path, _)| *path == wanted).unwrap().1;
            for path in [WORKSPACE, APP] {
                assert_eq!(
                    (by_path(path).uid, by_path(path).mode),
                    (USER, 0o755),
                    "{path}"
                );
            }
            assert_eq!(by_path(TEMPORARY).mode, 0o1777);
        }
    }

    #[test]
    fn a_package_that_is_missing_is_named() {
        let error = finish_shell(&mut Tree::default()).unwrap_err().to_string();
        assert!(error.contains("base-passwd"), "{error}");
        let error = finish_python(&mut Tree::default()).unwrap_err().to_string();
        assert!(error.contains("usr/bin/python3"), "{error}");
        let error = finish_data(&mut Tree::default()).unwrap_err().to_string();
        assert!(error.contains("libblas.so.3"), "{error}");
    }

    #[test]
    fn linear_algebra_is_found_among_the_other_libraries() {
        let mut tree = Tree::default();
        let libraries = "usr/lib/aarch64-linux-gnu";
        let (last, others) = BLAS_LIBRARIES.split_last().unwrap();
        for name in others {
            let path = format!("{libraries}/{BLAS}/{name}");
            tree.insert(&path, Entry::file("")).unwrap();
        }
        let error = finish_data(&mut tree).unwrap_err().to_string();
        assert!(error.contains(last), "{error}");
        let path = format!("{libraries}/{BLAS}/{last}");
        tree.insert(&path, Entry::symlink("libopenblas-r0.so"))
            .unwrap();
        finish_data(&mut tree).unwrap();
        for name in BLAS_LIBRARIES {
            let path = format!("{libraries}/{name}");
            let link = Entry::symlink(&format!("{BLAS}/{name}"));
            let found = tree.entries().find(|(found, _)| *found == path);
            assert_eq!(found.map(|(_, entry)| entry), Some(&link), "{path}");
        }
    }
}
