//! The page of plugins (DECK-076): which are on where, what they do, and which of them are not built yet.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};

use super::{Asked, Help, commands::anchor, safe_html::safe_html};
use crate::{Deck, html};

/// In a description: it is better not turned on.
const DEPRECATED: &str = "deprecated!";

struct Card {
    name: String,
    external: bool,
    /// Why there is nothing to say about it.
    missing: &'static str,
    deprecated: bool,
    /// HTML; all of it.
    description: String,
    /// Orgs and repositories.
    places: Vec<String>,
    /// Where, and what is configured there (HTML).
    config: Vec<(String, String)>,
    events: Vec<String>,
    /// Usages, each with where it is on the page of commands.
    commands: Vec<(String, String)>,
    snippet: String,
}

fn cards(help: &Help, asked: &Asked) -> Vec<Card> {
    let repo = asked.repo.trim();
    let wanted = asked.q.trim().to_lowercase();
    let card = |(name, external): (String, bool)| {
        let places = help.places_of(&name, external);
        let places = places.into_iter().map(str::to_owned).collect();
        let told = help.of(&name, external);
        let missing = match (told.is_some(), external) {
            (true, _) => "",
            (false, true) => "it did not answer",
            (false, false) => "not built yet",
        };
        let told = told.cloned().unwrap_or_default();
        let config = told.config.into_iter().flatten();
        Card {
            name,
            external,
            missing,
            deprecated: told.description.to_lowercase().contains(DEPRECATED),
            description: safe_html(&told.description),
            places,
            config: config
                .filter(|(of, _)| repo.is_empty() || of.is_empty() || of == repo)
                .map(|(of, text)| (of, safe_html(&text)))
                .collect(),
            events: told.events,
            commands: told
                .commands
                .into_iter()
                .map(|command| (anchor(&command.usage), command.usage))
                .collect(),
            snippet: told.snippet,
        }
    };
    let fits = |card: &Card| {
        let mut texts = [&card.name, &card.description].into_iter();
        wanted.is_empty() || texts.any(|text| text.to_lowercase().contains(&wanted))
    };
    help.plugins_of(repo)
        .into_iter()
        .map(card)
        .filter(fits)
        .collect()
}

#[derive(Template)]
#[template(path = "plugins.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    asked: Asked,
    help: Arc<Help>,
    cards: Vec<Card>,
    /// Of these, how many are not built.
    not_built: usize,
}

impl Page {
    fn new(asked: Asked, help: Arc<Help>, revision: u64, node: u64) -> Self {
        let cards = cards(&help, &asked);
        let is_not_built = |card: &&Card| !card.external && !card.missing.is_empty();
        Self {
            page: "plugins",
            revision,
            node,
            not_built: cards.iter().filter(is_not_built).count(),
            cards,
            asked,
            help,
        }
    }
}

pub(crate) async fn page(State(deck): State<Deck>, Query(asked): Query<Asked>) -> Response {
    let help = deck.help.help().await;
    let revision = deck.store.view().revision;
    html(&Page::new(asked, help, revision, deck.store.node_id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_help::testing::help;

    fn page(repo: &str, q: &str) -> Page {
        let asked = Asked {
            repo: repo.to_owned(),
            q: q.to_owned(),
        };
        Page::new(asked, Arc::new(help()), 1, 1)
    }

    /// DECK-076; and what is enabled by name without being built in says so.
    #[test]
    fn deck_076_every_plugin_has_a_card_and_says_when_it_is_not_built() {
        let told = |repo: &str, q: &str| {
            let cards = page(repo, q).cards.into_iter();
            let told = cards.map(|card| format!("{} {}", card.name, card.missing));
            told.map(|told| told.trim().to_owned())
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!(
            told("acme/widget", ""),
            "cat not built yet, echo, hold, lgtm, mute it did not answer"
        );
        assert_eq!(told("", "drafts"), "wip");
        let page = page("acme/gadget", "");
        assert_eq!(page.not_built, 1);
        let text = page.render().unwrap();
        assert!(
            text.contains("id=\"cat\"") && text.contains("not built yet"),
            "{text}"
        );
        assert!(text.contains("href=\"/command-help#[un]hold\""), "{text}");
        assert!(
            !text.contains("It is <b>on</b>."),
            "of another repository: {text}"
        );
    }
}
