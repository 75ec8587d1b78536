//! `size`: labels pull requests by how many lines they change.

mod generated;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};
use trireme_forge::{ChangedFile, Label, RepoId};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use generated::{GENERATED_FILES, GIT_ATTRIBUTES, Generated};

const SECTION: &str = "size";
const PREFIX: &str = "size/";

/// From how many lines on each label stands; 0 is the default.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Sizes {
    s: i64,
    m: i64,
    l: i64,
    xl: i64,
    xxl: i64,
}

impl Sizes {
    /// As written they must ascend, so that a list that leaves out the last ones is refused (HOOK-057).
    fn check(&self) -> Vec<Problem> {
        let ascends = [self.s, self.m, self.l, self.xl, self.xxl].is_sorted();
        match ascends {
            true => Vec::new(),
            false => vec![Problem {
                help: "give all of s, m, l, xl and xxl, none smaller than the one before it"
                    .to_owned(),
                ..Problem::error(
                    "",
                    "invalid size plugin configuration - one of the smaller sizes is bigger than a larger one",
                )
            }],
        }
    }

    fn or_default(self) -> Self {
        let or = |size, default| if size == 0 { default } else { size };
        Self {
            s: or(self.s, 10),
            m: or(self.m, 30),
            l: or(self.l, 100),
            xl: or(self.xl, 500),
            xxl: or(self.xxl, 1000),
        }
    }

    fn label(self, lines: u64) -> &'static str {
        let sizes = self.or_default();
        let below = |size| i64::try_from(lines).is_ok_and(|lines| lines < size);
        match () {
            () if below(sizes.s) => "size/XS",
            () if below(sizes.m) => "size/S",
            () if below(sizes.l) => "size/M",
            () if below(sizes.xl) => "size/L",
            () if below(sizes.xxl) => "size/XL",
            () => "size/XXL",
        }
    }
}

pub(crate) struct Size;

#[async_trait]
impl Plugin for Size {
    fn name(&self) -> &'static str {
        "size"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::PullRequest(event) if may_change(event))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        if !may_change(event) {
            return Ok(Decision::nothing());
        }
        let pr = &event.pull_request;
        let sizes: &Sizes = cx.section(SECTION)?;
        let generated = read_generated(cx, &pr.repo, &pr.base.sha).await?;
        let files = cx.forge.changed_files(&pr.repo, pr.number).await?;
        let labels = cx.forge.labels(&pr.repo, pr.number).await?;
        let on = Target::new(&pr.repo, pr.number);
        // Another head is another event.
        Ok(decide(&on, *sizes, &generated, &files, &labels).for_head(&pr.head.sha))
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let sizes = scope.plugins.section::<Sizes>(SECTION);
        let Sizes { s, m, l, xl, xxl } = sizes.copied().unwrap_or_default().or_default();
        let thresholds = format!(
            "The plugin has the following thresholds:<ul>\n<li>size/XS:  0-{}</li>\n<li>size/S:   {s}-{}</li>\n<li>size/M:   {m}-{}</li>\n<li>size/L:   {l}-{}</li>\n<li>size/XL:  {xl}-{}</li>\n<li>size/XXL: {xxl}+</li>\n</ul>",
            s - 1,
            m - 1,
            l - 1,
            xl - 1,
            xxl - 1
        );
        PluginHelp {
            description: "The size plugin manages the 'size/*' labels, maintaining the appropriate label on each pull request as it is updated. Generated files identified by the config file '.generated_files' at the repo root are ignored. Labels are applied based on the total number of lines of changes (additions and deletions).".to_owned(),
            config: Some([(String::new(), thresholds)].into()),
            snippet: "size:\n  l: 100\n  m: 30\n  s: 10\n  xl: 500\n  xxl: 1000\n".to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |sizes: &mut Sizes| sizes.check()))
    }
}

/// Whether what is changed may be more or less than before.
fn may_change(event: &PullRequestEvent) -> bool {
    event.action.brings_commits() || event.action == PullRequestAction::Edited
}

/// Read out of git, which costs the forge nothing. What is wrong in these files is not the pull request's fault.
async fn read_generated(
    cx: &Planning<'_>,
    repo: &RepoId,
    base: &str,
) -> Result<Generated, PlanError> {
    let mirrors = cx.mirrors;
    let read = async |path: &str| -> Result<Option<String>, PlanError> {
        let bytes = mirrors.read_file(repo, base, path).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    mirrors.ensure(repo, &[base]).await?;
    let mut generated = Generated::default();
    if let Some(text) = read(GENERATED_FILES).await? {
        match generated.read(&text) {
            Ok(lists) => {
                for path in lists {
                    match read(&path).await? {
                        Some(text) => generated.read_paths(&text),
                        None => {
                            tracing::warn!(%repo, base, path, "{GENERATED_FILES} names a file that is not there");
                        }
                    }
                }
            }
            Err(line) => {
                tracing::warn!(%repo, base, line, "{GENERATED_FILES} is left out: nobody understands this line");
            }
        }
    }
    if let Some(text) = read(GIT_ATTRIBUTES).await? {
        for pattern in generated.read_attributes(&text) {
            tracing::warn!(%repo, base, pattern, "{GIT_ATTRIBUTES} has a pattern that git does not take");
        }
    }
    Ok(generated)
}

fn decide(
    on: &Target,
    sizes: Sizes,
    generated: &Generated,
    files: &[ChangedFile],
    labels: &[Label],
) -> Decision {
    let written = files.iter().filter(|file| !generated.holds(&file.path));
    let label = sizes.label(written.map(|file| file.additions + file.deletions).sum());
    let others = labels
        .iter()
        .filter(|had| had.name.starts_with(PREFIX) && had.name != label);
    let mut effects: Vec<_> = others.map(|had| on.remove_label(&had.name)).collect();
    if !labels.iter().any(|had| had.name == label) {
        effects.push(on.add_label(label));
    }
    effects.into()
}

#[cfg(test)]
mod tests {
    use trireme_forge::FileStatus;

    use super::*;
    use crate::testing::{labels, pull_request_event};

    fn file(path: &str, additions: u64, deletions: u64) -> ChangedFile {
        ChangedFile {
            path: path.to_owned(),
            previous_path: None,
            status: FileStatus::Modified,
            additions,
            deletions,
            patch: None,
            blob_url: String::new(),
        }
    }

    fn told(files: &[ChangedFile], set: &[&str]) -> String {
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        let mut generated = Generated::default();
        generated.read("path-prefix vendor/").unwrap();
        decide(&on, Sizes::default(), &generated, files, &labels(set)).to_string()
    }

    #[test]
    fn plg_size_001_lines_make_a_label() {
        for (lines, expected) in [
            (0, "size/XS"),
            (9, "size/XS"),
            (10, "size/S"),
            (29, "size/S"),
            (30, "size/M"),
            (99, "size/M"),
            (100, "size/L"),
            (499, "size/L"),
            (500, "size/XL"),
            (999, "size/XL"),
            (1000, "size/XXL"),
            (u64::MAX, "size/XXL"),
        ] {
            assert_eq!(Sizes::default().label(lines), expected, "{lines}");
        }
        let some = Sizes {
            s: 1,
            xxl: 600,
            ..Sizes::default()
        };
        assert_eq!(some.label(5), "size/S");
        assert_eq!(some.label(600), "size/XXL");
    }

    #[test]
    fn plg_size_001_one_label_stays() {
        let files = [file("a", 5, 4), file("b", 1, 0), file("vendor/x", 5000, 0)];
        assert_eq!(told(&files, &[]), "+size/S");
        assert_eq!(told(&files, &["size/S", "kind/bug"]), "nothing");
        assert_eq!(
            told(&files, &["size/XL", "size/S", "size/huge"]),
            "-size/XL\n-size/huge"
        );
        assert_eq!(told(&files, &["size/XS"]), "-size/XS\n+size/S");
        for (action, expected) in [
            ("opened", true),
            ("reopened", true),
            ("synchronize", true),
            ("edited", true),
            ("labeled", false),
            ("closed", false),
        ] {
            assert_eq!(
                may_change(&pull_request_event(action)),
                expected,
                "{action}"
            );
        }
    }

    #[test]
    fn hook_057_sizes_ascend_as_written() {
        let sizes = |s, m, l, xl, xxl| Sizes { s, m, l, xl, xxl };
        assert_eq!(Sizes::default().check(), vec![]);
        assert_eq!(sizes(1, 1, 2, 3, 3).check(), vec![]);
        let problems = sizes(10, 0, 0, 0, 0).check();
        insta::assert_snapshot!(problems[0].message, @"invalid size plugin configuration - one of the smaller sizes is bigger than a larger one");
    }
}
