//! How each nemesis is done and healed.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trireme_harness::{Cluster, Hub, Links, Party, Weather};
use trireme_proto::api::{ClusterStatusRequest, ClusterStatusResponse};

use super::Nemesis;
use crate::{dice::Dice, registers::Registers};

/// An hour.
const JUMP_SECONDS: i64 = 3600;
/// A node's answer about who leads.
const ANSWER: Duration = Duration::from_millis(500);
/// Looks for a leader.
const FIND_LEADER: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a node with a full disk may take to say so while much is written.
const SAYS_FULL: Duration = Duration::from_secs(90);
/// Bytes of one value of those that fill a disk; a ProwJob may have 256 KiB.
const POURED: usize = 250 << 10;
const FILLER: &str = "filler";

/// Whom a nemesis is done to.
pub(crate) struct Field<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) registers: &'a Registers,
    pub(crate) dice: &'a mut Dice,
    pub(crate) say: &'a (dyn Fn(&str) + Send + Sync),
}

/// How a fault is undone.
enum Heal {
    Restart(Vec<u64>),
    Resume(u64),
    Release,
    /// Packets between these are lost.
    Rejoin(Vec<(u64, u64)>),
    Clear,
    Clock(u64),
    MakeRoom {
        node: u64,
        filler: PathBuf,
        ended: bool,
    },
}

/// What is being done.
pub(crate) struct Fault {
    pub(crate) nemesis: Nemesis,
    heal: Vec<Heal>,
}

/// Who leads as most nodes see it: with the highest term of those that answer.
pub(crate) async fn leader(cluster: &Cluster) -> Option<u64> {
    let mut asking = JoinSet::new();
    for member in cluster.members() {
        if !member.is_running() || member.is_stopped() {
            continue;
        }
        let (id, url) = (member.id, member.url());
        asking.spawn(async move { (id, timeout(ANSWER, status(&url)).await) });
    }
    let mut best: Option<(u64, u64)> = None;
    while let Some(asked) = asking.join_next().await {
        if let Ok((id, Ok(Ok(status)))) = asked
            && status.role == "leader"
        {
            best = best.max(Some((status.term, id)));
        }
    }
    best.map(|(_, id)| id)
}

pub(crate) async fn status(url: &str) -> anyhow::Result<ClusterStatusResponse> {
    let client = trireme_api::client::Client::connect(url).await?;
    let answer = client.cluster().status(ClusterStatusRequest {}).await?;
    Ok(answer.into_inner())
}

impl Field<'_> {
    fn ids(&self) -> Vec<u64> {
        self.cluster.ids()
    }

    fn running(&self) -> Vec<u64> {
        let members = self.cluster.members().iter();
        let alive = members.filter(|one| one.is_running() && !one.is_stopped());
        alive.map(|one| one.id).collect()
    }

    fn links(&self) -> anyhow::Result<Links> {
        let links = self.cluster.ground().links.clone();
        links.context("there are no links between the nodes")
    }

    fn hub(&self) -> Option<Hub> {
        self.cluster.ground().hub.clone()
    }

    async fn leader(&self) -> anyhow::Result<u64> {
        let deadline = Instant::now() + FIND_LEADER;
        loop {
            if let Some(leader) = leader(self.cluster).await {
                return Ok(leader);
            }
            ensure!(
                Instant::now() < deadline,
                "nobody leads for {FIND_LEADER:?}"
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The leader two times of three.
    async fn victim(&mut self) -> anyhow::Result<(u64, &'static str)> {
        let leader = self.leader().await?;
        let mut others = self.running();
        others.retain(|id| *id != leader);
        self.dice.shuffle(&mut others);
        match others.first() {
            Some(other) if self.dice.one_in(3) => Ok((*other, "follower")),
            _ => Ok((leader, "leader")),
        }
    }

    fn ways(&self) -> Vec<(Party, Party)> {
        let ids = self.ids();
        ids.iter()
            .flat_map(|one| ids.iter().map(move |other| (*one, *other)))
            .filter(|(one, other)| one != other)
            .map(|(one, other)| (Party::Node(one), Party::Node(other)))
            .collect()
    }

    /// Parts each of one side from each of the other: by losing packets where there are namespaces, half of the time, or
    /// by holding bytes.
    fn part(
        &mut self,
        one: &[u64],
        other: &[u64],
        heal: &mut Vec<Heal>,
    ) -> anyhow::Result<&'static str> {
        let pairs: Vec<(u64, u64)> = one
            .iter()
            .flat_map(|here| other.iter().map(move |there| (*here, *there)))
            .collect();
        if let Some(hub) = self.hub()
            && self.dice.one_in(2)
        {
            heal.push(Heal::Rejoin(pairs.clone()));
            for (here, there) in pairs {
                hub.set_parted(here, there, true)?;
            }
            return Ok("packets are lost");
        }
        heal.push(Heal::Release);
        let pairs = pairs.into_iter();
        self.links()?
            .part(pairs.map(|(here, there)| (Party::Node(here), Party::Node(there))));
        Ok("bytes are held")
    }

    /// Begins it. What a part of it broke before the rest failed is left to the caller, who gives up.
    pub(crate) async fn begin(&mut self, nemesis: Nemesis) -> anyhow::Result<Fault> {
        let mut heal = Vec::new();
        let said = match nemesis {
            Nemesis::Kill => {
                let (node, role) = self.victim().await?;
                self.cluster.kill(node).await?;
                heal.push(Heal::Restart(vec![node]));
                format!("node {node} ({role})")
            }
            Nemesis::Stop => {
                let (node, role) = self.victim().await?;
                self.cluster.pause(node)?;
                heal.push(Heal::Resume(node));
                format!("node {node} ({role})")
            }
            Nemesis::Partition => self.partition(&mut heal).await?,
            Nemesis::OneWay => {
                let (node, role) = self.victim().await?;
                let outward = self.dice.one_in(2);
                let others = self.ids().into_iter().filter(|id| *id != node);
                let ways = others.map(|other| {
                    let (node, other) = (Party::Node(node), Party::Node(other));
                    if outward {
                        (node, other)
                    } else {
                        (other, node)
                    }
                });
                let ways: Vec<_> = ways.collect();
                self.links()?.hold(ways);
                heal.push(Heal::Release);
                let way = if outward { "from" } else { "to" };
                format!("nothing {way} node {node} ({role})")
            }
            Nemesis::Bridge => {
                let mut ids = self.ids();
                self.dice.shuffle(&mut ids);
                let bridge = ids.pop().context("a bridge needs nodes")?;
                let (one, other) = ids.split_at(ids.len() / 2);
                let how = self.part(one, other, &mut heal)?;
                format!("{one:?} and {other:?} meet at node {bridge} only; {how}")
            }
            Nemesis::Delay => {
                self.links()?.set_weather(self.ways(), Weather::far());
                heal.push(Heal::Clear);
                "between all nodes".to_owned()
            }
            Nemesis::Loss => {
                self.links()?.set_weather(self.ways(), Weather::lossy());
                heal.push(Heal::Clear);
                "between all nodes".to_owned()
            }
            Nemesis::Clock => {
                let (node, role) = self.victim().await?;
                let ahead = self.dice.one_in(2);
                let offset = if ahead { JUMP_SECONDS } else { -JUMP_SECONDS };
                self.cluster.set_clock(node, offset)?;
                heal.push(Heal::Clock(node));
                let way = if ahead { "ahead" } else { "back" };
                format!("node {node} ({role}) jumps {way}")
            }
            Nemesis::DiskFull => self.fill_disk(&mut heal).await?,
            Nemesis::RollingRestart => {
                for node in self.ids() {
                    self.cluster.terminate(node).await?;
                    self.cluster.restart(node)?;
                    self.cluster.wait_until_caught_up(node).await?;
                }
                "all nodes, one after another".to_owned()
            }
            Nemesis::KillAll => {
                let ids = self.ids();
                for node in &ids {
                    self.cluster.kill(*node).await?;
                }
                let said = format!("nodes {ids:?}");
                heal.push(Heal::Restart(ids));
                said
            }
        };
        (self.say)(&format!("{nemesis}: {said}"));
        Ok(Fault { nemesis, heal })
    }

    async fn partition(&mut self, heal: &mut Vec<Heal>) -> anyhow::Result<String> {
        let mut ids = self.ids();
        self.dice.shuffle(&mut ids);
        let alone = self.dice.one_in(2);
        if alone {
            let leader = self.leader().await?;
            ids.retain(|id| *id != leader);
            ids.insert(0, leader);
        }
        let size = if alone { 1 } else { ids.len() / 2 };
        let (few, many) = ids.split_at(size);
        let how = self.part(few, many, heal)?;
        let cut_off = self.dice.one_in(3);
        if cut_off {
            let doors = few.iter().map(|node| (Party::Outside, Party::Node(*node)));
            self.links()?.part(doors);
            heal.push(Heal::Release);
        }
        let who = if alone { "the leader, " } else { "" };
        let clients = if cut_off { ", and from clients" } else { "" };
        Ok(format!("{who}{few:?} from {many:?}{clients}; {how}"))
    }

    async fn fill_disk(&mut self, heal: &mut Vec<Heal>) -> anyhow::Result<String> {
        let node = self.cluster.ground().small_disk.map(|disk| disk.node);
        let node = node.context("no node has a small disk")?;
        let member = self.cluster.member(node)?;
        let (filler, log) = (member.data().join(FILLER), member.log());
        let before = std::fs::metadata(&log)?.len();
        let filled = fill(&filler)?;
        (self.say)(&format!(
            "disk-full: {filled} bytes fill the disk of node {node}"
        ));
        // A preallocated log has room for a while: until the node says that it has none.
        let full = CancellationToken::new();
        let watch = async {
            let says = timeout(SAYS_FULL, async {
                while !speaks_of_space(&log, before) {
                    sleep(LOOK_AGAIN).await;
                }
            });
            let watched = says.await;
            full.cancel();
            watched
        };
        let (watched, poured) = tokio::join!(watch, self.registers.pour(node, POURED, &full));
        let poured = poured?;
        // Whether it stops is its own affair; that it says why is not.
        let ended = self.until_ended(node).await?;
        heal.push(Heal::MakeRoom {
            node,
            filler,
            ended: ended.is_some(),
        });
        ensure!(
            watched.is_ok(),
            "node {node} took {poured} bytes on a full disk and does not say that it is full; it {}",
            match &ended {
                Some(ended) => format!(
                    "ended ({}) with these words:\n{}",
                    ended.status, ended.words
                ),
                None => "still runs".to_owned(),
            }
        );
        Ok(format!(
            "node {node} says so after {poured} bytes and {}",
            match ended {
                Some(ended) => format!("ends ({})", ended.status),
                None => "goes on".to_owned(),
            }
        ))
    }

    /// A moment for a node that is about to end.
    async fn until_ended(&mut self, node: u64) -> anyhow::Result<Option<trireme_harness::Ended>> {
        for _ in 0..100 {
            if let Some(ended) = self.cluster.take_ended(node)? {
                return Ok(Some(ended));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(None)
    }

    pub(crate) async fn heal(&mut self, fault: Fault) -> anyhow::Result<()> {
        for heal in fault.heal {
            match heal {
                Heal::Restart(nodes) => {
                    for node in nodes {
                        self.cluster.restart(node)?;
                    }
                }
                Heal::Resume(node) => self.cluster.resume(node)?,
                Heal::Release => self.links()?.release(),
                Heal::Rejoin(pairs) => {
                    let hub = self.hub().context("there are no namespaces")?;
                    for (here, there) in pairs {
                        hub.set_parted(here, there, false)?;
                    }
                }
                Heal::Clear => self.links()?.clear_weather(),
                Heal::Clock(node) => self.cluster.set_clock(node, 0)?,
                Heal::MakeRoom {
                    node,
                    filler,
                    ended,
                } => {
                    std::fs::remove_file(&filler)?;
                    // An operator would restart it in any case.
                    if !ended {
                        self.cluster.kill(node).await?;
                    }
                    self.cluster.restart(node)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes until there is no room.
fn fill(path: &Path) -> anyhow::Result<u64> {
    let mut file = File::create(path)?;
    let block = vec![0x5A; 1 << 16];
    let mut filled = 0;
    for size in [1 << 16, 1 << 12, 1] {
        loop {
            match file.write(&block[..size]) {
                Ok(written) => filled += written as u64,
                Err(why) if why.kind() == std::io::ErrorKind::StorageFull => break,
                Err(why) => return Err(why.into()),
            }
        }
    }
    Ok(filled)
}

fn speaks_of_space(log: &Path, from: u64) -> bool {
    // A log that cannot be read says nothing.
    let text = std::fs::read(log).unwrap_or_default();
    let new = text.get(usize::try_from(from).unwrap_or(usize::MAX)..);
    let new = String::from_utf8_lossy(new.unwrap_or_default()).to_lowercase();
    [
        "no space left",
        "disk is full",
        "storage is full",
        "out of space",
    ]
    .iter()
    .any(|words| new.contains(words))
}
