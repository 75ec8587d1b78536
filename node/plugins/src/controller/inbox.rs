//! Taking deliveries in: reading the payload once, fixing the plugins, writing the mirror.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use trireme_forge::webhook::Event;
use trireme_office::{OfficeError, RunningConfig, Work};
use trireme_proto::state::command::Body;
use trireme_proto::state::{
    CommitPlans, Delivery, DeliveryState, Done, PlanBody, PutPullRequests, Rejection,
};
use trireme_state::{EFFECTS_LEVEL, State};

use super::{Session, forward, not_recorded};
use crate::mirror::{self, MIRROR};
use crate::payload::{Unreadable, payload};
use crate::plugin::Configured;

/// Parsed events kept between taking a delivery in and its last plugin.
const MAX_EVENTS: usize = 512;
/// Payload bytes that these came from.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// What deliveries are about: within one, order is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    org: String,
    repo: String,
    /// `#number`, or the ref; empty for what concerns the repository.
    about: String,
}

impl Subject {
    pub(super) fn of(delivery: &Delivery) -> Self {
        let about = match delivery.number {
            0 => delivery.r#ref.clone(),
            number => format!("#{number}"),
        };
        Self {
            org: delivery.org.clone(),
            repo: delivery.repo.clone(),
            about,
        }
    }

    pub(super) fn repository(&self) -> String {
        format!("{}/{}", self.org, self.repo)
    }
}

/// An event, and when it came to be known here.
#[derive(Clone)]
pub(super) struct Parsed {
    pub(super) event: Arc<Event>,
    pub(super) at: Instant,
}

/// What a delivery says.
struct Taken {
    event: Arc<Event>,
    /// For the mirror of pull requests.
    contexts: Option<PutPullRequests>,
    mirrored: Option<PlanBody>,
}

/// Events that were parsed lately, so that every plugin of a delivery finds it parsed.
#[derive(Default)]
pub(super) struct Events {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_guid: BTreeMap<String, (Parsed, usize)>,
    /// Oldest first; may name what was forgotten since.
    order: VecDeque<String>,
    bytes: usize,
}

impl Events {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, state: &State, delivery: &Delivery) -> Result<Parsed, Unreadable> {
        if let Some((parsed, _)) = self.kept().by_guid.get(&delivery.guid) {
            return Ok(parsed.clone());
        }
        self.parse(delivery, &payload(state, delivery)?)
    }

    fn parse(&self, delivery: &Delivery, payload: &[u8]) -> Result<Parsed, Unreadable> {
        let event = Event::parse(&delivery.event, payload)
            .map_err(|error| Unreadable::Event(error.to_string()))?;
        let parsed = Parsed {
            event: Arc::new(event),
            at: Instant::now(),
        };
        let mut kept = self.kept();
        let entry = (parsed.clone(), payload.len());
        if kept.by_guid.insert(delivery.guid.clone(), entry).is_none() {
            kept.bytes += payload.len();
            kept.order.push_back(delivery.guid.clone());
        }
        while kept.by_guid.len() > MAX_EVENTS || kept.bytes > MAX_EVENT_BYTES {
            let Some(oldest) = kept.order.pop_front() else {
                break;
            };
            kept.remove(&oldest);
        }
        Ok(parsed)
    }

    pub(super) fn forget(&self, guid: &str) {
        let mut kept = self.kept();
        kept.remove(guid);
        // Names of what was forgotten must not pile up.
        if kept.order.len() > 2 * MAX_EVENTS {
            let Kept { by_guid, order, .. } = &mut *kept;
            order.retain(|guid| by_guid.contains_key(guid));
        }
    }
}

impl Kept {
    fn remove(&mut self, guid: &str) {
        if let Some((_, bytes)) = self.by_guid.remove(guid) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

impl Session {
    /// Takes the subject's received deliveries in, oldest first.
    pub(super) async fn take_in(&self, subject: Subject) -> Work {
        loop {
            let Some((seq, guid)) = self.waiting().first_received(&subject) else {
                return Work::Done;
            };
            let (running, view) = self.running();
            let delivery = view
                .delivery(&guid)
                .filter(|delivery| delivery.state() == DeliveryState::Received);
            if let Some(delivery) = delivery {
                // Without its configuration a delivery waits: `follow_config` wakes it.
                let Some(running) = running else {
                    return Work::Done;
                };
                if let Err(error) = self.fix_plugins(&view, delivery, &running).await {
                    return not_recorded(error);
                }
            }
            self.waiting().remove_received(&subject, seq);
        }
    }

    /// The first commit about a delivery: which plugins it has, which of them have nothing to do, and the mirror.
    async fn fix_plugins(
        &self,
        state: &State,
        delivery: &Delivery,
        running: &RunningConfig,
    ) -> Result<(), OfficeError> {
        let mut commit = CommitPlans {
            guid: delivery.guid.clone(),
            config_version: running.version,
            ..CommitPlans::default()
        };
        // HOOK-013: what is not ours to handle had its 200, and is nobody's.
        if !self.tools.enablement.allows(&delivery.org, &delivery.repo) {
            self.office.propose(Body::CommitPlans(commit)).await?;
            return Ok(());
        }
        match self.read(state, delivery) {
            Ok(Taken {
                event,
                contexts,
                mirrored,
            }) => {
                if let Some(contexts) = contexts {
                    let put = self.office.propose(Body::PutPullRequests(contexts)).await;
                    unless_in_vain(delivery, put)?;
                }
                if let Some(plan) = mirrored {
                    commit.plugins.push(MIRROR.to_owned());
                    commit.plans.push(plan);
                }
                self.choose(&event, delivery, running, &mut commit);
                self.note_push(&running.plugins, &event);
                self.note_merge(running, &event);
            }
            // As in Prow, an event that does not decode is nobody's (HOOK-005).
            Err(why) => tracing::warn!(guid = delivery.guid, %why, "a delivery is left alone"),
        }
        self.forward_to(delivery, running, &mut commit);
        let nobodys = CommitPlans {
            guid: commit.guid.clone(),
            config_version: commit.config_version,
            ..CommitPlans::default()
        };
        let unmirrored = unmirrored(&commit);
        let mut committed = self.office.propose(Body::CommitPlans(commit)).await;
        if let Some(unmirrored) = unmirrored
            && is_full(&committed)
        {
            // The mirror is repaired by and by; plugins must not wait for room in it.
            committed = self.office.propose(Body::CommitPlans(unmirrored)).await;
        }
        if !unless_invalid(delivery, committed)? {
            // What the state will not hold must not stand in the way of what comes after.
            self.office.propose(Body::CommitPlans(nobodys)).await?;
        }
        Ok(())
    }

    /// The event, and what the mirror takes from it.
    fn read(&self, state: &State, delivery: &Delivery) -> Result<Taken, Unreadable> {
        let payload = payload(state, delivery)?;
        let reading = AssertUnwindSafe(|| {
            let event = self.events.parse(delivery, &payload)?.event;
            Ok(Taken {
                contexts: mirror::context(&event, &payload),
                mirrored: mirror::plan(&event),
                event,
            })
        });
        catch_unwind(reading).unwrap_or(Err(Unreadable::Panicked))
    }

    fn choose(
        &self,
        event: &Event,
        delivery: &Delivery,
        running: &RunningConfig,
        commit: &mut CommitPlans,
    ) {
        let Some(repo) = event.repo() else {
            return;
        };
        let plugins = &self.tools.plugins;
        let enabled = running.plugins.enabled_plugins(&repo.org, &repo.repo);
        // Names that are not built in are accepted silently (HOOK-054), and so are those of what `external_plugins` turns on.
        let own = enabled.into_iter().filter_map(|name| plugins.get(name));
        let own = own.filter(|plugin| plugin.external_names().is_empty());
        let external = running
            .plugins
            .external_plugins(&repo.org, &repo.repo, &delivery.event);
        let as_external = external.filter_map(|plugin| plugins.external(&plugin.name));
        let configured = Configured {
            running,
            options: &self.tools.options,
        };
        for plugin in own.chain(as_external) {
            let name = plugin.name();
            if commit.plugins.iter().any(|known| known == name) {
                continue;
            }
            commit.plugins.push(name.to_owned());
            let concerns = AssertUnwindSafe(|| plugin.concerns(&configured, event));
            // One that panicked is asked in its lane, where failures are counted.
            if matches!(catch_unwind(concerns), Ok(false)) {
                commit.idle.push(name.to_owned());
            }
        }
    }

    /// Plugins elsewhere get every delivery, read or not, whatever `excluded_repos` says.
    fn forward_to(&self, delivery: &Delivery, running: &RunningConfig, commit: &mut CommitPlans) {
        if self.office.view().feature_level() < EFFECTS_LEVEL {
            return;
        }
        let is_built_in = |name: &str| self.tools.plugins.external(name).is_some();
        for plan in forward::plans(&running.plugins, delivery, is_built_in) {
            if !commit.plugins.contains(&plan.plugin) {
                commit.plugins.push(plan.plugin.clone());
                commit.plans.push(plan);
            }
        }
    }
}

/// The commit without what it would put into the mirror, if it would put anything.
fn unmirrored(commit: &CommitPlans) -> Option<CommitPlans> {
    let is_else = |plan: &&PlanBody| plan.plugin != MIRROR;
    if commit.plans.iter().all(|plan| is_else(&plan)) {
        return None;
    }
    let plugins = commit.plugins.iter().filter(|plugin| *plugin != MIRROR);
    Some(CommitPlans {
        guid: commit.guid.clone(),
        config_version: commit.config_version,
        plugins: plugins.cloned().collect(),
        plans: commit.plans.iter().filter(is_else).cloned().collect(),
        idle: commit.idle.clone(),
    })
}

/// Whether there was no room for it.
fn is_full(proposed: &Result<Done, OfficeError>) -> bool {
    matches!(
        proposed,
        Err(OfficeError::Rejected {
            code: Rejection::ResourceExhausted,
            ..
        })
    )
}

/// As [`unless_invalid`], and what there is no room for is passed over too: it is repaired by and by.
fn unless_in_vain(
    delivery: &Delivery,
    proposed: Result<Done, OfficeError>,
) -> Result<bool, OfficeError> {
    if is_full(&proposed) {
        tracing::error!(guid = delivery.guid, "the mirror of pull requests is full");
        return Ok(false);
    }
    unless_invalid(delivery, proposed)
}

/// Whether the command was taken; one that the state can never take is told and passed over.
fn unless_invalid(
    delivery: &Delivery,
    proposed: Result<Done, OfficeError>,
) -> Result<bool, OfficeError> {
    match proposed {
        Ok(_) => Ok(true),
        Err(OfficeError::Rejected {
            code: Rejection::Invalid,
            message,
        }) => {
            tracing::error!(guid = delivery.guid, message, "a delivery is left alone");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(guid: &str, body: &[u8]) -> Delivery {
        Delivery {
            guid: guid.to_owned(),
            event: "ping".to_owned(),
            payload_zstd: zstd::bulk::compress(body, 1).unwrap().into(),
            ..Delivery::default()
        }
    }

    #[test]
    fn parsed_events_are_kept_within_bounds() {
        let state = State::new();
        let events = Events::default();
        for n in 0..(4 * MAX_EVENTS) {
            let delivery = delivery(&n.to_string(), b"{}");
            events.get(&state, &delivery).unwrap();
            if n % 2 == 0 {
                events.forget(&delivery.guid);
            }
        }
        let kept = events.kept();
        assert!(kept.by_guid.len() <= MAX_EVENTS && kept.order.len() <= 3 * MAX_EVENTS);
        assert_eq!(kept.bytes, 2 * kept.by_guid.len());
    }

    #[test]
    fn deliveries_are_ordered_by_what_they_are_about() {
        let of = |number, r#ref: &str| {
            Subject::of(&Delivery {
                org: "org".into(),
                repo: "repo".into(),
                number,
                r#ref: r#ref.into(),
                ..Delivery::default()
            })
        };
        assert_eq!(of(5, "").about, "#5");
        assert_eq!(of(0, "refs/heads/main").about, "refs/heads/main");
        assert_ne!(of(5, ""), of(6, ""));
    }
}
