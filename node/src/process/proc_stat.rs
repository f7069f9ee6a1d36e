//! The two fields of `/proc/PID/stat` that tell processes apart: parent and start time.
//!
//! Pure parsing and one read; used by the init helper, by the handle of a container and by the
//! search for leftovers.

use std::io;

/// Facts about one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Process id of the parent.
    pub(crate) parent: u32,
    /// Start time in clock ticks since boot; with the process id it names one process for good.
    pub(crate) start_time: u64,
}

/// Reads the facts about `pid`.
pub(crate) fn read(pid: i32) -> io::Result<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is malformed")))
}

/// Fields are separated by blanks, but the second, the program's name in parentheses, may hold
/// anything, so fields are counted from the last closing parenthesis.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_blanks_and_parentheses_is_skipped() {
        let text = "4 (a) b (c)) S 3 4 4 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 987654 1 2 3";
        assert_eq!(
            parse(text),
            Some(Stat {
                parent: 3,
                start_time: 987_654
            })
        );
        assert_eq!(parse("4 (a) S 3"), None);
    }

    #[test]
    fn this_process_has_the_parent_the_system_reports() {
        let own = read(std::process::id().try_into().unwrap()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(own.start_time > 0);
    }
}
