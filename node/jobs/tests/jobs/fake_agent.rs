//! An agent that says what its story says, and hears what the node says.

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use trireme_proto::{
    api::{
        AgentBeat, AgentHello, AgentMessage, JobFinished, LogSegment, NodeMessage, RegisterRequest,
        RunningJob, agent_message, node_message,
    },
    state::JobState,
};

use crate::stage::{BOUND, Stage};

pub(crate) struct FakeAgent {
    said: mpsc::Sender<AgentMessage>,
    heard: Streaming<NodeMessage>,
}

/// Registers an agent of this id; gives its incarnation.
pub(crate) async fn register(stage: &Stage, id: &str) -> u64 {
    let request = RegisterRequest {
        name: id.to_owned(),
        clusters: vec!["default".to_owned()],
        capacity: 4,
        agent_id: id.to_owned(),
        ..RegisterRequest::default()
    };
    let client = stage.client().await;
    let answer = client.agents().register(request).await.unwrap();
    answer.into_inner().incarnation
}

impl FakeAgent {
    pub(crate) async fn attach(
        stage: &Stage,
        agent_id: &str,
        incarnation: u64,
    ) -> Result<Self, Status> {
        let (said, outbound) = mpsc::channel(64);
        let hello = agent_message::Message::Hello(AgentHello {
            agent_id: agent_id.to_owned(),
            incarnation,
        });
        say(&said, hello).await;
        let client = stage.client().await;
        let heard = client
            .agents()
            .attach(ReceiverStream::new(outbound))
            .await?
            .into_inner();
        let agent = Self { said, heard };
        // As every agent does.
        agent.beats(&[]).await;
        Ok(agent)
    }

    pub(crate) async fn says(&self, message: agent_message::Message) {
        say(&self.said, message).await;
    }

    pub(crate) async fn beats(&self, running: &[(&str, u64)]) {
        let running = running.iter().map(|(job_id, fence)| RunningJob {
            job_id: (*job_id).to_owned(),
            fence: *fence,
        });
        let beat = AgentBeat {
            running: running.collect(),
        };
        self.says(agent_message::Message::Beat(beat)).await;
    }

    pub(crate) async fn finishes(&self, job_id: &str, fence: u64, state: JobState) {
        let finished = JobFinished {
            job_id: job_id.to_owned(),
            fence,
            state: state.into(),
            description: "Said by a fake.".to_owned(),
        };
        self.says(agent_message::Message::Finished(finished)).await;
    }

    pub(crate) async fn sends(&self, segment: LogSegment) {
        self.says(agent_message::Message::Log(segment)).await;
    }

    /// The next thing it is told, renewals and wishes for beats aside.
    pub(crate) async fn told(&mut self) -> node_message::Message {
        loop {
            match self.next().await.unwrap().expect("still attached") {
                node_message::Message::Renewed(_) | node_message::Message::BeatWanted(_) => {}
                message => return message,
            }
        }
    }

    /// Waits until it is asked for a sign of life.
    pub(crate) async fn beat_wanted(&mut self) {
        loop {
            if let node_message::Message::BeatWanted(_) = self.next().await.unwrap().unwrap() {
                return;
            }
        }
    }

    /// How it is told that it is attached no longer.
    pub(crate) async fn ends(&mut self) -> Code {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    }

    /// The grant of the next renewal, in milliseconds.
    pub(crate) async fn renewed(&mut self) -> u32 {
        loop {
            if let node_message::Message::Renewed(renewed) = self.next().await.unwrap().unwrap() {
                return renewed.lease_millis;
            }
        }
    }

    async fn next(&mut self) -> Result<Option<node_message::Message>, Status> {
        let message = timeout(BOUND, self.heard.message()).await.unwrap()?;
        Ok(message.and_then(|message| message.message))
    }
}

async fn say(to: &mpsc::Sender<AgentMessage>, message: agent_message::Message) {
    let message = AgentMessage {
        message: Some(message),
    };
    to.send(message).await.unwrap();
}

/// A message in short.
pub(crate) fn brief(message: &node_message::Message) -> String {
    match message {
        node_message::Message::Start(start) => {
            let job = start.job.as_ref().unwrap();
            format!("start {} {}", job.id, job.lease.as_ref().unwrap().fence)
        }
        node_message::Message::Stop(stop) => format!("stop {} {}", stop.job_id, stop.fence),
        node_message::Message::Settled(settled) => {
            format!("settled {} {}", settled.job_id, settled.fence)
        }
        other => format!("{other:?}"),
    }
}
