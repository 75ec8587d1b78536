//! Whatever stands in a file, the answer is a diagnostic, never a panic.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Arc;

use proptest::prelude::*;
use trireme_config::in_repo::{OwnFiles, ProwYaml};
use trireme_config::plugins::{PROW_PLUGINS, Registry};
use trireme_config::{Config, CronSchedule, FileSet, GoRegex, Layout, LoadOptions, Template, yaml};
use trireme_prowjob::GoDuration;

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

/// Files with something of everything, for mutations to begin from.
const MAIN: &str = "\
log_level: info
plank:
  job_url_template: '{{if .Spec.Refs}}{{.Spec.Refs.Org}}{{end}}'
  report_templates: {'*': '{{range .Spec.Refs.Pulls}}{{.Number}}{{end}}'}
  default_decoration_config_entries:
  - {repo: o, config: {timeout: 2h, utility_images: {clonerefs: c}, gcs_configuration: {bucket: b, mediaTypes: {log: text/plain}}}}
tide:
  queries: [{orgs: [a], labels: ['x,y'], missingLabels: [z]}]
  merge_method: {o: {r: {'release-.*': squash}}}
  merge_commit_template: {o/r: {title: '{{.Title}}'}}
branch-protection: {orgs: {o: {protect: true, repos: {r: {branches: {b: {required_status_checks: {contexts: [c]}}}}}}}}
slack_reporter_configs: {'*': {channel: c}}
presets: &p
- labels: {a: b}
  env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]
prow_ignored: *p
";
const JOBS: &str = "\
presubmits:
  o/r:
  - &j
    name: a
    always_run: true
    branches: [main, '^release-\\d+$']
    labels: {a: b}
    decorate: true
    spec:
      containers: [{image: i, command: [sh, -c, 'x'], resources: {limits: {cpu: 0.5, memory: 1Gi}}, securityContext: {runAsUser: 0}}]
      volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]
  - {<<: *j, name: b, always_run: false, run_if_changed: '\\.go$', trigger: '(?m)^/x', rerun_command: /x}
postsubmits:
  o/r: [{name: p, max_concurrency: 1, spec: {containers: [{image: i}]}}]
periodics:
- {name: n, cron: '0 0 6-18/2 ? * MON-FRI', extra_refs: [{org: o, repo: r, base_ref: main}], spec: {containers: [{image: i}]}}
- {name: m, interval: 1h30m, retry: {interval: 5m}, spec: {containers: [{image: i}]}}
";
const PLUGINS: &str = "\
plugins: {o: {plugins: [trigger, lgtm], excluded_repos: [x]}, o/r: [approve]}
external_plugins: {o: [{name: cherrypicker, events: [issue_comment]}]}
approve: [{repos: [o], require_self_approval: true}]
label: {additional_labels: [a], restricted_labels: {'*': [{label: b, allowed_users: [c]}]}}
config_updater: {maps: {a/**: {name: b, clusters: {default: [c]}}}}
size: {s: 1, m: 2}
welcome: [{repos: [o], message_template: 'hi {{.AuthorLogin}}'}]
";

/// A text with pieces of itself taken out, doubled or put elsewhere, and bytes changed.
fn mutated(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let change = (
        any::<prop::sample::Index>(),
        0..40usize,
        any::<prop::sample::Index>(),
        0..4u8,
        any::<u8>(),
    );
    prop::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut bytes = text.as_bytes().to_vec();
        for (from, length, to, what, byte) in changes {
            let from = from.index(bytes.len().max(1));
            let end = (from + length).min(bytes.len());
            let piece: Vec<u8> = bytes.get(from..end).unwrap_or_default().to_vec();
            let to = to.index(bytes.len().max(1)).min(bytes.len());
            match what {
                0 => drop(bytes.drain(from.min(end)..end)),
                1 => drop(bytes.splice(to..to, piece)),
                2 => bytes.insert(to, byte),
                _ => {
                    if let Some(at) = bytes.get_mut(to) {
                        *at = byte;
                    }
                }
            }
        }
        bytes
    })
}

proptest! {
    /// Real files, spoilt: the loader answers, every finding has a text, and a repository's own file with the same jobs is
    /// read as well.
    #[test]
    fn spoilt_configurations_load_or_fail(main in mutated(MAIN), jobs in mutated(JOBS), plugins in mutated(PLUGINS)) {
        let registry = Registry::new().with_names(PROW_PLUGINS);
        let mut files = FileSet::new(Layout {
            config: "config.yaml".into(),
            jobs: Some("jobs".into()),
            plugins: Some("plugins.yaml".into()),
            ..Layout::default()
        });
        for (path, bytes) in [("config.yaml", &main), ("jobs/a.yaml", &jobs), ("plugins.yaml", &plugins)] {
            files.insert(path, bytes.as_slice());
        }
        let options = LoadOptions { plugins: Some(&registry), ..LoadOptions::default() };
        let loaded = Config::load(&files, options);
        for found in loaded.errors.iter().chain(&loaded.warnings) {
            prop_assert!(!found.message.is_empty());
        }
        let own = [(".prow.yaml".to_owned(), Arc::from(jobs.as_slice()))].into();
        let mut found = Vec::new();
        let own = ProwYaml::read(&OwnFiles::checked_out(&own), &mut found);
        let _ = loaded.config.in_repo_jobs(own, "o/r");
    }

    #[test]
    fn bytes_are_yaml_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(document) = yaml::parse(&bytes) {
            let _ = document.root.to_json();
        }
    }

    #[test]
    fn durations_come_back(nanoseconds in any::<i64>(), text in "[-+0-9.a-zµ]{0,20}") {
        let duration = GoDuration(nanoseconds);
        prop_assert_eq!(duration.to_string().parse::<GoDuration>().ok(), Some(duration));
        if let Ok(duration) = text.parse::<GoDuration>() {
            prop_assert_eq!(duration.to_string().parse::<GoDuration>().ok(), Some(duration));
        }
    }

    /// A schedule moves on, and is the same however often it is asked.
    #[test]
    fn schedules_move_on(text in "(\\*|[0-5]?[0-9](-[0-5]?[0-9])?)(/[1-9])? [*0-9] [*0-9] \\* [*0-6]", from in 0..4_000_000_000i64) {
        let from = jiff::Timestamp::from_second(from).unwrap();
        if let Ok(schedule) = CronSchedule::parse(&text) {
            let next = schedule.next_after(from);
            prop_assert_eq!(next, schedule.next_after(from));
            if let Some(next) = next {
                prop_assert!(next > from);
                prop_assert_eq!(schedule.next_after(next - jiff::SignedDuration::from_secs(1)), Some(next));
            }
        }
    }

    /// What is accepted compiles: of a text that does not, nothing would ever match.
    #[test]
    fn accepted_expressions_compile(text in text(REGEX)) {
        if GoRegex::new(&text).is_ok() {
            let anything = GoRegex::new(&format!("|{text}")).unwrap();
            prop_assert!(anything.is_match(""));
        }
    }

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
