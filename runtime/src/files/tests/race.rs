//! Every operation while a directory on its path is swapped for a link to the outside, over and over.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::calls::CALLS;
use super::*;

/// How often each operation is tried.
const ROUNDS: usize = 60;

#[test]
fn no_swap_at_the_wrong_moment_leads_outside() {
    let world = World::new();
    let root = world.root.path().to_owned();
    symlink(world.outside(), root.join("l")).unwrap();
    symlink("../outside", root.join("m")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let over = AtomicBool::new(false);
    let paths = [
        "d",
        "d/f",
        "d/a",
        "d/a/b",
        "d/sub/f",
        "d/new",
        "d/new/deep",
        "l/f",
        "e",
    ];
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !over.load(Ordering::Relaxed) {
                for link in ["l", "m"] {
                    for _ in 0..2 {
                        let (one, other) = (root.join("d"), root.join(link));
                        // Either may be removed or moved just now.
                        if renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                            swaps += 1;
                        }
                    }
                }
            }
            swaps
        });
        let behind = world.behind();
        for round in 0..ROUNDS {
            for (index, call) in CALLS.into_iter().enumerate() {
                mend(&world, &behind);
                let one = paths[(round + index) % paths.len()];
                let other = paths[(round * 7 + 3) % paths.len()];
                call.run(&world.root, one, other, &runtime);
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(swapping.join().unwrap() > 0);
    });
    world.check();
}

/// Makes again what operations have taken away: a directory with something in it, and the links.
fn mend(world: &World, behind: &cap_std::fs::Dir) {
    drop(behind.create_dir_all("d/a/b"));
    drop(behind.create_dir_all("d/sub"));
    drop(behind.write("d/sub/f", b"inside"));
    drop(behind.write("d/f", b"inside"));
    drop(behind.symlink_contents(world.outside(), "l"));
    drop(behind.symlink_contents("../outside", "m"));
}
