//! Medians and ratios for people.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{Contestant, Failovers, Measured, StageTime};

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Of the disk alone, a figure for each round.
    pub syncs_per_second: Vec<f64>,
    pub measured: Vec<Measured>,
    pub failovers: Vec<Failovers>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<7} {} {:>3} clients: {:>7.0}/s, p50 {:.2} ms, p99 {:.2} ms, {:.0} us of processor time each",
            self.contestant.name(),
            self.op,
            self.clients,
            self.per_second,
            self.latency_us.p50 as f64 / 1000.0,
            self.latency_us.p99 as f64 / 1000.0,
            self.processor_us,
        )?;
        match &self.first_error {
            Some(why) => write!(f, "; {} ERRORS, first: {why}", self.errors),
            None => Ok(()),
        }
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// Each once, in the order of their first places.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

impl Report {
    fn of<'a>(
        &'a self,
        contestant: Contestant,
        cell: (&'static str, u64),
    ) -> impl Iterator<Item = &'a Measured> {
        self.measured.iter().filter(move |measured| {
            measured.contestant == contestant && (measured.op, measured.clients) == cell
        })
    }

    fn rate(&self, contestant: Contestant, cell: (&'static str, u64)) -> f64 {
        median(
            self.of(contestant, cell)
                .map(|measured| measured.per_second),
        )
    }

    /// The median over the rounds of one contestant's rate to another's in the same round.
    fn ratio(&self, of: Contestant, to: Contestant, cell: (&'static str, u64)) -> f64 {
        let other: BTreeMap<u32, f64> = self
            .of(to, cell)
            .map(|measured| (measured.round, measured.per_second))
            .collect();
        median(self.of(of, cell).filter_map(|measured| {
            let other = other.get(&measured.round).filter(|rate| **rate > 0.0)?;
            Some(measured.per_second / other)
        }))
    }

    /// Where a write's time goes on the leader, with the log on the disk and in memory.
    fn write_stages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = self
            .measured
            .iter()
            .filter(|measured| !measured.stages.is_empty() && measured.op != "read");
        let cells =
            distinct(writes.map(|measured| (measured.contestant, measured.op, measured.clients)));
        if cells.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nwhere the leader's ring spends its time, us for one operation (pieces of work for one operation)"
        )?;
        for (contestant, op, clients) in cells {
            write!(f, "{:<7} {op} {clients:>3} clients:", contestant.name())?;
            let runs: Vec<&Measured> = self.of(contestant, (op, clients)).collect();
            for stage in runs.first().map_or(&[][..], |run| &run.stages) {
                let of = |value: fn(&StageTime) -> f64| {
                    median(runs.iter().filter_map(|run| {
                        let same = run.stages.iter().find(|other| other.stage == stage.stage)?;
                        Some(value(same))
                    }))
                };
                write!(
                    f,
                    "  {} {:.1} ({:.2})",
                    stage.stage,
                    of(|stage| stage.us),
                    of(|stage| stage.pieces)
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.measured.is_empty() {
            writeln!(
                f,
                "medians; fdatasync alone: {:.0}/s. Ratios are medians of the ratios within a round; the ceiling is Trireme \
                 with its log on a file system in memory.\n",
                median(self.syncs_per_second.iter().copied())
            )?;
            writeln!(
                f,
                "op     clients    etcd/s trireme/s  x etcd   ceiling/s  of it   p99 ms etcd  trireme   us/op etcd  trireme"
            )?;
        }
        let cells = self.measured.iter().map(|one| (one.op, one.clients));
        for cell in distinct(cells) {
            let p99 = |contestant| {
                let each = self.of(contestant, cell);
                median(each.map(|measured| measured.latency_us.p99 as f64 / 1000.0))
            };
            let processor = |contestant| {
                let each = self.of(contestant, cell);
                median(each.map(|measured| measured.processor_us))
            };
            writeln!(
                f,
                "{:<6} {:>7} {:>9.0} {:>9.0} {:>7.2} {:>11.0} {:>5.0}% {:>13.2} {:>8.2} {:>12.0} {:>8.0}",
                cell.0,
                cell.1,
                self.rate(Contestant::Etcd, cell),
                self.rate(Contestant::Trireme, cell),
                self.ratio(Contestant::Trireme, Contestant::Etcd, cell),
                self.rate(Contestant::Ceiling, cell),
                100.0 * self.ratio(Contestant::Trireme, Contestant::Ceiling, cell),
                p99(Contestant::Etcd),
                p99(Contestant::Trireme),
                processor(Contestant::Etcd),
                processor(Contestant::Trireme),
            )?;
        }
        self.write_stages(f)?;
        let errors: u64 = self.measured.iter().map(|measured| measured.errors).sum();
        if errors > 0 {
            writeln!(
                f,
                "\n{errors} operations failed: the figures above are not of a sound run"
            )?;
        }
        for failovers in &self.failovers {
            if let Some(median) = failovers.median() {
                writeln!(
                    f,
                    "\n{}: leader killed to next acknowledged write, {} kills: median {median} ms, from {} to {} ms",
                    failovers.contestant.name(),
                    failovers.millis.len(),
                    failovers.millis.iter().min().unwrap_or(&0),
                    failovers.millis.iter().max().unwrap_or(&0),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Latency;

    fn measured(contestant: Contestant, round: u32, per_second: f64) -> Measured {
        Measured {
            contestant,
            op: "put",
            clients: 64,
            round,
            per_second,
            latency_us: Latency {
                p99: 6100,
                ..Latency::default()
            },
            errors: 0,
            first_error: None,
            stages: Vec::new(),
            processor_us: 60.0,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut report = Report {
            syncs_per_second: vec![5000.0, 7000.0],
            ..Report::default()
        };
        for (round, etcd, trireme) in [(1, 1000.0, 2000.0), (2, 100.0, 300.0), (3, 1000.0, 1000.0)]
        {
            report
                .measured
                .push(measured(Contestant::Etcd, round, etcd));
            report
                .measured
                .push(measured(Contestant::Trireme, round, trireme));
            report
                .measured
                .push(measured(Contestant::Ceiling, round, trireme * 2.0));
        }
        report.failovers.push(Failovers {
            contestant: Contestant::Trireme,
            millis: vec![900, 800, 1000],
        });
        insta::assert_snapshot!(report.to_string(), @"
        medians; fdatasync alone: 6000/s. Ratios are medians of the ratios within a round; the ceiling is Trireme with its log on a file system in memory.

        op     clients    etcd/s trireme/s  x etcd   ceiling/s  of it   p99 ms etcd  trireme   us/op etcd  trireme
        put         64      1000      1000    2.00        2000    50%          6.10     6.10           60       60

        trireme: leader killed to next acknowledged write, 3 kills: median 900 ms, from 800 to 1000 ms
        ");
    }
}
