//! How a plugin's section is read: the plugin registers key, parser and check, and finds the result by its type.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::as_go::AsGo;
use super::fields;
use crate::check::Warning;
use crate::diagnostic::{Diagnostic, Rule};
use crate::suggest;
use crate::yaml::{Node, NodeValue, Position};

/// Plugins of earlier versions of Prow, what they are part of now, and what of it they turn on.
const FORMER_PLUGINS: [(&str, &str, &str); 1] =
    [("transfer-issue", "issue-management", "/transfer")];

/// What a problem of a section means for the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// It cannot be used.
    Error,
    /// Nobody reads the field; the rest is used. Prow's `unknown-fields`.
    Unread,
    /// It is used; Prow at most logs what is odd about it, and checkconfig's `plugin-advice` tells.
    Advice,
}

/// Something wrong with a section, or odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path below the section, as in `0.repos.2`; empty for the section as a whole.
    pub path: String,
    pub message: String,
    pub kind: ProblemKind,
    /// What to do about it; empty if unknown.
    pub help: String,
}

impl Problem {
    /// A problem that makes the configuration unusable.
    #[must_use]
    pub fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            kind: ProblemKind::Error,
            help: String::new(),
        }
    }

    /// Something that is read and that its author may want to know about: deprecated, or without effect.
    #[must_use]
    pub fn advice(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: ProblemKind::Advice,
            ..Self::error(path, message)
        }
    }
}

type Parsed = Option<Arc<dyn Any + Send + Sync>>;
type Parse = Box<dyn Fn(&Value) -> (Parsed, Vec<Problem>) + Send + Sync>;

/// A section of a plugin.
pub struct Section {
    key: &'static str,
    schema: Option<Value>,
    parse: Parse,
}

impl Section {
    /// A section that serde reads. `T` and the structs in it want defaults for their fields: a field that is `null`
    /// counts as absent, one of a list or a map as zero, and the whole section as absent if the file lacks it. Fields
    /// that `T` does not know become warnings. `check` sees the value last and
    /// may complete it.
    pub fn new<T>(
        key: &'static str,
        check: impl Fn(&mut T) -> Vec<Problem> + Send + Sync + 'static,
    ) -> Self
    where
        T: DeserializeOwned + Default + Send + Sync + 'static,
    {
        let parse = move |value: &Value| -> (Parsed, Vec<Problem>) {
            let mut problems = Vec::new();
            let mut value = if value.is_null() {
                T::default()
            } else {
                let mut unknown = Vec::new();
                let mut track = serde_path_to_error::Track::new();
                let deserializer = serde_path_to_error::Deserializer::new(AsGo(value), &mut track);
                let read: Result<T, _> =
                    serde_ignored::deserialize(deserializer, |path| unknown.push(path.to_string()));
                problems.extend(unknown.into_iter().map(|path| {
                    let steps: Vec<&str> = path.split('.').filter(|step| *step != "?").collect();
                    let (field, parent) = steps.split_last().unwrap_or((&"", &[]));
                    let beside = below(value, parent);
                    let is_free = |name: &&str| {
                        beside.is_none_or(|beside| {
                            !beside.keys().any(|key| key.eq_ignore_ascii_case(name))
                        })
                    };
                    let known = fields::known::<T>(parent).iter().copied();
                    Problem {
                        kind: ProblemKind::Unread,
                        help: suggest::did_you_mean(field, known.filter(is_free)),
                        ..Problem::error(steps.join("."), format!("unknown field {field:?}"))
                    }
                }));
                match read {
                    Ok(value) => value,
                    Err(e) => {
                        problems.push(Problem::error(
                            dotted(&track.path().to_string()),
                            e.to_string(),
                        ));
                        return (None, problems);
                    }
                }
            };
            problems.extend(check(&mut value));
            (Some(Arc::new(value)), problems)
        };
        Self {
            key,
            schema: None,
            parse: Box::new(parse),
        }
    }

    /// A JSON Schema (draft 2020-12) of the section, for editors; it may not refer to anything outside of itself.
    #[must_use]
    pub fn described(self, schema: Value) -> Self {
        Self {
            schema: Some(schema),
            ..self
        }
    }
}

/// `a[0].b` → `a.0.b`.
fn dotted(path: &str) -> String {
    path.replace(['[', ']'], ".")
        .replace("..", ".")
        .trim_matches('.')
        .to_owned()
}

/// The keys at the end of a path of keys and indexes.
fn below<'v>(value: &'v Value, path: &[&str]) -> Option<&'v serde_json::Map<String, Value>> {
    let step = |value: &'v Value, step: &&str| match value {
        Value::Object(map) => map.get(*step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    };
    path.iter().try_fold(value, step)?.as_object()
}

/// The sections and names of all plugins that are built in.
#[derive(Default)]
pub struct Registry {
    sections: Vec<Section>,
    names: Option<Vec<String>>,
    built: Option<Vec<String>>,
    external: BTreeMap<String, String>,
    identity: Identity,
}

/// Of one registry with what it knows: another one may read the same files otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity(Arc<()>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("sections", &self.keys().collect::<Vec<_>>())
            .field("names", &self.names)
            .finish()
    }
}

impl Registry {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a section; a later one of the same key replaces the former.
    #[must_use]
    pub fn with(mut self, section: Section) -> Self {
        self.sections.retain(|known| known.key != section.key);
        self.sections.push(section);
        self.identity = Identity::default();
        self
    }

    /// The names that `plugins` may hold; others are told of, and refused where the load says so (CFG-112, HOOK-054).
    /// Without names nothing is checked.
    #[must_use]
    pub fn with_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self.identity = Identity::default();
        self
    }

    /// Those of the names that do something; others are accepted with a warning (HOOK-054). Without, all do.
    #[must_use]
    pub fn with_built<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.built = Some(names.into_iter().map(Into::into).collect());
        self.identity = Identity::default();
        self
    }

    /// Names of external plugins that run here, so that no endpoint is called, and what somebody who gives them one should
    /// know.
    #[must_use]
    pub fn with_external<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = (S, String)>,
    ) -> Self {
        let names = names.into_iter();
        self.external = names.map(|(name, help)| (name.into(), help)).collect();
        self.identity = Identity::default();
        self
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn schema(&self, key: &str) -> Option<&Value> {
        let section = self.sections.iter().find(|section| section.key == key)?;
        section.schema.as_ref()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.sections.iter().map(|section| section.key)
    }

    pub(super) fn knows(&self, plugin: &str) -> bool {
        self.names
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == plugin))
    }

    pub(super) fn is_built(&self, plugin: &str) -> bool {
        self.built
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == plugin))
    }

    /// For an external plugin that runs here: what to know about its endpoint.
    pub(super) fn runs_here(&self, external: &str) -> Option<&str> {
        self.external.get(external).map(String::as_str)
    }

    /// For the former name of a plugin, if it is known still: what it is part of now, and what of it is on.
    pub(super) fn former_name(&self, plugin: &str) -> Option<(&'static str, &'static str)> {
        let mut former = FORMER_PLUGINS.iter();
        let (_, now, what) = former.find(|(former, _, _)| *former == plugin)?;
        self.knows(plugin).then_some((*now, *what))
    }

    /// What somebody who names an unknown plugin should do.
    pub(super) fn instead_of(&self, plugin: &str) -> String {
        if self.external.contains_key(plugin) {
            return "it is turned on in external_plugins".to_owned();
        }
        let names = self.names.iter().flatten().map(String::as_str);
        suggest::did_you_mean(plugin, names)
    }

    pub(super) fn parse(
        &self,
        values: &BTreeMap<String, Value>,
        sources: &[(String, Arc<Node>)],
        found: &mut Vec<Diagnostic>,
    ) -> BTreeMap<&'static str, Arc<dyn Any + Send + Sync>> {
        let mut parsed = BTreeMap::new();
        for section in &self.sections {
            let (value, problems) =
                (section.parse)(values.get(section.key).unwrap_or(&Value::Null));
            for problem in problems {
                let (file, places) = place(sources, section.key, &problem.path);
                // What nobody reads, or should write any more, is the key; what is wrong is the value.
                let (rule, at) = match problem.kind {
                    ProblemKind::Error => (Rule::Invalid, places.value),
                    ProblemKind::Unread => (Rule::UnknownField, places.key),
                    ProblemKind::Advice => (Rule::Warning(Warning::PluginAdvice), places.key),
                };
                let field = match problem.path.as_str() {
                    "" => section.key.to_owned(),
                    path => format!("{}.{path}", section.key),
                };
                let diagnostic = Diagnostic::error(rule, file, problem.message)
                    .at(at)
                    .field(field)
                    .help(problem.help);
                found.push(match problem.kind {
                    ProblemKind::Error => diagnostic,
                    ProblemKind::Unread | ProblemKind::Advice => diagnostic.warning(),
                });
            }
            parsed.extend(value.map(|value| (section.key, value)));
        }
        parsed
    }
}

/// The first place below a key where a text stands, else the key's value.
pub(super) fn place_of_text(
    sources: &[(String, Arc<Node>)],
    key: &str,
    text: &str,
) -> (String, Position) {
    fn find(node: &Node, text: &str) -> Option<Position> {
        match &node.value {
            NodeValue::String(s) => (s == text).then_some(node.at),
            NodeValue::Sequence(items) => items.iter().find_map(|item| find(item, text)),
            NodeValue::Mapping(entries) => entries.iter().find_map(|e| {
                if e.key == text {
                    Some(e.key_at)
                } else {
                    find(&e.value, text)
                }
            }),
            _ => None,
        }
    }
    let found = sources
        .iter()
        .find_map(|(file, root)| Some((file.clone(), find(root.get(key)?, text)?)));
    found.unwrap_or_else(|| {
        let (file, places) = place(sources, key, "");
        (file, places.value)
    })
}

/// Where a key stands, and its value; the same for an item of a list.
#[derive(Clone, Copy, Default)]
struct Places {
    key: Position,
    value: Position,
}

/// The deepest part of a path that some file has. Merged lists count through the files, so that this is a guess for
/// supplements.
fn place(sources: &[(String, Arc<Node>)], key: &str, path: &str) -> (String, Places) {
    for (file, root) in sources {
        let Some(mut node) = root.get(key) else {
            continue;
        };
        let mut rest = path;
        let mut key = node.at;
        while !rest.is_empty() {
            let Some((child, at, after)) = step(node, rest) else {
                break;
            };
            (node, key, rest) = (child, at, after);
        }
        let value = node.at;
        return (file.clone(), Places { key, value });
    }
    let first = sources.first().map(|(file, _)| file.clone());
    (first.unwrap_or_default(), Places::default())
}

/// The child that a path leads to first, and where its key stands. Keys may hold dots: the longest that fits is taken.
fn step<'n, 'p>(node: &'n Arc<Node>, path: &'p str) -> Option<(&'n Arc<Node>, Position, &'p str)> {
    match &node.value {
        NodeValue::Sequence(items) => {
            let (index, rest) = path.split_once('.').unwrap_or((path, ""));
            let item = items.get(index.parse::<usize>().ok()?)?;
            Some((item, item.at, rest))
        }
        NodeValue::Mapping(entries) => entries
            .iter()
            .filter_map(|entry| {
                let rest = path.strip_prefix(entry.key.as_str())?;
                let rest = if rest.is_empty() {
                    rest
                } else {
                    rest.strip_prefix('.')?
                };
                Some((&entry.value, entry.key_at, rest))
            })
            .min_by_key(|(_, _, rest)| rest.len()),
        _ => None,
    }
}
