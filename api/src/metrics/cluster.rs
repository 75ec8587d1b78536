//! What a node tells of its cluster: who belongs to it and answers, what it may hold, how clocks and threads keep time.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use trireme_raft::{Status, View};
use trireme_state::FEATURE_LEVEL;

use super::clamp;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: u64,
}

/// Of what has one sample, or none while it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoLabels {}

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Default)]
pub(super) struct Cluster {
    members: Family<RoleLabels, Gauge>,
    answers: Family<NodeLabels, Gauge>,
    silence: Family<NodeLabels, Seconds>,
    lag: Family<NodeLabels, Gauge>,
    level: Gauge,
    build_level: Gauge,
    archive_filling: Gauge,
    skew: Family<NoLabels, Seconds>,
    ring_delay: Seconds,
}

impl Cluster {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register(
            "trireme_members",
            "Members by role, voter or learner, as far as this node's log goes",
            new.members.clone(),
        );
        registry.register(
            "trireme_member_answers",
            "On a leader: 1 for each other member that answered it within two election timeouts, 0 for one that did not",
            new.answers.clone(),
        );
        registry.register(
            "trireme_member_silence_seconds",
            "On a leader: time since each other member answered it; no sample for one that has not since it leads",
            new.silence.clone(),
        );
        registry.register(
            "trireme_member_lag_entries",
            "On a leader: entries of its log that each other member is not known to have",
            new.lag.clone(),
        );
        for (name, help, gauge) in [
            (
                "trireme_feature_level",
                "What the cluster may hold, by what this node has applied",
                &new.level,
            ),
            (
                "trireme_build_feature_level",
                "What this node's version knows",
                &new.build_level,
            ),
            (
                "trireme_archive_filling",
                "1 while this node's archive lacks history and is being filled from a peer's",
                &new.archive_filling,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "trireme_clock_skew_seconds",
            "Median of the voters' clocks minus this node's; no sample unless a majority was heard",
            new.skew.clone(),
        );
        registry.register(
            "trireme_ring_delay_seconds",
            "Longest time by which the ring's threads ran late, over the last 10 s at most",
            new.ring_delay.clone(),
        );
        new
    }

    pub(super) fn set(&self, view: &View, status: &Status) {
        for (role, voter) in [("voter", true), ("learner", false)] {
            let members = status.members.iter();
            let count = members.filter(|member| member.voter == voter).count();
            self.members
                .get_or_create(&RoleLabels { role })
                .set(clamp(count as u64));
        }
        self.set_others(status);
        self.level.set(i64::from(view.feature_level()));
        self.build_level.set(i64::from(FEATURE_LEVEL));
        self.archive_filling
            .set(i64::from(status.archive_lost.is_some()));
        self.skew.clear();
        if let Some(millis) = status.clock_skew_ms {
            let skew = self.skew.get_or_create(&NoLabels {});
            skew.set(millis as f64 / 1000.0);
        }
        self.ring_delay.set(status.ring_delay.as_secs_f64());
    }

    fn set_others(&self, status: &Status) {
        // What was true when this node last led says nothing now.
        self.answers.clear();
        self.silence.clear();
        self.lag.clear();
        let members = status.members.iter();
        for member in members.filter(|member| member.node.id != status.node_id) {
            let labels = NodeLabels {
                node: member.node.id,
            };
            if let Some(answers) = member.answers {
                self.answers.get_or_create(&labels).set(i64::from(answers));
            }
            if let Some(millis) = member.millis_since_heard {
                self.silence
                    .get_or_create(&labels)
                    .set(millis as f64 / 1000.0);
            }
            if let Some(matched) = member.matched {
                let last = status.last_log.unwrap_or_default();
                self.lag
                    .get_or_create(&labels)
                    .set(clamp(last.saturating_sub(matched)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use trireme_raft::Store;

    use crate::{
        Metrics,
        trio::{Trio, eventually},
    };

    fn scrape(store: &Store) -> String {
        Metrics::default().encode(store).unwrap()
    }

    /// The value of a sample, if there is one.
    fn sample(text: &str, sample: &str) -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(sample))?;
        Some(line.strip_prefix(' ')?.parse().unwrap())
    }

    /// Waits until the store, which leads, hears these members and no others.
    async fn hears(store: &Store, ids: &[u64]) {
        eventually("leader that hears whom it should", || {
            let members = store.status().members.into_iter();
            let heard: Vec<u64> = members
                .filter(|member| member.answers == Some(true) && member.matched.is_some())
                .map(|member| member.node.id)
                .collect();
            (heard == ids).then_some(())
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_leader_tells_who_answers_it() {
        let mut trio = Trio::start().await;
        trio.join(4).await;
        let former = trio.leader_at(1).await;
        let [next, third] = *Trio::others(former).collect::<Vec<_>>() else {
            panic!("three nodes")
        };
        hears(trio.store(former), &[1, 2, 3, 4]).await;
        let text = scrape(trio.store(former));
        assert_eq!(sample(&text, "trireme_members{role=\"voter\"}"), Some(3.0));
        let learners = sample(&text, "trireme_members{role=\"learner\"}");
        assert_eq!(learners, Some(1.0));
        for id in [next, third, 4] {
            let of = |name: &str| sample(&text, &format!("{name}{{node=\"{id}\"}}"));
            assert_eq!(of("trireme_member_answers"), Some(1.0), "{id}");
            assert!(
                of("trireme_member_silence_seconds").unwrap() < 1.0,
                "{text}"
            );
            assert!(of("trireme_member_lag_entries").is_some(), "{text}");
        }
        let level = f64::from(trireme_state::FEATURE_LEVEL);
        assert_eq!(sample(&text, "trireme_build_feature_level"), Some(level));
        assert!(sample(&text, "trireme_ring_delay_seconds").is_some());
        let text = scrape(trio.store(next));
        assert!(!text.contains("trireme_member_answers{"), "{text}");
        assert_eq!(sample(&text, "trireme_members{role=\"voter\"}"), Some(3.0));

        // The next leader has never heard the learner: nothing says since when.
        trio.kill(4).await;
        let store = trio.store(next).clone();
        store.transfer_leader(next).await.unwrap();
        hears(&store, &[1, 2, 3]).await;
        let text = scrape(&store);
        let of = |name: &str| sample(&text, &format!("{name}{{node=\"4\"}}"));
        assert_eq!(of("trireme_member_answers"), Some(0.0));
        assert_eq!(of("trireme_member_silence_seconds"), None);

        // This one it has heard.
        trio.kill(third).await;
        let mut left = [former, next];
        left.sort_unstable();
        hears(&store, &left).await;
        let text = scrape(&store);
        let of = |name: &str| sample(&text, &format!("{name}{{node=\"{third}\"}}"));
        assert_eq!(of("trireme_member_answers"), Some(0.0));
        assert!(
            of("trireme_member_silence_seconds").unwrap() >= 1.0,
            "{text}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_level_of_the_cluster_and_the_clock_are_told_once_they_are_known() {
        let trio = Trio::start().await;
        let store = trio.store(trio.leader_at(1).await);
        let raised = || store.view().feature_level() == trireme_state::FEATURE_LEVEL;
        eventually("newest feature level", || raised().then_some(())).await;
        eventually("known clock", || store.status().clock_skew_ms).await;
        let text = scrape(store);
        let level = f64::from(trireme_state::FEATURE_LEVEL);
        assert_eq!(sample(&text, "trireme_feature_level"), Some(level));
        let skew = sample(&text, "trireme_clock_skew_seconds{}").expect(&text);
        assert!(
            skew.abs() < 1.0,
            "three nodes of one machine, yet {skew} s off"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_that_is_being_filled_is_told_until_it_is() {
        let mut trio = Trio::start().await;
        trio.leader_at(1).await;
        trio.store(1).recovered().await;
        trio.store(1).trigger_snapshot().await.unwrap();
        for id in [1, 2, 3] {
            trio.kill(id).await;
        }
        fs::remove_dir_all(trio.data_dir(1).join("archive")).unwrap();

        // Nobody is there yet to fill it from, or to say what time it is.
        trio.open(1).await;
        let text = scrape(trio.store(1));
        assert_eq!(sample(&text, "trireme_archive_filling"), Some(1.0));
        assert_eq!(sample(&text, "trireme_clock_skew_seconds{}"), None);
        trio.open(2).await;
        trio.open(3).await;
        let store = trio.store(1);
        let complete = || store.status().archive_lost.is_none();
        eventually("complete archive", || complete().then_some(())).await;
        assert_eq!(sample(&scrape(store), "trireme_archive_filling"), Some(0.0));
    }
}
