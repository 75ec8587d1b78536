//! What is wrong, or odd, and where.

use serde::Serialize;

use crate::check::Warning;
use crate::yaml::Position;

/// Whether a configuration with this finding is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
    /// Good to know, and nothing wrong.
    Note,
}

/// The kind of a finding; checkconfig's switches name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A file that is no YAML, cannot be read, or clashes with another one.
    File,
    /// A value of the wrong type.
    Type,
    /// A field that nobody reads (CFG-024).
    UnknownField,
    /// A key that is written twice in one mapping (CFG-026).
    DuplicateKey,
    /// A second YAML document in a file (CFG-026).
    ExtraDocument,
    /// A value that is well-formed and wrong.
    Invalid,
    /// What one of checkconfig's warnings looks for.
    Warning(Warning),
}

impl Rule {
    /// The name in reports. That of a warning is what `--warnings` and `--exclude-warning` take.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Type => "type",
            Self::UnknownField => "unknown-field",
            Self::DuplicateKey => "duplicate-key",
            Self::ExtraDocument => "extra-document",
            Self::Invalid => "invalid",
            Self::Warning(warning) => warning.name(),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One finding. Ordered by file and place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Path of the file as the loader was given it; empty for what concerns no single file.
    pub file: String,
    /// 1-based; 0 if the whole file is meant.
    pub line: u32,
    /// 1-based; 0 if the whole line is meant.
    pub column: u32,
    pub severity: Severity,
    pub rule: Rule,
    /// The field, as in `presubmits["org/repo"][3].spec.containers[0].env`; empty if none is meant.
    pub field: String,
    pub message: String,
    /// What to do about it, where that is known; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl Diagnostic {
    /// An error about a whole file, or about none in particular.
    #[must_use]
    pub fn error(rule: Rule, file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            severity: Severity::Error,
            rule,
            field: String::new(),
            message: message.into(),
            help: String::new(),
        }
    }

    #[must_use]
    pub fn at(mut self, at: Position) -> Self {
        (self.line, self.column) = (at.line, at.column);
        self
    }

    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The message with what to do about it, as one sentence.
    #[must_use]
    pub fn advice(&self) -> String {
        if self.help.is_empty() {
            self.message.clone()
        } else {
            format!("{}; {}", self.message, self.help)
        }
    }

    #[must_use]
    pub fn warning(self) -> Self {
        Self {
            severity: Severity::Warning,
            ..self
        }
    }

    #[must_use]
    pub(crate) fn rule(self, rule: Rule) -> Self {
        Self { rule, ..self }
    }

    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
                if self.column > 0 {
                    write!(f, "{}:", self.column)?;
                }
            }
            write!(f, " ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.advice())
    }
}
