//! Entry point of the router.

use clap as _;

fn main() {}
