//! What the network policy of its template means for a sandbox: whether a pod may start, and what keeps it from
//! that. The template controller finds out; the plans of sandboxes and pools go by it.

use super::plan::PodStep;
use crate::ident::Text;

/// Whether pods of the sandbox's template may start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Policy {
    /// None is called for.
    NotNeeded,
    /// It is in place.
    InPlace {
        /// Its name, which a pod that starts under it records.
        name: String,
    },
    /// It is called for and not there yet.
    Missing {
        /// Its name.
        name: String,
        /// The template it belongs to.
        template: Text,
    },
    /// The template's pods would get the rules of another template, whose name has the same hash.
    Refused {
        /// The template.
        template: Text,
        /// The other one, which was first.
        rival: Text,
    },
    /// The template is gone, and nothing tells the rules of its policy any more.
    Lost {
        /// The policy's name.
        name: String,
        /// The template.
        template: Text,
        /// Whether another policy shuts in the pods that run.
        stands_in: bool,
    },
}

impl Policy {
    /// What keeps pods from starting, for people.
    pub fn obstacle(&self) -> Option<String> {
        match self {
            Self::NotNeeded | Self::InPlace { .. } => None,
            Self::Missing { name, template } => Some(format!(
                "waiting for NetworkPolicy {name:?} of SandboxTemplate {:?}",
                &**template
            )),
            Self::Refused { template, rival } => Some(format!(
                "the name of SandboxTemplate {:?} has the same hash as {:?}, which was first",
                &**template, &**rival
            )),
            Self::Lost {
                name,
                template,
                stands_in,
            } => {
                let meanwhile = if *stands_in {
                    "; pods that run reach nothing meanwhile, and only the router reaches them"
                } else {
                    ""
                };
                Some(format!(
                    "SandboxTemplate {:?} is gone, and with it the rules of NetworkPolicy {name:?}; no pod starts until a template of that name exists again{meanwhile}",
                    &**template
                ))
            }
        }
    }

    /// The policy that a pod which starts now is under. `Err` when none may start.
    pub(super) fn to_start_under(&self) -> Result<Option<&str>, PodStep> {
        match self {
            Self::NotNeeded => Ok(None),
            Self::InPlace { name } => Ok(Some(name)),
            Self::Missing { .. } | Self::Refused { .. } | Self::Lost { .. } => {
                Err(PodStep::AwaitPolicy)
            }
        }
    }
}
