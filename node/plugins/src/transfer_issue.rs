//! `transfer-issue`: what `issue-management` was once, and under this name still is (HOOK-064).

use async_trait::async_trait;
use trireme_forge::webhook::Event;

use crate::decision::Decision;
use crate::help::{HelpScope, PluginHelp};
use crate::issue_management::{NAME, TRANSFER_HELP, asked_to_transfer, concerns, plan};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

pub(crate) struct TransferIssue;

#[async_trait]
impl Plugin for TransferIssue {
    fn name(&self) -> &'static str {
        "transfer-issue"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        concerns(event, asked_to_transfer)
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let is_done_there = event.repo().is_some_and(|repo| {
            let plugins = &cx.running.plugins;
            plugins.is_enabled(NAME, &repo.org, &repo.repo)
        });
        if is_done_there {
            return Ok(Decision::nothing());
        }
        plan(cx, event, asked_to_transfer).await
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The transfer-issue plugin is part of issue-management now. Under this name it transfers a GitHub issue from one repo to another in the same organization.".to_owned(),
            commands: vec![TRANSFER_HELP],
            ..PluginHelp::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::comment_event;

    /// HOOK-064
    #[test]
    fn hook_064_the_former_name_only_transfers() {
        assert!(crate::testing::concerns(
            &TransferIssue,
            &comment_event("ann", "/transfer-issue kubectl")
        ));
        for body in [
            "/link-issue 1",
            "/unlink-issue 1",
            "/pin-issue",
            "/unpin-issue",
        ] {
            assert!(
                !crate::testing::concerns(&TransferIssue, &comment_event("ann", body)),
                "{body}"
            );
        }
    }
}
