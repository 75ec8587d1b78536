//! Plans: what each plugin decided about a delivery, committed before anything is done, once per (delivery, plugin).

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdSet;
use trireme_proto::state::{
    CommitPlans, Delivery, DeliveryState, Done, Effect, EffectState, Plan, PlanBody, SettlePlan,
    effect::Action,
};

use crate::{
    State,
    apply::Entry,
    archive,
    change::{Change, RecordKey},
    delivery_filter::is_dead,
    digest::Sum,
    limits::{MAX_EFFECTS_PER_PLAN, MAX_JOBS_PER_COMMAND, MAX_PLUGINS},
    pulls::{PullName, Writer},
    reject::{
        Verdict, at_most, conflict, cut, invalid, name, not_found, optional_name, record_size,
    },
    table::{Record, Seq, Table},
};

type Key = (String, String);

impl Record for Plan {
    const KIND: u8 = 5;
    type Key = Key;

    fn key(&self) -> Key {
        (self.guid.clone(), self.plugin.clone())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plans {
    pub(crate) rows: Table<Plan>,
    /// Plans with effects that are not settled, by arrival of the delivery.
    open: OrdSet<(Seq, Key)>,
    /// Dead plans, and plans with dead effects.
    dead: OrdSet<(Seq, Key)>,
}

/// Whether the plugin's decision is committed; else the record only counts its failures.
pub fn is_committed(plan: &Plan) -> bool {
    plan.planned_ms != 0
}

pub(crate) fn is_settled(effect: &Effect) -> bool {
    matches!(
        effect.state(),
        EffectState::Done | EffectState::Dead | EffectState::Skipped
    )
}

/// Ordinal of the first effect that is not settled.
pub fn next_effect(plan: &Plan) -> Option<u32> {
    let at = plan.effects.iter().position(|effect| !is_settled(effect))?;
    u32::try_from(at).ok()
}

impl Plans {
    pub(crate) fn put(&mut self, digest: &mut Sum, plan: Arc<Plan>) -> Option<Arc<Plan>> {
        let former = self.rows.put(digest, plan.clone());
        if let Some(former) = &former {
            self.index(former, false);
        }
        self.index(&plan, true);
        former
    }

    fn remove(&mut self, digest: &mut Sum, key: &Key) -> Option<Arc<Plan>> {
        let former = self.rows.remove(digest, key)?;
        self.index(&former, false);
        Some(former)
    }

    fn index(&mut self, plan: &Plan, add: bool) {
        let row = (
            Seq {
                revision: plan.revision,
                ordinal: plan.ordinal,
            },
            plan.key(),
        );
        let flip = |set: &mut OrdSet<(Seq, Key)>| {
            if add {
                set.insert(row.clone());
            } else {
                set.remove(&row);
            }
        };
        if next_effect(plan).is_some() {
            flip(&mut self.open);
        }
        if is_dead(plan) {
            flip(&mut self.dead);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    pub(crate) fn dead_len(&self) -> usize {
        self.dead.len()
    }
}

pub(crate) fn commit(state: &mut State, entry: &mut Entry, command: &CommitPlans) -> Verdict {
    let delivery = state
        .delivery(&command.guid)
        .cloned()
        .ok_or_else(|| not_found("delivery", &command.guid))?;
    let plugins = fixed_plugins(&delivery, command)?;
    check_mentions(&plugins, command)?;

    let mut already_planned = Vec::new();
    let mut fresh = Vec::new();
    for body in &command.plans {
        if state.is_decided(&delivery, &body.plugin) {
            already_planned.push(body.plugin.clone());
        } else {
            fresh.push(body);
        }
    }
    let mut idle = Vec::new();
    for plugin in &command.idle {
        if state.is_decided(&delivery, plugin) {
            already_planned.push(plugin.clone());
        } else {
            idle.push(plugin.clone());
        }
    }
    state.check_new_jobs(entry, fresh.iter().flat_map(|body| &body.jobs))?;
    let mirror: Vec<_> = fresh
        .iter()
        .flat_map(|body| body.pull_requests.iter())
        .collect();
    state.check_pulls(&mirror)?;
    let mut closed = Vec::new();
    for body in &fresh {
        check_body(body)?;
        for text in &body.close_pull_requests {
            closed.push(text.parse::<PullName>()?);
        }
    }
    at_most("pull requests to close", closed.len(), MAX_JOBS_PER_COMMAND)?;

    let first = delivery.state() == DeliveryState::Received;
    if !first && fresh.is_empty() && idle.is_empty() {
        return Ok(Done {
            duplicate: true,
            already_planned,
            ..Done::default()
        });
    }
    for pull in mirror {
        state.put_pull(entry, pull, Writer::Webhook);
    }
    for pull in &closed {
        state.close_pull(entry, pull);
    }
    let mut done = Done {
        already_planned,
        ..Done::default()
    };
    let mut settled = delivery.settled.clone();
    for plugin in idle {
        // After failures it did decide: what the record says of them is over.
        if let Some(plan) = state.plan(&command.guid, &plugin).cloned() {
            let decided = Plan {
                config_version: command.config_version,
                planned_ms: entry.stamp_ms.max(1),
                error: String::new(),
                ..(*plan).clone()
            };
            state.put_plan(entry, decided);
        }
        settled.push(plugin);
    }
    for body in fresh {
        let about_jobs = !body.jobs.is_empty() || !body.abort.is_empty();
        let event = about_jobs.then(|| event_words(&delivery, &body.plugin));
        let made = state.make_jobs(entry, body.jobs.iter().cloned(), event.as_deref());
        let aborted = state.abort_all(entry, &body.abort, event.as_deref());
        let failures = state
            .plan(&command.guid, &body.plugin)
            .map_or(0, |plan| plan.failures);
        let plan = Plan {
            guid: command.guid.clone(),
            plugin: body.plugin.clone(),
            config_version: command.config_version,
            effects: body.effects.iter().cloned().map(waiting).collect(),
            jobs: made.created.clone(),
            aborted: made.aborted.iter().chain(&aborted).cloned().collect(),
            // Zero means not committed, so a clock at the epoch must not be taken for it.
            planned_ms: entry.stamp_ms.max(1),
            version: 0,
            failures,
            error: String::new(),
            dead: false,
            revision: delivery.revision,
            ordinal: delivery.ordinal,
            head_sha: body.head_sha.clone(),
        };
        if next_effect(&plan).is_none() {
            settled.push(body.plugin.clone());
        }
        state.put_plan(entry, plan);
        done.created.extend(made.created);
        done.existing.extend(made.existing);
        done.aborted.extend(made.aborted);
        done.aborted.extend(aborted);
    }
    state.settle_plugins(
        entry,
        &Delivery {
            plugins,
            ..(*delivery).clone()
        },
        settled,
    );
    Ok(done)
}

/// What a plugin answers to, for the histories of jobs.
fn event_words(delivery: &Delivery, plugin: &str) -> String {
    let Delivery {
        guid,
        event,
        action,
        org,
        repo,
        number,
        r#ref,
        sender,
        ..
    } = delivery;
    let mut words = format!("{plugin}: {event}");
    let number = match number {
        0 => String::new(),
        number => format!("#{number}"),
    };
    // A pull request's events name its branch, too.
    let branch = if number.is_empty() { r#ref } else { "" };
    for (before, word) in [
        (".", action.as_str()),
        (" on ", org),
        ("/", repo),
        ("", &number),
        (" ", branch),
        (" by ", sender),
        (", delivery ", guid),
    ] {
        if !word.is_empty() {
            words.push_str(before);
            words.push_str(word);
        }
    }
    words
}

/// The plugins of a delivery: those that its first commit names, whatever later ones say.
fn fixed_plugins(delivery: &Delivery, command: &CommitPlans) -> Verdict<Vec<String>> {
    if delivery.state() != DeliveryState::Received {
        return Ok(delivery.plugins.clone());
    }
    at_most("plugins", command.plugins.len(), MAX_PLUGINS)?;
    let mut seen = BTreeSet::new();
    for plugin in &command.plugins {
        name("plugin", plugin)?;
        if !seen.insert(plugin) {
            return Err(invalid(format!("plugin {plugin:?} twice")));
        }
    }
    Ok(command.plugins.clone())
}

fn check_mentions(plugins: &[String], command: &CommitPlans) -> Verdict<()> {
    let mut mentioned = BTreeSet::new();
    for plugin in command
        .plans
        .iter()
        .map(|body| &body.plugin)
        .chain(&command.idle)
    {
        if !plugins.contains(plugin) {
            return Err(invalid(format!(
                "plugin {plugin:?} is not one of this delivery's plugins"
            )));
        }
        if !mentioned.insert(plugin) {
            return Err(invalid(format!("plugin {plugin:?} decides twice")));
        }
    }
    Ok(())
}

fn check_body(body: &PlanBody) -> Verdict<()> {
    at_most("effects", body.effects.len(), MAX_EFFECTS_PER_PLAN)?;
    at_most("jobs to abort", body.abort.len(), MAX_JOBS_PER_COMMAND)?;
    if body.effects.iter().any(|effect| effect.action.is_none()) {
        return Err(invalid(format!(
            "plugin {:?}: an effect without an action",
            body.plugin
        )));
    }
    optional_name("head_sha", &body.head_sha)?;
    for (ordinal, effect) in body.effects.iter().enumerate() {
        check_effect(ordinal, effect)?;
    }
    let size = Plan {
        effects: body.effects.clone(),
        ..Plan::default()
    };
    record_size("the plan", &size)
}

/// What an effect says of others: only of earlier ones, and inserts within the text.
fn check_effect(ordinal: usize, effect: &Effect) -> Verdict<()> {
    optional_name("head_sha", &effect.head_sha)?;
    let is_earlier = |other: u32| (other as usize) < ordinal;
    let refuse = |what: &str| Err(invalid(format!("effect {ordinal}: {what}")));
    if let Some(condition) = &effect.condition
        && (!is_earlier(condition.ordinal) || condition.outcomes.is_empty())
    {
        return refuse("a condition on no outcome, or on no earlier effect");
    }
    let (body, inserts) = match &effect.action {
        Some(Action::Comment(comment)) => (&comment.body, &comment.inserts),
        Some(Action::OpenIssue(issue)) => (&issue.body, &issue.inserts),
        _ => return Ok(()),
    };
    let mut from = 0;
    for insert in inserts {
        let at = insert.at as usize;
        if at < from || !body.is_char_boundary(at) {
            return refuse("an insert outside of the text, or not in order");
        }
        from = at;
        if !insert.pieces.iter().all(|piece| is_earlier(piece.ordinal)) {
            return refuse("an insert of no earlier effect");
        }
    }
    Ok(())
}

fn waiting(effect: Effect) -> Effect {
    Effect {
        action: effect.action,
        condition: effect.condition,
        head_sha: effect.head_sha,
        state: EffectState::Waiting.into(),
        ..Effect::default()
    }
}

/// A plugin failed to decide.
pub(crate) fn settle(state: &mut State, entry: &mut Entry, command: &SettlePlan) -> Verdict {
    let delivery = state
        .delivery(&command.guid)
        .cloned()
        .ok_or_else(|| not_found("delivery", &command.guid))?;
    if delivery.state() == DeliveryState::Received {
        return Err(conflict(
            "this delivery's plugins are not fixed: commit them first, with or without plans",
        ));
    }
    if !delivery.plugins.contains(&command.plugin) {
        return Err(invalid(format!(
            "plugin {:?} is not one of this delivery's plugins",
            command.plugin
        )));
    }
    if state.is_decided(&delivery, &command.plugin) {
        return Err(conflict(format!("plugin {:?} has decided", command.plugin)));
    }
    let mut plan = match state.plan(&command.guid, &command.plugin) {
        Some(plan) => (**plan).clone(),
        None => Plan {
            guid: command.guid.clone(),
            plugin: command.plugin.clone(),
            revision: delivery.revision,
            ordinal: delivery.ordinal,
            ..Plan::default()
        },
    };
    plan.failures = plan.failures.saturating_add(1);
    plan.error = cut(&command.error);
    plan.dead = command.dead;
    state.put_plan(entry, plan);
    if command.dead {
        let mut settled = delivery.settled.clone();
        settled.push(command.plugin.clone());
        state.settle_plugins(entry, &delivery, settled);
    }
    Ok(Done::default())
}

impl State {
    /// Whether the plugin has planned, has had nothing to do, or was given up.
    fn is_decided(&self, delivery: &Delivery, plugin: &str) -> bool {
        delivery.settled.iter().any(|settled| settled == plugin)
            || self
                .plan(&delivery.guid, plugin)
                .is_some_and(|plan| is_committed(plan))
    }

    pub(crate) fn put_plan(&mut self, entry: &mut Entry, mut plan: Plan) {
        plan.version = entry.index;
        let plan = Arc::new(plan);
        self.plans.put(&mut self.digest, plan.clone());
        entry.changed(Change::Plan(plan));
    }

    pub(crate) fn drop_plans(&mut self, entry: &mut Entry, guid: &str) {
        let keys: Vec<Key> = self.plans_of(guid).map(|plan| plan.key()).collect();
        for key in keys {
            if let Some(plan) = self.plans.remove(&mut self.digest, &key) {
                archive::plan(entry, &plan);
                entry.changed(Change::Removed(RecordKey::Plan {
                    guid: key.0,
                    plugin: key.1,
                }));
            }
        }
    }

    pub fn plan(&self, guid: &str, plugin: &str) -> Option<&Arc<Plan>> {
        self.plans.rows.get(&(guid.to_owned(), plugin.to_owned()))
    }

    /// A delivery's plans, by plugin; plugins with nothing to do have none.
    pub fn plans_of<'a>(&'a self, guid: &'a str) -> impl Iterator<Item = &'a Arc<Plan>> {
        let from = (guid.to_owned(), String::new());
        self.plans
            .rows
            .range(from..)
            .take_while(move |plan| plan.guid == guid)
    }

    /// Plans with effects to be done, by arrival of their deliveries, each with the ordinal of its next effect.
    pub fn open_effects(&self) -> impl Iterator<Item = (&Arc<Plan>, u32)> {
        self.plans.open.iter().filter_map(|(_, key)| {
            let plan = self.plans.rows.get(key)?;
            Some((plan, next_effect(plan)?))
        })
    }

    /// Plans that were given up, or with effects that were, by arrival of their deliveries.
    pub fn dead_plans(&self) -> impl DoubleEndedIterator<Item = &Arc<Plan>> {
        self.plans
            .dead
            .iter()
            .filter_map(|(_, key)| self.plans.rows.get(key))
    }
}
