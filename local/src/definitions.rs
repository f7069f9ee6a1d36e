//! Installing the platform's resource kinds, its namespace, and the Service that names its router.

use std::net::SocketAddr;
use std::time::Duration;

use agent_sandbox_crds::names::{ROUTER_SERVICE, SYSTEM_NAMESPACE};
use agent_sandbox_crds::schema::PodSpecSchema;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::manifest::words;

/// Who owns the fields of what is installed here.
const MANAGER: &str = "agent-sandbox";
/// How long a definition may take to be served.
const ESTABLISHED_DEADLINE: Duration = Duration::from_secs(10);

/// Why an object of the platform cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The API server refused one.
    #[error("cannot install {name}: {message}")]
    Refused {
        /// Which object.
        name: String,
        /// What the API server said.
        message: String,
    },
    /// One is not served in time.
    #[error("{name} is not served after {} s", ESTABLISHED_DEADLINE.as_secs())]
    NotServed {
        /// Which definition.
        name: String,
    },
}

/// Installs the definitions, waits until they are served, and creates the platform's namespace.
///
/// # Errors
/// Names the object that is refused or not served.
pub async fn install(client: &Client) -> Result<(), DefinitionError> {
    let parameters = PatchParams::apply(MANAGER).force();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = agent_sandbox_crds::crd::all(PodSpecSchema::Lean);
    for definition in &all {
        let name = definition.name_any();
        definitions
            .patch(&name, &parameters, &Patch::Apply(definition))
            .await
            .map_err(|error| refused(&name, &error))?;
    }
    for definition in &all {
        let name = definition.name_any();
        let served = await_condition(definitions.clone(), &name, is_crd_established());
        let served = tokio::time::timeout(ESTABLISHED_DEADLINE, served).await;
        if !matches!(served, Ok(Ok(_))) {
            return Err(DefinitionError::NotServed { name });
        }
    }
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE},
    });
    Api::<Namespace>::all(client.clone())
        .patch(SYSTEM_NAMESPACE, &parameters, &Patch::Apply(&namespace))
        .await
        .map_err(|error| refused(SYSTEM_NAMESPACE, &error))?;
    Ok(())
}

/// Publishes where the router is, under the name by which clients look it up. No pod stands behind
/// it, so it is an `ExternalName`: it says `localhost` and the port, and `kubectl port-forward` says
/// why it cannot go there.
///
/// # Errors
/// When the API server refuses it.
pub async fn publish_router(client: &Client, router: SocketAddr) -> Result<(), DefinitionError> {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": ROUTER_SERVICE, "labels": {"app.kubernetes.io/name": "sandbox-router"}},
        "spec": {
            "type": "ExternalName",
            "externalName": "localhost",
            "ports": [{"name": "proxy", "port": router.port(), "protocol": "TCP"}],
        },
    });
    Api::<Service>::namespaced(client.clone(), SYSTEM_NAMESPACE)
        .patch(
            ROUTER_SERVICE,
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(&service),
        )
        .await
        .map(drop)
        .map_err(|error| refused(ROUTER_SERVICE, &error))
}

fn refused(name: &str, error: &kube::Error) -> DefinitionError {
    DefinitionError::Refused {
        name: name.to_owned(),
        message: words(error),
    }
}
