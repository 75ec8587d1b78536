//! What an organisation has and where an app is installed: for checks of a configuration, not for controllers.

use serde::Deserialize;

use super::client::Call;
use super::credentials::Behalf;
use super::wire::WireRepo;
use super::{GitHub, segment};
use crate::error::Result;
use crate::types::Repository;

#[derive(Deserialize)]
struct WireInstallation {
    account: Option<WireAccount>,
}

#[derive(Deserialize)]
struct WireAccount {
    #[serde(default)]
    login: String,
}

impl GitHub {
    /// All repositories of an organisation that this identity sees.
    ///
    /// # Errors
    /// When GitHub does not answer, or knows no such organisation.
    pub async fn org_repositories(&self, org: &str) -> Result<Vec<Repository>> {
        let path = format!("/orgs/{}/repos", segment(org));
        let repos: Vec<WireRepo> = self.client.all(Call::read(path, Behalf::Org(org))).await?;
        Ok(repos.into_iter().map(Into::into).collect())
    }

    /// Logins of the accounts in which this app is installed.
    ///
    /// # Errors
    /// When GitHub does not answer, or we are no app.
    pub async fn app_installations(&self) -> Result<Vec<String>> {
        let call = Call::read("/app/installations".to_owned(), Behalf::Ourselves);
        let installations: Vec<WireInstallation> = self.client.all(call).await?;
        let logins = installations.into_iter().filter_map(|one| one.account);
        Ok(logins.map(|account| account.login).collect())
    }
}
