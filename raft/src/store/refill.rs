//! Filling an archive that was lost from a peer's.

use std::{sync::Weak, time::Duration};

use tokio::time::{sleep, timeout};
use trireme_proto::raft as proto;

use super::{Inner, Started};

/// One message of a peer.
const MESSAGE: Duration = Duration::from_secs(30);
/// Between rounds over all peers.
const PAUSE: Duration = Duration::from_secs(5);
/// Rounds before it is left to the operator.
const ROUNDS: u32 = 1000;

/// Asks peer after peer until one gave all its rows.
pub(super) async fn run(inner: Weak<Inner>) {
    for _ in 0..ROUNDS {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let Some(started) = inner.started() else {
            return;
        };
        let peers: Vec<String> = inner
            .published
            .view()
            .nodes()
            .iter()
            .filter(|node| node.id != inner.node_id)
            .map(|node| node.peer_address.clone())
            .collect();
        for peer in peers {
            match fill(&inner, started, &peer).await {
                Ok(rows) => {
                    started.set_filling(false);
                    inner.archive.end_fill();
                    tracing::info!(rows, peer, "the archive is complete again");
                    return;
                }
                Err(reason) => tracing::warn!(reason, peer, "the archive was not filled"),
            }
        }
        drop(inner);
        sleep(PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
    }
    tracing::error!(
        "the archive could not be filled from any peer: history before the loss is missing here"
    );
}

async fn fill(inner: &Inner, started: &Started, peer: &str) -> Result<u64, String> {
    let client = inner.dialer.shared(peer, None);
    let mut client = client.map_err(|error| error.to_string())?;
    let request = proto::FetchArchiveRequest {
        cluster_id: started.cluster_id.clone(),
    };
    let late = |_| "it does not answer".to_owned();
    let response = timeout(MESSAGE, client.fetch_archive(request))
        .await
        .map_err(late)?;
    let mut pages = response
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    let mut filled = 0;
    while let Some(page) = timeout(MESSAGE, pages.message())
        .await
        .map_err(late)?
        .map_err(|status| status.message().to_owned())?
    {
        filled += page.rows.len() as u64;
        let rows = page.rows.into_iter().map(|row| (row.key, row.value));
        let written = inner.archive.fill(rows.collect()).await;
        written.map_err(|error| error.to_string())?;
    }
    Ok(filled)
}
