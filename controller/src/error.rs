//! What can go wrong while an object is brought to its desired state, sorted by whose fault it is: a
//! user's mistake is reported and not retried until the object changes; a machine's fault is
//! reported and retried with bounded back-off.

use std::time::Duration;

use crate::api::ApiError;

/// One thing that went wrong in a pass.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The object asks for something that can never work.
    #[error("{0}")]
    Invalid(String),
    /// Something of that name exists and is not ours to touch.
    #[error("{0}")]
    Refused(String),
    /// The API server or the way to it failed; worth another try.
    #[error("{message}")]
    Transient {
        /// What happened.
        message: String,
        /// When the server asked not to be called again before.
        retry_after: Option<Duration>,
    },
}

impl Fault {
    /// The fault for a failed call, said in terms of what was being done.
    pub fn of(doing: &str, error: &ApiError) -> Self {
        if error.is_permanent() {
            return Self::Invalid(format!("{doing}: {error}"));
        }
        Self::Transient {
            message: format!("{doing}: {error}"),
            retry_after: error.retry_after(),
        }
    }

    /// Whether trying again may help although nothing was changed.
    pub fn is_retried(&self) -> bool {
        !matches!(self, Self::Invalid(_))
    }

    /// How long the server asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_object_is_the_users_and_is_not_retried() {
        let fault = Fault::of(
            "creating pod \"a\"",
            &ApiError::Invalid("Pod \"a\" is invalid: spec.x".to_owned()),
        );
        assert!(!fault.is_retried());
        assert_eq!(
            fault.to_string(),
            "creating pod \"a\": Pod \"a\" is invalid: spec.x"
        );
        let busy = ApiError::Busy {
            message: "later".to_owned(),
            retry_after: Some(Duration::from_secs(3)),
        };
        let fault = Fault::of("listing", &busy);
        assert!(fault.is_retried());
        assert_eq!(fault.retry_after(), Some(Duration::from_secs(3)));
    }
}
