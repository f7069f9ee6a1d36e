//! HTTP: requests to typed actions and objects back to bytes.

pub mod table;
