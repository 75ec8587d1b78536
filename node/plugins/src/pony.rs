//! `pony`: pictures of little ponies (PLG-FUN-003).

use async_trait::async_trait;
use http::StatusCode;
use serde::Deserialize;
use trireme_forge::webhook::Event;

use crate::decision::Decision;
use crate::fun::{Asking, heard, is_plain, said, with_query};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    PONY = r"(?mi)^/(?:pony)(?: +(.+?))?\s*$";
}

/// Of one comment.
const MAX_PONIES: usize = 5;

pub(crate) struct Pony;

#[derive(Deserialize)]
struct Found {
    pony: Represented,
}

#[derive(Deserialize)]
struct Represented {
    representations: Representations,
}

#[derive(Deserialize)]
struct Representations {
    full: String,
    small: String,
}

/// The ponies that a text asks for, by name; empty for any.
fn asked(body: &str) -> Vec<&str> {
    let found = PONY.captures_iter(body).take(MAX_PONIES);
    found
        .map(|found| found.get(1).map_or("", |tag| tag.as_str()))
        .collect()
}

fn apology(asked: &[&str]) -> &'static str {
    match asked.iter().any(|tag| !tag.is_empty()) {
        true => "Couldn't find a pony matching given tag(s).",
        false => "https://theponyapi.com appears to be down",
    }
}

#[async_trait]
impl Plugin for Pony {
    fn name(&self) -> &'static str {
        "pony"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        heard(cx, event).is_some_and(|comment| PONY.is_match(&comment.body))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let (Some(comment), Some(asking)) = (said(event), Asking::allowed(cx)) else {
            return Ok(Decision::nothing());
        };
        let asked = asked(&comment.body);
        if asked.is_empty() {
            return Ok(Decision::nothing());
        }
        let (mut shown, mut failed) = (String::new(), None);
        for tag in &asked {
            match picture(&asking, tag).await {
                Ok(Some((small, full))) => {
                    shown.push_str(&format!("[![pony image]({small})]({full})\n"));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        let said = match (shown.is_empty(), failed) {
            // Those that were found are shown, whatever became of the others.
            (false, _) => shown,
            (true, Some(error)) if !cx.last_try => return Err(error),
            (true, failed) => {
                if let Some(error) = failed {
                    tracing::warn!(%error, guid = cx.guid, "no pony");
                }
                apology(&asked).to_owned()
            }
        };
        Ok(vec![answer(&comment, said)].into())
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The pony plugin adds a pony image to an issue or PR in response to the `/pony` command.".to_owned(),
            commands: vec![Command {
                usage: "/(pony) [pony]",
                featured: false,
                description: "Add a little pony image to the issue or PR. A particular pony can optionally be named for a picture of that specific pony.",
                examples: &["/pony", "/pony Twilight Sparkle"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }
}

/// A small picture and a full one; `None` if there is no such pony, or it is too big.
async fn picture(asking: &Asking<'_>, tag: &str) -> Result<Option<(String, String)>, PlanError> {
    let address = with_query(&asking.services.ponies, &[("q", tag)]);
    let found = match asking.json::<Found>(&address, None).await? {
        Ok(found) => found.pony.representations,
        Err(StatusCode::NOT_FOUND) => return Ok(None),
        Err(status) => return Err(PlanError::Failed(format!("{address}: {status}"))),
    };
    let is_shown =
        is_plain(&found.small) && is_plain(&found.full) && asking.is_shown(&found.small).await?;
    Ok(is_shown.then_some((found.small, found.full)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, concerns};

    #[test]
    fn plg_fun_003_several_ponies_may_be_asked_for() {
        assert_eq!(asked("/pony"), [""]);
        assert_eq!(
            asked("/PONY  Twilight Sparkle \r\n/pony\nx"),
            ["Twilight Sparkle", ""]
        );
        assert_eq!(asked(&"/pony\n".repeat(9)).len(), MAX_PONIES);
        assert!(!concerns(&Pony, &comment_event("ann", "/ponytail")));
        assert!(concerns(&Pony, &comment_event("ann", "/pony")));
        assert_eq!(
            apology(&["", "x"]),
            "Couldn't find a pony matching given tag(s)."
        );
        assert_eq!(apology(&[""]), "https://theponyapi.com appears to be down");
    }
}
