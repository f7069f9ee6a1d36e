//! The API of the Python runtime.

mod docs;
mod execute;
mod files;
mod upload;
