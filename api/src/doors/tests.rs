//! Stories of doors on a node alone.

use prost::Message;
use rand::RngExt as _;
use tokio::task::JoinHandle;
use tonic::Code;
use trireme_proto::api::{
    AbortJobRequest, AddNodeRequest, ApplyConfigHeader, ApplyConfigRequest, CreateJobRequest,
    CreateTokenRequest, GetConfigFileRequest, GetDeliveryRequest, GetJobRequest,
    ListDeliveriesRequest, RedriveRequest, RegisterRequest, WatchRequest, apply_config_request,
    create_job_request::What,
};

use trireme_proto::state::{
    AcceptDelivery, BlobRef, Command, CommitPlans, ConfigVersion, Delivery, PutConfig,
    RaiseFeatureLevel, SettlePlan, SweepDeliveries, SweepJobs, command::Body,
};
use trireme_state::PAGES_LEVEL;

use super::*;
use crate::{
    client::Client,
    configs::LocalFile,
    trio::{self, PATIENCE},
};

/// What a node hands to its doors, for requests that must not get so far.
struct OutOfReach;

#[async_trait]
impl ConfigCheck for OutOfReach {
    async fn check(&self, _: Candidate) -> Checked {
        panic!("a configuration came in")
    }
}

#[async_trait]
impl RunStore for OutOfReach {
    async fn read(&self, _: &Job, _: &str, _: u64, _: usize) -> io::Result<Option<Bytes>> {
        panic!("a log is asked for")
    }

    async fn list(&self, _: &Job) -> io::Result<Vec<Artifact>> {
        panic!("artifacts are asked for")
    }
}

impl LeaseRenewals for OutOfReach {
    fn period(&self) -> Duration {
        panic!("a lease is asked for")
    }

    fn renew(&self, _: &str, _: u64, _: &[RunningJob]) -> Option<Duration> {
        panic!("a lease is renewed")
    }
}

impl DebugSource for OutOfReach {
    fn files(&self) -> Vec<DebugFile> {
        panic!("a bundle is asked for")
    }
}

/// A node alone that writes nothing by itself once it leads.
async fn alone() -> Store {
    let store = trio::alone(|config| config.raises_feature_level = false).await;
    let mut leadership = store.leadership();
    let leads = leadership.wait_for(|seen| seen.confirmed);
    let leads = tokio::time::timeout(PATIENCE, leads).await;
    leads.expect("a leader in time").unwrap();
    store
}

/// Where the doors are, and the task that ends with `stop`.
async fn open(
    store: &Store,
    check: Arc<dyn ConfigCheck>,
    stop: CancellationToken,
) -> (SocketAddr, JoinHandle<()>) {
    let out_of_reach = Arc::new(OutOfReach);
    let config = DoorConfig {
        webhook_path: "/hook".to_owned(),
        secrets: HookSecrets::default(),
        storage: String::new(),
        config: check,
        config_health: ConfigHealth::default(),
        runs: Arc::clone(&out_of_reach) as Arc<_>,
        leases: Arc::clone(&out_of_reach) as Arc<_>,
        auth: AuthConfig::default(),
        tls: None,
        debug: out_of_reach,
        metrics: Box::new(|_| ()),
        pages: Box::new(|_| Router::new()),
    };
    let doors = Doors::new(store.clone(), config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { doors.serve(listener, stop).await.unwrap() });
    (address, serving)
}

/// A request of so many bytes, most of them in one text.
fn sized<M: Message>(bytes: usize, request: impl Fn(String) -> M) -> M {
    let mut text = bytes;
    // What surrounds a text may be shorter where the text is.
    for _ in 0..3 {
        let found = request("a".repeat(text)).encoded_len();
        text = text + bytes - found;
    }
    let request = request("a".repeat(text));
    assert_eq!(request.encoded_len(), bytes);
    request
}

fn refused<T>(answer: Result<tonic::Response<T>, Status>, limit: usize) {
    let refused = answer.map(drop).unwrap_err();
    let found = limit + 1;
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(
        refused.message(),
        format!(
            "Error, decoded message length too large: found {found} bytes, the limit is: {limit} bytes"
        )
    );
}

fn job(text: String) -> CreateJobRequest {
    CreateJobRequest {
        what: Some(What::Prowjob(text.into())),
        ..CreateJobRequest::default()
    }
}

fn configuration(message: String) -> ApplyConfigRequest {
    let header = ApplyConfigHeader {
        message,
        ..ApplyConfigHeader::default()
    };
    ApplyConfigRequest {
        part: Some(apply_config_request::Part::Header(header)),
    }
}

/// Finds nothing wrong.
struct Content;

#[async_trait]
impl ConfigCheck for Content {
    async fn check(&self, _: Candidate) -> Checked {
        Checked {
            accepted: true,
            ..Checked::default()
        }
    }
}

/// Lets another first version in while it checks one.
struct Rival(Store);

#[async_trait]
impl ConfigCheck for Rival {
    async fn check(&self, candidate: Candidate) -> Checked {
        let put = PutConfig {
            config: Some(ConfigVersion {
                files: candidate.files,
                ..ConfigVersion::default()
            }),
            expected_current: 0,
        };
        let command = Command {
            body: Some(Body::PutConfig(put)),
            ..Command::default()
        };
        self.0.propose(command).await.unwrap();
        Checked {
            accepted: true,
            ..Checked::default()
        }
    }
}

/// Refuses one job, and names the cluster of the others.
struct Picky;

#[async_trait]
impl ConfigCheck for Picky {
    async fn check(&self, _: Candidate) -> Checked {
        Checked::default()
    }

    fn admit(&self, job: &mut ProwJob, _: &trireme_state::State) -> Result<(), String> {
        match job.spec.job.as_str() {
            "bad" => Err("not this one".to_owned()),
            _ => {
                job.spec
                    .decoration_config
                    .iter_mut()
                    .for_each(|decoration| {
                        "app".clone_into(&mut decoration.github_app_id);
                    });
                Ok(())
            }
        }
    }
}

/// HOOK-001: another path than that of webhooks is not there, so that a mistyped address shows at the forge; probes
/// have their own. HOOK-019: what is under way when the node stops is answered, and nothing new is taken.
#[tokio::test(flavor = "multi_thread")]
async fn hook_001_other_paths_are_not_there_and_hook_019_a_delivery_under_way_is_answered() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let store = alone().await;
    let stop = CancellationToken::new();
    let (address, serving) = open(&store, Arc::new(OutOfReach), stop.clone()).await;
    let ask = async |path: &str| {
        let mut line = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        line.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        line.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap().to_owned()
    };
    assert_eq!(ask("/hok").await, "HTTP/1.1 404 Not Found");
    assert_eq!(ask("/hook").await, "HTTP/1.1 400 Bad Request");

    let mut line = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /hook HTTP/1.1\r\nhost: x\r\nx-github-event: ping\r\nx-github-delivery: g\r\n\
                x-hub-signature-256: sha256=00\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                expect: 100-continue\r\n\r\n";
    line.write_all(head.as_bytes()).await.unwrap();
    // The node asks for the body: the request is under way.
    let mut asked = [0; 25];
    line.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stop.cancel();
    line.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden"), "{answer}");
    serving.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    store.shutdown().await;
}

/// What left memory can be listed and looked at, and nothing is done about it any more.
#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_read_from_memory_and_archive() {
    let store = alone().await;
    let stop = CancellationToken::new();
    let (address, serving) = open(&store, Arc::new(OutOfReach), stop.clone()).await;
    let client = Client::connect(&format!("http://{address}")).await.unwrap();
    let propose = async |body: Body| {
        let command = Command {
            principal: "test".to_owned(),
            body: Some(body),
            ..Command::default()
        };
        store.propose(command).await.unwrap();
    };
    for guid in ["a", "b", "c"] {
        let payload = format!(r#"{{"of":"{guid}"}}"#);
        let delivery = Delivery {
            guid: guid.to_owned(),
            event: "ping".to_owned(),
            payload_zstd: crate::blob::compress(payload.as_bytes()).unwrap(),
            ..Delivery::default()
        };
        let delivery = Some(delivery);
        propose(Body::AcceptDelivery(AcceptDelivery { delivery })).await;
        propose(Body::CommitPlans(CommitPlans {
            guid: guid.to_owned(),
            plugins: vec!["hold".to_owned(), "idle".to_owned()],
            idle: vec!["idle".to_owned()],
            ..CommitPlans::default()
        }))
        .await;
        propose(Body::SettlePlan(SettlePlan {
            guid: guid.to_owned(),
            plugin: "hold".to_owned(),
            error: "404".to_owned(),
            dead: true,
        }))
        .await;
    }
    let guids = vec!["a".to_owned(), "b".to_owned()];
    propose(Body::SweepDeliveries(SweepDeliveries { guids })).await;

    let list = async |archived: bool, only_dead: bool, page_size: u32| {
        let mut told = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListDeliveriesRequest {
                archived,
                only_dead,
                page_size,
                page_token: page_token.clone(),
                ..ListDeliveriesRequest::default()
            };
            let page = client.deliveries().list_deliveries(request).await;
            let page = page.unwrap().into_inner();
            let guids = page.deliveries.iter().map(|delivery| delivery.guid.clone());
            told.push(format!(
                "{} {}",
                guids.collect::<String>(),
                page.plans.len()
            ));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return told;
            }
        }
    };
    assert_eq!(list(false, false, 0).await, ["c 1"]);
    assert_eq!(list(true, false, 0).await, ["cba 3"]);
    assert_eq!(list(true, true, 2).await, ["cb 2", "a 1"]);

    let get = async |guid: &str| {
        let request = GetDeliveryRequest {
            guid: guid.to_owned(),
            read: None,
        };
        client.deliveries().get_delivery(request).await
    };
    for (guid, archived) in [("c", false), ("b", true)] {
        let told = get(guid).await.unwrap().into_inner();
        assert_eq!(told.payload, format!(r#"{{"of":"{guid}"}}"#));
        assert_eq!((told.archived, told.payload_gone), (archived, false));
        assert_eq!(told.plans[0].error, "404");
    }
    assert_eq!(get("none").await.unwrap_err().code(), Code::NotFound);

    let redrive = async |guid: &str, plugin: &str| {
        let request = RedriveRequest {
            guid: guid.to_owned(),
            plugin: plugin.to_owned(),
            ..RedriveRequest::default()
        };
        let answer = client.deliveries().redrive(request).await;
        answer.map_or_else(|why| why.message().to_owned(), |_| "done".to_owned())
    };
    insta::assert_snapshot!(redrive("a", "hold").await, @"delivery a is in the archive, where nothing is done any more; have the forge send it again (the webhook's recent deliveries, Redeliver): it is then taken anew");
    insta::assert_snapshot!(redrive("none", "hold").await, @r#"no delivery "none", in memory or in this node's archive; `trireme get deliveries --archived` lists them"#);
    insta::assert_snapshot!(redrive("c", "idle").await, @"idle had nothing to do for delivery c, or has not decided yet; `trireme get delivery c` shows what was given up");
    insta::assert_snapshot!(redrive("c", "lgtm").await, @r#""lgtm" is none of the plugins of delivery c: hold, idle; `trireme get delivery c` shows what was given up"#);
    assert_eq!(redrive("c", "hold").await, "done");
    assert!(!store.view().plan("c", "hold").unwrap().dead);

    drop(client);
    stop.cancel();
    serving.await.unwrap();
    store.shutdown().await;
}

/// JOB-056: what a client sends is completed or refused, and nothing changes it afterwards. JOB-075: what happened to it
/// is told by the job, also once it is archived.
#[tokio::test(flavor = "multi_thread")]
async fn job_056_a_job_that_a_client_sends_is_admitted_and_job_075_remembers_what_happened() {
    let store = alone().await;
    let stop = CancellationToken::new();
    let (address, serving) = open(&store, Arc::new(Picky), stop.clone()).await;
    let client = Client::connect(&format!("http://{address}")).await.unwrap();
    let propose = async |body: Body| {
        let command = Command {
            principal: "test".to_owned(),
            body: Some(body),
            ..Command::default()
        };
        store.propose(command).await.unwrap();
    };
    let level = trireme_state::HISTORY_LEVEL;
    propose(Body::RaiseFeatureLevel(RaiseFeatureLevel { level })).await;
    let create = async |name: &str, more: &str, request_id: &str| {
        let job = format!(r#"{{"spec": {{"type": "periodic", "job": "{name}"{more}}}}}"#);
        let request = CreateJobRequest {
            request_id: request_id.to_owned(),
            what: Some(What::Prowjob(job.into())),
        };
        let made = client.jobs().create_job(request).await;
        made.map(|made| made.into_inner().id)
    };
    let told = async |id: &str| {
        let request = GetJobRequest {
            id: id.to_owned(),
            read: None,
        };
        client.jobs().get_job(request).await
    };

    let refused = create("bad", "", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "prowjob: not this one");
    let decorate = r#", "decorate": true"#;
    let id = create("good", decorate, "one").await.unwrap();
    assert_eq!(create("good", decorate, "one").await.unwrap(), id);
    let other = r#", "cluster": "arm""#;
    let refused = create("good", other, "one").await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(
        refused
            .message()
            .contains("ProwJobs may only update status"),
        "{refused}"
    );
    let made = told(&id).await.unwrap().into_inner().job.unwrap();
    let made: ProwJob = serde_json::from_slice(&made.prowjob).unwrap();
    let decoration = made.spec.decoration_config.unwrap();
    assert_eq!(decoration.github_app_id, "app");

    let abort = AbortJobRequest {
        id: id.clone(),
        ..AbortJobRequest::default()
    };
    client.jobs().abort_job(abort).await.unwrap();
    let history = |job: Option<Job>| -> Vec<String> {
        let rows = job.unwrap().history.into_iter();
        rows.map(|row| format!("{}: {}", row.actor, row.cause))
            .collect()
    };
    let live = history(told(&id).await.unwrap().into_inner().job);
    let by = "anonymous:127.0.0.1";
    assert_eq!(
        live,
        [
            format!("{by}: {by} request one"),
            format!("{by}: Aborted by {by}.")
        ]
    );
    let sweep = SweepJobs {
        ids: vec![id.clone()],
    };
    propose(Body::SweepJobs(sweep)).await;
    assert!(store.view().job(&id).is_none());
    assert_eq!(history(told(&id).await.unwrap().into_inner().job), live);
    let none = told("none").await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    insta::assert_snapshot!(none.message(), @r#"no job "none", in memory or in this node's archive; `trireme get jobs` lists those in memory"#);

    drop(client);
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_first_versions_the_later_one_is_told_of_the_other() {
    let store = alone().await;
    let stop = CancellationToken::new();
    let rival = Arc::new(Rival(store.clone()));
    let (address, serving) = open(&store, rival, stop.clone()).await;
    let client = Client::connect(&format!("http://{address}")).await.unwrap();
    let file = LocalFile {
        role: "main".to_owned(),
        path: "config.yaml".to_owned(),
        content: "{}\n".into(),
    };
    let header = ApplyConfigHeader::default();
    let told = client.apply_config(header, &[file], |_| {}).await;
    let told = told.unwrap_err();
    assert_eq!(told.code(), Code::Aborted);
    assert_eq!(
        told.message(),
        "version 2 is in force, but version 1 came in between, and what is retired of that was not judged: compare them \
         with `trireme config diff`; `trireme config rollback 1` puts the other one back"
    );
    drop(client);
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_counts_until_it_is_read_and_what_is_no_file_is_refused() {
    let store = alone().await;
    let stop = CancellationToken::new();
    let (address, serving) = open(&store, Arc::new(Content), stop.clone()).await;
    let client = Client::connect(&format!("http://{address}")).await.unwrap();
    let mut noise = vec![0_u8; 12 << 20];
    rand::rng().fill(&mut noise[..]);
    let file = |role: &str, path: &str, content: Bytes| LocalFile {
        role: role.to_owned(),
        path: path.to_owned(),
        content,
    };
    let files = [
        file("main", "config.yaml", "{}\n".into()),
        file("job", "large.yaml", noise.into()),
    ];
    let header = ApplyConfigHeader::default();
    client.apply_config(header, &files, |_| {}).await.unwrap();
    let readers = || {
        let queues = store.queues().depths();
        let readers = queues.iter().find(|queue| queue.name == "config_readers");
        readers.unwrap().depth
    };
    let request = GetConfigFileRequest {
        path: "large.yaml".to_owned(),
        ..GetConfigFileRequest::default()
    };
    let pieces = client.config().get_file(request).await.unwrap();
    let mut pieces = pieces.into_inner();
    assert_eq!(readers(), 1, "nobody has read it");
    let mut read = 0;
    while let Some(piece) = pieces.message().await.unwrap() {
        read += piece.content.len();
    }
    assert_eq!(read, 12 << 20);
    drop(pieces);
    let free = async {
        while readers() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let free = tokio::time::timeout(PATIENCE, free).await;
    free.expect("the slot is given back");

    let larger = BlobRef {
        sha256: vec![0; 32].into(),
        size: 25 << 20,
    };
    let refused = client.config_content(&larger).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        refused.message(),
        "a content of 26214400 bytes; a file of a configuration is at most 16777216"
    );
    drop(client);
    stop.cancel();
    serving.await.unwrap();
}

/// A node of an earlier version in the cluster would not see pages, nor where files come from.
#[tokio::test(flavor = "multi_thread")]
async fn before_its_level_a_version_holds_its_files_itself() {
    let store = alone().await;
    let stop = CancellationToken::new();
    let (address, serving) = open(&store, Arc::new(Content), stop.clone()).await;
    let client = Client::connect(&format!("http://{address}")).await.unwrap();
    let file = |role: &str, path: &str| LocalFile {
        role: role.to_owned(),
        path: path.to_owned(),
        content: format!("# {path}\n").into(),
    };
    let files = [file("main", "config.yaml"), file("job", "jobs/a.yaml")];
    let header = ApplyConfigHeader {
        source: "commit".to_owned(),
        request_id: "once".to_owned(),
        ..ApplyConfigHeader::default()
    };
    let applied = client.apply_config(header.clone(), &files, |_| {}).await;
    let (answer, uploaded) = applied.unwrap();
    assert_eq!(
        (answer.version, uploaded.files, answer.new_pages),
        (1, 2, 0)
    );
    let version = store.view().config().unwrap().clone();
    assert_eq!((version.files.len(), version.pages.len()), (2, 0));
    assert_eq!(version.source, "");
    // A retry of the same request finds its version.
    let again = client.apply_config(header, &files, |_| {}).await.unwrap().0;
    assert_eq!((again.version, again.accepted), (1, true));

    store
        .propose(Command {
            body: Some(Body::RaiseFeatureLevel(RaiseFeatureLevel {
                level: PAGES_LEVEL,
            })),
            ..Command::default()
        })
        .await
        .unwrap();
    // The same files are the same, whichever way they are kept.
    let header = ApplyConfigHeader::default();
    let same = client.apply_config(header.clone(), &files, |_| {}).await;
    assert!(same.unwrap().0.unchanged);
    let files = [file("main", "config.yaml"), file("job", "jobs/b.yaml")];
    let paged = client.apply_config(header, &files, |_| {}).await.unwrap();
    assert_eq!((paged.0.version, paged.1.files), (2, 1));
    let (version, listed) = client.config_version(2).await.unwrap();
    assert_eq!((version.paged_files, listed.len()), (2, 2));
    assert_eq!(client.config_version(1).await.unwrap().1.len(), 2);
    drop(client);
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_above_its_bound_is_refused_with_both_sizes_and_changes_nothing() {
    let store = alone().await;
    let stop = CancellationToken::new();
    let (address, serving) = open(&store, Arc::new(OutOfReach), stop.clone()).await;
    let url = format!("http://{address}");
    let client = Client::connect(&url).await.unwrap();
    let before = store.view();

    let limit = MAX_REQUEST_BYTES;
    let node = |peer_address| AddNodeRequest {
        peer_address,
        node_id: 2,
        ..AddNodeRequest::default()
    };
    let request = sized(limit + 1, node);
    refused(client.cluster().add_node(request).await, limit);
    let token = |name| CreateTokenRequest {
        name,
        ..CreateTokenRequest::default()
    };
    let request = sized(limit + 1, token);
    refused(client.auth().create_token(request).await, limit);
    let redrive = |guid| RedriveRequest {
        guid,
        ..RedriveRequest::default()
    };
    let request = sized(limit + 1, redrive);
    refused(client.deliveries().redrive(request).await, limit);
    let watch = |cluster_id| WatchRequest {
        cluster_id,
        ..WatchRequest::default()
    };
    let request = sized(limit + 1, watch);
    refused(client.watch().watch(request).await, limit);

    let limit = MAX_JOB_MESSAGE_BYTES;
    let agent = |name| RegisterRequest {
        name,
        ..RegisterRequest::default()
    };
    let request = sized(limit + 1, agent);
    refused(client.agents().register(request).await, limit);
    let request = sized(limit + 1, job);
    refused(client.jobs().create_job(request).await, limit);
    // One byte less is let in, and told what is wrong with it.
    let let_in = client.jobs().create_job(sized(limit, job)).await;
    assert_eq!(let_in.map(drop).unwrap_err().code(), Code::InvalidArgument);

    let limit = MAX_CONFIG_REQUEST_BYTES;
    let request = sized(limit + 1, configuration);
    let parts = futures::stream::iter([request]);
    refused(client.config().apply(parts).await, limit);

    let after = store.view();
    assert_eq!(after.revision, before.revision);
    assert_eq!(after.digest(), before.digest());
    drop(client);
    stop.cancel();
    serving.await.unwrap();
}
