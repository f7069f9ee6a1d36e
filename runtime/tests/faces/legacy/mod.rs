//! The API of the Python runtime.

mod execute;
mod files;
mod upload;
