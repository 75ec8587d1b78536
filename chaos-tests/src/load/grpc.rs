//! Unary gRPC calls straight on HTTP/2. The servers share their processor with whoever measures them, and a client with
//! queues, middleware and tasks of its own costs a quarter of a small call.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{Request, StatusCode, header, uri::Authority};
use prost::Message;
use tokio::{net::TcpStream, time::timeout};
use tonic::{Code, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Credit for answers on one connection.
const WINDOW_BYTES: u32 = 1 << 20;

/// A connection to one server, which is not made again once it is lost. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    authority: Authority,
}

fn lost(why: impl std::fmt::Display) -> Status {
    Status::unavailable(why.to_string())
}

impl Connection {
    /// To host:port. Fails when nobody answers within 2 s.
    pub(super) async fn open(address: &str) -> Result<Self, Status> {
        let opened = timeout(CONNECT_TIMEOUT, Self::open_now(address)).await;
        opened.map_err(lost)?
    }

    async fn open_now(address: &str) -> Result<Self, Status> {
        let authority: Authority = address.parse().map_err(lost)?;
        let stream = TcpStream::connect(address).await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(lost)?;
        // What ends it is told to every call.
        tokio::spawn(connection);
        Ok(Self {
            requests,
            authority,
        })
    }

    /// Calls `/package.Service/Method`.
    pub(super) async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        message: &impl Message,
    ) -> Result<A, Status> {
        let uri = http::Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(method);
        let request = uri.build().and_then(|uri| {
            Request::post(uri)
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .body(())
        });
        let request = request.map_err(|why| Status::internal(why.to_string()))?;
        let mut requests = self.requests.clone().ready().await.map_err(lost)?;
        let (answer, mut body) = requests.send_request(request, false).map_err(lost)?;
        body.send_data(framed(message)?, true).map_err(lost)?;
        let (head, body) = answer.await.map_err(lost)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(lost(head.status));
        }
        // A refusal without a body has its status among its headers.
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Err(status);
        }
        answered(body).await
    }
}

fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).map_err(|_| Status::internal("too long a message"))?);
    message
        .encode(&mut bytes)
        .map_err(|why| Status::internal(why.to_string()))?;
    Ok(bytes.freeze())
}

async fn answered<A: Message + Default>(mut body: RecvStream) -> Result<A, Status> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(lost)?;
        body.flow_control()
            .release_capacity(chunk.len())
            .map_err(lost)?;
        bytes.extend_from_slice(&chunk);
    }
    let trailers = body.trailers().await.map_err(lost)?.unwrap_or_default();
    match Status::from_header_map(&trailers) {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => return Err(status),
        None => return Err(Status::unknown("an answer without a status")),
    }
    let malformed = |why: &str| Status::internal(format!("an answer that is no message: {why}"));
    if bytes.len() < PREFIX_BYTES || bytes.get_u8() != 0 {
        return Err(malformed("no prefix, or compressed"));
    }
    if bytes.get_u32() as usize != bytes.len() {
        return Err(malformed("of another length"));
    }
    A::decode(bytes).map_err(|why| malformed(&why.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tonic_health::pb::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    };

    use super::*;

    /// Against a server that is not ours.
    #[tokio::test]
    async fn calls_are_answered_or_refused() {
        let (_reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let connection = Connection::open(&address).await.unwrap();
        let ask = async |method, service: &str| -> Result<HealthCheckResponse, Status> {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            connection.call(method, &request).await
        };
        let check = "/grpc.health.v1.Health/Check";
        let known = ask(check, "").await.unwrap();
        assert_eq!(known.status(), ServingStatus::Serving);
        let unknown = ask(check, "nothing").await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        let no_method = ask("/grpc.health.v1.Health/Nothing", "").await;
        assert_eq!(no_method.unwrap_err().code(), Code::Unimplemented);
        assert!(Connection::open("127.0.0.1:1").await.is_err());
    }
}
