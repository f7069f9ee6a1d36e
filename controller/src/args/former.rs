//! Flags of the earlier program whose subject is gone. Values and manifests in the wild still pass them, so they
//! are accepted.

use clap::Args as ClapArgs;

/// Why webhook flags do nothing.
const WEBHOOK: &str = "both versions are served without a webhook";
/// Why the rates of other profiles do nothing.
const PROFILE: &str = "waiting and locks are not profiled; /metrics tells of queues";

/// Flags whose subject is gone. Values in the wild still pass them.
#[derive(ClapArgs, Clone, Debug)]
pub(super) struct FormerArgs {
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_port: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_cert_dir: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_cert_name: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_key_name: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_service_name: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_namespace: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    manage_webhook_certs: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    enable_webhook: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pprof_block_profile_rate: Option<i64>,
    /// Accepted and ignored
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pprof_mutex_profile_fraction: Option<i64>,
}

impl FormerArgs {
    /// The flags that were passed, by name, and why each has no effect.
    pub(super) fn passed(self) -> Vec<(&'static str, &'static str)> {
        let Self {
            webhook_port,
            webhook_cert_dir,
            webhook_cert_name,
            webhook_key_name,
            webhook_service_name,
            webhook_namespace,
            manage_webhook_certs,
            enable_webhook,
            pprof_block_profile_rate,
            pprof_mutex_profile_fraction,
        } = self;
        [
            ("--webhook-port", webhook_port, WEBHOOK),
            ("--webhook-cert-dir", webhook_cert_dir, WEBHOOK),
            ("--webhook-cert-name", webhook_cert_name, WEBHOOK),
            ("--webhook-key-name", webhook_key_name, WEBHOOK),
            ("--webhook-service-name", webhook_service_name, WEBHOOK),
            ("--webhook-namespace", webhook_namespace, WEBHOOK),
            ("--manage-webhook-certs", manage_webhook_certs, WEBHOOK),
            ("--enable-webhook", enable_webhook, WEBHOOK),
            (
                "--pprof-block-profile-rate",
                pprof_block_profile_rate.map(|rate| rate.to_string()),
                PROFILE,
            ),
            (
                "--pprof-mutex-profile-fraction",
                pprof_mutex_profile_fraction.map(|fraction| fraction.to_string()),
                PROFILE,
            ),
        ]
        .into_iter()
        .filter(|(_, value, _)| value.as_deref().is_some_and(|value| value != "false"))
        .map(|(name, _, why)| (name, why))
        .collect()
    }
}
