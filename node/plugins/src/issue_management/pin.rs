//! `/pin-issue` and `/unpin-issue` (PLG-ISSUEMGMT-004).

use trireme_forge::norm_login;
use trireme_forge::webhook::{Event, GenericComment};

use super::say;
use crate::decision::{Decision, Outcome, Target};
use crate::plugin::{PlanError, Planning};
use crate::respond::answer;

const ONLY_ISSUES: &str = "`/pin-issue` and `/unpin-issue` can only be triggered on GitHub issues.";
const NOT_AUTHORIZED: &str = "You are not authorized to pin or unpin issues on this repository. Only approvers from the top-level OWNERS file can use this command.";

pub(super) async fn plan(
    cx: &Planning<'_>,
    event: &Event,
    text: &GenericComment,
    pin: bool,
) -> Result<Decision, PlanError> {
    let repository = match event {
        Event::Issue(event) => &event.repository,
        Event::IssueComment(event) if !text.is_pr => &event.repository,
        _ => return Ok(say(text, ONLY_ISSUES)),
    };
    let owners = match cx.owners(&text.repo, &repository.default_branch).await {
        Err(error @ (PlanError::Outage { .. } | PlanError::NotYet(_))) => return Err(error),
        owners => owners,
    };
    let may = owners.ok().map(|owners| {
        let approvers = owners.top_level_approvers();
        approvers.contains(&norm_login(&text.user.login))
    });
    Ok(decide(text, pin, may))
}

/// `may`: whether the author is an approver at the top; `None` if nobody can tell.
fn decide(text: &GenericComment, pin: bool, may: Option<bool>) -> Decision {
    match may {
        Some(true) => {}
        Some(false) => return say(text, NOT_AUTHORIZED),
        None => {
            let unknown = format!(
                "Unable to determine whether {} is an approver from the top-level OWNERS of {}.",
                text.user.login, text.repo
            );
            return say(text, &unknown);
        }
    }
    let on = Target::new(&text.repo, text.number);
    let reply = |message: String| answer(text, message);
    let number = text.number;
    let (verb, done, action) = match pin {
        true => ("pin", "pinned to", on.pin_issue(&text.node_id)),
        false => ("unpin", "unpinned from", on.unpin_issue(&text.node_id)),
    };
    let mut decision = Decision::nothing();
    let pinned = decision.push(action);
    let fine = format!("Issue #{number} has been {done} the repository.");
    decision.push_if(pinned, &[Outcome::Ok], reply(fine));
    let unable = format!("Unable to {verb} issue #{number}. Please try again later.");
    decision.push_if(pinned, &[Outcome::Refused], reply(unable));
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::comment;

    /// PLG-ISSUEMGMT-004
    #[test]
    fn plg_issuemgmt_004_approvers_at_the_top_pin_and_everybody_is_answered() {
        let text = comment("ann", "/pin-issue");
        let told = |pin, may| {
            let told = decide(&text, pin, may).to_string();
            let lines = told
                .lines()
                .filter(|line| line.contains(": @") || line.ends_with("pin"));
            lines.map(str::to_owned).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(told(true, Some(true)), @r"
        pin
        if 0 is done: comment: @ann: Issue #5 has been pinned to the repository.
        if 0 is refused: comment: @ann: Unable to pin issue #5. Please try again later.
        ");
        insta::assert_snapshot!(told(false, Some(true)), @r"
        unpin
        if 0 is done: comment: @ann: Issue #5 has been unpinned from the repository.
        if 0 is refused: comment: @ann: Unable to unpin issue #5. Please try again later.
        ");
        insta::assert_snapshot!(told(true, Some(false)), @"comment: @ann: You are not authorized to pin or unpin issues on this repository. Only approvers from the top-level OWNERS file can use this command.");
        insta::assert_snapshot!(told(true, None), @"comment: @ann: Unable to determine whether ann is an approver from the top-level OWNERS of org/repo.");
    }
}
