//! Tide's pools, intents and the mirror of pull requests.

use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        ListIntentsRequest, ListIntentsResponse, ListPoolsRequest, ListPoolsResponse,
        ListPullRequestsRequest, ListPullRequestsResponse, pool_service_server::PoolService,
    },
    state::{MergeIntent, MergePool, PullRequest},
};

use super::Services;

pub(crate) struct Door(pub(crate) Services);

#[async_trait]
impl PoolService for Door {
    async fn list_pools(
        &self,
        request: Request<ListPoolsRequest>,
    ) -> Result<Response<ListPoolsResponse>, Status> {
        let view = self.0.view(request.get_ref().read.as_ref()).await?;
        Ok(Response::new(ListPoolsResponse {
            pools: view.pools().map(|pool| MergePool::clone(pool)).collect(),
            revision: view.revision,
        }))
    }

    async fn list_intents(
        &self,
        request: Request<ListIntentsRequest>,
    ) -> Result<Response<ListIntentsResponse>, Status> {
        let view = self.0.view(request.get_ref().read.as_ref()).await?;
        Ok(Response::new(ListIntentsResponse {
            intents: view
                .intents()
                .map(|intent| MergeIntent::clone(intent))
                .collect(),
            revision: view.revision,
        }))
    }

    async fn list_pull_requests(
        &self,
        request: Request<ListPullRequestsRequest>,
    ) -> Result<Response<ListPullRequestsResponse>, Status> {
        let asked = request.get_ref();
        let view = self.0.view(asked.read.as_ref()).await?;
        Ok(Response::new(ListPullRequestsResponse {
            pull_requests: view
                .pull_requests(&asked.org, &asked.repo)
                .map(|pull| PullRequest::clone(pull))
                .collect(),
            revision: view.revision,
        }))
    }
}
