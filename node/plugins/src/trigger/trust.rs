//! Whose pull requests are tested without being asked (PLG-TRIGGER-010 … 012).

use trireme_forge::{BotUser, RepoId, has_label};
use trireme_office::TrustRule;

use super::Options;
use crate::facts::{Facts, Missing};
use crate::label_names::OK_TO_TEST;

/// PLG-TRIGGER-010.
pub(super) fn is_trusted(
    login: &str,
    repo: &RepoId,
    options: &Options,
    bot: &BotUser,
    facts: &Facts,
) -> Result<bool, Missing> {
    if bot.is(login) {
        return Ok(true);
    }
    let rule = TrustRule {
        trusted_apps: &options.trusted_apps,
        trusted_org: &options.trusted_org,
        only_org_members: options.only_org_members,
    };
    let is_member = |org: &str, login: &str| facts.is_member(org, login);
    rule.trusts(login, &repo.org, is_member, |login| {
        facts.is_collaborator(login)
    })
}

/// PLG-TRIGGER-012: by its author or by its label. Labels are read only if the author is not trusted.
pub(super) fn is_trusted_pull_request(
    author: &str,
    repo: &RepoId,
    options: &Options,
    bot: &BotUser,
    facts: &Facts,
) -> Result<bool, Missing> {
    Ok(is_trusted(author, repo, options, bot, facts)? || has_label(facts.labels()?, OK_TO_TEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, labels};

    /// What is asked, in order, when every answer is no; `yes` is the one answer that is not.
    fn asked(login: &str, options: &Options, yes: Option<&str>) -> (bool, Vec<String>) {
        let repo = RepoId::new("org", "repo");
        let mut facts = Facts::default();
        let mut asked = Vec::new();
        loop {
            match is_trusted(login, &repo, options, &bot(), &facts) {
                Ok(trusted) => return (trusted, asked),
                Err(Missing::Member { org, login }) => {
                    let question = format!("member of {org}");
                    facts
                        .members
                        .insert((org, login), yes == Some(question.as_str()));
                    asked.push(question);
                }
                Err(Missing::Collaborator(login)) => {
                    facts
                        .collaborators
                        .insert(login, yes == Some("collaborator"));
                    asked.push("collaborator".to_owned());
                }
                Err(other) => panic!("asks for {other}"),
            }
        }
    }

    #[test]
    fn plg_trigger_010_who_is_trusted() {
        let options = Options {
            trusted_org: "friends".into(),
            trusted_apps: vec!["dependabot".into()],
            ..Options::default()
        };
        assert_eq!(asked("k8s-ci-robot", &options, None), (true, vec![]));
        assert_eq!(
            asked("a", &options, Some("member of org")),
            (true, vec!["member of org".into()])
        );
        let all = ["member of org", "collaborator", "member of friends"].map(String::from);
        assert_eq!(asked("a", &options, None), (false, all.to_vec()));
        assert_eq!(
            asked("a", &options, Some("member of friends")),
            (true, all.to_vec())
        );
        assert_eq!(
            asked("a", &options, Some("collaborator")),
            (true, all[..2].to_vec())
        );
        assert_eq!(
            asked("dependabot[bot]", &options, None),
            (true, all[..2].to_vec())
        );
        assert!(!asked("dependabot", &options, None).0);
        let strict = Options {
            only_org_members: true,
            trusted_org: "org".into(),
            ..Options::default()
        };
        assert_eq!(asked("a", &strict, None), (false, all[..1].to_vec()));
    }

    #[test]
    fn plg_trigger_012_a_label_makes_a_pull_request_trusted() {
        let repo = RepoId::new("org", "repo");
        let trusted = |names: &[&str]| {
            let facts = Facts {
                members: [(("org".into(), "a".into()), false)].into(),
                collaborators: [("a".into(), false)].into(),
                labels: Some(labels(names)),
                ..Facts::default()
            };
            is_trusted_pull_request("a", &repo, &Options::default(), &bot(), &facts).unwrap()
        };
        assert!(trusted(&["OK-to-test"]));
        assert!(!trusted(&["needs-ok-to-test"]));
    }
}
