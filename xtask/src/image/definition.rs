//! Which images there are and what they have in common. `images/Dockerfile` makes the same ones; a test
//! compares the two.

use super::oci::config::Settings;

/// Debian's release that the images are made from.
pub(crate) const SUITE: &str = "trixie";
/// What the release is followed by where its security updates are.
pub(crate) const SECURITY: &str = "-security";
/// The architectures that the lock file lists packages for, as Debian and image specifications name them.
pub(crate) const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// The runtime's place in every image.
pub(crate) const PROGRAM: &str = "usr/local/bin/agent-sandbox-runtime";
/// The user that everything runs as, and its group.
pub(crate) const USER: u32 = 1000;
pub(crate) const USER_NAME: &str = "sandbox";
/// Home of that user and root of the runtime's files.
pub(crate) const WORKSPACE: &str = "workspace";
/// The other directories that the user may write to.
pub(crate) const APP: &str = "app";
pub(crate) const TEMPORARY: &str = "tmp";

const PORTS: [u16; 3] = [8888, 8080, 9090];
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/workspace/.local/bin",
    ),
    ("HOME", "/workspace"),
    ("LANG", "C.UTF-8"),
    ("SANDBOX_BASE_DIR", "/workspace"),
    ("AGENT_SANDBOX_RUNTIME_PORTS", "8888,8080,9090"),
];
const LICENSE: &str = "Apache-2.0";

/// An image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Image {
    /// The runtime alone, to copy from
    Runtime,
    /// The runtime with a shell and the usual small programs
    Shell,
    /// That, with Python, pip and git
    Python,
    /// That, with Python's libraries for data analysis and machine learning
    PythonData,
}

/// A layer of packages.
#[derive(Debug)]
pub(crate) struct Set {
    /// Its name in the lock file.
    pub(crate) name: &'static str,
    /// The packages that are wanted; they bring what they depend on.
    pub(crate) roots: &'static [&'static str],
    /// What they depend on and images have no use for.
    pub(crate) omitted: &'static [&'static str],
    /// Packages of which one file is wanted, beside the licence.
    pub(crate) single: &'static [(&'static str, &'static str)],
}

pub(crate) const SHELL: Set = Set {
    name: "shell",
    roots: &[
        "base-files",
        "base-passwd",
        "bash",
        "ca-certificates",
        "coreutils",
        "dash",
        "debianutils",
        "diffutils",
        "findutils",
        "grep",
        "gzip",
        "hostname",
        "libc-bin",
        "mawk",
        "ncurses-base",
        "netbase",
        "procps",
        "sed",
        "tar",
        "tzdata",
        "xz-utils",
    ],
    // Maintainer scripts use these, and programs that ask OpenSSL for ciphers long broken.
    omitted: &[
        "debconf",
        "init-system-helpers",
        "libdebconfclient0",
        "openssl",
        "openssl-provider-legacy",
    ],
    single: &[],
};

pub(crate) const PYTHON: Set = Set {
    name: "python",
    roots: &["git", "python3", "python3-pip", "python3-venv"],
    // Git's everyday commands need no Perl, and Python needs dpkg for its scripts only.
    omitted: &["dpkg", "git-man", "liberror-perl", "perl"],
    single: &[],
};

pub(crate) const DATA: Set = Set {
    name: "data",
    roots: &[
        // OpenBLAS without threads: it would start as many as the node has processors, whatever the pod may use.
        "libopenblas0-serial",
        "python3-bs4",
        "python3-docx",
        "python3-html5lib",
        "python3-jinja2",
        "python3-joblib",
        "python3-lxml",
        "python3-matplotlib",
        "python3-networkx",
        "python3-numpy",
        "python3-odf",
        "python3-openpyxl",
        "python3-pandas",
        "python3-pil",
        "python3-pypdf",
        "python3-reportlab",
        "python3-requests",
        "python3-scipy",
        "python3-seaborn",
        "python3-sklearn",
        "python3-statsmodels",
        "python3-sympy",
        "python3-tabulate",
        "python3-tqdm",
        "python3-xgboost",
        "python3-xlrd",
        "python3-xlsxwriter",
        "python3-yaml",
        "util-linux",
    ],
    // For windows on a screen and in a browser, for font formats that nobody plots with, and for PDF pages
    // drawn as pixels: the libraries find out themselves that these are absent. And what `lscpu` does not need.
    omitted: &[
        "fonts-urw-base35",
        "libcap-ng0",
        "libcrypt1",
        "libjs-jquery",
        "libjs-jquery-ui",
        "liblastlog2-2",
        "libpam-modules",
        "libpam-runtime",
        "libpam0g",
        "libudev1",
        "python3-freetype",
        "python3-fs",
        "python3-lz4",
        "python3-pil.imagetk",
        "python3-pkg-resources",
        "python3-rlpycairo",
        "python3-ufolib2",
        "python3-unicodedata2",
        "python3-zopfli",
        "unicode-data",
    ],
    // Joblib asks it for the number of cores.
    single: &[("util-linux", "usr/bin/lscpu")],
};

/// Every set, each before those that build on it.
pub(crate) const SETS: [&Set; 3] = [&SHELL, &PYTHON, &DATA];

impl Image {
    pub(crate) const ALL: [Self; 4] = [Self::Runtime, Self::Shell, Self::Python, Self::PythonData];

    /// Its name, without a registry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Runtime => "agent-sandbox-runtime",
            Self::Shell => "agent-sandbox-shell",
            Self::Python => "agent-sandbox-python",
            Self::PythonData => "agent-sandbox-python-data",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Runtime => "The in-pod runtime alone, to copy from",
            Self::Shell => "Sandboxes with a shell and the usual small programs",
            Self::Python => "Sandboxes with Python, pip and git",
            Self::PythonData => "Sandboxes with Python for data analysis and machine learning",
        }
    }

    /// The layers of packages, the lowest first.
    pub(crate) fn sets(self) -> &'static [&'static Set] {
        match self {
            Self::Runtime => &[],
            Self::Shell => &[&SHELL],
            Self::Python => &[&SHELL, &PYTHON],
            Self::PythonData => &[&SHELL, &PYTHON, &DATA],
        }
    }

    /// How it starts and what it says about itself. The source is where the project lives, if that is said.
    pub(crate) fn settings(self, source: Option<&str>) -> Settings {
        let own = |text: &&str| (*text).to_owned();
        let mut labels = vec![
            ("title", self.name()),
            ("description", self.description()),
            ("version", env!("CARGO_PKG_VERSION")),
            ("licenses", LICENSE),
        ];
        labels.extend(source.map(|source| ("source", source)));
        Settings {
            entrypoint: vec![format!("/{PROGRAM}")],
            environment: ENVIRONMENT
                .iter()
                .map(|(name, value)| (own(name), own(value)))
                .collect(),
            user: format!("{USER}:{USER}"),
            working_directory: format!("/{WORKSPACE}"),
            ports: PORTS.to_vec(),
            labels: labels
                .iter()
                .map(|(key, value)| (format!("org.opencontainers.image.{key}"), own(value)))
                .collect(),
        }
    }
}
