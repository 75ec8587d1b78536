//! GraphQL: one door for queries and mutations, whose complaints come with a status that says "fine" (GHC-015, GHC-022).

use http::Method;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::answer::decode;
use super::call::{Call, Effect};
use super::client::Client;
use super::credentials::Behalf;
use super::dry_run;
use super::transport::Answer;
use crate::error::{ForgeError, Result};

/// What an answer says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Points of the budget, if the query asked for them.
    pub(super) cost: Option<u64>,
    /// Why there are no data, where that passes by itself.
    pub(super) refusal: Option<Refusal>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    RateLimited,
    /// GitHub's servers gave up on it.
    GaveUp(String),
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    message: String,
}

/// GitHub's words for a query that its servers gave up on.
const GAVE_UP: &str = "Something went wrong while executing your query";

pub(super) fn peek(answer: &Answer) -> Told {
    #[derive(Deserialize)]
    struct Peek {
        #[serde(default)]
        data: Option<Data>,
        #[serde(default)]
        errors: Vec<Complaint>,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "rateLimit", default)]
        rate_limit: Option<RateLimit>,
        #[serde(flatten)]
        _rest: IgnoredAny,
    }
    #[derive(Deserialize)]
    struct RateLimit {
        #[serde(default)]
        cost: u64,
    }
    let Ok(peek) = serde_json::from_slice::<Peek>(&answer.body) else {
        // Whoever wants it decodes it, and says what is wrong.
        return Told {
            cost: None,
            refusal: None,
        };
    };
    let has_data = peek.data.is_some();
    let cost = peek.data.and_then(|data| data.rate_limit);
    let refusal = peek.errors.into_iter().find_map(|error| {
        if error.kind.as_deref() == Some("RATE_LIMITED") {
            Some(Refusal::RateLimited)
        } else if error.message.contains(GAVE_UP) {
            Some(Refusal::GaveUp(error.message))
        } else {
            None
        }
    });
    Told {
        cost: cost.map(|limit| limit.cost),
        refusal: refusal.filter(|_| !has_data),
    }
}

fn is_mutation(query: &str) -> bool {
    let word = |c: char| !c.is_ascii_alphabetic();
    let first = query
        .lines()
        .map(str::trim_start)
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.split(word).next() == Some("mutation"))
}

impl Client {
    /// A GraphQL query. The data, and GitHub's complaints if it made any beside it.
    pub(super) async fn graphql<T: DeserializeOwned>(
        &self,
        name: &str,
        org: Option<&str>,
        query: &str,
        variables: &serde_json::Value,
    ) -> Result<(T, Option<String>)> {
        self.graphql_as(Effect::Read, name, org, query, variables)
            .await
    }

    /// A GraphQL query or mutation. A mutation has the deadline of one and is not sent in a dry run, whatever it is taken
    /// for.
    pub(super) async fn graphql_as<T: DeserializeOwned>(
        &self,
        effect: Effect,
        name: &str,
        org: Option<&str>,
        query: &str,
        variables: &serde_json::Value,
    ) -> Result<(T, Option<String>)> {
        #[derive(Deserialize)]
        struct GraphQl<T> {
            #[serde(default = "none")]
            data: Option<T>,
            #[serde(default)]
            errors: Vec<Complaint>,
        }
        fn none<T>() -> Option<T> {
            None
        }

        let call = Call {
            method: Method::POST,
            path: format!("/graphql ({name})"),
            body: Some(serde_json::json!({ "query": query, "variables": variables }).to_string()),
            behalf: org.map_or(Behalf::Ourselves, Behalf::Org),
            effect: match effect {
                Effect::Read | Effect::ReadNew if is_mutation(query) => Effect::Once,
                effect => effect,
            },
            graphql: true,
        };
        let raw = self.call(&call).await?;
        let answer: GraphQl<T> = decode(&call, &raw)?;
        let complaints = answer
            .errors
            .iter()
            .map(|error| error.message.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        if let Some(data) = answer.data {
            return Ok((data, (!complaints.is_empty()).then_some(complaints)));
        }
        let request = call.name();
        if dry_run::is_invented(&raw) {
            return Err(ForgeError::DryRun { request });
        }
        let kind = answer.errors.iter().find_map(|error| error.kind.as_deref());
        Err(match kind {
            Some("NOT_FOUND") => ForgeError::NotFound {
                request,
                message: complaints,
            },
            Some("FORBIDDEN" | "INSUFFICIENT_SCOPES") => ForgeError::Forbidden {
                request,
                message: complaints,
            },
            _ => ForgeError::Refused {
                request,
                status: 200,
                message: complaints,
                errors: vec![],
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn told(body: &'static str) -> Told {
        peek(&Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.into(),
        })
    }

    #[test]
    fn ghc_022_what_an_answer_cost_and_why_it_is_none() {
        let fine =
            told(r#"{"data":{"rateLimit":{"cost":3,"remaining":4},"search":{"nodes":[{}]}}}"#);
        assert_eq!((fine.cost, fine.refusal), (Some(3), None));
        let limited = told(r#"{"data":null,"errors":[{"type":"RATE_LIMITED","message":"no"}]}"#);
        assert_eq!(limited.refusal, Some(Refusal::RateLimited));
        let partly = told(r#"{"data":{"search":null},"errors":[{"type":"RATE_LIMITED"}]}"#);
        assert_eq!(partly.refusal, None);
        let gave_up = told(
            r#"{"errors":[{"message":"Something went wrong while executing your query. x"}]}"#,
        );
        assert!(matches!(gave_up.refusal, Some(Refusal::GaveUp(_))));
        assert_eq!(told("<html>").refusal, None);
    }

    #[test]
    fn ghc_010_mutations_are_told_from_queries() {
        assert!(is_mutation("\n  # pins\n  mutation($id: ID!) { pinIssue }"));
        assert!(is_mutation("mutation { x }") && is_mutation("mutation Pin { x }"));
        assert!(!is_mutation("query($mutation: String!) { x }"));
        assert!(!is_mutation("{ mutation }") && !is_mutation("mutations { x }"));
    }
}
