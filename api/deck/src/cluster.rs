//! Members, leader, lag and agents.

use askama::Template;
use axum::{extract::State, response::Response};
use trireme_api::{ConfigState, Load};

use crate::{BudgetLeft, Deck, html, instant};

struct Member {
    id: u64,
    role: &'static str,
    api: String,
    peer: String,
    matched: String,
    lag: String,
}

struct Agent {
    name: String,
    state: &'static str,
    class: &'static str,
    held: u32,
    capacity: u32,
    clusters: String,
    node: u64,
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    leader: u64,
    is_leader: bool,
    alarms: Vec<(String, String)>,
    config_errors: Vec<String>,
    facts: Vec<(&'static str, String)>,
    members: Vec<Member>,
    agents: Vec<Agent>,
    budgets: Vec<Budget>,
}

/// A budget of the forge, as people read it.
#[derive(Debug, PartialEq, Eq)]
struct Budget {
    name: String,
    resource: String,
    left: String,
    reset: String,
    /// Too little for a busy hour.
    is_low: bool,
}

impl From<BudgetLeft> for Budget {
    fn from(told: BudgetLeft) -> Self {
        /// Of the whole: what background work leaves to what is urgent.
        const LOW_PERCENT: u64 = 10;
        Self {
            left: format!("{} of {}", told.remaining, told.limit),
            reset: instant(told.reset_ms),
            is_low: told.remaining.saturating_mul(100) <= told.limit.saturating_mul(LOW_PERCENT),
            name: told.name,
            resource: told.resource,
        }
    }
}

fn loaded(load: Option<&Load>) -> String {
    load.map_or_else(
        || "not by this node".to_owned(),
        |load| {
            let result = if load.error.is_none() {
                "good"
            } else {
                "failed"
            };
            let mut told = format!("{result} at {}, {:.1?}", instant(load.at_ms), load.took);
            // HOOK-052
            if load.error.is_some() {
                told.push_str(&match load.good_ms {
                    0 => "; never good since the node started".to_owned(),
                    good => format!("; last good at {}", instant(good)),
                });
            }
            if load.failures > 0 {
                told.push_str(&format!("; failed {} times", load.failures));
            }
            told
        },
    )
}

/// What of the configuration does not load, one line each.
fn errors(config: &ConfigState) -> Vec<String> {
    let loads = [
        ("The version in force elsewhere", &config.parsed),
        ("The followed configuration", &config.followed),
    ];
    let failed = loads.iter().filter_map(|(what, load)| {
        let error = load.as_ref()?.error.as_ref()?;
        Some(format!(
            "{what} is not taken, the former configuration stays: {error}"
        ))
    });
    failed.collect()
}

pub(crate) async fn page(State(deck): State<Deck>) -> Response {
    let (view, status) = (deck.store.view(), deck.store.status());
    let leader = status.leader.unwrap_or_default();
    let known =
        |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let office = view.office();
    let config = deck.config.get();
    html(&Page {
        page: "cluster",
        revision: view.revision,
        node: deck.store.node_id(),
        leader,
        is_leader: leader == deck.store.node_id(),
        alarms: view
            .alarms()
            .map(|alarm| (alarm.key.clone(), alarm.message.clone()))
            .collect(),
        config_errors: errors(&config),
        facts: vec![
            ("Cluster", status.cluster_id.clone()),
            (
                "This node",
                format!("{} ({})", deck.store.node_id(), status.role),
            ),
            (
                "Leader",
                if leader == 0 {
                    "none known".to_owned()
                } else {
                    leader.to_string()
                },
            ),
            ("Term", status.term.to_string()),
            (
                "Applied index",
                format!(
                    "{} of {}",
                    view.revision,
                    status.last_log.unwrap_or_default()
                ),
            ),
            (
                "Snapshot index",
                status.snapshot.unwrap_or_default().to_string(),
            ),
            (
                "Office",
                format!(
                    "epoch {} on node {} since {}",
                    office.epoch,
                    office.node_id,
                    instant(office.since_ms)
                ),
            ),
            ("Office changed hands", format!("{} times", office.changes)),
            (
                "Configuration here",
                match (config.version, config.version_sha.trim()) {
                    (0, _) => "none yet".to_owned(),
                    (version, "") => format!("version {version}"),
                    (version, sha) => format!("version {version} ({sha})"),
                },
            ),
            ("Last parsed", loaded(config.parsed.as_ref())),
            ("Watched directory", loaded(config.followed.as_ref())),
        ],
        members: status
            .members
            .iter()
            .map(|member| Member {
                id: member.node.id,
                role: match (member.node.id == leader, member.voter) {
                    (true, _) => "leader",
                    (_, true) => "voter",
                    (_, false) => "learner",
                },
                api: member.node.api_address.clone(),
                peer: member.node.peer_address.clone(),
                matched: known(member.matched),
                lag: known(
                    member
                        .matched
                        .map(|matched| status.last_log.unwrap_or_default().saturating_sub(matched)),
                ),
            })
            .collect(),
        budgets: (deck.budgets)().into_iter().map(Budget::from).collect(),
        agents: view
            .agents()
            .map(|agent| {
                let (state, class) = match (agent.lost, agent.draining) {
                    (true, _) => ("lost", "lost"),
                    (_, true) => ("draining", "draining"),
                    _ => ("ready", "ready"),
                };
                Agent {
                    name: agent.name.clone(),
                    state,
                    class,
                    held: view.lease_count(&agent.id),
                    capacity: agent.capacity,
                    clusters: agent.clusters.join(", "),
                    node: agent.node_id,
                }
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trireme_api::ConfigHealth;

    use super::*;

    /// HOOK-052
    #[test]
    fn hook_052_the_page_tells_how_loading_the_configuration_goes() {
        assert_eq!(loaded(None), "not by this node");
        let load = |error: Option<&str>, good_ms, failures| Load {
            at_ms: 1_700_000_060_000,
            took: Duration::from_millis(1500),
            error: error.map(str::to_owned),
            good_ms,
            failures,
        };
        insta::assert_snapshot!(loaded(Some(&load(None, 1_700_000_060_000, 0))), @"good at 2023-11-14T22:14:20Z, 1.5s");
        insta::assert_snapshot!(loaded(Some(&load(Some("bad"), 1_700_000_000_000, 3))), @"failed at 2023-11-14T22:14:20Z, 1.5s; last good at 2023-11-14T22:13:20Z; failed 3 times");
        insta::assert_snapshot!(loaded(Some(&load(Some("bad"), 0, 1))), @"failed at 2023-11-14T22:14:20Z, 1.5s; never good since the node started; failed 1 times");
        // What failed stands at the head of the page.
        let health = ConfigHealth::default();
        health.followed(Some("jobs.yaml:4:17: bad"), Duration::ZERO);
        assert_eq!(
            errors(&health.get()),
            [
                "The followed configuration is not taken, the former configuration stays: jobs.yaml:4:17: bad"
            ]
        );
    }

    fn page(budgets: Vec<Budget>) -> String {
        let page = Page {
            page: "cluster",
            revision: 1,
            node: 1,
            leader: 1,
            is_leader: true,
            alarms: vec![],
            config_errors: vec![],
            facts: vec![],
            members: vec![],
            agents: vec![],
            budgets,
        };
        page.render().unwrap()
    }

    /// GHC-050: what is left is on the cluster page, by org.
    #[test]
    fn ghc_050_what_is_left_of_the_forges_budgets_is_told() {
        let told = |name: &str, resource: &str, remaining| BudgetLeft {
            name: name.to_owned(),
            resource: resource.to_owned(),
            remaining,
            limit: 5000,
            reset_ms: 1_800_000_000_000,
        };
        let shown = page(vec![
            told("bot - kubernetes", "core", 4321).into(),
            told("bot - <x>", "graphql", 500).into(),
        ]);
        let rows: Vec<&str> = shown.lines().filter(|line| line.contains("5000")).collect();
        insta::assert_snapshot!(rows.join("\n"), @r#"
        <tr><td>bot - kubernetes</td><td>core</td><td>4321 of 5000</td><td>2027-01-15T08:00:00Z</td></tr>
        <tr><td>bot - &#60;x&#62;</td><td>graphql</td><td class="error">500 of 5000</td><td>2027-01-15T08:00:00Z</td></tr>
        "#);
        assert!(page(vec![]).contains("has not asked"));
    }
}
