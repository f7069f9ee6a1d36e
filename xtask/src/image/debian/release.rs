//! The signed list of a release's indexes. The lock's digests come from an index whose own digest is in
//! this list, and the list is signed by the archive: nothing unsigned gets into the lock.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lzma_rust2::XzReader;

use super::mirror::Mirror;

/// Where Debian and its derivatives install the keys.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches the index of the component `main` of a suite, verified. `work` is a directory for what is fetched.
pub(crate) fn index(
    mirror: &Mirror,
    (suite, architecture): (&str, &str),
    keyring: &Path,
    work: &Path,
) -> Result<String> {
    let signed = work.join("InRelease");
    mirror
        .fetch(&format!("dists/{suite}/InRelease"), &signed)
        .with_context(|| format!("cannot get the release file of {suite}"))?;
    let list = verify(&signed, keyring, &work.join("Release"))
        .with_context(|| format!("the release file of {suite}"))?;
    let name = format!("main/binary-{architecture}/Packages.xz");
    let (sha256, size) =
        entry(&list, &name).with_context(|| format!("the release file of {suite}"))?;
    let path = format!("dists/{suite}/{name}");
    let packed = mirror.verified((&path, size, &sha256), work)?;
    let mut text = String::new();
    XzReader::new(packed.as_slice(), true)
        .read_to_string(&mut text)
        .with_context(|| format!("{path}: cannot be decompressed"))?;
    Ok(text)
}

/// The text that was signed.
fn verify(signed: &Path, keyring: &Path, text: &Path) -> Result<String> {
    ensure!(
        keyring.exists(),
        "there is no keyring {}; install the package debian-archive-keyring, or name a keyring with --keyring FILE",
        keyring.display()
    );
    // What an earlier run left would be read in place of what gpgv refuses to write.
    if text.exists() {
        fs::remove_file(text)?;
    }
    let output = Command::new("gpgv")
        .arg("--keyring")
        .arg(keyring)
        .arg("--output")
        .arg(text)
        .arg(signed)
        .stdin(Stdio::null())
        .output()
        .context("gpgv does not start; install it (the package gpgv)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("its signature is not good:\n{}", said.trim());
    }
    fs::read_to_string(text).context("cannot read what gpgv wrote")
}

/// Digest and size of a file in the list.
fn entry(list: &str, name: &str) -> Result<(String, u64)> {
    let section = list.lines().skip_while(|line| *line != "SHA256:").skip(1);
    for line in section.take_while(|line| line.starts_with(' ')) {
        let mut fields = line.split_whitespace();
        if let (Some(sha256), Some(size), Some(found)) =
            (fields.next(), fields.next(), fields.next())
            && found == name
        {
            let size = size
                .parse()
                .with_context(|| format!("{name}: size {size:?}"))?;
            return Ok((sha256.to_owned(), size));
        }
    }
    bail!("lists no SHA256 of {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "Suite: stable\nMD5Sum:\n aa 1 main/x\nSHA256:\n bb 2 main/x\n cc big main/y\nOther: z\n dd 3 main/z\n";

    #[test]
    fn only_the_section_of_sha256_counts() {
        assert_eq!(entry(LIST, "main/x").unwrap(), ("bb".to_owned(), 2));
        assert!(
            entry(LIST, "main/y")
                .unwrap_err()
                .to_string()
                .contains("size")
        );
        assert!(entry(LIST, "main/z").is_err());
        assert!(entry("", "main/x").is_err());
    }

    #[test]
    fn without_keys_nothing_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let signed = directory.path().join("InRelease");
        fs::write(&signed, LIST).unwrap();
        let text = directory.path().join("Release");
        let error = verify(&signed, &directory.path().join("absent"), &text).unwrap_err();
        assert!(error.to_string().contains("--keyring"), "{error}");
        let empty = directory.path().join("empty.gpg");
        fs::write(&empty, "").unwrap();
        // Refused whether gpgv is installed or not.
        assert!(verify(&signed, &empty, &text).is_err());
    }
}
