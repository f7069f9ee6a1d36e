//! Memory of many that are alike: the slope over their number. What the program needs anyhow, and what
//! the first of them cost once, do not count.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::bench::figures::number;
use crate::bench::tree::Tree;

/// Memory is read at so many numbers besides none.
pub const POINTS: u32 = 4;
/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How often is looked at most.
const LOOKS: u32 = 40;
/// How many looks in a row must find the same: a proxy may go through its connections every second or two.
const SAME: u32 = 6;
/// How much less memory still counts as the same.
const STILL: f64 = 0.995;

/// Memory once it has stopped falling: buffers may be given back a while after the last byte.
pub async fn at_rest(tree: Tree) -> Result<f64> {
    let mut last = f64::INFINITY;
    let mut still = 0;
    for _ in 0..LOOKS {
        sleep(PAUSE).await;
        let now = number(tree.memory()?);
        still = if now >= last * STILL { still + 1 } else { 0 };
        last = now;
        if still == SAME {
            break;
        }
    }
    Ok(last)
}

/// Fails if one of the connections that should be held is not open any more.
pub fn all_open(held: &[TcpStream]) -> Result<()> {
    let is_open = |stream: &&TcpStream| {
        let read = stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let open = held.iter().filter(is_open).count();
    ensure!(
        open == held.len(),
        "only {open} of {} stayed open",
        held.len()
    );
    Ok(())
}

/// The slope of the line that fits best, in KiB for each of them.
pub fn slope(points: &[(u32, f64)]) -> Result<f64> {
    let count = f64::from(u32::try_from(points.len())?);
    let middle = points.iter().map(|(at, _)| f64::from(*at)).sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (at, bytes) in points {
        let distance = f64::from(*at) - middle;
        above += distance * bytes;
        below += distance * distance;
    }
    let slope = (below > 0.0).then(|| above / below / 1024.0);
    slope.context("a slope needs two points")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_connection_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let (first, _) = listener.accept().await.unwrap();
        let second = listener.accept().await.unwrap();
        all_open(&held).unwrap();
        drop(first);
        held[0].readable().await.unwrap();
        let error = all_open(&held).unwrap_err().to_string();
        assert_eq!(error, "only 1 of 2 stayed open");
        drop(second);
    }

    #[test]
    fn a_line_has_its_slope() {
        let line: Vec<(u32, f64)> = [0, 1000, 2000, 3000, 4000]
            .map(|at| (at, 5e6 + f64::from(at) * 1536.0))
            .to_vec();
        assert!((slope(&line).unwrap() - 1.5).abs() < 1e-9);
        // One reading that is off by 100 KiB moves it by less than 3 %.
        let mut noisy = line;
        noisy[4].1 += 102_400.0;
        assert!((slope(&noisy).unwrap() - 1.5).abs() < 0.045);
        assert!(slope(&[(7, 1.0)]).is_err());
    }
}
