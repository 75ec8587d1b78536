//! `cat`: pictures of cats (PLG-FUN-001).

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::Event;

use crate::decision::Decision;
use crate::fun::{Asking, heard, is_plain, key, said, with_query};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    MEOW = r"(?mi)^/meow(vie)?(?: (.+))?\s*$";
    GRUMPY = r"(?mi)^(no|grumpy)\s*$";
}

const SECTION: &str = "cat";
const GRUMPY_CAT: &str = "Grumpy_Cat_by_Gage_Skidmore.jpg";

pub(crate) struct Cat;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// A file of each node.
    key_path: String,
}

#[derive(Debug, Deserialize)]
struct Found {
    #[serde(default)]
    url: String,
}

/// A wish: its category, and whether it is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    category: String,
    moves: bool,
}

impl Asked {
    fn of(body: &str) -> Option<Self> {
        let found = MEOW.captures(body)?;
        let category = found.get(2).map_or("", |category| category.as_str().trim());
        Some(Self {
            category: category.to_owned(),
            moves: found.get(1).is_some(),
        })
    }

    fn address(&self, service: &str) -> String {
        let mut parameters = Vec::new();
        if !self.category.is_empty() {
            parameters.push(("category", self.category.as_str()));
        }
        if self.moves {
            parameters.push(("mime_types", "gif"));
        }
        match parameters.as_slice() {
            [] => service.to_owned(),
            parameters => with_query(service, parameters),
        }
    }

    /// What is said where there is none.
    const fn apology(&self) -> &'static str {
        match self.category.is_empty() {
            false => "Bad category. Please see https://api.thecatapi.com/api/categories/list",
            true => "https://thecatapi.com appears to be down",
        }
    }
}

#[async_trait]
impl Plugin for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        heard(cx, event).is_some_and(|comment| MEOW.is_match(&comment.body))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let (Some(comment), Some(asking)) = (said(event), Asking::allowed(cx)) else {
            return Ok(Decision::nothing());
        };
        let Some(asked) = Asked::of(&comment.body) else {
            return Ok(Decision::nothing());
        };
        let settings: &Settings = cx.section(SECTION)?;
        let said = match picture(&asking, &asked, settings).await {
            Ok(Some(picture)) => format!("![cat image]({picture})"),
            Ok(None) => asked.apology().to_owned(),
            Err(error) if cx.last_try => {
                tracing::warn!(%error, guid = cx.guid, "no cat");
                asked.apology().to_owned()
            }
            Err(error) => return Err(error),
        };
        Ok(vec![answer(&comment, said)].into())
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let path = settings.map_or("", |settings| settings.key_path.as_str());
        let told = format!("The cat plugin uses an api key for thecatapi.com stored in {path}.");
        PluginHelp {
            description: "The cat plugin adds a cat image to an issue or PR in response to the `/meow` command.".to_owned(),
            config: Some([(String::new(), told)].into()),
            snippet: "cat:\n  key_path: /etc/cat-api/api-key\n".to_owned(),
            commands: vec![Command {
                usage: "/meow(vie) [CATegory]",
                featured: false,
                description: "Add a cat image to the issue or PR",
                examples: &["/meow", "/meow caturday", "/meowvie clothes"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |_: &mut Settings| vec![]))
    }
}

/// `None` where there is none of that kind.
async fn picture(
    asking: &Asking<'_>,
    asked: &Asked,
    settings: &Settings,
) -> Result<Option<String>, PlanError> {
    if GRUMPY.is_match(&asked.category) {
        let picture = format!("{}{GRUMPY_CAT}", asking.services.grumpy_cats);
        return Ok(asking.is_shown(&picture).await?.then_some(picture));
    }
    let address = asked.address(&asking.services.cats);
    let key = key(&settings.key_path).await;
    let key = key.and_then(|key| {
        let mut value = HeaderValue::from_str(&key).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_static("x-api-key"), value))
    });
    let found: Vec<Found> = match asking.json(&address, key).await? {
        Ok(found) => found,
        Err(status) if status.is_client_error() && !asked.category.is_empty() => return Ok(None),
        Err(status) => return Err(PlanError::Failed(format!("{address}: {status}"))),
    };
    let first = found.into_iter().map(|found| found.url).next();
    match first.filter(|url| is_plain(url)) {
        Some(url) if asking.is_shown(&url).await? => Ok(Some(url)),
        Some(url) => Err(PlanError::Failed(format!("longcat is too long: {url}"))),
        None if asked.category.is_empty() => Err(PlanError::Failed(format!(
            "no cats in response from {address}"
        ))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, concerns};

    /// PLG-FUN-001
    #[test]
    fn plg_fun_001_which_cat_is_meant() {
        for (body, category, moves) in [
            ("/meow", "", false),
            ("x\n/MEOW \r\n", "", false),
            ("/meow caturday", "caturday", false),
            ("/meowvie space & hats ", "space & hats", true),
        ] {
            let asked = Asked::of(body).unwrap();
            assert_eq!(
                (asked.category.as_str(), asked.moves),
                (category, moves),
                "{body:?}"
            );
            assert!(concerns(&Cat, &comment_event("ann", body)));
        }
        for body in ["/meowing", "meow", "/meow-x"] {
            assert_eq!(Asked::of(body), None, "{body:?}");
        }
        let address = |body: &str| Asked::of(body).unwrap().address("https://c/s?format=json");
        assert_eq!(address("/meow"), "https://c/s?format=json");
        assert_eq!(
            address("/meowvie a b"),
            "https://c/s?format=json&category=a+b&mime_types=gif"
        );
        assert!(GRUMPY.is_match("Grumpy") && GRUMPY.is_match("no") && !GRUMPY.is_match("none"));
    }
}
