//! The requests that calls are made of: paths, queries, headers.
//!
//! Pure; [`Api`](super::Api) sends them.

use http::{Method, Request, header};
use kube::client::Body;

use super::error::unreadable;
use super::{Resource, Result};
use crate::ident::Key;

pub(super) fn object_path(resource: &Resource, key: &Key) -> String {
    let namespace = Some(&*key.namespace).filter(|namespace| !namespace.is_empty());
    format!("{}/{}", resource.path(namespace), key.name)
}

pub(super) fn push_query(path: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        path.push('&');
        path.push_str(name);
        path.push('=');
        path.push_str(&encoded);
    }
}

pub(super) fn request(
    method: Method,
    path: &str,
    content_type: Option<&'static str>,
    body: Vec<u8>,
) -> Result<Request<Body>> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json");
    if let Some(content_type) = content_type {
        builder = builder.header(header::CONTENT_TYPE, content_type);
    }
    builder.body(Body::from(body)).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let mut path = "/x?limit=1".to_owned();
        push_query(&mut path, "labelSelector", Some("a=b,c"));
        push_query(&mut path, "continue", None);
        assert_eq!(path, "/x?limit=1&labelSelector=a%3Db%2Cc");
    }
}
