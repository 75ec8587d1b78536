//! The mutations that REST has no equal of: transferring, pinning and unpinning issues.

use apollo_compiler::resolvers::{AsyncObjectValue, AsyncResolvedValue, FieldError, ResolveInfo};
use apollo_compiler::response::{JsonMap, JsonValue};
use futures::future::BoxFuture;
use serde_json::json;

use super::Root;
use super::record::{Record, typed};
use crate::actor::Actor;
use crate::forge::{NodeKind, Refusal, RepoName};
use crate::render::node_id;

/// The mutation type.
pub(super) struct Mutations(pub(super) Root);

impl AsyncObjectValue for Mutations {
    fn type_name(&self) -> &str {
        "Mutation"
    }

    fn resolve_field<'a>(
        &'a self,
        info: &'a ResolveInfo<'a>,
    ) -> BoxFuture<'a, Result<AsyncResolvedValue<'a>, FieldError>> {
        Box::pin(async move {
            let empty = JsonMap::new();
            let input = info.arguments().get("input");
            let input = input.and_then(JsonValue::as_object).unwrap_or(&empty);
            let payload = match info.field_name() {
                "transferIssue" => self.transfer(input)?,
                "pinIssue" => self.pin(input, true)?,
                "unpinIssue" => self.pin(input, false)?,
                _ => return Err(self.unknown_field_error(info)),
            };
            Ok(AsyncResolvedValue::nullable_object(Some(payload)))
        })
    }
}

fn text<'i>(input: &'i JsonMap, name: &str) -> &'i str {
    let value = input.get(name).and_then(JsonValue::as_str);
    value.unwrap_or_default()
}

impl Mutations {
    fn actor(&self) -> Actor {
        Actor {
            engine: self.0.engine.clone(),
            login: self.0.login.clone(),
        }
    }

    /// GitHub's `type` and words for a refusal.
    fn refused(&self, mutation: &str, refusal: Refusal) -> FieldError {
        match refusal.status {
            403 => typed(
                "FORBIDDEN",
                format!(
                    "{} does not have the correct permissions to execute `{mutation}`",
                    self.0.login
                ),
            ),
            404 => typed("NOT_FOUND", refusal.message),
            _ => typed("UNPROCESSABLE", refusal.message),
        }
    }

    fn node(&self, id: &str) -> Result<NodeKind, FieldError> {
        let found = self
            .0
            .engine
            .read(|forge| forge.node(&self.0.login, id, node_id));
        found.ok_or_else(|| {
            typed(
                "NOT_FOUND",
                format!("Could not resolve to a node with the global id of '{id}'"),
            )
        })
    }

    fn issue(&self, input: &JsonMap) -> Result<(RepoName, u64), FieldError> {
        let id = text(input, "issueId");
        match self.node(id)? {
            NodeKind::Issue(repo, number) => Ok((repo, number)),
            NodeKind::PullRequest(..) | NodeKind::Repository(_) => Err(typed(
                "NOT_FOUND",
                format!("Could not resolve to Issue node with the global id of '{id}'."),
            )),
        }
    }

    fn show(&self, kind: &'static str, input: &JsonMap, repo: &RepoName, number: u64) -> Record {
        let issue = self.0.show(|objects| {
            let (repo, issue) = objects.render.forge.issue(repo, number).ok()?;
            Some(objects.item(repo, issue))
        });
        let client = input.get("clientMutationId").cloned();
        let client = client.and_then(|id| id.as_str().map(str::to_owned));
        Record::new(kind)
            .with("clientMutationId", json!(client))
            .with("issue", issue)
    }

    fn transfer(&self, input: &JsonMap) -> Result<Record, FieldError> {
        let (repo, number) = self.issue(input)?;
        let id = text(input, "repositoryId");
        let NodeKind::Repository(to) = self.node(id)? else {
            return Err(typed(
                "NOT_FOUND",
                format!("Could not resolve to Repository node with the global id of '{id}'."),
            ));
        };
        let moved = self.actor().transfer_issue(&repo, number, &to);
        let number = moved.map_err(|refusal| self.refused("TransferIssue", refusal))?;
        Ok(self.show("TransferIssuePayload", input, &to, number))
    }

    fn pin(&self, input: &JsonMap, pinned: bool) -> Result<Record, FieldError> {
        let (repo, number) = self.issue(input)?;
        let done = self.actor().pin_issue(&repo, number, pinned);
        let mutation = if pinned { "PinIssue" } else { "UnpinIssue" };
        done.map_err(|refusal| self.refused(mutation, refusal))?;
        if pinned {
            return Ok(self.show("PinIssuePayload", input, &repo, number));
        }
        let id = text(input, "issueId");
        let shown = self.show("UnpinIssuePayload", input, &repo, number);
        Ok(shown.with("id", json!(id)))
    }
}
