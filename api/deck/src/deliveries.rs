//! The inbox: webhooks that came, what each plugin did about them, and why not.

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use trireme_api::inbox::{self, Listed, Said, Whole, Words};
use trireme_proto::state::{Delivery, DeliveryState, Effect, EffectState, Plan};
use trireme_state::{DeliveryFilter, Seq, is_dead};

use crate::{Deck, html, instant};

/// Deliveries on one page.
const PAGE: usize = 100;
/// Bytes of a payload on the page; `trireme get delivery --payload` prints the whole.
const SHOWN: usize = 256 * 1024;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Filter {
    /// `unhandled`, `dead`, or empty for all.
    show: String,
    /// `org` or `org/repo`.
    repo: String,
    number: String,
    plugin: String,
    /// `1` for the archive, too.
    archived: String,
    /// Where the page before ended.
    after: String,
}

impl Filter {
    fn any(&self) -> bool {
        [
            &self.show,
            &self.repo,
            &self.number,
            &self.plugin,
            &self.archived,
        ]
        .iter()
        .any(|value| !value.is_empty())
    }

    /// What makes no sense fits nothing.
    fn wanted(&self) -> Option<DeliveryFilter> {
        let repo = self.repo.trim();
        let (org, repo) = repo.split_once('/').unwrap_or((repo, ""));
        let number = match self.number.trim().trim_start_matches('#') {
            "" => 0,
            number => number.parse().ok().filter(|number| *number > 0)?,
        };
        let (unhandled, dead) = match self.show.as_str() {
            "" => (false, false),
            "unhandled" => (true, false),
            "dead" => (false, true),
            _ => return None,
        };
        let before = match self.after.as_str() {
            "" => None,
            place => {
                let (revision, ordinal) = place.split_once('.')?;
                Some(Seq {
                    revision: revision.parse().ok()?,
                    ordinal: ordinal.parse().ok()?,
                })
            }
        };
        Some(DeliveryFilter {
            unhandled,
            dead,
            org: org.to_owned(),
            repo: repo.to_owned(),
            number,
            plugin: self.plugin.trim().to_owned(),
            before,
        })
    }
}

struct Row {
    guid: String,
    at: String,
    event: String,
    about: String,
    sender: String,
    state: &'static str,
    class: &'static str,
    /// Plugins with a plan; the flag is whether something of it is dead.
    plugins: Vec<(String, bool)>,
}

fn state(delivery: &Delivery, is_dead: bool) -> (&'static str, &'static str) {
    match delivery.state() {
        _ if is_dead => ("given up", "failure"),
        DeliveryState::Handled => ("handled", "success"),
        state => (inbox::delivery_word(state), "pending"),
    }
}

fn rows(listed: &Listed) -> Vec<Row> {
    let row = |delivery: &std::sync::Arc<Delivery>| {
        let plans = listed.plans.iter();
        let plugins: Vec<(String, bool)> = plans
            .filter(|plan| plan.guid == delivery.guid)
            .map(|plan| (plan.plugin.clone(), is_dead(plan)))
            .collect();
        let (state, class) = state(delivery, plugins.iter().any(|(_, dead)| *dead));
        Row {
            guid: delivery.guid.clone(),
            at: instant(delivery.received_ms),
            event: inbox::event(delivery),
            about: inbox::about(delivery),
            sender: delivery.sender.clone(),
            state,
            class,
            plugins,
        }
    };
    listed.deliveries.iter().map(row).collect()
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    filter: Filter,
    /// In memory, of all.
    dead: usize,
    rows: Vec<Row>,
    /// `after` of the next page.
    next: Option<String>,
}

pub(crate) async fn page(State(deck): State<Deck>, Query(filter): Query<Filter>) -> Response {
    let view = deck.store.view();
    let listed = match filter.wanted() {
        None => Ok(Listed::default()),
        Some(wanted) if filter.archived.is_empty() => Ok(inbox::list(&view, &wanted, PAGE)),
        Some(wanted) => inbox::list_all(&deck.store.archive(), &view, &wanted, PAGE).await,
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(why) => return unreadable(&why),
    };
    html(&Page {
        page: "deliveries",
        revision: view.revision,
        node: deck.store.node_id(),
        dead: view.dead_plans().count(),
        rows: rows(&listed),
        next: listed
            .next
            .map(|next| format!("{}.{}", next.revision, next.ordinal)),
        filter,
    })
}

fn unreadable(why: &tonic::Status) -> Response {
    tracing::warn!(why = why.message(), "deliveries could not be read");
    let text = format!("Deliveries cannot be read now: {}\n", why.message());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// One effect on the page.
struct EffectRow {
    ordinal: u32,
    what: String,
    text: String,
    state: String,
    class: &'static str,
    condition: String,
    why: String,
    result: String,
    tried: String,
    /// What to type to have it tried again.
    again: String,
}

struct Plugin {
    name: String,
    /// One sentence.
    said: String,
    state: &'static str,
    class: &'static str,
    error: String,
    again: String,
    effects: Vec<EffectRow>,
    jobs: Vec<String>,
    aborted: Vec<String>,
}

fn effect_row(guid: &str, plan: &Plan, ordinal: u32, effect: &Effect, archived: bool) -> EffectRow {
    let Words { what, text } = inbox::words(effect);
    let class = match effect.state() {
        EffectState::Done => "success",
        EffectState::Dead => "failure",
        EffectState::Skipped => "aborted",
        _ => "pending",
    };
    let mut state = inbox::effect_word(effect.state()).to_owned();
    let outcome = inbox::outcome_words(effect.outcome());
    if !outcome.is_empty() {
        state = format!("{state}, {outcome}");
    }
    let condition = effect.condition.as_ref().map(|condition| {
        let of = condition
            .outcomes()
            .map(|outcome| match inbox::outcome_words(outcome) {
                "" => "done",
                word => word,
            });
        let of: Vec<&str> = of.collect();
        format!(
            "Only if effect {} is {}.",
            condition.ordinal,
            of.join(" or ")
        )
    });
    let is_dead = effect.state() == EffectState::Dead && !archived;
    EffectRow {
        ordinal,
        what,
        text,
        state,
        class,
        condition: condition.unwrap_or_default(),
        why: effect.error.clone(),
        result: effect.result.clone(),
        tried: match effect.attempts {
            0 => String::new(),
            1 => format!("once, at {}", instant(effect.started_ms)),
            n => format!("{n} times, last at {}", instant(effect.started_ms)),
        },
        again: match is_dead {
            true => format!(
                "trireme deliveries redrive {guid} --plugin {} --effect {ordinal}",
                plan.plugin
            ),
            false => String::new(),
        },
    }
}

fn plugin(guid: &str, name: String, said: Said, archived: bool) -> Plugin {
    let mut plugin = Plugin {
        name,
        said: String::new(),
        state: "",
        class: "",
        error: String::new(),
        again: String::new(),
        effects: Vec::new(),
        jobs: Vec::new(),
        aborted: Vec::new(),
    };
    match said {
        Said::Nothing => {
            (plugin.state, plugin.class) = ("nothing to do", "aborted");
        }
        Said::Waits { failures, error } => {
            plugin.said = match failures {
                0 => "It has not decided yet.".to_owned(),
                n => format!("It failed to decide {n} times, and tries again."),
            };
            plugin.error = error;
            (plugin.state, plugin.class) = ("waits", "pending");
        }
        Said::GivenUp { failures, error } => {
            plugin.said = format!("It failed to decide {failures} times and was given up.");
            plugin.error = error;
            (plugin.state, plugin.class) = ("given up", "failure");
            if !archived {
                plugin.again =
                    format!("trireme deliveries redrive {guid} --plugin {}", plugin.name);
            }
        }
        Said::Planned(plan) => {
            plugin.said = format!(
                "It decided at {} by configuration {}.",
                instant(plan.planned_ms),
                plan.config_version
            );
            let is_open = trireme_state::next_effect(&plan).is_some();
            (plugin.state, plugin.class) = match (is_dead(&plan), is_open) {
                (true, _) => ("given up", "failure"),
                (false, true) => ("at work", "pending"),
                (false, false) => ("done", "success"),
            };
            plugin.effects = (0..)
                .zip(&plan.effects)
                .map(|(ordinal, effect)| effect_row(guid, &plan, ordinal, effect, archived))
                .collect();
            plugin.jobs.clone_from(&plan.jobs);
            plugin.aborted.clone_from(&plan.aborted);
        }
    }
    plugin
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct One {
    page: &'static str,
    revision: u64,
    node: u64,
    guid: String,
    event: String,
    state: &'static str,
    class: &'static str,
    facts: Vec<(&'static str, String)>,
    archived: bool,
    fixed: bool,
    plugins: Vec<Plugin>,
    /// Names of those that had nothing to do.
    idle: Vec<String>,
    headers: Vec<(String, String)>,
    payload: Option<String>,
    truncated: bool,
}

impl One {
    fn new(whole: &Whole, revision: u64, node: u64) -> Self {
        let delivery = &whole.delivery;
        let (state, class) = state(delivery, whole.plans.iter().any(|plan| is_dead(plan)));
        let mut facts = vec![
            ("About", inbox::about(delivery)),
            ("By", delivery.sender.clone()),
            ("Received", instant(delivery.received_ms)),
            ("By node", delivery.node_id.to_string()),
            ("Handled", instant(delivery.handled_ms)),
        ];
        facts.retain(|(_, value)| !value.is_empty());
        let said = inbox::said(delivery, &whole.plans).into_iter();
        let (idle, said): (Vec<_>, Vec<_>) = said.partition(|(_, said)| *said == Said::Nothing);
        let payload = whole.payload.as_ref().map(|payload| {
            let parsed: Result<serde_json::Value, _> = serde_json::from_slice(payload);
            parsed
                .and_then(|value| serde_json::to_string_pretty(&value))
                .unwrap_or_else(|_| String::from_utf8_lossy(payload).into_owned())
        });
        let truncated = payload.as_ref().is_some_and(|text| text.len() > SHOWN);
        let header = |header: &trireme_proto::state::Header| {
            let value = String::from_utf8_lossy(&header.value).into_owned();
            (header.name.clone(), value)
        };
        Self {
            page: "deliveries",
            revision,
            node,
            guid: delivery.guid.clone(),
            event: inbox::event(delivery),
            state,
            class,
            facts,
            archived: whole.archived,
            fixed: delivery.state() != DeliveryState::Received,
            idle: idle.into_iter().map(|(name, _)| name).collect(),
            plugins: said
                .into_iter()
                .map(|(name, said)| plugin(&delivery.guid, name, said, whole.archived))
                .collect(),
            headers: delivery.headers.iter().map(header).collect(),
            payload: payload.map(|text| text[..text.floor_char_boundary(SHOWN)].to_owned()),
            truncated,
        }
    }
}

pub(crate) async fn one(State(deck): State<Deck>, Path(guid): Path<String>) -> Response {
    let view = deck.store.view();
    match inbox::find(&deck.store.archive(), &view, &guid).await {
        Ok(Some(whole)) => html(&One::new(&whole, view.revision, deck.store.node_id())),
        Ok(None) => {
            let text = format!(
                "There is no delivery {guid:?}, in memory or in this node's archive. /deliveries lists them.\n"
            );
            (StatusCode::NOT_FOUND, text).into_response()
        }
        Err(why) => unreadable(&why),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trireme_proto::state::{CommentEffect, Subject, effect::Action};

    use super::*;

    #[test]
    fn a_filter_that_makes_no_sense_fits_nothing() {
        let filter = |show: &str, number: &str, after: &str| Filter {
            show: show.to_owned(),
            number: number.to_owned(),
            after: after.to_owned(),
            repo: " acme/widget ".to_owned(),
            ..Filter::default()
        };
        let wanted = filter("dead", "#7", "12.3").wanted().unwrap();
        assert_eq!(
            (wanted.org.as_str(), wanted.repo.as_str(), wanted.number),
            ("acme", "widget", 7)
        );
        assert!(wanted.dead && !wanted.unhandled);
        assert_eq!(
            wanted.before.map(|seq| (seq.revision, seq.ordinal)),
            Some((12, 3))
        );
        for (show, number, after) in [("x", "", ""), ("", "x", ""), ("", "0", ""), ("", "", "12")] {
            assert!(
                filter(show, number, after).wanted().is_none(),
                "{show} {number} {after}"
            );
        }
    }

    fn whole(archived: bool) -> Whole {
        let effect = |state: EffectState| Effect {
            action: Some(Action::Comment(CommentEffect {
                subject: Some(Subject {
                    org: "acme".to_owned(),
                    repo: "widget".to_owned(),
                    number: 7,
                }),
                body: "<script>hello</script>".to_owned(),
                ..CommentEffect::default()
            })),
            state: state.into(),
            attempts: 5,
            error: "422".to_owned(),
            ..Effect::default()
        };
        let delivery = Delivery {
            guid: "g-1".to_owned(),
            event: "issue_comment".to_owned(),
            plugins: vec!["hold".to_owned(), "lgtm".to_owned(), "wip".to_owned()],
            settled: vec!["hold".to_owned(), "lgtm".to_owned(), "wip".to_owned()],
            state: DeliveryState::Handled.into(),
            ..Delivery::default()
        };
        let plan = |plugin: &str| Plan {
            guid: "g-1".to_owned(),
            plugin: plugin.to_owned(),
            ..Plan::default()
        };
        Whole {
            delivery: Arc::new(delivery),
            plans: vec![
                Arc::new(Plan {
                    planned_ms: 1000,
                    effects: vec![effect(EffectState::Done), effect(EffectState::Dead)],
                    ..plan("lgtm")
                }),
                Arc::new(Plan {
                    dead: true,
                    failures: 5,
                    error: "404".to_owned(),
                    ..plan("wip")
                }),
            ],
            payload: Some("{\"a\":1}".into()),
            archived,
        }
    }

    #[test]
    fn a_page_says_what_to_type_for_what_is_dead() {
        let text = One::new(&whole(false), 1, 1).render().unwrap();
        for told in [
            "trireme deliveries redrive g-1 --plugin lgtm --effect 1",
            "trireme deliveries redrive g-1 --plugin wip<",
            "hold had nothing to do.",
            "It failed to decide 5 times and was given up.",
            "comment on acme/widget#7",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
        assert!(
            !text.contains("--effect 0") && !text.contains("<script>hello"),
            "{text}"
        );
        let text = One::new(&whole(true), 1, 1).render().unwrap();
        assert!(!text.contains("trireme deliveries redrive") && text.contains("archive"));
    }

    #[test]
    fn a_list_shows_what_is_dead_first_of_all() {
        let whole = whole(false);
        let listed = Listed {
            deliveries: vec![Arc::clone(&whole.delivery)],
            plans: whole.plans.clone(),
            next: None,
        };
        let page = |rows: Vec<Row>, filter: Filter, next: Option<&str>| Page {
            page: "deliveries",
            revision: 1,
            node: 1,
            filter,
            dead: 2,
            rows,
            next: next.map(str::to_owned),
        };
        let filter = Filter {
            repo: "acme/widget".to_owned(),
            ..Filter::default()
        };
        let text = page(rows(&listed), filter, Some("12.3")).render().unwrap();
        for told in [
            "href=\"/deliveries/g-1\"",
            "given up",
            "trireme deliveries redrive --all-dead --dry-run",
            "repo=acme%2Fwidget&#38;number=&#38;plugin=&#38;archived=&#38;after=12.3",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
        let none = page(Vec::new(), Filter::default(), None).render().unwrap();
        assert!(none.contains("They appear here when a forge sends a webhook"));
    }
}
