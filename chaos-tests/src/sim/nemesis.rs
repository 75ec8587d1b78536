//! What goes wrong, and when.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use tokio_util::task::TaskTracker;
use trireme_raft::disk::MemoryDisk;

use super::{
    chance::Chance,
    cluster::{Cluster, End},
    network::Weather,
};

const PAUSE_MS: (u64, u64) = (20, 1500);
/// Between faults that last: so many pauses.
const CALM: u32 = 3;
const DOWN_MS: (u64, u64) = (50, 6000);
const CUT_MS: (u64, u64) = (200, 5000);
const WEATHER_MS: (u64, u64) = (500, 4000);
const SLOW_DISK_MS: (u64, u64) = (500, 5000);
const FULL_MS: (u64, u64) = (500, 8000);
/// A clock this far off may still lead, see the ring's bound of two seconds.
const SKEW_MS: u64 = 900;
/// Room that is left on a disk that fills.
const ROOM_BYTES: u64 = 96 << 10;
/// One clock may be wrong altogether.
const WRONG_MS: u64 = 60_000;

/// What is done to nodes that run, and to what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Killed,
    PowerCut,
    Stop,
    Partition,
    Storm,
    SlowDisk,
    BrokenDisk,
    FullDisk,
    Clock,
    Snapshot,
    Transfer,
}

impl Fault {
    const ALL: [Self; 11] = [
        Self::Killed,
        Self::PowerCut,
        Self::Stop,
        Self::Partition,
        Self::Storm,
        Self::SlowDisk,
        Self::BrokenDisk,
        Self::FullDisk,
        Self::Clock,
        Self::Snapshot,
        Self::Transfer,
    ];

    /// Of many.
    fn name(self) -> &'static str {
        match self {
            Self::Killed => "kills",
            Self::PowerCut => "power cuts",
            Self::Stop => "stops",
            Self::Partition => "partitions",
            Self::Storm => "storms",
            Self::SlowDisk => "slow disks",
            Self::BrokenDisk => "broken disks",
            Self::FullDisk => "full disks",
            Self::Clock => "wrong clocks",
            Self::Snapshot => "snapshots asked for",
            Self::Transfer => "transfers asked for",
        }
    }
}

/// How often each fault was made.
#[derive(Debug, Default)]
pub(crate) struct Faults([AtomicU64; Fault::ALL.len()]);

impl Faults {
    fn count(&self, fault: Fault) {
        self.0[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// By their names, those that were not made as well.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |fault: Fault| self.0[fault as usize].load(Ordering::Relaxed);
        Fault::ALL
            .into_iter()
            .map(move |fault| (fault.name(), count(fault)))
    }
}

pub(crate) struct Nemesis {
    pub(crate) cluster: Cluster,
    pub(crate) chance: Chance,
    pub(crate) faults: Arc<Faults>,
    /// Stops, starts and questions that were begun.
    pub(crate) begun: TaskTracker,
}

type Cut = BTreeSet<(u64, u64)>;

fn both_ways(one: &[u64], other: &[u64]) -> Cut {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

impl Nemesis {
    /// Disturbs until `end`, and until what it began has taken place.
    pub(crate) async fn run(self, end: Instant) {
        let begun = self.begun.clone();
        let nemesis = Arc::new(self);
        // Each kind has its own turn, so that crashes happen under partitions on slow disks.
        let mut kinds = JoinSet::new();
        let cutting = Arc::clone(&nemesis);
        kinds.spawn(async move {
            while Instant::now() < end {
                cutting.pause(CALM).await;
                cutting.cut().await;
            }
        });
        let changing = Arc::clone(&nemesis);
        kinds.spawn(async move {
            while Instant::now() < end {
                changing.pause(CALM).await;
                changing.weather().await;
            }
        });
        let slowing = Arc::clone(&nemesis);
        kinds.spawn(async move {
            while Instant::now() < end {
                slowing.pause(CALM).await;
                slowing.slow_disk().await;
            }
        });
        kinds.spawn(async move { nemesis.strike_until(end).await });
        while kinds.join_next().await.is_some() {}
        begun.close();
        begun.wait().await;
    }

    async fn pause(&self, times: u32) {
        sleep(self.chance.millis(PAUSE_MS.0, PAUSE_MS.1) * times).await;
    }

    async fn strike_until(&self, end: Instant) {
        while Instant::now() < end {
            self.pause(1).await;
            match self.chance.below(12) {
                0..=4 => self.end_some(),
                5 => self.stop_one(),
                6..=7 => self.break_disk(),
                8..=9 => self.set_clock(),
                10 => self.compact(),
                _ => self.transfer(),
            }
        }
    }

    fn tell(&self, what: impl std::fmt::Display) {
        self.cluster.trace().line("nemesis", what);
    }

    fn any(&self) -> u64 {
        let ids = self.cluster.ids();
        self.chance.pick(&ids).copied().unwrap_or(1)
    }

    fn how(&self) -> End {
        if self.chance.one_in(2) {
            End::PowerCut
        } else {
            End::Killed
        }
    }

    /// One node mostly, sometimes several or all at once.
    fn end_some(&self) {
        let ids = self.chance.shuffled(&self.cluster.ids());
        let count = match self.chance.below(8) {
            0 => ids.len(),
            1..=2 => ids.len().div_ceil(2),
            _ => 1,
        };
        let how = self.how();
        let fault = match how {
            End::Killed => Fault::Killed,
            End::PowerCut => Fault::PowerCut,
        };
        for id in ids.into_iter().take(count) {
            if self.cluster.end(id, how) {
                self.faults.count(fault);
            }
            self.start_later(id);
        }
    }

    fn start_later(&self, id: u64) {
        let (cluster, down) = (
            self.cluster.clone(),
            self.chance.millis(DOWN_MS.0, DOWN_MS.1),
        );
        self.begun.spawn(async move {
            sleep(down).await;
            cluster.start(id).await;
        });
    }

    fn stop_one(&self) {
        let (cluster, id, down) = (
            self.cluster.clone(),
            self.any(),
            self.chance.millis(DOWN_MS.0, DOWN_MS.1),
        );
        let Some(up) = cluster.up(id) else {
            return;
        };
        self.faults.count(Fault::Stop);
        self.begun.spawn(async move {
            cluster.stop(id, up).await;
            sleep(down).await;
            cluster.start(id).await;
        });
    }

    async fn cut(&self) {
        let ids = self.chance.shuffled(&self.cluster.ids());
        let (first, rest) = ids.split_at(1);
        let (minority, majority) = ids.split_at(ids.len() / 2);
        let (name, cut): (&str, Cut) = match self.chance.below(6) {
            0..=1 => ("alone", both_ways(first, rest)),
            2 => ("split", both_ways(minority, majority)),
            // Nobody hears the first, or the first hears nobody.
            3 => (
                "one way out",
                rest.iter().map(|to| (first[0], *to)).collect(),
            ),
            4 => (
                "one way in",
                rest.iter().map(|from| (*from, first[0])).collect(),
            ),
            // The first is the only one whom both halves hear.
            _ => {
                let (one, other) = rest.split_at(rest.len() / 2);
                ("bridge", both_ways(one, other))
            }
        };
        self.faults.count(Fault::Partition);
        self.tell(format_args!("cuts: {name} {ids:?}"));
        self.cluster.network().set_cut(cut);
        sleep(self.chance.millis(CUT_MS.0, CUT_MS.1)).await;
        self.tell("heals the cut");
        self.cluster.network().set_cut(Cut::new());
    }

    async fn weather(&self) {
        let weather = match self.chance.below(3) {
            0 => Weather {
                delay_us: (20_000, 250_000),
                ..Weather::FAIR
            },
            1 => Weather {
                loss: 20,
                ..Weather::FAIR
            },
            _ => Weather {
                resets: 100,
                ..Weather::FAIR
            },
        };
        self.faults.count(Fault::Storm);
        self.tell(format_args!("{weather:?}"));
        self.cluster.network().set_weather(weather);
        sleep(self.chance.millis(WEATHER_MS.0, WEATHER_MS.1)).await;
        self.cluster.network().set_weather(Weather::FAIR);
    }

    async fn slow_disk(&self) {
        let id = self.any();
        let slowness = 10 + self.chance.below(100);
        self.faults.count(Fault::SlowDisk);
        self.tell(format_args!("disk of {id} is {slowness} times as slow"));
        let hardware = self.cluster.hardware(id);
        hardware.slowness.store(slowness, Ordering::SeqCst);
        sleep(self.chance.millis(SLOW_DISK_MS.0, SLOW_DISK_MS.1)).await;
        hardware.slowness.store(1, Ordering::SeqCst);
    }

    /// From some write or sync on, all fail, until the node is started again.
    fn break_disk(&self) {
        let id = self.any();
        let Some(disk) = self.cluster.disk(id) else {
            return;
        };
        let after = self.chance.below(10);
        match self.chance.below(3) {
            0 => {
                self.faults.count(Fault::BrokenDisk);
                self.tell(format_args!("syncs of {id} fail after {after}"));
                disk.fail_syncs_after(after);
            }
            1 => {
                self.faults.count(Fault::BrokenDisk);
                self.tell(format_args!("writes of {id} fail after {after}"));
                disk.fail_writes_after(after);
            }
            _ => self.fill_later(id, &disk),
        }
    }

    /// Somebody else fills the disk, and in time removes what filled it.
    fn fill_later(&self, id: u64, disk: &MemoryDisk) {
        self.faults.count(Fault::FullDisk);
        let room = self.chance.below(ROOM_BYTES);
        self.tell(format_args!("the disk of {id} has {room} bytes left"));
        disk.set_capacity(disk.taken_bytes().saturating_add(room));
        let (disk, full) = (disk.clone(), self.chance.millis(FULL_MS.0, FULL_MS.1));
        self.begun.spawn(async move {
            sleep(full).await;
            disk.set_capacity(u64::MAX);
        });
    }

    fn set_clock(&self) {
        let wrong = self.chance.one_in(4);
        // At most one is wrong altogether: a majority that is makes its own time.
        let id = if wrong { 1 } else { self.any() };
        let most = if wrong { WRONG_MS } else { SKEW_MS };
        let offset = i64::try_from(self.chance.below(2 * most + 1)).unwrap_or(0);
        let offset = offset - i64::try_from(most).unwrap_or(0);
        self.faults.count(Fault::Clock);
        self.tell(format_args!("clock of {id} is {offset} ms off"));
        let hardware = self.cluster.hardware(id);
        hardware.offset_ms.store(offset, Ordering::SeqCst);
    }

    fn compact(&self) {
        let id = self.any();
        if let Some(up) = self.cluster.up(id) {
            self.faults.count(Fault::Snapshot);
            self.tell(format_args!("asks {id} for a snapshot"));
            self.begun.spawn(async move {
                tokio::select! {
                    biased;
                    () = up.gone.cancelled() => {}
                    // It may fail when the disk does.
                    _ = up.store.trigger_snapshot() => {}
                }
            });
        }
    }

    fn transfer(&self) {
        let (id, to) = (self.any(), self.any());
        if let Some(up) = self.cluster.up(id) {
            self.faults.count(Fault::Transfer);
            self.tell(format_args!("asks {id} that {to} lead"));
            self.begun.spawn(async move {
                tokio::select! {
                    biased;
                    () = up.gone.cancelled() => {}
                    // It may be refused, or not be possible now.
                    _ = tokio::time::timeout(Duration::from_secs(5), up.store.transfer_leader(to)) => {}
                }
            });
        }
    }
}
