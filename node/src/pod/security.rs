//! Security contexts: which user a container runs as, what it keeps, and what cannot be granted.
//!
//! Pure. What a pod asks for and this node cannot give is an error where security or correctness
//! depend on it, and a note for the pod's events where it only adds comfort or depth.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, SecurityContext};

use crate::process::init::message::{RANGE, User};

/// Capabilities that a superuser inside a container has, as with container engines, except
/// creating devices and raw sockets, which no user namespace grants.
const DEFAULT_CAPABILITIES: [(&str, u32); 12] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("SYS_CHROOT", 18),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];

/// What a container is started as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: User,
    /// Capability numbers that a superuser keeps.
    pub(crate) capabilities: Vec<u32>,
    pub(crate) read_only_root: bool,
}

/// A security context that cannot be honoured. Shown as the container's waiting message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecurityError {
    #[error(
        "securityContext.privileged is not possible on this node: containers are unprivileged processes"
    )]
    Privileged,
    #[error("container has runAsNonRoot and image will run as root (container: {container})")]
    Root { container: String },
    #[error("securityContext.{field} {value} is out of range: expected 0 to {max}", max = RANGE - 1)]
    Range { field: &'static str, value: i64 },
    #[error("capability {name} cannot be added on this node")]
    Capability { name: String },
    #[error("{field} is not possible on this node: pods have their own namespaces or none")]
    HostNamespace { field: &'static str },
}

/// Determines the identity of `container`, whose image runs as `image_user` by default.
pub(crate) fn identity(
    spec: &PodSpec,
    container: &Container,
    image_user: (u32, u32),
) -> Result<Identity, SecurityError> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    refuse_impossible(spec, &own)?;
    let (default_user, default_group) = image_user;
    let uid = match own.run_as_user.or(pod.run_as_user) {
        Some(uid) => checked("runAsUser", uid)?,
        None => default_user,
    };
    let gid = match own.run_as_group.or(pod.run_as_group) {
        Some(gid) => checked("runAsGroup", gid)?,
        // A group that belongs to another user of the image means nothing.
        None if uid == default_user => default_group,
        None => 0,
    };
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) && uid == 0 {
        return Err(SecurityError::Root {
            container: container.name.clone(),
        });
    }
    Ok(Identity {
        user: User {
            uid,
            gid,
            groups: groups(&pod)?,
        },
        capabilities: if uid == 0 {
            capabilities(&own)?
        } else {
            // Checked all the same, so that an impossible wish is not overlooked.
            capabilities(&own).map(|_| Vec::new())?
        },
        read_only_root: own.read_only_root_filesystem == Some(true),
    })
}

fn refuse_impossible(spec: &PodSpec, own: &SecurityContext) -> Result<(), SecurityError> {
    if own.privileged == Some(true) {
        return Err(SecurityError::Privileged);
    }
    for (field, wanted) in [("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)] {
        if wanted == Some(true) {
            return Err(SecurityError::HostNamespace { field });
        }
    }
    Ok(())
}

/// The file system group of a pod, within range.
pub(crate) fn fs_group(spec: &PodSpec) -> Option<u32> {
    let group = spec.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok().filter(|group| *group < RANGE)
}

fn groups(pod: &PodSecurityContext) -> Result<Vec<u32>, SecurityError> {
    let supplemental = pod.supplemental_groups.iter().flatten();
    let supplemental = supplemental.map(|group| checked("supplementalGroups", *group));
    let fs_group = pod.fs_group.iter().map(|group| checked("fsGroup", *group));
    supplemental.chain(fs_group).collect()
}

fn checked(field: &'static str, value: i64) -> Result<u32, SecurityError> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id < RANGE)
        .ok_or(SecurityError::Range { field, value })
}

fn capabilities(own: &SecurityContext) -> Result<Vec<u32>, SecurityError> {
    let normal = |name: &String| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    let wish = own.capabilities.clone().unwrap_or_default();
    let dropped: Vec<String> = wish.drop.iter().flatten().map(normal).collect();
    let added: Vec<String> = wish.add.iter().flatten().map(normal).collect();
    let known = |name: &str| DEFAULT_CAPABILITIES.iter().any(|(known, _)| *known == name);
    if let Some(name) = added.iter().find(|name| !known(name)) {
        return Err(SecurityError::Capability { name: name.clone() });
    }
    let drops_all = dropped.iter().any(|name| name == "ALL");
    let kept = DEFAULT_CAPABILITIES.iter().filter(|(name, _)| {
        let own = |list: &[String]| list.iter().any(|entry| entry == name);
        own(&added) || !(drops_all || own(&dropped))
    });
    Ok(kept.map(|(_, number)| *number).collect())
}

/// Wishes that are accepted but have no effect here, each as a phrase.
pub(crate) fn without_effect(spec: &PodSpec) -> Vec<String> {
    let security = spec.security_context.clone().unwrap_or_default();
    let runtime_class = spec.runtime_class_name.as_deref().unwrap_or_default();
    let mut notes = Vec::new();
    let mut note = |present: bool, text: &str| notes.extend(present.then(|| text.to_owned()));
    let class = format!("runtimeClassName {runtime_class}");
    note(!runtime_class.is_empty(), &class);
    let shared = spec.share_process_namespace == Some(true);
    note(shared, "shareProcessNamespace");
    let own_dns = spec.dns_policy.as_deref() == Some("None");
    note(spec.dns_config.is_some() && !own_dns, "dnsConfig");
    note(is_given(security.sysctls.as_ref()), "sysctls");
    note(security.se_linux_options.is_some(), "seLinuxOptions");
    let ephemeral = is_given(spec.ephemeral_containers.as_ref());
    note(ephemeral, "ephemeralContainers");
    note(is_given(spec.resource_claims.as_ref()), "resourceClaims");
    for volume in spec.volumes.iter().flatten() {
        let Some(empty) = &volume.empty_dir else {
            continue;
        };
        let named = |field: &str| format!("emptyDir.{field} of volume {}", volume.name);
        let memory = empty.medium.as_deref() == Some("Memory");
        note(memory, &named("medium"));
        note(empty.size_limit.is_some(), &named("sizeLimit"));
    }
    let containers = spec.init_containers.iter().flatten();
    for container in containers.chain(&spec.containers) {
        notes.extend(without_effect_in(container, &security));
    }
    notes
}

fn without_effect_in(container: &Container, pod: &PodSecurityContext) -> Vec<String> {
    let own = container.security_context.clone().unwrap_or_default();
    let custom = |kind: &str| !matches!(kind, "RuntimeDefault" | "Unconfined");
    let seccomp = own.seccomp_profile.or_else(|| pod.seccomp_profile.clone());
    let apparmor = own
        .app_armor_profile
        .or_else(|| pod.app_armor_profile.clone());
    let mut ports = container.ports.iter().flatten();
    [
        (
            seccomp.is_some_and(|profile| custom(&profile.type_)),
            "seccompProfile",
        ),
        (
            apparmor.is_some_and(|profile| custom(&profile.type_)),
            "appArmorProfile",
        ),
        (
            ports.any(|port| port.host_port.is_some_and(|number| number > 0)),
            "hostPort",
        ),
        (is_given(container.volume_devices.as_ref()), "volumeDevices"),
        (
            is_given(container.restart_policy_rules.as_ref()),
            "restartPolicyRules",
        ),
        (container.tty == Some(true), "tty"),
        (container.stdin == Some(true), "stdin"),
    ]
    .into_iter()
    .filter(|(present, _)| *present)
    .map(|(_, field)| format!("{field} of container {}", container.name))
    .collect()
}

fn is_given<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judge(pod: &Value, container: &Value) -> Result<Identity, SecurityError> {
        let spec = serde_json::from_value(json!({
            "securityContext": pod,
            "containers": [{"name": "c", "securityContext": container}],
        }));
        let spec: PodSpec = spec.unwrap();
        identity(&spec, &spec.containers[0], (1000, 2000))
    }

    #[test]
    fn the_container_overrides_the_pod_and_the_pod_the_image() {
        for (pod, container, uid, gid) in [
            (json!({}), json!({}), 1000, 2000),
            (json!({"runAsUser": 5}), json!({}), 5, 0),
            (
                json!({"runAsUser": 5, "runAsGroup": 6}),
                json!({"runAsUser": 7}),
                7,
                6,
            ),
            (json!({"runAsGroup": 6}), json!({"runAsGroup": 8}), 1000, 8),
        ] {
            let user = judge(&pod, &container).unwrap().user;
            assert_eq!((user.uid, user.gid), (uid, gid));
        }
        let pod = json!({"fsGroup": 9, "supplementalGroups": [3, 4]});
        assert_eq!(judge(&pod, &json!({})).unwrap().user.groups, [3, 4, 9]);
    }

    #[test]
    fn what_cannot_be_granted_is_refused() {
        for (pod, container, expected) in [
            (json!({}), json!({"privileged": true}), "privileged"),
            (
                json!({"runAsNonRoot": true}),
                json!({"runAsUser": 0}),
                "runAsNonRoot",
            ),
            (json!({"runAsUser": 70_000}), json!({}), "runAsUser 70000"),
            (json!({"fsGroup": -1}), json!({}), "fsGroup -1"),
            (
                json!({}),
                json!({"capabilities": {"add": ["NET_ADMIN"]}}),
                "NET_ADMIN",
            ),
        ] {
            let error = judge(&pod, &container).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let spec: PodSpec =
            serde_json::from_value(json!({"hostPID": true, "containers": [{"name": "c"}]}))
                .unwrap();
        let error = identity(&spec, &spec.containers[0], (0, 0)).unwrap_err();
        assert!(error.to_string().contains("hostPID"));
    }

    #[test]
    fn capabilities_are_for_superusers_and_can_be_dropped() {
        let of = |uid: u32, capabilities: Value| {
            let context = json!({"runAsUser": uid, "capabilities": capabilities});
            judge(&json!({}), &context).unwrap().capabilities
        };
        assert_eq!(of(1, json!({})), Vec::<u32>::new());
        assert_eq!(of(0, json!({})).len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(of(0, json!({"drop": ["ALL"]})), Vec::<u32>::new());
        assert_eq!(of(0, json!({"drop": ["ALL"], "add": ["cap_chown"]})), [0]);
        assert!(!of(0, json!({"drop": ["KILL"]})).contains(&5));
    }

    #[test]
    fn wishes_without_effect_are_listed() {
        let spec: PodSpec = serde_json::from_value(json!({
            "runtimeClassName": "gvisor",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
            "containers": [
                {"name": "a", "ports": [{"containerPort": 1, "hostPort": 1}], "tty": true},
                {"name": "b", "securityContext": {"seccompProfile": {"type": "Localhost"}}},
            ],
        }))
        .unwrap();
        assert_eq!(
            without_effect(&spec),
            [
                "runtimeClassName gvisor",
                "emptyDir.medium of volume v",
                "emptyDir.sizeLimit of volume v",
                "hostPort of container a",
                "tty of container a",
                "seccompProfile of container b",
            ]
        );
        let plain = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
        assert_eq!(without_effect(&plain), Vec::<String>::new());
    }
}
