//! The encoding half: what the Go sources say about each type's fields.
//!
//! Reads `type X struct { ... }` declarations line by line; the API's type files are regular enough
//! (they are themselves inputs of generators). A construct it does not know is an error that names
//! the line, never a guess.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Sources;

/// A struct: its fields in source order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    /// Field number in protobuf; 0 for what protobuf leaves out.
    number: u32,
    /// Name in JSON; `.` for a struct whose fields are inlined in JSON.
    name: String,
    /// When JSON leaves the field out.
    omit: Omit,
    /// The type in the notation of the data file.
    r#type: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Omit {
    Never,
    /// Never, and it must not be empty either.
    Required,
    Empty,
    Zero,
}

/// What a Go type name stands for.
#[derive(Debug, Clone)]
enum Declaration {
    Struct(Vec<String>),
    /// `type X Y`: the right-hand side.
    Alias(String),
}

#[derive(Debug, Default)]
struct Package {
    declarations: HashMap<String, Declaration>,
    /// Import name to import path, of all files together.
    imports: HashMap<String, String>,
}

/// Types with an encoding of their own, by import path and name.
const SCALARS: &[(&str, &str, &str)] = &[
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "Time", "time"),
    (
        "k8s.io/apimachinery/pkg/apis/meta/v1",
        "MicroTime",
        "microtime",
    ),
    (
        "k8s.io/apimachinery/pkg/apis/meta/v1",
        "Duration",
        "duration",
    ),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "FieldsV1", "raw"),
    (
        "k8s.io/apimachinery/pkg/api/resource",
        "Quantity",
        "quantity",
    ),
    (
        "k8s.io/apimachinery/pkg/util/intstr",
        "IntOrString",
        "intstr",
    ),
    ("k8s.io/apimachinery/pkg/runtime", "RawExtension", "raw"),
    ("k8s.io/apimachinery/pkg/types", "UID", "string"),
    ("k8s.io/apimachinery/pkg/types", "NodeName", "string"),
    // Hand-written JSON in Go; the server's own schema checks look at these.
    (
        "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
        "JSON",
        "any",
    ),
    (
        "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
        "JSONSchemaPropsOrArray",
        "any",
    ),
    (
        "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
        "JSONSchemaPropsOrBool",
        "any",
    ),
    (
        "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
        "JSONSchemaPropsOrStringArray",
        "any",
    ),
];

/// The messages reachable from the definitions in `roots`, by OpenAPI definition name.
pub(super) fn collect(
    sources: &Sources,
    roots: &[String],
    definitions: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Message>> {
    let mut packages: HashMap<String, Package> = HashMap::new();
    let mut messages = BTreeMap::new();
    let mut queue: Vec<(String, String)> = roots
        .iter()
        .map(|root| go_name(root))
        .collect::<Result<_>>()?;
    let mut seen = BTreeSet::new();
    while let Some((path, name)) = queue.pop() {
        if !seen.insert((path.clone(), name.clone())) {
            continue;
        }
        let context = || format!("reading {path}.{name}");
        load(sources, &mut packages, &path).with_context(context)?;
        let package = packages.get(&path).with_context(context)?;
        let Some(Declaration::Struct(lines)) = package.declarations.get(&name).cloned() else {
            bail!("{path}.{name} is not a struct");
        };
        let openapi_name = openapi_name(&path, &name);
        let definition = definitions.get(&openapi_name);
        let mut fields = Vec::new();
        for line in lines {
            let Some(raw) = RawField::parse(&line) else {
                continue;
            };
            let mut resolver = Resolver {
                sources,
                packages: &mut packages,
                found: Vec::new(),
            };
            let r#type = resolver
                .resolve(&path, &raw.r#type)
                .with_context(|| format!("in `{line}`"))?;
            // kind and apiVersion of every object are handled apart.
            if r#type.ends_with("meta.v1.TypeMeta") {
                continue;
            }
            queue.append(&mut resolver.found);
            let omit = match raw.omit {
                Omit::Never if r#type == "string" && is_required(definition, &raw.name) => {
                    Omit::Required
                }
                omit => omit,
            };
            fields.push(Field {
                number: raw.number,
                name: raw.name,
                omit,
                r#type,
            });
        }
        messages.insert(openapi_name, Message { fields });
    }
    Ok(messages)
}

/// Whether a definition demands a property.
fn is_required(definition: Option<&Value>, property: &str) -> bool {
    let required = definition.and_then(|definition| definition.get("required"));
    let mut names = required.and_then(Value::as_array).into_iter().flatten();
    names.any(|name| name == property)
}

/// The data file: a header that explains the notation, then a block for each message.
pub(super) fn render(messages: &BTreeMap<String, Message>, release: &str) -> String {
    let mut text = format!(
        "// Fields of the built-in types of Kubernetes {release}; written by `cargo xtask generate \
         builtin-schemas`.\n\
         // A block is a type. A line is a field: protobuf number, JSON name (`.`: inlined), when it is \
         left out (`-` never,\n\
         // `!` never and it must not be empty, `?` when empty, `0` when zero), and the type: `*` \
         optional, `[]` list,\n\
         // `{{}}` map, `w` a list in a message of its own, `#` another block.\n"
    );
    for (name, message) in messages {
        let _infallible = writeln!(text, "#{name}");
        for Field {
            number,
            name,
            omit,
            r#type,
        } in &message.fields
        {
            let omit = match omit {
                Omit::Never => '-',
                Omit::Required => '!',
                Omit::Empty => '?',
                Omit::Zero => '0',
            };
            let _infallible = writeln!(text, "{number} {name} {omit} {type}");
        }
    }
    text
}

/// `io.k8s.api.core.v1.Pod` is `Pod` in `k8s.io/api/core/v1`.
fn go_name(definition: &str) -> Result<(String, String)> {
    let rest = definition
        .strip_prefix("io.k8s.")
        .with_context(|| format!("{definition} is not a Kubernetes definition"))?;
    let (package, name) = rest
        .rsplit_once('.')
        .with_context(|| format!("{definition} has no package"))?;
    Ok((
        format!("k8s.io/{}", package.replace('.', "/")),
        name.to_owned(),
    ))
}

fn openapi_name(path: &str, name: &str) -> String {
    format!(
        "io.{}.{name}",
        path.replacen("k8s.io/", "k8s.", 1).replace('/', ".")
    )
}

/// A field line taken apart, its type not yet resolved.
#[derive(Debug, PartialEq)]
struct RawField {
    number: u32,
    name: String,
    omit: Omit,
    r#type: String,
}

impl RawField {
    /// A name, a type and a raw string of tags; `None` for comments and blank lines.
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with("//") {
            return None;
        }
        let (declaration, tags) = line.split_once('`')?;
        let json = tag(tags, "json")?;
        let number = tag(tags, "protobuf")
            .and_then(|protobuf| protobuf.split(',').nth(1)?.parse().ok())
            .unwrap_or(0);
        // An embedded field has only a type.
        let r#type = declaration.split_whitespace().next_back()?.to_owned();
        let mut options = json.split(',');
        let name = options.next().unwrap_or_default();
        let options: Vec<&str> = options.collect();
        let name = if options.contains(&"inline") || name.is_empty() {
            "."
        } else {
            name
        };
        let omit = if options.contains(&"omitzero") {
            Omit::Zero
        } else if options.contains(&"omitempty") {
            Omit::Empty
        } else {
            Omit::Never
        };
        Some(Self {
            number,
            name: name.to_owned(),
            omit,
            r#type,
        })
    }
}

fn tag<'a>(tags: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tags.split_once(&format!("{name}:\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Turns Go type expressions into the notation of the data file.
struct Resolver<'a> {
    sources: &'a Sources,
    packages: &'a mut HashMap<String, Package>,
    /// Structs met on the way.
    found: Vec<(String, String)>,
}

impl Resolver<'_> {
    fn resolve(&mut self, path: &str, expression: &str) -> Result<String> {
        if expression == "[]byte" {
            return Ok("bytes".to_owned());
        }
        for (prefix, notation) in [("*", "*"), ("[]", "[]")] {
            if let Some(inner) = expression.strip_prefix(prefix) {
                return Ok(format!("{notation}{}", self.resolve(path, inner)?));
            }
        }
        if let Some(rest) = expression.strip_prefix("map[") {
            let (key, value) = rest.split_once(']').context("a map without `]`")?;
            let key = self.resolve(path, key)?;
            if key != "string" {
                bail!("maps have string keys, not {key}");
            }
            return Ok(format!("{{}}{}", self.resolve(path, value)?));
        }
        match expression {
            "string" | "bool" | "int32" | "int64" | "float64" => return Ok(expression.to_owned()),
            _ => {}
        }
        match expression.split_once('.') {
            Some((import, name)) => {
                let target = self
                    .packages
                    .get(path)
                    .and_then(|package| package.imports.get(import))
                    .with_context(|| format!("{path} imports nothing as {import}"))?
                    .clone();
                self.resolve_named(&target, name)
            }
            None => self.resolve_named(path, expression),
        }
    }

    fn resolve_named(&mut self, path: &str, name: &str) -> Result<String> {
        if let Some((_, _, scalar)) = SCALARS.iter().find(|(p, n, _)| *p == path && *n == name) {
            return Ok((*scalar).to_owned());
        }
        load(self.sources, self.packages, path)?;
        let declaration = self
            .packages
            .get(path)
            .and_then(|package| package.declarations.get(name))
            .with_context(|| format!("{path} declares no {name}"))?
            .clone();
        match declaration {
            Declaration::Struct(_) => {
                self.found.push((path.to_owned(), name.to_owned()));
                Ok(format!("#{}", openapi_name(path, name)))
            }
            Declaration::Alias(expression) => {
                let resolved = self.resolve(path, &expression)?;
                // A named list is a message with one repeated field in protobuf.
                let wrapped = resolved.starts_with("[]") && name != "ValidationRules";
                Ok(if wrapped {
                    format!("w{resolved}")
                } else {
                    resolved
                })
            }
        }
    }
}

/// Reads a package's declarations once.
fn load(sources: &Sources, packages: &mut HashMap<String, Package>, path: &str) -> Result<()> {
    if packages.contains_key(path) {
        return Ok(());
    }
    let directory = sources.package(path)?;
    let mut package = Package::default();
    let entries = std::fs::read_dir(&directory)
        .with_context(|| format!("reading the package {}", directory.display()))?;
    for entry in entries {
        let file = entry?.path();
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let generated = name.starts_with("zz_generated") || name.ends_with(".pb.go");
        if is_go(&file) && !generated && !name.ends_with("_test.go") {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            package.read(&text);
        }
    }
    packages.insert(path.to_owned(), package);
    Ok(())
}

fn is_go(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "go")
}

impl Package {
    fn read(&mut self, text: &str) {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line == "import (" {
                for line in lines.by_ref().take_while(|line| *line != ")") {
                    self.import(line.trim());
                }
            } else if let Some(single) = line.strip_prefix("import ") {
                self.import(single.trim());
            } else if let Some(declaration) = line.strip_prefix("type ") {
                let Some((name, rest)) = declaration.split_once(' ') else {
                    continue;
                };
                if rest == "struct {" {
                    let body = lines.by_ref().take_while(|line| *line != "}");
                    let body = body.map(str::to_owned).collect();
                    self.declarations
                        .insert(name.to_owned(), Declaration::Struct(body));
                } else if rest == "struct{}" {
                    self.declarations
                        .insert(name.to_owned(), Declaration::Struct(Vec::new()));
                } else if !rest.starts_with("interface") && !rest.starts_with("struct") {
                    let expression = rest.trim_start_matches("= ").trim();
                    let expression = expression.split(" //").next().unwrap_or(expression);
                    self.declarations
                        .insert(name.to_owned(), Declaration::Alias(expression.to_owned()));
                }
            }
        }
    }

    /// `alias "path"` or `"path"`.
    fn import(&mut self, line: &str) {
        let Some((alias, rest)) = line.split_once('"') else {
            return;
        };
        let path = rest.trim_end_matches('"');
        let alias = match alias.trim() {
            "" => path.rsplit('/').next().unwrap_or(path),
            alias => alias,
        };
        self.imports.insert(alias.to_owned(), path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_lines() {
        let parse = |line| RawField::parse(line).expect(line);
        assert_eq!(
            parse("\tImage string `json:\"image,omitempty\" protobuf:\"bytes,2,opt,name=image\"`"),
            RawField {
                number: 2,
                name: "image".into(),
                omit: Omit::Empty,
                r#type: "string".into()
            }
        );
        assert_eq!(
            parse("\tVolumeSource `json:\",inline\" protobuf:\"bytes,2,opt,name=volumeSource\"`"),
            RawField {
                number: 2,
                name: ".".into(),
                omit: Omit::Never,
                r#type: "VolumeSource".into()
            }
        );
        assert_eq!(
            parse("\tmetav1.TypeMeta `json:\",inline\"`"),
            RawField {
                number: 0,
                name: ".".into(),
                omit: Omit::Never,
                r#type: "metav1.TypeMeta".into()
            }
        );
        assert_eq!(RawField::parse("\t// Old *X `json:\"old\"`"), None);
        assert_eq!(RawField::parse(""), None);
    }

    #[test]
    fn names_map_both_ways() {
        let (path, name) = go_name("io.k8s.api.core.v1.Pod").expect("a definition");
        assert_eq!(
            (path.as_str(), name.as_str()),
            ("k8s.io/api/core/v1", "Pod")
        );
        assert_eq!(openapi_name(&path, &name), "io.k8s.api.core.v1.Pod");
    }

    #[test]
    fn packages_are_read_line_by_line() {
        let mut package = Package::default();
        package.read(
            "package v1\n\nimport (\n\tmetav1 \"k8s.io/apimachinery/pkg/apis/meta/v1\"\n\t\
             \"k8s.io/apimachinery/pkg/types\"\n)\n\ntype Phase string\n\ntype Thing struct {\n\tA \
             string `json:\"a\"`\n}\n",
        );
        assert_eq!(package.imports["types"], "k8s.io/apimachinery/pkg/types");
        assert_eq!(
            package.imports["metav1"],
            "k8s.io/apimachinery/pkg/apis/meta/v1"
        );
        assert!(matches!(&package.declarations["Phase"], Declaration::Alias(a) if a == "string"));
        assert!(matches!(&package.declarations["Thing"], Declaration::Struct(b) if b.len() == 1));
    }
}
