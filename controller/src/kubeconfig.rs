//! Finding the API server: an explicit kubeconfig, the one the environment names, the cluster this
//! process runs in, or the user's own. What is wrong with a file is said with its name and what to do.

use std::path::{Path, PathBuf};

use http::uri::Scheme;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError as Cause};
use kube::{Client, Config};
use tower::ServiceBuilder;

use crate::transport::{Patience, TargetError, Transport};

/// Why the API server cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file is missing, unreadable or no kubeconfig.
    #[error("cannot use kubeconfig {}: {}; {}", path.display(), source, remedy(source))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Cause,
    },
    /// Nothing says where the API server is.
    #[error(
        "no API server is configured: set KUBECONFIG or --kubeconfig, or run inside a cluster ({0})"
    )]
    Nothing(#[source] Cause),
    /// The configuration cannot be made into a client.
    #[error("cannot connect as configured in {origin}: {source}")]
    Client {
        /// Where the configuration comes from.
        origin: String,
        /// What is wrong with it.
        source: Box<TargetError>,
    },
}

fn remedy(cause: &Cause) -> &'static str {
    match cause {
        Cause::ReadConfig(..) | Cause::FindPath => {
            "check the path and that this user may read the file"
        }
        Cause::Parse(_) => "it must be YAML of kind Config",
        Cause::CurrentContextNotSet => {
            "choose a context with `kubectl config use-context NAME --kubeconfig FILE`"
        }
        Cause::LoadContext(_) | Cause::LoadClusterOfContext(_) => {
            "its current-context must name an entry of contexts, and that entry's cluster an entry of clusters"
        }
        Cause::MissingClusterUrl | Cause::ParseClusterUrl(_) => {
            "the cluster's server must be a URL such as https://host:6443"
        }
        Cause::LoadCertificateAuthority(_)
        | Cause::LoadClientCertificate(_)
        | Cause::LoadClientKey(_)
        | Cause::ParseCertificates(_) => {
            "certificates and keys must be PEM, inline as base64 or in files that exist"
        }
        _ => "compare it with one that `kubectl` accepts",
    }
}

/// Where the API server is and who we are.
#[derive(Clone, Debug)]
pub struct Connection {
    config: Config,
    origin: String,
}

impl Connection {
    /// Reads the kubeconfig at `path` (several, separated as in `PATH`, are merged), else the cluster
    /// this process runs in, else the user's own kubeconfig.
    ///
    /// # Errors
    /// Names the file and the remedy.
    pub async fn find(path: Option<&Path>) -> Result<Self, KubeconfigError> {
        let (mut config, origin) = match path {
            Some(path) => (read(path).await?, path.display().to_string()),
            None => match Config::incluster() {
                Ok(config) => (config, "the cluster's service account".to_owned()),
                Err(_) => (
                    Config::from_kubeconfig(&KubeConfigOptions::default())
                        .await
                        .map_err(KubeconfigError::Nothing)?,
                    "the user's kubeconfig".to_owned(),
                ),
            },
        };
        // Calls are retried by those who know whether they may be.
        config.default_retry = false;
        Ok(Self { config, origin })
    }

    /// The namespace of the context or service account.
    pub fn namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// Host and port of the API server.
    pub fn host(&self) -> &str {
        let authority = self.config.cluster_url.authority();
        authority.map_or("", http::uri::Authority::as_str)
    }

    /// Where the configuration comes from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// A client with a connection of its own: one, with a server that speaks HTTP/2.
    ///
    /// # Errors
    /// When TLS or credentials cannot be set up.
    pub fn client(&self) -> Result<Client, KubeconfigError> {
        self.connect().map_err(|source| KubeconfigError::Client {
            origin: self.origin.clone(),
            source: Box::new(source),
        })
    }

    fn connect(&self) -> Result<Client, TargetError> {
        let config = &self.config;
        // Without TLS nothing tells whether the server speaks HTTP/2; through a proxy, kube connects.
        if config.cluster_url.scheme() != Some(&Scheme::HTTPS) || config.proxy_url.is_some() {
            return Ok(Client::try_from(config.clone())?);
        }
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .service(Transport::new(config, Patience::default())?);
        Ok(Client::new(service, config.default_namespace.clone()))
    }
}

async fn read(path: &Path) -> Result<Config, KubeconfigError> {
    let wrong = |source| KubeconfigError::File {
        path: path.to_owned(),
        source,
    };
    let mut merged: Option<Kubeconfig> = None;
    for file in std::env::split_paths(path) {
        if file.as_os_str().is_empty() {
            continue;
        }
        let next = Kubeconfig::read_from(&file).map_err(|source| KubeconfigError::File {
            path: file.clone(),
            source,
        })?;
        merged = Some(match merged {
            None => next,
            Some(merged) => merged.merge(next).map_err(wrong)?,
        });
    }
    let kubeconfig = merged.ok_or_else(|| wrong(Cause::FindPath))?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn error_for(text: &str) -> String {
        let file = std::env::temp_dir().join(format!(
            "agent-sandbox-kubeconfig-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        ));
        std::fs::write(&file, text).unwrap();
        let error = Connection::find(Some(&file)).await.unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains(&file.display().to_string()), "{error}");
        error
    }

    #[tokio::test]
    async fn a_missing_file_is_named_with_the_remedy() {
        let error = Connection::find(Some(Path::new("/nonexistent/kubeconfig")))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/kubeconfig"), "{error}");
        assert!(error.contains("check the path"), "{error}");
    }

    #[tokio::test]
    async fn broken_files_say_what_is_wrong_and_what_to_do() {
        let error = error_for("clusters: [").await;
        assert!(error.contains("YAML of kind Config"), "{error}");
        let error = error_for("apiVersion: v1\nkind: Config\n").await;
        assert!(error.contains("use-context"), "{error}");
        let error = error_for(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {cluster: b, user: c}\n",
        )
        .await;
        assert!(error.contains("entry of clusters"), "{error}");
    }
}
