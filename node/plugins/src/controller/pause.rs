//! An outage of the forge: lanes that need it stand still, without a try or a commit, until it is there again. One probe of
//! the client's asks for all of them.

use std::time::Duration;

use rand::RngExt as _;
use trireme_forge::github::Pause;
use trireme_office::Work;
use trireme_proto::state::effect::Action;

use super::Session;

/// Lanes that wait for the same limit go on within so long after it, not all at once.
const SPREAD: Duration = Duration::from_secs(1);
/// Repairs look again after so long.
const REPAIRS_LATER: Duration = Duration::from_secs(30);

impl Session {
    /// Stops a lane whose next step asks the forge of `org` while that is not to be asked: until `follow_forges` wakes it,
    /// or until the limit is over.
    pub(super) fn ask_leave(&self, org: &str) -> Result<(), Work> {
        match self.tools.forges.pause(org) {
            None => Ok(()),
            Some(Pause::Away) => Err(Work::Done),
            Some(Pause::Limited(wait)) => {
                let spread = SPREAD.mul_f64(rand::rng().random_range(0.0..=1.0));
                Err(Work::NotBefore(wait.saturating_add(spread)))
            }
        }
    }

    /// When to look again at a repair that needs the forge of `org`, if not now.
    pub(super) fn repairs_later(&self, org: &str) -> Option<Duration> {
        match self.tools.forges.pause(org)? {
            Pause::Away => Some(REPAIRS_LATER),
            Pause::Limited(wait) => Some(wait.saturating_add(SPREAD)),
        }
    }

    /// What waited for a forge goes on when it is there again.
    pub(super) async fn follow_forges(&self) {
        let mut returns = self.tools.forges.returns();
        while returns.changed().await.is_ok() {
            let (_, lanes) = self.waiting().keys();
            tracing::info!(lanes = lanes.len(), "the forge is there again: lanes go on");
            lanes.into_iter().for_each(|lane| self.lanes.wake(lane));
        }
        // Its client is gone; so will be the office.
        self.office.resigned().cancelled().await;
    }
}

/// Whether an action is the forge's to carry out.
pub(super) fn asks_forge(action: &Action) -> bool {
    !matches!(
        action,
        Action::Forward(_) | Action::Slack(_) | Action::JiraLink(_) | Action::ConfigMap(_)
    )
}
