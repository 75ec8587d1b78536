//! Filling an archive that lacks rows from its peers'.
//!
//! One peer whose own archive is complete is enough. Where none is, what all of them have together is all that there is.

use std::{collections::BTreeSet, sync::Weak, time::Duration};

use tokio::time::{sleep, timeout};
use trireme_proto::raft::{self as proto, Node};

use super::{Inner, Started};

/// One message of a peer.
const MESSAGE: Duration = Duration::from_secs(30);
/// Between the first two rounds over all peers; each time twice as long, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(8);
/// What a peer gave.
enum Given {
    /// All rows that there are.
    All(u64),
    /// All that it has.
    Some(u64),
}

/// Whenever rows are missing, asks the peers for them.
pub(super) async fn run(inner: Weak<Inner>) {
    let Some(mut changes) = inner.upgrade().map(|inner| inner.archive.missing_changes()) else {
        return;
    };
    // Peers that gave all that they have, and still lack some; and up to where that was wanted.
    let (mut taken, mut wanted) = (BTreeSet::new(), 0);
    let mut rounds: u32 = 0;
    loop {
        let Ok(Some(upto)) = changes.wait_for(Option::is_some).await.map(|upto| *upto) else {
            return;
        };
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        if upto != wanted {
            taken.clear();
            wanted = upto;
        }
        if strong.round(started, upto, &mut taken).await {
            rounds = 0;
            continue;
        }
        drop(strong);
        let pause = PAUSE.saturating_mul(1 << rounds.min(16)).min(LONGEST);
        rounds = rounds.saturating_add(1);
        sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
    }
}

impl Inner {
    /// Whether the archive has everything up to `upto` now, as far as anybody has it.
    async fn round(&self, started: &Started, upto: u64, taken: &mut BTreeSet<u64>) -> bool {
        let view = self.published.view();
        if view.nodes().is_empty() {
            // Nothing is applied yet.
            return false;
        }
        let others = view.nodes().iter().filter(|node| node.id != self.node_id);
        let (mut everybody, mut incomplete) = (true, Vec::new());
        // First those that have everything.
        for peer in others {
            match self.fill_from(started, peer, upto, false).await {
                Ok(Given::All(rows)) => {
                    tracing::info!(rows, peer = peer.id, "the archive is complete again");
                    return self.filled(upto).await;
                }
                Ok(Given::Some(_)) => incomplete.push(peer),
                Err(reason) => {
                    everybody = false;
                    tracing::warn!(reason, peer = peer.id, "the archive was not filled");
                }
            }
        }
        for peer in incomplete {
            if taken.contains(&peer.id) {
                continue;
            }
            match self.fill_from(started, peer, upto, true).await {
                Ok(Given::All(_)) => return self.filled(upto).await,
                Ok(Given::Some(rows)) => {
                    tracing::info!(
                        rows,
                        peer = peer.id,
                        "a peer with an incomplete archive gave what it has"
                    );
                    taken.insert(peer.id);
                }
                Err(reason) => {
                    everybody = false;
                    tracing::warn!(reason, peer = peer.id, "the archive was not filled");
                }
            }
        }
        if !everybody {
            return false;
        }
        tracing::error!(
            "no member has a complete archive: what they have together is here, other history is lost"
        );
        self.filled(upto).await
    }

    async fn filled(&self, upto: u64) -> bool {
        match self.archive.end_fill(upto).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "that the archive is complete cannot be written down");
                false
            }
        }
    }

    /// `anyway`: although its own archive is incomplete.
    async fn fill_from(
        &self,
        started: &Started,
        peer: &Node,
        upto: u64,
        anyway: bool,
    ) -> Result<Given, String> {
        let client = self.dialer.shared(&peer.peer_address, Some(peer.id));
        let mut client = client.map_err(|error| error.to_string())?;
        let request = proto::FetchArchiveRequest {
            cluster_id: started.cluster_id.clone(),
            at_least: upto,
        };
        let late = |_| "it does not answer".to_owned();
        let said = |status: tonic::Status| status.message().to_owned();
        let asked = timeout(MESSAGE, client.fetch_archive(request)).await;
        let mut pages = asked.map_err(late)?.map_err(said)?.into_inner();
        let first = timeout(MESSAGE, pages.message()).await.map_err(late)?;
        let about = first.map_err(said)?.ok_or("it says nothing")?;
        if !about.rows.is_empty() {
            return Err(
                "it runs an older version, which does not say whether it has all".to_owned(),
            );
        }
        if about.incomplete && !anyway {
            return Ok(Given::Some(0));
        }
        let mut rows = 0;
        while let Some(page) = timeout(MESSAGE, pages.message())
            .await
            .map_err(late)?
            .map_err(said)?
        {
            rows += page.rows.len() as u64;
            let page = page.rows.into_iter().map(|row| (row.key, row.value));
            let written = self.archive.fill(page.collect()).await;
            written.map_err(|error| error.to_string())?;
        }
        Ok(match about.incomplete {
            true => Given::Some(rows),
            false => Given::All(rows),
        })
    }
}
