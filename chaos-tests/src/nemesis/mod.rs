//! What is done to the nodes. Each nemesis begins and is healed; what the machine does not allow is named with the
//! reason, and is never counted as passed.

mod deeds;
mod machine;

use std::fmt;

pub(crate) use deeds::{Field, status};
pub use machine::Machine;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nemesis {
    Kill,
    Stop,
    Partition,
    OneWay,
    Bridge,
    Delay,
    Loss,
    DiskFull,
    Clock,
    RollingRestart,
    KillAll,
}

/// Chosen, and why it will not be done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    pub nemesis: &'static str,
    pub why: String,
}

impl fmt::Display for Nemesis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Nemesis {
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::Stop,
        Self::Partition,
        Self::OneWay,
        Self::Bridge,
        Self::Delay,
        Self::Loss,
        Self::DiskFull,
        Self::Clock,
        Self::RollingRestart,
        Self::KillAll,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Bridge => "bridge",
            Self::Delay => "delay",
            Self::Loss => "loss",
            Self::DiskFull => "disk-full",
            Self::Clock => "clock",
            Self::RollingRestart => "rolling-restart",
            Self::KillAll => "kill-all",
        }
    }

    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Kill => "a node is killed (SIGKILL), more often than not the leader",
            Self::Stop => "a node is stopped (SIGSTOP) for longer than an election, then goes on",
            Self::Partition => {
                "the leader alone, or a random half, is parted from the rest; sometimes from its clients, too"
            }
            Self::OneWay => "what a node sends to the others is held, or what they send to it",
            Self::Bridge => "two sides that see each other only through one node, which sees both",
            Self::Delay => "200 ms and up to 50 ms more between all nodes, each way",
            Self::Loss => {
                "between all nodes, of each 1,460 bytes 5 % come 200 ms late and 0.1 % reset the connection"
            }
            Self::DiskFull => "a node's disk is filled; it says so, the others go on without it",
            Self::Clock => "a node's wall clock jumps by an hour, there and back",
            Self::RollingRestart => "node after node is ended by SIGTERM and started again",
            Self::KillAll => "all nodes are killed at once",
        }
    }

    /// May come together with what does something to a process or a partition: it only makes things worse.
    fn is_weather(self) -> bool {
        matches!(self, Self::Delay | Self::Loss | Self::Clock)
    }

    fn may_be_worsened(self) -> bool {
        matches!(
            self,
            Self::Kill | Self::Stop | Self::Partition | Self::OneWay | Self::Bridge
        )
    }

    pub(crate) fn goes_with(self, other: Self) -> bool {
        self.may_be_worsened() && other.is_weather()
    }

    /// Comma-separated names, or all.
    ///
    /// # Errors
    /// Naming what is no nemesis.
    pub fn parse(text: &str) -> anyhow::Result<Vec<Self>> {
        let mut chosen = Vec::new();
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            if name == "all" {
                chosen.extend(Self::ALL);
            } else {
                let found = Self::ALL.into_iter().find(|one| one.name() == name);
                chosen.push(found.ok_or_else(|| {
                    anyhow::anyhow!("--nemesis {name}: there is no such nemesis; --list names them")
                })?);
            }
        }
        anyhow::ensure!(
            !chosen.is_empty(),
            "--nemesis: names none; --list names them"
        );
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }

    /// Why this machine does not allow it, or not for so many nodes.
    pub(crate) fn is_possible(self, machine: &Machine, nodes: u64) -> Result<(), String> {
        match self {
            Self::Partition | Self::OneWay | Self::Delay | Self::Loss => machine.links.clone(),
            Self::Bridge if nodes < 3 => Err("a bridge needs three nodes".to_owned()),
            Self::Bridge => machine.links.clone(),
            Self::DiskFull => machine.small_disk.clone(),
            Self::Clock => machine.clock_library.clone().map(|_| ()),
            Self::Kill | Self::Stop | Self::RollingRestart | Self::KillAll => Ok(()),
        }
    }
}

/// Those of the chosen that the machine allows, and the others.
#[must_use]
pub fn allowed(chosen: &[Nemesis], machine: &Machine, nodes: u64) -> (Vec<Nemesis>, Vec<Skipped>) {
    let mut possible = Vec::new();
    let mut skipped = Vec::new();
    for nemesis in chosen {
        match nemesis.is_possible(machine, nodes) {
            Ok(()) => possible.push(*nemesis),
            Err(why) => skipped.push(Skipped {
                nemesis: nemesis.name(),
                why,
            }),
        }
    }
    (possible, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nemeses_are_chosen_by_name() {
        assert_eq!(Nemesis::parse("all").unwrap(), Nemesis::ALL);
        assert_eq!(
            Nemesis::parse("stop, kill,stop").unwrap(),
            [Nemesis::Kill, Nemesis::Stop]
        );
        let why = Nemesis::parse("kill,flood").unwrap_err().to_string();
        assert_eq!(
            why,
            "--nemesis flood: there is no such nemesis; --list names them"
        );
        assert!(Nemesis::parse(",").is_err());
    }

    #[test]
    fn what_the_machine_does_not_allow_is_named() {
        let machine = Machine {
            hub: Err("unshare: Operation not permitted".to_owned()),
            links: Ok(()),
            small_disk: Err("mount: permission denied".to_owned()),
            clock_library: Err("libfaketime is not installed".to_owned()),
        };
        let (possible, skipped) = allowed(&Nemesis::ALL, &machine, 3);
        assert_eq!(possible.len(), 9);
        let skipped: Vec<String> = skipped
            .iter()
            .map(|one| format!("{}: {}", one.nemesis, one.why))
            .collect();
        assert_eq!(
            skipped,
            [
                "disk-full: mount: permission denied",
                "clock: libfaketime is not installed"
            ]
        );
    }
}
