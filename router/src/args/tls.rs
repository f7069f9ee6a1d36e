//! Flags of the HTTPS listener: its certificate, and what is asked of clients.
//!
//! [`Args`](super::Args) flattens them. Files are only named here; they are read, and read again
//! when they change, by [`tls`](crate::tls).

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::ArgsError;
use crate::tls::{ClientCertificates, Files};

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArgs {
    /// PEM certificate chain; reloaded when it changes
    #[arg(long, default_value = "", value_name = "FILE")]
    tls_cert_file: String,
    /// PEM private key
    #[arg(long, default_value = "", value_name = "FILE")]
    tls_key_file: String,
    /// PEM bundle of authorities for client certificates
    #[arg(long, default_value = "", value_name = "FILE")]
    tls_client_ca_file: String,
    /// What is asked of clients
    #[arg(long, value_enum, default_value_t = MtlsMode::Off)]
    mtls_mode: MtlsMode,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum MtlsMode {
    /// No certificate
    Off,
    /// A certificate is verified if there is one
    Optional,
    /// No connection without a valid certificate
    Required,
}

impl TlsArgs {
    pub(super) fn decide(self, https: bool) -> Result<Option<Files>, ArgsError> {
        let Self {
            tls_cert_file,
            tls_key_file,
            tls_client_ca_file,
            mtls_mode,
        } = self;
        if !https {
            return match mtls_mode {
                MtlsMode::Off => Ok(None),
                MtlsMode::Optional | MtlsMode::Required => Err(ArgsError::value(
                    "mtls-mode",
                    "needs an HTTPS listener; set --https-bind-address",
                )),
            };
        }
        for (flag, value) in [
            ("tls-cert-file", &tls_cert_file),
            ("tls-key-file", &tls_key_file),
        ] {
            if value.is_empty() {
                return Err(ArgsError::value(
                    flag,
                    "is needed with --https-bind-address",
                ));
            }
        }
        if mtls_mode != MtlsMode::Off && tls_client_ca_file.is_empty() {
            return Err(ArgsError::value(
                "tls-client-ca-file",
                "is needed unless --mtls-mode is off",
            ));
        }
        let authorities = PathBuf::from(tls_client_ca_file);
        Ok(Some(Files {
            certificate: tls_cert_file.into(),
            key: tls_key_file.into(),
            clients: match mtls_mode {
                MtlsMode::Off => ClientCertificates::Off,
                MtlsMode::Optional => ClientCertificates::Optional { authorities },
                MtlsMode::Required => ClientCertificates::Required { authorities },
            },
        }))
    }
}
