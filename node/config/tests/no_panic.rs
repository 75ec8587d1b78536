//! Whatever stands in a file, the answer is a diagnostic, never a panic.

#![allow(clippy::unwrap_used, reason = "test code")]

use proptest::prelude::*;
use trireme_config::{Config, CronSchedule, FileSet, GoRegex, Layout, LoadOptions, Template, yaml};

/// Text of the pieces that mean something to a parser.
fn text(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat())
}

const YAML: &[&str] = &[
    "a", "b", ": ", "- ", "\n", "  ", "{", "}", "[", "]", ", ", "&x ", "*x", "<<: ", "|\n", ">-\n",
    "\"", "'", "!!int ", "1", "0x", "~", "---\n", "# c\n", "\\", "é", "\t", "? ", "yes",
];
const REGEX: &[&str] = &[
    "a",
    ".",
    "*",
    "+",
    "?",
    "(",
    ")",
    "[",
    "]",
    "^",
    "-",
    "{2}",
    "{,3}",
    "{9",
    "\\",
    "d",
    "b",
    "Q",
    "E",
    "|",
    "(?i)",
    "(?P<n>",
    "&&",
    "[:alpha:]",
    "p{Greek}",
    "é",
    "x{41}",
];
const TEMPLATE: &[&str] = &[
    "{{",
    "}}",
    "if ",
    "end",
    "else",
    " .Spec",
    ".Refs",
    " $x",
    " := ",
    " | ",
    "(",
    ")",
    "range ",
    "with ",
    "printf ",
    "\"%d %s\"",
    " 1",
    "-",
    "/*",
    "*/",
    "define \"x\"",
    "index",
    " .Spec.Refs.Pulls",
    "\n",
    "template \"x\" .",
];
const CONFIG: &[&str] = &[
    "presubmits:\n",
    "  a/b:\n",
    "  - name: x\n",
    "    spec:\n",
    "      containers:\n",
    "      - image: y\n",
    "periodics:\n",
    "- cron: '* * * * *'\n",
    "tide:\n",
    "  queries:\n",
    "  - orgs: [a]\n",
    "plank:\n",
    "  x: 1\n",
    "    branches: ['(']\n",
    "    trigger: a\n",
    "null\n",
    "[]\n",
    "presets:\n",
    "- labels: {a: b}\n",
    "    labels: {a: b}\n",
    "  env: [{name: A}]\n",
];

proptest! {
    #[test]
    fn yaml_parses_or_fails(text in text(YAML)) {
        if let Ok(document) = yaml::parse(text.as_bytes()) {
            let _ = document.root.to_json();
        }
    }

    #[test]
    fn what_compiles_as_go_compiles_here(text in text(REGEX)) {
        if let Ok(regex) = GoRegex::new(&text) {
            let _ = regex.is_match("aé1 \n");
        }
    }

    #[test]
    fn templates_parse_or_fail(text in text(TEMPLATE)) {
        if let Ok(template) = Template::parse(&text) {
            let _ = template.for_job(&trireme_prowjob::ProwJob::default());
        }
    }

    #[test]
    fn crons_parse_or_fail(text in "[-*/,0-9 ?A-Z@=]{0,20}") {
        if let Ok(schedule) = CronSchedule::parse(&text) {
            let _ = schedule.next_after(jiff::Timestamp::UNIX_EPOCH);
        }
    }

    #[test]
    fn configurations_load_or_fail(main in text(CONFIG), jobs in text(CONFIG)) {
        let mut files =
            FileSet::new(Layout { config: "config.yaml".into(), jobs: Some("jobs".into()), plugins: Some("p".into()), ..Layout::default() });
        files.insert("config.yaml", main.as_bytes());
        files.insert("p", main.as_bytes());
        files.insert("jobs/a.yaml", jobs.as_bytes());
        let loaded = Config::load(&files, LoadOptions::default());
        for diagnostic in loaded.errors.iter().chain(&loaded.warnings) {
            prop_assert!(!diagnostic.message.is_empty());
        }
    }
}
