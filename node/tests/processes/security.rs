//! A node that others than its own host may reach: certificates, tokens, roles, and what is written of them.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::StatusCode;
use tempfile::TempDir;
use tonic::Code;
use trireme_api::client::{Client, ConnectOptions, Token};
use trireme_harness::Address;
use trireme_proto::api::{CreateJobRequest, create_job_request::What};
use trireme_state::FEATURE_LEVEL;

use crate::{
    command::{Answer, end, run, start, text},
    scene::{http, until},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trireme");

/// What the command line said.
fn offline(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Killed when dropped.
pub(crate) struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // Whatever ended by itself needs no end.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(crate) fn serve(directory: &Path, name: &str, settings: &str) -> (Served, PathBuf) {
    let file = directory.join(format!("{name}.toml"));
    fs::write(&file, settings).unwrap();
    let log = directory.join(format!("{name}.log"));
    let output = fs::File::create(&log).unwrap();
    let child = Command::new(PROGRAM)
        .args(["serve", "--config", text(&file), "--exit-with-parent"])
        .current_dir(directory)
        .env_remove("TRIREME_LOG")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    (Served(child), log)
}

/// One node that listens everywhere, with certificates of its own authority and an operator's token.
struct Secured {
    directory: TempDir,
    door: Address,
    log: PathBuf,
    _peer: Address,
    _node: Served,
}

fn port(address: &Address) -> u16 {
    address.as_str().parse::<SocketAddr>().unwrap().port()
}

impl Secured {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        offline(root, &["certs", "ca", "--directory", "certs"]);
        offline(
            root,
            &["certs", "node", "--directory", "certs", "--id", "1"],
        );
        let server = [
            "certs",
            "server",
            "--directory",
            "certs",
            "--host",
            "127.0.0.1",
        ];
        offline(root, &server);
        let operator = offline(root, &["token", "generate"]);
        fs::write(root.join("operator"), operator).unwrap();
        let (door, peer) = (Address::claim().unwrap(), Address::claim().unwrap());
        let settings = format!(
            r#"
node_id = 1
data_dir = "data"
listen = "0.0.0.0:{}"
advertise = "{door}"
[peer]
listen = "0.0.0.0:{}"
advertise = "{peer}"
ca = "certs/ca.pem"
certificate = "certs/node-1.pem"
key = "certs/node-1-key.pem"
[tls]
certificate = "certs/server.pem"
key = "certs/server-key.pem"
[auth]
operator_token_file = "operator"
"#,
            port(&door),
            port(&peer),
        );
        let (node, log) = serve(root, "node", &settings);
        let secured = Self {
            directory,
            door,
            log,
            _peer: peer,
            _node: node,
        };
        until("a node that takes tokens", async || {
            let status = secured.as_(Some("operator"), &["cluster", "status", "-o", "json"]);
            let status = status.await;
            (status.code == 0 && status.json()["feature_level"].as_u64() >= Some(2)).then_some(())
        })
        .await;
        secured
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self) -> String {
        format!("https://{}", self.door)
    }

    /// Asks with the token in the file of this name.
    async fn as_(&self, token: Option<&str>, arguments: &[&str]) -> Answer {
        let ca = self.at("certs/ca.pem");
        let mut all = arguments.to_vec();
        all.extend(["--ca", text(&ca)]);
        let file = token.map(|name| self.at(name));
        if let Some(file) = &file {
            all.extend(["--token-file", text(file)]);
        }
        run(&self.server(), &all).await
    }

    /// A token in a file of its own name.
    async fn token(&self, name: &str, role: &str, more: &[&str]) {
        let mut arguments = vec!["token", "create", "--name", name, "--role", role];
        arguments.extend(more);
        let made = self.as_(Some("operator"), &arguments).await.done();
        assert!(made.out.starts_with("trireme_"), "{made:?}");
        assert_eq!(made.out.lines().count(), 1);
        assert!(made.err.contains("the only time it is shown"));
        fs::write(self.at(name), made.out).unwrap();
    }

    async fn id_of(&self, name: &str) -> String {
        let listed = self.as_(Some("operator"), &["token", "list", "-o", "json"]);
        let listed = listed.await.done().json();
        let items = listed["items"].as_array().unwrap();
        let found = items.iter().find(|item| item["name"] == name).unwrap();
        found["id"].as_str().unwrap().to_owned()
    }

    /// Lines of the audit log, without the time.
    fn audited(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines()
            .filter_map(|line| line.split_once(" audit: "))
            .map(|(_, line)| line.to_owned())
            .collect()
    }
}

fn code(answer: &Answer, wanted: i32) {
    assert_eq!(answer.code, wanted, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_is_for_and_everybody_is_named() {
    let node = Secured::start().await;
    for role in ["viewer", "submitter", "operator", "agent"] {
        node.token(&format!("a-{role}"), role, &[]).await;
    }
    let unknown = node.at("unknown");
    fs::write(
        unknown,
        offline(node.directory.path(), &["token", "generate"]),
    )
    .unwrap();

    // Not found is what somebody hears who was let in.
    let reads: &[&str] = &["get", "jobs"];
    let submits: &[&str] = &["abort", "no-such-run"];
    let operates: &[&str] = &["config", "rollback", "7"];
    for (token, [read, submit, operate]) in [
        (None, [6, 6, 6]),
        (Some("unknown"), [6, 6, 6]),
        (Some("a-viewer"), [0, 6, 6]),
        (Some("a-submitter"), [0, 4, 6]),
        (Some("a-operator"), [0, 4, 4]),
        (Some("operator"), [0, 4, 4]),
        (Some("a-agent"), [6, 6, 6]),
    ] {
        code(&node.as_(token, reads).await, read);
        code(&node.as_(token, submits).await, submit);
        code(&node.as_(token, operates).await, operate);
    }
    let denied = node.as_(None, reads).await;
    insta::assert_snapshot!(denied.err, @"trireme: this needs the role viewer, submitter or operator: show a token, with --token-file or TRIREME_TOKEN; an operator makes one with `trireme token create`");
    let denied = node.as_(Some("a-viewer"), submits).await;
    insta::assert_snapshot!(denied.err, @"trireme: token:a-viewer has the role viewer, this needs the role submitter or operator");
    let denied = node.as_(Some("unknown"), reads).await;
    insta::assert_snapshot!(denied.err, @"trireme: this token is not known to the cluster, or was revoked: `trireme token list` shows those that are, an operator makes one with `trireme token create`");
    let me = node.as_(Some("a-agent"), &["token", "whoami"]).await.done();
    assert_eq!(me.out, "token:a-agent (agent)\n");

    // Whose doing it was.
    let audited = node.audited();
    let of = |who: &str, method: &str| {
        let (who, method) = (format!("who=\"{who}\""), format!("/{method}\""));
        let mut lines = audited.iter();
        let line = lines.find(|line| line.contains(&who) && line.contains(&method));
        line.unwrap_or_else(|| panic!("{who} {method} is not in {audited:#?}"))
    };
    let made = of("operator-file", "CreateToken");
    assert!(
        made.contains("outcome=\"ok\"") && made.contains(" a-"),
        "{made}"
    );
    assert!(!made.contains("revision=0 "), "{made}");
    assert!(of("token:a-viewer", "AbortJob").contains("outcome=\"PermissionDenied\""));
    assert!(of("token:a-submitter", "AbortJob").contains("outcome=\"NotFound\""));
    assert!(of("anonymous:127.0.0.1", "AbortJob").contains("outcome=\"Unauthenticated\""));
    let log = fs::read_to_string(&node.log).unwrap();
    for token in ["operator", "a-viewer", "a-agent", "unknown"] {
        let token = fs::read_to_string(node.at(token)).unwrap();
        assert!(!log.contains(token.trim()), "a token is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_when_it_is_revoked_or_expires() {
    let node = Secured::start().await;
    node.token("short", "viewer", &["--expires", "2s"]).await;
    let reads: &[&str] = &["get", "jobs"];
    let expired = until("the token expires", async || {
        let answer = node.as_(Some("short"), reads).await;
        (answer.code != 0).then_some(answer)
    })
    .await;
    code(&expired, 6);
    assert!(
        expired.err.contains("the token short has expired"),
        "{expired:?}"
    );

    // A stream that was let in ends as well.
    node.token("watcher", "agent", &[]).await;
    let (ca, token, directory) = (
        node.at("certs/ca.pem"),
        node.at("watcher"),
        node.at("agent"),
    );
    let arguments = [
        "agent",
        "--name",
        "w",
        "--ca",
        text(&ca),
        "--token-file",
        text(&token),
        "--directory",
        text(&directory),
    ];
    let agent = start(&node.server(), &arguments);
    let registered = async |state: &str| {
        let listed = node.as_(Some("operator"), &["get", "agents"]).await.done();
        listed.out.contains(state).then_some(())
    };
    until("the agent is there", async || registered("ready").await).await;

    // Nobody takes the agent over, and the owner's other token may.
    node.token("thief", "agent", &[]).await;
    drop(agent);
    let stolen = node.at("thief");
    let mut theft = arguments;
    theft[6] = text(&stolen);
    let refused = until("the directory is free", async || {
        let refused = run(&node.server(), &theft).await;
        (!refused.err.contains("in use")).then_some(refused)
    })
    .await;
    assert!(
        refused
            .err
            .contains("was registered by token:watcher, not by token:thief"),
        "{refused:?}"
    );
    let again = start(&node.server(), &arguments);
    let attached = || {
        let lines = node.audited();
        let attached = lines.iter().filter(|line| {
            line.contains("/Attach\"") && line.contains("token:watcher") && line.contains("\"ok\"")
        });
        (attached.count() >= 2).then_some(())
    };
    until("the agent is back", async || attached()).await;
    let id = node.id_of("watcher").await;
    let revoked = node.as_(Some("operator"), &["token", "revoke", &id]).await;
    assert_eq!(revoked.done().out, format!("{id} is revoked\n"));
    until("the node lets the agent go", async || {
        let log = fs::read_to_string(&node.log).unwrap();
        log.contains("the agent is not let in any more")
            .then_some(())
    })
    .await;
    code(&node.as_(Some("watcher"), &["token", "whoami"]).await, 6);
    code(
        &node.as_(Some("operator"), &["token", "revoke", &id]).await,
        4,
    );
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_speaks_tls_alone_with_a_certificate_that_can_be_replaced() {
    let node = Secured::start().await;
    let operator = node.at("operator");
    // In the clear, or of another authority: nothing is said.
    let plain = format!("http://{}", node.door);
    let answer = run(&plain, &["get", "jobs", "--token-file", text(&operator)]).await;
    assert_ne!(answer.code, 0, "{answer:?}");
    let other = tempfile::tempdir().unwrap();
    offline(other.path(), &["certs", "ca", "--directory", "."]);
    let ca = other.path().join("ca.pem");
    let stranger = run(&node.server(), &["get", "jobs", "--ca", text(&ca)]).await;
    code(&stranger, 3);
    assert!(
        stranger.err.contains("invalid peer certificate"),
        "{stranger:?}"
    );
    // A token does not leave the host in the clear.
    let remote = ["get", "jobs", "--token-file", text(&operator)];
    let refused = run("192.0.2.1:8888", &remote).await;
    assert!(refused.err.contains("in the clear"), "{refused:?}");

    // The former authority is not known to who comes with the new one.
    let server = ["certs", "server", "--directory", ".", "--host", "127.0.0.1"];
    offline(other.path(), &server);
    for file in ["server-key.pem", "server.pem"] {
        let new = node.at("certs").join(format!("{file}.new"));
        fs::copy(other.path().join(file), &new).unwrap();
        fs::rename(new, node.at("certs").join(file)).unwrap();
    }
    let arguments = [
        "token",
        "whoami",
        "--ca",
        text(&ca),
        "--token-file",
        text(&operator),
    ];
    let me = run(&node.server(), &arguments).await.done();
    assert_eq!(me.out, "operator-file (operator)\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_listen_beyond_loopback_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("trireme.toml");
    fs::write(
        &file,
        "node_id = 1\ndata_dir = \"data\"\nlisten = \"0.0.0.0:0\"\n",
    )
    .unwrap();
    let refused = end(start("", &["serve", "--config", text(&file)])).await;
    code(&refused, 1);
    assert!(
        refused
            .err
            .contains("listen: 0.0.0.0:0 is reachable from other hosts, but tls is missing"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_metrics_are_for_viewers_and_probes_and_webhooks_for_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let operator = offline(root, &["token", "generate"]);
    fs::write(root.join("operator"), &operator).unwrap();
    let (door, peer) = (Address::claim().unwrap(), Address::claim().unwrap());
    let settings = format!(
        "node_id = 1\ndata_dir = \"data\"\nlisten = \"{door}\"\npeer.listen = \"{peer}\"\n\
         auth.operator_token_file = \"operator\"\n"
    );
    let (_node, _) = serve(root, "node", &settings);
    let url = |path: &str| format!("http://{door}{path}");
    until("the node is ready", async || {
        let answer = http().get(url("/readyz")).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    let mut answers = BTreeMap::new();
    for path in [
        "/",
        "/prowjobs.js",
        "/metrics",
        "/no/such/page",
        "/healthz",
        "/hook",
    ] {
        let answer = http().get(url(path)).send().await.unwrap();
        answers.insert(path, answer.status().as_u16());
    }
    let expected = [
        ("/", 401),
        ("/prowjobs.js", 401),
        ("/metrics", 401),
        ("/no/such/page", 401),
        ("/healthz", 200),
        // What the webhook door says to a GET.
        ("/hook", 405),
    ];
    assert_eq!(answers, BTreeMap::from(expected));
    let asked = http().get(url("/")).send().await.unwrap();
    let challenge = asked.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Basic "), "{challenge}");

    let token = operator.trim();
    let page = http().get(url("/")).basic_auth("anybody", Some(token));
    assert_eq!(page.send().await.unwrap().status(), StatusCode::OK);
    let wrong = http().get(url("/")).basic_auth("anybody", Some("wrong"));
    assert_eq!(
        wrong.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let metrics = http().get(url("/metrics")).bearer_auth(token);
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("trireme_auth_refused_total{reason=\"unauthenticated\"} 6"),
        "{metrics}"
    );
    // What a browser sends by itself opens no method.
    let form = http()
        .post(url("/trireme.api.v1.JobService/AbortJob"))
        .header("content-type", "application/grpc")
        .basic_auth("anybody", Some(token))
        .body("\0\0\0\0\0");
    let refused = form.send().await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "16");
}

/// The commands of README's chapter, in its order, on addresses of this test.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_secured_as_the_readme_says() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"));
    let readme = readme.unwrap();
    let (_, section) = readme.split_once("\n## Securing a cluster").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let block = |kind: &str| -> Vec<String> {
        let fence = format!("```{kind}\n");
        let parts = section.split(fence.as_str()).skip(1);
        parts
            .map(|part| part.split("```").next().unwrap().to_owned())
            .collect()
    };
    let [before, after] = block("sh").try_into().unwrap();
    let [settings] = block("toml").try_into().unwrap();

    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (door, peer) = (Address::claim().unwrap(), Address::claim().unwrap());
    let here = |text: &str| {
        text.replace("/etc/trireme/", "certs/")
            .replace("0.0.0.0:8889", peer.as_str())
            .replace("10.0.0.1:8889", peer.as_str())
            .replace("0.0.0.0:8888", &format!("0.0.0.0:{}", port(&door)))
            .replace("ci.example.com:8888", door.as_str())
            .replace("ci.example.com", "127.0.0.1")
            .replace("/var/lib/trireme/", "")
    };
    let shell = |script: &str| {
        let script = format!(
            "set -e\ntrireme() {{ '{PROGRAM}' \"$@\"; }}\n{}",
            here(script)
        );
        Command::new("sh")
            .args(["-c", &script])
            .current_dir(root)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let done = shell(&before);
    assert!(done.status.success(), "{done:?}");
    let (_node, log) = serve(root, "node", &here(&settings));
    let operator = root.join("certs/operator-token");
    let ca = root.join("certs/ca.pem");
    let server = format!("https://{door}");
    let ask = async |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--ca", text(&ca), "--token-file", text(&operator)]);
        run(&server, &all).await
    };
    until("a node that takes tokens", async || {
        let status = ask(&["cluster", "status", "-o", "json"]).await;
        (status.code == 0 && status.json()["feature_level"].as_u64() >= Some(2)).then_some(())
    })
    .await;
    // The agent stays until it is told to go; the id is what the list before shows.
    let script: String = after
        .lines()
        .map(|line| match line.trim_start() {
            line if line.starts_with("trireme agent ") => {
                let command = line.split('#').next().unwrap().trim();
                // Not through the function: what is told to go would be the shell that runs it.
                let command = command.replacen("trireme", &format!("'{PROGRAM}'"), 1);
                format!(
                    "{command} > agent.log 2>&1 &\nAGENT=$!\n\
                     N=0\n\
                     until trireme get agents --token-file alice | grep -q ready; do N=$((N+1)); [ $N -lt 300 ]; done\n\
                     kill $AGENT\n\
                     wait $AGENT || [ $? -eq 143 ]\n"
                )
            }
            line => format!(
                "{}\n",
                line.replace(
                    "<id>",
                    "$(trireme token list --token-file alice | awk '$1 == \"build-1\" { print $NF }')"
                )
            ),
        })
        .collect();
    let done = tokio::task::block_in_place(|| shell(&script));
    let told = fs::read_to_string(&log).unwrap();
    assert!(done.status.success(), "{done:?}\n{told}");
    let listed = ask(&["token", "list", "-o", "json"]).await.done().json();
    let names: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["alice"]);
}

struct SecuredMember {
    door: Address,
    peer: Address,
    log: PathBuf,
    node: Option<Served>,
}

/// Nodes that prove to each other who they are.
struct SecuredCluster {
    directory: TempDir,
    members: BTreeMap<u64, SecuredMember>,
}

impl SecuredCluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        offline(root, &["certs", "ca", "--directory", "certs"]);
        let server = "certs server --directory certs --host 127.0.0.1";
        offline(root, &server.split(' ').collect::<Vec<_>>());
        fs::write(root.join("operator"), offline(root, &["token", "generate"])).unwrap();
        let mut cluster = Self {
            directory,
            members: BTreeMap::new(),
        };
        for id in 1..=3 {
            cluster.claim(id, "certs");
        }
        let bootstrap: Vec<String> = cluster
            .members
            .iter()
            .map(|(id, it)| {
                format!(
                    "{{ id = {id}, peer = \"{}\", api = \"{}\" }}",
                    it.peer, it.door
                )
            })
            .collect();
        let table = format!("[cluster]\nbootstrap = [{}]\n", bootstrap.join(", "));
        for id in 1..=3 {
            cluster.serve(id, "certs", &table);
        }
        until("three nodes that know the newest level", async || {
            let status = cluster.as_("operator", &["cluster", "status", "--all", "-o", "json"]);
            let status = status.await;
            let status = (status.code == 0).then(|| status.json())?;
            let nodes = status["nodes"].as_array()?;
            let known = |node: &serde_json::Value| node["feature_level"] == FEATURE_LEVEL;
            (nodes.len() == 3 && nodes.iter().all(known)).then_some(())
        })
        .await;
        cluster
    }

    /// Addresses for a node, and a certificate by the authority in `authority`.
    fn claim(&mut self, id: u64, authority: &str) {
        let number = id.to_string();
        offline(
            self.directory.path(),
            &["certs", "node", "--directory", authority, "--id", &number],
        );
        let member = SecuredMember {
            door: Address::claim().unwrap(),
            peer: Address::claim().unwrap(),
            log: PathBuf::new(),
            node: None,
        };
        self.members.insert(id, member);
    }

    fn serve(&mut self, id: u64, authority: &str, cluster: &str) {
        let member = self.members.get_mut(&id).unwrap();
        let settings = format!(
            r#"
node_id = {id}
data_dir = "data-{id}"
listen = "0.0.0.0:{}"
advertise = "{}"
[peer]
listen = "0.0.0.0:{}"
advertise = "{}"
ca = "certs/ca.pem"
certificate = "{authority}/node-{id}.pem"
key = "{authority}/node-{id}-key.pem"
[tls]
certificate = "certs/server.pem"
key = "certs/server-key.pem"
[auth]
operator_token_file = "operator"
[storage]
url = "artifacts"
shared = true
{cluster}"#,
            port(&member.door),
            member.door,
            port(&member.peer),
            member.peer,
        );
        let (node, log) = serve(self.directory.path(), &format!("node-{id}"), &settings);
        (member.node, member.log) = (Some(node), log);
    }

    /// SIGKILL.
    fn kill(&mut self, id: u64) {
        self.members.get_mut(&id).unwrap().node = None;
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self) -> String {
        let running = self.members.values().filter(|member| member.node.is_some());
        let doors: Vec<String> = running
            .map(|member| format!("https://{}", member.door))
            .collect();
        doors.join(",")
    }

    /// Asks with the token in the file of this name.
    async fn as_(&self, token: &str, arguments: &[&str]) -> Answer {
        let (ca, token) = (self.at("certs/ca.pem"), self.at(token));
        let more = ["--ca", text(&ca), "--token-file", text(&token)];
        run(&self.server(), &[arguments, &more].concat()).await
    }

    async fn token(&self, name: &str, role: &str) {
        let create = ["token", "create", "--name", name, "--role", role];
        let made = self.as_("operator", &create).await.done();
        fs::write(self.at(name), made.out).unwrap();
    }

    async fn create_job(&self, token: &str, job: &str) -> Result<String, tonic::Status> {
        let options = ConnectOptions {
            ca: Some(self.at("certs/ca.pem")),
            token: Token::File(self.at(token)),
        };
        let client = Client::connect_with(&self.server(), &options).await;
        let client = client.map_err(|why| tonic::Status::unavailable(why.to_string()))?;
        let prowjob = serde_json::json!({
            "apiVersion": "prow.k8s.io/v1",
            "kind": "ProwJob",
            "spec": {"type": "periodic", "job": job, "agent": "kubernetes", "cluster": "default"},
        });
        let request = CreateJobRequest {
            request_id: job.to_owned(),
            what: Some(What::Prowjob(prowjob.to_string().into())),
        };
        Ok(client.jobs().create_job(request).await?.into_inner().id)
    }

    async fn leader(&self) -> Option<u64> {
        let status = self.as_("operator", &["cluster", "status", "-o", "json"]);
        let status = status.await;
        (status.code == 0).then(|| status.json()["leader"].as_u64())?
    }

    async fn member_ids(&self) -> Vec<u64> {
        let status = self.as_("operator", &["cluster", "status", "-o", "json"]);
        let status = status.await.done().json();
        let nodes = status["nodes"].as_array().unwrap();
        nodes
            .iter()
            .filter_map(|node| node["id"].as_u64())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_go_on_over_tls_when_their_leader_is_killed() {
    // Refused only when another test of this program was first.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut cluster = SecuredCluster::start().await;
    for role in ["viewer", "submitter"] {
        cluster.token(&format!("a-{role}"), role).await;
    }
    let before = cluster.create_job("a-submitter", "before").await.unwrap();
    let refused = cluster.create_job("a-viewer", "never").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    code(&cluster.as_("a-viewer", &["abort", &before]).await, 6);
    for verb in ["compare", "scrub"] {
        code(&cluster.as_("a-viewer", &["cluster", verb]).await, 6);
    }

    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader);
    let next = until("another leader", async || {
        cluster.leader().await.filter(|next| *next != leader)
    })
    .await;
    let after = until("a job on what is left", async || {
        cluster.create_job("a-submitter", "after").await.ok()
    })
    .await;
    for (id, name) in [(&before, "before"), (&after, "after")] {
        let shown = cluster.as_("a-viewer", &["get", "job", id]).await.done();
        assert!(shown.out.contains(name), "{shown:?}");
    }
    // Nothing but the settings of its first start tells a node who the others are: it knows them.
    cluster.serve(leader, "certs", "");
    until("three equal members", async || {
        let compared = cluster.as_("operator", &["cluster", "compare"]).await;
        (compared.code == 0).then_some(())
    })
    .await;
    let scrubbed = cluster.as_("operator", &["cluster", "scrub"]).await.done();
    assert_eq!(scrubbed.out.matches("nothing damaged").count(), 3);

    // Everything is right about this one but who signed its certificate.
    offline(
        cluster.directory.path(),
        &["certs", "ca", "--directory", "other"],
    );
    cluster.claim(4, "other");
    let peers: Vec<String> = (1..=3)
        .map(|id| cluster.members[&id].peer.to_string())
        .collect();
    let join = format!("[cluster]\njoin = {peers:?}\n");
    cluster.serve(4, "other", &join);
    let log = cluster.members[&next].log.clone();
    until("the node to be refused", async || {
        let log = fs::read_to_string(&log).unwrap();
        let refused = log.lines().any(|line| {
            line.contains("a connection was refused") && line.contains("invalid peer certificate")
        });
        refused.then_some(())
    })
    .await;
    cluster.kill(4);
    assert_eq!(cluster.member_ids().await, [1, 2, 3]);

    // The same directory, with a certificate of the cluster's authority.
    cluster.claim(4, "certs");
    cluster.serve(4, "certs", &join);
    until("node 4 to join", async || {
        (cluster.member_ids().await == [1, 2, 3, 4]).then_some(())
    })
    .await;
}
