//! What one OWNERS or OWNERS_ALIASES file says.

use std::collections::{BTreeMap, BTreeSet};

use super::yaml::{self, Value};
use crate::types::norm_login;

/// Larger files are refused: the largest known has a few hundred lines.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OwnersParseError(pub String);

impl OwnersParseError {
    /// Where the reader of YAML stopped, counted from 1; `None` if it is no fault of a single line.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        let number = self.0.strip_prefix("line ")?.split(':').next()?;
        number.parse().ok()
    }
}

/// People and labels for some files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnersEntry {
    /// As written.
    pub approvers: Vec<String>,
    pub reviewers: Vec<String>,
    pub required_reviewers: Vec<String>,
    pub labels: Vec<String>,
}

impl OwnersEntry {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.approvers.is_empty()
            && self.reviewers.is_empty()
            && self.required_reviewers.is_empty()
            && self.labels.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnersDirOptions {
    /// Owners of the directories above do not own what is below this one.
    pub no_parent_owners: bool,
    /// What has no OWNERS file of its own below this directory needs no approval.
    pub auto_approve_unowned_subfolders: bool,
}

/// An OWNERS file: the simple form, or filters (OWN-003, OWN-004).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnersFile {
    pub options: OwnersDirOptions,
    pub content: OwnersContent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnersContent {
    Simple(OwnersEntry),
    /// By pattern, sorted.
    Filters(BTreeMap<String, OwnersEntry>),
}

impl OwnersFile {
    /// The simple form if the file has any of its lists, else filters (OWN-004).
    ///
    /// # Errors
    /// It is neither: then the directory has no owners of its own (OWN-006).
    pub fn parse(bytes: &[u8]) -> Result<Self, OwnersParseError> {
        let value = document(bytes)?;
        let simple = simple(&value);
        let says_nothing =
            |file: &Self| matches!(&file.content, OwnersContent::Simple(entry) if entry.is_empty());
        if simple.as_ref().is_ok_and(|file| !says_nothing(file)) {
            return simple;
        }
        match filters(&value) {
            Ok(file) => match simple {
                // A broken simple form without filters would vanish silently in the other form.
                Err(error) if file.is_empty() => Err(error),
                _ => Ok(file),
            },
            Err(error) => Err(simple.err().unwrap_or(error)),
        }
    }

    fn is_empty(&self) -> bool {
        self.options == OwnersDirOptions::default()
            && matches!(&self.content, OwnersContent::Filters(filters) if filters.is_empty())
    }

    /// The owners of one Markdown file, from the YAML header that it begins with; `None` without a header (OWN-011).
    ///
    /// # Errors
    /// The header is not in the simple form.
    pub fn parse_markdown(bytes: &[u8]) -> Result<Option<Self>, OwnersParseError> {
        let text = String::from_utf8_lossy(bytes);
        if !text.starts_with("---\n") {
            return Ok(None);
        }
        // The header ends at the last such line, of which the first document counts.
        match text.rfind("\n---") {
            Some(end) if end >= 4 => simple(&document(text[..end + 4].as_bytes())?).map(Some),
            _ => Ok(None),
        }
    }
}

/// Groups of people, by normalised name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aliases(BTreeMap<String, BTreeSet<String>>);

impl Aliases {
    /// Reads an OWNERS_ALIASES file. The second value names groups that differ by case alone, of which the last one
    /// counts (OWN-007).
    ///
    /// # Errors
    /// It is no mapping of names to lists of names.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Vec<String>), OwnersParseError> {
        let value = document(bytes)?;
        let groups = match (&value, value.field("aliases")) {
            (Value::Map(_) | Value::Null, None | Some(Value::Null)) => {
                return Ok(Default::default());
            }
            (Value::Map(_), Some(Value::Map(groups))) => groups,
            (Value::Map(_), Some(other)) => {
                return Err(error(format!(
                    "aliases must be a mapping of groups, not a {}",
                    other.kind()
                )));
            }
            (other, _) => {
                return Err(error(format!(
                    "the file must be a mapping, not a {}",
                    other.kind()
                )));
            }
        };
        let mut aliases = Self::default();
        let mut doubled = Vec::new();
        for (name, members) in groups {
            let members = match members {
                Value::Null => BTreeSet::new(),
                // `{a, b}`: people forget which brackets make a list.
                Value::Map(entries) => entries.iter().map(|(key, _)| norm_login(key)).collect(),
                Value::List(members) => members
                    .iter()
                    .map(|member| match member {
                        Value::String(login) => Ok(norm_login(login)),
                        other => Err(error(format!(
                            "unexpected type for a member of alias group '{name}': {}",
                            other.kind()
                        ))),
                    })
                    .collect::<Result<_, _>>()?,
                Value::String(_) => {
                    return Err(error(format!(
                        "alias group '{name}' must contain a list of members"
                    )));
                }
                other => {
                    return Err(error(format!(
                        "unexpected type for alias group '{name}': {}",
                        other.kind()
                    )));
                }
            };
            if aliases.0.insert(norm_login(name), members).is_some() {
                doubled.push(name.clone());
            }
        }
        Ok((aliases, doubled))
    }

    /// The members of a group, whatever the case of its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.0.get(&norm_login(name))
    }

    /// Name and members of each group, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0
            .iter()
            .map(|(name, members)| (name.as_str(), members))
    }

    /// Logins normalised, groups replaced by their members; groups within groups are not (OWN-008).
    #[must_use]
    pub fn expand(&self, logins: &[String]) -> BTreeSet<String> {
        let mut expanded = BTreeSet::new();
        for login in logins {
            match self.get(login) {
                Some(members) => expanded.extend(members.iter().cloned()),
                None => {
                    expanded.insert(norm_login(login));
                }
            }
        }
        expanded
    }
}

fn error(text: impl Into<String>) -> OwnersParseError {
    OwnersParseError(text.into())
}

fn document(bytes: &[u8]) -> Result<Value, OwnersParseError> {
    if bytes.len() > MAX_BYTES {
        return Err(error(format!("the file is larger than {MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| error("the file is not UTF-8"))?;
    yaml::parse(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(error)
}

fn simple(value: &Value) -> Result<OwnersFile, OwnersParseError> {
    Ok(OwnersFile {
        options: options(value)?,
        content: OwnersContent::Simple(entry(value, Scalars::Strings)?),
    })
}

fn filters(value: &Value) -> Result<OwnersFile, OwnersParseError> {
    let mut filters = BTreeMap::new();
    match value.field("filters") {
        None | Some(Value::Null) => {}
        Some(Value::Map(entries)) => {
            for (pattern, value) in entries {
                filters.insert(pattern.clone(), entry(value, Scalars::Any)?);
            }
        }
        Some(other) => {
            return Err(error(format!(
                "filters must be a mapping, not a {}",
                other.kind()
            )));
        }
    }
    Ok(OwnersFile {
        options: options(value)?,
        content: OwnersContent::Filters(filters),
    })
}

fn options(value: &Value) -> Result<OwnersDirOptions, OwnersParseError> {
    let options = match (value, value.field("options")) {
        (Value::Map(_) | Value::Null, None | Some(Value::Null)) => {
            return Ok(OwnersDirOptions::default());
        }
        (Value::Map(_), Some(options @ Value::Map(_))) => options,
        (Value::Map(_), Some(other)) => {
            return Err(error(format!(
                "options must be a mapping, not a {}",
                other.kind()
            )));
        }
        (other, _) => {
            return Err(error(format!(
                "the file must be a mapping, not a {}",
                other.kind()
            )));
        }
    };
    let flag = |name: &str| match options.field(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(error(format!(
            "options.{name} must be true or false, not a {}",
            other.kind()
        ))),
    };
    Ok(OwnersDirOptions {
        no_parent_owners: flag("no_parent_owners")?,
        auto_approve_unowned_subfolders: flag("auto_approve_unowned_subfolders")?,
    })
}

/// Whether numbers and booleans in lists pass for names: in filters they do, in the simple form they spoil the file. A
/// quirk of the reader that upstream uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scalars {
    Strings,
    Any,
}

fn entry(value: &Value, scalars: Scalars) -> Result<OwnersEntry, OwnersParseError> {
    if !matches!(value, Value::Map(_) | Value::Null) {
        return Err(error(format!("expected a mapping, not a {}", value.kind())));
    }
    let list = |name: &str| match value.field(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::List(items)) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.clone()),
                Value::Null => Ok(String::new()),
                Value::Number(text) if scalars == Scalars::Any => Ok(text.clone()),
                Value::Bool(value) if scalars == Scalars::Any => Ok(value.to_string()),
                other => Err(error(format!(
                    "{name} must be a list of names, but one is a {}: put it in quotes",
                    other.kind()
                ))),
            })
            .collect(),
        Some(other) => Err(error(format!(
            "{name} must be a list of names, not a {}",
            other.kind()
        ))),
    };
    Ok(OwnersEntry {
        approvers: list("approvers")?,
        reviewers: list("reviewers")?,
        required_reviewers: list("required_reviewers")?,
        labels: list("labels")?,
    })
}
