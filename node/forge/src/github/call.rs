//! What is asked of GitHub: one call, and what may happen if it is sent twice.

use http::{HeaderValue, Method};

use super::credentials::Behalf;

pub(super) const JSON: &str = "application/vnd.github+json";

/// Older Enterprise servers tell what Tide asks for only to those who name these (GHC-015).
const GRAPHQL: &str = "application/vnd.github+json, application/vnd.github.antiope-preview+json, application/vnd.github.merge-info-preview+json";

/// What may happen if a request is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Effect {
    /// Nothing: it only reads.
    Read,
    /// Nothing: it only reads, and what it reads about is so new that GitHub may not find it yet.
    ReadNew,
    /// The same as if it is sent once.
    Idempotent,
    /// Something else: never sent again unless it certainly did nothing.
    Once,
}

#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Below the API's root, with query: `/repos/o/r/pulls/1?x=y`.
    pub(super) path: String,
    pub(super) body: Option<String>,
    pub(super) behalf: Behalf<'a>,
    pub(super) effect: Effect,
    pub(super) graphql: bool,
}

impl<'a> Call<'a> {
    pub(super) fn read(path: String, behalf: Behalf<'a>) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            behalf,
            effect: Effect::Read,
            graphql: false,
        }
    }

    pub(super) fn read_new(path: String, behalf: Behalf<'a>) -> Self {
        Self {
            effect: Effect::ReadNew,
            ..Self::read(path, behalf)
        }
    }

    pub(super) fn change(
        method: Method,
        path: String,
        behalf: Behalf<'a>,
        effect: Effect,
        body: Option<&serde_json::Value>,
    ) -> Self {
        Self {
            method,
            body: body.map(ToString::to_string),
            effect,
            ..Self::read(path, behalf)
        }
    }

    /// How the call is named in errors and logs.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(super) fn changes(&self) -> bool {
        matches!(self.effect, Effect::Idempotent | Effect::Once)
    }

    pub(super) fn accept(&self) -> HeaderValue {
        HeaderValue::from_static(if self.graphql { GRAPHQL } else { JSON })
    }

    /// Which of GitHub's budgets it is counted against.
    pub(super) fn api(&self) -> Api {
        if self.graphql {
            Api::GraphQl
        } else if self.path.starts_with("/search/") {
            Api::Search
        } else {
            Api::Rest
        }
    }
}

/// GitHub counts these apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Api {
    Rest,
    GraphQl,
    /// REST's search: a few questions a minute.
    Search,
}

impl Api {
    /// GitHub's own word for the resource.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Rest => "core",
            Self::GraphQl => "graphql",
            Self::Search => "search",
        }
    }

    /// Prow's word for the version of the API.
    pub(super) fn version(self) -> &'static str {
        match self {
            Self::GraphQl => "v4",
            Self::Rest | Self::Search => "v3",
        }
    }
}
