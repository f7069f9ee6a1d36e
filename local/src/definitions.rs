//! Installing the platform's resource kinds and its namespace.

use std::time::Duration;

use agent_sandbox_crds::names::SYSTEM_NAMESPACE;
use agent_sandbox_crds::schema::PodSpecSchema;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// Who owns the fields of what is installed here.
const MANAGER: &str = "agent-sandbox";
/// How long a definition may take to be served.
const ESTABLISHED_DEADLINE: Duration = Duration::from_secs(10);

/// Why the kinds cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The API server refused one.
    #[error("cannot install {name}")]
    Refused {
        /// Which object.
        name: String,
        /// What the API server said.
        source: kube::Error,
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
            .map_err(|source| DefinitionError::Refused { name, source })?;
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
        .map_err(|source| DefinitionError::Refused {
            name: SYSTEM_NAMESPACE.to_owned(),
            source,
        })?;
    Ok(())
}
