//! What is asked of etcd, by the same calls as Trireme, so that a comparison compares the servers.
//!
//! The messages are those of etcd's v3 API, with the fields that are used here. The `etcd-client` crate would generate
//! all of them, but needs protoc on the machine that builds it.

use bytes::Bytes;
use tonic::Status;

use super::grpc::Connection;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

/// Without `serializable` a range is linearizable.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(string, tag = "1")]
    key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    pub(super) leader: u64,
}

/// A connection to one member.
#[derive(Debug, Clone)]
pub(crate) struct Client(Connection);

impl Client {
    pub(super) async fn connect(address: &str) -> Result<Self, Status> {
        Ok(Self(Connection::open(address).await?))
    }

    pub(super) async fn put(&self, key: String, value: Bytes) -> Result<(), Status> {
        let request = PutRequest { key, value };
        let _: PutResponse = self.0.call("/etcdserverpb.KV/Put", &request).await?;
        Ok(())
    }

    /// A linearizable read.
    pub(super) async fn get(&self, key: String) -> Result<Option<KeyValue>, Status> {
        let request = RangeRequest { key };
        let answer: RangeResponse = self.0.call("/etcdserverpb.KV/Range", &request).await?;
        Ok(answer.kvs.into_iter().next())
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, Status> {
        self.0
            .call("/etcdserverpb.Maintenance/Status", &StatusRequest {})
            .await
    }
}
