//! Writes to services other than the forge: Slack and Jira.

use trireme_outside::jira::{LinkIcon, LinkedPage, RemoteLink};
use trireme_outside::service::ServiceError;
use trireme_proto::state::{Delivery, JiraLinkEffect, SlackEffect};

use super::Session;
use super::effects::millis;
use super::forward::PATIENCE;
use super::write::{Answer, Failure};

impl Session {
    /// Without Slack's token nobody is told, as in Prow (HOOK-002). A message whose answer was lost is said again: Slack
    /// cannot be asked for it.
    pub(super) async fn tell_slack(
        &self,
        effect: &SlackEffect,
        delivery: &Delivery,
    ) -> Result<Answer, Failure> {
        let Some(slack) = &self.tools.slack else {
            tracing::info!(
                channel = effect.channel,
                "without slack.token_file nobody is told"
            );
            return Ok(Answer::default());
        };
        let told = slack.write_message(&effect.channel, &effect.text).await;
        told.map_err(|error| self.failure(error, delivery))?;
        Ok(Answer::default())
    }

    /// PLG-JIRA-002: a link to the same page is changed, not doubled.
    pub(super) async fn link_from_jira(
        &self,
        effect: &JiraLinkEffect,
        delivery: &Delivery,
    ) -> Result<Answer, Failure> {
        let Some(jira) = &self.tools.jira else {
            let why = "jira.endpoint is not set any more".to_owned();
            return Err(Failure::Refused(why));
        };
        let options = &self.tools.options;
        if options.jira.as_ref().is_some_and(|jira| jira.dry_run) {
            tracing::info!(issue = effect.issue, "dry run: no link is made");
            return Ok(Answer::default());
        }
        let linked = async {
            let client = jira.client();
            let links = client.remote_links(&effect.issue).await?;
            let Some(link) = wanted(&links, effect) else {
                return Ok(());
            };
            client.put_remote_link(&effect.issue, &link).await
        };
        let linked: Result<(), ServiceError> = linked.await;
        linked.map_err(|error| self.failure(error, delivery))?;
        Ok(Answer::default())
    }

    /// A service that stays away is given up for the delivery in the end, to be redriven by a person.
    fn failure(&self, error: ServiceError, delivery: &Delivery) -> Failure {
        let waited_ms = self.office.now_ms().saturating_sub(delivery.received_ms);
        match error {
            ServiceError::Unavailable(why, pause) if waited_ms < millis(PATIENCE) => {
                Failure::Outage(why, pause)
            }
            error => Failure::Refused(error.to_string()),
        }
    }
}

/// The link to write, unless it is there as it should be.
fn wanted(links: &[RemoteLink], effect: &JiraLinkEffect) -> Option<RemoteLink> {
    let known = links.iter().find(|link| link.object.url == effect.url);
    if known.is_some_and(|link| link.object.title == effect.title) {
        return None;
    }
    Some(RemoteLink {
        id: known.and_then(|link| link.id),
        object: LinkedPage {
            url: effect.url.clone(),
            title: effect.title.clone(),
            icon: Some(LinkIcon {
                url: "https://github.com/favicon.ico".to_owned(),
                title: "GitHub".to_owned(),
            }),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLG-JIRA-002
    #[test]
    fn plg_jira_002_a_page_is_linked_once_under_its_newest_title() {
        let effect = JiraLinkEffect {
            issue: "ABC-1".into(),
            url: "https://github.com/o/r/pull/1".into(),
            title: "o/r#1: Fix".into(),
        };
        let made = wanted(&[], &effect).unwrap();
        assert_eq!((made.id, made.object.title.as_str()), (None, "o/r#1: Fix"));
        let mut there = RemoteLink {
            id: Some(7),
            ..made
        };
        assert_eq!(wanted(&[there.clone()], &effect), None);
        there.object.title = "o/r#1: Old".into();
        let changed = wanted(&[there], &effect).unwrap();
        assert_eq!(changed.id, Some(7));
        assert_eq!(changed.object.title, "o/r#1: Fix");
    }
}
