//! What a node itself has to tell its operator, through the log.

use std::{sync::Weak, time::Duration};

use tokio::time::sleep;
use trireme_proto::state::{Alarm, Command, SetAlarm, command::Body, outcome};

use super::{Inner, Started};

/// Lets the node that leads look for what is to be told, again and again, until it must stop or its store is closed.
pub(super) async fn look_on_leader(
    inner: Weak<Inner>,
    period: impl Fn(&Inner) -> Duration,
    look: impl AsyncFn(&Inner, &Started),
) {
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        if strong.fatal.get().is_some() {
            return;
        }
        if strong.observe(started).confirmed {
            look(&strong, started).await;
        }
        let period = period(&strong);
        drop(strong);
        sleep(period).await;
    }
}

impl Inner {
    /// Whether the log has it now; else the caller tries again at its next look.
    pub(super) async fn set_alarm(&self, key: &str, message: Option<String>) -> bool {
        let clear = message.is_none();
        let body = Body::SetAlarm(SetAlarm {
            alarm: Some(Alarm {
                key: key.to_owned(),
                message: message.unwrap_or_default(),
                node_id: self.node_id,
                ..Alarm::default()
            }),
            clear,
        });
        match self.propose(self.own_command(body)).await {
            Ok(applied) => match applied.outcome.result {
                Some(outcome::Result::Rejected(why)) => {
                    tracing::warn!(key, why = why.message, "an alarm was not taken");
                    false
                }
                _ => true,
            },
            Err(why) => {
                tracing::info!(key, %why, "an alarm cannot be told now");
                false
            }
        }
    }

    pub(super) fn own_command(&self, body: Body) -> Command {
        Command {
            principal: format!("node:{}", self.node_id),
            body: Some(body),
            ..Command::default()
        }
    }
}
