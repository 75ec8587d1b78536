//! Who uses the cluster: clients that write and read registers at a node, forges that bring webhooks, users that create
//! and abort jobs. Webhooks come home twice now and then, and until they are acknowledged; so do creations under one
//! request id.

use std::{collections::BTreeSet, io, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;
use trireme_proto::{
    api::{
        AbortJobRequest, CreateJobRequest, create_job_request::What,
        job_service_client::JobServiceClient,
    },
    state::{Command, Cursor, PullRequest, PutCursor, PutPullRequests, command::Body, outcome},
};
use trireme_raft::{ProposeError, Store};

use super::{
    chance::Chance,
    cluster::{Cluster, WEBHOOK_SECRET},
    forge::{BRANCH, Forge, ORG, REPO},
    world::true_ms,
};
use crate::{
    Sent,
    checks::linearizable::{Kind, Operation},
};

/// Hosts of clients; nodes have smaller numbers.
const FIRST_HOST: u64 = 100;
const REGISTERS: u64 = 4;
const THINK_MS: (u64, u64) = (5, 300);
/// A forge or user gives up waiting for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who makes a job asks twice, within the time that it stays.
const CREATE_PATIENCE: Duration = Duration::from_secs(3);
/// How often a forge brings a webhook that is not acknowledged.
const ATTEMPTS: u64 = 8;
const RETRY_MS: (u64, u64) = (100, 3000);
/// Between two pull requests.
const OPEN_MS: (u64, u64) = (1000, 8000);
const MIRROR_ATTEMPTS: u64 = 200;
/// More of an answer than a status line.
const ANSWER_BYTES: u64 = 64 << 10;

pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) cluster: Cluster,
    pub(crate) forge: Forge,
    pub(crate) chance: Chance,
    /// When the simulation began.
    pub(crate) began: tokio::time::Instant,
}

/// A gRPC connection to a node's door, made when it is used.
pub(crate) fn door(cluster: &Cluster, host: u64, node: u64) -> Channel {
    let cluster = cluster.clone();
    Endpoint::from_static("http://door")
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_with_connector_lazy(service_fn(move |_| {
            let cluster = cluster.clone();
            async move { cluster.knock(host, node).await.map(TokioIo::new) }
        }))
}

impl Client {
    fn host(&self) -> u64 {
        FIRST_HOST + self.number
    }

    fn node(&self) -> u64 {
        let ids = self.cluster.ids();
        self.chance.pick(&ids).copied().unwrap_or(1)
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        self.cluster
            .trace()
            .line(format_args!("client-{}", self.number), what);
    }

    /// Until it is asked to stop; what is under way is finished.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut count = 0;
        let mut created = BTreeSet::new();
        while !stop.is_cancelled() {
            sleep(self.chance.millis(THINK_MS.0, THINK_MS.1)).await;
            count += 1;
            match self.chance.below(16) {
                0..=5 => self.write(count).await,
                6..=12 => {
                    let key = self.key();
                    self.read(&key).await;
                }
                13 => self.webhook(count).await,
                14 => self.create(count, &mut created).await,
                _ => self.abort(&created).await,
            }
        }
    }

    fn key(&self) -> String {
        format!("register/{}", self.chance.below(REGISTERS))
    }

    /// Does `work` at a node; None if the node ends before it is done.
    async fn at_node<F: Future>(&self, work: impl FnOnce(Store) -> F) -> Option<F::Output> {
        let up = self.cluster.up(self.node())?;
        tokio::select! {
            biased;
            () = up.gone.cancelled() => None,
            done = work(up.store) => Some(done),
        }
    }

    async fn write(&self, count: u64) {
        let (key, value) = (self.key(), self.number * 1_000_000 + count);
        let request_id = match self.chance.one_in(2) {
            true => format!("client-{}-{count}", self.number),
            false => String::new(),
        };
        let command = Command {
            principal: format!("user:{}", self.number),
            request_id,
            body: Some(Body::PutCursor(PutCursor {
                cursors: vec![Cursor {
                    key: key.clone(),
                    value: value.to_string(),
                    ..Cursor::default()
                }],
            })),
            ..Command::default()
        };
        let called_ns = self.cluster.trace().now_ns();
        let told = self
            .at_node(|store| async move { store.propose(command).await })
            .await;
        let now = self.cluster.trace().now_ns();
        let (kind, returned_ns) = match told {
            None
            | Some(Err(
                ProposeError::Timeout {
                    maybe_applied: true,
                }
                | ProposeError::Stopped(_),
            )) => (Kind::Write { value }, None),
            Some(Err(_)) => (Kind::Refused { value }, Some(now)),
            Some(Ok(applied)) => match applied.outcome.result {
                Some(outcome::Result::Done(_)) => (Kind::Write { value }, Some(now)),
                _ => (Kind::Refused { value }, Some(now)),
            },
        };
        self.tell(format_args!("{key} {kind:?} {}", returned_ns.is_some()));
        self.record(key, called_ns, returned_ns, kind);
    }

    /// A linearizable read.
    pub(crate) async fn read(&self, key: &str) -> bool {
        let called_ns = self.cluster.trace().now_ns();
        let told = self
            .at_node(|store| async move {
                store.linearize().await.ok()?;
                Some(read(&store, key))
            })
            .await
            .flatten();
        let returned_ns = self.cluster.trace().now_ns();
        let Some(seen) = told else {
            return false;
        };
        self.tell(format_args!("{key} read {seen:?}"));
        let kind = Kind::Read { seen };
        self.record(key.to_owned(), called_ns, Some(returned_ns), kind);
        true
    }

    fn record(&self, key: String, called_ns: u64, returned_ns: Option<u64>, kind: Kind) {
        self.cluster.chronicle().operation(Operation {
            client: self.number,
            key,
            called_ns,
            returned_ns,
            kind,
        });
    }

    /// A forge's event: brought again until somebody acknowledges it, now and then to two nodes at once.
    async fn webhook(&self, count: u64) {
        let guid = format!("delivery-{}-{count}", self.number);
        for attempt in 0..ATTEMPTS {
            let redelivery = attempt > 0;
            let taken = if self.chance.one_in(4) {
                let (one, other) =
                    tokio::join!(self.bring(&guid, redelivery), self.bring(&guid, redelivery));
                one || other
            } else {
                self.bring(&guid, redelivery).await
            };
            if taken {
                return;
            }
            sleep(self.chance.millis(RETRY_MS.0, RETRY_MS.1)).await;
        }
    }

    async fn bring(&self, guid: &str, redelivery: bool) -> bool {
        let node = self.node();
        let status = match timeout(PATIENCE, self.post(node, guid)).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) | Err(_) => 0,
        };
        self.tell(format_args!("{guid} at {node}: {status}"));
        self.cluster.chronicle().sent(Sent {
            guid: guid.to_owned(),
            event: "ping".to_owned(),
            status,
            redelivery,
            at_ms: true_ms(self.began),
        });
        status == 200
    }

    async fn post(&self, node: u64, guid: &str) -> io::Result<u16> {
        let body = format!("{{\"zen\":\"Of {guid}.\"}}");
        let mac = Hmac::<sha2::Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())
            .map_err(io::Error::other)?;
        let mac = mac.chain_update(&body).finalize().into_bytes();
        let request = format!(
            "POST /hook HTTP/1.1\r\nHost: door\r\nConnection: close\r\nContent-Type: application/json\r\n\
             X-GitHub-Event: ping\r\nX-GitHub-Delivery: {guid}\r\nX-Hub-Signature-256: sha256={}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            hex::encode(mac),
            body.len()
        );
        let mut pipe = self.cluster.knock(self.host(), node).await?;
        pipe.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        (&mut pipe)
            .take(ANSWER_BYTES)
            .read_to_end(&mut answer)
            .await?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    async fn create(&self, count: u64, created: &mut BTreeSet<String>) {
        let request_id = format!("create-{}-{count}", self.number);
        let mut told = vec![self.create_at(self.node(), &request_id).await];
        if told[0].is_err() || self.chance.one_in(4) {
            told.push(self.create_at(self.node(), &request_id).await);
        }
        let ids: BTreeSet<String> = told.into_iter().flatten().collect();
        self.tell(format_args!("created {ids:?}"));
        if ids.len() > 1 {
            let what = format!("request {request_id} created two jobs: {ids:?}");
            self.cluster.chronicle().broken(what);
        }
        created.extend(ids);
    }

    async fn create_at(&self, node: u64, request_id: &str) -> Result<String, Status> {
        let mut jobs = JobServiceClient::new(door(&self.cluster, self.host(), node));
        let job = r#"{"apiVersion":"prow.k8s.io/v1","kind":"ProwJob","metadata":{},"spec":{"type":"periodic",
            "job":"by-hand","agent":"kubernetes","cluster":"default"}}"#;
        let call = jobs.create_job(CreateJobRequest {
            request_id: request_id.to_owned(),
            what: Some(What::Prowjob(job.into())),
        });
        match timeout(CREATE_PATIENCE, call).await {
            Ok(told) => {
                let told = told.map(|response| response.into_inner().id);
                if let Err(status) = &told
                    && matches!(status.code(), Code::InvalidArgument | Code::Internal)
                {
                    let what = format!("a job was not created: {status}");
                    self.cluster.chronicle().broken(what);
                }
                told
            }
            Err(_) => Err(Status::deadline_exceeded("no answer")),
        }
    }

    async fn abort(&self, created: &BTreeSet<String>) {
        let created: Vec<&String> = created.iter().rev().take(3).collect();
        let Some(id) = self.chance.pick(&created) else {
            return;
        };
        let mut jobs = JobServiceClient::new(door(&self.cluster, self.host(), self.node()));
        let call = jobs.abort_job(AbortJobRequest {
            id: (*id).clone(),
            request_id: String::new(),
        });
        let code = match timeout(PATIENCE, call).await {
            Ok(Ok(_)) => Code::Ok,
            Ok(Err(status)) => status.code(),
            Err(_) => Code::DeadlineExceeded,
        };
        self.tell(format_args!("aborts {id}: {code:?}"));
    }

    /// Opens pull requests, and tells the mirror until it knows.
    pub(crate) async fn author(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            sleep(self.chance.millis(OPEN_MS.0, OPEN_MS.1)).await;
            let (number, head_sha) = match self.forge.open() {
                Ok(opened) => opened,
                Err(refusal) => {
                    let what = format!("a pull request was not opened: {refusal:?}");
                    self.cluster.chronicle().broken(what);
                    return;
                }
            };
            self.tell(format_args!("opens pull request {number} at {head_sha}"));
            let pull = PullRequest {
                org: ORG.to_owned(),
                repo: REPO.to_owned(),
                number,
                head_sha,
                open: true,
                base_ref: BRANCH.to_owned(),
                updated_ms: true_ms(self.began),
                ..PullRequest::default()
            };
            let command = Command {
                principal: "mirror".to_owned(),
                body: Some(Body::PutPullRequests(PutPullRequests {
                    pull_requests: vec![pull],
                    contexts: Vec::new(),
                })),
                ..Command::default()
            };
            // Said twice it changes nothing: the mirror heeds when it was updated.
            for _ in 0..MIRROR_ATTEMPTS {
                let command = command.clone();
                let told = self.at_node(|store| async move { store.propose(command).await });
                if matches!(told.await, Some(Ok(_))) {
                    break;
                }
                sleep(self.chance.millis(RETRY_MS.0, RETRY_MS.1)).await;
            }
        }
    }

    /// What every register holds in the end, seen from each node.
    pub(crate) async fn read_all(&self) {
        for register in 0..REGISTERS {
            let key = format!("register/{register}");
            if !self.read(&key).await {
                let what = format!("{key} cannot be read although nothing disturbs any more");
                self.cluster.chronicle().broken(what);
            }
        }
    }
}

fn read(store: &Store, key: &str) -> Option<u64> {
    store.view().cursor(key)?.value.parse().ok()
}
