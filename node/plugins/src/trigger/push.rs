//! The postsubmits of a push (PLG-TRIGGER-040 … 043).

use std::collections::BTreeSet;

use trireme_config::job::Postsubmit;
use trireme_forge::webhook::PushEvent;

use crate::plugin::{PlanError, Planning};

const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// Commits that a payload lists at most.
const MAX_LISTED: usize = 2048;

/// A deleted ref starts nothing.
pub(super) fn counts(event: &PushEvent) -> bool {
    !event.deleted && event.after != NO_COMMIT
}

/// What the push changed. What the payload's list may lack is told by git (PLG-TRIGGER-042).
pub(super) async fn files(
    cx: &Planning<'_>,
    event: &PushEvent,
    jobs: &[&Postsubmit],
) -> Result<Vec<String>, PlanError> {
    let mut files = listed(event);
    if is_cut(event) && !jobs.is_empty() {
        let (repo, before, after) = (&event.repository.id, &event.before, &event.after);
        cx.mirrors.ensure(repo, &[before, after]).await?;
        for file in cx.mirrors.diff(repo, before, after).await? {
            files.extend(file.previous_path);
            files.insert(file.path);
        }
    }
    Ok(files.into_iter().collect())
}

fn listed(event: &PushEvent) -> BTreeSet<String> {
    let commits = event.commits.iter();
    let files = commits.flat_map(|commit| [&commit.added, &commit.removed, &commit.modified]);
    files.flatten().cloned().collect()
}

/// Whether the push may have brought more commits than the payload lists. A new ref has nothing to compare with.
fn is_cut(event: &PushEvent) -> bool {
    event.commits.len() >= MAX_LISTED && event.before != NO_COMMIT
}

/// The jobs to run, with their places. A tag counts as a branch of its name and changes no files.
pub(super) fn choose<'j>(
    event: &PushEvent,
    jobs: &[&'j Postsubmit],
    files: &[String],
) -> Vec<(usize, &'j Postsubmit)> {
    if !counts(event) {
        return Vec::new();
    }
    jobs.iter()
        .enumerate()
        .filter(|(_, job)| job.should_run(event.branch(), files))
        .map(|(place, job)| (place, *job))
        .collect()
}

#[cfg(test)]
mod tests {
    use trireme_forge::User;
    use trireme_forge::webhook::PushedCommit;

    use super::*;
    use crate::testing::{config, repository};

    const POSTSUBMITS: &str = r"
postsubmits:
  org/repo:
  - name: publish
    spec: {containers: [{image: alpine}]}
  - name: release
    branches: ['^v1\..*$']
    spec: {containers: [{image: alpine}]}
  - name: site
    run_if_changed: ^docs/
    spec: {containers: [{image: alpine}]}
  - name: manual
    always_run: false
    spec: {containers: [{image: alpine}]}
";

    fn push(git_ref: &str, removed: &[&str]) -> PushEvent {
        PushEvent {
            git_ref: git_ref.to_owned(),
            before: "b".repeat(40),
            after: "a".repeat(40),
            created: false,
            deleted: false,
            forced: false,
            compare_url: String::new(),
            commits: vec![PushedCommit {
                id: "c".into(),
                message: String::new(),
                added: vec![],
                removed: removed.iter().map(|path| (*path).to_owned()).collect(),
                modified: vec!["main.go".into()],
                distinct: true,
            }],
            head_commit: None,
            pusher: "alice".into(),
            sender: User::new("alice"),
            repository: repository(),
        }
    }

    fn chosen(event: &PushEvent) -> String {
        let config = config(POSTSUBMITS);
        let jobs: Vec<&Postsubmit> = config.postsubmits("org/repo").collect();
        let files: Vec<String> = listed(event).into_iter().collect();
        let chosen = choose(event, &jobs, &files);
        let chosen = chosen
            .iter()
            .map(|(place, job)| format!("{place}:{}", job.base.name));
        chosen.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn plg_trigger_040_a_push_runs_what_its_branch_and_files_select() {
        assert_eq!(chosen(&push("refs/heads/main", &[])), "0:publish");
        assert_eq!(
            chosen(&push("refs/heads/main", &["docs/a.md"])),
            "0:publish 2:site"
        );
        let mut deleted = push("refs/heads/main", &[]);
        deleted.deleted = true;
        assert_eq!(chosen(&deleted), "");
        let mut gone = push("refs/heads/main", &[]);
        gone.after = NO_COMMIT.into();
        assert_eq!(chosen(&gone), "");
    }

    #[test]
    fn plg_trigger_042_a_list_that_may_be_cut_is_not_believed() {
        let mut long = push("refs/heads/main", &[]);
        assert!(!is_cut(&long));
        long.commits = vec![PushedCommit::default(); MAX_LISTED];
        assert!(is_cut(&long));
        long.before = NO_COMMIT.into();
        assert!(!is_cut(&long));
    }

    #[test]
    fn plg_trigger_043_a_tag_counts_as_a_branch() {
        let mut tag = push("refs/tags/v1.2", &[]);
        tag.commits.clear();
        assert_eq!(chosen(&tag), "0:publish 1:release");
    }
}
