//! Reading a run's log while it grows, and afterwards.

use std::time::Duration;

use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use trireme_api::LogChunk;
use trireme_proto::{api::ReadLogRequest, state::JobState};

use crate::{
    proxy::Proxy,
    stage::{BOUND, Gate, Repository, Stage, decorated, plain},
};

/// Someone who follows a log.
struct Follower {
    chunks: tokio_stream::wrappers::ReceiverStream<Result<LogChunk, tonic::Status>>,
    text: String,
}

impl Follower {
    fn of(stage: &Stage, id: &str) -> Self {
        Self {
            chunks: stage.logs.read(id.to_owned(), 0, true),
            text: String::new(),
        }
    }

    async fn more(&mut self) -> bool {
        let chunk = timeout(BOUND, self.chunks.next()).await;
        match chunk.unwrap_or_else(|_| panic!("no more after {:?}", self.text)) {
            Some(chunk) => {
                let chunk = chunk.unwrap();
                assert_eq!(chunk.offset, self.text.len() as u64);
                self.text += std::str::from_utf8(&chunk.data).unwrap();
                true
            }
            None => false,
        }
    }

    async fn until(&mut self, text: &str) {
        while self.text != text {
            assert!(self.more().await, "ended after {:?}", self.text);
        }
    }

    async fn finish(&mut self) {
        while self.more().await {}
    }
}

#[tokio::test]
async fn a_log_is_followed_as_it_grows_and_read_from_storage_afterwards() {
    let stage = Stage::new().await;
    let repository = Repository::new(&stage);
    let agent = stage.agent("agent");
    let gate = Gate::new(&stage, "gate");
    let script = format!("echo one; {}; echo two", gate.wait());
    let id = stage.create(decorated("tale", &script, &repository)).await;
    // Before it runs, too.
    let mut follower = Follower::of(&stage, &id);
    follower.until("one\n").await;
    gate.open();
    follower.finish().await;
    assert_eq!(follower.text, "one\ntwo\n");
    let job = stage.complete(&id).await;
    assert_eq!(stage.stored(&job, "build-log.txt"), follower.text);

    let client = stage.client().await;
    let request = ReadLogRequest {
        id: id.clone(),
        offset: 4,
        follow: false,
    };
    let mut rest = client.jobs().read_log(request).await.unwrap().into_inner();
    let chunk = rest.message().await.unwrap().unwrap();
    assert_eq!((chunk.offset, &chunk.data[..]), (4, &b"two\n"[..]));
    assert!(rest.message().await.unwrap().is_none());
    agent.stop().await;
}

#[tokio::test]
async fn a_reader_who_does_not_follow_gets_what_there_is() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let (ready, gate) = (Gate::new(&stage, "ready"), Gate::new(&stage, "gate"));
    let script = format!("echo one; {}; {}", ready.say("ready"), gate.wait());
    let id = stage.create(plain("tale", &script)).await;
    ready.said().await;
    // Entrypoint writes what it reads from the run, a moment later.
    let read = async || {
        let mut chunks = stage.logs.read(id.clone(), 0, false);
        let mut text = Vec::new();
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk.unwrap().data);
        }
        text
    };
    let seen = async {
        while read().await != b"one\n" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, seen).await.unwrap();
    gate.open();
    stage.complete(&id).await;
    agent.stop().await;
}

/// Nothing of it is stored: whoever follows has it from the agent alone.
#[tokio::test]
async fn the_log_of_a_plain_run_is_followed_to_its_end() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let gate = Gate::new(&stage, "gate");
    let id = stage
        .create(plain(
            "tale",
            &format!("echo one; {}; echo two", gate.wait()),
        ))
        .await;
    let mut follower = Follower::of(&stage, &id);
    follower.until("one\n").await;
    gate.open();
    follower.finish().await;
    assert_eq!(follower.text, "one\ntwo\n");
    agent.stop().await;
}

#[tokio::test]
async fn a_follower_waits_while_the_agent_is_away() {
    let stage = Stage::new().await;
    let proxy = Proxy::to(stage.door).await;
    let agent = stage.agent_at("agent", proxy.address, 4);
    let (one, two) = (Gate::new(&stage, "one"), Gate::new(&stage, "two"));
    let script = format!(
        "echo one; {}; echo two; {}; echo three",
        one.wait(),
        two.wait()
    );
    let id = stage.create(plain("tale", &script)).await;
    let mut follower = Follower::of(&stage, &id);
    follower.until("one\n").await;
    proxy.cut();
    one.open();
    proxy.mend();
    // While it still runs.
    follower.until("one\ntwo\n").await;
    assert_eq!(
        stage.store.view().job(&id).unwrap().state(),
        JobState::Pending
    );
    two.open();
    follower.finish().await;
    assert_eq!(follower.text, "one\ntwo\nthree\n");
    agent.stop().await;
}

#[tokio::test]
async fn a_slow_reader_of_a_large_log_misses_nothing_and_holds_up_nobody() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let gate = Gate::new(&stage, "gate");
    let script = format!("seq 1 700000; {}", gate.wait());
    let id = stage.create(plain("large", &script)).await;
    stage.started(&id).await;
    let mut follower = Follower::of(&stage, &id);
    assert!(follower.more().await);
    // It reads no more for now; other runs go on, and so does this one.
    let other = stage.create(plain("other", "true")).await;
    assert_eq!(stage.complete(&other).await.state(), JobState::Success);
    let want: String = (1..=700_000).map(|n| format!("{n}\n")).collect();
    while follower.text.len() < want.len() {
        assert!(follower.more().await);
    }
    assert!(follower.text == want);
    gate.open();
    follower.finish().await;
    assert!(follower.text == want);
    agent.stop().await;
}
