//! The daemon API.

mod files;
mod processes;
mod service;
