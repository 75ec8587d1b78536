//! A cherry-pick from beginning to end: the commits onto the branch, pushed to our fork, and a pull request. Every step
//! is looked for before it is done, so that doing it again after a crash does no harm. What cannot be done is refused in
//! Prow's words (PLG-CHERRYPICK-007, PLG-CHERRYPICK-009).

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use trireme_forge::git::{CherryPick, Committer, GitError, Push, Pushed};
use trireme_forge::{BotUser, Forge, ForgeError, NewPullRequest, PullRequest, RepoId, State};
use trireme_proto::state::{CherryPickEffect, Delivery, EffectOutcome, Plan};

use super::Session;
use super::effects::{BEHIND, millis, subject};
use super::write::{Answer, Failure};

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Forge(error) => error.into(),
            error if error.is_outage() => Self::Outage(error.to_string(), None),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl Session {
    pub(super) async fn pick(
        &self,
        effect: &CherryPickEffect,
        plan: &Plan,
        delivery: &Delivery,
    ) -> Result<Answer, Failure> {
        let (repo, _) = subject(effect.subject.as_ref());
        let forge = self.tools.forge.as_ref();
        // Apps own nothing; and where forking is forbidden the branch goes to the repository itself.
        let to = match forge.ensure_fork(&repo).await {
            Ok(fork) => fork,
            Err(ForgeError::Forbidden { .. }) => repo.clone(),
            Err(error) => {
                return Err(refused(error, |error| {
                    format!("cannot decide how to push into {repo}: {error}")
                }));
            }
        };
        // Plans of one pull request are carried out one after the other: what is older than the plan is not of it.
        let since_ms = plan.planned_ms.saturating_sub(millis(BEHIND));
        let number = match open_pull(forge, &repo, &to, effect).await? {
            Some(there) if there.created_at.as_millisecond() < since_ms => {
                return Ok(Answer {
                    outcome: EffectOutcome::Partly,
                    result: there.html_url,
                });
            }
            Some(ours) => ours.number,
            None => {
                self.push_pick(&repo, &to, effect, delivery).await?;
                self.still_held().await?;
                open(forge, &repo, &to, effect).await?
            }
        };
        let labels: Vec<&str> = effect.labels.iter().map(String::as_str).collect();
        // As in Prow, what cannot be set is not; the pull request stands, and is told of.
        if !labels.is_empty()
            && let Err(error) = forge.add_labels(&repo, number, &labels).await
        {
            let why = passing_or_refused(error)?;
            tracing::warn!(%repo, number, why, "no label is set");
        }
        let assignees: Vec<&str> = effect.assignees.iter().map(String::as_str).collect();
        if !assignees.is_empty()
            && let Err(error) = forge.assign(&repo, number, &assignees).await
        {
            let why = passing_or_refused(error)?;
            tracing::info!(%repo, number, why, "nobody is assigned");
        }
        Ok(Answer::made(number))
    }

    async fn push_pick(
        &self,
        repo: &RepoId,
        to: &RepoId,
        effect: &CherryPickEffect,
        delivery: &Delivery,
    ) -> Result<(), Failure> {
        let (forge, mirrors) = (self.tools.forge.as_ref(), &self.tools.mirrors);
        let target = &effect.target;
        let cannot_checkout =
            |error: &dyn fmt::Display| format!("cannot checkout `{target}`: {error}");
        if target.is_empty() {
            let why = "it names no branch".to_owned();
            return Err(Failure::Refused(cannot_checkout(&why)));
        }
        let onto = forge.branch_head(repo, target).await;
        let onto = onto.map_err(|error| refused(error, |error| cannot_checkout(error)))?;
        let (base, head) = (effect.base_sha.as_str(), effect.head_sha.as_str());
        let patch = async {
            mirrors.ensure(repo, &[&onto, base, head]).await?;
            mirrors.commits_between(repo, base, head).await
        };
        let commits = patch.await.map_err(|error| match Failure::from(error) {
            Failure::Refused(why) => Failure::Refused(format!(
                "Failed to get PR patch from GitHub. This PR will need to be manually cherrypicked.\n<details><summary>Error message</summary>{why}</details>"
            )),
            passing => passing,
        })?;
        let commits: Vec<&str> = commits.iter().map(|commit| commit.sha.as_str()).collect();
        let bot = forge.bot_user(&repo.org).await?;
        let key = self.tools.options.git_signing_key.as_deref();
        let committer = committer(&bot, delivery, key);
        let commit = match mirrors
            .cherry_pick(repo, &onto, &commits, &committer)
            .await?
        {
            CherryPick::Picked { made: 0, .. } => {
                let why = format!("`{target}` has all of its changes already");
                return Err(Failure::Refused(not_created(&why)));
            }
            CherryPick::Picked { commit, .. } => commit,
            CherryPick::Conflict { said, .. } => return Err(Failure::Conflict(said)),
        };
        let push = Push {
            to,
            branch: &effect.branch,
            commit: &commit,
            force: true,
        };
        let cannot_push = |why: String| {
            Failure::Refused(format!(
                "failed to push cherry-picked changes in GitHub: {why}"
            ))
        };
        // What came before may have taken minutes.
        self.still_held().await?;
        match mirrors.push(repo, &push).await.map_err(Failure::from) {
            Ok(Pushed::Done) => Ok(()),
            Ok(Pushed::Rejected { reason }) => Err(cannot_push(reason)),
            Err(Failure::Refused(why)) => Err(cannot_push(why)),
            Err(passing) => Err(passing),
        }
    }
}

fn not_created(why: &dyn fmt::Display) -> String {
    format!("new pull request could not be created: {why}")
}

/// Why it was refused, unless it passes by itself.
fn passing_or_refused(error: ForgeError) -> Result<String, Failure> {
    match Failure::from(error) {
        Failure::Refused(why) => Ok(why),
        passing => Err(passing),
    }
}

/// In the words that a person gets to read, unless it passes by itself.
fn refused(error: ForgeError, words: impl Fn(&ForgeError) -> String) -> Failure {
    let told = words(&error);
    match Failure::from(error) {
        Failure::Refused(_) => Failure::Refused(told),
        passing => passing,
    }
}

/// The same for every attempt, so that all make the same commits.
fn committer(bot: &BotUser, delivery: &Delivery, signing_key: Option<&Path>) -> Committer {
    let email = match bot.email.as_str() {
        "" => format!("{}@users.noreply.github.com", bot.login),
        email => email.to_owned(),
    };
    Committer {
        name: bot.login.clone(),
        email,
        at: Timestamp::from_millisecond(delivery.received_ms).unwrap_or(Timestamp::UNIX_EPOCH),
        signing_key: signing_key.map(Path::to_owned),
    }
}

async fn open_pull(
    forge: &dyn Forge,
    repo: &RepoId,
    to: &RepoId,
    effect: &CherryPickEffect,
) -> Result<Option<PullRequest>, Failure> {
    let from = forge
        .pull_requests_from(repo, &to.org, &effect.branch)
        .await?;
    Ok(from
        .into_iter()
        .find(|pr| pr.state == State::Open && pr.base.branch == effect.target))
}

async fn open(
    forge: &dyn Forge,
    repo: &RepoId,
    to: &RepoId,
    effect: &CherryPickEffect,
) -> Result<u64, Failure> {
    let new = NewPullRequest {
        title: effect.title.clone(),
        head: format!("{}:{}", to.org, effect.branch),
        base: effect.target.clone(),
        body: effect.body.clone(),
        maintainer_can_modify: true,
    };
    match forge.create_pull_request(repo, &new).await {
        Ok(pr) => Ok(pr.number),
        // What an attempt that was lost has opened is found at the next.
        Err(error) if error.is_outage() => Err(error.into()),
        // It may be there already: opened by an attempt that nobody saw the end of.
        Err(error) => match open_pull(forge, repo, to, effect).await? {
            Some(there) => Ok(there.number),
            None => Err(refused(error, |error| not_created(error))),
        },
    }
}
