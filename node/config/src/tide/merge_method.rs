//! How a branch's pull requests are merged (CFG-051).

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::Tide;
use crate::decode::{Cx, Decode, Definitions, Describe, Empty, one_of};
use crate::diagnostic::Rule;
use crate::go_regex::GoRegex;
use crate::yaml::{Node, NodeValue};

/// A way to merge a pull request on GitHub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MergeMethod {
    #[default]
    Merge,
    Rebase,
    Squash,
}

impl MergeMethod {
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "merge" => Some(Self::Merge),
            "rebase" => Some(Self::Rebase),
            "squash" => Some(Self::Squash),
            _ => None,
        }
    }

    /// The word in configuration and in GitHub's API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Rebase => "rebase",
            Self::Squash => "squash",
        }
    }
}

const MERGE_METHODS: [&str; 3] = [
    MergeMethod::Merge.as_str(),
    MergeMethod::Rebase.as_str(),
    MergeMethod::Squash.as_str(),
];

/// The method of an org (or of a flat key), or methods by repository.
#[derive(Clone, Debug, Default)]
pub struct OrgMergeMethod {
    /// A word as written; checked when the configuration is loaded.
    pub method: String,
    /// By repository name or `*`.
    pub repos: BTreeMap<String, RepoMergeMethod>,
}

/// The method of a repository, or methods by branch.
#[derive(Clone, Debug, Default)]
pub struct RepoMergeMethod {
    pub method: String,
    /// By expression on the branch, in the order in which they are tried.
    pub branches: BTreeMap<String, String>,
    pub(crate) compiled: Vec<(GoRegex, String)>,
}

impl Decode for OrgMergeMethod {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        match &node.value {
            NodeValue::String(method) => Self {
                method: method.clone(),
                repos: BTreeMap::new(),
            },
            _ => Self {
                method: String::new(),
                repos: BTreeMap::decode(node, cx),
            },
        }
    }
}

impl Decode for RepoMergeMethod {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        match &node.value {
            NodeValue::String(method) => Self {
                method: method.clone(),
                ..Self::default()
            },
            _ => Self {
                branches: BTreeMap::decode(node, cx),
                ..Self::default()
            },
        }
    }
}

impl Describe for OrgMergeMethod {
    fn describe(into: &mut Definitions) -> Value {
        let repos = BTreeMap::<String, RepoMergeMethod>::describe(into);
        json!({"anyOf": [one_of(&MERGE_METHODS), repos]})
    }
}

impl Describe for RepoMergeMethod {
    fn describe(_: &mut Definitions) -> Value {
        let method = json!({"enum": MERGE_METHODS});
        let branches = json!({"type": ["object", "null"], "additionalProperties": method});
        json!({"anyOf": [one_of(&MERGE_METHODS), branches]})
    }
}

impl Empty for OrgMergeMethod {
    fn is_empty(&self) -> bool {
        false
    }
}

impl Serialize for OrgMergeMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.method.is_empty() || self.repos.is_empty() {
            return serializer.serialize_str(&self.method);
        }
        self.repos.serialize(serializer)
    }
}

impl Serialize for RepoMergeMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.method.is_empty() || self.branches.is_empty() {
            return serializer.serialize_str(&self.method);
        }
        self.branches.serialize(serializer)
    }
}

impl Tide {
    /// Compiles the branch expressions and checks every word.
    pub(crate) fn check_merge_methods(&mut self) -> Vec<(Rule, String)> {
        let mut wrong = Vec::new();
        let mut check = |method: &str, of: String, optional: bool| {
            if MergeMethod::from_word(method).is_none() && !(optional && method.is_empty()) {
                wrong.push((
                    Rule::Invalid,
                    format!("tide merge type: merge type {method:?} for {of} is not a valid type"),
                ));
            }
        };
        let mut bad_regexes = Vec::new();
        for (org, methods) in &mut self.merge_methods {
            check(&methods.method, org.clone(), true);
            for (repo, methods) in &mut methods.repos {
                check(&methods.method, format!("{org}/{repo}"), true);
                for (branch, method) in &methods.branches {
                    check(method, format!("{org}/{repo}@{branch}"), false);
                    match GoRegex::new(branch) {
                        Ok(re) => methods.compiled.push((re, method.clone())),
                        Err(_) => bad_regexes.push((
                            Rule::Invalid,
                            format!("tide merge type: regex {branch:?} is not valid"),
                        )),
                    }
                }
            }
        }
        wrong.extend(bad_regexes);
        wrong
    }

    /// How pull requests on a branch are merged: the flat key of the branch, the expressions of the repository, the
    /// flat key of the repository, the repository, the org. `*` stands for repositories that are not named.
    #[must_use]
    pub fn merge_method(&self, org: &str, repo: &str, branch: &str) -> MergeMethod {
        self.configured_merge_method(org, repo, branch)
            .and_then(MergeMethod::from_word)
            .unwrap_or_default()
    }

    fn configured_merge_method(&self, org: &str, repo: &str, branch: &str) -> Option<&str> {
        let set = |method: &'_ str| !method.is_empty();
        let flat = |key: String| {
            self.merge_methods
                .get(&key)
                .map(|m| m.method.as_str())
                .filter(|m| set(m))
        };
        let of_org = if org.is_empty() {
            None
        } else {
            self.merge_methods.get(org)
        };
        let of_repo = of_org
            .filter(|_| !repo.is_empty())
            .and_then(|methods| methods.repos.get(repo).or_else(|| methods.repos.get("*")));
        let named = !org.is_empty() && !repo.is_empty();
        let by_branch_key = if named && !branch.is_empty() {
            flat(format!("{org}/{repo}@{branch}"))
        } else {
            None
        };
        by_branch_key
            .or_else(|| {
                let (_, method) = of_repo?
                    .compiled
                    .iter()
                    .find(|(re, _)| re.is_match(branch))?;
                Some(method.as_str())
            })
            .or_else(|| {
                if named {
                    flat(format!("{org}/{repo}"))
                } else {
                    None
                }
            })
            .or_else(|| {
                of_repo
                    .map(|methods| methods.method.as_str())
                    .filter(|m| set(m))
            })
            .or_else(|| {
                of_org
                    .map(|methods| methods.method.as_str())
                    .filter(|m| set(m))
            })
    }
}
