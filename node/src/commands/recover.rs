//! `recover`: a cluster that lost its quorum for good goes on from one node's disk.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use trireme_raft::offline::{Found, Plan, RecoverOptions, Recovery};

use super::snapshot::{founded, offline_error};
use crate::{
    cli::RecoverArgs,
    exit::{USAGE, coded},
    output::{Format, print, print_json},
};

/// # Errors
/// When the directory is in use, damaged or empty, the node id was used before, or nobody agrees.
pub async fn run(args: RecoverArgs) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || recover(&args)).await?
}

/// Blocks.
fn recover(args: &RecoverArgs) -> anyhow::Result<()> {
    if !args.force_new_cluster {
        return Err(coded(
            USAGE,
            "say --force-new-cluster: recovering makes a new cluster of this node alone, and what only the lost nodes had \
             is lost. While a majority of the voters can still be started, start those instead",
        ));
    }
    let options = RecoverOptions {
        data_dir: args.data_dir.clone(),
        node_id: args.node_id,
        peer_address: args.peer.clone(),
        api_address: args.api.clone(),
        accept_diverged: args.accept_diverged,
    };
    let recovery = Recovery::open(&options.data_dir).map_err(offline_error)?;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ");
    let plan = recovery
        .plan(&options, &now.to_string())
        .map_err(offline_error)?;
    let text = plan_text(args, recovery.found(), &plan);
    match args.output {
        Format::Text => print(&text)?,
        // What was done says it all.
        Format::Json if args.yes => {}
        Format::Json => print_json(&plan_json(recovery.found(), &plan))?,
    }
    if !args.yes && !agreed()? {
        return Err(coded(
            USAGE,
            "nothing was changed: say --yes to go on, or answer y on a terminal",
        ));
    }
    let made = recovery.carry_out(plan).map_err(offline_error)?;
    founded(made, &options.data_dir, args.output)
}

/// Asks on a terminal; nobody there is no.
fn agreed() -> io::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut out = io::stderr().lock();
    out.write_all(b"Go on? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn plan_json(found: &Found, plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "cluster": found.cluster_id, "node": found.node_id, "snapshot": found.snapshot,
        "revision": found.revision, "term": found.term, "committed": found.committed,
        "beyond_committed": found.beyond_committed, "diverged": found.diverged, "live_jobs": found.live_jobs, "digest": found.digest,
        "new_cluster": plan.cluster_id, "new_node": plan.node.id,
        "dropped": plan.dropped.iter().map(|node| node.id).collect::<Vec<_>>(),
        "kept": plan.kept.display().to_string(),
    })
}

fn plan_text(args: &RecoverArgs, found: &Found, plan: &Plan) -> String {
    let snapshot = found.snapshot.map_or_else(
        || "no snapshot".to_owned(),
        |at| format!("snapshot of {at}"),
    );
    let committed = match (found.committed, found.beyond_committed) {
        (Some(committed), 0) => format!("all, up to {committed}"),
        (Some(committed), beyond) => format!(
            "{committed}; the {beyond} entries after it count as well: this node never heard that they were committed"
        ),
        (None, beyond) => format!("nothing is known of it; all {beyond} entries count"),
    };
    let dropped = if plan.dropped.is_empty() {
        "- no other member is dropped: there was none".to_owned()
    } else {
        let nodes: Vec<String> = plan
            .dropped
            .iter()
            .map(|node| format!("{} ({})", node.id, node.peer_address))
            .collect();
        format!("- these members are dropped for good: {}", nodes.join(", "))
    };
    let diverged = found.diverged.map_or(String::new(), |audit| {
        format!("diverged  this state was found to differ from the majority's at entry {audit}\n")
    });
    format!(
        "found     {dir}: node {node} of cluster {cluster}\n\
         last      entry {revision} of term {term}; {snapshot} and the log after it; {jobs} live jobs\n\
         committed {committed}\n\
         {diverged}\n\
         This will happen:\n\
         - a new cluster {new} begins with what this directory holds\n\
         - its only member is this node under the new id {new_node} (peer {peer}, door {api})\n\
         {dropped}\n\
         - the present directory is kept as {kept}\n\
         What only the dropped nodes had is lost. None of them may run, now or later, with the directory that it has.\n\n",
        dir = args.data_dir.display(),
        node = found.node_id,
        cluster = found.cluster_id,
        revision = found.revision,
        term = found.term,
        jobs = found.live_jobs,
        new = plan.cluster_id,
        new_node = plan.node.id,
        peer = plan.node.peer_address,
        api = plan.node.api_address,
        kept = plan.kept.display(),
    )
}

#[cfg(test)]
mod tests {
    use trireme_raft::Node;

    use super::*;

    #[test]
    fn the_plan_reads_well() {
        let node = |id| Node {
            id,
            peer_address: format!("10.0.0.{id}:8889"),
            api_address: format!("10.0.0.{id}:8888"),
            ..Node::default()
        };
        let args = RecoverArgs {
            force_new_cluster: true,
            data_dir: "/d/data".into(),
            node_id: None,
            peer: None,
            api: None,
            accept_diverged: false,
            yes: false,
            output: Format::Text,
        };
        let found = Found {
            cluster_id: "old".into(),
            node_id: 2,
            snapshot: Some(100),
            revision: 120,
            term: 3,
            committed: Some(118),
            beyond_committed: 2,
            members: vec![node(1), node(2)],
            used_node_ids: vec![1, 2],
            live_jobs: 5,
            digest: "00ff".into(),
            diverged: None,
        };
        let plan = Plan {
            cluster_id: "new".into(),
            node: Node { id: 3, ..node(2) },
            dropped: vec![node(1)],
            kept: "/d/data.before-recover-x".into(),
        };
        insta::assert_snapshot!(plan_text(&args, &found, &plan), @r"
        found     /d/data: node 2 of cluster old
        last      entry 120 of term 3; snapshot of 100 and the log after it; 5 live jobs
        committed 118; the 2 entries after it count as well: this node never heard that they were committed

        This will happen:
        - a new cluster new begins with what this directory holds
        - its only member is this node under the new id 3 (peer 10.0.0.2:8889, door 10.0.0.2:8888)
        - these members are dropped for good: 1 (10.0.0.1:8889)
        - the present directory is kept as /d/data.before-recover-x
        What only the dropped nodes had is lost. None of them may run, now or later, with the directory that it has.
        ");
    }
}
