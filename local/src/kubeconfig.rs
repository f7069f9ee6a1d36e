//! The kubeconfig that `up` writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Name of the cluster, user and context in the file.
const NAME: &str = "agent-sandbox";

/// A kubeconfig with one cluster, user and context. It is written as JSON, which every reader of
/// kubeconfigs accepts because JSON is YAML.
pub fn render(server: &str, authority_pem: &str, token: &str) -> String {
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": NAME,
            "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(authority_pem),
            },
        }],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{
            "name": NAME,
            "context": {"cluster": NAME, "user": NAME, "namespace": "default"},
        }],
        "current-context": NAME,
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    #[test]
    fn clients_read_it() {
        let text = render("https://127.0.0.1:6443", "PEM", "secret");
        let read = Kubeconfig::from_yaml(&text).unwrap();
        let cluster = read.clusters.first().unwrap().cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("UEVN"));
        assert_eq!(read.current_context.as_deref(), Some(NAME));
        assert!(
            read.auth_infos
                .first()
                .unwrap()
                .auth_info
                .as_ref()
                .unwrap()
                .token
                .is_some()
        );
    }
}
