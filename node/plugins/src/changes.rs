//! What a pull request changes, all of it: a forge tells the first files and commits alone, and what follows from a part
//! may be wrong (GHC-025).

use trireme_forge::git::ChangedPath;
use trireme_forge::{ChangedFile, Commit, PullRequest, RepoId};

use crate::plugin::{PlanError, Planning};

/// Files that GitHub tells of a pull request.
const TOLD_FILES: usize = 3000;
/// Commits that GitHub tells of a pull request, with the accounts that they are of.
pub(crate) const TOLD_COMMITS: usize = 250;

/// The changed files. Where the forge may not have told all, git does: then without patches.
pub(crate) async fn files(
    cx: &Planning<'_>,
    pr: &PullRequest,
) -> Result<Vec<ChangedFile>, PlanError> {
    let told = cx.forge.changed_files(&pr.repo, pr.number).await?;
    if !may_be_cut(&told) {
        return Ok(told);
    }
    files_from_git(cx, pr).await
}

/// Whether the forge may know of more files than these.
pub(crate) fn may_be_cut(told: &[ChangedFile]) -> bool {
    told.len() >= TOLD_FILES
}

/// All changed files, without patches.
pub(crate) async fn files_from_git(
    cx: &Planning<'_>,
    pr: &PullRequest,
) -> Result<Vec<ChangedFile>, PlanError> {
    let (base, head) = (&pr.base.sha, &pr.head.sha);
    cx.mirrors.ensure(&pr.repo, &[base, head]).await?;
    let all = cx.mirrors.changed_files(&pr.repo, base, head).await?;
    let page = format!("{}/blob/{head}", pr.base.repo_html_url);
    Ok(all.into_iter().map(|file| as_told(file, &page)).collect())
}

fn as_told(file: ChangedPath, page: &str) -> ChangedFile {
    ChangedFile {
        blob_url: format!("{page}/{}", file.path),
        path: file.path,
        previous_path: file.previous_path,
        status: file.status,
        additions: file.additions,
        deletions: file.deletions,
        patch: None,
    }
}

/// The commits, oldest first. Whose account one is, is known only of those that the forge told.
pub(crate) async fn commits(cx: &Planning<'_>, pr: &PullRequest) -> Result<Vec<Commit>, PlanError> {
    let told = cx.forge.pull_request_commits(&pr.repo, pr.number).await?;
    if told.len() < TOLD_COMMITS {
        return Ok(told);
    }
    let (base, head) = (&pr.base.sha, &pr.head.sha);
    cx.mirrors.ensure(&pr.repo, &[base, head]).await?;
    let mut all = cx.mirrors.commits_between(&pr.repo, base, head).await?;
    for commit in &mut all {
        let known = told.iter().find(|known| known.sha == commit.sha);
        commit.author_login = known.and_then(|known| known.author_login.clone());
    }
    Ok(all)
}

/// Commits as a list in Markdown, each with its subject.
pub(crate) fn sha_list<'a>(repo: &RepoId, commits: impl IntoIterator<Item = &'a Commit>) -> String {
    let lines = commits.into_iter().map(|commit| {
        let sha = &commit.sha;
        let short = sha.get(..7).unwrap_or(sha);
        let subject = commit.message.split('\n').next().unwrap_or_default();
        format!("- [{short}](https://github.com/{repo}/commits/{sha}) {subject}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::commit;
    use trireme_forge::FileStatus;

    /// GHC-025: what git tells stands for what the forge would have told.
    #[test]
    fn ghc_025_files_that_git_tells_can_be_linked() {
        let file = ChangedPath {
            path: "new/a".into(),
            previous_path: Some("old/a".into()),
            status: FileStatus::Renamed,
            additions: 2,
            deletions: 1,
        };
        let told = as_told(file, "https://forge/org/repo/blob/abc");
        assert_eq!(told.blob_url, "https://forge/org/repo/blob/abc/new/a");
        assert_eq!(told.previous_path.as_deref(), Some("old/a"));
        assert_eq!((told.status, told.additions), (FileStatus::Renamed, 2));
    }

    #[test]
    fn plg_dco_002_commits_are_listed_with_their_subjects() {
        let commits = [
            commit(&"1".repeat(40), "Fix it\n\nLong"),
            commit("abc", "Short"),
        ];
        insta::assert_snapshot!(sha_list(&RepoId::new("org", "repo"), &commits), @r"
        - [1111111](https://github.com/org/repo/commits/1111111111111111111111111111111111111111) Fix it
        - [abc](https://github.com/org/repo/commits/abc) Short
        ");
    }
}
