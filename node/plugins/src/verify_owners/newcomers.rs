//! Who becomes an owner by a pull request, and which of them are not trusted.

use std::collections::{BTreeMap, BTreeSet};

use trireme_forge::owners::{Aliases, OwnersFile};
use trireme_forge::{BotUser, RepoId, norm_login};
use trireme_office::TrustRule;

use super::files::entries;
use crate::facts::{Facts, Missing};

/// People whose trust is asked for in one run (PLG-VERIFYOWNERS-006).
pub(super) const MAX_CHECKED: usize = 50;

/// What [`untrusted`] may have to know.
pub(super) const MAX_FACTS: usize = MAX_CHECKED * TrustRule::MAX_QUESTIONS;

/// Files by whom they make an owner, as written.
pub(super) type Newcomers = BTreeMap<String, BTreeSet<String>>;

/// Whom the file gives a role that it gave them for nothing before, whatever its patterns are.
pub(super) fn of_file(
    path: &str,
    before: Option<&OwnersFile>,
    after: &OwnersFile,
    aliases: &Aliases,
    newcomers: &mut Newcomers,
) {
    let before: BTreeSet<_> = before
        .into_iter()
        .flat_map(grants)
        .map(|(role, login)| (role, norm_login(login)))
        .collect();
    for (role, login) in grants(after) {
        let known = before.contains(&(role, norm_login(login)));
        if !known && !login.is_empty() && aliases.get(login).is_none() {
            add(newcomers, login, path);
        }
    }
}

fn grants(file: &OwnersFile) -> Vec<(u8, &str)> {
    let mut grants = Vec::new();
    for (_, entry) in entries(file) {
        let roles = [
            &entry.approvers,
            &entry.reviewers,
            &entry.required_reviewers,
        ];
        for (role, logins) in (0..).zip(roles) {
            grants.extend(logins.iter().map(|login| (role, login.as_str())));
        }
    }
    grants
}

/// Whom the aliases file puts into a group and had in none before: a group's name is no matter.
pub(super) fn of_aliases(path: &str, before: &Aliases, after: &Aliases, newcomers: &mut Newcomers) {
    let former: BTreeSet<String> = before
        .iter()
        .flat_map(|(_, members)| members.iter().map(|login| norm_login(login)))
        .collect();
    for (_, members) in after.iter() {
        for login in members {
            if !former.contains(&norm_login(login)) {
                add(newcomers, login, path);
            }
        }
    }
}

fn add(newcomers: &mut Newcomers, login: &str, path: &str) {
    let same = |known: &&String| norm_login(known) == norm_login(login);
    let written = newcomers.keys().find(same).cloned();
    let written = written.unwrap_or_else(|| login.to_owned());
    newcomers
        .entry(written)
        .or_default()
        .insert(path.to_owned());
}

/// Somebody who may not become an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Untrusted {
    pub(super) login: String,
    pub(super) reason: String,
    pub(super) files: BTreeSet<String>,
}

pub(super) fn untrusted(
    newcomers: &Newcomers,
    repo: &RepoId,
    rule: &TrustRule<'_>,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Vec<Untrusted>, Missing> {
    let mut untrusted = Vec::new();
    for (login, files) in newcomers.iter().take(MAX_CHECKED) {
        let is_member = |org: &str, login: &str| facts.is_member(org, login);
        let is_collaborator = |login: &str| facts.is_collaborator(login);
        if !bot.is(login) && !rule.trusts(login, &repo.org, is_member, is_collaborator)? {
            untrusted.push(Untrusted {
                login: login.clone(),
                reason: reason(repo, rule),
                files: files.clone(),
            });
        }
    }
    Ok(untrusted)
}

/// Why somebody is not trusted, as `trigger` says it.
fn reason(repo: &RepoId, rule: &TrustRule<'_>) -> String {
    let mut reason = "User is not a member of the org. ".to_owned();
    if !rule.only_org_members {
        reason.push_str("User is not a collaborator. ");
    }
    if !rule.trusted_org.is_empty() && rule.trusted_org != repo.org {
        reason.push_str("User is not a member of the trusted secondary org. ");
    }
    reason.push_str("Satisfy at least one of these conditions to make the user trusted.");
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bot;

    fn file(text: &str) -> OwnersFile {
        OwnersFile::parse(text.as_bytes()).unwrap()
    }

    fn aliases(text: &str) -> Aliases {
        Aliases::parse(text.as_bytes()).unwrap().0
    }

    fn names(newcomers: &Newcomers) -> Vec<&str> {
        newcomers.keys().map(String::as_str).collect()
    }

    /// PLG-VERIFYOWNERS-006, PLG-VERIFYOWNERS-010: flow-style lists, required reviewers and filters count.
    #[test]
    fn plg_verifyowners_006_newcomers_are_who_was_not_there_in_that_role() {
        let groups = aliases("aliases:\n  team: [x]\n");
        for (before, after, expected) in [
            ("approvers: [a]", "approvers: [a, B]", vec!["B"]),
            ("approvers: [a]", "approvers:\n- A\n", vec![]),
            ("reviewers: [a]", "approvers: [a]", vec!["a"]),
            ("", "approvers: [team, Team]", vec![]),
            ("", "required_reviewers: [r]", vec!["r"]),
            (
                "filters: {'.*': {approvers: [a]}}",
                "approvers: [a]",
                vec![],
            ),
            (
                "filters: {x: {approvers: [a]}}",
                "filters: {x: {approvers: [a]}, y: {approvers: [a, c]}}",
                vec!["c"],
            ),
            (
                "filters: {x: {approvers: [a], reviewers: [b]}}",
                "filters: {'x|y': {approvers: [a, b]}}",
                vec!["b"],
            ),
            ("approvers: [a, b]", "approvers: [b]", vec![]),
        ] {
            let mut newcomers = Newcomers::default();
            let before = file(before);
            of_file(
                "OWNERS",
                Some(&before),
                &file(after),
                &groups,
                &mut newcomers,
            );
            assert_eq!(names(&newcomers), expected, "{after}");
        }
        let mut newcomers = Newcomers::default();
        of_aliases(
            "OWNERS_ALIASES",
            &aliases("aliases:\n  a: [x]\n  b: [was]\n"),
            &aliases("aliases:\n  a: [x, yan]\n  renamed: [was, z]\n"),
            &mut newcomers,
        );
        of_file(
            "d/OWNERS",
            None,
            &file("approvers: [Yan]"),
            &groups,
            &mut newcomers,
        );
        assert_eq!(names(&newcomers), ["yan", "z"]);
        let files: Vec<&String> = newcomers["yan"].iter().collect();
        assert_eq!(files, ["OWNERS_ALIASES", "d/OWNERS"]);
    }

    fn asked(rule: &TrustRule<'_>, member: bool) -> Vec<Untrusted> {
        let newcomers = [("a".to_owned(), ["OWNERS".to_owned()].into())].into();
        let member_of = |org: &str, is: bool| ((org.to_owned(), "a".to_owned()), is);
        let facts = Facts {
            members: [member_of("org", member), member_of("friends", false)].into(),
            collaborators: [("a".to_owned(), false)].into(),
            ..Facts::default()
        };
        let repo = RepoId::new("org", "repo");
        untrusted(&newcomers, &repo, rule, &bot(), &facts).unwrap()
    }

    /// PLG-TRIGGER-011
    #[test]
    fn plg_verifyowners_007_the_reason_is_that_of_trigger() {
        let plain = TrustRule {
            trusted_apps: &[],
            trusted_org: "",
            only_org_members: false,
        };
        assert_eq!(asked(&plain, true), []);
        insta::assert_snapshot!(asked(&plain, false)[0].reason, @"User is not a member of the org. User is not a collaborator. Satisfy at least one of these conditions to make the user trusted.");
        let strict = TrustRule {
            only_org_members: true,
            trusted_org: "friends",
            ..plain
        };
        insta::assert_snapshot!(asked(&strict, false)[0].reason, @"User is not a member of the org. User is not a member of the trusted secondary org. Satisfy at least one of these conditions to make the user trusted.");
    }

    #[test]
    fn plg_verifyowners_006_so_many_are_asked_about() {
        let many = (0..MAX_CHECKED + 10).map(|at| (format!("u{at:03}"), BTreeSet::new()));
        let newcomers: Newcomers = many.collect();
        let mut facts = Facts::default();
        for login in newcomers.keys() {
            let key = ("org".to_owned(), login.clone());
            facts.members.insert(key, false);
        }
        let rule = TrustRule {
            trusted_apps: &[],
            trusted_org: "",
            only_org_members: true,
        };
        let repo = RepoId::new("org", "repo");
        let found = untrusted(&newcomers, &repo, &rule, &bot(), &facts).unwrap();
        assert_eq!(found.len(), MAX_CHECKED);
    }
}
