//! The targets: what was found beside what is aimed at, and what holds each figure where it is.

use super::args::Leg;
use super::figures::{Figures, Measure};
use super::legs::{self, exec, grown, idle, rate, small, transfer};
use super::peers::Kind;
use crate::bench::figures::Peer as _;
use crate::bench::report::{short, spread};
use crate::bench::targets::{Row, Target};

/// A command one at a time, in milliseconds.
const COMMAND: Target = Target::AtMost(0.60);
/// How much longer than its bare spawn a command may take.
const OVER_SPAWN: Target = Target::AtMost(1.25);
/// Commands a second, 32 at a time.
const MANY: Target = Target::AtLeast(2600.0);
/// A small file, in microseconds, and how many a second.
const SMALL: (Target, Target) = (Target::AtMost(45.0), Target::AtLeast(40e3));
/// A large one up and down, in GB/s.
const LARGE: (Target, Target) = (Target::AtLeast(1.0), Target::AtLeast(2.5));
/// What a large one may take, in MiB over idle.
const FLAT: Target = Target::AtMost(4.0);
/// An idle runtime, in MiB.
const IDLE: Target = Target::AtMost(3.0);

/// The lines for what was measured.
pub fn of(figures: &Figures) -> Vec<Row> {
    let mut rows = Vec::new();
    for setting in [exec::ONE_PROCESSOR, exec::ACROSS] {
        let p50 = measure(Leg::Exec, setting, legs::P50);
        for kind in [Kind::Runtime, Kind::Grpc] {
            let limit = floors(figures, p50);
            rows.extend(row(figures, p50, kind, COMMAND, limit));
            for floor in [Kind::Spawn, Kind::SpawnPiped] {
                rows.extend(ratio(figures, p50, kind, floor, OVER_SPAWN));
            }
        }
    }
    let p50 = measure(Leg::Grown, grown::SETTING, legs::P50);
    let limit = held(figures);
    rows.extend(row(figures, p50, Kind::Grown, COMMAND, limit));
    for setting in [rate::MANY, rate::EVERYWHERE] {
        let per_second = measure(Leg::Rate, setting, rate::PER_SECOND);
        let limit = floors(figures, per_second);
        rows.extend(row(figures, per_second, Kind::Runtime, MANY, limit));
    }
    for kind in [Kind::Runtime, Kind::Legacy] {
        let limit = "reading and writing one socket, opening, reading and closing one file";
        let p50 = measure(Leg::Small, small::ONE_PROCESSOR, small::P50);
        rows.extend(row(figures, p50, kind, SMALL.0, limit.to_owned()));
        let per_second = measure(Leg::Small, small::MANY, small::PER_SECOND);
        rows.extend(row(figures, per_second, kind, SMALL.1, limit.to_owned()));
    }
    for (setting, target) in [
        (transfer::UP_MEMORY, LARGE.0),
        (transfer::DOWN_MEMORY, LARGE.1),
        (transfer::UP_DISK, LARGE.0),
        (transfer::DOWN_DISK, LARGE.1),
    ] {
        for kind in [Kind::Runtime, Kind::Legacy] {
            let speed = measure(Leg::Transfer, setting, transfer::SPEED);
            let limit = floors(figures, speed);
            rows.extend(row(figures, speed, kind, target, limit));
            let growth = measure(Leg::Transfer, setting, transfer::GROWTH);
            let limit = "the buffers of one file".to_owned();
            rows.extend(row(figures, growth, kind, FLAT, limit));
        }
    }
    for setting in [idle::FRESH, idle::AFTER, idle::EACH] {
        let memory = measure(Leg::Idle, setting, idle::PROPORTIONAL);
        let limit = "the program's own pages and the allocator's".to_owned();
        rows.extend(row(figures, memory, Kind::Runtime, IDLE, limit));
    }
    rows
}

fn measure(leg: Leg, setting: &'static str, quantity: &'static str) -> Measure {
    Measure {
        leg,
        setting,
        quantity,
    }
}

fn row(
    figures: &Figures,
    measure: Measure,
    kind: Kind,
    target: Target,
    limit: String,
) -> Option<Row> {
    let figure = figures.figure(measure)?;
    let found = figure.spread(kind)?;
    let peers: Vec<String> = [Kind::Python, Kind::PythonGrown]
        .into_iter()
        .filter_map(|peer| {
            let found = figure.spread(peer)?;
            Some(format!("{} {}", peer.name(), short(found.median)))
        })
        .collect();
    Some(Row::new(
        format!("{}, {}, {}", kind.name(), measure.quantity, measure.setting),
        target,
        &found,
        peers.join(", "),
        limit,
    ))
}

fn ratio(
    figures: &Figures,
    measure: Measure,
    kind: Kind,
    floor: Kind,
    target: Target,
) -> Option<Row> {
    let found = figures.figure(measure)?.ratio(kind, floor)?;
    Some(Row::new(
        format!(
            "{} to {}, {}, {}",
            kind.name(),
            floor.name(),
            measure.quantity,
            measure.setting
        ),
        target,
        &found,
        String::new(),
        String::new(),
    ))
}

/// What the floors had.
fn floors(figures: &Figures, measure: Measure) -> String {
    let Some(figure) = figures.figure(measure) else {
        return String::new();
    };
    let floors: Vec<String> = [Kind::Spawn, Kind::SpawnPiped, Kind::Cp]
        .into_iter()
        .filter_map(|floor| {
            Some(format!(
                "{} {}",
                floor.name(),
                spread(&figure.spread(floor)?)
            ))
        })
        .collect();
    floors.join(", ")
}

/// What holding memory does.
fn held(figures: &Figures) -> String {
    let ratios = measure(Leg::Grown, grown::SETTING, grown::RATIO);
    let Some(figure) = figures.figure(ratios) else {
        return String::new();
    };
    let found: Vec<String> = [Kind::Grown, Kind::PythonGrown]
        .into_iter()
        .filter_map(|kind| {
            let found = spread(&figure.spread(kind)?);
            Some(format!("{} takes {found} of its idle time", kind.name()))
        })
        .collect();
    found.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_and_peers_stand_beside_what_was_found() {
        let mut figures = Figures::default();
        let p50 = measure(Leg::Exec, exec::ONE_PROCESSOR, legs::P50);
        for (round, [spawn, ours, python]) in
            [[0.5, 0.6, 1.8], [0.4, 0.52, 1.6]].into_iter().enumerate()
        {
            figures.note(p50, Kind::Spawn, round, spawn);
            figures.note(p50, Kind::Runtime, round, ours);
            figures.note(p50, Kind::Python, round, python);
        }
        let held = measure(Leg::Idle, idle::FRESH, idle::PROPORTIONAL);
        figures.note(held, Kind::Runtime, 0, 3.5);
        let rows = of(&figures);
        let seen: Vec<(&str, Option<bool>)> = rows
            .iter()
            .map(|row| (row.what.as_str(), row.met))
            .collect();
        assert_eq!(
            seen,
            [
                ("runtime, p50 ms, true, one processor", Some(true)),
                ("runtime to spawn, p50 ms, true, one processor", Some(true)),
                ("runtime, PSS MiB, fresh, after one command", Some(false)),
            ]
        );
        assert_eq!(rows[0].peers, "python 1.70");
        assert_eq!(rows[0].limit, "spawn 0.45 (0.40-0.50)");
        assert_eq!(rows[1].found, "1.25 (1.20-1.30)");
    }
}
