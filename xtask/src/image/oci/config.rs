//! What an image says about itself: how its program is started, and which layers it has.

use serde_json::{Map, Value, json};

use super::layer::Layer;

/// How containers of the image start, and its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) entrypoint: Vec<String>,
    /// Variables with their values.
    pub(crate) environment: Vec<(String, String)>,
    /// `UID:GID`.
    pub(crate) user: String,
    pub(crate) working_directory: String,
    /// TCP ports.
    pub(crate) ports: Vec<u16>,
    pub(crate) labels: Vec<(String, String)>,
}

/// For whom and when an image is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Build<'a> {
    /// As image specifications name it: `amd64`, `arm64`.
    pub(crate) architecture: &'a str,
    /// Seconds since 1970.
    pub(crate) time: u64,
}

/// The image's configuration document.
pub(crate) fn document(settings: &Settings, build: Build<'_>, layers: &[&Layer]) -> Value {
    let created = timestamp(build.time);
    let environment: Vec<String> = settings
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let ports: Map<String, Value> = settings
        .ports
        .iter()
        .map(|port| (format!("{port}/tcp"), json!({})))
        .collect();
    let labels: Map<String, Value> = settings
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    let history: Vec<Value> = layers
        .iter()
        .map(|layer| json!({"created": created, "created_by": layer.what}))
        .collect();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json!({
        "created": created,
        "architecture": build.architecture,
        "os": "linux",
        "config": {
            "User": settings.user,
            "ExposedPorts": ports,
            "Env": environment,
            "Entrypoint": settings.entrypoint,
            "WorkingDir": settings.working_directory,
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    })
}

/// A time in seconds since 1970 as RFC 3339 writes it, in UTC.
fn timestamp(time: u64) -> String {
    let (days, seconds) = (time / 86_400, time % 86_400);
    // Days are counted in eras of 400 years that begin on the first of March, so that the leap day is the
    // last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_in_utc() {
        for (time, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(time), expected);
        }
    }

    #[test]
    fn the_document_says_everything() {
        let settings = Settings {
            entrypoint: vec!["/program".into()],
            environment: vec![("PATH".into(), "/bin".into())],
            user: "1000:1000".into(),
            working_directory: "/work".into(),
            ports: vec![80, 81],
            labels: vec![("a.b".into(), "c".into())],
        };
        let layer = Layer {
            what: "files".into(),
            diff_id: "sha256:00".into(),
            compressed: Vec::new(),
            size: 0,
        };
        let build = Build {
            architecture: "amd64",
            time: 0,
        };
        let expected = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "User": "1000:1000",
                "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
                "Env": ["PATH=/bin"],
                "Entrypoint": ["/program"],
                "WorkingDir": "/work",
                "Labels": {"a.b": "c"},
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "files"}],
        });
        assert_eq!(document(&settings, build, &[&layer]), expected);
    }
}
