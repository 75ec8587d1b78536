//! `yuks`: tells jokes (PLG-FUN-004).

use async_trait::async_trait;
use serde::Deserialize;
use trireme_forge::webhook::{Event, GenericComment};

use crate::decision::Decision;
use crate::fun::{Asking, heard, said};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    JOKE = r"(?mi)^/joke\s*$";
}

pub(crate) struct Yuks;

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    joke: String,
}

#[async_trait]
impl Plugin for Yuks {
    fn name(&self) -> &'static str {
        "yuks"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        heard(cx, event).is_some_and(|comment| JOKE.is_match(&comment.body))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let asked = said(event).filter(|comment| JOKE.is_match(&comment.body));
        let (Some(comment), Some(asking)) = (asked, Asking::allowed(cx)) else {
            return Ok(Decision::nothing());
        };
        let service = &asking.services.jokes;
        match asking.json::<Told>(service, None).await? {
            Ok(told) if !told.joke.is_empty() => Ok(decide(&comment, &told.joke)),
            Ok(_) => Err(PlanError::Failed(format!(
                "result from {service} did not contain a joke"
            ))),
            Err(status) => Err(PlanError::Failed(format!("{service}: {status}"))),
        }
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The yuks plugin comments with jokes in response to the `/joke` command."
                .to_owned(),
            commands: vec![Command {
                usage: "/joke",
                featured: false,
                description: "Tells a joke.",
                examples: &["/joke"],
                who_can_use: "Anyone can use the `/joke` command.",
            }],
            ..PluginHelp::default()
        }
    }
}

fn decide(comment: &GenericComment, joke: &str) -> Decision {
    vec![answer(comment, escaped(joke))].into()
}

/// Nothing of it is Markdown.
fn escaped(joke: &str) -> String {
    let is_simple = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '?' | '\'' | '!' | '.' | ',' | ' ')
    };
    let mut text = String::new();
    for c in joke.chars() {
        match is_simple(c) {
            true => text.push(c),
            false => text.push_str(&format!("&#{};", u32::from(c))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, comment_event, concerns};

    /// PLG-FUN-004
    #[test]
    fn plg_fun_004_jokes_are_told_as_text() {
        assert!(concerns(&Yuks, &comment_event("ann", "x\n/JOKE \r\n")));
        assert!(!concerns(&Yuks, &comment_event("ann", "/joke please")));
        assert_eq!(
            escaped("It's <b>fun</b>, *really*!"),
            "It's &#60;b&#62;fun&#60;&#47;b&#62;, &#42;really&#42;!"
        );
        assert_eq!(escaped("ü\n"), "&#252;&#10;");
        let told = decide(&comment("ann", "/joke"), "What? Yes.").to_string();
        assert!(
            told.starts_with("comment: @ann: What? Yes.\n\n<details>\n\nIn response to [this]"),
            "{told}"
        );
    }
}
