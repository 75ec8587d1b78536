//! Which labels a text asks for, and what becomes of them.

use std::collections::BTreeMap;

use regex::Regex;
use trireme_forge::webhook::{GenericAction, GenericComment, PullRequestEvent};
use trireme_forge::{Label, has_label};

use super::MAX_NAMED_USERS;
use super::settings::{RestrictedLabel, Settings};
use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing};
use crate::respond::answer;
use crate::text::commands;

commands! {
    HTML_COMMENT = r"(?s)<!--(.*?)-->";
    ADD = r"(?m)^/(area|committee|kind|language|priority|sig|triage|wg)[^\n]*$";
    REMOVE = r"(?m)^/remove-(area|committee|kind|language|priority|sig|triage|wg)[^\n]*$";
    ADD_ANY = r"(?m)^/label[^\n]*$";
    REMOVE_ANY = r"(?m)^/remove-label[^\n]*$";
}

const TRIAGE_ACCEPTED: &str = "triage/accepted";
/// Kinds of labels for which a `needs-…` label stands in while there is none of them (PLG-LABEL-007).
const NEEDED: [&str; 4] = ["kind", "priority", "sig", "triage"];

/// What a text asks for, in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// With its text as it is answered: without HTML comments.
    pub(super) comment: GenericComment,
    add: Vec<String>,
    remove: Vec<String>,
    /// By `/label` and `/remove-label`: the label and the command that names it.
    add_any: Vec<(String, String)>,
    remove_any: Vec<(String, String)>,
}

impl Asked {
    /// `None` if the text asks for nothing.
    pub(super) fn by(comment: &GenericComment) -> Option<Self> {
        if comment.action != GenericAction::Created {
            return None;
        }
        let body = HTML_COMMENT.replace_all(&comment.body, "").into_owned();
        let asked = Self {
            add: of_kind(&ADD, &body),
            remove: of_kind(&REMOVE, &body),
            add_any: any(&ADD_ANY, "/label", &body),
            remove_any: any(&REMOVE_ANY, "/remove-label", &body),
            comment: GenericComment {
                body,
                ..comment.clone()
            },
        };
        let nothing = asked.add.is_empty()
            && asked.remove.is_empty()
            && asked.add_any.is_empty()
            && asked.remove_any.is_empty();
        (!nothing).then_some(asked)
    }
}

/// `<kind>/<word>` for each word after the command.
fn of_kind(command: &Regex, body: &str) -> Vec<String> {
    let lines = command.captures_iter(body).flat_map(|found| {
        let (line, [kind]) = found.extract();
        let words = line.split_whitespace().skip(1);
        words.map(move |word| format!("{kind}/{word}").to_lowercase())
    });
    lines.collect()
}

/// The word after the command, if there is exactly one.
fn any(command: &Regex, name: &str, body: &str) -> Vec<(String, String)> {
    let lines = command.find_iter(body).filter_map(|line| {
        let words: Vec<&str> = line.as_str().split_whitespace().collect();
        match words.as_slice() {
            [command, label] if *command == name => {
                Some((label.to_lowercase(), line.as_str().trim_end().to_owned()))
            }
            _ => None,
        }
    });
    lines.collect()
}

pub(super) fn decide(
    asked: &Asked,
    settings: &Settings,
    facts: &Facts,
    choose: &mut dyn FnMut(usize) -> usize,
) -> Result<Decision, Missing> {
    let comment = &asked.comment;
    let on = Target::new(&comment.repo, comment.number);
    let restricted = settings.restricted_in(&comment.repo);
    let is_supported = |label: &str| {
        let mut more = settings.additional_labels.iter();
        restricted.contains_key(label) || more.any(|known| known.to_lowercase() == label)
    };
    let mut unsupported = Vec::new();
    let mut with_any = |mut labels: Vec<String>, any: &[(String, String)]| {
        for (label, command) in any {
            if is_supported(label) {
                labels.push(label.clone());
            } else {
                unsupported.push(command.clone());
            }
        }
        labels
    };
    let mut add = with_any(asked.add.clone(), &asked.add_any);
    let remove = with_any(asked.remove.clone(), &asked.remove_any);
    let mut decision = Decision::nothing();
    let mut not_in_repo = Vec::new();
    let mut not_on_issue = Vec::new();
    let mut is_outsider = false;
    if !add.is_empty() || !remove.is_empty() {
        let in_repo = facts.repo_labels()?;
        let labels = facts.labels()?;
        add.extend(now_needed(&add, &remove, labels, in_repo));
        for label in distinct(add) {
            if has_label(labels, &label) {
                continue;
            }
            if !has_label(in_repo, &label) {
                not_in_repo.push(label);
                continue;
            }
            if label == TRIAGE_ACCEPTED {
                let member = facts.is_member(&comment.repo.org, &comment.user.login);
                match facts.unless_refused(member)? {
                    Some(true) => {}
                    Some(false) => {
                        is_outsider = true;
                        continue;
                    }
                    None => continue,
                }
            }
            let effect = match verdict(&label, &restricted, comment, facts, choose)? {
                Verdict::May => Some(on.add_label(&label)),
                Verdict::MayNot(why) => Some(answer(comment, why)),
                Verdict::NotTold => None,
            };
            decision.extend(effect);
        }
        for label in distinct(remove) {
            if !has_label(labels, &label) {
                not_on_issue.push(label);
                continue;
            }
            if !has_label(in_repo, &label) {
                // Nobody's to change.
                continue;
            }
            let effect = match verdict(&label, &restricted, comment, facts, choose)? {
                Verdict::May => Some(on.remove_label(&label)),
                Verdict::MayNot(why) => Some(answer(comment, why)),
                Verdict::NotTold => None,
            };
            decision.extend(effect);
        }
    }
    let told = if !unsupported.is_empty() {
        let supported = settings.additional_labels.iter().chain(restricted.keys());
        let supported: Vec<&str> = supported.map(String::as_str).collect();
        Some(format!(
            "The label(s) `{}` cannot be applied. These labels are supported: `{}`. Is this label configured under `labels -> additional_labels` or `labels -> restricted_labels` in `plugin.yaml`?",
            unsupported.join(", "),
            supported.join(", ")
        ))
    } else if !not_in_repo.is_empty() {
        Some(format!(
            "The label(s) `{}` cannot be applied, because the repository doesn't have them.",
            not_in_repo.join(", ")
        ))
    } else if !not_on_issue.is_empty() {
        Some(format!(
            "Those labels are not set on the issue: `{}`",
            not_on_issue.join(", ")
        ))
    } else {
        is_outsider.then(|| {
            format!(
                "The label `{TRIAGE_ACCEPTED}` cannot be applied. Only GitHub organization members can add the label."
            )
        })
    };
    decision.extend(told.map(|told| answer(comment, told)));
    Ok(decision)
}

fn distinct(labels: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(labels.len());
    for label in labels {
        if !distinct.contains(&label) {
            distinct.push(label);
        }
    }
    distinct
}

/// `needs-…` labels for kinds of which the last label goes (PLG-LABEL-007).
fn now_needed(
    add: &[String],
    remove: &[String],
    labels: &[Label],
    in_repo: &[Label],
) -> Vec<String> {
    let needed = NEEDED.iter().filter(|kind| {
        let prefix = format!("{kind}/");
        let is_of_kind = |label: &&String| label.starts_with(&prefix);
        let mut set = labels.iter().map(|label| label.name.to_lowercase());
        remove.iter().any(|label| is_of_kind(&label))
            && !add.iter().any(|label| is_of_kind(&label))
            && set.all(|label| !label.starts_with(&prefix) || remove.contains(&label))
    });
    let needed = needed.map(|kind| format!("needs-{kind}"));
    needed.filter(|label| has_label(in_repo, label)).collect()
}

/// Whether somebody may change a label.
enum Verdict {
    May,
    /// Why.
    MayNot(String),
    /// We may not see a team that could: as in Prow that label is left alone, and the others are not.
    NotTold,
}

/// Whether somebody may change that label (PLG-LABEL-005).
fn verdict(
    label: &str,
    restricted: &BTreeMap<String, RestrictedLabel>,
    comment: &GenericComment,
    facts: &Facts,
    choose: &mut dyn FnMut(usize) -> usize,
) -> Result<Verdict, Missing> {
    let Some(rule) = restricted.get(label) else {
        return Ok(Verdict::May);
    };
    let login = &comment.user.login;
    let lower = login.to_lowercase();
    let mut users = rule.allowed_users.iter();
    if users.any(|user| user.to_lowercase() == lower) {
        return Ok(Verdict::May);
    }
    for team in &rule.allowed_teams {
        let member = facts.is_team_member(&comment.repo.org, team, login);
        match facts.unless_refused(member)? {
            Some(true) => return Ok(Verdict::May),
            Some(false) => {}
            None => return Ok(Verdict::NotTold),
        }
    }
    let mut why = format!(
        "The label(s) `{label}` cannot be applied or removed, because you are not in one of the allowed teams and are not an allowed user."
    );
    if !rule.allowed_teams.is_empty() {
        why += " Must be a member of one of these teams: ";
        why += &rule.allowed_teams.join(", ");
    } else if !rule.allowed_users.is_empty() {
        let mut left = rule.allowed_users.clone();
        let mut named = Vec::new();
        while named.len() < MAX_NAMED_USERS && !left.is_empty() {
            let chosen = choose(left.len()).min(left.len() - 1);
            named.push(left.swap_remove(chosen));
        }
        why += " Consider assigning one of the following members: ";
        why += &named.join(",");
    }
    Ok(Verdict::MayNot(why))
}

/// Whom a label that was set has assigned (PLG-LABEL-006).
pub(super) fn assign_on(event: &PullRequestEvent, settings: &Settings) -> Decision {
    let pr = &event.pull_request;
    let Some(label) = &event.label else {
        return Decision::nothing();
    };
    let on = Target::new(&pr.repo, pr.number);
    let restricted = settings.restricted_in(&pr.repo);
    let rules = restricted
        .values()
        .filter(|rule| rule.assigns_on(&label.name) && !rule.allowed_users.is_empty());
    let assigned: Vec<_> = rules
        .map(|rule| on.assign(rule.allowed_users.clone()))
        .collect();
    assigned.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_forge::Label;

    use super::super::settings::settings;
    use super::*;
    use crate::testing::{comment, labels, pull_request_event};

    const IN_REPO: [&str; 12] = [
        "area/prow",
        "area/infra",
        "kind/bug",
        "kind/docs",
        "needs-kind",
        "needs-sig",
        "sig/testing",
        "triage/accepted",
        "priority/critical",
        "lead-ok",
        "Orchestrator/Foo",
        "wg/x",
    ];

    fn configured() -> Settings {
        settings(json!({
            "additional_labels": ["Orchestrator/Foo"],
            "restricted_labels": {"org": [
                {"label": "lead-ok", "allowed_teams": ["leads"], "allowed_users": ["Bob"]},
                {"label": "wg/x", "allowed_users": ["carl", "dora"]},
            ]},
        }))
    }

    /// "member" is a member of the org, "lead" of its team.
    fn facts(set: &[&str]) -> Facts {
        Facts {
            repo_labels: Some(labels(&IN_REPO)),
            labels: Some(labels(set)),
            members: ["member", "alice"]
                .map(|login| (("org".to_owned(), login.to_owned()), login == "member"))
                .into(),
            team_members: ["lead", "alice"]
                .map(|login| {
                    (
                        ("org".to_owned(), "leads".to_owned(), login.to_owned()),
                        login == "lead",
                    )
                })
                .into(),
            ..Facts::default()
        }
    }

    fn told(login: &str, body: &str, set: &[&str]) -> String {
        let Some(asked) = Asked::by(&comment(login, body)) else {
            return "not asked".to_owned();
        };
        let decision = decide(&asked, &configured(), &facts(set), &mut |_| 0);
        let told = decision.expect("all facts").to_string();
        // Without what every reply ends with.
        let mut paragraphs = told
            .split("\n\n")
            .filter(|text| !text.contains("Instructions for"));
        let lines = paragraphs.by_ref().flat_map(str::lines);
        let lines: Vec<&str> = lines
            .filter(|line| {
                !line.starts_with(['<', '>'])
                    && !line.starts_with("In response")
                    && !line.is_empty()
            })
            .collect();
        lines.join("\n")
    }

    #[test]
    fn plg_label_001_words_after_a_kind_are_labels_of_it() {
        for (body, expected) in [
            ("/area prow", "+area/prow"),
            (
                "/area PROW infra\r\n/kind bug\r\n",
                "+area/prow\n+area/infra\n+kind/bug",
            ),
            ("/sig testing <!-- /kind bug -->", "+sig/testing"),
            (
                "<!--\n/kind bug\n-->\n/wg nothing <!-- x -->",
                "comment: @alice: The label(s) `wg/nothing` cannot be applied, because the repository doesn't have them.",
            ),
            ("/Kind bug", "not asked"),
            (" /kind bug", "not asked"),
            ("/kind", "not asked"),
            ("/kindness", "not asked"),
            (
                "/remove-area prow",
                "comment: @alice: Those labels are not set on the issue: `area/prow`",
            ),
            (
                "/committee steering\n/language zh",
                "comment: @alice: The label(s) `committee/steering, language/zh` cannot be applied, because the repository doesn't have them.",
            ),
        ] {
            assert_eq!(told("alice", body, &[]), expected, "{body:?}");
        }
        assert_eq!(told("alice", "/kind bug", &["KIND/bug"]), "nothing");
        assert_eq!(
            told("alice", "/remove-area prow", &["area/prow"]),
            "-area/prow"
        );
        let mut edited = comment("alice", "/kind bug");
        edited.action = GenericAction::Edited;
        assert_eq!(Asked::by(&edited), None);
    }

    #[test]
    fn plg_label_002_other_labels_have_to_be_configured() {
        assert_eq!(
            told("alice", "/label orchestrator/FOO", &[]),
            "+orchestrator/foo"
        );
        assert_eq!(
            told(
                "alice",
                "/remove-label orchestrator/foo",
                &["Orchestrator/Foo"]
            ),
            "-orchestrator/foo"
        );
        assert_eq!(told("alice", "/label a b", &[]), "not asked");
        assert_eq!(told("alice", "/labels x", &[]), "not asked");
        insta::assert_snapshot!(told("alice", "/label x/Y\n/remove-label kind/bug\n/label orchestrator/foo", &[]), @r"
        +orchestrator/foo
        comment: @alice: The label(s) `/label x/Y, /remove-label kind/bug` cannot be applied. These labels are supported: `Orchestrator/Foo, lead-ok, wg/x`. Is this label configured under `labels -> additional_labels` or `labels -> restricted_labels` in `plugin.yaml`?
        ");
        // Nobody is asked about what is refused anyway.
        let asked = Asked::by(&comment("alice", "/label x")).unwrap();
        assert!(decide(&asked, &configured(), &Facts::default(), &mut |_| 0).is_ok());
    }

    #[test]
    fn plg_label_003_one_reply_tells_the_first_reason() {
        let body = "/area nowhere\n/kind nothing\n/remove-area infra\n/triage accepted\n/area prow";
        insta::assert_snapshot!(told("alice", body, &[]), @r"
        +area/prow
        comment: @alice: The label(s) `area/nowhere, kind/nothing` cannot be applied, because the repository doesn't have them.
        ");
        let body = "/remove-area prow infra\n/triage accepted";
        insta::assert_snapshot!(told("alice", body, &[]), @"comment: @alice: Those labels are not set on the issue: `area/prow, area/infra`");
    }

    #[test]
    fn plg_label_004_members_accept_triage() {
        assert_eq!(told("member", "/triage accepted", &[]), "+triage/accepted");
        insta::assert_snapshot!(told("alice", "/triage accepted", &[]), @"comment: @alice: The label `triage/accepted` cannot be applied. Only GitHub organization members can add the label.");
        assert_eq!(
            told("alice", "/remove-triage accepted", &["triage/accepted"]),
            "-triage/accepted"
        );
    }

    #[test]
    fn plg_label_005_restricted_labels_are_for_some() {
        for login in ["bob", "lead"] {
            assert_eq!(told(login, "/label lead-ok", &[]), "+lead-ok");
            assert_eq!(
                told(login, "/remove-label lead-ok", &["lead-ok"]),
                "-lead-ok"
            );
        }
        insta::assert_snapshot!(told("alice", "/label lead-ok", &[]), @"comment: @alice: The label(s) `lead-ok` cannot be applied or removed, because you are not in one of the allowed teams and are not an allowed user. Must be a member of one of these teams: leads");
        insta::assert_snapshot!(told("alice", "/remove-wg x\n/area prow", &["wg/x"]), @r"
        +area/prow
        comment: @alice: The label(s) `wg/x` cannot be applied or removed, because you are not in one of the allowed teams and are not an allowed user. Consider assigning one of the following members: carl,dora
        ");
        let many: Vec<String> = (0..30).map(|n| format!("u{n}")).collect();
        let settings = settings(
            json!({"restricted_labels": {"*": [{"label": "wg/x", "allowed_users": many}]}}),
        );
        let asked = Asked::by(&comment("alice", "/wg x")).unwrap();
        let decision = decide(&asked, &settings, &facts(&[]), &mut |count| count - 1).unwrap();
        let said = decision.to_string();
        let named = said.split("following members: ").nth(1).unwrap();
        let named = named.lines().next().unwrap();
        assert_eq!(
            (named.split(',').count(), named.starts_with("u29,")),
            (MAX_NAMED_USERS, true)
        );
    }

    #[test]
    fn plg_label_006_a_label_assigns_who_may_set_another() {
        let settings = settings(json!({"restricted_labels": {
            "org/repo": [
                {"label": "lead-ok", "allowed_users": ["bob", "carl"], "assign_on": [{"label": "Needs-Lead"}]},
                {"label": "other", "allowed_users": ["dora"], "assign_on": [{"label": "x"}]},
                {"label": "team-only", "allowed_teams": ["t"], "assign_on": [{"label": "needs-lead"}]},
            ],
        }}));
        let mut event = pull_request_event("labeled");
        event.label = Some(Label {
            name: "needs-lead".into(),
            ..Label::default()
        });
        assert_eq!(assign_on(&event, &settings).to_string(), "assign bob, carl");
        event.label = Some(Label {
            name: "lead-ok".into(),
            ..Label::default()
        });
        assert!(assign_on(&event, &settings).is_idle());
    }

    #[test]
    fn plg_label_007_the_last_of_a_needed_kind_leaves_a_need() {
        for (body, set, expected) in [
            (
                "/remove-kind bug",
                &["kind/bug"][..],
                "+needs-kind\n-kind/bug",
            ),
            ("/remove-kind bug", &["kind/bug", "kind/docs"], "-kind/bug"),
            (
                "/remove-kind bug docs",
                &["Kind/Bug", "kind/docs"],
                "+needs-kind\n-kind/bug\n-kind/docs",
            ),
            (
                "/remove-kind bug\n/kind docs",
                &["kind/bug"],
                "+kind/docs\n-kind/bug",
            ),
            // The repository has no needs-priority.
            (
                "/remove-priority critical",
                &["priority/critical"],
                "-priority/critical",
            ),
            ("/remove-area prow", &["area/prow"], "-area/prow"),
        ] {
            assert_eq!(told("alice", body, set), expected, "{body:?}");
        }
    }

    #[test]
    fn plg_label_008_words_may_stand_apart() {
        assert_eq!(
            told("alice", "/area   prow \t infra", &[]),
            "+area/prow\n+area/infra"
        );
        assert_eq!(
            told("alice", "/label  orchestrator/foo", &[]),
            "+orchestrator/foo"
        );
        // A command ends with its line.
        assert_eq!(told("alice", "/kind\n/area prow", &[]), "+area/prow");
    }
}
