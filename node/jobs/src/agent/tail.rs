//! Sends live logs to the node that wants them, from any offset, as they grow: one segment each time it asks, so that
//! a slow reader holds up nothing but its own tail.

use std::{collections::BTreeMap, io::SeekFrom, path::Path, time::Duration};

use bytes::Bytes;
use tokio::{
    fs::File,
    io::{self, AsyncReadExt as _, AsyncSeekExt as _},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use trireme_proto::api::{AgentMessage, LogSegment, LogWanted, agent_message};

use super::runs::Runs;

/// Bytes of one segment.
const SEGMENT: u64 = 256 * 1024;
/// A file has no event for its growth that needs no further library; this is how soon a reader sees it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Live logs read at once on one attachment.
const MAX_TAILS: usize = 256;

/// The live logs that a node reads. They end with the attachment.
pub(super) struct Tails {
    outbound: mpsc::Sender<AgentMessage>,
    tails: BTreeMap<u64, Tail>,
    tasks: JoinSet<()>,
}

struct Tail {
    /// The offset of the segment that is asked for.
    wanted: mpsc::Sender<u64>,
    task: AbortHandle,
}

impl Tails {
    pub(super) fn new(outbound: mpsc::Sender<AgentMessage>) -> Self {
        Self {
            outbound,
            tails: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Begins, feeds or ends a tail.
    pub(super) fn heed(&mut self, wanted: LogWanted, runs: &Runs) {
        while self.tasks.try_join_next().is_some() {}
        self.tails.retain(|_, tail| !tail.task.is_finished());
        if wanted.stop {
            if let Some(tail) = self.tails.remove(&wanted.tail) {
                tail.task.abort();
            }
            return;
        }
        if let Some(tail) = self.tails.get(&wanted.tail) {
            // A node asks for the next segment only when it has this one.
            let _asked_before = tail.wanted.try_send(wanted.offset);
            return;
        }
        let sender = Sender {
            outbound: self.outbound.clone(),
            job_id: wanted.job_id.clone(),
            tail: wanted.tail,
        };
        let run = runs
            .log(&wanted.job_id)
            .filter(|_| self.tails.len() < MAX_TAILS);
        let (ask, asked) = mpsc::channel(1);
        let task = match run {
            Some((path, finished)) => {
                // Empty as yet, so there is room.
                let _first = ask.try_send(wanted.offset);
                self.tasks
                    .spawn(async move { follow(&path, asked, finished, &sender).await })
            }
            None => self.tasks.spawn(async move {
                sender.send(wanted.offset, Bytes::new(), true).await;
            }),
        };
        self.tails.insert(wanted.tail, Tail { wanted: ask, task });
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
    mut wanted: mpsc::Receiver<u64>,
    mut finished: watch::Receiver<bool>,
    sender: &Sender,
) {
    // Held open: the run's directory goes when its end is recorded, and a reader may be behind.
    let mut log = None;
    while let Some(offset) = wanted.recv().await {
        let mut told = false;
        loop {
            // Looked at before reading: what is written before the end is read before the end is said.
            let last = *finished.borrow_and_update();
            let data = read(&mut log, path, offset).await.unwrap_or_else(|why| {
                tracing::warn!(path = %path.display(), %why, "the log cannot be read");
                Bytes::new()
            });
            if !data.is_empty() {
                if !sender.send(offset, data, false).await {
                    return;
                }
                break;
            }
            // An empty segment says that there is no more for now.
            if (last || !told) && !sender.send(offset, data, last).await {
                return;
            }
            if last {
                return;
            }
            told = true;
            tokio::select! {
                // An error says that the run is forgotten, so nothing grows any more.
                changed = finished.changed() => if changed.is_err() {
                    sender.send(offset, Bytes::new(), true).await;
                    return;
                },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

async fn read(log: &mut Option<File>, path: &Path, offset: u64) -> io::Result<Bytes> {
    let file = match log {
        Some(file) => file,
        None => match File::open(path).await {
            Ok(file) => log.insert(file),
            // The run has not come so far yet.
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Bytes::new()),
            Err(why) => return Err(why),
        },
    };
    file.seek(SeekFrom::Start(offset)).await?;
    let mut data = Vec::new();
    file.take(SEGMENT).read_to_end(&mut data).await?;
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Reader {
        wanted: mpsc::Sender<u64>,
        segments: mpsc::Receiver<AgentMessage>,
    }

    impl Reader {
        async fn next(&mut self) -> (u64, Bytes, bool) {
            match self.segments.recv().await.unwrap().message.unwrap() {
                agent_message::Message::Log(segment) => (segment.offset, segment.data, segment.end),
                other => panic!("not a log: {other:?}"),
            }
        }
    }

    fn reader(path: &Path, finished: watch::Receiver<bool>) -> Reader {
        let (outbound, segments) = mpsc::channel(16);
        let (wanted, asked) = mpsc::channel(1);
        let sender = Sender {
            outbound,
            job_id: "j".to_owned(),
            tail: 1,
        };
        let path = path.to_owned();
        tokio::spawn(async move { follow(&path, asked, finished, &sender).await });
        Reader { wanted, segments }
    }

    #[tokio::test]
    async fn a_tail_follows_the_file_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one\n").unwrap();
        let (done, finished) = watch::channel(false);
        let mut reader = reader(&path, finished);
        reader.wanted.send(2).await.unwrap();
        assert_eq!(reader.next().await, (2, Bytes::from_static(b"e\n"), false));
        reader.wanted.send(4).await.unwrap();
        assert_eq!(reader.next().await, (4, Bytes::new(), false));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        done.send(true).unwrap();
        let two = (4, Bytes::from_static(b"two\n"), false);
        assert_eq!(reader.next().await, two);
        // Its end is read from the file that was open, wherever that is by now.
        std::fs::remove_file(&path).unwrap();
        reader.wanted.send(4).await.unwrap();
        assert_eq!(reader.next().await, two);
        reader.wanted.send(8).await.unwrap();
        assert_eq!(reader.next().await, (8, Bytes::new(), true));
    }

    #[tokio::test]
    async fn nothing_is_sent_that_was_not_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, vec![b'x'; 3 * SEGMENT as usize]).unwrap();
        let (_running, finished) = watch::channel(false);
        let mut reader = reader(&path, finished);
        reader.wanted.send(0).await.unwrap();
        assert_eq!(reader.next().await.1.len() as u64, SEGMENT);
        reader.wanted.send(SEGMENT).await.unwrap();
        assert_eq!(reader.next().await.0, SEGMENT);
        assert!(reader.segments.try_recv().is_err());
    }

    #[tokio::test]
    async fn the_log_of_a_run_that_is_forgotten_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (running, finished) = watch::channel(false);
        let mut reader = reader(&directory.path().join("none"), finished);
        reader.wanted.send(0).await.unwrap();
        assert_eq!(reader.next().await, (0, Bytes::new(), false));
        drop(running);
        assert_eq!(reader.next().await, (0, Bytes::new(), true));
    }
}
