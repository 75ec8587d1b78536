//! The postsubmits of a push (PLG-TRIGGER-040 … 043).

use std::collections::BTreeSet;

use trireme_config::job::Postsubmit;
use trireme_forge::webhook::PushEvent;

const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// A deleted ref starts nothing.
pub(super) fn counts(event: &PushEvent) -> bool {
    !event.deleted && event.after != NO_COMMIT
}

/// The jobs to run, with their places. A tag counts as a branch of its name and changes no files.
pub(super) fn choose<'j>(
    event: &PushEvent,
    jobs: &[&'j Postsubmit],
) -> Vec<(usize, &'j Postsubmit)> {
    if !counts(event) {
        return Vec::new();
    }
    let files: BTreeSet<&String> = event
        .commits
        .iter()
        .flat_map(|commit| [&commit.added, &commit.removed, &commit.modified])
        .flatten()
        .collect();
    let files: Vec<&String> = files.into_iter().collect();
    jobs.iter()
        .enumerate()
        .filter(|(_, job)| job.should_run(event.branch(), &files))
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
        let chosen = choose(event, &jobs);
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
    fn plg_trigger_043_a_tag_counts_as_a_branch() {
        let mut tag = push("refs/tags/v1.2", &[]);
        tag.commits.clear();
        assert_eq!(chosen(&tag), "0:publish 1:release");
    }
}
