//! The `paths` of a document: which operations a resource has, and their parameters.
//!
//! `kubectl` decides by the parameters of the PATCH operation whether it may ask for server-side
//! validation and dry runs, and finds the kind of a resource by the extensions of its operations.

use serde_json::{Map, Value, json};

use super::definitions::{Definitions, list_name, reference};
use crate::registry::builtin::schemas;
use crate::registry::{Descriptor, Origin, Subresource, Verb, Version};

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Adds the paths of a resource whose schema is called `schema`.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    descriptor: &Descriptor,
    version: &Version,
    schema: &str,
    definitions: &mut Definitions,
) {
    definitions.add(DELETE_OPTIONS);
    definitions.add(STATUS);
    let root = if descriptor.group.is_empty() {
        format!("/api/{}", version.name)
    } else {
        format!("/apis/{}/{}", descriptor.group, version.name)
    };
    let collection = if descriptor.is_namespaced() {
        format!("{root}/namespaces/{{namespace}}/{}", descriptor.plural)
    } else {
        format!("{root}/{}", descriptor.plural)
    };
    let resource = Resource {
        descriptor,
        version,
        schema,
    };

    let namespace = descriptor
        .is_namespaced()
        .then(|| path_parameter("namespace"));
    if descriptor.is_namespaced() && descriptor.allows(Verb::List) {
        let everywhere = resource.item(&[Verb::List], None, Vec::new());
        paths.insert(format!("{root}/{}", descriptor.plural), everywhere);
    }
    let verbs = [Verb::List, Verb::Create, Verb::DeleteCollection];
    let parameters: Vec<Value> = namespace.iter().cloned().collect();
    paths.insert(
        collection.clone(),
        resource.item(&verbs, None, parameters.clone()),
    );

    let one = format!("{collection}/{{name}}");
    let parameters: Vec<Value> = parameters
        .into_iter()
        .chain([path_parameter("name")])
        .collect();
    if descriptor.allows(Verb::Get) {
        let verbs = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
        paths.insert(one.clone(), resource.item(&verbs, None, parameters.clone()));
    }
    for subresource in &version.subresources {
        if let Some((group, version, kind)) = &subresource.body {
            definitions.add(&schemas::definition_name(group, version, kind));
        }
        let item = resource.item(&subresource.verbs, Some(subresource), parameters.clone());
        paths.insert(format!("{one}/{}", subresource.name), item);
    }
}

struct Resource<'a> {
    descriptor: &'a Descriptor,
    version: &'a Version,
    schema: &'a str,
}

impl Resource<'_> {
    /// One path with those of `verbs` that it answers.
    fn item(
        &self,
        verbs: &[Verb],
        subresource: Option<&Subresource>,
        parameters: Vec<Value>,
    ) -> Value {
        let mut item = Map::new();
        let answered = match subresource {
            Some(subresource) => &subresource.verbs,
            None => &self.descriptor.verbs,
        };
        for verb in verbs.iter().copied().filter(|verb| answered.contains(verb)) {
            item.insert(method(verb).to_owned(), self.operation(verb, subresource));
        }
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), parameters.into());
        }
        Value::Object(item)
    }

    fn operation(&self, verb: Verb, subresource: Option<&Subresource>) -> Value {
        let own = (
            self.descriptor.group.as_str(),
            self.version.name.as_str(),
            self.descriptor.kind.as_str(),
        );
        let body = subresource.and_then(|sub| sub.body.as_ref());
        let (group, version, kind) = body.map_or(own, |(group, version, kind)| {
            (group.as_str(), version.as_str(), kind.as_str())
        });
        let schema = match body {
            // Options of streams are query parameters and have no schema.
            Some((group, version, kind)) => {
                let name = schemas::definition_name(group, version, kind);
                if schemas::text(&name).is_some() {
                    reference(&name)
                } else {
                    json!({ "type": "string" })
                }
            }
            None => reference(self.schema),
        };
        let (request, answer) = match verb {
            Verb::List => (None, reference(&list_name(self.schema, self.descriptor))),
            Verb::Create | Verb::Update => (Some(("application/json", schema.clone())), schema),
            Verb::Patch => (Some(("", json!({ "type": "object" }))), schema),
            Verb::Delete | Verb::DeleteCollection => (
                Some(("application/json", reference(DELETE_OPTIONS))),
                reference(STATUS),
            ),
            Verb::Get | Verb::Watch => (None, schema),
        };
        let mut operation = json!({
            "operationId": operation_id(verb, self.descriptor, version, subresource),
            "parameters": query_parameters(verb),
            "responses": {
                "200": { "description": "OK", "content": { "application/json": { "schema": answer } } },
            },
            "x-kubernetes-action": action(verb, subresource),
            "x-kubernetes-group-version-kind":
                { "group": group, "version": version, "kind": kind },
        });
        if let (Some((media, schema)), Some(operation)) = (request, operation.as_object_mut()) {
            let content: Map<String, Value> = if media.is_empty() {
                self.patch_types(subresource)
                    .map(|media| ((*media).to_owned(), json!({ "schema": schema })))
                    .collect()
            } else {
                Map::from_iter([(media.to_owned(), json!({ "schema": schema }))])
            };
            operation.insert("requestBody".to_owned(), json!({ "content": content }));
        }
        operation
    }

    /// kubectl reads here whether it may send strategic merge patches; custom kinds take none.
    fn patch_types(
        &self,
        subresource: Option<&Subresource>,
    ) -> impl Iterator<Item = &'static &'static str> {
        let strategic = self.descriptor.origin == Origin::BuiltIn
            || subresource.is_some_and(|subresource| subresource.body.is_some());
        PATCH_TYPES
            .iter()
            .filter(move |media| strategic || !media.contains("strategic"))
    }
}

const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Get | Verb::List | Verb::Watch => "get",
        Verb::Create => "post",
        Verb::Update => "put",
        Verb::Patch => "patch",
        Verb::Delete | Verb::DeleteCollection => "delete",
    }
}

fn action(verb: Verb, subresource: Option<&Subresource>) -> &'static str {
    match verb {
        Verb::Create if subresource.is_some_and(|sub| sub.verbs.contains(&Verb::Get)) => "connect",
        Verb::Get if subresource.is_some_and(|sub| sub.verbs.contains(&Verb::Create)) => "connect",
        Verb::Create => "post",
        Verb::Update => "put",
        other => other.as_str(),
    }
}

/// `patchAppsV1NamespacedDeploymentStatus`: unique in a document.
fn operation_id(
    verb: Verb,
    descriptor: &Descriptor,
    version: &str,
    subresource: Option<&Subresource>,
) -> String {
    let verb = match verb {
        Verb::Get => "read",
        Verb::Update => "replace",
        Verb::DeleteCollection => "deleteCollection",
        other => other.as_str(),
    };
    let group: String = descriptor
        .group
        .split(['.', '-'])
        .map(capitalised)
        .collect();
    let group = if group.is_empty() {
        "Core".to_owned()
    } else {
        group
    };
    let scope = if descriptor.is_namespaced() {
        "Namespaced"
    } else {
        ""
    };
    let part = subresource
        .map(|sub| capitalised(&sub.name))
        .unwrap_or_default();
    format!(
        "{verb}{group}{}{scope}{}{part}",
        capitalised(version),
        descriptor.kind
    )
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
}

/// A query parameter: name, type, meaning.
type Parameter = (&'static str, &'static str, &'static str);

const WRITE: &[Parameter] = &[
    (
        "dryRun",
        "string",
        "`All` runs the request without storing its result.",
    ),
    (
        "fieldManager",
        "string",
        "Who makes the change; owns the fields it sets.",
    ),
    (
        "fieldValidation",
        "string",
        "What unknown and duplicate fields lead to: `Ignore`, `Warn` or `Strict`.",
    ),
];
const FORCE: &[Parameter] = &[(
    "force",
    "boolean",
    "Takes over fields that other managers own; for apply only.",
)];
const SELECT: &[Parameter] = &[
    ("labelSelector", "string", "Restricts by labels."),
    ("fieldSelector", "string", "Restricts by fields."),
    (
        "limit",
        "integer",
        "How many objects an answer holds at most.",
    ),
    (
        "continue",
        "string",
        "The token of an answer that was limited.",
    ),
    ("resourceVersion", "string", "The version to read from."),
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion is meant.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "How long a watch lasts at most.",
    ),
];
const WATCH: &[Parameter] = &[
    (
        "watch",
        "boolean",
        "Streams changes instead of answering with a list.",
    ),
    (
        "allowWatchBookmarks",
        "boolean",
        "Bookmarks tell the version a watch has reached.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Starts a watch with the present state.",
    ),
];
const DELETE: &[Parameter] = &[
    (
        "dryRun",
        "string",
        "`All` runs the request without storing its result.",
    ),
    (
        "gracePeriodSeconds",
        "integer",
        "How long the object may take to end.",
    ),
    (
        "propagationPolicy",
        "string",
        "`Orphan`, `Background` or `Foreground`.",
    ),
];

fn query_parameters(verb: Verb) -> Value {
    let lists: &[&[Parameter]] = match verb {
        Verb::Get => &[],
        Verb::List | Verb::Watch => &[SELECT, WATCH],
        Verb::Create | Verb::Update => &[WRITE],
        Verb::Patch => &[WRITE, FORCE],
        Verb::Delete => &[DELETE],
        Verb::DeleteCollection => &[DELETE, SELECT],
    };
    lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|(name, r#type, description)| {
            json!({
                "name": name,
                "in": "query",
                "description": description,
                "schema": { "type": r#type, "uniqueItems": true },
            })
        })
        .collect()
}
