//! A sandbox as its clients know it: by name, while pods come and go behind it. Says who may answer
//! for it at any moment, and whether it was left alone meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::sandbox::Identity;

/// The namespace of all of them.
pub(super) const NAMESPACE: &str = "soak";

/// One sandbox.
#[derive(Debug)]
pub(super) struct Named {
    name: String,
    /// Its pods so far, one after the other.
    pods: Mutex<Vec<Identity>>,
    /// The first pod that may still answer: the router knows the end of all before.
    floor: AtomicU64,
    /// Odd while anything happens to it.
    epoch: AtomicU64,
}

/// What held when a request began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    floor: u64,
    epoch: u64,
}

impl Named {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            pods: Mutex::default(),
            floor: AtomicU64::new(0),
            // Nothing can be said of it before its first pod is there.
            epoch: AtomicU64::new(1),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The UID that its newest pod belongs to.
    pub(super) fn uid(&self) -> Option<String> {
        self.pods.lock().last().map(|pod| pod.uid.clone())
    }

    /// The identity of its next pod, which may answer from now on.
    pub(super) fn next(&self, uid: &str) -> Identity {
        let mut pods = self.pods.lock();
        let identity = Identity {
            namespace: NAMESPACE.to_owned(),
            name: self.name.clone(),
            uid: uid.to_owned(),
            incarnation: pods.len() as u64,
        };
        pods.push(identity.clone());
        identity
    }

    /// None of the pods so far may answer a request that begins from now on.
    pub(super) fn outlived(&self) {
        let pods = self.pods.lock().len() as u64;
        self.floor.store(pods, Ordering::SeqCst);
    }

    /// Something begins to happen to it.
    pub(super) fn disturb(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// The router knows what happened, and its newest pod answers.
    pub(super) fn calm(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// To be called before a request is sent.
    pub(super) fn look(&self) -> Look {
        Look {
            floor: self.floor.load(Ordering::SeqCst),
            epoch: self.epoch.load(Ordering::SeqCst),
        }
    }

    /// Whether nothing happened to it since, so that a request must have succeeded.
    pub(super) fn was_left_alone(&self, since: Look) -> bool {
        since.epoch.is_multiple_of(2) && self.epoch.load(Ordering::SeqCst) == since.epoch
    }

    /// Whether this pod may answer a request that began then.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn judge(&self, since: Look, answered: &Identity) -> Result<(), String> {
        if answered.name != self.name || answered.namespace != NAMESPACE {
            return Err(format!(
                "{answered} answered for {}: the wrong sandbox",
                self.name
            ));
        }
        let known = usize::try_from(answered.incarnation)
            .ok()
            .and_then(|index| self.pods.lock().get(index).cloned());
        if known.as_ref() != Some(answered) {
            return Err(format!(
                "{answered} answered, a pod that never was: {known:?}"
            ));
        }
        if answered.incarnation < since.floor {
            return Err(format!(
                "{answered} answered, whose end the router knew before the request (the first that may is {})",
                since.floor
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_pods_may_answer_and_none_that_it_outlived() {
        let (one, other) = (Named::new("one".to_owned()), Named::new("other".to_owned()));
        let first = one.next("u1");
        let early = one.look();
        assert_eq!(one.judge(early, &first), Ok(()));
        let theirs = other.next("u2");
        assert!(
            one.judge(early, &theirs)
                .unwrap_err()
                .contains("wrong sandbox")
        );
        one.outlived();
        let second = one.next("u1");
        assert_eq!(one.judge(early, &first), Ok(()), "the request came before");
        assert_eq!(one.judge(one.look(), &second), Ok(()));
        assert!(one.judge(one.look(), &first).is_err());
        let forged = Identity {
            uid: "u3".to_owned(),
            ..second
        };
        assert!(one.judge(early, &forged).is_err());
    }

    #[test]
    fn a_request_must_succeed_only_if_nothing_happened_meanwhile() {
        let named = Named::new("one".to_owned());
        assert!(!named.was_left_alone(named.look()), "there is no pod yet");
        named.calm();
        let before = named.look();
        assert!(named.was_left_alone(before));
        named.disturb();
        assert!(!named.was_left_alone(before) && !named.was_left_alone(named.look()));
        named.calm();
        assert!(!named.was_left_alone(before) && named.was_left_alone(named.look()));
    }
}
