//! `goose`: pictures of geese (PLG-FUN-003).

use async_trait::async_trait;
use http::{HeaderValue, header};
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::Event;

use crate::decision::Decision;
use crate::fun::{Asking, heard, is_plain, key, said};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    HONK = r"(?mi)^/(honk)\s*$";
}

const SECTION: &str = "goose";
const APOLOGY: &str = "Unable to find goose. Have you checked the garden?";

pub(crate) struct Goose;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// A file of each node.
    key_path: String,
}

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    urls: Sizes,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sizes {
    small: String,
}

#[async_trait]
impl Plugin for Goose {
    fn name(&self) -> &'static str {
        "goose"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        heard(cx, event).is_some_and(|comment| HONK.is_match(&comment.body))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let asked = said(event).filter(|comment| HONK.is_match(&comment.body));
        let (Some(comment), Some(asking)) = (asked, Asking::allowed(cx)) else {
            return Ok(Decision::nothing());
        };
        let said = match picture(&asking, cx.section(SECTION)?).await {
            Ok(picture) => format!("\n![goose image]({picture})"),
            Err(error) if cx.last_try => {
                tracing::warn!(%error, guid = cx.guid, "no goose");
                APOLOGY.to_owned()
            }
            Err(error) => return Err(error),
        };
        Ok(vec![answer(&comment, said)].into())
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let path = settings.map_or("", |settings| settings.key_path.as_str());
        let told = format!("The goose plugin uses an api key for unsplash.com stored in {path}.");
        PluginHelp {
            description: "The goose plugin adds a goose image to an issue or PR in response to the `/honk` command.".to_owned(),
            config: Some([(String::new(), told)].into()),
            snippet: "goose:\n  key_path: /etc/unsplash-api/honk.txt\n".to_owned(),
            commands: vec![Command {
                usage: "/honk",
                featured: false,
                description: "Add a goose image to the issue or PR",
                examples: &["/honk"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |_: &mut Settings| vec![]))
    }
}

async fn picture(asking: &Asking<'_>, settings: &Settings) -> Result<String, PlanError> {
    let service = &asking.services.geese;
    let key = key(&settings.key_path).await;
    let key = key.and_then(|key| {
        let mut value = HeaderValue::from_str(&format!("Client-ID {key}")).ok()?;
        value.set_sensitive(true);
        Some((header::AUTHORIZATION, value))
    });
    let url = match asking.json::<Found>(service, key).await? {
        Ok(found) => found.urls.small,
        Err(status) => return Err(PlanError::Failed(format!("{service}: {status}"))),
    };
    if !is_plain(&url) {
        let why = format!("no image url in response from {service}");
        return Err(PlanError::Failed(why));
    }
    match asking.is_shown(&url).await? {
        true => Ok(url),
        false => Err(PlanError::Failed(format!("long goose is too long: {url}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, concerns};

    #[test]
    fn plg_fun_003_geese_honk() {
        assert!(concerns(&Goose, &comment_event("ann", "/Honk \r\n")));
        assert!(!concerns(&Goose, &comment_event("ann", "/honk loudly")));
    }
}
