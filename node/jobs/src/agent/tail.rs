//! Sends a live log to the node that wants it, from any offset, as it grows.

use std::{io::SeekFrom, path::Path, time::Duration};

use bytes::Bytes;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use trireme_proto::api::{AgentMessage, LogSegment, LogWanted, agent_message};

use super::runs::Runs;

/// Bytes of one segment.
const SEGMENT: usize = 256 * 1024;
/// A file has no event for its growth that needs no further library; this is how soon a reader sees it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Starts or stops a tail; ends it at once when there is no such run.
pub(super) fn heed(runs: &mut Runs, wanted: LogWanted, outbound: &mpsc::Sender<AgentMessage>) {
    if wanted.stop {
        runs.stop_tail(wanted.tail);
        return;
    }
    let sender = Sender {
        outbound: outbound.clone(),
        job_id: wanted.job_id.clone(),
        tail: wanted.tail,
    };
    match runs.open_tail(&wanted.job_id, wanted.tail) {
        Some((path, finished, stop)) => {
            tokio::spawn(async move {
                follow(&path, wanted.offset, finished, stop, &sender).await;
            });
        }
        None => {
            tokio::spawn(async move {
                sender.send(wanted.offset, Bytes::new(), true).await;
            });
        }
    }
}

struct Sender {
    outbound: mpsc::Sender<AgentMessage>,
    job_id: String,
    tail: u64,
}

impl Sender {
    async fn send(&self, offset: u64, data: Bytes, end: bool) -> bool {
        let segment = LogSegment {
            job_id: self.job_id.clone(),
            tail: self.tail,
            offset,
            data,
            end,
        };
        self.outbound
            .send(AgentMessage {
                message: Some(agent_message::Message::Log(segment)),
            })
            .await
            .is_ok()
    }
}

async fn follow(
    path: &Path,
    mut offset: u64,
    mut finished: watch::Receiver<bool>,
    stop: CancellationToken,
    sender: &Sender,
) {
    loop {
        // Looked at before reading: what is written before the end is read before the end is said.
        let last = *finished.borrow();
        let caught_up = match read_from(path, offset).await {
            Ok(data) if data.is_empty() => true,
            Ok(data) => {
                let length = data.len() as u64;
                if !sender.send(offset, data, false).await {
                    return;
                }
                offset += length;
                false
            }
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => true,
            Err(why) => {
                tracing::warn!(path = %path.display(), %why, "the log cannot be read");
                true
            }
        };
        if !caught_up {
            continue;
        }
        // An empty segment says that there is no more for now.
        if !sender.send(offset, Bytes::new(), last).await || last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = finished.changed() => {}
            () = grown(path, offset) => {}
        }
    }
}

async fn grown(path: &Path, offset: u64) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if tokio::fs::metadata(path)
            .await
            .is_ok_and(|file| file.len() > offset)
        {
            return;
        }
    }
}

async fn read_from(path: &Path, offset: u64) -> std::io::Result<Bytes> {
    let mut file = File::open(path).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    let mut data = Vec::new();
    file.take(SEGMENT as u64).read_to_end(&mut data).await?;
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tail_follows_the_file_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one\n").unwrap();
        let (outbound, mut segments) = mpsc::channel(16);
        let (done, finished) = watch::channel(false);
        let sender = Sender {
            outbound,
            job_id: "j".to_owned(),
            tail: 1,
        };
        let file = path.clone();
        let follower = tokio::spawn(async move {
            follow(&file, 2, finished, CancellationToken::new(), &sender).await;
        });
        let mut next = async || {
            let message = segments.recv().await.unwrap().message.unwrap();
            let agent_message::Message::Log(segment) = message else {
                panic!("not a log")
            };
            (segment.offset, segment.data, segment.end)
        };
        assert_eq!(next().await, (2, Bytes::from_static(b"e\n"), false));
        assert_eq!(next().await, (4, Bytes::new(), false));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        done.send(true).unwrap();
        assert_eq!(next().await, (4, Bytes::from_static(b"two\n"), false));
        assert_eq!(next().await, (8, Bytes::new(), true));
        follower.await.unwrap();
    }
}
