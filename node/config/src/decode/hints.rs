//! What a text may be, where its type does not tell: for the schemas that editors use.

use serde_json::{Value, json};

use super::describe::GO_DURATION;
use crate::plugins::PROW_PLUGINS;

const AGENTS: &[&str] = &["kubernetes", "jenkins", "tekton-pipeline"];
const JOB_TYPES: &[&str] = &["presubmit", "postsubmit", "periodic", "batch"];
/// Those of which there is something to say on GitHub.
const GITHUB_JOB_TYPES: &[&str] = &["presubmit", "postsubmit"];
const JOB_STATES: &[&str] = &[
    "scheduling",
    "triggered",
    "pending",
    "success",
    "failure",
    "aborted",
    "error",
];
const MERGE_BLOCKS: &[&str] = &["ignore", "permit", "block"];
const PATH_STRATEGIES: &[&str] = &["legacy", "single", "explicit"];
const LOG_LEVELS: &[&str] = &[
    "panic", "fatal", "error", "warn", "warning", "info", "debug", "trace",
];
/// Of jobs of all agents: those of Jenkins may hold slashes.
const JOB_NAME: &str = "^[A-Za-z0-9._/-]+$";

/// What a text, or each of several, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// One of these words, or empty.
    Word(&'static [&'static str]),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One of these words in any case, or empty.
    AnyCase(&'static [&'static str]),
    /// One of these words, most likely: others are taken without a word.
    Likely(&'static [&'static str]),
    /// A duration in Go's text form.
    Duration,
    /// An expression in Go's syntax; editors know no such format, and would refuse it by their own.
    Regex,
    /// A Go template.
    Template,
    /// A schedule (JOB-022).
    Cron,
    /// A name that has to be there, by its expression.
    Name(&'static str),
}

const HINTS: &[(&str, &str, Hint)] = &[
    ("JobBase", "name", Hint::Name(JOB_NAME)),
    ("JobBase", "agent", Hint::Word(AGENTS)),
    ("Presubmit", "trigger", Hint::Regex),
    ("Brancher", "branches", Hint::Regex),
    ("Brancher", "skip_branches", Hint::Regex),
    ("ChangeMatcher", "run_if_changed", Hint::Regex),
    ("ChangeMatcher", "skip_if_only_changed", Hint::Regex),
    ("Periodic", "interval", Hint::Duration),
    ("Periodic", "minimum_interval", Hint::Duration),
    ("Periodic", "cron", Hint::Cron),
    ("Retry", "interval", Hint::Duration),
    ("ProwConfig", "log_level", Hint::AnyCase(LOG_LEVELS)),
    (
        "GitHubReporter",
        "job_types_to_report",
        Hint::Choice(GITHUB_JOB_TYPES),
    ),
    (
        "SlackReporter",
        "job_types_to_report",
        Hint::Likely(JOB_TYPES),
    ),
    (
        "SlackReporter",
        "job_states_to_report",
        Hint::Choice(JOB_STATES),
    ),
    ("SlackReporter", "report_template", Hint::Template),
    (
        "SlackReporterConfig",
        "job_states_to_report",
        Hint::Choice(JOB_STATES),
    ),
    ("SlackReporterConfig", "report_template", Hint::Template),
    ("Controller", "job_url_template", Hint::Template),
    ("Controller", "report_template", Hint::Template),
    ("Controller", "report_templates", Hint::Template),
    (
        "GCSConfiguration",
        "path_strategy",
        Hint::Word(PATH_STRATEGIES),
    ),
    ("Gerrit", "allowed_presubmit_trigger_re", Hint::Regex),
    ("OwnersDirDenylist", "repos", Hint::Regex),
    ("OwnersDirDenylist", "default", Hint::Regex),
    (
        "Tide",
        "github_merge_blocks_policy",
        Hint::Choice(MERGE_BLOCKS),
    ),
    ("MergeCommitTemplate", "title", Hint::Template),
    ("MergeCommitTemplate", "body", Hint::Template),
    ("ContextPolicy", "optional-regex-contexts", Hint::Regex),
    ("OrgPlugins", "plugins", Hint::Choice(&PROW_PLUGINS)),
    ("Policy", "exclude", Hint::Regex),
    ("Policy", "include", Hint::Regex),
];

pub(super) fn of(owner: &str, field: &str) -> Option<Hint> {
    HINTS
        .iter()
        .find(|(of, name, _)| *of == owner && *name == field)
        .map(|(.., hint)| *hint)
}

impl Hint {
    /// Puts the hint to the text, or to the texts of a list or mapping.
    pub(super) fn apply(self, schema: &mut Value) {
        for inner in ["items", "additionalProperties"] {
            if schema.get(inner).is_some_and(Value::is_object) {
                return self.apply(&mut schema[inner]);
            }
        }
        match self {
            Self::Word(words) => *schema = one_of(words),
            Self::Choice(words) => *schema = json!({"enum": words}),
            // Editors offer the words; the second half is what others are checked with.
            Self::AnyCase(words) => {
                let text = json!({"type": "string", "pattern": in_any_case(words)});
                *schema = json!({"anyOf": [one_of(words), text]});
            }
            Self::Likely(words) => *schema = json!({"anyOf": [one_of(words), schema]}),
            Self::Duration => {
                schema["format"] = "go-duration".into();
                schema["pattern"] = format!("^$|{GO_DURATION}").into();
            }
            Self::Regex => schema["format"] = "go-regexp".into(),
            Self::Template => schema["format"] = "go-template".into(),
            Self::Cron => schema["format"] = "cron".into(),
            Self::Name(pattern) => {
                *schema = json!({"type": "string", "pattern": pattern});
            }
        }
    }
}

/// One of the words; what counts as not set is allowed too.
pub(crate) fn one_of(words: &[&str]) -> Value {
    let mut values: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
    values.push("".into());
    values.push(Value::Null);
    json!({"enum": values})
}

/// Without a flag: expressions of JSON Schema have none.
fn in_any_case(words: &[&str]) -> String {
    let in_any_case = |word: &&str| -> String {
        word.chars()
            .map(|c| format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()))
            .collect()
    };
    let words: Vec<String> = words.iter().map(in_any_case).collect();
    format!("^({})$", words.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_prowjob::{ProwJobState, ProwJobType};

    #[test]
    fn words_are_those_that_the_code_knows() {
        let types: Vec<&str> = ProwJobType::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(types, JOB_TYPES);
        let states: Vec<&str> = ProwJobState::ALL
            .iter()
            .map(|state| state.as_str())
            .collect();
        assert_eq!(states, JOB_STATES);
        for word in PATH_STRATEGIES {
            assert!(
                trireme_prowjob::gcs_paths::PathStrategy::from_word(word).is_some(),
                "{word}"
            );
        }
    }

    /// A hint for a field that is not there any more helps nobody.
    #[test]
    fn every_hint_is_used() {
        let all: String = crate::json_schema::Kind::ALL
            .iter()
            .map(|kind| crate::json_schema::schema(*kind, None).to_string())
            .collect();
        for (owner, field, _) in HINTS {
            assert!(all.contains(&format!("\"{field}\":")), "{owner}.{field}");
        }
        let formats = ["go-regexp", "go-template", "go-duration", "\"cron\""];
        for format in formats {
            assert!(all.contains(format), "{format}");
        }
    }
}
