//! What must hold of the router and of the runtime whatever they are given, as functions of bytes that
//! panic when it does not.
//!
//! Two callers: the test of this package, over the inputs in `seeds/` and over generated ones, and the
//! programs in `fuzz/`, in which libFuzzer looks for inputs of its own (`cargo xtask fuzz`). A function
//! here must depend on nothing but its bytes, or what was found could not be found again.

#![allow(
    clippy::expect_used,
    reason = "a property that does not hold is told by panicking"
)]

mod answers;
mod headers;
mod messages;
mod multipart;
mod paths;
mod ranges;
mod requests;
mod settings;
mod tokens;

/// A property and its name, which is also that of its seeds' directory and of its program.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The name.
    pub name: &'static str,
    /// Panics when the property does not hold for these bytes.
    pub check: fn(&[u8]),
}

/// Every property.
pub const CASES: [Case; 9] = [
    Case {
        name: "headers",
        check: headers::check,
    },
    Case {
        name: "tokens",
        check: tokens::check,
    },
    Case {
        name: "settings",
        check: settings::check,
    },
    Case {
        name: "requests",
        check: requests::check,
    },
    Case {
        name: "answers",
        check: answers::check,
    },
    Case {
        name: "multipart",
        check: multipart::check,
    },
    Case {
        name: "paths",
        check: paths::check,
    },
    Case {
        name: "ranges",
        check: ranges::check,
    },
    Case {
        name: "messages",
        check: messages::check,
    },
];

/// Checks the property of this name; panics if there is none.
pub fn check(name: &str, bytes: &[u8]) {
    let case = CASES.iter().find(|case| case.name == name);
    (case.expect("a property has this name").check)(bytes);
}
