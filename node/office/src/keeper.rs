//! Taking and leaving office.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::RngExt as _;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use trireme_proto::state::{Command, TakeOffice, command::Body, outcome};
use trireme_raft::{Leadership, Store};

use crate::{Backoff, Office, OfficeError};

/// How long controllers may take to stop after the office is over, before they are aborted.
const LEAVE_GRACE: Duration = Duration::from_secs(2);

/// Between two tries of one node to hand on a lead that it must not use, at least; jitter adds up to half of it.
const HAND_ON_AGAIN: Duration = Duration::from_secs(30);
/// Between looks at whether the state says that this node is not fit.
const LOOK: Duration = Duration::from_secs(1);

/// The alarm of a node that must not take office, because it cannot read the configuration in force.
#[must_use]
pub fn unfit_alarm(node_id: u64) -> String {
    format!("config/node-{node_id}")
}

/// A controller's own failure; it is started again after a backoff while the office is held.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error(transparent)]
    Office(#[from] OfficeError),
    #[error("{0}")]
    Failed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Something that acts from the state while this node holds the office.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Runs until `office.resigned()`; an error restarts it.
    ///
    /// # Errors
    /// Whatever it cannot settle by itself.
    async fn run(&self, office: Office) -> Result<(), ControllerError>;
}

/// Follows the leadership of this node and keeps all controllers running exactly while it holds the office.
pub struct Keeper {
    store: Store,
    controllers: Vec<Arc<dyn Controller>>,
    fit: Option<watch::Receiver<bool>>,
}

impl Keeper {
    #[must_use]
    pub fn new(store: Store, controllers: Vec<Arc<dyn Controller>>) -> Self {
        Self {
            store,
            controllers,
            fit: None,
        }
    }

    /// While `fit` says no this node takes no office and leaves the one it holds. Once the state has its [`unfit_alarm`]
    /// it hands on the lead to a voter that has none; while all have one it keeps the lead.
    #[must_use]
    pub fn while_fit(mut self, fit: watch::Receiver<bool>) -> Self {
        self.fit = Some(fit);
        self
    }

    /// Runs until `stop`; leaves office before it returns.
    pub async fn run(&self, stop: CancellationToken) {
        let mut leadership = self.store.leadership();
        let mut fit = self.fit.clone();
        let mut failures = 0;
        let mut hand_on_at = Instant::now();
        loop {
            let now = *leadership.borrow_and_update();
            let is_fit = fit.as_mut().is_none_or(|fit| *fit.borrow_and_update());
            let leads = now.is_me && now.confirmed;
            if leads && is_fit {
                match self.take_office(&now).await {
                    Ok(office) => {
                        failures = 0;
                        self.hold(office, &now, leadership.clone(), &stop).await;
                    }
                    Err(why) => {
                        failures += 1;
                        tracing::warn!(term = now.term, %why, "could not take office");
                        let wait = Backoff::default().after(failures).min(LEAVE_GRACE);
                        tokio::select! {
                            () = stop.cancelled() => return,
                            _ = leadership.changed() => {}
                            () = sleep(wait) => {}
                        }
                    }
                }
                if stop.is_cancelled() {
                    return;
                }
                continue;
            }
            let unfit = leads && !is_fit;
            // Before its alarm is raised, others may not have found either whether they are fit.
            if unfit && self.is_known_unfit(self.store.node_id()) && Instant::now() >= hand_on_at {
                self.hand_on().await;
                let jitter = rand::rng().random_range(1.0..1.5);
                hand_on_at = Instant::now() + HAND_ON_AGAIN.mul_f64(jitter);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
                () = changed(&mut fit) => {}
                () = sleep(LOOK), if unfit => {}
            }
        }
    }

    fn is_known_unfit(&self, node_id: u64) -> bool {
        self.store.view().alarm(&unfit_alarm(node_id)).is_some()
    }

    /// Without another voter that is fit nobody takes the office.
    async fn hand_on(&self) {
        match self.store.hand_on(|id| !self.is_known_unfit(id)).await {
            Ok(to) => tracing::warn!(to, "handed on the lead: this node must not take office"),
            Err(why) => tracing::error!(
                %why,
                "this node leads without office, which it must not take, and cannot hand on the lead"
            ),
        }
    }

    async fn take_office(&self, leadership: &Leadership) -> Result<Office, String> {
        let node_id = self.store.node_id();
        let command = Command {
            min_level: 1,
            principal: format!("node:{node_id}"),
            request_id: String::new(),
            epoch: 0,
            body: Some(Body::TakeOffice(TakeOffice {
                node_id,
                term: leadership.term,
            })),
        };
        let applied = self
            .store
            .propose(command)
            .await
            .map_err(|why| why.to_string())?;
        match applied.outcome.result {
            Some(outcome::Result::Done(done)) => {
                let epoch = done.token;
                tracing::info!(epoch, term = leadership.term, "took office");
                Ok(Office {
                    store: self.store.clone(),
                    controller: "office",
                    epoch,
                    taken_ms: self.store.view().office().since_ms,
                    resigned: CancellationToken::new(),
                })
            }
            Some(outcome::Result::Rejected(rejected)) => Err(rejected.message),
            None => Err("the outcome is empty".to_owned()),
        }
    }

    /// Returns after every controller has stopped.
    async fn hold(
        &self,
        office: Office,
        taken: &Leadership,
        mut leadership: tokio::sync::watch::Receiver<Leadership>,
        stop: &CancellationToken,
    ) {
        let mut running = JoinSet::new();
        for controller in &self.controllers {
            let office = Office {
                controller: controller.name(),
                ..office.clone()
            };
            running.spawn(keep_running(Arc::clone(controller), office));
        }
        let mut fit = self.fit.clone();
        loop {
            if fit.as_mut().is_some_and(|fit| !*fit.borrow_and_update()) {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = office.resigned.cancelled() => break,
                () = changed(&mut fit) => {}
                changed = leadership.changed() => {
                    let now = *leadership.borrow_and_update();
                    if changed.is_err() || !now.is_me || now.term != taken.term {
                        break;
                    }
                }
            }
        }
        leave_office(&office, running).await;
    }
}

/// Whether the node is fit may be another now; without anybody who says so, never.
async fn changed(fit: &mut Option<watch::Receiver<bool>>) {
    if let Some(fit) = fit
        && fit.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn leave_office(office: &Office, mut running: JoinSet<()>) {
    office.resigned.cancel();
    let deadline = Instant::now() + LEAVE_GRACE;
    while let Ok(Some(_)) = timeout_at(deadline, running.join_next()).await {}
    let late = running.len();
    // Aborting drops what they hold; child processes are killed on drop.
    running.shutdown().await;
    tracing::info!(epoch = office.epoch, aborted = late, "left office");
}

async fn keep_running(controller: Arc<dyn Controller>, office: Office) {
    let name = controller.name();
    let mut failures = 0;
    while !office.resigned.is_cancelled() {
        let started = Instant::now();
        let why = match run_caught(Arc::clone(&controller), office.clone()).await {
            Ok(()) if office.resigned.is_cancelled() => return,
            Ok(()) => "it returned while the office is held".to_owned(),
            Err(ControllerError::Office(OfficeError::Left { .. })) => return,
            Err(why) => why.to_string(),
        };
        if started.elapsed() > Duration::from_secs(60) {
            failures = 0;
        }
        failures += 1;
        let wait = Backoff::default().after(failures);
        tracing::error!(controller = name, failures, ?wait, %why, "controller failed, will be started again");
        tokio::select! {
            () = office.resigned.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// A panic in a controller is its failure, not the node's.
async fn run_caught(
    controller: Arc<dyn Controller>,
    office: Office,
) -> Result<(), ControllerError> {
    let task = AbortOnDrop(tokio::spawn(async move { controller.run(office).await }));
    match task.await {
        Ok(result) => result,
        Err(join) => Err(ControllerError::Failed(join.into())),
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
