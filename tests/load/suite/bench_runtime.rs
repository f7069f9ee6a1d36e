//! The smallest possible run of the whole bench of the runtime, with the runtime as this build has it:
//! whether everything is wired rightly, not how fast it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_sandbox_load::bench::figures::Measure;
use agent_sandbox_load::bench::generator::Generator;
use agent_sandbox_load::runtime_bench::args::{Leg, Plan};
use agent_sandbox_load::runtime_bench::legs::{
    P50, exec, grown, idle, output, rate, small, transfer,
};
use agent_sandbox_load::runtime_bench::measure;
use agent_sandbox_load::runtime_bench::peers::Kind;
use agent_sandbox_load::runtime_bench::report::Report;
use clap::ValueEnum;

/// Few commands, little time, small files.
fn plan(runtime: PathBuf, directory: &Path) -> Plan {
    Plan {
        runtime,
        grown: Some(env!("CARGO_BIN_EXE_grown-runtime").into()),
        python: None,
        json: None,
        legs: Leg::value_variants().to_vec(),
        rounds: 2,
        long_rounds: 1,
        runs: 3,
        outputs: 1,
        time: Duration::from_millis(20),
        held: 16,
        divisor: 64,
        generator: Generator::Own,
        largest: true,
        disk: directory.to_owned(),
        memory: directory.to_owned(),
        rest: Duration::ZERO,
        patience: Duration::ZERO,
        look: Duration::from_millis(1),
    }
}

/// The runtime, which is a program of another package, as a program of this one.
fn runtime(directory: &Path) -> PathBuf {
    let path = directory.join("runtime");
    let script = format!(
        "#!/bin/sh\nexec {} 0 \"$@\"\n",
        env!("CARGO_BIN_EXE_grown-runtime")
    );
    std::fs::write(&path, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

#[tokio::test]
async fn the_smallest_run_measures_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(runtime(directory.path()), directory.path());
    let mut report = Report::default();
    measure(plan, &mut report).await.unwrap();

    let mut expected = vec![
        (Leg::Exec, exec::ONE_PROCESSOR, P50, Kind::Spawn),
        (Leg::Exec, exec::ONE_PROCESSOR, P50, Kind::SpawnPiped),
        (Leg::Exec, exec::ONE_PROCESSOR, P50, Kind::Runtime),
        (Leg::Grown, grown::SETTING, P50, Kind::Embedded),
        (Leg::Grown, grown::SETTING, grown::RATIO, Kind::Grown),
        (Leg::Rate, rate::MANY, rate::PER_SECOND, Kind::Spawn),
        (Leg::Rate, rate::EIGHT, rate::PER_SECOND, Kind::Runtime),
        (Leg::Rate, rate::MANY, rate::WHOLE, Kind::Runtime),
        (Leg::Output, output::SETTING, P50, Kind::SpawnPiped),
        (Leg::Output, output::SETTING, P50, Kind::Runtime),
        (Leg::Small, small::MANY, small::PER_SECOND, Kind::Runtime),
        (Leg::Small, small::ONE_PROCESSOR, small::P50, Kind::Legacy),
        (
            Leg::Transfer,
            transfer::UP_MEMORY,
            transfer::SPEED,
            Kind::Cp,
        ),
        (
            Leg::Transfer,
            transfer::UP_MEMORY,
            transfer::SPEED,
            Kind::Runtime,
        ),
        (
            Leg::Transfer,
            transfer::DOWN_MEMORY,
            transfer::SPEED,
            Kind::Runtime,
        ),
        (
            Leg::Transfer,
            transfer::UP_MEMORY,
            transfer::SPEED,
            Kind::Legacy,
        ),
        (
            Leg::Transfer,
            transfer::DOWN_MEMORY,
            transfer::SPEED,
            Kind::Legacy,
        ),
    ];
    if rustix::process::geteuid().is_root() {
        expected.push((Leg::Idle, idle::FRESH, idle::PROPORTIONAL, Kind::Runtime));
        expected.push((Leg::Idle, idle::AFTER, idle::RESIDENT, Kind::Runtime));
        expected.push((Leg::Idle, idle::EACH, idle::PROPORTIONAL, Kind::Runtime));
    }
    for (leg, setting, quantity, kind) in expected {
        let measure = Measure {
            leg,
            setting,
            quantity,
        };
        let found = report.figures.figure(measure).unwrap().spread(kind);
        let found = found.map(|found| found.min);
        let nothing_spent = quantity == rate::WHOLE && found == Some(0.0);
        assert!(
            found.is_some_and(|found| found > 0.0) || nothing_spent,
            "{measure:?} {kind:?}: {found:?}"
        );
    }
    let text = report.text().unwrap();
    for part in ["runtime to spawn", "absent: python", "runtime to it"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // Nothing is left behind.
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["runtime"]);
}

#[tokio::test]
async fn a_runtime_that_does_not_start_ends_the_run_with_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("broken");
    std::fs::write(&program, "#!/bin/sh\necho no such day >&2\nexit 3\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let plan = plan(program, directory.path());
    let error = measure(plan, &mut Report::default()).await.unwrap_err();
    assert!(error.to_string().contains("no such day"), "{error:#}");
}
