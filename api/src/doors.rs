//! One listener per node for everything that comes from outside the cluster: webhooks, gRPC, pages, metrics, health.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router, ServiceExt,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get},
    serve::Listener,
};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use trireme_proto::{
    DESCRIPTORS,
    api::{
        DebugFile, Diagnostic, RunningJob, agent_service_server::AgentServiceServer,
        auth_service_server::AuthServiceServer, cluster_service_server::ClusterServiceServer,
        config_service_server::ConfigServiceServer, delivery_service_server::DeliveryServiceServer,
        job_service_server::JobServiceServer, pool_service_server::PoolServiceServer,
        watch_service_server::WatchServiceServer,
    },
    state::{ConfigFile, Job},
};
use trireme_prowjob::ProwJob;
use trireme_raft::{Store, View};

use crate::{
    Attachments, ConfigHealth, DoorCertificates, Metrics, RunLogs,
    auth::{AuthConfig, Gate, OperatorTokenError, Remote},
    entrance::{Entrance, GrpcServices, Inside, is_grpc},
    flow::{Counted, Flow},
    listen::DoorListener,
    neighbours::Neighbours,
    services::{
        Services, agents, auth, cluster,
        config::{self, ConfigDoor},
        deliveries, jobs, pools, watch,
    },
    webhook::{HookDoor, HookSecrets, receive},
};

/// A part of a manifest, or pieces of contents, of 1 MiB, and what surrounds it; coming in.
const MAX_CONFIG_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// Diagnostics of a configuration, or a page of history; going out.
const MAX_CONFIG_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// A webhook's payload of 25 MiB and its plans, going out.
const MAX_DELIVERY_MESSAGE_BYTES: usize = 72 * 1024 * 1024;
/// A ProwJob as JSON, or a segment of a log of 1 MiB: what jobs and agents send.
const MAX_JOB_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// A node's part of a debug bundle, of 8 MiB, and what surrounds it; larger than a piece of a snapshot. Going out.
const MAX_DEBUG_MESSAGE_BYTES: usize = 12 * 1024 * 1024;
/// Every other request: names, numbers, filters.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Why the doors do not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(transparent)]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("auth.operator_token_file: {0}")]
    OperatorToken(#[from] OperatorTokenError),
}

/// What the configuration check found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    pub accepted: bool,
    pub presubmits: u32,
    pub postsubmits: u32,
    pub periodics: u32,
    pub diagnostics: Vec<Diagnostic>,
    /// What the version in force has and this one has not, or why that is not known; `None` without a version in force.
    pub retired: Option<Result<Retired, String>>,
}

/// What a configuration takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// `org/repo: context`, of presubmits that report.
    pub contexts: Vec<String>,
    /// How many contexts there were.
    pub contexts_before: usize,
    /// Names of jobs.
    pub jobs: Vec<String>,
    /// How many jobs there were.
    pub jobs_before: usize,
}

/// A configuration whose contents are all in the state.
#[derive(Clone)]
pub struct Candidate {
    pub files: Vec<ConfigFile>,
    /// Holds the contents, and the version in force.
    pub view: Arc<View>,
}

/// Reads a whole configuration as the controllers will read it.
#[async_trait]
pub trait ConfigCheck: Send + Sync + 'static {
    async fn check(&self, candidate: Candidate) -> Checked;

    /// Completes a ProwJob that a client made by hand, by the version in force, or says why it may not be made (JOB-056).
    ///
    /// # Errors
    /// What is wrong with it, for the client.
    fn admit(&self, job: &mut ProwJob, state: &trireme_state::State) -> Result<(), String> {
        let _ = (job, state);
        Ok(())
    }

    /// Why a run of a configured job may not be repeated under the version in force: its job is gone.
    fn gone(&self, job: &Job) -> Option<String> {
        let _ = job;
        None
    }
}

/// A file that a run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Below the run's folder, with `/`.
    pub path: String,
    pub size: u64,
}

/// What runs left in storage, in Prow's layout.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// At most `max` bytes from `offset` of a file; empty at its end; `None` when there is no such file.
    async fn read(
        &self,
        job: &Job,
        path: &str,
        offset: u64,
        max: usize,
    ) -> io::Result<Option<Bytes>>;

    /// All files of a run, at most 1,000, by path.
    async fn list(&self, job: &Job) -> io::Result<Vec<Artifact>>;
}

/// The scheduler's memory of which agents are alive; asked on the leader alone.
pub trait LeaseRenewals: Send + Sync + 'static {
    /// How long a lease holds after its last renewal; the same on all nodes.
    fn period(&self) -> Duration;

    /// How long the leases named hold from now; `None` when this node does not schedule, or does not know the agent.
    fn renew(&self, agent_id: &str, incarnation: u64, running: &[RunningJob]) -> Option<Duration>;
}

/// What a node knows beside its store that helps to find out what is wrong with it.
pub trait DebugSource: Send + Sync + 'static {
    /// Files by name, without secrets and without what users sent. Blocks.
    fn files(&self) -> Vec<DebugFile>;
}

/// What the node hands to its doors.
pub struct DoorConfig {
    /// Path of the webhook door; Prow's default is `/hook`.
    pub webhook_path: String,
    pub secrets: HookSecrets,
    /// Where agents put artifacts: a directory or an object store URL.
    pub storage: String,
    pub config: Arc<dyn ConfigCheck>,
    /// Written by whatever loads the configuration, shown here.
    pub config_health: ConfigHealth,
    pub runs: Arc<dyn RunStore>,
    pub leases: Arc<dyn LeaseRenewals>,
    pub auth: AuthConfig,
    /// Without, everything is said in the clear: for loopback, or behind a proxy.
    pub tls: Option<DoorCertificates>,
    pub debug: Arc<dyn DebugSource>,
    /// Adds what the node tells Prometheus beside its doors and its store.
    pub metrics: Box<dyn FnOnce(&mut Registry) + Send>,
    /// Pages for people, served beside the API; they read logs through what they are given.
    pub pages: Box<dyn FnOnce(RunLogs) -> Router + Send>,
}

/// All doors of one node.
pub struct Doors {
    inside: Inside,
    gate: Gate,
    services: Services,
    attachments: Attachments,
    flow: Arc<Flow>,
    tls: Option<DoorCertificates>,
}

impl Doors {
    /// # Errors
    /// When the operator's token cannot be read, or the descriptors for reflection do not load.
    pub async fn new(store: Store, config: DoorConfig) -> Result<Self, DoorError> {
        let metrics = Arc::new(Metrics::new(
            config.tls.clone(),
            config.config_health.clone(),
            config.metrics,
        ));
        let gate = Gate::new(
            store.clone(),
            config.auth,
            &config.webhook_path,
            Arc::clone(&metrics),
        )?;
        let attachments = Attachments::default();
        let flow = Arc::new(Flow::new(store.queues()));
        let services = Services {
            store: store.clone(),
            attachments: attachments.clone(),
            check: config.config,
            runs: config.runs,
            leases: config.leases,
            storage: config.storage,
            flow: Arc::clone(&flow),
            scheme: if config.tls.is_some() {
                "https"
            } else {
                "http"
            },
            metrics: Arc::clone(&metrics),
            debug: config.debug,
            config_health: config.config_health,
        };
        store.answer_doors(Arc::new(Neighbours::new(services.clone())));
        let pages = (config.pages)(RunLogs::new(services.clone()));
        let (health, health_service) = tonic_health::server::health_reporter();
        health
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let grpc = GrpcServices::default()
            .with(health_service.max_decoding_message_size(MAX_REQUEST_BYTES))
            .with(reflection.max_decoding_message_size(MAX_REQUEST_BYTES))
            .with(
                JobServiceServer::new(jobs::Door(services.clone()))
                    .max_decoding_message_size(MAX_JOB_MESSAGE_BYTES),
            )
            .with(
                PoolServiceServer::new(pools::Door(services.clone()))
                    .max_decoding_message_size(MAX_REQUEST_BYTES),
            )
            .with(
                ConfigServiceServer::new(config::Door(services.clone()))
                    .max_decoding_message_size(MAX_CONFIG_REQUEST_BYTES)
                    .max_encoding_message_size(MAX_CONFIG_ANSWER_BYTES),
            )
            .with(
                DeliveryServiceServer::new(deliveries::Door(services.clone()))
                    .max_decoding_message_size(MAX_REQUEST_BYTES)
                    .max_encoding_message_size(MAX_DELIVERY_MESSAGE_BYTES),
            )
            .with(
                ClusterServiceServer::new(cluster::Door(services.clone()))
                    .max_decoding_message_size(MAX_REQUEST_BYTES)
                    .max_encoding_message_size(MAX_DEBUG_MESSAGE_BYTES),
            )
            .with(
                WatchServiceServer::new(watch::Door(services.clone()))
                    .max_decoding_message_size(MAX_REQUEST_BYTES),
            )
            .with(
                AuthServiceServer::new(auth::Door(services.clone()))
                    .max_decoding_message_size(MAX_REQUEST_BYTES),
            )
            .with(
                AgentServiceServer::new(agents::Door(services.clone()))
                    .max_decoding_message_size(MAX_JOB_MESSAGE_BYTES),
            );
        let hook = Arc::new(HookDoor::new(
            store.clone(),
            Arc::new(config.secrets),
            Arc::clone(&metrics),
            Arc::clone(&flow),
        ));
        let probes = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(scrape))
            .with_state((store, metrics));
        let rest = Router::new()
            .route(&config.webhook_path, any(receive).with_state(hook))
            .merge(probes)
            .merge(pages)
            // Instead of gRPC's own answer to whatever is asked.
            .fallback(not_found);
        Ok(Self {
            inside: Inside { grpc, rest },
            gate,
            services,
            attachments,
            flow,
            tls: config.tls,
        })
    }

    /// The door for configurations, for a part of this node that goes through it as clients do; `part` is the author of
    /// what it applies.
    #[must_use]
    pub fn config_for(&self, part: String) -> ConfigDoor {
        ConfigDoor::new(self.services.clone(), part)
    }

    /// Serves until `stop`, then lets requests under way finish for up to 5 s (DECK-001).
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let listener = DoorListener::new(listener, self.tls.clone())?;
        self.serve_on(listener, stop).await
    }

    /// [`Doors::serve`] on whatever connections arrive through.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve_on(
        self,
        listener: impl Listener<Io: Send + Unpin + 'static, Addr = SocketAddr>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let grace = Duration::from_secs(5);
        let attachments = self.attachments;
        let stopping = stop.clone();
        let listener = Counted::new(listener, Arc::clone(&self.flow));
        let entrance = Entrance::new(self.flow, self.gate, self.inside);
        let server = axum::serve(
            listener,
            ServiceExt::<Request>::into_make_service_with_connect_info::<Remote>(entrance),
        )
        .with_graceful_shutdown(async move {
            stopping.cancelled().await;
            // Streams that never end by themselves would hold the server open.
            attachments.close();
        });
        tokio::select! {
            result = server => result,
            () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => Ok(()),
        }
    }
}

/// A browser gets a plain 404, a gRPC client the code that it understands.
async fn not_found(request: Request) -> Response {
    if is_grpc(&request) {
        let path = request.uri().path();
        return Status::unimplemented(format!("there is no method {path}")).into_http();
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

async fn healthz() -> &'static str {
    "OK"
}

/// Ready: this node has applied again what it may have shown before it was restarted, and hears a leader.
async fn readyz(State((store, _)): State<(Store, Arc<Metrics>)>) -> Response {
    let not_ready = if store.cluster_id().is_none() {
        "this node belongs to no cluster yet"
    } else if store.leadership().borrow().leader.is_none() {
        "no leader is heard: a majority of the voting nodes must run and reach each other"
    } else if !store.is_recovered() {
        "what this node had applied before it was restarted is being applied again"
    } else {
        return (StatusCode::OK, "OK").into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, not_ready).into_response()
}

async fn scrape(State((store, metrics)): State<(Store, Arc<Metrics>)>) -> Response {
    match metrics.encode(&store) {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests;
