//! The spelling of flags: Go programs, whose manifests this one is started from, take one dash for two
//! and a value for every switch.

use std::ffi::OsString;

/// The command line as clap reads it. What follows a bare `--` is left alone.
pub(super) fn normal(line: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut line = line.into_iter();
    let mut out: Vec<OsString> = line.next().into_iter().collect();
    for argument in line.by_ref() {
        if argument == "--" {
            out.push(argument);
            break;
        }
        out.extend(argument_of(argument));
    }
    out.extend(line);
    out
}

fn argument_of(argument: OsString) -> Option<OsString> {
    let Some(text) = argument.to_str() else {
        return Some(argument);
    };
    let name = text.trim_start_matches('-');
    let dashes = text.len() - name.len();
    // Negative numbers are values; a single letter is a short flag, here and there.
    let is_long = name.len() > 1 && name.starts_with(|it: char| it.is_ascii_alphabetic());
    match (dashes, name) {
        (1 | 2, "version=true") => Some("--version".into()),
        (1 | 2, "version=false") => None,
        (1, _) if is_long => Some(format!("--{name}").into()),
        _ => Some(argument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_as_good_as_two() {
        let line = [
            "program",
            "-leader-elect",
            "-kube-api-qps=5",
            "--x",
            "-1",
            "-h",
            "--version=true",
            "-version=false",
            "--",
            "-leader-elect",
        ];
        let normal = normal(line.map(OsString::from));
        let expected = [
            "program",
            "--leader-elect",
            "--kube-api-qps=5",
            "--x",
            "-1",
            "-h",
            "--version",
            "--",
            "-leader-elect",
        ];
        assert_eq!(normal, expected);
    }
}
