//! Random calls, links and renames in random order.

use proptest::prelude::*;

use super::calls::{CALLS, Call};
use super::*;

/// Something that happens to the tree.
#[derive(Clone, Debug)]
enum Step {
    /// Through the engine.
    Call(Call, String, String),
    /// A command makes a link.
    Link(String, String),
    /// A command renames, replacing.
    Rename(String, String),
    /// A command swaps two names.
    Exchange(String, String),
    /// A command makes a directory.
    Mkdir(String),
    /// A command writes a file.
    Write(String),
}

/// Names that also exist outside, so that a step too far finds something.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "f", "l", "m", "sub"])
}

fn plain() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

/// What a client may send. `OUTER` becomes the directory around the root.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![6 => name(), 1 => Just(".."), 1 => Just("secret"), 1 => Just("outside")];
    let mixed = prop::collection::vec(part, 1..5).prop_map(|names| names.join("/"));
    prop_oneof![
        4 => plain(),
        4 => mixed.clone(),
        1 => mixed.clone().prop_map(|path| format!("OUTER/root/{path}")),
        1 => mixed.prop_map(|path| format!("OUTER/{path}")),
        1 => Just(String::new()),
    ]
}

fn target() -> impl Strategy<Value = String> {
    let texts = [
        "..",
        "../..",
        "../outside",
        "../../outside",
        "../../../outside/a",
        "OUTER/outside",
        "OUTER/outside/secret",
        "OUTER/secret",
        "OUTER/outside/sub/new",
        "OUTER/root",
        "OUTER/root/a",
        "../root/a",
        "../root/l",
        ".",
        "/",
        "/proc/self/root",
    ];
    let fixed = prop::sample::select(texts.map(str::to_owned).to_vec());
    prop_oneof![3 => fixed, 1 => path()]
}

fn step() -> impl Strategy<Value = Step> {
    let call = prop::sample::select(CALLS.to_vec());
    prop_oneof![
        8 => (call, path(), path()).prop_map(|(call, one, other)| Step::Call(call, one, other)),
        3 => (target(), plain()).prop_map(|(target, path)| Step::Link(target, path)),
        1 => (plain(), plain()).prop_map(|(one, other)| Step::Rename(one, other)),
        1 => (plain(), plain()).prop_map(|(one, other)| Step::Exchange(one, other)),
        2 => plain().prop_map(Step::Mkdir),
        1 => plain().prop_map(Step::Write),
    ]
}

impl Step {
    fn run(&self, world: &World, runtime: &tokio::runtime::Runtime) {
        let outer = world.outer.path().to_str().unwrap();
        let real = |text: &str| text.replace("OUTER", outer);
        let behind = world.behind();
        // What a command cannot do, it does not do.
        match self {
            Self::Call(call, one, other) => {
                call.run(&world.root, &real(one), &real(other), runtime);
            }
            Self::Link(target, path) => drop(behind.symlink_contents(real(target), path)),
            Self::Rename(one, other) => drop(behind.rename(one, &behind, other)),
            Self::Exchange(one, other) => {
                let names = [one, other].map(|path| parent(&behind, path));
                if let [Some((one, old)), Some((other, new))] = names {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    let _done = rustix::fs::renameat_with(one, old, other, new, flags);
                }
            }
            Self::Mkdir(path) => drop(behind.create_dir_all(path)),
            Self::Write(path) => drop(behind.write(path, b"inside")),
        }
    }
}

fn parent(behind: &cap_std::fs::Dir, path: &str) -> Option<(cap_std::fs::Dir, String)> {
    let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
    Some((behind.open_dir(directory).ok()?, name.to_owned()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_sequence_reaches_outside(steps in prop::collection::vec(step(), 1..40)) {
        let world = World::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        for step in &steps {
            step.run(&world, &runtime);
        }
        world.check();
    }
}
