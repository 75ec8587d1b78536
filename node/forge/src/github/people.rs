//! Who belongs where, and who we are.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::client::Call;
use super::credentials::Behalf;
use super::server::Server;
use super::wire::{WireUser, nullable, user};
use super::{GitHub, at, segment};
use crate::error::{ForgeError, Result};
use crate::forge::{Identity, Membership, People};
use crate::types::{Account, BotUser, Permission, RepoId};

#[derive(Deserialize)]
struct WirePermission {
    permission: String,
    /// Finer than `permission`, which knows no triage and maintain.
    #[serde(default, deserialize_with = "nullable")]
    role_name: String,
}

#[derive(Deserialize)]
struct WireApp {
    #[serde(default, deserialize_with = "nullable")]
    slug: String,
}

impl GitHub {
    /// For calls that answer "no content" for yes and "not found" for no.
    async fn yes_or_no(&self, call: &Call<'_>) -> Result<bool> {
        match self.client.call(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn logins(&self, call: Call<'_>) -> Result<Vec<String>> {
        let users: Vec<WireUser> = self.client.all(call).await?;
        Ok(users.into_iter().map(|user| user.login).collect())
    }
}

#[async_trait]
impl Membership for GitHub {
    async fn is_org_member(&self, org: &str, login: &str) -> Result<bool> {
        if org == login {
            return Ok(true);
        }
        let path = format!("/orgs/{}/members/{}", segment(org), segment(login));
        self.yes_or_no(&Call::read(path, Behalf::Org(org))).await
    }

    async fn is_collaborator(&self, repo: &RepoId, login: &str) -> Result<bool> {
        if repo.org == login {
            return Ok(true);
        }
        let path = at(repo, &format!("/collaborators/{}", segment(login)));
        self.yes_or_no(&Call::read(path, Behalf::Org(&repo.org)))
            .await
    }

    async fn collaborators(&self, repo: &RepoId) -> Result<Vec<String>> {
        self.logins(Call::read(
            at(repo, "/collaborators"),
            Behalf::Org(&repo.org),
        ))
        .await
    }

    async fn permission(&self, repo: &RepoId, login: &str) -> Result<Permission> {
        let path = at(
            repo,
            &format!("/collaborators/{}/permission", segment(login)),
        );
        let wire: WirePermission = self
            .client
            .json(&Call::read(path, Behalf::Org(&repo.org)))
            .await?;
        Ok(permission(&wire.permission, &wire.role_name))
    }

    async fn team_members(&self, org: &str, slug: &str) -> Result<Vec<String>> {
        let path = format!("/orgs/{}/teams/{}/members", segment(org), segment(slug));
        self.logins(Call::read(path, Behalf::Org(org))).await
    }
}

/// A custom role's name says nothing; then the coarse word counts.
fn permission(coarse: &str, role: &str) -> Permission {
    let word = |word: &str| match word {
        "admin" => Some(Permission::Admin),
        "maintain" => Some(Permission::Maintain),
        "write" | "push" => Some(Permission::Write),
        "triage" => Some(Permission::Triage),
        "read" | "pull" => Some(Permission::Read),
        _ => None,
    };
    word(role)
        .or_else(|| word(coarse))
        .unwrap_or(Permission::None)
}

#[async_trait]
impl Identity for GitHub {
    async fn bot_user(&self, org: &str) -> Result<BotUser> {
        let server = self.client.server_of(org);
        if let Some(bot) = server.bot.get() {
            return Ok(bot.clone());
        }
        let client = self.client.at(server.index);
        let bot = if server.is_app() {
            let app: WireApp = client
                .json(&Call::read("/app".to_owned(), Behalf::Ourselves))
                .await?;
            BotUser {
                email: format!("{}@users.noreply.github.com", app.slug),
                login: app.slug,
                app: true,
            }
        } else {
            let user: WireUser = client
                .json(&Call::read("/user".to_owned(), Behalf::Ourselves))
                .await?;
            BotUser {
                login: user.login,
                email: user.email,
                app: false,
            }
        };
        Ok(server.bot.get_or_init(|| bot).clone())
    }

    fn sees_by_org(&self) -> bool {
        let servers = self.client.servers();
        servers.len() > 1 || servers.iter().any(Server::is_app)
    }
}

const AVAILABILITY: &str = "\
query($login: String!) { user(login: $login) { status { indicatesLimitedAvailability } } }";

#[derive(Deserialize)]
struct WireAvailability {
    user: Option<WireAvailable>,
}

#[derive(Deserialize)]
struct WireAvailable {
    status: Option<WireUserStatus>,
}

#[derive(Deserialize)]
struct WireUserStatus {
    #[serde(rename = "indicatesLimitedAvailability")]
    busy: bool,
}

#[async_trait]
impl People for GitHub {
    async fn account(&self, org: &str, login: &str) -> Result<Account> {
        let path = format!("/users/{}", segment(login));
        let mut wire: WireUser = self
            .client
            .json(&Call::read(path, Behalf::Org(org)))
            .await?;
        Ok(Account {
            name: std::mem::take(&mut wire.name),
            email: std::mem::take(&mut wire.email),
            user: user(Some(wire)),
        })
    }

    async fn has_limited_availability(&self, org: &str, login: &str) -> Result<bool> {
        let name = "availability of a user";
        let variables = json!({ "login": login });
        let (answer, complaint): (WireAvailability, _) = self
            .client
            .graphql(name, Some(org), AVAILABILITY, &variables)
            .await?;
        let Some(user) = answer.user else {
            return Err(ForgeError::NotFound {
                request: format!("POST /graphql ({name})"),
                message: complaint.unwrap_or_default(),
            });
        };
        Ok(user.status.is_some_and(|status| status.busy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finer_word_for_a_permission_counts() {
        assert_eq!(permission("write", "maintain"), Permission::Maintain);
        assert_eq!(permission("read", "triage"), Permission::Triage);
        assert_eq!(permission("write", "our-custom-role"), Permission::Write);
        assert_eq!(permission("admin", ""), Permission::Admin);
        assert_eq!(permission("none", ""), Permission::None);
    }
}
