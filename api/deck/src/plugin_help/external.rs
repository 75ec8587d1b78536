//! Help for a hook of Prow's that names this system in `external_plugins` (HOOK-035, HOOK-083): it asks beside the address
//! that takes its deliveries, and shows the answer as one plugin's.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    body::{Body, to_bytes},
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Command, Help, PluginHelp};
use crate::Deck;

/// Bytes of a question: some 20,000 repositories.
const MAX_QUESTION: usize = 1 << 20;

/// A repository as Prow writes it.
#[derive(Deserialize)]
struct OrgRepo {
    #[serde(rename = "Org")]
    org: String,
    #[serde(rename = "Repo")]
    repo: String,
}

/// Where the question is asked: below the path that takes webhooks.
pub(crate) fn path(webhook_path: &str) -> String {
    format!("{}/help", webhook_path.trim_end_matches('/'))
}

pub(crate) async fn answer(State(deck): State<Deck>, method: Method, body: Body) -> Response {
    let told = if method == Method::POST {
        match to_bytes(body, MAX_QUESTION).await {
            Err(why) => Err((
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("500 Internal server error reading request body: {why}\n"),
            )),
            Ok(body) => asked(&body),
        }
    } else {
        Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "405 Method not allowed\n".to_owned(),
        ))
    };
    let no_cache = [(header::CACHE_CONTROL, "no-cache")];
    match told {
        Ok(repos) => {
            let help = deck.help.help().await;
            (no_cache, axum::Json(together(&help, &repos))).into_response()
        }
        Err(refused) => (no_cache, refused).into_response(),
    }
}

/// The repositories of a question, as `org/repo`.
fn asked(body: &[u8]) -> Result<Vec<String>, (StatusCode, String)> {
    let repos: Option<Vec<OrgRepo>> = serde_json::from_slice(body).map_err(|why| {
        let told = format!("500 Internal server error unmarshalling request body: {why}\n");
        (StatusCode::INTERNAL_SERVER_ERROR, told)
    })?;
    let repos = repos.unwrap_or_default().into_iter();
    Ok(repos
        .map(|repo| format!("{}/{}", repo.org, repo.repo))
        .collect())
}

/// All commands that are heard in any of these repositories, as if one plugin heard them.
fn together(help: &Help, repos: &[String]) -> PluginHelp {
    let mut commands: BTreeMap<String, Command> = BTreeMap::new();
    let names: BTreeSet<_> = repos
        .iter()
        .flat_map(|repo| help.plugins_of(repo))
        .collect();
    for (name, is_external) in names {
        let of = help.of(&name, is_external);
        for command in of.map(|of| &of.commands).into_iter().flatten() {
            commands.insert(command.usage.clone(), command.clone());
        }
    }
    PluginHelp {
        description: "Trireme takes the deliveries that this hook forwards and runs its own plugins on them, as its \
                      configuration says. These are the commands that they hear."
            .to_owned(),
        commands: commands.into_values().collect(),
        ..PluginHelp::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_help::testing;

    #[test]
    fn hook_035_the_commands_of_the_repositories_that_are_asked_about_are_one_plugins() {
        assert_eq!(
            (path("/hook"), path("/hook/"), path("/")),
            ("/hook/help".into(), "/hook/help".into(), "/help".into())
        );
        let help = testing::help();
        let usages = |body: &str| -> Vec<String> {
            let told = together(&help, &asked(body.as_bytes()).unwrap());
            let commands = told.commands.into_iter();
            commands.map(|command| command.usage).collect()
        };
        let widget = r#"[{"Org":"acme","Repo":"widget"}]"#;
        assert!(usages(widget).contains(&"/lgtm [cancel]".to_owned()));
        let both = r#"[{"Org":"acme","Repo":"gadget"},{"Org":"other","Repo":"repo"}]"#;
        assert_eq!(usages(both), ["/[un]hold [cancel]"]);
        assert_eq!(usages("null"), [""; 0]);
        let (status, told) = asked(b"{}").unwrap_err();
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            told.starts_with("500 Internal server error unmarshalling request body: "),
            "{told}"
        );
    }
}
