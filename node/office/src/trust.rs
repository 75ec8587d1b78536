//! Whose pull requests are tested without being asked (PLG-TRIGGER-010): the rule, for whoever has the answers.

/// The label by which somebody trusted vouches for a pull request.
pub const OK_TO_TEST: &str = "ok-to-test";

/// What the `triggers` section says of trust in one repository.
#[derive(Debug, Clone, Copy)]
pub struct TrustRule<'a> {
    /// Logins of apps, without `[bot]`.
    pub trusted_apps: &'a [String],
    /// A second organisation whose members are trusted; empty = none.
    pub trusted_org: &'a str,
    pub only_org_members: bool,
}

impl TrustRule<'_> {
    /// Questions about one person at most.
    pub const MAX_QUESTIONS: usize = 3;

    /// Whether somebody who is not the bot is trusted in a repository of `org`. What is not known yet ends it with that
    /// question; questions come in the order in which Prow asks them, and only if the answers so far leave it open.
    ///
    /// # Errors
    /// Those of the answers.
    pub fn trusts<E>(
        &self,
        login: &str,
        org: &str,
        is_member: impl Fn(&str, &str) -> Result<bool, E>,
        is_collaborator: impl Fn(&str) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if is_member(org, login)? {
            return Ok(true);
        }
        if !self.only_org_members && is_collaborator(login)? {
            return Ok(true);
        }
        let app = login.strip_suffix("[bot]");
        if app.is_some_and(|app| self.trusted_apps.iter().any(|trusted| trusted == app)) {
            return Ok(true);
        }
        let second = self.trusted_org;
        if second.is_empty() || second == org {
            Ok(false)
        } else {
            is_member(second, login)
        }
    }
}
