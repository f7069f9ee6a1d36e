//! What this program was built from: the `agent_sandbox_build_info` metric and the answer to
//! `--version`.

use super::Registrar;

/// What a program was built from.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The version, as in `v0.1.0`.
    pub version: &'static str,
    /// The commit, `unknown` when it was not built from a repository.
    pub commit: &'static str,
    /// The time of that commit.
    pub date: &'static str,
    /// The compiler and its version.
    pub compiler: &'static str,
    /// Operating system and processor, in the names that container images go by.
    pub platform: &'static str,
}

impl Build {
    /// This program.
    pub const fn of_this_program() -> Self {
        Self {
            version: concat!("v", env!("CARGO_PKG_VERSION")),
            commit: env!("AGENT_SANDBOX_GIT_COMMIT"),
            date: env!("AGENT_SANDBOX_BUILD_DATE"),
            compiler: env!("AGENT_SANDBOX_COMPILER"),
            platform: env!("AGENT_SANDBOX_PLATFORM"),
        }
    }

    /// The label names are those of the earlier program, which dashboards join on.
    pub(super) fn register(self, new: &Registrar<'_>) -> prometheus::Result<()> {
        let info = new.gauges(
            "agent_sandbox_build_info",
            "The program that is running.",
            &[
                "git_version",
                "git_commit",
                "build_date",
                "go_version",
                "compiler",
                "platform",
            ],
        )?;
        info.with_label_values(&[
            self.version,
            self.commit,
            self.date,
            "none",
            self.compiler,
            self.platform,
        ])
        .set(1);
        Ok(())
    }
}
