//! The daemon API.

mod files;
mod service;
