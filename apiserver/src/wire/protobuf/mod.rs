//! The request decoder for `application/vnd.kubernetes.protobuf`.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown` message that names the kind and holds
//! the object's own message. Field numbers come from the table of built-in types, so every built-in
//! kind is decoded by the same code; the result is the JSON a typed client would have sent. Only
//! requests are decoded; answers stay JSON, which every client accepts.
//!
//! Input is untrusted: lengths are checked against what is there, nesting is bounded, and unknown
//! fields are skipped, as protobuf prescribes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::typed;
use super::types::{Message, Scalar, Table, Type, definition_name};
use crate::format::time;

/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper nesting than any built-in type has; JSON schemas in CRDs are the deepest.
const MAX_DEPTH: usize = 64;

/// A body that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// Not a Kubernetes protobuf frame, or a damaged one: 400.
    #[error("{0}")]
    Malformed(String),
    /// A kind without a decoder: 415.
    #[error("no protobuf decoder for {api_version} {kind}; send application/json")]
    Unsupported {
        /// `apiVersion` of the frame.
        api_version: String,
        /// `kind` of the frame.
        kind: String,
    },
}

/// Decodes a framed object into its JSON form, `apiVersion` and `kind` included.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let Some(frame) = body.strip_prefix(MAGIC) else {
        return Err(malformed(
            "not a Kubernetes protobuf body: it must start with `k8s` and a zero byte",
        ));
    };
    let envelope = Envelope::read(frame)?;
    let Envelope {
        api_version,
        kind,
        raw,
    } = envelope;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let table = Table::get();
    let Some(message) = table
        .message(&definition_name(group, version, &kind))
        .filter(|message| is_decodable(table, message))
    else {
        return Err(ProtobufError::Unsupported { api_version, kind });
    };
    let fields = message_fields(table, message, raw, MAX_DEPTH)?;
    let mut object = Value::Object(fields);
    typed::conform_root(message, &mut object)
        .map_err(|error| malformed(&format!("decoding {kind}: {error}")))?;
    if let Some(fields) = object.as_object_mut() {
        fields.shift_insert(0, "kind".to_owned(), kind.into());
        fields.shift_insert(1, "apiVersion".to_owned(), api_version.into());
    }
    Ok(object)
}

/// The `runtime.Unknown` message around an object.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(frame: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Self {
            api_version: String::new(),
            kind: String::new(),
            raw: &[],
        };
        let mut reader = Reader::new(frame);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => {
                    let mut type_meta = Reader::new(value.bytes()?);
                    while let Some((number, value)) = type_meta.field()? {
                        match number {
                            1 => envelope.api_version = value.text()?,
                            2 => envelope.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = value.bytes()?,
                3 => {
                    let encoding = value.text()?;
                    if !encoding.is_empty() {
                        return Err(malformed(&format!(
                            "content encoding {encoding:?} inside a protobuf body is not supported"
                        )));
                    }
                }
                _ => {}
            }
        }
        if envelope.api_version.is_empty() || envelope.kind.is_empty() {
            return Err(malformed("the protobuf body names no apiVersion and kind"));
        }
        Ok(envelope)
    }
}

/// Whether every part of the message has a known protobuf form. JSON schemas have not.
fn is_decodable(table: &Table, message: &Message) -> bool {
    fn visit<'a>(table: &'a Table, message: &'a Message, seen: &mut Vec<&'a str>) -> bool {
        if seen.contains(&message.name) {
            return true;
        }
        seen.push(message.name);
        message.fields.iter().all(|field| {
            let mut r#type = &field.r#type;
            while let Type::List(inner) | Type::Map(inner) | Type::Wrapped(inner) = r#type {
                r#type = inner;
            }
            match r#type {
                Type::Scalar(scalar) => *scalar != Scalar::Any,
                Type::Message(id) => visit(table, table.resolve(*id), seen),
                Type::List(_) | Type::Map(_) | Type::Wrapped(_) => false,
            }
        })
    }
    visit(table, message, &mut Vec::new())
}

fn message_fields(
    table: &Table,
    message: &Message,
    bytes: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, ProtobufError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(malformed("the protobuf body is nested too deeply"));
    };
    let mut result = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        let Some(field) = message.fields.iter().find(|field| field.number == number) else {
            continue;
        };
        match (field.name, &field.r#type) {
            (None, Type::Message(id)) => {
                let inner = message_fields(table, table.resolve(*id), value.bytes()?, depth)?;
                result.extend(inner);
            }
            (None, _) => {}
            (Some(name), r#type) => {
                let slot = result.entry(name).or_insert(Value::Null);
                add(table, r#type, value, slot, depth)?;
            }
        }
    }
    Ok(result)
}

/// Adds one occurrence of a field to what was read of it before.
fn add(
    table: &Table,
    r#type: &Type,
    value: Wire<'_>,
    slot: &mut Value,
    depth: usize,
) -> Result<(), ProtobufError> {
    match r#type {
        Type::List(item) => {
            if slot.is_null() {
                *slot = Value::Array(Vec::new());
            }
            let Value::Array(items) = slot else {
                return Ok(());
            };
            match (&**item, value) {
                // Numbers may come packed into one field.
                (
                    Type::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Bool),
                    Wire::Bytes(packed),
                ) => {
                    let mut reader = Reader::new(packed);
                    while !reader.rest.is_empty() {
                        let number = Wire::Varint(reader.varint()?);
                        items.push(single(table, item, number, depth)?);
                    }
                }
                (item, value) => items.push(single(table, item, value, depth)?),
            }
        }
        Type::Map(item) => {
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            let mut key = String::new();
            let mut entry = None;
            let mut reader = Reader::new(value.bytes()?);
            while let Some((number, value)) = reader.field()? {
                match number {
                    1 => key = value.text()?,
                    2 => entry = Some(single(table, item, value, depth)?),
                    _ => {}
                }
            }
            let entry = match entry {
                Some(entry) => entry,
                None => single(table, item, Wire::Bytes(&[]), depth)?,
            };
            if let Value::Object(entries) = slot {
                entries.insert(key, entry);
            }
        }
        _ => {
            *slot = single(table, r#type, value, depth)?;
        }
    }
    Ok(())
}

/// A value that is not a list or map.
fn single(
    table: &Table,
    r#type: &Type,
    value: Wire<'_>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    match r#type {
        Type::Message(id) => Ok(Value::Object(message_fields(
            table,
            table.resolve(*id),
            value.bytes()?,
            depth,
        )?)),
        Type::Wrapped(list) => {
            let Type::List(item) = &**list else {
                return Ok(Value::Null);
            };
            let mut items = Vec::new();
            let mut reader = Reader::new(value.bytes()?);
            while let Some((number, value)) = reader.field()? {
                if number == 1 {
                    items.push(single(table, item, value, depth)?);
                }
            }
            Ok(Value::Array(items))
        }
        Type::Scalar(scalar) => scalar_value(*scalar, value),
        Type::List(_) | Type::Map(_) => Err(malformed("a list of lists has no protobuf form")),
    }
}

fn scalar_value(scalar: Scalar, value: Wire<'_>) -> Result<Value, ProtobufError> {
    Ok(match scalar {
        Scalar::String => value.text()?.into(),
        Scalar::Bool => (value.number()? != 0).into(),
        // Negative numbers are sign-extended to 64 bits; what does not fit is refused later.
        Scalar::Int32 | Scalar::Int64 => value.number()?.cast_signed().into(),
        Scalar::Float64 => value.double()?.into(),
        Scalar::Bytes => STANDARD.encode(value.bytes()?).into(),
        Scalar::Time | Scalar::MicroTime => timestamp(scalar, value.bytes()?)?,
        Scalar::Quantity => {
            let mut text = String::new();
            let mut reader = Reader::new(value.bytes()?);
            while let Some((number, value)) = reader.field()? {
                if number == 1 {
                    text = value.text()?;
                }
            }
            if text.is_empty() {
                "0".into()
            } else {
                text.into()
            }
        }
        Scalar::IntOrString => int_or_string(value.bytes()?)?,
        Scalar::Raw => {
            let mut raw: &[u8] = &[];
            let mut reader = Reader::new(value.bytes()?);
            while let Some((number, value)) = reader.field()? {
                if number == 1 {
                    raw = value.bytes()?;
                }
            }
            if raw.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(raw)
                    .map_err(|error| malformed(&format!("embedded JSON: {error}")))?
            }
        }
        Scalar::Any => return Err(malformed("a value without a protobuf form")),
    })
}

/// `{1: seconds, 2: nanos}`; zero stands for no time.
fn timestamp(scalar: Scalar, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => seconds = value.number()?.cast_signed(),
            2 => nanos = i32::try_from(value.number()?.cast_signed()).unwrap_or_default(),
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let time = time::from_epoch(seconds, nanos).ok_or_else(|| {
        malformed(&format!(
            "{seconds} seconds is not a time of a four-digit year"
        ))
    })?;
    Ok(if scalar == Scalar::Time {
        time::format_time(time).into()
    } else {
        time::format_micro_time(time).into()
    })
}

/// `{1: which, 2: number, 3: text}`.
fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => is_text = value.number()? == 1,
            2 => number = value.number()?.cast_signed(),
            3 => text = value.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// One value on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(malformed(
                "a number stands where text or a message is expected",
            )),
        }
    }

    fn text(self) -> Result<String, ProtobufError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| malformed("text is not UTF-8"))
    }

    fn number(self) -> Result<u64, ProtobufError> {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => Ok(number),
            Self::Fixed32(number) => Ok(number.into()),
            // The zero of a map entry whose value was left out.
            Self::Bytes([]) => Ok(0),
            Self::Bytes(_) => Err(malformed(
                "text or a message stands where a number is expected",
            )),
        }
    }

    fn double(self) -> Result<f64, ProtobufError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(malformed("a fractional number is not eight bytes long")),
        }
    }
}

/// Reads fields off a message.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and value; `None` at the end.
    fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| malformed("a field number is out of range"))?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => {
                return Err(malformed(&format!(
                    "wire type {other} is not used by Kubernetes"
                )));
            }
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(malformed("a number is longer than 64 bits"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        match self.rest.split_first_chunk() {
            Some((array, rest)) => {
                self.rest = rest;
                Ok(*array)
            }
            None => Err(truncated()),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(truncated()),
        }
    }
}

fn truncated() -> ProtobufError {
    malformed("the protobuf body ends in the middle of a field")
}

fn malformed(message: &str) -> ProtobufError {
    ProtobufError::Malformed(message.to_owned())
}

#[cfg(test)]
mod tests;
