//! The test that `images/Dockerfile` makes the images of the definitions.

use std::collections::BTreeMap;

use super::definition::{DATA, Image, PYTHON, SHELL, SUITE};
use super::oci::config::Settings;

const FILE: &str = include_str!("../../../images/Dockerfile");
const TOOLCHAIN: &str = include_str!("../../../rust-toolchain.toml");

/// What a stage says, with what it has from the stage it begins from.
#[derive(Clone, Debug, Default)]
struct Stage {
    entrypoint: Vec<String>,
    environment: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    ports: Vec<u16>,
    user: String,
    working_directory: String,
    /// What apt-get installs in this very stage.
    packages: Vec<String>,
}

/// Instructions with their arguments on one line each.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let words = joined
        .lines()
        .filter_map(|line| line.trim().split_once(' '));
    words
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// `KEY=VALUE KEY="VALUE WITH BLANKS"`.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let mut quoted = false;
    let split = |c: char| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    };
    text.split(split)
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            (key.to_owned(), value.trim_matches('"').to_owned())
        })
        .collect()
}

fn stages() -> BTreeMap<String, Stage> {
    let mut stages: BTreeMap<String, Stage> = BTreeMap::new();
    let mut name = String::new();
    for (instruction, rest) in instructions(FILE) {
        let words: Vec<&str> = rest.split_whitespace().collect();
        if instruction == "FROM" {
            let mut stage = stages.get(words[0]).cloned().unwrap_or_default();
            stage.packages.clear();
            assert_eq!(words[1], "AS", "every stage has a name");
            words[2].clone_into(&mut name);
            stages.insert(name.clone(), stage);
            continue;
        }
        let Some(stage) = stages.get_mut(&name) else {
            assert_eq!(instruction, "ARG", "before the first stage");
            continue;
        };
        match instruction.as_str() {
            "ENTRYPOINT" => stage.entrypoint = serde_json::from_str(&rest).unwrap(),
            "ENV" => stage.environment.extend(pairs(&rest)),
            "LABEL" => stage.labels.extend(pairs(&rest)),
            "EXPOSE" => stage.ports = words.iter().map(|port| port.parse().unwrap()).collect(),
            "USER" => stage.user = rest,
            "WORKDIR" => stage.working_directory = rest,
            "RUN" => {
                let list = rest.split("apt-get install").nth(1).unwrap_or_default();
                let list = list.split("&&").next().unwrap();
                let names = list
                    .split_whitespace()
                    .filter(|word| !word.starts_with('-'));
                stage.packages.extend(names.map(ToOwned::to_owned));
            }
            "ARG" | "COPY" => {}
            other => panic!("the instruction {other} is not compared with the definitions"),
        }
    }
    stages
}

#[test]
fn the_dockerfile_makes_the_same_images() {
    let stages = stages();
    for image in Image::ALL {
        let target = image.name().strip_prefix("agent-sandbox-").unwrap();
        let stage = &stages[target];
        let Settings {
            entrypoint,
            environment,
            user,
            working_directory,
            ports,
            labels,
        } = image.settings(Some("${SOURCE}"));
        assert_eq!(stage.entrypoint, entrypoint, "{target}");
        assert_eq!(
            stage.environment,
            environment.into_iter().collect(),
            "{target}"
        );
        assert_eq!(stage.user, user, "{target}");
        assert_eq!(stage.working_directory, working_directory, "{target}");
        assert_eq!(stage.ports, ports, "{target}");
        assert_eq!(stage.labels, labels.into_iter().collect(), "{target}");
    }
}

#[test]
fn the_dockerfile_installs_the_same_packages() {
    let stages = stages();
    assert_eq!(stages["shell"].packages, SHELL.roots);
    assert_eq!(stages["python"].packages, PYTHON.roots);
    assert_eq!(stages["python-data"].packages, DATA.roots);
    assert!(stages["runtime"].packages.is_empty());
}

#[test]
fn the_dockerfile_begins_from_the_same_release_and_toolchain() {
    let toolchain = TOOLCHAIN
        .lines()
        .find_map(|line| line.strip_prefix("channel = "));
    let toolchain = toolchain.unwrap().trim_matches('"');
    for line in [
        format!("ARG RUST_IMAGE=rust:{toolchain}-slim-{SUITE}\n"),
        format!("ARG DEBIAN_IMAGE=debian:{SUITE}-slim\n"),
        format!("ENV RUSTUP_TOOLCHAIN={toolchain}\n"),
    ] {
        assert!(FILE.contains(&line), "{line}");
    }
}
