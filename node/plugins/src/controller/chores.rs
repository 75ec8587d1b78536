//! Slow repair: what webhooks missed is looked for again and again, on taking office and then every few minutes.

use std::collections::BTreeSet;
use std::time::Duration;

use trireme_forge::{ForgeError, RepoId};
use trireme_office::{RunningConfig, Work};

use super::{Session, desired_maps};
use crate::controller::redelivery::OurHooks;
use crate::plugin::outage;

/// How often each repository and webhook is looked at.
pub const REPAIR_EVERY: Duration = Duration::from_secs(5 * 60);
/// Repositories that are looked at; more are left to their webhooks alone.
const MAX_REPOS: usize = 10_000;
/// GitHubs on which we are an app.
const MAX_HOSTS: usize = 100;
/// Branches that moved lately. As many as are pushed to within half a minute; what is more is seen by the next scan.
pub(super) const MAX_MOVED: usize = 10_000;
/// The mirror, the webhooks and the ConfigMaps of each repository, the webhooks of as many organisations at most, our
/// Apps', the scan for conflicts and the branches that moved.
pub(super) const MAX_CHORES: usize = 4 * MAX_REPOS + MAX_HOSTS + 1 + MAX_MOVED;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chore {
    /// The mirror of a repository's pull requests.
    Pulls(RepoId),
    /// Lost deliveries of a repository's webhooks, of an organisation's, of our App's on a host.
    RepoHooks(RepoId),
    OrgHooks(String),
    AppHook(String),
    /// The ConfigMaps that a repository feeds.
    ConfigMaps(RepoId),
    /// All pull requests, for conflicts.
    Rebase,
    /// Pull requests into a branch that has moved, for conflicts.
    BaseMoved {
        repo: RepoId,
        branch: String,
        look: u8,
    },
}

impl Chore {
    /// Whose forge is asked, if it is that of one org; empty for the first one.
    fn org(&self) -> Option<&str> {
        match self {
            Self::Pulls(repo)
            | Self::RepoHooks(repo)
            | Self::ConfigMaps(repo)
            | Self::BaseMoved { repo, .. } => Some(&repo.org),
            Self::OrgHooks(org) => Some(org),
            Self::AppHook(_) => None,
            Self::Rebase => Some(""),
        }
    }
}

/// Everything there is to look at. Only what the configuration names: the repositories of an organisation are not
/// listed.
pub(super) fn chores(running: &RunningConfig, hooks: &OurHooks) -> Vec<Chore> {
    let mut repos: BTreeSet<RepoId> = BTreeSet::new();
    let mut orgs: BTreeSet<String> = BTreeSet::new();
    let named = running.config.jobs.all_repos.iter();
    let enabled = running.plugins.core.plugins.0.keys();
    for name in named.chain(enabled) {
        match name.parse::<RepoId>() {
            Ok(repo) => {
                orgs.insert(repo.org.clone());
                repos.insert(repo);
            }
            Err(_) if name.contains('/') || name.is_empty() => {}
            Err(_) => {
                orgs.insert(name.clone());
            }
        }
    }
    if repos.len() > MAX_REPOS {
        tracing::warn!(
            repos = repos.len(),
            "more repositories than the {MAX_REPOS} that are repaired"
        );
    }
    let repos: Vec<RepoId> = repos.into_iter().take(MAX_REPOS).collect();
    let mut chores: Vec<Chore> = repos.iter().cloned().map(Chore::Pulls).collect();
    match hooks {
        OurHooks::Unknown => {}
        OurHooks::Apps(hosts) => chores.extend(hosts.iter().cloned().map(Chore::AppHook)),
        OurHooks::At(_) => {
            chores.extend(orgs.into_iter().map(Chore::OrgHooks));
            chores.extend(repos.into_iter().map(Chore::RepoHooks));
        }
    }
    chores
}

impl Session {
    /// Asks for all repairs, then again whenever their time has come or the configuration has changed.
    pub(super) async fn schedule_chores(&self) {
        let resigned = self.office.resigned();
        let mut config = self.tools.config.clone();
        let mut is_first = true;
        let mut ticks = tokio::time::interval(self.tools.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = resigned.cancelled() => return,
                _ = ticks.tick() => {}
                changed = config.changed() => if changed.is_err() { return resigned.cancelled().await },
            }
            let running = config.borrow_and_update().clone();
            if let Some(running) = running {
                if std::mem::take(&mut is_first) {
                    self.note_former_pushes(&running.plugins);
                }
                let enablement = &self.tools.enablement;
                let is_ours = |chore: &Chore| match chore {
                    Chore::Pulls(repo) | Chore::RepoHooks(repo) | Chore::ConfigMaps(repo) => {
                        enablement.allows(&repo.org, &repo.repo)
                    }
                    // An org of which one repository is ours has hooks of ours.
                    Chore::OrgHooks(_) | Chore::AppHook(_) => true,
                    // Asks for what is enabled by itself.
                    Chore::Rebase => true,
                    Chore::BaseMoved { repo, .. } => enablement.allows(&repo.org, &repo.repo),
                };
                let maps = self.tools.config_maps.as_ref();
                let maps = maps.map(|_| desired_maps::chores(&running).take(MAX_REPOS));
                let chores = chores(&running, &self.tools.hooks).into_iter();
                chores
                    .chain(maps.into_iter().flatten())
                    .filter(is_ours)
                    .for_each(|chore| self.chores.add(chore));
                self.chores.add(Chore::Rebase);
            }
        }
    }

    pub(super) async fn repair(&self, chore: Chore) -> Work {
        let later = chore.org().and_then(|org| self.repairs_later(org));
        if let Some(wait) = later {
            return Work::After(wait);
        }
        let done = match &chore {
            Chore::Pulls(repo) => self.repair_pulls(repo).await.map(|()| None),
            Chore::ConfigMaps(repo) => self.apply_config_maps(repo).await.map(|()| None),
            Chore::Rebase => self.scan_for_rebase().await,
            Chore::BaseMoved { repo, branch, look } => {
                let looked = self.look_after_push(repo, branch, *look).await;
                looked.map(|()| None)
            }
            Chore::RepoHooks(_) | Chore::OrgHooks(_) | Chore::AppHook(_) => {
                self.recover_deliveries(&chore).await
            }
        };
        match done {
            Ok(None) => Work::Done,
            // What it may change in an hour is bounded, however often the schedule comes by (PLG-NEEDSREBASE-002).
            Ok(Some(wait)) if chore == Chore::Rebase => Work::NotBefore(wait),
            Ok(Some(wait)) => Work::After(wait),
            Err(work) => work,
        }
    }
}

/// A refusal will be the same in a second: it is told, and looked at again when its time comes.
pub(super) fn unable(what: &str, error: &ForgeError) -> Work {
    match outage(error) {
        Some(pause) => Work::Outage(format!("{what}: {error}"), pause),
        None => {
            tracing::warn!(%error, "{what}");
            Work::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use trireme_config::PluginConfig;

    use super::*;
    use crate::testing::{PRESUBMITS, config};

    #[test]
    fn what_the_configuration_names_is_looked_at() {
        let running = RunningConfig {
            version: 1,
            config: config(PRESUBMITS),
            plugins: PluginConfig::default().into(),
        };
        let repo = || RepoId::new("org", "repo");
        assert_eq!(chores(&running, &OurHooks::Unknown), [Chore::Pulls(repo())]);
        assert_eq!(
            chores(
                &running,
                &OurHooks::Apps(vec!["github.com".into(), "ghe.example".into()])
            ),
            [
                Chore::Pulls(repo()),
                Chore::AppHook("github.com".into()),
                Chore::AppHook("ghe.example".into())
            ]
        );
        assert_eq!(
            chores(&running, &OurHooks::At("https://x/hook".into())),
            [
                Chore::Pulls(repo()),
                Chore::OrgHooks("org".into()),
                Chore::RepoHooks(repo())
            ]
        );
    }
}
