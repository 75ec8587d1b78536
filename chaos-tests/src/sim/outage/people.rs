//! Who writes, and what: comments that ask plugins for something and comments that ask nobody, new titles, labels put on by
//! hand. Each asks for something that its forerunner on the same pull request did not, so that the forge's record shows
//! whether it was done, once, and in which order.

use std::{io, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use trireme_sandbox::forge::{
    AccountKind, Commit, HeadFacts, IssueChange, Mergeability, NewHead, NewPull, Permission,
    Refusal, RepoName, Signature,
};

use super::github::GitHubHere;
use crate::sim::chance::Chance;

pub(super) const BOT: &str = "bot";
/// Wrote the pull requests.
const AUTHOR: &str = "author";
/// Belongs to every organisation.
const MEMBER: &str = "member";
/// Is assigned.
pub(super) const HELPER: &str = "helper";
const REPO: &str = "repo";
const BRANCH: &str = "main";
/// As many as keep each one's record of deliveries within what a forge remembers.
const ORGS: u64 = 8;
/// Put on and taken off by hand; no plugin's.
const BY_HAND: &str = "seen";
/// How a label is named that no plugin will put on.
const UNKNOWN: &str = "unknown-";
/// How a title begins that is asked for.
const RETITLED: &str = "Title ";

/// A label that a plugin puts on and takes off again, by whom and by which words.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) plugin: &'static str,
    pub(super) label: &'static str,
    pub(super) on: &'static str,
    pub(super) off: &'static str,
}

pub(super) const HOLD: Switched = Switched {
    plugin: "hold",
    label: "do-not-merge/hold",
    on: "/hold",
    off: "/hold cancel",
};

pub(super) const SWITCHED: [Switched; 4] = [
    HOLD,
    Switched {
        plugin: "label",
        label: "kind/bug",
        on: "/kind bug",
        off: "/remove-kind bug",
    },
    Switched {
        plugin: "lifecycle",
        label: "lifecycle/stale",
        on: "/lifecycle stale",
        off: "/remove-lifecycle stale",
    },
    Switched {
        plugin: "shrug",
        label: r"¯\_(ツ)_/¯",
        on: "/shrug",
        off: "/unshrug",
    },
];
pub(super) const LGTM_LABEL: &str = "lgtm";
pub(super) const LGTM: &str = "/lgtm";
pub(super) const WIP_LABEL: &str = "do-not-merge/work-in-progress";
pub(super) const ASSIGN: &str = "/assign @helper";
pub(super) const UNASSIGN: &str = "/unassign @helper";
pub(super) const RETITLE: &str = "/retitle ";
pub(super) const LABEL: &str = "/label ";

/// Said to nobody in particular.
const IDLE: [&str; 4] = [
    "Thanks, that reads well.",
    "Could this be a function of its own?",
    "Rebased; the tests pass on my machine.",
    "I'd hold this, but not by a command.",
];

pub(super) fn orgs() -> impl Iterator<Item = String> {
    (1..=ORGS).map(|n| format!("org-{n}"))
}

/// `plugins.yaml`.
pub(super) fn configuration() -> String {
    let mut text = "plugins:\n".to_owned();
    for org in orgs() {
        text.push_str(&format!(
            "  {org}:\n    plugins: [assign, hold, label, lgtm, lifecycle, retitle, shrug, wip]\n"
        ));
    }
    text
}

/// The pull requests, by repository and number.
pub(super) type Pulls = Arc<Vec<(RepoName, u64)>>;

fn failed(refusal: Refusal) -> io::Error {
    io::Error::other(format!("{refusal:?}"))
}

impl GitHubHere {
    /// Opens so many pull requests, spread over the organisations, before anybody listens.
    pub(super) fn open_pulls(&self, count: u64) -> io::Result<Pulls> {
        let now = self.now();
        let sandbox = self.sandbox();
        sandbox
            .change(|forge| {
                for login in [BOT, AUTHOR, MEMBER, HELPER] {
                    forge.ensure_account(now, login, AccountKind::User);
                }
                for org in orgs() {
                    forge.ensure_account(now, &org, AccountKind::Organization);
                    // Whoever asks for lost webhooks administers.
                    forge.set_member(&org, BOT, true)?;
                    forge.set_member(&org, MEMBER, false)?;
                    forge.set_member(&org, HELPER, false)?;
                    let name = RepoName::new(&org, REPO);
                    let repo = forge.create_repo(now, &name, BRANCH, None)?;
                    repo.branches.insert(BRANCH.to_owned(), sha(0));
                    let members = &mut repo.collaborators;
                    members.insert(MEMBER.to_owned(), Permission::Write);
                    let labels = SWITCHED.iter().map(|switched| switched.label);
                    for label in labels.chain([LGTM_LABEL, WIP_LABEL, BY_HAND]) {
                        forge.create_label(BOT, &name, label, "ededed", None)?;
                    }
                }
                Ok(())
            })
            .map_err(failed)?;
        let orgs: Vec<String> = orgs().collect();
        let mut pulls = Vec::new();
        for n in 1..=count {
            let org = &orgs[n as usize % orgs.len()];
            let repo = RepoName::new(org, REPO);
            let number = sandbox.change(|forge| {
                let number = forge.reserve_number(&repo)?;
                forge.open_pull(now, AUTHOR, &repo, new_pull(now, &repo, number, n))?;
                forge.set_mergeability(&repo, number, mergeable(n))?;
                Ok(number)
            });
            pulls.push((repo, number.map_err(failed)?));
        }
        Ok(Arc::new(pulls))
    }
}

fn sha(n: u64) -> String {
    format!("{n:040x}")
}

/// Nobody asks git.
fn mergeable(n: u64) -> Mergeability {
    Mergeability {
        base_sha: sha(0),
        head_sha: sha(n),
        merge_commit: Some(sha(n + (1 << 32))),
        rebaseable: true,
    }
}

fn commits(now: Timestamp, n: u64) -> Vec<Commit> {
    let by = Signature {
        name: AUTHOR.to_owned(),
        email: String::new(),
        at: now,
    };
    vec![Commit {
        sha: sha(n),
        tree: String::new(),
        parents: Vec::new(),
        author: by.clone(),
        committer: by,
        message: "Change something".to_owned(),
    }]
}

fn new_pull(now: Timestamp, repo: &RepoName, number: u64, n: u64) -> NewPull {
    NewPull {
        number,
        title: format!("Change {n}"),
        body: None,
        draft: false,
        maintainer_can_modify: true,
        base_branch: BRANCH.to_owned(),
        base_sha: sha(0),
        head_repo: repo.clone(),
        head_branch: format!("change-{n}"),
        head_sha: sha(n),
        head: HeadFacts {
            commits: commits(now, n),
            ..HeadFacts::default()
        },
    }
}

/// Whether its title is asked for by command too.
fn is_retitled(number: u64) -> bool {
    number.is_multiple_of(3)
}

/// What was said last on one pull request.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    switched: [bool; SWITCHED.len()],
    assigned: bool,
    wip: bool,
    by_hand: bool,
}

pub(super) struct People {
    pub(super) github: GitHubHere,
    pub(super) pulls: Pulls,
    pub(super) chance: Chance,
}

impl People {
    /// Writes `rate` times a second; how often in all.
    ///
    /// # Errors
    /// What the forge refused, which it should not.
    pub(super) async fn act(self, rate: u64, lasting: Duration) -> Result<u64, Refusal> {
        let mut said = vec![Said::default(); self.pulls.len()];
        let mut ticks =
            interval(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX).max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let all = rate.saturating_mul(lasting.as_secs());
        for count in 1..=all {
            ticks.tick().await;
            let of = self.chance.below(self.pulls.len() as u64) as usize;
            if let (Some((repo, number)), Some(said)) = (self.pulls.get(of), said.get_mut(of)) {
                self.write(repo, *number, said, count)?;
            }
        }
        Ok(all)
    }

    /// Pushes one more commit.
    fn push(&self, repo: &RepoName, number: u64, count: u64) -> Result<(), Refusal> {
        let (now, n) = (self.github.now(), (1 << 33) + count);
        self.github.sandbox().change(|forge| {
            let to = NewHead {
                sha: sha(n),
                base_sha: sha(0),
                facts: HeadFacts {
                    commits: commits(now, n),
                    ..HeadFacts::default()
                },
            };
            forge.synchronize(now, AUTHOR, repo, number, to)?;
            forge.set_mergeability(repo, number, mergeable(n))
        })
    }

    fn write(
        &self,
        repo: &RepoName,
        number: u64,
        said: &mut Said,
        count: u64,
    ) -> Result<(), Refusal> {
        let sandbox = self.github.sandbox();
        let member = sandbox.user(MEMBER);
        let text = match self.chance.below(16) {
            0..=1 => self
                .chance
                .pick(&IDLE)
                .copied()
                .unwrap_or(IDLE[0])
                .to_owned(),
            2 => return self.push(repo, number, count),
            3..=4 => LGTM.to_owned(),
            5..=9 => {
                let which = self.chance.below(SWITCHED.len() as u64) as usize;
                let on = &mut said.switched[which];
                *on = !*on;
                let switched = &SWITCHED[which];
                if *on { switched.on } else { switched.off }.to_owned()
            }
            10 => {
                said.assigned = !said.assigned;
                if said.assigned { ASSIGN } else { UNASSIGN }.to_owned()
            }
            11 | 13 if is_retitled(number) => format!("{RETITLE}{RETITLED}{count}"),
            12 => format!("{LABEL}{UNKNOWN}{count}"),
            11 | 13 | 14 => {
                said.wip = !said.wip;
                let title = match said.wip {
                    true => format!("WIP: change {count}"),
                    false => format!("Change {count}"),
                };
                let change = IssueChange {
                    title: Some(title),
                    ..IssueChange::default()
                };
                return sandbox.user(AUTHOR).edit_issue(repo, number, change);
            }
            _ => {
                said.by_hand = !said.by_hand;
                let labels = [BY_HAND.to_owned()];
                return match said.by_hand {
                    true => member.add_labels(repo, number, &labels),
                    false => member.remove_label(repo, number, BY_HAND),
                };
            }
        };
        member.comment(repo, number, &text).map(|_| ())
    }
}
