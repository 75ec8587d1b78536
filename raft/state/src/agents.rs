//! Agents: who may hold leases. Every registration is a new incarnation, and the leases of the one before are lost.

use std::sync::Arc;

use imbl::OrdSet;
use trireme_proto::state::{Agent, Done, Job, RegisterAgent, SetAgent};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    limits::{LOST_AGENT_MEMORY_MS, MAX_AGENTS, PRUNE_PER_ENTRY},
    reject::{
        Verdict, conflict, exhausted, fenced, invalid, name, not_found, optional_name, record_size,
    },
    table::{Record, Table},
};

impl Record for Agent {
    const KIND: u8 = 11;
    type Key = String;

    fn key(&self) -> String {
        self.id.clone()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Agents {
    rows: Table<Agent>,
    lost: OrdSet<(i64, String)>,
}

impl Agents {
    pub(crate) fn put(&mut self, digest: &mut Sum, agent: Arc<Agent>) -> Option<Arc<Agent>> {
        let former = self.rows.put(digest, agent.clone());
        if let Some(former) = former.as_ref().filter(|former| former.lost) {
            self.lost.remove(&(former.lost_ms, former.id.clone()));
        }
        if agent.lost {
            self.lost.insert((agent.lost_ms, agent.id.clone()));
        }
        former
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}

pub(crate) fn register(state: &mut State, entry: &mut Entry, command: &RegisterAgent) -> Verdict {
    let Some(asked) = &command.agent else {
        return Err(invalid("no agent"));
    };
    name("agent.id", &asked.id)?;
    optional_name("agent.name", &asked.name)?;
    optional_name("agent.principal", &asked.principal)?;
    for cluster in &asked.clusters {
        name("cluster", cluster)?;
    }
    record_size("the agent", asked)?;
    match state.agent(&asked.id) {
        // The incarnation is the log index, so one entry makes one.
        Some(former) if former.incarnation == entry.index => {
            return Err(conflict(format!(
                "agent {:?} registered in the same log entry",
                asked.id
            )));
        }
        Some(former) if !former.principal.is_empty() && former.principal != asked.principal => {
            return Err(conflict(format!(
                "agent {:?} was registered by {}: nobody else may take its id",
                asked.id, former.principal
            )));
        }
        None if state.agents.len() >= MAX_AGENTS => return Err(exhausted("agents", MAX_AGENTS)),
        _ => {}
    }
    state.lose_leases(entry, &asked.id, "The agent was restarted.");
    let agent = Agent {
        registered_ms: entry.stamp_ms,
        incarnation: entry.index,
        draining: false,
        lost: false,
        lost_ms: 0,
        ..asked.clone()
    };
    state.put_agent(entry, agent);
    Ok(Done {
        token: entry.index,
        ..Done::default()
    })
}

/// Once lost, an agent stays so until it registers again.
pub(crate) fn set(state: &mut State, entry: &mut Entry, command: &SetAgent) -> Verdict {
    let agent = state
        .agent(&command.id)
        .cloned()
        .ok_or_else(|| not_found("agent", &command.id))?;
    if agent.incarnation != command.incarnation {
        return Err(fenced(format!(
            "agent {:?} is at incarnation {}",
            agent.id, agent.incarnation
        )));
    }
    let mut next = (*agent).clone();
    next.draining = command.draining;
    if command.node_id != 0 {
        next.node_id = command.node_id;
    }
    if command.lost && !agent.lost {
        next.lost = true;
        next.lost_ms = entry.stamp_ms;
        state.lose_leases(entry, &command.id, "The agent was lost.");
    }
    if next == *agent {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    state.put_agent(entry, next);
    Ok(Done::default())
}

impl State {
    fn put_agent(&mut self, entry: &mut Entry, mut agent: Agent) {
        agent.revision = entry.index;
        let agent = Arc::new(agent);
        self.agents.put(&mut self.digest, agent.clone());
        entry.changed(Change::Agent(agent));
    }

    fn lose_leases(&mut self, entry: &mut Entry, agent_id: &str, reason: &str) {
        let held: Vec<Arc<Job>> = self.leases_of_agent(agent_id).cloned().collect();
        for job in held {
            self.release(entry, &job, false, reason);
        }
    }

    /// Whether this incarnation may be given one more job. A capacity of 0 is no limit.
    pub(crate) fn check_lease_holder(&self, agent_id: &str, incarnation: u64) -> Verdict<()> {
        let agent = self
            .agent(agent_id)
            .ok_or_else(|| not_found("agent", agent_id))?;
        if agent.incarnation != incarnation {
            return Err(fenced(format!(
                "agent {agent_id:?} is at incarnation {}",
                agent.incarnation
            )));
        }
        if agent.lost {
            return Err(fenced(format!(
                "agent {agent_id:?} is lost: it must register again"
            )));
        }
        if agent.draining {
            return Err(conflict(format!("agent {agent_id:?} is draining")));
        }
        if agent.capacity != 0 && self.lease_count(agent_id) >= agent.capacity {
            return Err(conflict(format!(
                "agent {agent_id:?} holds {} jobs, its capacity",
                agent.capacity
            )));
        }
        Ok(())
    }

    pub(crate) fn forget_agents(&mut self, entry: &mut Entry) {
        let before = entry.stamp_ms.saturating_sub(LOST_AGENT_MEMORY_MS);
        for _ in 0..PRUNE_PER_ENTRY {
            match self.agents.lost.get_min() {
                Some((lost_ms, id)) if *lost_ms < before => {
                    let (lost_ms, id) = (*lost_ms, id.clone());
                    self.agents.rows.remove(&mut self.digest, &id);
                    self.agents.lost.remove(&(lost_ms, id.clone()));
                    entry.changed(Change::Removed(RecordKey::Agent { id }));
                }
                _ => break,
            }
        }
    }

    pub fn agent(&self, id: &str) -> Option<&Arc<Agent>> {
        self.agents.rows.get(id)
    }

    /// All agents, lost ones included, by id.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.iter()
    }
}
