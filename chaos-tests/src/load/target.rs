//! The stores that can be measured, each through its own client.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use serde_json::json;
use trireme_proto::api::{
    CreateJobRequest, CreateJobResponse, Freshness, GetJobRequest, GetJobResponse, NodeStatus,
    ReadOptions, create_job_request::What,
};

use super::{etcd, grpc::Connection};

const CREATE_JOB: &str = "/trireme.api.v1.JobService/CreateJob";
const GET_JOB: &str = "/trireme.api.v1.JobService/GetJob";

/// Keys that puts go over in etcd: a store of keys is updated, one of jobs grows.
const ETCD_KEYS: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    Trireme,
    Etcd,
}

impl System {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trireme => "trireme",
            Self::Etcd => "etcd",
        }
    }
}

/// A running store.
#[derive(Debug, Clone)]
pub struct Target {
    pub system: System,
    /// host:port of its nodes.
    pub endpoints: Vec<String>,
}

/// One connection. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    Trireme {
        connection: Connection,
        prowjob: Bytes,
    },
    Etcd {
        client: etcd::Client,
        value: Bytes,
        /// Connections start apart, so that they do not write the same keys at the same time.
        next: Arc<AtomicU64>,
    },
}

impl Target {
    /// The node that leads now: both systems are asked there, so that neither pays for forwarding.
    ///
    /// # Errors
    /// When no node answers or none leads.
    pub async fn leader(&self) -> anyhow::Result<String> {
        ensure!(!self.endpoints.is_empty(), "no endpoint was given");
        match self.system {
            System::Trireme => {
                // A follower may not have heard of a leader that was elected just now: the leader has.
                let mut unreachable = None;
                for endpoint in &self.endpoints {
                    match leader_known_at(endpoint).await {
                        Ok(Some(leader)) => return Ok(leader),
                        Ok(None) => {}
                        Err(why) => unreachable = Some(why.context(endpoint.clone())),
                    }
                }
                if let Some(why) = unreachable {
                    return Err(why);
                }
                bail!("none of {} leads", self.endpoints.join(", "))
            }
            System::Etcd => {
                for endpoint in &self.endpoints {
                    let status = etcd::Client::connect(endpoint).await?.status().await?;
                    let asked = status.header.context("etcd names no member")?.member_id;
                    if status.leader == asked {
                        return Ok(endpoint.clone());
                    }
                }
                bail!("none of {} leads", self.endpoints.join(", "))
            }
        }
    }

    /// Whether any of the nodes knows one that leads.
    pub(crate) async fn knows_leader(&self) -> bool {
        match self.system {
            System::Trireme => self.leader().await.is_ok(),
            System::Etcd => {
                for endpoint in &self.endpoints {
                    if let Ok(client) = etcd::Client::connect(endpoint).await
                        && let Ok(status) = client.status().await
                        && status.leader != 0
                    {
                        return true;
                    }
                }
                false
            }
        }
    }

    pub(super) async fn connect(&self, value_bytes: usize) -> anyhow::Result<Door> {
        let leader = self.leader().await?;
        self.connect_to(&leader, value_bytes).await
    }

    /// A connection to this node, leading or not.
    pub(crate) async fn connect_to(
        &self,
        endpoint: &str,
        value_bytes: usize,
    ) -> anyhow::Result<Door> {
        match self.system {
            System::Trireme => Ok(Door::Trireme {
                connection: Connection::open(endpoint).await?,
                prowjob: prowjob(value_bytes)?,
            }),
            System::Etcd => Ok(Door::Etcd {
                client: etcd::Client::connect(endpoint).await?,
                value: vec![b'x'; value_bytes].into(),
                next: Arc::new(AtomicU64::new(rand::random::<u64>() % ETCD_KEYS)),
            }),
        }
    }
}

/// Who leads, as this node knows it.
async fn leader_known_at(endpoint: &str) -> anyhow::Result<Option<String>> {
    let status = crate::nemesis::status(endpoint).await?;
    let leads = |node: &&NodeStatus| node.id == status.leader_id;
    let leader = status.nodes.iter().find(leads);
    Ok(leader.map(|leader| leader.api_address.clone()))
}

/// A periodic job of this size that no agent takes.
fn prowjob(bytes: usize) -> anyhow::Result<Bytes> {
    let make = |padding: usize| {
        serde_json::to_vec(&json!({
            "apiVersion": "prow.k8s.io/v1", "kind": "ProwJob",
            "spec": {
                "type": "periodic", "agent": "kubernetes", "cluster": "nowhere", "job": "load",
                "pod_spec": {"containers": [{"args": ["x".repeat(padding)]}]},
            },
        }))
    };
    let bare = make(0)?.len();
    ensure!(
        bytes >= bare,
        "--value-bytes {bytes}: a ProwJob has at least {bare} bytes"
    );
    Ok(make(bytes - bare)?.into())
}

impl Door {
    /// Writes; gives what it can be read by.
    pub(crate) async fn put(&self) -> anyhow::Result<String> {
        match self {
            Self::Trireme {
                connection,
                prowjob,
            } => {
                let request = CreateJobRequest {
                    request_id: uuid::Uuid::new_v4().to_string(),
                    what: Some(What::Prowjob(prowjob.clone())),
                };
                let made: CreateJobResponse = connection.call(CREATE_JOB, &request).await?;
                Ok(made.id)
            }
            Self::Etcd {
                client,
                value,
                next,
            } => {
                let number = next.fetch_add(1, Ordering::Relaxed) % ETCD_KEYS;
                let key = format!("/load/{number:08}");
                client.put(key.clone(), value.clone()).await?;
                Ok(key)
            }
        }
    }

    /// Reads linearizably.
    pub(super) async fn get(&self, key: &str) -> anyhow::Result<String> {
        match self {
            Self::Trireme { connection, .. } => {
                let request = GetJobRequest {
                    id: key.to_owned(),
                    read: Some(ReadOptions {
                        freshness: Freshness::Linearizable.into(),
                        at_least_revision: 0,
                    }),
                };
                let answer: GetJobResponse = connection.call(GET_JOB, &request).await?;
                Ok(answer.job.context("an answer without the job")?.id)
            }
            Self::Etcd { client, .. } => {
                let found = client.get(key.to_owned()).await?;
                let found = found.context("the key is not there")?;
                ensure!(!found.value.is_empty(), "a value of no bytes");
                Ok(found.key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_the_size_that_was_asked_for() {
        assert_eq!(prowjob(512).unwrap().len(), 512);
        let why = prowjob(10).unwrap_err().to_string();
        assert!(
            why.contains("--value-bytes 10: a ProwJob has at least"),
            "{why}"
        );
    }
}
