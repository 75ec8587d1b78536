//! Teams of an organisation.

use async_trait::async_trait;
use serde::Deserialize;

use super::client::Call;
use super::credentials::Behalf;
use super::wire::{WireTeam, nullable};
use super::{GitHub, segment};
use crate::error::Result;
use crate::forge::Teams;
use crate::types::Team;

#[derive(Deserialize)]
struct WireMembership {
    /// `active`, or `pending` for who has not accepted the invitation.
    #[serde(default, deserialize_with = "nullable")]
    state: String,
}

#[async_trait]
impl Teams for GitHub {
    async fn teams(&self, org: &str) -> Result<Vec<Team>> {
        let path = format!("/orgs/{}/teams", segment(org));
        let wire: Vec<WireTeam> = self.client.all(Call::read(path, Behalf::Org(org))).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn team(&self, org: &str, slug: &str) -> Result<Team> {
        let path = format!("/orgs/{}/teams/{}", segment(org), segment(slug));
        let call = Call::read(path, Behalf::Org(org));
        let wire: WireTeam = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn team_members_by_id(&self, org: &str, id: u64) -> Result<Vec<String>> {
        self.logins(Call::read(format!("/teams/{id}/members"), Behalf::Org(org)))
            .await
    }

    async fn is_team_member(&self, org: &str, slug: &str, login: &str) -> Result<bool> {
        let path = format!(
            "/orgs/{}/teams/{}/memberships/{}",
            segment(org),
            segment(slug),
            segment(login)
        );
        let call = Call::read(path, Behalf::Org(org));
        match self.client.json::<WireMembership>(&call).await {
            Ok(membership) => Ok(membership.state == "active"),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
