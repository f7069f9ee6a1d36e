//! Formats of strings that the Kubernetes API gives a meaning to: names, label keys and values,
//! quantities, times and durations.
//!
//! Pure functions over `&str`. The selectors, the codec of the built-in kinds and their validation
//! call them; nothing here knows about objects, requests or the registry. The messages are the ones
//! users know from a real API server, because tools show them verbatim.

pub mod names;
pub mod quantity;
pub mod time;
