//! README's chapters for operators, run as they stand there.
//!
//! The fenced `sh` blocks of the chapters are run in order, against three real nodes, each with `sh -e`. What the
//! chapter says stands for something else is replaced: addresses, settings, directories; `trireme` is the program under
//! test; lines with `export` hold for all blocks that follow. A block that is one `trireme serve` is started and left
//! running. Comments steer the test and are seen by nobody who reads the page:
//!
//! - `test: on N` - from here on the commands are given on node N's host
//! - `test: until it succeeds` - the next block is run again until it does
//! - `test: ends with N` - the next block ends with that code
//! - `test: N ends with M` - the node that was started on host N ends so
//! - `test: lose N` - node N is killed and its disk is lost
//! - `test: stop all` - every node is stopped
//! - `test: settings N alone` - the present host's settings get that node id and no `[cluster]`

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use clap::Parser as _;
use tokio::process::{Child, Command};
use trireme_harness::Address;

use crate::{
    command::{self, Answer},
    scene::{Nodes, until},
};

const CHAPTERS: [&str; 2] = ["## Operating a cluster", "## When things go wrong"];
/// Hosts that the chapters speak of beside the three first ones.
const MORE_HOSTS: [u64; 3] = [4, 5, 11];

fn readme() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).unwrap()
}

#[derive(Debug)]
enum Step {
    Say(String),
    Run(String),
}

/// Blocks and comments of the chapters, in order.
fn steps(text: &str) -> Vec<Step> {
    let (mut steps, mut within, mut block) = (Vec::new(), false, None::<String>);
    for line in text.lines() {
        if let Some(code) = &mut block {
            if line == "```" {
                steps.extend(block.take().map(Step::Run));
            } else {
                code.push_str(line);
                code.push('\n');
            }
            continue;
        }
        if line.starts_with("## ") {
            within = CHAPTERS.contains(&line);
        }
        if !within {
            continue;
        }
        if line == "```sh" {
            block = Some(String::new());
        } else if let Some(said) = line.strip_prefix("<!-- test: ") {
            steps.push(Step::Say(said.strip_suffix(" -->").unwrap().to_owned()));
        }
    }
    steps
}

struct Host {
    peer: String,
    api: String,
    directory: PathBuf,
    /// Claimed for as long as the host is there.
    _claims: Option<(Address, Address)>,
    serving: Option<Child>,
}

struct Reader {
    nodes: Nodes,
    hosts: BTreeMap<u64, Host>,
    on: u64,
    exports: String,
    backup: PathBuf,
}

impl Reader {
    async fn new() -> Self {
        let nodes = Nodes::start(3).await;
        let mut hosts = BTreeMap::new();
        for member in nodes.cluster.members() {
            let host = Host {
                peer: member.peer.to_string(),
                api: member.api.to_string(),
                directory: member.directory.clone(),
                _claims: None,
                serving: None,
            };
            hosts.insert(member.id, host);
        }
        for id in MORE_HOSTS {
            let (peer, api) = (Address::claim().unwrap(), Address::claim().unwrap());
            let directory = nodes.directory.path().join(format!("host-{id}"));
            std::fs::create_dir(&directory).unwrap();
            let host = Host {
                peer: peer.to_string(),
                api: api.to_string(),
                directory,
                _claims: Some((peer, api)),
                serving: None,
            };
            hosts.insert(id, host);
        }
        let backup = nodes.directory.path().join("backup");
        std::fs::create_dir(&backup).unwrap();
        let reader = Self {
            nodes,
            hosts,
            on: 1,
            exports: String::new(),
            backup,
        };
        let join = [1, 2].map(|id| reader.hosts[&id].peer.clone());
        for id in MORE_HOSTS {
            reader.write_settings(id, id, &format!("[cluster]\njoin = {join:?}\n"));
        }
        reader
    }

    fn write_settings(&self, host: u64, node_id: u64, cluster: &str) {
        let host = &self.hosts[&host];
        let text = format!(
            "node_id = {node_id}\ndata_dir = {:?}\nlisten = \"{}\"\n[peer]\nlisten = \"{}\"\n{cluster}",
            host.directory.join("data"),
            host.api,
            host.peer,
        );
        std::fs::write(host.directory.join("trireme.toml"), text).unwrap();
    }

    /// Puts what is here in the place of what stands for it. Longer numbers first: 10.0.0.1 begins 10.0.0.11.
    fn here(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (id, host) in self.hosts.iter().rev() {
            text = text
                .replace(&format!("10.0.0.{id}:8888"), &host.api)
                .replace(&format!("10.0.0.{id}:8889"), &host.peer);
        }
        let directory = &self.hosts[&self.on].directory;
        let at = |name: &str| command::text(&directory.join(name)).to_owned();
        text.replace("/etc/trireme/trireme.toml", &at("trireme.toml"))
            .replace("/var/lib/trireme/data", &at("data"))
            .replace("/backup", command::text(&self.backup))
    }

    async fn run(&mut self, block: &str) -> Answer {
        let text = self.here(block);
        for line in text.lines().filter(|line| line.starts_with("export ")) {
            self.exports.push_str(line);
            self.exports.push('\n');
        }
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_trireme"));
        let path = std::env::var("PATH").unwrap();
        let child = Command::new("sh")
            .args(["-e", "-u", "-c", &format!("{}{text}", self.exports)])
            .env(
                "PATH",
                format!("{}:{path}", command::text(program.parent().unwrap())),
            )
            .env_remove("TRIREME_SERVER")
            .env_remove("TRIREME_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        command::end(child).await
    }

    fn serve(&mut self, block: &str) {
        let text = self.here(block);
        let mut arguments: Vec<&str> = text.split_whitespace().skip(1).collect();
        arguments.push("--exit-with-parent");
        let log = self.hosts[&self.on].directory.join("node.log");
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_trireme"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.hosts.get_mut(&self.on).unwrap().serving = Some(child);
    }

    /// What a comment asks for now; false when it is about the next block.
    async fn heed(&mut self, said: &str) -> bool {
        let words: Vec<&str> = said.split(' ').collect();
        match words.as_slice() {
            ["on", id] => self.on = id.parse().unwrap(),
            ["lose", id] => {
                let id = id.parse().unwrap();
                self.nodes.cluster.kill(id).await.unwrap();
                std::fs::remove_dir_all(self.hosts[&id].directory.join("data")).unwrap();
            }
            ["stop", "all"] => {
                for host in self.hosts.values_mut() {
                    if let Some(mut serving) = host.serving.take() {
                        serving.kill().await.unwrap();
                    }
                }
                self.nodes.cluster.stop().await.unwrap();
            }
            ["settings", id, "alone"] => {
                self.write_settings(self.on, id.parse().unwrap(), "");
            }
            [id, "ends", "with", code] => {
                let host = self.hosts.get_mut(&id.parse().unwrap()).unwrap();
                let mut serving = host.serving.take().unwrap();
                let ended = tokio::time::timeout(crate::scene::BOUND, serving.wait());
                let ended = ended.await.expect("the node ends").unwrap();
                assert_eq!(ended.code(), Some(code.parse().unwrap()), "{said}");
            }
            ["until", "it", "succeeds"] | ["ends", "with", _] => return false,
            _ => panic!("nothing is known of {said:?}"),
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_chapters_are_true() {
    let mut reader = Reader::new().await;
    let (mut repeat, mut code) = (false, 0);
    for step in steps(&readme()) {
        match step {
            Step::Say(said) => {
                if !reader.heed(&said).await {
                    match said.strip_prefix("ends with ") {
                        Some(number) => code = number.parse().unwrap(),
                        None => repeat = true,
                    }
                }
            }
            Step::Run(block) if block.starts_with("trireme serve ") => reader.serve(&block),
            Step::Run(block) if repeat => {
                let mut last = None;
                let succeeded = until_answer(&mut reader, &block, &mut last);
                assert!(succeeded.await, "{block}: {last:?}");
                repeat = false;
            }
            Step::Run(block) => {
                let answer = reader.run(&block).await;
                assert_eq!(answer.code, code, "{block}: {answer:?}");
                code = 0;
            }
        }
    }
    // What the last chapters leave: the recovered node, leading alone.
    let api = reader.hosts[&2].api.clone();
    until("the recovered node to lead", async || {
        let status = command::run(&api, &["cluster", "status", "-o", "json"]).await;
        (status.json()["leader"] == 12).then_some(())
    })
    .await;
}

/// Runs a block again and again, for as long as anything here is waited for.
async fn until_answer(reader: &mut Reader, block: &str, last: &mut Option<Answer>) -> bool {
    let deadline = tokio::time::Instant::now() + crate::scene::BOUND;
    while tokio::time::Instant::now() < deadline {
        let answer = reader.run(block).await;
        if answer.code == 0 {
            return true;
        }
        *last = Some(answer);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    false
}

/// Commands in running text and in tables parse; `<id>` and the like stand for a number.
#[test]
fn every_command_of_the_readme_parses() {
    let text = readme();
    let mut found = 0;
    for piece in text.split('`') {
        let Some(words) = piece
            .strip_prefix("trireme ")
            .filter(|_| !piece.contains('\n'))
        else {
            continue;
        };
        let arguments = words
            .split_whitespace()
            .map(|word| if word.starts_with('<') { "7" } else { word });
        let arguments: Vec<&str> = std::iter::once("trireme").chain(arguments).collect();
        // A verb without its arguments is a name, and asks for them.
        if let Err(why) = trireme::cli::Cli::try_parse_from(&arguments) {
            use clap::error::ErrorKind;
            let named = matches!(
                why.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::DisplayHelp
            );
            assert!(named, "`{piece}`: {why}");
        }
        found += 1;
    }
    assert!(found > 10, "{found}");
}
