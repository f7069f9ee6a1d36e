//! Options of a write.

/// What to do with unknown and duplicate fields (`fieldValidation`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Options that creates, updates and patches share.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Go through everything except the commit.
    pub dry_run: bool,
    /// What to do with unknown and duplicate fields.
    pub validation: FieldValidation,
    /// The field manager: as given, or derived from the user agent.
    pub manager: String,
    /// Problems found while decoding the body, such as duplicate fields.
    pub decoding: Vec<String>,
}

impl WriteOptions {
    /// Options for a write of the server itself.
    pub fn internal(manager: &str) -> Self {
        Self {
            dry_run: false,
            validation: FieldValidation::Ignore,
            manager: manager.to_owned(),
            decoding: Vec::new(),
        }
    }
}
