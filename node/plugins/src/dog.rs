//! `dog`: pictures of dogs (PLG-FUN-002).

use async_trait::async_trait;
use serde::Deserialize;
use trireme_forge::webhook::Event;

use crate::decision::Decision;
use crate::fun::{Asking, heard, is_plain, said};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    WOOF = r"(?mi)^/(woof|bark)\s*$";
    FINE = r"(?mi)^/this-is-fine\s*$";
    NOT_FINE = r"(?mi)^/this-is-not-fine\s*$";
    UNBEARABLE = r"(?mi)^/this-is-unbearable\s*$";
    PICTURE = r"(?i)\.(jpg|gif|png)$";
}

/// Pictures that are asked for until one can be shown: many are videos.
const PICKS: usize = 5;

pub(crate) struct Dog;

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    url: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Any,
    /// One that is always the same, by its file.
    Known(&'static str),
}

fn asked(body: &str) -> Option<Asked> {
    if WOOF.is_match(body) {
        return Some(Asked::Any);
    }
    let known = [
        (&FINE, "this_is_fine.png"),
        (&NOT_FINE, "this_is_not_fine.png"),
        (&UNBEARABLE, "this_is_unbearable.jpg"),
    ];
    let mut known = known.into_iter();
    let (_, file) = known.find(|(command, _)| command.is_match(body))?;
    Some(Asked::Known(file))
}

#[async_trait]
impl Plugin for Dog {
    fn name(&self) -> &'static str {
        "dog"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        heard(cx, event).is_some_and(|comment| asked(&comment.body).is_some())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let (Some(comment), Some(asking)) = (said(event), Asking::allowed(cx)) else {
            return Ok(Decision::nothing());
        };
        let picture = match asked(&comment.body) {
            None => return Ok(Decision::nothing()),
            Some(Asked::Any) => any(&asking).await?,
            Some(Asked::Known(file)) => {
                let picture = format!("{}{file}", asking.services.fine_dogs);
                asking.is_shown(&picture).await?.then_some(picture)
            }
        };
        match picture {
            Some(picture) => {
                let shown = format!("[![dog image]({picture})]({picture})");
                Ok(vec![answer(&comment, shown)].into())
            }
            None => Err(PlanError::Failed(
                "could not find a valid dog image".to_owned(),
            )),
        }
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The dog plugin adds a dog image to an issue or PR in response to the `/woof` command.".to_owned(),
            commands: vec![Command {
                usage: "/(woof|bark|this-is-{fine|not-fine|unbearable})",
                featured: false,
                description: "Add a dog image to the issue or PR",
                examples: &["/woof", "/bark", "/this-is-{fine|not-fine|unbearable}"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }
}

async fn any(asking: &Asking<'_>) -> Result<Option<String>, PlanError> {
    let service = &asking.services.dogs;
    for _ in 0..PICKS {
        let url = match asking.json::<Found>(service, None).await? {
            Ok(found) => found.url,
            Err(status) => return Err(PlanError::Failed(format!("{service}: {status}"))),
        };
        if PICTURE.is_match(&url) && is_plain(&url) && asking.is_shown(&url).await? {
            return Ok(Some(url));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, concerns};

    /// PLG-FUN-002
    #[test]
    fn plg_fun_002_which_dog_is_meant() {
        for (body, expected) in [
            ("/woof", Some(Asked::Any)),
            ("hm\n/BARK \r\n", Some(Asked::Any)),
            ("/this-is-fine", Some(Asked::Known("this_is_fine.png"))),
            (
                "/this-is-not-fine",
                Some(Asked::Known("this_is_not_fine.png")),
            ),
            (
                "/this-is-unbearable",
                Some(Asked::Known("this_is_unbearable.jpg")),
            ),
            ("/woof woof", None),
            ("this-is-fine", None),
        ] {
            assert_eq!(asked(body), expected, "{body:?}");
            assert_eq!(
                concerns(&Dog, &comment_event("ann", body)),
                expected.is_some(),
                "{body:?}"
            );
        }
        assert!(PICTURE.is_match("https://random.dog/A.JPG"));
        assert!(!PICTURE.is_match("https://random.dog/a.mp4"));
    }
}
