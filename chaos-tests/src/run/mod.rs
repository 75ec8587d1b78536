//! A run: people, clients and followers go on while one nemesis after the other, sometimes two, is done to the nodes;
//! then all is healed, comes to rest, and is judged.

mod report;
mod stories;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use trireme_harness::{Executable, Ground, Links, SmallDisk};

pub use report::{Report, Round, Told};

use self::stories::Stories;
use crate::{
    DigestAt, History,
    checks::{judge, judge_unfinished},
    dice::Dice,
    nemesis::{Field, Machine, Nemesis, Skipped, allowed},
    registers::{Asked, Outcome, Registers},
    scene::{Scene, Teller},
    verdict::Counts,
};

/// Undisturbed, before the first nemesis.
const WARM_UP: Duration = Duration::from_secs(4);
/// How long a nemesis lasts: longer than an election, within the time of a run.
const SHORTEST: Duration = Duration::from_secs(3);
const MORE_MS: u64 = 6000;
/// Between a heal and the next nemesis.
const BREATH_MS: u64 = 1500;
/// Every node acknowledges a write again within this after a heal.
const SERVES_AGAIN: Duration = Duration::from_secs(60);
/// One round of this many is of two nemeses.
const TWO_AT_ONCE: u64 = 4;
/// Aborting what registers are left.
const CLOSING: Duration = Duration::from_secs(120);
/// A node's log, preallocated, fits twice, and its archive.
const SMALL_DISK: u64 = 288 << 20;
/// Between two samples of all nodes' digests, and how many are kept.
const SAMPLE: Duration = Duration::from_millis(300);
const MAX_SAMPLES: usize = 200_000;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Settings {
    pub executable: Executable,
    pub directory: PathBuf,
    pub nodes: u64,
    pub duration: Duration,
    pub seed: u64,
    pub nemeses: Vec<Nemesis>,
    pub machine: Machine,
    /// Keeps the directory of a run that passed too; its history stays in any case.
    pub keep: bool,
}

/// Runs it, below the directory of the settings, where the history stays.
///
/// # Errors
/// When the directory cannot be used; everything else is in the report.
pub async fn run(settings: &Settings, teller: Teller) -> std::io::Result<Report> {
    std::fs::create_dir_all(&settings.directory)?;
    let started = Instant::now();
    let (nemeses, skipped) = allowed(&settings.nemeses, &settings.machine, settings.nodes);
    let mut report = Report::new(settings, skipped);
    let ground = ground(settings, &nemeses);
    match Scene::set_on(
        settings.executable.clone(),
        &settings.directory,
        settings.nodes,
        ground,
        teller,
    )
    .await
    {
        Err(why) => report.failure = Some(format!("{why:#}")),
        Ok(scene) => {
            let history = tell(scene, settings, &nemeses, &mut report).await;
            report.counts = Counts::of(&history, &[]);
            report.operations = crate::registers::tally(&history.asked);
            report.digests = history.digests.len();
            report.violations = match report.failure {
                None => judge(&history),
                Some(_) => judge_unfinished(&history),
            };
            history.keep(&settings.directory.join("history"))?;
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    report.close(&nemeses);
    let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?;
    std::fs::write(settings.directory.join("verdict.json"), text)?;
    if report.is_whole() && !settings.keep {
        tidy(&settings.directory)?;
    }
    Ok(report)
}

/// What lies between and under the nodes, no more than is needed.
fn ground(settings: &Settings, nemeses: &[Nemesis]) -> Ground {
    let machine = &settings.machine;
    let small_disk = nemeses.contains(&Nemesis::DiskFull).then(|| SmallDisk {
        node: 1 + Dice::new(settings.seed ^ 1).below(settings.nodes),
        bytes: SMALL_DISK,
    });
    let hub = machine.hub.clone().ok();
    let links = match &hub {
        Some(hub) => Some(hub.links(settings.seed)),
        None => machine
            .links
            .is_ok()
            .then(|| Links::on_loopback(settings.seed)),
    };
    let with_clock = nemeses.contains(&Nemesis::Clock);
    Ground {
        links,
        hub,
        clock_library: machine.clock_library.clone().ok().filter(|_| with_clock),
        small_disk,
    }
}

/// History, verdict and logs stay, data goes.
fn tidy(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let stays = path
            .file_name()
            .is_some_and(|name| name == "history" || name == "verdict.json");
        if !stays && path.is_dir() {
            let log = path.join("node.log");
            if log.exists() {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                std::fs::copy(&log, directory.join("history").join(format!("{name}.log")))?;
            }
            std::fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

async fn tell(
    mut scene: Scene,
    settings: &Settings,
    nemeses: &[Nemesis],
    report: &mut Report,
) -> History {
    let doors: Vec<(u64, String)> = scene
        .stage
        .cluster
        .members()
        .iter()
        .map(|member| (member.id, member.url()))
        .collect();
    let sampling = Sampling::begin(doors.clone());
    let worked = work(&mut scene, doors, settings, nemeses, report).await;
    let (asked, worked) = worked;
    let quiet = worked.is_ok();
    let (mut history, _, read) = scene.end(quiet).await;
    history.digests.extend(sampling.end().await);
    report.failure = worked.and(read).err().map(|why| format!("{why:#}"));
    report.measure(&asked);
    history.asked = asked;
    history
}

async fn work(
    scene: &mut Scene,
    doors: Vec<(u64, String)>,
    settings: &Settings,
    nemeses: &[Nemesis],
    report: &mut Report,
) -> (Vec<Asked>, anyhow::Result<()>) {
    let ready = scene.open_gate();
    let registers = match ready.and_then(|()| Registers::start(doors, settings.seed)) {
        Ok(registers) => registers,
        Err(why) => return (Vec::new(), Err(why)),
    };
    let stories = Stories::begin(scene.world());
    let disturbed = disturb(scene, &registers, settings, nemeses, report).await;
    if disturbed.is_err() {
        // What is broken stays so: nothing can end well.
        drop(stories);
        return (registers.end(Duration::ZERO).await.0, disturbed);
    }
    scene.say("all is healed; what was begun is brought to its end");
    let told = stories.end().await;
    let (asked, closed) = registers.end(CLOSING).await;
    let told = told.map(|told| {
        report.stories = told;
        scene.say(&format!("{told} pull requests were merged"));
    });
    (asked, told.and(closed))
}

/// A shuffled pack, shuffled again when it is used up: each comes about as often as the others.
struct Pack {
    all: Vec<Nemesis>,
    left: Vec<Nemesis>,
}

impl Pack {
    fn draw(&mut self, dice: &mut Dice) -> Option<Nemesis> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            dice.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

async fn disturb(
    scene: &mut Scene,
    registers: &Registers,
    settings: &Settings,
    nemeses: &[Nemesis],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut dice = Dice::new(settings.seed);
    let mut pack = Pack {
        all: nemeses.to_vec(),
        left: Vec::new(),
    };
    let ids = scene.stage.cluster.ids();
    registers
        .until_all_write(&ids, SERVES_AGAIN)
        .await
        .context("before anything was done")?;
    sleep(WARM_UP).await;
    let end = Instant::now() + settings.duration;
    while Instant::now() < end {
        let Some(first) = pack.draw(&mut dice) else {
            // Nothing is allowed: the clients go on undisturbed.
            sleep(settings.duration).await;
            break;
        };
        let mut together = vec![first];
        let worse: Vec<Nemesis> = nemeses
            .iter()
            .copied()
            .filter(|two| first.goes_with(*two))
            .collect();
        if !worse.is_empty() && dice.one_in(TWO_AT_ONCE) {
            together.push(worse[dice.below(worse.len() as u64) as usize]);
        }
        let lasts = SHORTEST + Duration::from_millis(dice.below(MORE_MS));
        let breath = Duration::from_millis(dice.below(BREATH_MS));
        let began_ns = registers.now_ns();
        let names: Vec<&str> = together.iter().map(|nemesis| nemesis.name()).collect();
        let round = one_round(scene, registers, &mut dice, &together, lasts).await;
        let serves_again = round.with_context(|| names.join(" with "))?;
        report.rounds.push(Round {
            nemeses: names,
            began_ns,
            ended_ns: registers.now_ns(),
            serves_again_ms: millis(serves_again),
            longest_unavailable_ms: 0,
        });
        sleep(breath).await;
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Gives how long after the heal the last node acknowledged a write.
async fn one_round(
    scene: &mut Scene,
    registers: &Registers,
    dice: &mut Dice,
    together: &[Nemesis],
    lasts: Duration,
) -> anyhow::Result<Duration> {
    let ids = scene.stage.cluster.ids();
    let teller = &scene.teller;
    let mut field = Field {
        cluster: &mut scene.stage.cluster,
        registers,
        dice,
        say: teller.as_ref(),
    };
    let mut faults = Vec::new();
    // What only worsens comes first, so that the other falls into it.
    for nemesis in together.iter().rev() {
        faults.push(field.begin(*nemesis).await?);
    }
    sleep(lasts).await;
    for fault in faults.into_iter().rev() {
        let nemesis = fault.nemesis;
        field
            .heal(fault)
            .await
            .with_context(|| format!("healing {nemesis}"))?;
    }
    let again = registers.until_all_write(&ids, SERVES_AGAIN).await;
    field.cluster.check_alive()?;
    let again = again?;
    (field.say)(&format!(
        "healed; every node acknowledges writes again after {} ms",
        again.as_millis()
    ));
    Ok(again)
}

/// Asks all nodes for digests all the time: what two of them have at one revision must be the same.
struct Sampling {
    stop: CancellationToken,
    running: JoinHandle<Vec<DigestAt>>,
}

impl Sampling {
    fn begin(doors: Vec<(u64, String)>) -> Self {
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut samples = Vec::new();
                while !stop.is_cancelled() && samples.len() < MAX_SAMPLES {
                    let asking = doors.iter().map(|(id, url)| sample(*id, url));
                    let mut asking: tokio::task::JoinSet<_> = asking.collect();
                    while let Some(sampled) = asking.join_next().await {
                        samples.extend(sampled.ok().flatten());
                    }
                    stop.run_until_cancelled(sleep(SAMPLE)).await;
                }
                samples
            }
        });
        Self { stop, running }
    }

    async fn end(self) -> Vec<DigestAt> {
        self.stop.cancel();
        // A sampler that panicked has none; the samples at rest are there in any case.
        self.running.await.unwrap_or_default()
    }
}

/// None from a node that does not answer, or that applied something meanwhile.
fn sample(node: u64, url: &str) -> impl Future<Output = Option<DigestAt>> + Send + 'static {
    let url = url.to_owned();
    async move {
        let ask = async {
            let before = crate::nemesis::status(&url).await.ok()?;
            let after = crate::nemesis::status(&url).await.ok()?;
            let same = before.applied_index == after.applied_index && before.digest == after.digest;
            same.then_some(DigestAt {
                node,
                revision: after.applied_index,
                digest: after.digest,
            })
        };
        tokio::time::timeout(Duration::from_secs(1), ask)
            .await
            .ok()?
    }
}

/// The longest time without an acknowledged write between two moments.
fn longest_silence(acknowledged: &[u64], began_ns: u64, ended_ns: u64) -> u64 {
    let mut last = began_ns;
    let mut longest = 0;
    for at in acknowledged
        .iter()
        .filter(|at| **at > began_ns && **at < ended_ns)
        .chain([&ended_ns])
    {
        longest = longest.max(at.saturating_sub(last));
        last = *at;
    }
    longest
}

impl Report {
    /// What the clients saw of each round.
    fn measure(&mut self, asked: &[Asked]) {
        let mut acknowledged: Vec<u64> = asked
            .iter()
            .filter(|one| one.verb.is_write() && matches!(one.outcome, Outcome::Done { .. }))
            .map(|one| one.returned_ns)
            .collect();
        acknowledged.sort_unstable();
        for round in &mut self.rounds {
            let silence = longest_silence(&acknowledged, round.began_ns, round.ended_ns);
            round.longest_unavailable_ms = silence / 1_000_000;
        }
    }

    /// Sums up, when everything else is known.
    fn close(&mut self, nemeses: &[Nemesis]) {
        let mut told: BTreeMap<&'static str, Told> = BTreeMap::new();
        for nemesis in nemeses {
            told.insert(nemesis.name(), Told::default());
        }
        for round in &self.rounds {
            for name in &round.nemeses {
                let one = told.entry(name).or_default();
                one.times += 1;
                one.longest_unavailable_ms =
                    one.longest_unavailable_ms.max(round.longest_unavailable_ms);
                one.serves_again_ms = one.serves_again_ms.max(round.serves_again_ms);
            }
        }
        // What there was no time for was not done either.
        for (name, one) in &told {
            if one.times == 0 {
                self.skipped.push(Skipped {
                    nemesis: name,
                    why: "the time was too short for it: give more --minutes".to_owned(),
                });
            }
        }
        self.nemeses = told;
        let done: usize = self.operations.values().map(|tally| tally.done).sum();
        if self.failure.is_none() && (done == 0 || self.counts.changes == 0) {
            self.failure = Some("nothing was acknowledged: nothing can be judged".to_owned());
        }
        self.verdict = self.word();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_between_two_acknowledgements_or_at_the_edges() {
        assert_eq!(longest_silence(&[1, 5, 12, 14], 4, 20), 7);
        assert_eq!(longest_silence(&[5, 6], 4, 20), 14);
        assert_eq!(longest_silence(&[1, 30], 4, 20), 16);
    }

    #[test]
    fn every_nemesis_comes_before_any_comes_again() {
        let mut dice = Dice::new(3);
        let mut pack = Pack {
            all: Nemesis::ALL.to_vec(),
            left: Vec::new(),
        };
        for _ in 0..3 {
            let mut drawn: Vec<Nemesis> = Nemesis::ALL
                .iter()
                .filter_map(|_| pack.draw(&mut dice))
                .collect();
            drawn.sort_unstable();
            assert_eq!(drawn, Nemesis::ALL);
        }
    }
}
