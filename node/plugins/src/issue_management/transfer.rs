//! `/transfer` (PLG-ISSUEMGMT-001).

use trireme_forge::RepoId;
use trireme_forge::webhook::GenericComment;

use super::say;
use crate::decision::{Decision, Target};
use crate::plugin::{PlanError, Planning};

const ONLY_ISSUES: &str =
    "The `/transfer-issue` command is only supported on issues, not pull requests.";
const ONCE: &str = "`/transfer-issue` must only be used once and with a single destination repo.";
const NO_MEMBER: &str = "You must be an org member to transfer this issue.";

pub(super) async fn plan(
    cx: &Planning<'_>,
    text: &GenericComment,
    to: &[String],
) -> Result<Decision, PlanError> {
    let to = match destination(text, to) {
        Ok(to) => to,
        Err(why) => return Ok(say(text, why)),
    };
    let there = match cx.forge.repository(&RepoId::new(&text.repo.org, to)).await {
        Err(error) if error.is_outage() => return Err(error.into()),
        there => there.is_ok(),
    };
    let is_member = there
        && cx
            .forge
            .is_org_member(&text.repo.org, &text.user.login)
            .await?;
    Ok(decide(text, to, there, is_member))
}

fn destination<'a>(text: &GenericComment, to: &'a [String]) -> Result<&'a str, &'static str> {
    match to {
        _ if text.is_pr => Err(ONLY_ISSUES),
        [to] if !to.trim().is_empty() => Ok(to.trim()),
        _ => Err(ONCE),
    }
}

fn decide(text: &GenericComment, to: &str, there: bool, is_member: bool) -> Decision {
    if !there {
        let missing = format!(
            "Something went wrong or the destination repo **{}/{to}** does not exist.",
            text.repo.org
        );
        return say(text, &missing);
    }
    if !is_member {
        return say(text, NO_MEMBER);
    }
    let on = Target::new(&text.repo, text.number);
    vec![on.transfer_issue(&text.node_id, to)].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::comment;

    /// PLG-ISSUEMGMT-001
    #[test]
    fn plg_issuemgmt_001_a_member_moves_an_issue_to_a_repository_that_is_there() {
        let mut text = comment("ann", "/transfer x");
        let owned = |to: &[&str]| to.iter().map(|to| (*to).to_owned()).collect::<Vec<_>>();
        let of =
            |text: &GenericComment, to: &[&str]| destination(text, &owned(to)).map(str::to_owned);
        assert_eq!(of(&text, &["x"]), Err(ONLY_ISSUES));
        text.is_pr = false;
        assert_eq!(of(&text, &["x \r"]), Ok("x".to_owned()));
        for wrong in [&["x", "y"][..], &[""], &["\r"]] {
            assert_eq!(of(&text, wrong), Err(ONCE));
        }
        let told = |there, member| {
            let told = decide(&text, "x", there, member).to_string();
            told.lines().next().unwrap().to_owned()
        };
        assert_eq!(
            told(false, true),
            "comment: @ann: Something went wrong or the destination repo **org/x** does not exist."
        );
        assert_eq!(
            told(true, false),
            "comment: @ann: You must be an org member to transfer this issue."
        );
        assert_eq!(told(true, true), "transfer to x");
    }
}
