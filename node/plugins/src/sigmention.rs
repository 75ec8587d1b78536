//! `sigmention`: labels for the teams of special interest groups that a text mentions (PLG-SIGMENTION-001).

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::has_label;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};

use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing, gather};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;

const SECTION: &str = "sigmention";
const TEAMS: &str = r"(?m)@kubernetes/sig-([\w-]*)-(misc|test-failures|bugs|feature-requests|proposals|pr-reviews|api-reviews)";
/// Mentions of one text that count.
const MAX_MENTIONS: usize = 100;

pub(crate) struct SigMention;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// Its first group is the SIG, its second the kind of team.
    regexp: String,
    #[serde(skip)]
    compiled: Option<GoRegex>,
}

impl Settings {
    /// HOOK-061, HOOK-062
    fn complete(&mut self) -> Vec<Problem> {
        if self.regexp.is_empty() {
            TEAMS.clone_into(&mut self.regexp);
        }
        match GoRegex::new(&self.regexp) {
            Ok(regex) => {
                self.compiled = Some(regex);
                vec![]
            }
            Err(why) => vec![Problem::error("regexp", why.to_string())],
        }
    }

    fn mentions(&self, body: &str) -> Vec<Mention> {
        let found = self.compiled.iter().flat_map(|regex| regex.captures(body));
        let mention = |mut groups: Vec<Option<String>>| {
            let mut group = |n: usize| groups.get_mut(n).and_then(Option::take).unwrap_or_default();
            Mention {
                text: group(0),
                sig: group(1),
                kind: group(2),
            }
        };
        found.map(mention).take(MAX_MENTIONS).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mention {
    text: String,
    sig: String,
    kind: String,
}

impl Mention {
    fn kind_label(&self) -> Option<&'static str> {
        match self.kind.as_str() {
            "bugs" => Some("kind/bug"),
            "feature-requests" => Some("kind/feature"),
            "api-reviews" => Some("kind/api-change"),
            "proposals" => Some("kind/design"),
            _ => None,
        }
    }
}

#[async_trait]
impl Plugin for SigMention {
    fn name(&self) -> &'static str {
        "sigmention"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let settings = cx.section::<Settings>(SECTION);
        event.generic_comment().is_some_and(|comment| {
            comment.action == GenericAction::Created
                && settings.is_none_or(|settings| !settings.mentions(&comment.body).is_empty())
        })
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let settings: &Settings = cx.section(SECTION)?;
        let new = event.generic_comment().filter(|comment| {
            comment.action == GenericAction::Created && !cx.bot.is(&comment.user.login)
        });
        let Some(comment) = new else {
            return Ok(Decision::nothing());
        };
        let mentions = settings.mentions(&comment.body);
        if mentions.is_empty() {
            return Ok(Decision::nothing());
        }
        let on = Target::new(&comment.repo, comment.number);
        gather(cx, &on, Facts::default(), |facts| {
            decide(&comment, &mentions, facts)
        })
        .await
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let regexp = settings.map_or(TEAMS, |settings| settings.regexp.as_str());
        let told = format!(
            "Labels added by the plugin are triggered by mentions of GitHub teams matching the following regexp:\n{regexp}"
        );
        PluginHelp {
            description: "The sigmention plugin responds to SIG (Special Interest Group) GitHub team mentions like '@kubernetes/sig-testing-bugs'. The plugin responds in two ways:\n<ol><li> The appropriate 'sig/*' and 'kind/*' labels are applied to the issue or pull request. In this case 'sig/testing' and 'kind/bug'.</li>\n<li> If the user who mentioned the GitHub team is not a member of the organization that owns the repository the bot will create a comment that repeats the mention. This is necessary because non-member mentions do not trigger GitHub notifications.</li></ol>".to_owned(),
            config: Some([(String::new(), told)].into()),
            snippet: format!("sigmention:\n  regexp: {TEAMS}\n"),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, Settings::complete))
    }
}

fn decide(
    comment: &GenericComment,
    mentions: &[Mention],
    facts: &Facts,
) -> Result<Decision, Missing> {
    let on = Target::new(&comment.repo, comment.number);
    let (labels, known) = (facts.labels()?, facts.repo_labels()?);
    let mut wanted: Vec<&str> = Vec::new();
    let mut repeated = Vec::new();
    for mention in mentions {
        let sig = format!("sig/{}", mention.sig);
        let sig = known
            .iter()
            .find(|label| label.name.eq_ignore_ascii_case(&sig));
        let Some(sig) = sig else {
            // Not a SIG of this repository.
            continue;
        };
        for label in [Some(sig.name.as_str()), mention.kind_label()]
            .into_iter()
            .flatten()
        {
            if !has_label(labels, label) && !wanted.contains(&label) {
                wanted.push(label);
            }
        }
        repeated.push(mention.text.as_str());
    }
    let mut effects: Vec<_> = wanted
        .into_iter()
        .map(|label| on.add_label(label))
        .collect();
    let is_member = || {
        // As in Prow, who cannot be told to be a member is none.
        let told = facts.is_member(&comment.repo.org, &comment.user.login);
        Ok::<_, Missing>(facts.unless_refused(told)?.unwrap_or(false))
    };
    // GitHub tells nobody of what somebody else mentions.
    if !repeated.is_empty() && !is_member()? {
        let said = format!(
            "Reiterating the mentions to trigger a notification: \n{}\n",
            repeated.join(", ")
        );
        effects.push(answer(comment, said));
    }
    Ok(effects.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, comment_event, concerns, concerns_under, labels, plugins_yaml};

    fn decided(body: &str, has: &[&str], is_member: bool) -> String {
        let plugins = plugins_yaml("{}").unwrap();
        let settings = plugins.section::<Settings>(SECTION).unwrap();
        let member = (("org".to_owned(), "ann".to_owned()), is_member);
        let facts = Facts {
            labels: Some(labels(has)),
            repo_labels: Some(labels(&["sig/Node", "sig/testing", "kind/bug"])),
            members: [member].into(),
            ..Facts::default()
        };
        let comment = comment("ann", body);
        let mentions = settings.mentions(body);
        let decided = decide(&comment, &mentions, &facts).unwrap().to_string();
        decided.split("\n\n<details>").next().unwrap().to_owned()
    }

    #[test]
    fn plg_sigmention_001_mentioned_sigs_and_kinds_become_labels() {
        insta::assert_snapshot!(decided("@kubernetes/sig-testing-bugs @kubernetes/sig-node-misc", &[], true), @r"
        +sig/testing
        +kind/bug
        +sig/Node
        ");
        assert_eq!(
            decided(
                "@kubernetes/sig-testing-bugs",
                &["sig/testing", "kind/bug"],
                true
            ),
            "nothing"
        );
        assert_eq!(
            decided("@kubernetes/sig-unknown-bugs", &[], false),
            "nothing"
        );
        insta::assert_snapshot!(decided("@kubernetes/sig-testing-proposals, @kubernetes/sig-unknown-bugs", &["sig/testing"], false), @r"
        +kind/design
        comment: @ann: Reiterating the mentions to trigger a notification: 
        @kubernetes/sig-testing-proposals
        ");
    }

    #[test]
    fn plg_sigmention_001_only_mentions_that_are_configured_concern_it() {
        let mention = comment_event("ann", "cc @kubernetes/sig-testing-bugs");
        assert!(concerns(&SigMention, &mention));
        assert!(!concerns(
            &SigMention,
            &comment_event("ann", "cc @kubernetes/sig-testing")
        ));
        let own = "sigmention: {regexp: '@acme/team-(\\w+)'}";
        assert!(!concerns_under(own, &SigMention, &mention));
        assert!(concerns_under(
            own,
            &SigMention,
            &comment_event("ann", "@acme/team-a")
        ));
        // HOOK-061
        let broken = plugins_yaml("sigmention: {regexp: '('}").map(|_| ());
        assert!(broken.unwrap_err().contains("error parsing regexp"));
    }
}
