//! Pull requests.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, put};
use http::{HeaderMap, Response, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, At, Desk, Given, created, json_bytes, ok};
use crate::actor::{MergeSpec, PullRequestSpec, ensure_mergeability};
use crate::engine::Engine;
use crate::forge::{
    Id, Issue, LineComment, MergeMethod, NewReview, OpenState, Pull, PullChange, Refusal, RepoName,
    ReviewState,
};

pub(super) fn router() -> Router<Arc<Engine>> {
    let repo = "/repos/{owner}/{name}";
    let at = |path: &str| format!("{repo}{path}");
    Router::new()
        .route(&at("/pulls"), get(list).post(open))
        .route(&at("/pulls/{number}"), get(one).patch(edit))
        .route(&at("/pulls/{number}/files"), get(files))
        .route(&at("/pulls/{number}/commits"), get(commits))
        .route(&at("/pulls/{number}/reviews"), get(reviews).post(review))
        .route(&at("/pulls/{number}/comments"), get(review_comments))
        .route(
            &at("/pulls/comments/{id}"),
            get(one_review_comment).patch(edit_review_comment),
        )
        .route(&at("/pulls/{number}/merge"), put(merge).get(is_merged))
        .route(
            &at("/pulls/{number}/requested_reviewers"),
            get(requested_reviewers)
                .post(request_reviewers)
                .delete(unrequest_reviewers),
        )
}

type Numbered = At<(String, String, u64)>;

async fn show(desk: &Desk, repo: &RepoName, number: u64) -> Result<Value, Refusal> {
    ensure_mergeability(&desk.engine, repo, number).await?;
    show_as_is(desk, repo, number)
}

fn show_as_is(desk: &Desk, repo: &RepoName, number: u64) -> Result<Value, Refusal> {
    desk.engine.show(|render| {
        let (repo, issue, pull) = render.forge.pull(repo, number)?;
        Ok(render.pull(repo, issue, pull))
    })
}

#[derive(Deserialize)]
struct ListQuery {
    state: Option<String>,
    base: Option<String>,
    head: Option<String>,
    sort: Option<String>,
    direction: Option<String>,
}

async fn list(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Asked(asked): Asked<ListQuery>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let state = asked.state.as_deref().unwrap_or("open");
    let shown = desk.engine.show(|render| {
        let repo = render.forge.repo(&name)?;
        let mut found: Vec<(&Issue, &Pull)> = repo
            .issues
            .values()
            .filter_map(|issue| Some((issue, issue.pull.as_ref()?)))
            .filter(|(issue, pull)| {
                (state == "all" || issue.state.as_str() == state)
                    && asked.base.as_ref().is_none_or(|b| *b == pull.base_branch)
                    && asked.head.as_ref().is_none_or(|h| {
                        *h == format!("{}:{}", pull.head_repo.owner, pull.head_branch)
                    })
            })
            .collect();
        if asked.sort.as_deref() == Some("updated") {
            found.sort_by_key(|(issue, _)| issue.updated_at);
        }
        // By creation, GitHub shows the newest first unless told otherwise.
        if asked.direction.as_deref() != Some("asc") {
            found.reverse();
        }
        let shown = found
            .into_iter()
            .map(|(issue, pull)| render.pull_simple(repo, issue, pull));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct OpenBody {
    title: String,
    body: Option<String>,
    head: String,
    base: String,
    #[serde(default)]
    draft: bool,
    #[serde(default = "yes")]
    maintainer_can_modify: bool,
}

fn yes() -> bool {
    true
}

async fn open(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Given(body): Given<OpenBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let spec = PullRequestSpec {
        title: body.title,
        body: body.body,
        head: body.head,
        base: body.base,
        draft: body.draft,
        maintainer_can_modify: body.maintainer_can_modify,
    };
    let number = desk.writer(&name)?.open_pull(&name, spec).await?;
    created(&show(&desk, &name, number).await?)
}

async fn one(desk: Desk, headers: HeaderMap, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let as_patch = accept.is_some_and(|accept| accept.contains(".patch"));
    if as_patch || accept.is_some_and(|accept| accept.contains(".diff")) {
        let (base, head) = ends(&desk, &name, number)?;
        let git = desk.engine.git.repo(&name.owner, &name.name);
        return Ok(Response::new(Body::from(
            git.text_of(&base, &head, as_patch).await?,
        )));
    }
    if desk
        .engine
        .with_hooks(|forge| forge.reads_unknown(&name, number))?
    {
        return ok(&show_as_is(&desk, &name, number)?);
    }
    ok(&show(&desk, &name, number).await?)
}

#[derive(Deserialize)]
struct EditBody {
    title: Option<String>,
    body: Option<String>,
    state: Option<OpenState>,
    base: Option<String>,
}

async fn edit(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<EditBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let change = PullChange {
        title: body.title,
        body: body.body,
        state: body.state,
        base: body.base,
    };
    desk.writer(&name)?.edit_pull(&name, number, change).await?;
    ok(&show(&desk, &name, number).await?)
}

/// Base (as it was when the head was set) and head of a pull request.
fn ends(desk: &Desk, repo: &RepoName, number: u64) -> Result<(String, String), Refusal> {
    desk.may_read(repo)?;
    desk.engine.read(|forge| {
        let (_, _, pull) = forge.pull(repo, number)?;
        Ok((pull.base_sha.clone(), pull.head_sha.clone()))
    })
}

async fn files(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    let (base, head) = ends(&desk, &name, number)?;
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let files = git.changed_files(&base, &head).await?;
    desk.engine
        .show(|render| desk.page_of(&files, |file| render.file(&name, &head, file)))
}

async fn commits(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (_, _, pull) = render.forge.pull(&name, number)?;
        let commits = pull.head.commits.iter();
        let shown = commits.map(|commit| render.commit(&name, commit));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

async fn reviews(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (repo, _, pull) = render.forge.pull(&name, number)?;
        let reviews = pull.reviews.iter();
        let shown = reviews.map(|review| render.review(repo, number, review));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct ReviewBody {
    commit_id: Option<String>,
    event: Option<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    comments: Vec<ReviewLine>,
}

#[derive(Deserialize)]
struct ReviewLine {
    path: String,
    line: Option<u64>,
    position: Option<u64>,
    body: String,
}

async fn review(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<ReviewBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let state = match body.event.as_deref() {
        Some("APPROVE") => ReviewState::Approved,
        Some("REQUEST_CHANGES") => ReviewState::ChangesRequested,
        Some("COMMENT") => ReviewState::Commented,
        _ => {
            return Err(Refusal::invalid(
                "Unprocessable Entity: a review needs an event, pending ones are not kept",
            ));
        }
    };
    let comments = place_comments(&desk, &name, number, body.comments).await?;
    let new = NewReview {
        state,
        body: body.body,
        commit: body.commit_id,
        comments,
    };
    let id = actor.submit_review(&name, number, new)?;
    let shown = desk.engine.show(|render| {
        let (repo, _, pull) = render.forge.pull(&name, number)?;
        let review = pull.reviews.iter().find(|r| r.id == id);
        Ok::<_, Refusal>(render.review(repo, number, review.ok_or_else(Refusal::not_found)?))
    })?;
    ok(&shown)
}

/// Finds the lines that comments are about in the pull request's diff.
async fn place_comments(
    desk: &Desk,
    name: &RepoName,
    number: u64,
    comments: Vec<ReviewLine>,
) -> Result<Vec<LineComment>, Refusal> {
    if comments.is_empty() {
        return Ok(Vec::new());
    }
    let (base, head) = ends(desk, name, number)?;
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let files = git.changed_files(&base, &head).await?;
    let mut placed = Vec::new();
    for comment in comments {
        let file = files.iter().find(|file| file.path == comment.path);
        let patch = file
            .and_then(|file| file.patch.as_deref())
            .ok_or_else(|| Refusal::unprocessable("Path could not be resolved"))?;
        let place = match (comment.position, comment.line) {
            (Some(position), _) => DiffLine::at_position(patch, position)
                .ok_or_else(|| Refusal::unprocessable("Position could not be resolved"))?,
            (None, Some(line)) => DiffLine::at_line(patch, line)
                .ok_or_else(|| Refusal::unprocessable("Line could not be resolved"))?,
            (None, None) => {
                return Err(Refusal::unprocessable("Position could not be resolved"));
            }
        };
        placed.push(LineComment {
            path: comment.path,
            line: place.line,
            position: place.position,
            diff_hunk: place.hunk,
            body: comment.body,
        });
    }
    Ok(placed)
}

/// A line of a patch.
#[derive(Debug, PartialEq, Eq)]
struct DiffLine {
    /// Lines below the first `@@`.
    position: u64,
    /// Line of the new file; for a removed line, where it would be.
    line: u64,
    /// From the `@@` above to the line itself.
    hunk: String,
}

impl DiffLine {
    fn at_position(patch: &str, position: u64) -> Option<Self> {
        Self::all(patch).find(|line| line.position == position)
    }

    fn at_line(patch: &str, line: u64) -> Option<Self> {
        Self::all(patch).find(|place| {
            place.line == line
                && !place
                    .hunk
                    .rsplit('\n')
                    .next()
                    .is_some_and(|l| l.starts_with('-'))
        })
    }

    fn all(patch: &str) -> impl Iterator<Item = Self> {
        let (mut next, mut hunk) = (0, String::new());
        patch
            .lines()
            .enumerate()
            .filter_map(move |(position, text)| {
                if let Some(range) = text.strip_prefix("@@ ") {
                    let new = range.split('+').nth(1)?;
                    let start = new.split([',', ' ']).next()?;
                    next = start.parse::<u64>().ok()?;
                    text.clone_into(&mut hunk);
                    return None;
                }
                hunk.push('\n');
                hunk.push_str(text);
                let line = next;
                if !text.starts_with('-') {
                    next += 1;
                }
                Some(Self {
                    position: u64::try_from(position).ok()?,
                    line,
                    hunk: hunk.clone(),
                })
            })
    }
}

fn show_review_comment(desk: &Desk, name: &RepoName, id: Id) -> Result<Value, Refusal> {
    desk.engine.show(|render| {
        let repo = render.forge.repo(name)?;
        let pulls = repo.issues.values();
        let mut pulls = pulls.filter_map(|issue| Some((issue.number, issue.pull.as_ref()?)));
        let found = pulls.find_map(|(number, pull)| {
            let comment = pull.review_comments.iter().find(|c| c.id == id)?;
            Some(render.review_comment(repo, number, comment))
        });
        found.ok_or_else(Refusal::not_found)
    })
}

async fn one_review_comment(desk: Desk, At((owner, name, id)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    ok(&show_review_comment(&desk, &name, id)?)
}

#[derive(Deserialize)]
struct CommentBody {
    #[serde(default)]
    body: String,
}

async fn edit_review_comment(
    desk: Desk,
    At((owner, name, id)): Numbered,
    Given(body): Given<CommentBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.writer(&name)?
        .edit_review_comment(&name, id, &body.body)?;
    ok(&show_review_comment(&desk, &name, id)?)
}

async fn review_comments(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (repo, _, pull) = render.forge.pull(&name, number)?;
        let comments = pull.review_comments.iter();
        let shown = comments.map(|comment| render.review_comment(repo, number, comment));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct MergeBody {
    sha: Option<String>,
    merge_method: Option<MergeMethod>,
    commit_title: Option<String>,
    commit_message: Option<String>,
}

async fn merge(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<MergeBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    // Absent and empty words both mean GitHub's own.
    let some = |text: Option<String>| text.filter(|t| !t.is_empty());
    let spec = MergeSpec {
        sha: some(body.sha),
        method: body.merge_method.unwrap_or(MergeMethod::Merge),
        title: some(body.commit_title),
        message: some(body.commit_message),
    };
    let sha = desk.writer(&name)?.merge(&name, number, spec).await?;
    ok(&json!({"sha": sha, "merged": true, "message": "Pull Request successfully merged"}))
}

async fn is_merged(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let merged = desk.engine.read(|forge| {
        let (_, _, pull) = forge.pull(&name, number)?;
        Ok::<_, Refusal>(pull.merged.is_some())
    })?;
    if merged {
        super::empty(http::StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::not_found())
    }
}

#[derive(Deserialize)]
struct ReviewersBody {
    #[serde(default)]
    reviewers: Vec<String>,
    #[serde(default)]
    team_reviewers: Vec<String>,
}

fn show_simple(desk: &Desk, repo: &RepoName, number: u64) -> Result<Value, Refusal> {
    desk.engine.show(|render| {
        let (repo, issue, pull) = render.forge.pull(repo, number)?;
        Ok(render.pull_simple(repo, issue, pull))
    })
}

async fn requested_reviewers(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let pull = show_simple(&desk, &name, number)?;
    ok(&json!({"users": pull["requested_reviewers"], "teams": pull["requested_teams"]}))
}

async fn request_reviewers(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<ReviewersBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    actor.request_reviews(&name, number, &body.reviewers, &body.team_reviewers)?;
    created(&show_simple(&desk, &name, number)?)
}

async fn unrequest_reviewers(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<ReviewersBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    actor.unrequest_reviews(&name, number, &body.reviewers, &body.team_reviewers)?;
    let shown = show_simple(&desk, &name, number)?;
    Ok(json_bytes(http::StatusCode::OK, shown.to_string()))
}

#[cfg(test)]
mod tests {
    use super::DiffLine;

    const PATCH: &str = "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n@@ -10,2 +10,3 @@ fn x\n j\n+k\n l";

    #[test]
    fn a_position_counts_lines_below_the_first_hunk() {
        let at =
            |position| DiffLine::at_position(PATCH, position).map(|place| (place.line, place.hunk));
        assert_eq!(at(0), None);
        assert_eq!(at(1), Some((1, "@@ -1,3 +1,3 @@\n a".into())));
        assert_eq!(at(3), Some((2, "@@ -1,3 +1,3 @@\n a\n-b\n+B".into())));
        assert_eq!(at(5), None, "the second @@ counts, but is no line");
        assert_eq!(at(7), Some((11, "@@ -10,2 +10,3 @@ fn x\n j\n+k".into())));
        assert_eq!(at(9), None);
    }

    #[test]
    fn a_line_is_one_of_the_new_file() {
        let at = |line| DiffLine::at_line(PATCH, line).map(|place| place.position);
        assert_eq!(
            (at(1), at(2), at(3), at(4)),
            (Some(1), Some(3), Some(4), None)
        );
        assert_eq!(at(12), Some(8));
    }
}
