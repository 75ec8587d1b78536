//! The page of commands (DECK-075): what one may write, who may, and which plugin hears it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};

use super::{Asked, Help, safe_html::safe_html};
use crate::{Deck, html};

struct Row {
    /// For links: `#un_hold`.
    id: String,
    usage: String,
    featured: bool,
    /// HTML.
    description: String,
    /// HTML.
    examples: Vec<String>,
    /// HTML.
    who: String,
    plugin: String,
    external: bool,
}

/// The command's first word without slash and brackets, as Prow's Deck makes its anchors: `-` is `_`.
pub(super) fn anchor(usage: &str) -> String {
    let word = usage.trim_start().trim_start_matches('/');
    let word = word.split_whitespace().next().unwrap_or_default();
    word.chars()
        .map(|c| if c == '-' { '_' } else { c })
        .collect()
}

/// Featured ones first, then by what they are called.
fn rows(help: &Help, asked: &Asked) -> Vec<Row> {
    let wanted = asked.q.trim().trim_start_matches('/').to_lowercase();
    let mut rows = Vec::new();
    for (name, external) in help.plugins_of(asked.repo.trim()) {
        let commands = help.of(&name, external).map(|help| &help.commands);
        for command in commands.into_iter().flatten() {
            let texts = [&command.usage, &command.description, &name];
            let mut texts = texts.into_iter().chain(&command.examples);
            if !wanted.is_empty() && !texts.any(|text| text.to_lowercase().contains(&wanted)) {
                continue;
            }
            rows.push(Row {
                id: anchor(&command.usage),
                usage: command.usage.clone(),
                featured: command.featured,
                description: safe_html(&command.description),
                examples: command
                    .examples
                    .iter()
                    .map(|text| safe_html(text))
                    .collect(),
                who: safe_html(&command.who_can_use),
                plugin: name.clone(),
                external,
            });
        }
    }
    rows.sort_by(|a, b| (!a.featured, &a.usage).cmp(&(!b.featured, &b.usage)));
    rows
}

#[derive(Template)]
#[template(path = "commands.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    asked: Asked,
    help: Arc<Help>,
    rows: Vec<Row>,
}

pub(crate) async fn page(State(deck): State<Deck>, Query(asked): Query<Asked>) -> Response {
    let help = deck.help.help().await;
    html(&Page {
        page: "commands",
        revision: deck.store.view().revision,
        node: deck.store.node_id(),
        rows: rows(&help, &asked),
        help,
        asked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_help::testing::help;

    fn asked(repo: &str, q: &str) -> Asked {
        Asked {
            repo: repo.to_owned(),
            q: q.to_owned(),
        }
    }

    fn usages(repo: &str, q: &str) -> String {
        let rows = rows(&help(), &asked(repo, q)).into_iter();
        rows.map(|row| row.usage).collect::<Vec<_>>().join(", ")
    }

    /// DECK-075
    #[test]
    fn deck_075_commands_are_found_by_repository_and_by_words_featured_first() {
        assert_eq!(usages("", ""), "/lgtm [cancel], /[un]hold [cancel], /echo");
        assert_eq!(usages("acme/gadget", ""), "/[un]hold [cancel]");
        assert_eq!(usages("", "/LGTM"), "/lgtm [cancel]");
        assert_eq!(usages("", "hold"), "/[un]hold [cancel]");
        assert_eq!(usages("", "nothing"), "");
    }

    #[test]
    fn deck_075_links_are_as_in_prows_deck() {
        assert_eq!(anchor("/lgtm [cancel]"), "lgtm");
        assert_eq!(anchor("/check-cla"), "check_cla");
    }

    #[test]
    fn deck_075_a_page_holds_no_html_of_others() {
        let help = help();
        let page = Page {
            page: "commands",
            revision: 1,
            node: 1,
            rows: rows(&help, &asked("", "")),
            asked: asked("acme/widget", "x"),
            help: Arc::new(help),
        };
        let text = page.render().unwrap();
        assert!(
            text.contains("<a href=\"https://x\" rel=\"noreferrer\">Reviewers</a>"),
            "{text}"
        );
        assert!(
            text.contains("&lt;script&gt;x") && !text.contains("<script>x"),
            "{text}"
        );
        assert!(
            text.contains("id=\"lgtm\"") && text.contains("value=\"acme/widget\""),
            "{text}"
        );
        assert!(
            text.contains("href=\"/plugins#echo\"") && text.contains("external"),
            "{text}"
        );
    }
}
