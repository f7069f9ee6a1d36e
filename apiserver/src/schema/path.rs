//! Field paths as the walks build them: a chain of borrowed steps on the stack, rendered only when
//! something has to be reported.
//!
//! Used by every walk of [`crate::schema`]. A path never owns its steps, so descending costs nothing.

use std::fmt;

/// Where a walk is, from the object's root.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

/// One step of a path.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    /// The start of the path; the text may be empty.
    Root(&'a str),
    /// A field of an object, printed as `.name`.
    Field(&'a str),
    /// An entry of a map, printed as `[name]`.
    Key(&'a str),
    /// An item of a list, printed as `[3]`.
    Index(usize),
}

impl<'a> Path<'a> {
    /// The root of an object.
    pub const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root(""),
    };

    /// A path that starts with `text`.
    pub const fn starting(text: &'a str) -> Self {
        Self {
            parent: None,
            step: Step::Root(text),
        }
    }

    /// The field `name` below this path.
    #[must_use]
    pub const fn field(&'a self, name: &'a str) -> Self {
        self.step(Step::Field(name))
    }

    /// The map entry `name` below this path.
    #[must_use]
    pub const fn key(&'a self, name: &'a str) -> Self {
        self.step(Step::Key(name))
    }

    /// The list item `index` below this path.
    #[must_use]
    pub const fn index(&'a self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// Whether this is the object itself.
    pub const fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    const fn step(&'a self, step: Step<'a>) -> Self {
        Self {
            parent: Some(self),
            step,
        }
    }

    /// Writes the path; the result says whether anything was written.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        let started = match self.parent {
            Some(parent) => parent.write(f)?,
            None => false,
        };
        match self.step {
            Step::Root(text) => {
                f.write_str(text)?;
                return Ok(!text.is_empty());
            }
            Step::Field(name) => {
                if started {
                    f.write_str(".")?;
                }
                f.write_str(name)?;
            }
            Step::Key(name) => write!(f, "[{name}]")?,
            Step::Index(index) => write!(f, "[{index}]")?,
        }
        Ok(true)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_like_kubernetes() {
        let root = Path::ROOT;
        assert_eq!(root.to_string(), "");
        let spec = root.field("spec");
        let list = spec.field("containers");
        let item = list.index(2);
        assert_eq!(item.field("name").to_string(), "spec.containers[2].name");
        assert_eq!(spec.key("a.b/c").to_string(), "spec[a.b/c]");
        let start = Path::starting("spec.versions[0]");
        assert_eq!(start.field("schema").to_string(), "spec.versions[0].schema");
    }
}
