//! Where the time of a write goes: what the leader's ring counts of itself.

use anyhow::{Context as _, ensure};
use serde::Serialize;

/// One stage of the leader's ring.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageTime {
    pub stage: String,
    /// Busy for one operation, in microseconds. Stages run side by side, and one sync serves many operations.
    pub us: f64,
    /// Pieces of work for one operation.
    pub pieces: f64,
}

/// Since the leader started, over `operations`.
pub(super) async fn of_leader(leader: &str, operations: u64) -> anyhow::Result<Vec<StageTime>> {
    let url = format!("http://{leader}/metrics");
    let asked = reqwest::get(&url).await?.error_for_status()?;
    let stages = parse(&asked.text().await?, operations)?;
    ensure!(!stages.is_empty(), "{url} names no stages");
    Ok(stages)
}

fn parse(metrics: &str, operations: u64) -> anyhow::Result<Vec<StageTime>> {
    let each = |value: f64| value / operations.max(1) as f64;
    let mut stages = Vec::new();
    for (stage, seconds) in samples(metrics, "trireme_ring_stage_seconds_total{stage=\"") {
        let pieces = samples(metrics, "trireme_ring_stage_operations_total{stage=\"")
            .find(|(other, _)| *other == stage)
            .with_context(|| format!("stage {stage} has no count"))?;
        stages.push(StageTime {
            stage: stage.to_owned(),
            us: each(number(seconds)? * 1e6),
            pieces: each(number(pieces.1)?),
        });
    }
    Ok(stages)
}

fn samples<'a>(metrics: &'a str, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    metrics
        .lines()
        .filter_map(move |line| line.strip_prefix(prefix)?.split_once("\"} "))
}

fn number(text: &str) -> anyhow::Result<f64> {
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_from_metrics() {
        let metrics = "# TYPE trireme_ring_stage_seconds counter\n\
                       trireme_ring_stage_seconds_total{stage=\"log_sync\"} 0.5\n\
                       trireme_ring_stage_operations_total{stage=\"log_sync\"} 20\n";
        assert_eq!(
            parse(metrics, 1000).unwrap(),
            [StageTime {
                stage: "log_sync".to_owned(),
                us: 500.0,
                pieces: 0.02
            }]
        );
        assert!(parse("trireme_ring_stage_seconds_total{stage=\"a\"} 1\n", 1).is_err());
    }
}
