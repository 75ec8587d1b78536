//! What merged pull requests put into ConfigMaps.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use stage::{Setup, Stage};
use trireme_plugins::{ClusterError, ConfigMapId, ConfigMaps, Values};
use trireme_proto::state::EffectState;
use trireme_sandbox::{
    MergeSpec,
    forge::Permission,
    world::{Pr, World},
};

/// Clusters in memory, some of which refuse to be written.
#[derive(Default)]
struct Clusters {
    /// Keys by `cluster/namespace/name`.
    maps: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    refusing: Mutex<BTreeSet<String>>,
}

fn path(id: &ConfigMapId) -> String {
    format!("{}/{}/{}", id.cluster, id.namespace, id.name)
}

#[async_trait]
impl ConfigMaps for Clusters {
    async fn value(&self, of: &ConfigMapId, key: &str) -> Result<Option<String>, ClusterError> {
        let maps = self.maps.lock().unwrap();
        let value = maps.get(&path(of)).and_then(|map| map.get(key));
        Ok(value.map(|value| String::from_utf8(value.clone()).unwrap()))
    }

    async fn write(&self, to: &ConfigMapId, values: &Values) -> Result<u64, ClusterError> {
        if self.refusing.lock().unwrap().contains(&to.cluster) {
            return Err(ClusterError::Refused(format!("{} is closed", to.cluster)));
        }
        let mut maps = self.maps.lock().unwrap();
        let map = maps.entry(path(to)).or_default();
        for (key, value) in values {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        Ok(map.values().map(|value| value.len() as u64).sum())
    }
}

impl Clusters {
    fn refuse(&self, cluster: &str) {
        self.refusing.lock().unwrap().insert(cluster.to_owned());
    }

    fn put(&self, path: &str, values: &[(&str, &str)]) {
        let values = values.iter();
        let values = values.map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        let map = values.collect();
        self.maps.lock().unwrap().insert(path.to_owned(), map);
    }

    fn told(&self, path: &str) -> String {
        let maps = self.maps.lock().unwrap();
        let map = maps.get(path).cloned().unwrap_or_default();
        let told = map
            .iter()
            .map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value)));
        told.collect::<Vec<_>>().join(" ")
    }
}

async fn staged(maps: &str, clusters: &Arc<Clusters>) -> Stage {
    repaired(maps, clusters, Duration::from_secs(3600)).await
}

/// Where ConfigMaps are looked at this often, too.
async fn repaired(maps: &str, clusters: &Arc<Clusters>, every: Duration) -> Stage {
    let stage = Stage::new(Setup {
        repairing_every: every,
        plugins: format!(
            "plugins: {{acme/widget: {{plugins: [config-updater]}}}}\nconfig_updater: {{maps: {maps}}}"
        ),
        config_maps: Some(Arc::clone(clusters) as Arc<dyn ConfigMaps>),
        ..Setup::default()
    })
    .await;
    stage.world.grant("author", Permission::Write);
    stage
}

async fn merged(stage: &Stage, name: &str, files: &[(&str, &str)]) -> (Pr, String) {
    let pr = opened(stage, name, files).await;
    let merged = merge(stage, &pr).await;
    stage.settled().await;
    (pr, merged)
}

async fn opened(stage: &Stage, name: &str, files: &[(&str, &str)]) -> Pr {
    let mut pr = stage.world.pr(name);
    for (path, text) in files {
        pr = pr.file(path, *text);
    }
    let pr = pr.opened_by("author").await;
    stage.settled().await;
    pr
}

/// What was made of it.
async fn merge(stage: &Stage, pr: &Pr) -> String {
    let merger = stage.world.user("author");
    let merged = merger.merge(stage.world.repo(), pr.number, MergeSpec::default());
    merged.await.unwrap()
}

/// The reply without what is folded away.
fn said(stage: &Stage, pr: &Pr) -> Vec<String> {
    let said = stage.said(pr).into_iter();
    let open = |text: String| text.split("\n\n<details>").next().unwrap().to_owned();
    said.map(open).collect()
}

/// PLG-CONFIGUPDATER-001, PLG-CONFIGUPDATER-008, PLG-CONFIGUPDATER-009
#[tokio::test]
async fn a_merge_updates_config_maps_and_says_so() {
    let clusters = Arc::new(Clusters::default());
    let maps = "{jobs/*: {name: jobs, clusters: {default: ['', other]}}, packed: {name: packed, gzip: true}}";
    let stage = staged(maps, &clusters).await;
    let files = [("jobs/a", "one"), ("jobs/b", "two"), ("README.md", "x")];
    let (pr, sha) = merged(&stage, "jobs", &files).await;
    let expected = format!("VERSION={sha} a=one b=two");
    assert_eq!(clusters.told("default/default/jobs"), expected);
    assert_eq!(clusters.told("default/other/jobs"), expected);
    insta::assert_snapshot!(said(&stage, &pr).join("\n--\n"), @r"
    @author: Updated the following 2 configmaps:
     * `jobs` configmap in namespace `default` at cluster `default` using the following files:
       - key `a` using file `jobs/a`
       - key `b` using file `jobs/b`
     * `jobs` configmap in namespace `other` at cluster `default` using the following files:
       - key `a` using file `jobs/a`
       - key `b` using file `jobs/b`
    ");

    let (pr, _) = merged(&stage, "packed", &[("packed", "squeeze me")]).await;
    let packed = clusters.maps.lock().unwrap()["default/default/packed"]["packed"].clone();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "squeeze me");
    insta::assert_snapshot!(said(&stage, &pr).join("\n--\n"), @r"
    @author: Updated the `packed` configmap in namespace `default` at cluster `default` using the following files:
     - key `packed` using file `packed`
    ");

    // What feeds nothing is not spoken of.
    let (pr, _) = merged(&stage, "docs", &[("docs.md", "x")]).await;
    assert_eq!(said(&stage, &pr), Vec::<String>::new());
    let mut registry = prometheus_client::registry::Registry::default();
    stage.plugin_metrics.register(&mut registry);
    let mut told = String::new();
    prometheus_client::encoding::text::encode(&mut told, &registry).unwrap();
    let size = "prow_configmap_size_bytes{name=\"jobs\",namespace=\"other\"} 46";
    assert!(told.contains(size), "HOOK-018: {told}");
}

/// PLG-CONFIGUPDATER-005, PLG-CONFIGUPDATER-009: a cluster that will not stops no other.
#[tokio::test]
async fn a_refusal_of_one_cluster_stops_no_other() {
    let clusters = Arc::new(Clusters::default());
    clusters.refuse("build");
    let maps = "{a: {name: a, clusters: {build: [ns], default: [ns]}}, b: {name: b, clusters: {build: [ns]}}}";
    let stage = staged(maps, &clusters).await;
    let (pr, first) = merged(&stage, "one", &[("a", "one")]).await;
    assert_eq!(
        clusters.told("default/ns/a"),
        format!("VERSION={first} a=one")
    );
    insta::assert_snapshot!(said(&stage, &pr).join("\n--\n"), @r"
    @author: Updated the `a` configmap in namespace `ns` at cluster `default` using the following files:
       - key `a` using file `a`
    ");
    assert_eq!(stage.dead().len(), 1);
    assert_eq!(stage.dead()[0].effects[0].error, "build is closed");

    // None at all: nothing is said.
    let (pr, _) = merged(&stage, "two", &[("b", "two")]).await;
    assert_eq!(said(&stage, &pr), Vec::<String>::new());
    let dead = stage.dead();
    let comment = dead.iter().flat_map(|plan| plan.effects.last()).last();
    assert_eq!(comment.unwrap().state(), EffectState::Skipped);
}

/// An update that had to wait does not bring back what a later one replaced.
#[tokio::test]
async fn a_later_merge_is_not_undone_by_an_earlier_one() {
    let clusters = Arc::new(Clusters::default());
    let stage = staged("{'*.yaml': {name: cm}}", &clusters).await;
    let older = opened(&stage, "older", &[("b.yaml", "old")]).await;
    clusters.refuse("default");
    merge(&stage, &older).await;
    stage
        .until("a first try in vain", |state| {
            let (plan, ordinal) = state.open_effects().next()?;
            (!plan.effects[ordinal as usize].error.is_empty()).then_some(())
        })
        .await;
    let newer = stage.world.pr("newer").file("b.yaml", "new");
    let newer = newer.opened_by("author").await;
    let newer = merge(&stage, &newer).await;
    // As the later update leaves it.
    let values = [("VERSION", newer.as_str()), ("b.yaml", "new")];
    clusters.put("default/default/cm", &values);
    clusters.refusing.lock().unwrap().clear();
    stage.settled().await;
    assert_eq!(
        clusters.told("default/default/cm"),
        format!("VERSION={newer} b.yaml=new")
    );
    assert_eq!(stage.dead().len(), 0);
}

/// What was applied last, as the state has it.
async fn applied(stage: &Stage, sha: &str) {
    stage
        .until("the ConfigMaps to be of that commit", |state| {
            let cursor = state.cursor("config-updater/acme/widget")?;
            cursor.value.starts_with(sha).then_some(())
        })
        .await;
}

/// PLG-CONFIGUPDATER-011: merges that nobody told of, and one that was refused, are made up for, whatever they did to the
/// files; what has nothing to do with them stays.
#[tokio::test]
async fn plg_configupdater_011_missed_merges_are_made_up_for() {
    let clusters = Arc::new(Clusters::default());
    clusters.put("default/default/cm", &[("by-hand", "kept")]);
    let every = Duration::from_millis(300);
    let stage = repaired("{'*.yaml': {name: cm}}", &clusters, every).await;
    let files = [("a.yaml", "one"), ("b.yaml", "two"), ("c.yaml", "three")];
    let (_, first) = merged(&stage, "first", &files).await;
    applied(&stage, &first).await;

    stage.door.shut(true);
    let pr = stage.world.pr("second").file("a.yaml", "changed");
    let pr = pr.delete("b.yaml").file("d.yaml", "new");
    let second = merge(&stage, &pr.opened_by("author").await).await;
    applied(&stage, &second).await;
    assert_eq!(
        clusters.told("default/default/cm"),
        format!("VERSION={second} a.yaml=changed by-hand=kept c.yaml=three d.yaml=new")
    );

    // A cluster that will not is told of, and tried again.
    clusters.refuse("default");
    let pr = stage.world.pr("third").file("a.yaml", "again");
    let pr = pr.opened_by("author").await;
    let third = merge(&stage, &pr).await;
    let told = stage
        .until("an alarm", |state| {
            let alarm = state.alarm("config-updater/acme/widget")?;
            Some(alarm.message.clone())
        })
        .await;
    assert!(
        told.contains("default/cm in default: default is closed"),
        "{told}"
    );
    clusters.refusing.lock().unwrap().clear();
    applied(&stage, &third).await;
    stage
        .until("the alarm to be lowered", |state| {
            state
                .alarm("config-updater/acme/widget")
                .is_none()
                .then_some(())
        })
        .await;
    assert_eq!(
        clusters.told("default/default/cm"),
        format!("VERSION={third} a.yaml=again by-hand=kept c.yaml=three d.yaml=new")
    );
}

/// PLG-CONFIGUPDATER-011: who takes office finds what the repository feeds and what was never applied.
#[tokio::test]
async fn plg_configupdater_011_a_new_office_applies_what_stands_in_the_repository() {
    let clusters = Arc::new(Clusters::default());
    let stage = Stage::new(Setup {
        world: World::builder()
            .file("jobs/a.yaml", "one")
            .file("jobs/deep/b.yaml", "two")
            .file("other", "x"),
        plugins: "plugins: {acme/widget: {plugins: [config-updater]}}\nconfig_updater: {maps: {'jobs/**/*.yaml': {name: jobs, gzip: false}}}".to_owned(),
        config_maps: Some(Arc::clone(&clusters) as Arc<dyn ConfigMaps>),
        ..Setup::default()
    })
    .await;
    let found = stage
        .until("what was applied", |state| {
            let cursor = state.cursor("config-updater/acme/widget")?;
            cursor.value.split(' ').next().map(str::to_owned)
        })
        .await;
    assert_eq!(
        clusters.told("default/default/jobs"),
        format!("VERSION={found} a.yaml=one b.yaml=two")
    );
}
