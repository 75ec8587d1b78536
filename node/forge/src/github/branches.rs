//! Deleting branches, and what protects them.

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::wire::nullable;
use super::{GitHub, at, segment, segments};
use crate::error::{ForgeError, Result};
use crate::forge::Branches;
use crate::types::RepoId;

#[derive(Deserialize)]
struct WireProtection {
    #[serde(default)]
    required_status_checks: Option<WireRequired>,
}

#[derive(Deserialize)]
struct WireRequired {
    #[serde(default, deserialize_with = "nullable")]
    contexts: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    checks: Vec<WireCheck>,
}

#[derive(Deserialize)]
struct WireCheck {
    #[serde(default, deserialize_with = "nullable")]
    context: String,
}

impl WireRequired {
    /// GitHub is moving from `contexts` to `checks`; both are told, mostly the same.
    fn all(self) -> Vec<String> {
        let mut all = self.contexts;
        for check in self.checks {
            if !check.context.is_empty() && !all.contains(&check.context) {
                all.push(check.context);
            }
        }
        all
    }
}

#[async_trait]
impl Branches for GitHub {
    async fn delete_branch(&self, repo: &RepoId, branch: &str) -> Result<()> {
        let call = Call::change(
            Method::DELETE,
            at(repo, &format!("/git/refs/heads/{}", segments(branch))),
            Behalf::Org(&repo.org),
            Effect::Idempotent,
            None,
        );
        match self.client.call(&call).await {
            Err(ForgeError::Refused {
                status: 422,
                message,
                ..
            }) if message.contains("Reference does not exist") => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }

    async fn required_contexts(&self, repo: &RepoId, branch: &str) -> Result<Vec<String>> {
        let path = format!("/branches/{}/protection", segment(branch));
        let call = Call::read(at(repo, &path), Behalf::Org(&repo.org));
        match self.client.json::<WireProtection>(&call).await {
            Ok(protection) => Ok(protection
                .required_status_checks
                .map(WireRequired::all)
                .unwrap_or_default()),
            // GHC-018. Any other 404 is a missing branch, or a right that we lack.
            Err(ForgeError::NotFound { message, .. }) if message == "Branch not protected" => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_and_checks_are_one_list() {
        let required: WireRequired = serde_json::from_str(
            r#"{"contexts": ["a", "b"], "checks": [{"context": "b", "app_id": 1}, {"context": "c"}]}"#,
        )
        .unwrap();
        assert_eq!(required.all(), ["a", "b", "c"]);
    }
}
