//! JSON Schemas (draft 2020-12) of the files of a configuration, for editors: generated from the types that read them.

use serde_json::{Map, Value, json};

use crate::config::{Config, JobConfig};
use crate::decode::{Definitions, Describe};
use crate::in_repo::ProwYaml;
use crate::plugins::{Core, PLUGIN_SECTIONS, PROW_PLUGINS, Registry};

/// A file that has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `config.yaml`.
    Config,
    /// `plugins.yaml`.
    Plugins,
    /// A file of the job tree.
    Jobs,
    /// `.prow.yaml` and files below `.prow/`.
    ProwYaml,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Config, Self::Plugins, Self::Jobs, Self::ProwYaml];

    fn title(self) -> &'static str {
        match self {
            Self::Config => "Prow's config.yaml",
            Self::Plugins => "Prow's plugins.yaml",
            Self::Jobs => "A file of Prow jobs",
            Self::ProwYaml => "Prow jobs of a repository itself: .prow.yaml, .prow/*.yaml",
        }
    }
}

/// The schema of a kind of file. With a registry, the sections of its plugins are described as they say.
#[must_use]
pub fn schema(kind: Kind, registry: Option<&Registry>) -> Value {
    // Job files and plugins' configuration are read so that a string may be written as another scalar (CFG-021).
    let mut definitions = Definitions::new(kind != Kind::Config);
    let root = match kind {
        Kind::Config => Config::describe(&mut definitions),
        Kind::Plugins => Core::describe(&mut definitions),
        Kind::Jobs => JobConfig::describe(&mut definitions),
        Kind::ProwYaml => ProwYaml::describe(&mut definitions),
    };
    let mut defs = definitions.into_objects();
    if kind == Kind::Plugins
        && let Some(name) = root["$ref"].as_str().and_then(|at| at.rsplit('/').next())
        && let Some(core) = defs.get_mut(name)
    {
        add_sections(core, registry);
    }
    let mut schema = Map::new();
    schema.insert(
        "$schema".to_owned(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    schema.insert("title".to_owned(), kind.title().into());
    schema.insert("$ref".to_owned(), root["$ref"].clone());
    schema.insert("$defs".to_owned(), defs.into());
    Value::Object(schema)
}

/// Sections that plugins read themselves: as they describe them, else anything.
fn add_sections(core: &mut Value, registry: Option<&Registry>) {
    let described = |key: &str| registry.and_then(|registry| registry.schema(key));
    let own = registry.into_iter().flat_map(Registry::keys);
    let keys: Vec<&str> = PLUGIN_SECTIONS.into_iter().chain(own).collect();
    if let Some(properties) = core.get_mut("properties").and_then(Value::as_object_mut) {
        for key in keys {
            let schema = described(key).cloned().unwrap_or(Value::Bool(true));
            properties.insert(key.to_owned(), schema);
        }
    }
}

impl Describe for crate::plugins::Plugins {
    /// Lists of names by org or repository, alone or with exclusions.
    fn describe(into: &mut Definitions) -> Value {
        // External plugins have names of their own, but not here.
        let names = json!({"type": ["array", "null"], "items": {"enum": PROW_PLUGINS.as_slice()}});
        let of_org = crate::plugins::OrgPlugins::describe(into);
        json!({
            "type": ["object", "null"],
            "additionalProperties": {"anyOf": [names, of_org]},
        })
    }
}
