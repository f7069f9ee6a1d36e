//! Every operation while directories and files on its path are swapped for links to the outside, over
//! and over.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::calls::CALLS;
use super::*;

/// How often each operation is tried.
const ROUNDS: usize = 30;
/// So many directories and files are swapped in turn. With several, a walk meets one that is swapped
/// between its being found and its being opened.
const PAIRS: usize = 8;

#[test]
fn no_swap_at_the_wrong_moment_leads_outside() {
    let world = World::new();
    let root = world.root.path().to_owned();
    let behind = world.behind();
    mend(&world, &behind);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let over = AtomicBool::new(false);
    let paths = [
        "t",
        "t/d0",
        "t/d1/f",
        "t/d2/a",
        "t/d3/a/b",
        "t/d4/sub/f",
        "t/d5/new",
        "t/d6/new/deep",
        "t/l7/f",
        "t/f0",
        "t/f1",
        "t/k2",
        "",
        "e",
    ];
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !over.load(Ordering::Relaxed) {
                for pair in 0..PAIRS {
                    for (one, other) in [("d", "l"), ("f", "k")] {
                        let [one, other] =
                            [one, other].map(|name| root.join(format!("t/{name}{pair}")));
                        // Either may be removed or moved just now.
                        if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                            swaps += 1;
                        }
                    }
                }
            }
            swaps
        });
        // Also when something is found, or the test would wait for the other thread for ever.
        let ending = Ending(&over);
        for round in 0..ROUNDS {
            for (index, call) in CALLS.into_iter().enumerate() {
                mend(&world, &behind);
                let one = paths[(round + index) % paths.len()];
                let other = paths[(round * 5 + 3) % paths.len()];
                call.run(&world.root, one, other, &runtime);
            }
        }
        drop(ending);
        assert!(swapping.join().unwrap() > 0);
    });
    world.check();
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes again what operations have taken away.
fn mend(world: &World, behind: &cap_std::fs::Dir) {
    let root = world.root.path();
    for pair in 0..PAIRS {
        drop(behind.create_dir_all(format!("t/d{pair}/a/b")));
        drop(behind.create_dir_all(format!("t/d{pair}/sub")));
        for file in ["f", "sub/f"] {
            drop(behind.write(format!("t/d{pair}/{file}"), b"inside"));
        }
        drop(behind.write(format!("t/f{pair}"), b"inside"));
        drop(symlink(world.outside(), root.join(format!("t/l{pair}"))));
        drop(symlink(
            "../../outside/secret",
            root.join(format!("t/k{pair}")),
        ));
    }
}
