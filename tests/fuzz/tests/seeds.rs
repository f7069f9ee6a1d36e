//! Every property over the inputs that are kept, over mixtures of them, and over noise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use agent_sandbox_fuzz::CASES;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Inputs made up for each property.
const MIXTURES: u32 = 400;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name)
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() > 3, "{name} has seeds");
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn every_kept_input_holds() {
    for case in CASES {
        for seed in seeds(case.name) {
            (case.check)(&seed);
        }
        (case.check)(b"");
    }
}

#[test]
fn mixtures_of_kept_inputs_hold() {
    for case in CASES {
        let seeds = seeds(case.name);
        let part = (
            prop::sample::select(seeds),
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
        );
        let edit = (any::<prop::sample::Index>(), any::<u8>());
        let mixture = (
            prop::collection::vec(part, 1..4),
            prop::collection::vec(edit, 0..6),
        );
        let mut runner = TestRunner::new(Config::with_cases(MIXTURES));
        let outcome = runner.run(&mixture, |(parts, edits)| {
            let mut bytes = Vec::new();
            for (seed, one, other) in parts {
                let (one, other) = (one.index(seed.len() + 1), other.index(seed.len() + 1));
                bytes.extend(&seed[one.min(other)..one.max(other)]);
            }
            for (place, byte) in edits {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = byte;
                }
            }
            (case.check)(&bytes);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

#[test]
fn noise_holds() {
    for case in CASES {
        let mut runner = TestRunner::new(Config::with_cases(MIXTURES));
        let noise = prop::collection::vec(any::<u8>(), 0..300);
        let outcome = runner.run(&noise, |bytes| {
            (case.check)(&bytes);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}
