//! What went wrong between a document and a value, and where.

use std::fmt::{self, Display, Write};

use serde::de::{Expected, Unexpected};

/// Names in messages are cut here: they come from documents, which may hold anything.
const NAME_CHARS_MAX: usize = 60;

/// An error of serde, which learns on its way out where it was.
#[derive(Debug)]
pub(super) struct Fault {
    /// The innermost first.
    path: Vec<Step>,
    what: String,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Fault {
    pub(super) fn new(what: impl Display) -> Self {
        let (path, what) = (Vec::new(), what.to_string());
        Self { path, what }
    }

    pub(super) fn in_key(mut self, key: &str) -> Self {
        self.path.push(Step::Key(shortened(key)));
        self
    }

    pub(super) fn in_index(mut self, index: usize) -> Self {
        self.path.push(Step::Index(index));
        self
    }

    /// The place, as `lines[3].customer`; empty if it is the whole. And what is wrong there.
    pub(super) fn told(self) -> (String, String) {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            // A `String` takes all that is written to it.
            let _ = match step {
                Step::Key(key) if path.is_empty() => write!(path, "{key}"),
                Step::Key(key) => write!(path, ".{key}"),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        (path, self.what)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl serde::ser::Error for Fault {
    fn custom<T: Display>(what: T) -> Self {
        Self::new(what)
    }
}

impl serde::de::Error for Fault {
    fn custom<T: Display>(what: T) -> Self {
        Self::new(what)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = Found(found);
        Self::new(format_args!("{found}, but {expected} is expected"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("it is missing").in_key(field)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let (variant, known) = (shortened(variant), known.join(", "));
        Self::new(format_args!("\"{variant}\" is none of {known}"))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::new("there is no such field in the type").in_key(field)
    }
}

/// What is there, in the words of documents. Texts may be private, and are not repeated.
struct Found<'a>(Unexpected<'a>);

impl Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(value) => write!(f, "{value}"),
            Unexpected::Unsigned(number) => write!(f, "the number {number}"),
            Unexpected::Signed(number) => write!(f, "the number {number}"),
            Unexpected::Float(number) => write!(f, "the number {number}"),
            Unexpected::Char(_) | Unexpected::Str(_) => f.write_str("a text"),
            Unexpected::Bytes(_) => f.write_str("bytes"),
            Unexpected::Unit | Unexpected::Option => f.write_str("null"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a map"),
            other => other.fmt(f),
        }
    }
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
