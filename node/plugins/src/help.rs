//! What a plugin says about itself (HOOK-080 … 082), as Deck's plugin help shows it.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use trireme_config::PluginConfig;
use trireme_forge::RepoId;

/// For which repositories help is asked.
pub struct HelpScope<'a> {
    pub plugins: &'a PluginConfig,
    /// Where the plugin is on.
    pub repos: &'a [RepoId],
}

impl HelpScope<'_> {
    /// What is configured in each repository, as far as there is something to say.
    pub(crate) fn per_repo(
        &self,
        about: impl Fn(&RepoId) -> Option<String>,
    ) -> Option<BTreeMap<String, String>> {
        let told = self.repos.iter();
        Some(
            told.filter_map(|repo| Some((repo.to_string(), about(repo)?)))
                .collect(),
        )
    }
}

/// One plugin's help, in the JSON that Deck reads: names as they are, absent lists as `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PluginHelp {
    /// HTML allowed.
    pub description: String,
    /// `org/repo` to what is configured there; `""` for everywhere.
    pub config: Option<BTreeMap<String, String>>,
    /// A commented piece of `plugins.yaml`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snippet: String,
    /// Filled in by the registry from the kinds of events that the plugin handles.
    #[serde(serialize_with = "null_if_empty")]
    pub events: Vec<String>,
    #[serde(serialize_with = "null_if_empty")]
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Command {
    pub usage: &'static str,
    /// Worth showing to newcomers.
    pub featured: bool,
    pub description: &'static str,
    pub examples: &'static [&'static str],
    pub who_can_use: &'static str,
}

fn null_if_empty<T: Serialize, S: Serializer>(list: &[T], out: S) -> Result<S::Ok, S::Error> {
    if list.is_empty() {
        out.serialize_none()
    } else {
        list.serialize(out)
    }
}
