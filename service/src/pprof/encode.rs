//! The part of pprof's `profile.proto` that is written. Field numbers are those of the published file.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;

/// What a value of a sample counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unit {
    Count,
    Nanoseconds,
    Bytes,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Nanoseconds => "nanoseconds",
            Self::Bytes => "bytes",
        }
    }
}

/// A profile that is being put together.
#[derive(Debug)]
pub(super) struct Profile {
    message: Written,
    strings: BTreeMap<String, i64>,
    frames: BTreeMap<String, u64>,
}

impl Profile {
    /// A profile without samples, of values of these kinds.
    pub(super) fn new(began: SystemTime, kinds: &[(&str, Unit)]) -> Self {
        let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut profile = Self {
            message: Written {
                time_nanos: nanos(since),
                ..Written::default()
            },
            strings: BTreeMap::new(),
            frames: BTreeMap::new(),
        };
        // The first string is the empty one, by definition.
        profile.string("");
        for (name, unit) in kinds {
            let kind = profile.kind(name, *unit);
            profile.message.sample_type.push(kind);
        }
        profile
    }

    /// How long was looked, and how many nanoseconds a sample stands for.
    pub(super) fn lasted(&mut self, time: Duration, period: u64) {
        self.message.duration_nanos = nanos(time);
        self.message.period_type = Some(self.kind("cpu", Unit::Nanoseconds));
        self.message.period = i64::try_from(period).unwrap_or(i64::MAX);
    }

    /// Adds a sample: its frames, innermost first, and a value of each kind.
    pub(super) fn sample(&mut self, frames: &[&str], values: &[u64]) {
        let location_id = frames.iter().map(|name| self.frame(name)).collect();
        let value = values
            .iter()
            .map(|value| i64::try_from(*value).unwrap_or(i64::MAX))
            .collect();
        self.message.sample.push(Sample { location_id, value });
    }

    /// The bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.message.encode_to_vec()
    }

    fn kind(&mut self, name: &str, unit: Unit) -> ValueType {
        ValueType {
            kind: self.string(name),
            unit: self.string(unit.as_str()),
        }
    }

    /// The number of a string.
    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = i64::try_from(self.message.string_table.len()).unwrap_or_default();
        self.message.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    /// The number of a frame: a location with one line, of one function.
    fn frame(&mut self, name: &str) -> u64 {
        if let Some(number) = self.frames.get(name) {
            return *number;
        }
        let id = self.frames.len() as u64 + 1;
        let text = self.string(name);
        self.message.function.push(Function {
            id,
            name: text,
            system_name: text,
        });
        self.message.location.push(Location {
            id,
            line: vec![Line { function_id: id }],
        });
        self.frames.insert(name.to_owned(), id);
        id
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Clone, Message, PartialEq)]
pub(super) struct Written {
    #[prost(message, repeated, tag = "1")]
    pub(super) sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub(super) sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    pub(super) location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub(super) function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub(super) string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    pub(super) time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub(super) duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub(super) period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub(super) period: i64,
}

#[derive(Clone, Message, PartialEq)]
pub(super) struct ValueType {
    #[prost(int64, tag = "1")]
    pub(super) kind: i64,
    #[prost(int64, tag = "2")]
    pub(super) unit: i64,
}

#[derive(Clone, Message, PartialEq)]
pub(super) struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub(super) value: Vec<i64>,
}

#[derive(Clone, Message, PartialEq)]
pub(super) struct Location {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(message, repeated, tag = "4")]
    pub(super) line: Vec<Line>,
}

#[derive(Clone, Message, PartialEq)]
pub(super) struct Line {
    #[prost(uint64, tag = "1")]
    pub(super) function_id: u64,
}

#[derive(Clone, Message, PartialEq)]
pub(super) struct Function {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(int64, tag = "2")]
    pub(super) name: i64,
    #[prost(int64, tag = "3")]
    pub(super) system_name: i64,
}
