//! Tokens: made, listed, revoked. What is kept of one is its hash.

use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse,
        RevokeTokenRequest, RevokeTokenResponse, WhoAmIRequest, WhoAmIResponse,
        auth_service_server::AuthService,
    },
    state::{ApiToken, PutToken, RevokeToken, Role, command::Body},
};
use uuid::Uuid;

use super::{Services, caller};
use crate::auth::{new_token, token_hash};

/// A hundred years: longer is never.
const MAX_EXPIRY_SECONDS: u64 = 100 * 365 * 24 * 3600;

pub(crate) struct Door(pub(crate) Services);

fn without_hash(token: &ApiToken) -> ApiToken {
    ApiToken {
        sha256: bytes::Bytes::new(),
        ..token.clone()
    }
}

#[async_trait]
impl AuthService for Door {
    /// Not repeatable by request id: the answer to the first could not be given again.
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        if asked.role() == Role::Unspecified {
            return Err(Status::invalid_argument(
                "role: one of viewer, submitter, operator, agent",
            ));
        }
        if asked.expires_seconds > MAX_EXPIRY_SECONDS {
            return Err(Status::invalid_argument(format!(
                "expires_seconds: at most {MAX_EXPIRY_SECONDS}; 0 never expires"
            )));
        }
        let expires_ms = match i64::try_from(asked.expires_seconds).unwrap_or(0) {
            0 => 0,
            seconds => crate::auth::now_ms() + seconds * 1000,
        };
        let secret = new_token();
        let token = ApiToken {
            id: Uuid::new_v4().to_string(),
            role: asked.role,
            name: asked.name,
            sha256: token_hash(&secret).to_vec().into(),
            expires_ms,
            created_by: who.name().to_owned(),
            ..ApiToken::default()
        };
        let id = token.id.clone();
        let body = Body::PutToken(PutToken { token: Some(token) });
        let (revision, _) = self.0.propose(&who, "", body).await?;
        let view = self.0.store.at_least(revision).await;
        let token = view
            .token(&id)
            .ok_or_else(|| Status::aborted("the token was revoked as soon as it was made"))?;
        Ok(Response::new(CreateTokenResponse {
            token: Some(without_hash(token)),
            secret,
            revision,
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        let view = self.0.view(request.get_ref().read.as_ref()).await?;
        let mut tokens: Vec<ApiToken> = view.tokens().map(|token| without_hash(token)).collect();
        tokens.sort_by(|a, b| (&a.name, a.created_ms).cmp(&(&b.name, b.created_ms)));
        Ok(Response::new(ListTokensResponse {
            tokens,
            revision: view.revision,
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        let body = Body::RevokeToken(RevokeToken { id: asked.id });
        let (revision, _) = self.0.propose(&who, &asked.request_id, body).await?;
        Ok(Response::new(RevokeTokenResponse { revision }))
    }

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let who = caller(&request);
        Ok(Response::new(WhoAmIResponse {
            principal: who.name().to_owned(),
            role: who.role().into(),
            expires_ms: who.expires_ms(),
        }))
    }
}
