//! Requests with their answers, kept when asked for, so that tests can judge both by GitHub's descriptions.

use bytes::Bytes;

/// Exchanges kept; the oldest go first.
pub const MAX_EXCHANGES: usize = 2_000;
/// Bytes of a body that is kept; longer ones (packs) are left out.
pub(crate) const MAX_RECORDED_BODY: usize = 4 << 20;

/// One request to the API and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// In capitals.
    pub method: String,
    /// As sent, percent-encoded.
    pub path: String,
    /// Without the question mark.
    pub query: Option<String>,
    /// Names in lower case. `authorization` is left out.
    pub request_headers: Vec<(String, String)>,
    pub request_body: Bytes,
    pub status: u16,
    pub response_headers: Vec<(String, String)>,
    pub response_body: Bytes,
}
