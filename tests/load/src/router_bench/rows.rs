//! The targets: what was found beside what is aimed at, and what holds each figure where it is.

use super::args::Leg;
use super::figures::{Figures, Measure};
use super::legs::{idle, latency, streaming, throughput, tunnels};
use super::peers::Kind;
use crate::bench::figures::Peer;
use crate::bench::report::short;
use crate::bench::targets::{Row, Target};
use crate::statistics::Spread;

/// How much the router may differ from nginx at all.
const RATIO: f64 = 0.85;

/// The lines for what was measured.
pub fn of(figures: &Figures) -> Vec<Row> {
    let per_cpu = measure(
        Leg::Throughput,
        throughput::USUAL,
        throughput::PER_CPU_SECOND,
    );
    let mut rows = Vec::new();
    for kind in [Kind::Router, Kind::RouterLog] {
        rows.extend(row(
            figures,
            per_cpu,
            kind,
            Target::AtLeast(60e3),
            request_limit(figures, kind),
        ));
    }
    rows.extend(ratio_row(figures, per_cpu));
    let (_, p50) = latency::QUANTITIES[0];
    let (_, p99) = latency::QUANTITIES[2];
    for (quantity, most) in [(p50, 27.0), (p99, 100.0)] {
        rows.extend(row(
            figures,
            measure(Leg::Latency, latency::ONE_PROCESSOR, quantity),
            Kind::Router,
            Target::AtMost(most),
            latency_limit(figures),
        ));
    }
    rows.extend(row(
        figures,
        measure(Leg::Idle, idle::SETTING, idle::MEMORY),
        Kind::Router,
        Target::AtMost(1.2),
        "the state of one connection, its task and its timers".to_owned(),
    ));
    rows.extend(row(
        figures,
        measure(Leg::Tunnels, tunnels::IDLE, tunnels::MEMORY),
        Kind::Router,
        Target::AtMost(4.0),
        "the state of two connections and the copy between them".to_owned(),
    ));
    for setting in [streaming::DOWN, streaming::UP] {
        rows.extend(row(
            figures,
            measure(Leg::Streaming, setting, streaming::SPEED),
            Kind::Router,
            Target::AtLeast(1.2),
            stream_limit(figures, setting),
        ));
        rows.extend(row(
            figures,
            measure(Leg::Streaming, setting, streaming::GROWTH),
            Kind::Router,
            Target::AtMost(4.0),
            "the buffers of one stream".to_owned(),
        ));
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
    let peers: Vec<String> = [Kind::Nginx, Kind::Haproxy, Kind::Go, Kind::Python]
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

fn ratio_row(figures: &Figures, measure: Measure) -> Option<Row> {
    let ratio = figures.figure(measure)?.ratio(Kind::Router, Kind::Nginx)?;
    let target = Target::AtLeast(RATIO);
    Some(Row::new(
        format!("router to nginx, {}, {}", measure.quantity, measure.setting),
        target,
        &ratio,
        String::new(),
        "as above; nginx has no table of sandboxes, metrics or limits to keep".to_owned(),
    ))
}

fn median(figures: &Figures, measure: Measure, kind: Kind) -> Option<f64> {
    let found: Spread = figures.figure(measure)?.spread(kind)?;
    Some(found.median)
}

/// Where a request's processor time goes.
fn request_limit(figures: &Figures, kind: Kind) -> String {
    let time = |quantity| {
        let measure = measure(Leg::Throughput, throughput::USUAL, quantity);
        median(figures, measure, kind)
    };
    let (Some(user), Some(system)) = (time(throughput::USER), time(throughput::SYSTEM)) else {
        return String::new();
    };
    format!(
        "{user:.1} us of a request in the program, {system:.1} us in the kernel for reads, writes and polls of two sockets"
    )
}

fn latency_limit(figures: &Figures) -> String {
    let (p50, _) = latency::QUANTITIES[0];
    let measure = measure(Leg::Latency, latency::ONE_PROCESSOR, p50);
    let direct = median(figures, measure, Kind::Direct);
    let direct = direct.map_or_else(String::new, |time| format!("; direct {time:.0} us"));
    format!("one more round trip on the loopback device and two switches{direct}")
}

fn stream_limit(figures: &Figures, setting: &'static str) -> String {
    let of = |quantity, kind| median(figures, measure(Leg::Streaming, setting, quantity), kind);
    let mut parts = Vec::new();
    if let Some(direct) = of(streaming::SPEED, Kind::Direct) {
        parts.push(format!(
            "direct {direct:.2} GB/s, client and sandbox on one processor"
        ));
    }
    if let Some(cost) = of(streaming::COST, Kind::Router) {
        parts.push(format!("the router spends {cost:.2} CPU-s a GiB"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_met_on_the_right_side() {
        let mut figures = Figures::default();
        let per_cpu = measure(
            Leg::Throughput,
            throughput::USUAL,
            throughput::PER_CPU_SECOND,
        );
        for (round, found) in [70e3, 61e3, 50e3].into_iter().enumerate() {
            figures.note(per_cpu, Kind::Router, round, found);
            figures.note(per_cpu, Kind::Nginx, round, 80e3);
        }
        let memory = measure(Leg::Idle, idle::SETTING, idle::MEMORY);
        figures.note(memory, Kind::Router, 0, 1.3);
        figures.note(memory, Kind::Haproxy, 0, 1.2);
        let rows = of(&figures);
        let seen: Vec<(&str, Option<bool>)> = rows
            .iter()
            .map(|row| (row.what.as_str(), row.met))
            .collect();
        assert_eq!(
            seen,
            [
                ("router, requests/CPU-s, 2 B, c=50", Some(true)),
                ("router to nginx, requests/CPU-s, 2 B, c=50", Some(false)),
                (
                    "router, KiB/connection, after one exchange each",
                    Some(false)
                ),
            ]
        );
        assert_eq!(rows[0].target, ">= 60.0k");
        assert_eq!(rows[0].found, "61.0k (50.0k-70.0k)");
        assert_eq!(rows[2].peers, "haproxy 1.20");
    }
}
