//! The real configurations as a whole: what every organisation has, by the table of `STATS.md`, and every expression,
//! schedule, duration and template that they write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use trireme_config::in_repo::{OwnFiles, ProwYaml};
use trireme_config::yaml::{self, Node, NodeValue};
use trireme_config::{
    Config, FileSet, GoRegex, Layout, LoadOptions, Loaded, Template, TemplatePull,
};
use trireme_prowjob::ProwJob;

use crate::answers;

/// What stands of an organisation in the table: presubmits, postsubmits, periodics, repositories with jobs, keys of
/// `plugins`, Tide queries, plugins.
type Counts = [usize; 7];
const COUNTED: [&str; 7] = [
    "presubmits",
    "postsubmits",
    "periodics",
    "job repos",
    "plugin repos",
    "tide queries",
    "plugins",
];

#[derive(Default)]
struct Tally {
    jobs: (usize, usize, usize),
    job_repos: BTreeSet<String>,
    plugin_repos: BTreeSet<String>,
    queries: usize,
    plugins: BTreeSet<String>,
}

impl Tally {
    fn counts(&self) -> Counts {
        let (presubmits, postsubmits, periodics) = self.jobs;
        [
            presubmits,
            postsubmits,
            periodics,
            self.job_repos.len(),
            self.plugin_repos.len(),
            self.queries,
            self.plugins.len(),
        ]
    }

    fn add(&mut self, files: &FileSet) {
        self.add_loaded(files, &Config::load(files, LoadOptions::default()));
    }

    fn add_loaded(&mut self, files: &FileSet, loaded: &Loaded) {
        let (presubmits, postsubmits, periodics) = loaded.config.job_counts();
        self.jobs.0 += presubmits;
        self.jobs.1 += postsubmits;
        self.jobs.2 += periodics;
        let jobs = &loaded.config.jobs;
        let with_jobs = (jobs
            .presubmits
            .iter()
            .map(|(repo, jobs)| (repo, jobs.len())))
        .chain(
            jobs.postsubmits
                .iter()
                .map(|(repo, jobs)| (repo, jobs.len())),
        )
        .filter(|(_, jobs)| *jobs > 0);
        self.job_repos
            .extend(with_jobs.map(|(repo, _)| repo.clone()));
        for (key, plugins) in &loaded.plugins.core.plugins.0 {
            self.plugin_repos.insert(key.clone());
            self.plugins.extend(plugins.plugins.iter().cloned());
        }
        // As they are written: some are folded when they are loaded.
        let main = files.get(&files.layout.config).unwrap();
        let queries = yaml::parse(main).ok().map(|document| document.root);
        let queries = queries.as_ref().and_then(|root| root.get("tide"));
        let queries = queries.and_then(|tide| tide.get("queries"));
        self.queries += match queries.map(|queries| &queries.value) {
            Some(NodeValue::Sequence(queries)) => queries.len(),
            _ => 0,
        };
    }
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Rows of the table by organisation.
fn table(corpus: &Path) -> BTreeMap<String, Counts> {
    let stats = std::fs::read_to_string(corpus.join("STATS.md")).unwrap();
    let rows = stats
        .lines()
        .skip_while(|line| !line.starts_with("| org |"))
        .take_while(|line| line.starts_with('|'));
    rows.filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let count = |at: usize| cells[at].parse::<usize>();
        Some((
            cells[0].to_owned(),
            [
                count(4).ok()?,
                count(5).ok()?,
                count(6).ok()?,
                count(7).ok()?,
                count(8).ok()?,
                count(9).ok()?,
                count(10).ok()?,
            ],
        ))
    })
    .collect()
}

/// Texts of a document that are configurations themselves: values of ConfigMaps, by their key.
fn config_map(root: &Node) -> BTreeMap<String, String> {
    let Some(NodeValue::Mapping(entries)) = root.get("data").map(|data| &data.value) else {
        return BTreeMap::new();
    };
    entries
        .iter()
        .filter_map(|entry| match &entry.value.value {
            NodeValue::String(text) => Some((entry.key.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

/// The documents of a file; files that are no YAML have none.
fn documents(text: &str) -> Vec<Arc<Node>> {
    let parts = text.split("\n---").filter(|part| !part.trim().is_empty());
    parts
        .filter_map(|part| yaml::parse(part.trim_start_matches("---").as_bytes()).ok())
        .map(|document| document.root)
        .collect()
}

/// ConfigMaps of a directory of manifests as configurations: one main file each, job and plugin files with it.
fn embedded(corpus: &Path, org: &str, tally: &mut Tally) {
    let mut paths = Vec::new();
    files_below(&corpus.join(org), &mut paths);
    for path in paths {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("job-config.yaml".to_owned()),
            plugins: Some("plugins.yaml".to_owned()),
            ..Layout::default()
        });
        let mut found = false;
        for (key, text) in documents(&text).iter().flat_map(|root| config_map(root)) {
            if ["config.yaml", "job-config.yaml", "plugins.yaml"].contains(&key.as_str()) {
                found = true;
                files.insert(key, text.into_bytes());
            }
        }
        for key in ["config.yaml", "job-config.yaml", "plugins.yaml"] {
            if files.get(key).is_none() {
                files.insert(key, Vec::new());
            }
        }
        if found {
            tally.add(&files);
        }
    }
}

/// CFG-009, CFG-017: every organisation of which the files are at hand has what the table says, whatever stands outside of
/// its main instance included.
#[test]
fn cfg_017_every_organisation_has_what_the_table_says() {
    let Some(corpus) = answers::corpus() else {
        return;
    };
    let table = table(&corpus);
    assert!(table.len() > 35, "{} rows", table.len());
    let at = |path: &str| corpus.join(path).display().to_string();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for name in answers::INSTANCES {
        if name.ends_with("-unique") || name.ends_with("-defaults") {
            continue;
        }
        // The jobs of some stand only under defaults that are added, or under other names.
        let loaded_as = match name {
            "eks-distro" | "eks-anywhere" => format!("{name}-defaults"),
            "tidb-ci" => format!("{name}-unique"),
            name => name.to_owned(),
        };
        let files = answers::instance(&loaded_as).unwrap();
        let org = answers::organisation(name).unwrap();
        let tally = tallies.entry(org).or_default();
        let queries = tally.queries;
        tally.add_loaded(&files, &answers::loaded(&loaded_as).unwrap());
        if name == "tidb-ci" {
            // Its main file is that of the other instance.
            tally.queries = queries;
        }
    }
    // A second instance, for trying things.
    let staging = trireme_config::files::read(Layout {
        config: at("kyma/test-infra/prow/staging/config.yaml"),
        jobs: Some(at("kyma/test-infra/prow/staging/jobs")),
        plugins: Some(at("kyma/test-infra/prow/staging/plugins.yaml")),
        ..Layout::default()
    })
    .unwrap();
    tallies.entry("kyma".to_owned()).or_default().add(&staging);
    // Main files beside the main file: one for a test, and the pattern that another is made from.
    for (org, path) in [
        (
            "kubernetes-sigs",
            "kubernetes-sigs/prow/test/integration/config/prow/deck.yaml",
        ),
        (
            "kyma",
            "kyma/test-infra/templates/templates/prow-config.yaml",
        ),
    ] {
        let alone = trireme_config::files::read(Layout {
            config: at(path),
            ..Layout::default()
        });
        tallies
            .entry(org.to_owned())
            .or_default()
            .add(&alone.unwrap());
    }
    // ConfigMaps, as they are applied to a cluster; those of kubeedge are what its instance names as its files.
    for org in ["kubernetes-sigs", "kubeedge", "kubeflow", "nephio"] {
        embedded(&corpus, org, tallies.entry(org.to_owned()).or_default());
    }
    // Jobs in the tested repository itself.
    let own = std::fs::read(corpus.join("feast/feast/.prow.yaml")).unwrap();
    let mut found = Vec::new();
    let own = ProwYaml::read(
        &OwnFiles::checked_out(&[(".prow.yaml".to_owned(), Arc::from(own))].into()),
        &mut found,
    );
    assert_eq!((found.len(), own.presubmits.len()), (0, 0));
    tallies.entry("feast".to_owned()).or_default().jobs.1 += own.postsubmits.len();

    let mut wrong = Vec::new();
    for (org, tally) in &tallies {
        let expected = table[org];
        for ((what, expected), found) in COUNTED.iter().zip(expected).zip(tally.counts()) {
            if expected != found {
                wrong.push(format!("{org}: {what} {expected}, got {found}"));
            }
        }
    }
    assert_eq!(tallies.len(), 18);
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The lines of a list of the corpus.
fn list(corpus: &Path, name: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(corpus.join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// JOB-020, CFG-027: upstream was asked about every schedule and duration of the lists, and so are we, in the tests of those.
#[test]
fn job_020_cfg_027_the_lists_are_run_whole() {
    let Some(corpus) = answers::corpus() else {
        return;
    };
    for (name, answers_of, key, least) in [
        ("CRONS.txt", "crons.jsonl.gz", "cron", 6_900),
        ("DURATIONS.txt", "durations.jsonl", "text", 130),
    ] {
        let lines = list(&corpus, name);
        assert!(lines.len() >= least, "{name}: {} lines", lines.len());
        let asked: BTreeSet<String> = answers::lines(answers_of)
            .unwrap()
            .iter()
            .filter_map(|case| case[key].as_str().map(str::to_owned))
            .collect();
        let missing: Vec<_> = lines.difference(&asked).take(5).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}

/// CFG-028: every regular expression of the list is one here too, and compiles.
#[test]
fn cfg_028_every_regex_of_the_list_compiles() {
    let Some(corpus) = answers::corpus() else {
        return;
    };
    let lines = list(&corpus, "REGEXES.tsv");
    assert!(lines.len() > 6_000, "{} lines", lines.len());
    let mut refused = Vec::new();
    for line in &lines {
        let source: String = serde_json::from_str(line.split_once('\t').unwrap().1).unwrap();
        match GoRegex::new(&source) {
            Err(e) => refused.push(format!("{source}: {e}")),
            // What does not compile matches nothing; with this it matches everything.
            Ok(_) => assert!(
                GoRegex::new(&format!("(?:{source})|"))
                    .unwrap()
                    .is_match(""),
                "{source} does not compile"
            ),
        }
    }
    // Not even `${VAR}`, which a generator did not fill: a brace that begins no repetition is a brace to Go.
    assert_eq!(refused, Vec::<String>::new());
}

/// Templates of a document by what they are for, with ConfigMaps opened.
fn templates(root: &Node, under: &[&str], found: &mut BTreeSet<(&'static str, String)>) {
    match &root.value {
        NodeValue::Mapping(entries) => {
            for entry in entries {
                let path = [under, &[entry.key.as_str()]].concat();
                templates(&entry.value, &path, found);
            }
        }
        NodeValue::Sequence(items) => items.iter().for_each(|item| templates(item, under, found)),
        NodeValue::String(text) => {
            let key = under.last().copied().unwrap_or_default();
            let has = |name: &str| under.contains(&name);
            let kind = match key {
                "job_url_template" if has("jenkins_operators") => "jenkins",
                "job_url_template" | "url_template" | "report_template" => "job",
                _ if has("report_templates") => "job",
                "title" | "body" if has("merge_commit_template") => "merge",
                "message_template" | "pod_link_template" | "pr_history_link_template" => "other",
                key if key.ends_with(".yaml") => {
                    documents(text)
                        .iter()
                        .for_each(|root| templates(root, &[], found));
                    return;
                }
                _ => return,
            };
            found.insert((kind, text.clone()));
        }
        _ => {}
    }
}

fn sample_job() -> ProwJob {
    let pull =
        json!({"number": 7, "author": "al", "sha": "cafe", "title": "t", "link": "https://x/7"});
    serde_json::from_value(json!({
        "metadata": {"name": "some-id", "namespace": "default", "labels": {"master": "1"}},
        "spec": {
            "type": "presubmit", "job": "folder/unit", "cluster": "default", "context": "unit",
            "refs": {
                "org": "o", "repo": "r", "base_ref": "main", "base_sha": "0123456789abcdef",
                "base_link": "https://x/c", "pulls": [pull],
            },
            "extra_refs": [{"org": "e", "repo": "x", "base_ref": "main"}],
        },
        "status": {
            "startTime": "2026-01-01T00:00:00Z", "state": "failure", "build_id": "42", "url": "https://x/42",
            "jenkins_build_id": "43", "description": "d",
        },
    }))
    .unwrap()
}

/// The template of a Jenkins operator knows one function more; it is read as part of its section.
fn jenkins_link(template: &str, job: &ProwJob) -> String {
    let main = json!({"jenkins_operators": [{"job_url_template": template}]});
    let mut files = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        ..Layout::default()
    });
    files.insert("config.yaml", main.to_string().into_bytes());
    let (config, _) = Config::load(&files, LoadOptions::default())
        .accepted()
        .unwrap();
    let link = config.prow.jenkins_operators[0].controller.job_url.clone();
    link.unwrap().for_job(job).unwrap()
}

/// CFG-029: every Go template of the corpus is parsed, and those for jobs and merge commits give a text.
#[test]
fn cfg_029_every_template_of_the_corpus_gives_a_text() {
    let Some(corpus) = answers::corpus() else {
        return;
    };
    let mut paths = Vec::new();
    files_below(&corpus, &mut paths);
    let mut found = BTreeSet::new();
    for path in &paths {
        let name = path.display().to_string();
        if name.ends_with(".yaml") || name.ends_with(".yml") {
            let text = std::fs::read_to_string(path).unwrap();
            documents(&text)
                .iter()
                .for_each(|root| templates(root, &[], &mut found));
        }
    }
    let job = sample_job();
    let pull = TemplatePull {
        org: "o",
        repo: "r",
        number: 7,
        title: "t",
        body: "b",
        author_login: "al",
        base_ref_name: "main",
        head_ref_name: "topic",
        head_ref_oid: "cafe",
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, text) in &found {
        *counts.entry(kind).or_default() += 1;
        let rendered = match *kind {
            "job" => Template::parse(text).and_then(|template| template.for_job(&job)),
            "merge" => match Template::parse(text).unwrap().for_pull(&pull) {
                // A method of a fork of Prow: upstream too fails with it when a pull request is merged.
                Err(_) if text.contains(".ExtractContent") => continue,
                rendered => rendered,
            },
            "jenkins" => Ok(jenkins_link(text, &job)),
            _ => {
                Template::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
                continue;
            }
        };
        let mut rendered = rendered.unwrap_or_else(|e| panic!("{text}: {e}"));
        // The pattern of a configuration: its text is the template.
        if text.contains(r#"{{"{{"}}"#) || text.starts_with("{{`") {
            let template = Template::parse(&rendered).unwrap();
            rendered = template.for_job(&job).unwrap();
        }
        assert!(!rendered.contains("{{"), "{text}: {rendered}");
        assert!(!rendered.contains("<no value>"), "{text}: {rendered}");
    }
    println!("{counts:?}");
    assert!(
        counts["job"] >= 40 && counts["merge"] >= 8 && counts["jenkins"] >= 2,
        "{counts:?}"
    );
}

/// CFG-020: what libyaml does not read is not read here either, and everything else is.
#[test]
fn cfg_020_files_are_yaml_here_as_they_are_for_libyaml() {
    let Some(corpus) = answers::corpus() else {
        return;
    };
    let mut paths = Vec::new();
    files_below(&corpus, &mut paths);
    let refused: BTreeSet<String> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .filter(|path| yaml::parse(&std::fs::read(path).unwrap()).is_err())
        .map(|path| path.strip_prefix(&corpus).unwrap().display().to_string())
        .collect();
    println!("{refused:#?}");
    // The list of `STATS.md`; it names files of organisations that are not at hand as well.
    let stats = std::fs::read_to_string(corpus.join("STATS.md")).unwrap();
    let listed = stats.split_once("- Unparseable").unwrap().1;
    let listed = listed.split_once("): ").unwrap().1.lines().next().unwrap();
    let listed: BTreeSet<String> = listed
        .split(", ")
        .map(|path| path.trim_end_matches('.').to_owned())
        .filter(|path| corpus.join(path).exists())
        .collect();
    assert!(listed.len() >= 8);
    assert_eq!(refused, listed);
}
