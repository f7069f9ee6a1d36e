//! What exists without a CRD: one row per resource.
//!
//! The values are those of Kubernetes' own registry: names and categories as its discovery documents
//! show them, update rules and selectable fields as its strategies have them.

use super::{Scope, Verb};

/// One resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) categories: &'static [&'static str],
    pub(super) scope: Scope,
    pub(super) verbs: &'static [Verb],
    pub(super) subresources: &'static [Sub],
    /// Fields for field selectors: `label=path|path?absent`, of which only one path must be there.
    pub(super) fields: &'static [&'static str],
    /// Text of the warning that using the resource earns.
    pub(super) warning: Option<&'static str>,
    pub(super) rules: Rules,
    pub(super) stored_as: Option<(&'static str, &'static str)>,
}

/// A set of rules by which a resource differs from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules(u8);

impl Rules {
    /// `metadata.generation` is maintained.
    pub(super) const GENERATION: Self = Self(1);
    /// A PUT to a name that does not exist creates it.
    pub(super) const CREATE_ON_UPDATE: Self = Self(1 << 1);
    /// A PUT must carry the resourceVersion it is based on.
    pub(super) const NEEDS_VERSION: Self = Self(1 << 2);
    /// An immediate DELETE answers with the object.
    pub(super) const RETURNS_DELETED: Self = Self(1 << 3);

    const fn and(self, rule: Self) -> Self {
        Self(self.0 | rule.0)
    }

    /// Whether `rule` is in the set.
    pub(super) const fn has(self, rule: Self) -> bool {
        self.0 & rule.0 != 0
    }
}

/// A subresource.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sub {
    Status,
    Scale,
    Finalize,
    EphemeralContainers,
    Resize,
    Binding,
    Eviction,
    Token,
    Log,
    /// A stream to the node: path segment and the kind of its options.
    Connect(&'static str, &'static str),
}

/// Verbs of namespaces, which cannot be deleted by the dozen.
const ALL_BUT_DELETE_COLLECTION: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

impl Row {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        scope: Scope,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            short: &[],
            categories: &[],
            scope,
            verbs: &Verb::ALL,
            subresources: &[],
            fields: &[],
            warning: None,
            rules: Rules(0),
            stored_as: None,
        }
    }

    const fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self::new(group, version, kind, plural, Scope::Namespaced)
    }

    const fn cluster(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self::new(group, version, kind, plural, Scope::Cluster)
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    /// Part of `kubectl get all`.
    const fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn subs(mut self, subresources: &'static [Sub]) -> Self {
        self.subresources = subresources;
        self
    }

    const fn fields(mut self, fields: &'static [&'static str]) -> Self {
        self.fields = fields;
        self
    }

    const fn generation(mut self) -> Self {
        self.rules = self.rules.and(Rules::GENERATION);
        self
    }

    const fn create_on_update(mut self) -> Self {
        self.rules = self.rules.and(Rules::CREATE_ON_UPDATE);
        self
    }

    const fn needs_version(mut self) -> Self {
        self.rules = self.rules.and(Rules::NEEDS_VERSION);
        self
    }

    const fn returns_deleted(mut self) -> Self {
        self.rules = self.rules.and(Rules::RETURNS_DELETED);
        self
    }

    /// A question that is answered and not stored.
    const fn answered(mut self) -> Self {
        self.verbs = &[Verb::Create];
        self
    }
}

const APPS: &str = "apps";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Every built-in resource, in the order discovery shows them.
pub(super) const ROWS: &[Row] = &[
    Row::namespaced("", "v1", "Binding", "bindings").answered(),
    Row::namespaced("", "v1", "ConfigMap", "configmaps").short(&["cm"]),
    Row {
        warning: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ..Row::namespaced("", "v1", "Endpoints", "endpoints").short(&["ep"]).create_on_update()
    },
    Row::namespaced("", "v1", "Event", "events").short(&["ev"]).create_on_update().fields(&[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source=source.component|reportingComponent",
        "type",
    ]),
    Row {
        verbs: ALL_BUT_DELETE_COLLECTION,
        ..Row::cluster("", "v1", "Namespace", "namespaces")
            .short(&["ns"])
            .subs(&[Sub::Finalize, Sub::Status])
            .fields(&["status.phase"])
            .returns_deleted()
    },
    Row::cluster("", "v1", "Node", "nodes")
        .short(&["no"])
        .subs(&[Sub::Status])
        .fields(&["spec.unschedulable?false"]),
    Row::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .subs(&[Sub::Status])
        .returns_deleted(),
    Row::cluster("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .subs(&[Sub::Status])
        .returns_deleted(),
    Row::namespaced("", "v1", "Pod", "pods")
        .short(&["po"])
        .in_all()
        .generation()
        .returns_deleted()
        .subs(&[
            Sub::Connect("attach", "PodAttachOptions"),
            Sub::Binding,
            Sub::EphemeralContainers,
            Sub::Eviction,
            Sub::Connect("exec", "PodExecOptions"),
            Sub::Log,
            Sub::Connect("portforward", "PodPortForwardOptions"),
            Sub::Resize,
            Sub::Status,
        ])
        .fields(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork?false",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]),
    Row::namespaced("", "v1", "PodTemplate", "podtemplates").generation().returns_deleted(),
    Row::namespaced("", "v1", "Secret", "secrets").fields(&["type"]),
    Row::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .subs(&[Sub::Token])
        .returns_deleted(),
    Row::namespaced("", "v1", "Service", "services")
        .short(&["svc"])
        .in_all()
        .subs(&[Sub::Status])
        .create_on_update()
        .returns_deleted()
        .fields(&["spec.clusterIP", "spec.type"]),
    Row::namespaced(APPS, "v1", "ControllerRevision", "controllerrevisions"),
    Row::namespaced(APPS, "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .in_all()
        .generation()
        .subs(&[Sub::Status]),
    Row::namespaced(APPS, "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .in_all()
        .generation()
        .subs(&[Sub::Scale, Sub::Status]),
    Row::namespaced(APPS, "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .in_all()
        .generation()
        .subs(&[Sub::Scale, Sub::Status]),
    Row::namespaced(APPS, "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .in_all()
        .generation()
        .subs(&[Sub::Scale, Sub::Status]),
    Row {
        stored_as: Some(("", "events")),
        ..Row::namespaced("events.k8s.io", "v1", "Event", "events")
            .short(&["ev"])
            .create_on_update()
            .fields(&[
                "regarding.kind=regarding.kind|involvedObject.kind",
                "regarding.namespace=regarding.namespace|involvedObject.namespace",
                "regarding.name=regarding.name|involvedObject.name",
                "regarding.uid=regarding.uid|involvedObject.uid",
                "regarding.apiVersion=regarding.apiVersion|involvedObject.apiVersion",
                "regarding.resourceVersion=regarding.resourceVersion|involvedObject.resourceVersion",
                "regarding.fieldPath=regarding.fieldPath|involvedObject.fieldPath",
                "reason",
                "reportingController=reportingController|reportingComponent",
                "type",
            ])
    },
    Row::cluster(AUTHENTICATION, "v1", "SelfSubjectReview", "selfsubjectreviews").answered(),
    Row::cluster(AUTHENTICATION, "v1", "TokenReview", "tokenreviews").answered(),
    Row::namespaced(AUTHORIZATION, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews")
        .answered(),
    Row::cluster(AUTHORIZATION, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
        .answered(),
    Row::cluster(AUTHORIZATION, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews")
        .answered(),
    Row::cluster(AUTHORIZATION, "v1", "SubjectAccessReview", "subjectaccessreviews").answered(),
    Row::namespaced("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .in_all()
        .subs(&[Sub::Status]),
    Row::namespaced("batch", "v1", "CronJob", "cronjobs")
        .short(&["cj"])
        .in_all()
        .generation()
        .subs(&[Sub::Status]),
    Row::namespaced("batch", "v1", "Job", "jobs")
        .in_all()
        .generation()
        .subs(&[Sub::Status])
        .fields(&["status.successful=status.succeeded?0"]),
    Row::namespaced(NETWORKING, "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .generation()
        .subs(&[Sub::Status]),
    Row::cluster(NETWORKING, "v1", "IngressClass", "ingressclasses").generation(),
    Row::namespaced(NETWORKING, "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .generation(),
    Row::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .generation()
        .needs_version()
        .subs(&[Sub::Status]),
    Row::cluster(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings").create_on_update(),
    Row::cluster(RBAC, "v1", "ClusterRole", "clusterroles").create_on_update(),
    Row::namespaced(RBAC, "v1", "RoleBinding", "rolebindings").create_on_update(),
    Row::namespaced(RBAC, "v1", "Role", "roles").create_on_update(),
    Row::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .returns_deleted(),
    Row {
        categories: &["api-extensions"],
        ..Row::cluster(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
        .short(&["crd", "crds"])
        .generation()
        .needs_version()
        .subs(&[Sub::Status])
    },
    Row::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .generation(),
    Row::namespaced("coordination.k8s.io", "v1", "Lease", "leases")
        .create_on_update()
        .needs_version(),
    Row::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .create_on_update()
        .needs_version(),
    Row::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").generation(),
];
