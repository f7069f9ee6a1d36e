//! What a request asks for: path and query to a typed [`Route`].

use form_urlencoded::parse;
use percent_encoding::percent_decode_str;

/// The target of a request's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/healthz`, `/livez`, `/readyz`
    Health,
    /// `/version`
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(String),
    /// `/api/{version}` or `/apis/{group}/{version}`
    Resources {
        /// API group, empty for the core group.
        group: String,
        /// API version.
        version: String,
    },
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/{path}`
    OpenApi(String),
    /// A resource or one of its objects.
    Resource(ResourcePath),
    /// Anything else.
    Unknown,
}

/// A path to a collection, an object or a subresource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// Namespace from the path; empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Object; empty for a collection.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Whether the deprecated `/watch/` prefix asks for a watch.
    pub watch: bool,
}

impl Route {
    /// Parses a request path.
    pub fn parse(path: &str) -> Self {
        let Some(segments) = segments(path) else {
            return Self::Unknown;
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["version"] => Self::Version,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::resources("", version),
            ["apis", group, version] => Self::resources(group, version),
            ["openapi", "v3"] => Self::OpenApiIndex,
            ["openapi", "v3", rest @ ..] => Self::OpenApi(rest.join("/")),
            ["api", version, rest @ ..] => Self::resource("", version, rest),
            ["apis", group, version, rest @ ..] => Self::resource(group, version, rest),
            _ => Self::Unknown,
        }
    }

    fn resources(group: &str, version: &str) -> Self {
        Self::Resources {
            group: group.to_owned(),
            version: version.to_owned(),
        }
    }

    fn resource(group: &str, version: &str, rest: &[&str]) -> Self {
        let (watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let path = |resource: &str, namespace: &str, name: &str, subresource: &str| {
            Self::Resource(ResourcePath {
                group: group.to_owned(),
                version: version.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                subresource: subresource.to_owned(),
                watch,
            })
        };
        match rest {
            // Subresources of a namespace look like resources in it.
            ["namespaces", name, sub @ ("status" | "finalize")] => {
                path("namespaces", "", name, sub)
            }
            ["namespaces", namespace, resource] => path(resource, namespace, "", ""),
            ["namespaces", namespace, resource, name] => path(resource, namespace, name, ""),
            ["namespaces", namespace, resource, name, sub @ ..] => {
                path(resource, namespace, name, &sub.join("/"))
            }
            [resource] => path(resource, "", "", ""),
            [resource, name] => path(resource, "", name, ""),
            [resource, name, sub @ ..] => path(resource, "", name, &sub.join("/")),
            [] => Self::Unknown,
        }
    }
}

/// The decoded segments of a path, without a trailing slash; `None` for what no path should hold.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| {
            let decoded = percent_decode_str(segment).decode_utf8().ok()?;
            let usable = !decoded.is_empty() && !matches!(&*decoded, "." | "..");
            usable.then(|| decoded.into_owned())
        })
        .collect()
}

/// The parameters of a query string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query string.
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = parse(query.unwrap_or("").as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The first value of a parameter that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter().filter(|(key, _)| key == name);
        pairs
            .find(|(_, value)| !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A boolean the way Go's form decoding reads it; a bare parameter is true.
    pub fn flag(&self, name: &str) -> bool {
        let value = self.all(name).next();
        value.is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// A boolean that makes a difference between absent and false.
    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.all(name).next().map(|_| self.flag(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        match Route::parse(path) {
            Route::Resource(found) => found,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn the_two_path_shapes() {
        let pod = resource("/api/v1/namespaces/ns/pods/p/status");
        assert_eq!(
            (
                pod.group.as_str(),
                pod.version.as_str(),
                pod.resource.as_str()
            ),
            ("", "v1", "pods")
        );
        assert_eq!(
            (
                pod.namespace.as_str(),
                pod.name.as_str(),
                pod.subresource.as_str()
            ),
            ("ns", "p", "status")
        );
        let crd = resource("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/a.b");
        assert_eq!(
            (crd.group.as_str(), crd.name.as_str()),
            ("apiextensions.k8s.io", "a.b")
        );
        let all = resource("/apis/g/v1/things");
        assert_eq!((all.namespace.as_str(), all.name.as_str()), ("", ""));
        let watch = resource("/api/v1/watch/namespaces/ns/pods/p");
        assert!(watch.watch && watch.name == "p" && watch.resource == "pods");
        assert_eq!(
            resource("/api/v1/namespaces/ns/pods/p/proxy/a/b").subresource,
            "proxy/a/b"
        );
    }

    #[test]
    fn namespaces_are_objects_and_prefixes() {
        assert_eq!(resource("/api/v1/namespaces").resource, "namespaces");
        let one = resource("/api/v1/namespaces/ns");
        assert_eq!(
            (one.resource.as_str(), one.name.as_str()),
            ("namespaces", "ns")
        );
        let finalize = resource("/api/v1/namespaces/ns/finalize");
        assert_eq!(
            (finalize.name.as_str(), finalize.subresource.as_str()),
            ("ns", "finalize")
        );
        let status = resource("/api/v1/namespaces/ns/pods/status");
        assert_eq!(
            (status.resource.as_str(), status.name.as_str()),
            ("pods", "status")
        );
    }

    #[test]
    fn discovery_and_health() {
        assert_eq!(Route::parse("/api"), Route::CoreVersions);
        assert_eq!(Route::parse("/apis/"), Route::Groups);
        assert_eq!(Route::parse("/apis/g"), Route::Group("g".to_owned()));
        assert_eq!(Route::parse("/api/v1"), Route::resources("", "v1"));
        assert_eq!(Route::parse("/apis/g/v2"), Route::resources("g", "v2"));
        assert_eq!(
            Route::parse("/openapi/v3/apis/g/v1"),
            Route::OpenApi("apis/g/v1".to_owned())
        );
        assert_eq!(Route::parse("/livez/ping"), Route::Health);
    }

    #[test]
    fn odd_paths_lead_nowhere() {
        for path in [
            "",
            "/",
            "//",
            "/api//v1",
            "/api/v1/../x",
            "/api/v1/%2e%2e/x",
            "/api/v1/%ff",
        ] {
            assert_eq!(Route::parse(path), Route::Unknown, "{path}");
        }
        assert_eq!(resource("/api/v1/nodes/a%2Fb").name, "a/b");
    }

    #[test]
    fn query_flags_follow_form_decoding() {
        let query = Query::parse(Some("watch&a=false&b=1&c=&d=x%20y&d=z"));
        assert!(query.flag("watch") && !query.flag("a") && query.flag("b") && !query.flag("none"));
        assert_eq!(query.get("c"), None);
        assert_eq!(query.get("d"), Some("x y"));
        assert_eq!(query.all("d").count(), 2);
        assert_eq!(query.optional_flag("a"), Some(false));
        assert_eq!(query.optional_flag("none"), None);
    }
}
