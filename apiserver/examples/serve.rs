//! Serves the API on a TLS port and prints a kubeconfig, to try clients against the bare server:
//!
//! ```text
//! cargo run -p agent-sandbox-apiserver --example serve -- /tmp/kubeconfig [JOURNAL]
//! ```

use std::error::Error;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_apiserver::auth::{Authenticator, User};
use agent_sandbox_apiserver::certificate::ServingCertificate;
use agent_sandbox_service::shutdown::{Shutdown, signals};
use agent_sandbox_service::{listen, server};
use base64::Engine as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kubeconfig = arguments
        .next()
        .ok_or("usage: serve KUBECONFIG [JOURNAL]")?;
    let shutdown = Shutdown::new();
    let signalled = signals(&shutdown)?;
    let certificate = ServingCertificate::generate(&["127.0.0.1".parse()?])?;
    let mut builder = Server::builder().root_ca(certificate.authority_pem());
    if let Some(journal) = arguments.next() {
        builder = builder.journal(journal);
    }
    let api = builder.start(&shutdown)?;
    let listener = listen::bind("127.0.0.1:0".parse()?)?;
    let address = listener.local_addr()?;
    let token = Authenticator::generate_token();
    let authority = base64::engine::general_purpose::STANDARD.encode(certificate.authority_pem());
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: local\nclusters:\n- name: local\n  cluster:\n    \
         server: https://{address}\n    certificate-authority-data: {authority}\ncontexts:\n- name: local\n  \
         context: {{cluster: local, user: local}}\nusers:\n- name: local\n  user: {{token: {token}}}\n"
    );
    std::fs::write(&kubeconfig, text)?;
    let router = Authenticator::new([(token.as_str(), User::admin())]).layer(api.router());
    let serving = server::Server::new(router)
        .tls(certificate.server_config())
        .serve(listener, shutdown.clone(), Duration::from_secs(1));
    tokio::join!(serving, signalled);
    api.stop(Duration::from_secs(1)).await;
    Ok(())
}
