//! Where packages come from: a mirror named on the command line, or the ones apt uses here.
//!
//! What apt is configured for, apt fetches, so its proxies, certificates and credentials hold. From a
//! mirror that is named, Python fetches, which the project needs anyway; it heeds `http_proxy`,
//! `https_proxy`, `no_proxy` and `SSL_CERT_FILE`. An HTTP client of our own would take longer to build
//! than the rest of this program.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::image::digest;
use crate::python;

const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
const NO_MIRROR: &str = "apt names no mirror on this machine; name one with --mirror URL (the directory that has \
                         `dists` and `pool` in it), twice if updates are elsewhere";
/// Fetches one file into another; every error in one line.
const SCRIPT: &str = "
import shutil, sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=60) as answer, open(sys.argv[2], 'wb') as file:
        shutil.copyfileobj(answer, file)
except Exception as error:
    sys.exit(str(error))
";

/// One or more bases that files are looked for below, in order.
#[derive(Debug)]
pub(crate) struct Mirror {
    bases: Vec<String>,
    client: Client,
}

#[derive(Debug)]
enum Client {
    Apt,
    Python(&'static str),
}

impl Mirror {
    /// The mirrors that are given, else those of this machine's apt.
    pub(crate) fn choose(given: &[String]) -> Result<Self> {
        if given.is_empty() {
            return Self::of_apt();
        }
        let bases: Vec<String> = given
            .iter()
            .map(|url| base(url))
            .collect::<Result<_>>()
            .context("--mirror")?;
        Ok(Self {
            bases,
            client: Client::Python(python::interpreter()?),
        })
    }

    fn of_apt() -> Result<Self> {
        let output = Command::new("apt-get")
            .args([
                "indextargets",
                "--format",
                "$(REPO_URI)",
                "Created-By: Packages",
            ])
            .stdin(Stdio::null())
            .output();
        let listed = match output {
            Ok(output) if output.status.success() => output.stdout,
            _ => bail!(NO_MIRROR),
        };
        let mut bases: Vec<String> = Vec::new();
        for line in String::from_utf8(listed).context("apt-get")?.lines() {
            let base = format!("{}/", line.trim_end_matches('/'));
            if line.contains(':') && !bases.contains(&base) {
                bases.push(base);
            }
        }
        ensure!(
            !bases.is_empty() && Path::new(APT_HELPER).exists(),
            NO_MIRROR
        );
        Ok(Self {
            bases,
            client: Client::Apt,
        })
    }

    /// Fetches what is below the first base that has it.
    ///
    /// # Errors
    /// Says for every base what went wrong.
    pub(crate) fn fetch(&self, path: &str, to: &Path) -> Result<()> {
        let mut troubles = Vec::new();
        for base in &self.bases {
            let url = format!("{base}{path}");
            let output = self.client.fetch(&url, to)?;
            if output.status.success() && to.exists() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .collect();
            troubles.push(format!("{url}: {}", lines.join("; ")));
        }
        bail!("no mirror has it:\n  {}", troubles.join("\n  "))
    }

    /// Fetches a file with a known digest, or takes it from the cache. A file that does not match is not
    /// kept.
    pub(crate) fn verified(
        &self,
        (path, size, sha256): (&str, u64, &str),
        cache: &Path,
    ) -> Result<Vec<u8>> {
        let kept = cache.join(sha256);
        if let Ok(bytes) = fs::read(&kept)
            && digest::hex(&bytes) == sha256
        {
            return Ok(bytes);
        }
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let fresh = cache.join(format!("{sha256}.{}", std::process::id()));
        let outcome = self.fetch(path, &fresh).and_then(|()| {
            let bytes = fs::read(&fresh)?;
            let found = digest::hex(&bytes);
            ensure!(
                bytes.len() as u64 == size && found == sha256,
                "is not what was expected: {} bytes with the digest {found} instead of {size} with {sha256}",
                bytes.len()
            );
            fs::rename(&fresh, &kept)?;
            Ok(bytes)
        });
        if outcome.is_err() {
            // It may not exist; the first error is the one to tell.
            drop(fs::remove_file(&fresh));
        }
        outcome.with_context(|| format!("cannot get {path}"))
    }
}

impl Client {
    fn fetch(&self, url: &str, to: &Path) -> Result<Output> {
        let mut command = match self {
            Self::Apt => {
                let mut command = Command::new(APT_HELPER);
                // The target belongs to this user, not to the one that apt would become.
                command.args(["-o", "APT::Sandbox::User=root", "-q", "download-file"]);
                command
            }
            Self::Python(interpreter) => {
                let mut command = Command::new(interpreter);
                command.args(["-c", SCRIPT]);
                command
            }
        };
        let started = command.arg(url).arg(to).stdin(Stdio::null()).output();
        started.with_context(|| format!("cannot start what fetches {url}"))
    }
}

/// The URL of a mirror, with one slash at its end.
fn base(url: &str) -> Result<String> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .with_context(|| format!("{url:?}: expected a URL that begins with http:// or https://"))?;
    let host = rest.split('/').next().unwrap_or_default();
    ensure!(!host.is_empty(), "{url:?}: names no host");
    ensure!(
        !host.contains('@'),
        "a URL with credentials in it is not taken; configure apt with them instead"
    );
    ensure!(
        !url.contains(['?', '#', ' ']),
        "{url:?}: expected the URL of a directory"
    );
    Ok(format!("{}/", url.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_mirror_is_the_url_of_a_directory() {
        assert_eq!(
            base("http://localhost/debian").unwrap(),
            "http://localhost/debian/"
        );
        assert_eq!(base("https://localhost//").unwrap(), "https://localhost/");
        for url in [
            "debian",
            "file:///x",
            "http://",
            "http://u:p@localhost/",
            "http://h/?x",
            "http://h/#",
        ] {
            let error = base(url).unwrap_err().to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    /// A server that answers every request for `/second/file` with `content`, and others with 404.
    fn server(content: &'static str, requests: usize) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = thread::spawn(move || {
            for _ in 0..requests {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                let wanted = request[..length].starts_with(b"GET /second/file ");
                let status = if wanted { "200 OK" } else { "404 Not Found" };
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{content}",
                    content.len()
                )
                .unwrap();
            }
        });
        (url, served)
    }

    #[test]
    fn files_are_looked_for_in_order_verified_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (url, served) = server("content", 3);
        let mirror = Mirror {
            bases: vec![format!("{url}/first/"), format!("{url}/second/")],
            client: Client::Python(python::interpreter().unwrap()),
        };
        let wrong = ("file", 7, "00");
        let error = format!(
            "{:#}",
            mirror.verified(wrong, directory.path()).unwrap_err()
        );
        assert!(error.contains("not what was expected"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

        let digest = digest::hex(b"content");
        let second = Mirror {
            bases: vec![format!("{url}/second/")],
            ..mirror
        };
        for _ in 0..2 {
            // The second time there is no server any more.
            let bytes = second
                .verified(("file", 7, &digest), directory.path())
                .unwrap();
            assert_eq!(bytes, b"content");
        }
        served.join().unwrap();
        let error = format!(
            "{:#}",
            second
                .verified(("other", 7, "11"), directory.path())
                .unwrap_err()
        );
        assert!(
            error.contains("cannot get other") && error.contains(&url),
            "{error}"
        );
    }
}
