//! The notation of sandboxes that are given instead of watched: `NAMESPACE/NAME=IP`, separated by
//! commas.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::HeaderValue;

use super::ArgsError;
use crate::resolve::fixed::Fixed;
use crate::target::{AddressClass, Namespace, SandboxName};

const FLAG: &str = "static-sandboxes";

/// The sandboxes of the flag; `None` if it is empty.
pub(super) fn parse(text: &str) -> Result<Option<Fixed>, ArgsError> {
    let refused = |entry: &str, problem: &str| {
        ArgsError::value(
            FLAG,
            format!("{entry:?}: {problem}; expected NAMESPACE/NAME=IP, separated by commas"),
        )
    };
    let mut known = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (sandbox, address) = entry
            .split_once('=')
            .ok_or_else(|| refused(entry, "has no ="))?;
        let (namespace, name) = sandbox
            .split_once('/')
            .ok_or_else(|| refused(entry, "has no /"))?;
        let value = |text: &str| HeaderValue::from_str(text).ok();
        if value(namespace)
            .and_then(|it| Namespace::parse(&it))
            .is_none()
        {
            return Err(refused(entry, "the namespace is no DNS label"));
        }
        if value(name).and_then(|it| SandboxName::parse(&it)).is_none() {
            return Err(refused(entry, "the name is no DNS name"));
        }
        let address = address
            .parse::<IpAddr>()
            .map_err(|_| refused(entry, "the address is no IP address"))?
            .to_canonical();
        if AddressClass::of(address) == AddressClass::Forbidden {
            return Err(refused(entry, "no sandbox has such an address"));
        }
        if known.insert((namespace, name), address).is_some() {
            return Err(refused(entry, "is given twice"));
        }
    }
    if known.is_empty() {
        return Ok(None);
    }
    let all = known.into_iter();
    Ok(Some(all.fold(
        Fixed::new(),
        |fixed, ((namespace, name), address)| fixed.sandbox(namespace, name, address),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_are_a_list_of_names_and_addresses() {
        assert!(parse("").unwrap().is_none());
        let table = parse("default/a=10.0.0.1, other/b=2001:db8::1,")
            .unwrap()
            .unwrap()
            .into_table();
        let address = |namespace, name| {
            let row = table.by_name(namespace, name)?;
            row.addresses.primary().map(|address| address.to_string())
        };
        assert_eq!(address("default", "a").as_deref(), Some("10.0.0.1"));
        assert_eq!(address("other", "b").as_deref(), Some("2001:db8::1"));
        assert_eq!(address("default", "b"), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, problem) in [
            ("default/a", "has no ="),
            ("a=10.0.0.1", "has no /"),
            ("De/a=10.0.0.1", "namespace"),
            ("default/A_=10.0.0.1", "name"),
            ("default/a=box", "no IP address"),
            ("default/a=0.0.0.0", "no sandbox has"),
            ("default/a=10.0.0.1,default/a=10.0.0.2", "twice"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.contains(problem) && error.contains("--static-sandboxes"),
                "{error}"
            );
        }
    }
}
