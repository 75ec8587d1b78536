//! Clients of small registers, and the record of what they were told.
//!
//! A register is a job that no agent takes: nothing, then created (1), then aborted (2). Its id follows from the request
//! that creates it, so it can be read before it exists. Clients share the registers, go through the doors of all nodes,
//! and mostly read linearizably; some reads ask a node for "at least" the revision of an earlier write instead.
//!
//! What a call that got no answer did is unknown: it is made again with the same request id, at another node, and all of
//! it together is one operation, because it may take effect once. If no call gets an answer, the operation stays open.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use trireme_api::client::Client;
use trireme_proto::{
    api::{
        AbortJobRequest, CreateJobRequest, Freshness, GetJobRequest, ReadOptions,
        create_job_request::What,
    },
    state::JobState,
};

use crate::dice::Dice;

/// The job of a register.
pub const JOB: &str = "register";
/// What a register holds once it is created, and once it is aborted.
pub const CREATED: u64 = 1;
pub const ABORTED: u64 = 2;
/// A state that no client asked for; the job's state is added.
pub const UNASKED: u64 = 100;

/// Clients at each node.
const CLIENTS_PER_NODE: u64 = 3;
/// Registers that are written and read at one time.
const LIVE: usize = 8;
/// Uses of a register before another takes its place.
const USES: u32 = 60;
/// A client's patience with one call.
const PATIENCE: Duration = Duration::from_secs(3);
/// Clients that fill a disk.
const POURERS: usize = 8;
/// Their numbers, and that of who aborts what is left: above all others.
const POURER: u64 = 10_000;
const CLOSER: u64 = 20_000;
/// Their patience: what they write is large, and many write at once.
const POURING: Duration = Duration::from_secs(20);
/// Calls of one operation.
const MAX_CALLS: u32 = 4;
/// Between two operations of one client, at most.
const PAUSE_MS: u64 = 80;
/// After a node did not answer at all.
const RECONNECT: Duration = Duration::from_millis(100);
/// Operations of one run; then clients stop asking, lest the record outgrows memory.
const MAX_OPERATIONS: usize = 2_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Create,
    Abort,
    /// Of everything that was acknowledged before.
    Read,
    /// Of what one node has, no older than a revision.
    ReadAtLeast {
        revision: u64,
    },
}

impl Verb {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Abort => "abort",
            Self::Read => "read",
            Self::ReadAtLeast { .. } => "read-at-least",
        }
    }

    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Abort)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done, at a revision; a read saw what the register holds.
    Done {
        revision: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        seen: Option<u64>,
    },
    /// Certainly without effect.
    Refused {
        why: String,
    },
    Unknown {
        why: String,
    },
}

/// What one client asked, and was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    pub client: u64,
    /// Of the last call.
    pub node: u64,
    pub key: String,
    pub verb: Verb,
    pub calls: u32,
    /// Nanoseconds of a monotonic clock.
    pub called_ns: u64,
    pub returned_ns: u64,
    pub outcome: Outcome,
}

/// # Errors
/// When it cannot be written.
pub(crate) fn keep(operations: &[Asked], mut to: impl Write) -> io::Result<()> {
    for operation in operations {
        serde_json::to_writer(&mut to, operation)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// How many there were of each verb.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub done: usize,
    pub refused: usize,
    pub unknown: usize,
}

#[must_use]
pub fn tally(operations: &[Asked]) -> BTreeMap<&'static str, Tally> {
    let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
    for operation in operations {
        let tally = tallies.entry(operation.verb.name()).or_default();
        match operation.outcome {
            Outcome::Done { .. } => tally.done += 1,
            Outcome::Refused { .. } => tally.refused += 1,
            Outcome::Unknown { .. } => tally.unknown += 1,
        }
    }
    tallies
}

struct Register {
    id: String,
    request: String,
    uses: u32,
    /// Of the last write that somebody was told of.
    revision: u64,
    created: bool,
}

impl Register {
    fn new() -> Self {
        let request = format!("register-{}", uuid::Uuid::new_v4());
        Self {
            id: trireme_state::ids::job_id(&format!("request:{request}"), "create", 0),
            request,
            uses: 0,
            revision: 0,
            created: false,
        }
    }
}

struct Shared {
    start: Instant,
    doors: Vec<(u64, String)>,
    live: Mutex<Vec<Register>>,
    /// Registers that somebody tried to create and that may not be aborted.
    open: Mutex<BTreeMap<String, String>>,
    record: Mutex<Vec<Asked>>,
    prowjob: Bytes,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clients, as long as they run.
pub struct Registers {
    shared: Arc<Shared>,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl std::fmt::Debug for Registers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Registers").finish_non_exhaustive()
    }
}

fn prowjob(padding: usize) -> anyhow::Result<Bytes> {
    let text = json!({
        "apiVersion": "prow.k8s.io/v1", "kind": "ProwJob",
        "spec": {
            "type": "periodic", "agent": "kubernetes", "cluster": "nowhere", "job": JOB,
            "pod_spec": {"containers": [{"args": ["x".repeat(padding)]}]},
        },
    });
    Ok(serde_json::to_vec(&text)?.into())
}

impl Registers {
    /// Starts clients at each of these doors of nodes.
    ///
    /// # Errors
    /// Never in practice: when a job cannot be written as JSON.
    pub fn start(doors: Vec<(u64, String)>, seed: u64) -> anyhow::Result<Self> {
        let mut dice = Dice::new(seed);
        let count = doors.len() as u64 * CLIENTS_PER_NODE;
        let shared = Arc::new(Shared {
            start: Instant::now(),
            live: Mutex::new((0..LIVE).map(|_| Register::new()).collect()),
            open: Mutex::default(),
            record: Mutex::default(),
            prowjob: prowjob(0)?,
            doors,
        });
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        for number in 0..count {
            let client = RegisterClient {
                dice: Dice::new(dice.next()),
                ..RegisterClient::new(number, (number / CLIENTS_PER_NODE) as usize, &shared)
            };
            running.spawn(client.run(stop.clone()));
        }
        Ok(Self {
            shared,
            stop,
            running,
        })
    }

    /// Nanoseconds of the clock that operations are recorded with.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    /// Waits until every one of these nodes has acknowledged a write that was asked for after this call.
    ///
    /// # Errors
    /// Naming those that have not within `bound`.
    pub async fn until_all_write(
        &self,
        nodes: &[u64],
        bound: Duration,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let since = self.now_ns();
        let mut from = held(&self.shared.record).len();
        let mut missing: Vec<u64> = nodes.to_vec();
        while !missing.is_empty() {
            {
                let record = held(&self.shared.record);
                for done in record.iter().skip(from) {
                    if done.verb.is_write()
                        && done.called_ns >= since
                        && matches!(done.outcome, Outcome::Done { .. })
                    {
                        missing.retain(|node| *node != done.node);
                    }
                }
                from = record.len();
            }
            if began.elapsed() > bound {
                anyhow::bail!(
                    "nodes {missing:?} acknowledge no write within {bound:?} after everything was healed"
                );
            }
            sleep(RECONNECT).await;
        }
        Ok(began.elapsed())
    }

    /// Writes values of this size through the other nodes until stopped, to fill a node's disk; they are registers like
    /// the others, only nobody reads them. Gives the bytes that were taken.
    ///
    /// # Errors
    /// When a client ended by itself.
    pub async fn pour(
        &self,
        node: u64,
        bytes: usize,
        stop: &CancellationToken,
    ) -> anyhow::Result<u64> {
        let prowjob = prowjob(bytes)?;
        let doors = self.shared.doors.iter().enumerate();
        let others = doors.filter(|(_, (id, _))| *id != node);
        let others: Vec<usize> = others.map(|(at, _)| at).collect();
        let mut pouring = JoinSet::new();
        for turn in 0..POURERS {
            let mut client = RegisterClient {
                patience: POURING,
                prowjob: prowjob.clone(),
                ..RegisterClient::new(
                    POURER + turn as u64,
                    others[turn % others.len()],
                    &self.shared,
                )
            };
            let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
            pouring.spawn(async move {
                let mut poured = 0;
                while !stop.is_cancelled() {
                    let register = Register::new();
                    held(&shared.open).insert(register.id.clone(), register.request.clone());
                    let outcome = client
                        .operate(&register.id, &register.request, Verb::Create)
                        .await;
                    // What was not taken fills nothing.
                    if matches!(outcome, Outcome::Done { .. }) {
                        poured += bytes as u64;
                    }
                }
                poured
            });
        }
        let mut poured = 0;
        while let Some(ended) = pouring.join_next().await {
            poured += ended.context("a client ended by itself")?;
        }
        Ok(poured)
    }

    /// Ends the clients, aborts every register that may exist, and gives the record.
    ///
    /// # Errors
    /// When one cannot be aborted within `bound`.
    pub async fn end(mut self, bound: Duration) -> (Vec<Asked>, anyhow::Result<()>) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
        let closed = timeout(bound, self.close()).await;
        let closed = closed.unwrap_or_else(|_| {
            let left = held(&self.shared.open).len();
            Err(anyhow::anyhow!(
                "{left} registers cannot be aborted within {bound:?}"
            ))
        });
        (std::mem::take(&mut *held(&self.shared.record)), closed)
    }

    async fn close(&self) -> anyhow::Result<()> {
        let open: Vec<String> = held(&self.shared.open).keys().cloned().collect();
        let mut client = RegisterClient::new(CLOSER, 0, &self.shared);
        for id in open {
            loop {
                let read = client.operate(&id, "", Verb::Read).await;
                match read {
                    Outcome::Done {
                        seen: None | Some(ABORTED),
                        ..
                    } => break,
                    Outcome::Done { .. } => {
                        client
                            .operate(&id, &format!("close-{id}"), Verb::Abort)
                            .await;
                    }
                    Outcome::Refused { why } => {
                        anyhow::bail!("register {id} cannot be read: {why}")
                    }
                    Outcome::Unknown { .. } => client.at += 1,
                }
            }
            held(&self.shared.open).remove(&id);
        }
        Ok(())
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

struct RegisterClient {
    number: u64,
    /// Which door it prefers.
    at: usize,
    shared: Arc<Shared>,
    dice: Dice,
    connected: BTreeMap<u64, Client>,
    /// With one call.
    patience: Duration,
    /// What it creates.
    prowjob: Bytes,
}

/// How one call ended.
enum Call {
    Done {
        revision: u64,
        seen: Option<u64>,
    },
    Refused(String),
    /// Nothing was sent.
    NotSent(String),
    Unknown(String),
}

fn refusal(status: &Status) -> Call {
    let why = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::ResourceExhausted => Call::Refused(why),
        // The store's word that nothing happened is held against it.
        Code::Unavailable
            if status.message().contains("the command was not applied")
                || status.message().starts_with("no leader is known") =>
        {
            Call::Refused(why)
        }
        _ => Call::Unknown(why),
    }
}

impl RegisterClient {
    fn new(number: u64, at: usize, shared: &Arc<Shared>) -> Self {
        Self {
            number,
            at,
            shared: Arc::clone(shared),
            dice: Dice::new(number),
            connected: BTreeMap::new(),
            patience: PATIENCE,
            prowjob: shared.prowjob.clone(),
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() && held(&self.shared.record).len() < MAX_OPERATIONS {
            self.next().await;
            let pause = Duration::from_millis(1 + self.dice.below(PAUSE_MS));
            // An operation is not torn, a pause may be.
            stop.run_until_cancelled(sleep(pause)).await;
        }
    }

    async fn next(&mut self) {
        let shared = Arc::clone(&self.shared);
        let place = self.dice.below(LIVE as u64) as usize;
        let (id, request, revision, created) = {
            let mut live = held(&shared.live);
            let register = &mut live[place];
            register.uses += 1;
            if register.uses > USES {
                *register = Register::new();
            }
            (
                register.id.clone(),
                register.request.clone(),
                register.revision,
                register.created,
            )
        };
        let verb = match self.dice.below(100) {
            // Also when it exists: the same request changes nothing.
            0..15 => Verb::Create,
            15..20 if created => Verb::Abort,
            20..40 if revision > 0 => Verb::ReadAtLeast { revision },
            _ if !created && self.dice.below(3) == 0 => Verb::Create,
            _ => Verb::Read,
        };
        let request = match verb {
            Verb::Abort => format!("abort-{}", uuid::Uuid::new_v4()),
            _ => request,
        };
        if verb == Verb::Create {
            held(&shared.open).insert(id.clone(), request.clone());
        }
        let outcome = self.operate(&id, &request, verb).await;
        if let Outcome::Done { revision, .. } = outcome
            && verb.is_write()
        {
            let mut live = held(&shared.live);
            if let Some(register) = live.iter_mut().find(|register| register.id == id) {
                register.created = true;
                register.revision = register.revision.max(revision);
            }
        }
    }

    /// One operation, with all the calls that it takes; recorded unless nothing was sent.
    async fn operate(&mut self, key: &str, request: &str, verb: Verb) -> Outcome {
        let called_ns = self.shared.now_ns();
        let mut unknown = None;
        let mut refused = None;
        let mut node = 0;
        let mut calls = 0;
        let mut done = None;
        for turn in 0..MAX_CALLS as usize {
            let (id, door) = self.shared.doors[(self.at + turn) % self.shared.doors.len()].clone();
            match self.call(id, &door, key, request, verb).await {
                Call::NotSent(why) => {
                    refused = refused.or(Some(why));
                    sleep(RECONNECT).await;
                    continue;
                }
                Call::Done { revision, seen } => done = Some(Outcome::Done { revision, seen }),
                Call::Refused(why) => refused = Some(why),
                Call::Unknown(why) => {
                    unknown = Some(why);
                    (node, calls) = (id, calls + 1);
                    if verb.is_write() {
                        continue;
                    }
                }
            }
            (node, calls) = (id, calls + 1);
            break;
        }
        // One call may have had its effect although a later one was refused.
        let outcome = done
            .or(unknown.map(|why| Outcome::Unknown { why }))
            .unwrap_or_else(|| Outcome::Refused {
                why: refused.unwrap_or_default(),
            });
        if calls > 0 {
            let asked = Asked {
                client: self.number,
                node,
                key: key.to_owned(),
                verb,
                calls,
                called_ns,
                returned_ns: self.shared.now_ns(),
                outcome: outcome.clone(),
            };
            held(&self.shared.record).push(asked);
        }
        outcome
    }

    async fn call(&mut self, node: u64, door: &str, key: &str, request: &str, verb: Verb) -> Call {
        let client = match self.connected.get(&node) {
            Some(client) => client.clone(),
            None => match timeout(PATIENCE, Client::connect(door)).await {
                Ok(Ok(client)) => {
                    self.connected.insert(node, client.clone());
                    client
                }
                Ok(Err(why)) => return Call::NotSent(why.to_string()),
                Err(_) => return Call::NotSent(format!("{door} does not accept")),
            },
        };
        let called = timeout(
            self.patience,
            ask(&client, key, request, verb, &self.prowjob),
        )
        .await;
        match called {
            Ok(Ok(call)) => call,
            Ok(Err(status)) => {
                let call = refusal(&status);
                if matches!(call, Call::Unknown(_)) {
                    self.connected.remove(&node);
                }
                call
            }
            Err(_) => {
                self.connected.remove(&node);
                Call::Unknown(format!("no answer within {:?}", self.patience))
            }
        }
    }
}

async fn ask(
    client: &Client,
    key: &str,
    request: &str,
    verb: Verb,
    prowjob: &Bytes,
) -> Result<Call, Status> {
    let written = |revision| Call::Done {
        revision,
        seen: None,
    };
    let freshness = match verb {
        Verb::Create => {
            let request = CreateJobRequest {
                request_id: request.to_owned(),
                what: Some(What::Prowjob(prowjob.clone())),
            };
            let answer = client.jobs().create_job(request).await?.into_inner();
            if answer.id != key {
                return Ok(Call::Unknown(format!("it was created as {}", answer.id)));
            }
            return Ok(written(answer.revision));
        }
        Verb::Abort => {
            let request = AbortJobRequest {
                id: key.to_owned(),
                request_id: request.to_owned(),
            };
            let answer = client.jobs().abort_job(request).await?;
            return Ok(written(answer.into_inner().revision));
        }
        Verb::Read => ReadOptions {
            freshness: Freshness::Linearizable.into(),
            at_least_revision: 0,
        },
        Verb::ReadAtLeast { revision } => ReadOptions {
            freshness: Freshness::Local.into(),
            at_least_revision: revision,
        },
    };
    let request = GetJobRequest {
        id: key.to_owned(),
        read: Some(freshness),
    };
    match client.jobs().get_job(request).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let job = answer.job.context("an answer without the job");
            let job = job.map_err(|why| Status::internal(why.to_string()))?;
            let seen = match job.state() {
                JobState::Scheduling | JobState::Triggered | JobState::Pending => CREATED,
                JobState::Aborted => ABORTED,
                other => UNASKED + u64::from(other as u32),
            };
            Ok(Call::Done {
                revision: answer.revision,
                seen: Some(seen),
            })
        }
        Err(status) if status.code() == Code::NotFound => Ok(Call::Done {
            revision: 0,
            seen: None,
        }),
        Err(status) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(status: &Status) -> bool {
        matches!(refusal(status), Call::Refused(_))
    }

    #[test]
    fn only_what_certainly_had_no_effect_is_refused() {
        assert!(is_refused(&Status::not_found("no job")));
        assert!(is_refused(&Status::resource_exhausted(
            "too many commands are waiting"
        )));
        assert!(is_refused(&Status::unavailable(
            "no answer in time; the command was not applied"
        )));
        assert!(!is_refused(&Status::unavailable(
            "no answer in time; the command may have been applied"
        )));
        assert!(!is_refused(&Status::unavailable("tcp connect error")));
        assert!(!is_refused(&Status::unknown("transport error")));
    }

    #[test]
    fn operations_are_kept_as_lines() {
        let asked = Asked {
            client: 1,
            node: 2,
            key: "k".to_owned(),
            verb: Verb::ReadAtLeast { revision: 7 },
            calls: 1,
            called_ns: 10,
            returned_ns: 20,
            outcome: Outcome::Done {
                revision: 8,
                seen: Some(CREATED),
            },
        };
        let mut kept = Vec::new();
        keep(&[asked], &mut kept).unwrap();
        insta::assert_snapshot!(String::from_utf8(kept).unwrap(), @r#"{"client":1,"node":2,"key":"k","verb":{"read-at-least":{"revision":7}},"calls":1,"called_ns":10,"returned_ns":20,"outcome":{"done":{"revision":8,"seen":1}}}"#);
    }
}
