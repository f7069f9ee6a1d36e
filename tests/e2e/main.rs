//! The platform's behaviour, in one process.

mod claims;
mod objects;
mod pools;
