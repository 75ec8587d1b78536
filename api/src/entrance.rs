//! What every request passes: the bound of requests at once, the guard, then its gRPC service or the router of the rest.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::Request,
    http,
    response::{IntoResponse as _, Response},
};
use futures::future::BoxFuture;
use tonic::{body::Body as GrpcBody, server::NamedService};
use tower::{Service, ServiceExt as _};

use crate::{
    auth::{Gate, guard},
    flow::Flow,
};

type Answering<B> = BoxFuture<'static, Result<http::Response<B>, Infallible>>;

type Call = dyn Fn(Request) -> Answering<GrpcBody> + Send + Sync;

/// gRPC services by name. A call finds its own by one look at its path; tonic's `Routes` would take each through a second
/// router and more boxes, at a twentieth of what a small call costs.
#[derive(Default)]
pub(crate) struct GrpcServices(HashMap<&'static str, Box<Call>>);

impl GrpcServices {
    /// Takes services as tonic generates them: they are always ready.
    pub(crate) fn with<S>(mut self, service: S) -> Self
    where
        S: Service<
                Request,
                Response = http::Response<GrpcBody>,
                Error = Infallible,
                Future = Answering<GrpcBody>,
            > + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let call = move |request| service.clone().call(request);
        self.0.insert(S::NAME, Box::new(call));
        self
    }
}

/// The service in `/package.Service/Method`.
fn service_name(path: &str) -> Option<&str> {
    let (service, _) = path.strip_prefix('/')?.split_once('/')?;
    Some(service)
}

/// Whether the caller reads gRPC's codes; everybody else reads a page or a line.
pub(crate) fn is_grpc(request: &Request) -> bool {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// All that is served.
pub(crate) struct Inside {
    pub(crate) grpc: GrpcServices,
    pub(crate) rest: Router,
}

impl Inside {
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let called = service_name(request.uri().path()).and_then(|name| self.grpc.0.get(name));
        let answered = match called {
            Some(call) => {
                let answered = call(request).await;
                answered.map(|response| response.map(axum::body::Body::new))
            }
            None => self.rest.clone().oneshot(request).await,
        };
        match answered {
            Ok(response) => response,
            Err(never) => never.into_response(),
        }
    }
}

struct Gates {
    flow: Arc<Flow>,
    gate: Gate,
    inside: Inside,
}

/// One layer around everything, cheap to clone.
#[derive(Clone)]
pub(crate) struct Entrance(Arc<Gates>);

impl Entrance {
    pub(crate) fn new(flow: Arc<Flow>, gate: Gate, inside: Inside) -> Self {
        Self(Arc::new(Gates { flow, gate, inside }))
    }
}

impl Service<Request> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering<axum::body::Body>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let gates = Arc::clone(&self.0);
        Box::pin(async move {
            // What is too much is refused before anything is asked about it.
            Ok(match gates.flow.admit(&request) {
                Ok(_admitted) => guard(&gates.gate, request, &gates.inside).await,
                Err(refused) => *refused,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_service() {
        assert_eq!(service_name("/a.v1.Jobs/Get"), Some("a.v1.Jobs"));
        assert_eq!(service_name("/hook"), None);
        assert_eq!(service_name("/view/gs/x"), Some("view"));
        assert_eq!(service_name(""), None);
    }
}
