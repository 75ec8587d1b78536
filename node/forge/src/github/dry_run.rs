//! What a change would have been answered, where nothing that changes anything is sent (GHC-010).

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::transport::Answer;

/// Marks an answer that GitHub did not give.
static INVENTED: HeaderName = HeaderName::from_static("x-trireme-dry-run");

/// Tokens are needed to read, and cost nothing: Prow asks for them, too.
pub(super) fn lets_out(call: &Call<'_>) -> bool {
    let is_token =
        call.path.starts_with("/app/installations/") && call.path.ends_with("/access_tokens");
    !call.changes() || (call.method == Method::POST && is_token)
}

pub(super) fn is_invented(answer: &Answer) -> bool {
    answer.headers.contains_key(&INVENTED)
}

/// "Done", and as far as that can be told without doing it, the object as it would be then.
pub(super) fn answer(call: &Call<'_>) -> Answer {
    let long_ago = "1970-01-01T00:00:00Z";
    let mut object = json!({
        "id": 0, "number": 0, "html_url": "", "title": "", "body": "", "state": "open", "labels": [], "assignees": [],
        "user": { "login": "", "type": "User" }, "created_at": long_ago, "updated_at": long_ago,
    });
    let sent = call.body.as_deref().filter(|_| !call.graphql);
    let sent = sent.and_then(|body| serde_json::from_str(body).ok());
    if let Some(Value::Object(sent)) = sent.filter(|_| call.method != Method::DELETE) {
        for (name, value) in sent {
            let (name, key) = match name.as_str() {
                "assignees" => ("assignees", "login"),
                "reviewers" => ("requested_reviewers", "login"),
                "team_reviewers" => ("requested_teams", "slug"),
                "labels" => ("labels", "name"),
                other => (other, ""),
            };
            object[name] = match value {
                Value::Array(list) if !key.is_empty() => {
                    list.into_iter().map(|one| json!({ key: one })).collect()
                }
                value => value,
            };
        }
    }
    if call.graphql {
        object = json!({ "data": {} });
    } else if call.path.ends_with("/merge") {
        // The commit of a merge that was not made is not known, and nobody may believe in one.
        object = json!({});
    }
    Answer {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(INVENTED.clone(), HeaderValue::from_static("1"))]),
        body: object.to_string().into(),
    }
}
