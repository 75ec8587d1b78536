//! One look at one pool, and the one action that follows (section 3 and 8 of the checklist).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use trireme_config::Presubmit;
use trireme_config::in_repo::InRepoJobs;
use trireme_config::tide::{ContextPolicy as ConfiguredPolicy, TideQuery};
use trireme_forge::{MergeMethod, RepoId, git::MergeOutcome};
use trireme_office::{RunningConfig, Work};
use trireme_proto::state::{MergePool, PoolAction, PoolPull, PullRequest, PutPool, command::Body};
use trireme_state::State;

use crate::{
    blockers::{self, Blocker},
    config::Rules,
    decide::{Decision, decide},
    facts,
    hold::Inputs,
    merge::Outcome,
    merging::{self, AllowedMethods},
    own::Unusable,
    pool::{Batches, Buckets, Member, Pool, PoolKey, Required, choose_batches, judge},
    pull::Pull,
    query,
    resume::{self, Interrupted},
    retired,
    session::{PullKey, Session, Trouble},
    together::Fitting,
};

/// After an action that changes the pool: long enough for the state to show it, short enough for the next in line.
const AFTER_ACTION: Duration = Duration::from_millis(200);

/// An open pull request on the pool's branch, in the pool or not.
pub(crate) struct Onlooker {
    pub(crate) pull: Pull,
    pub(crate) method: Option<MergeMethod>,
    pub(crate) forbidden: Option<String>,
    pub(crate) in_pool: bool,
    pub(crate) required: Vec<Required>,
    /// The repository's own jobs with its head, if it was worth asking.
    pub(crate) own: Arc<InRepoJobs>,
    /// What counts for it, own jobs included.
    pub(crate) policy: Arc<ConfiguredPolicy>,
}

/// All that one look has found.
pub(crate) struct Scene<'a> {
    pub(crate) rules: Rules<'a>,
    /// Without the repository's own jobs.
    pub(crate) policy: Arc<ConfiguredPolicy>,
    pub(crate) queries: Vec<&'a TideQuery>,
    pub(crate) pool: Pool,
    pub(crate) onlookers: Vec<Onlooker>,
    pub(crate) blockers: Vec<Blocker>,
    /// When a pull request that is held may be looked at again.
    pub(crate) next_look: Option<Duration>,
    /// A batch that was being merged when the office changed hands.
    pub(crate) interrupted: Option<Interrupted>,
}

impl Session {
    pub(crate) async fn sync_pool(&self, key: &PoolKey) -> Work {
        match self.try_sync_pool(key).await {
            Ok(work) => work,
            Err(trouble) => trouble.into(),
        }
    }

    async fn try_sync_pool(&self, key: &PoolKey) -> Result<Work, Trouble> {
        if let Some(wait) = self.settle_open_intents(key).await? {
            return Ok(Work::After(wait));
        }
        let view = self.office.view();
        // Without it there is nothing to go by; its arrival queues all pools.
        let Some(running) = self.running(&view) else {
            return Ok(Work::Done);
        };
        let open = open_pulls(&view, key);
        let tide = &running.config.prow.tide;
        let covered = tide.queries_for(&key.org, &key.repo).next().is_some();
        if open.is_empty() || !covered {
            self.forget_pool(&view, key).await?;
            return Ok(Work::Done);
        }
        let scene = match self.look(&view, &running, key, &open).await? {
            Ok(scene) => scene,
            Err(Unready::Wait) => return Ok(Work::Done),
            Err(Unready::Broken(why)) => {
                self.record_trouble(&view, key, why).await?;
                return Ok(Work::Done);
            }
        };
        let buckets = scene.pool.accumulate();
        let batches = self.batches(&scene).await?;
        let decision = if scene.blockers.is_empty() {
            self.decide(&scene, &buckets, &batches).await?
        } else {
            Decision::Wait
        };
        self.want_statuses(&scene, &decision);
        let done = self.act(&scene, &decision).await?;
        self.record_pool(&scene, &buckets, &batches, &decision, done.error)
            .await?;
        if let Some(work) = done.next {
            return Ok(work);
        }
        let acted = !matches!(decision, Decision::Wait) && done.changed;
        let wait = if acted {
            Some(AFTER_ACTION)
        } else {
            scene.next_look
        };
        Ok(wait.map_or(Work::Done, Work::After))
    }

    async fn look<'a>(
        &self,
        state: &State,
        running: &'a RunningConfig,
        key: &'a PoolKey,
        open: &[Arc<PullRequest>],
    ) -> Result<Result<Scene<'a>, Unready>, Trouble> {
        let Some(board) = self.memory.blockers() else {
            return Ok(Err(Unready::Wait));
        };
        if board.unknown_orgs.contains(&key.org) {
            let why = format!("the issues that block merges in {} are not known", key.org);
            return Ok(Err(Unready::Broken(why)));
        }
        let repo = RepoId::new(&key.org, &key.repo);
        let base_sha = match self.forge.branch_head(&repo, &key.branch).await {
            Ok(sha) => sha,
            Err(why) if why.is_not_found() => {
                return Ok(Err(Unready::Broken(format!(
                    "branch {} does not exist",
                    key.branch
                ))));
            }
            Err(why) => return Err(why.into()),
        };
        let rules = Rules::new(running, key);
        let policy = match rules.policy(&InRepoJobs::default()) {
            Ok(policy) => Arc::new(policy),
            Err(why) => return Ok(Err(Unready::Broken(why))),
        };
        let allowed = self.allowed_methods(&repo).await?;
        let tide = &running.config.prow.tide;
        let mut scene = Scene {
            queries: tide.queries_for(&key.org, &key.repo).collect(),
            pool: Pool {
                key: key.clone(),
                base_sha,
                members: Vec::new(),
                runs: Vec::new(),
            },
            blockers: blockers::applicable(&board.blockers, &key.org, &key.repo, &key.branch)
                .into_iter()
                .cloned()
                .collect(),
            onlookers: Vec::new(),
            next_look: None,
            interrupted: None,
            rules,
            policy,
        };
        let looks: Vec<(Onlooker, bool)> = open
            .iter()
            .map(|mirror| self.onlooker(state, &scene, mirror, allowed))
            .collect();
        let heads: Vec<&str> = looks
            .iter()
            .filter(|(onlooker, meets)| *meets && onlooker.forbidden.is_none())
            .map(|(onlooker, _)| onlooker.pull.head_sha.as_str())
            .collect();
        let base = &scene.pool.base_sha;
        self.in_repo
            .warm(&running.config, scene.rules.repo(), base, &heads)
            .await?;
        for (onlooker, meets) in looks {
            self.look_at(state, &mut scene, onlooker, meets).await?;
        }
        let numbers = open.iter().map(|mirror| &mirror.number);
        scene.pool.runs = facts::runs(state, key, numbers);
        scene.interrupted = resume::interrupted(state, &scene.pool);
        Ok(Ok(scene))
    }

    /// As far as the mirror tells, and whether it meets a query.
    fn onlooker(
        &self,
        state: &State,
        scene: &Scene<'_>,
        mirror: &PullRequest,
        allowed: AllowedMethods,
    ) -> (Onlooker, bool) {
        let key = PullKey {
            org: mirror.org.clone(),
            repo: mirror.repo.clone(),
            number: mirror.number,
        };
        let mut pull = facts::pull(state, mirror, &self.memory.search_only(&key));
        // Of a repository's own jobs nothing is known yet: none of their contexts may go for want of a job.
        if !scene.rules.has_own_jobs() {
            retired::drop_retired(state, &mut pull, &scene.rules.presubmits, &scene.policy);
        }
        let method = scene.rules.method(&pull);
        let forbidden = merging::forbidden(&pull, method, allowed, scene.rules.blocks());
        let meets = scene
            .queries
            .iter()
            .any(|query| query::matches(query, &pull));
        let onlooker = Onlooker {
            method,
            forbidden,
            in_pool: false,
            required: Vec::new(),
            own: Arc::default(),
            policy: Arc::clone(&scene.policy),
            pull,
        };
        (onlooker, meets)
    }

    /// Learns the repository's own jobs with this head; without them it stays out of the pool (TIDE-024).
    async fn learn_own_jobs(
        &self,
        state: &State,
        scene: &mut Scene<'_>,
        onlooker: &mut Onlooker,
    ) -> Result<(), Trouble> {
        if !scene.rules.has_own_jobs() {
            return Ok(());
        }
        let own = self.own_jobs(scene, &[&onlooker.pull.head_sha]).await?;
        let learned = own.and_then(|own| match scene.rules.policy(&own) {
            Ok(policy) => Ok((own, Arc::new(policy))),
            Err(why) => Err(Unusable { why, again: None }),
        });
        match learned {
            Ok((own, policy)) => {
                let presubmits: Vec<&Presubmit> = scene.rules.all(&own).collect();
                retired::drop_retired(state, &mut onlooker.pull, &presubmits, &policy);
                (onlooker.own, onlooker.policy) = (own, policy);
            }
            Err(Unusable { why, again }) => {
                tracing::info!(pool = %scene.pool.key, number = onlooker.pull.number, why, "left out");
                scene.next_look = sooner(scene.next_look, again);
                onlooker.forbidden = Some(why);
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        state: &State,
        scene: &mut Scene<'_>,
        mut onlooker: Onlooker,
        meets: bool,
    ) -> Result<(), Trouble> {
        if meets && onlooker.forbidden.is_none() {
            self.learn_own_jobs(state, scene, &mut onlooker).await?;
        }
        if meets && onlooker.forbidden.is_none() {
            let own = &onlooker.own;
            let files = if scene.rules.wants_changed_files(own) {
                let key = PullKey {
                    org: onlooker.pull.org.clone(),
                    repo: onlooker.pull.repo.clone(),
                    number: onlooker.pull.number,
                };
                self.changed_files(&key, &onlooker.pull.head_sha).await?
            } else {
                Arc::default()
            };
            let member = Member {
                pull: onlooker.pull.clone(),
                required: scene.rules.required(own, &files),
                policy: Arc::clone(&onlooker.policy) as _,
                held: None,
            };
            if member.contexts_allow() {
                onlooker.in_pool = true;
                onlooker.required.clone_from(&member.required);
                let held = self.held(state, scene, &onlooker);
                let member = match held {
                    Some((why, again)) => {
                        scene.next_look = sooner(scene.next_look, again);
                        Member {
                            held: Some(why),
                            ..member
                        }
                    }
                    None => member,
                };
                scene.pool.members.push(member);
            }
        }
        scene.onlookers.push(onlooker);
        Ok(())
    }

    fn held(
        &self,
        state: &State,
        scene: &Scene<'_>,
        onlooker: &Onlooker,
    ) -> Option<(String, Option<Duration>)> {
        let pull = &onlooker.pull;
        self.memory.refusals().hold(
            state
                .intents_of(&pull.org, &pull.repo, pull.number)
                .map(Arc::as_ref),
            pull,
            &scene.pool.base_sha,
            scene.inputs(pull, onlooker.method),
            self.office.now_ms(),
        )
    }

    /// What the batches under way have come to, each against what it must pass (TIDE-071).
    async fn batches(&self, scene: &Scene<'_>) -> Result<Batches, Trouble> {
        let mut judged = Vec::new();
        for group in scene.pool.batch_groups() {
            let verdict = match self.own_jobs_of(scene, &group.numbers).await? {
                Ok(own) => {
                    let required = self.batch_tests(scene, &group.numbers, &own).await?;
                    judge(&group, &required)
                }
                // What it must pass is not known any more.
                Err(_) => None,
            };
            judged.push((group, verdict));
        }
        Ok(choose_batches(judged))
    }

    /// The tests of several pull requests together; `own` are the repository's with all of them.
    pub(crate) async fn batch_tests(
        &self,
        scene: &Scene<'_>,
        numbers: &[u64],
        own: &InRepoJobs,
    ) -> Result<Vec<Required>, Trouble> {
        if !scene.rules.wants_changed_files(own) {
            return Ok(scene.rules.required(own, &[]));
        }
        let mut files = std::collections::BTreeSet::new();
        for member in numbers
            .iter()
            .filter_map(|number| scene.pool.member(*number))
        {
            let key = PullKey {
                org: member.pull.org.clone(),
                repo: member.pull.repo.clone(),
                number: member.number(),
            };
            let changed = self.changed_files(&key, &member.pull.head_sha).await?;
            files.extend(changed.iter().cloned());
        }
        let files: Vec<String> = files.into_iter().collect();
        Ok(scene.rules.required(own, &files))
    }

    async fn decide(
        &self,
        scene: &Scene<'_>,
        buckets: &Buckets,
        batches: &Batches,
    ) -> Result<Decision, Trouble> {
        if let Some(interrupted) = &scene.interrupted {
            return Ok(Decision::MergeBatch(interrupted.rest.clone()));
        }
        let settings = scene.rules.settings();
        let decision = decide(&scene.pool, buckets, batches, &settings, None);
        let Decision::FormBatch { candidates, limit } = &decision else {
            return Ok(decision);
        };
        let formed = self.form_batch(scene, candidates, *limit).await?;
        Ok(decide(
            &scene.pool,
            buckets,
            batches,
            &settings,
            Some(&formed),
        ))
    }

    /// Those that go on top of each other without conflict, in this order, and whose own files go together (TIDE-075).
    async fn form_batch(
        &self,
        scene: &Scene<'_>,
        candidates: &[u64],
        limit: usize,
    ) -> Result<Vec<u64>, Trouble> {
        let key = &scene.pool.key;
        let repo = RepoId::new(&key.org, &key.repo);
        let members: Vec<&Member> = candidates
            .iter()
            .filter_map(|number| scene.pool.member(*number))
            .collect();
        let mut wanted: Vec<&str> = vec![&scene.pool.base_sha];
        wanted.extend(members.iter().map(|member| member.pull.head_sha.as_str()));
        self.mirrors.ensure(&repo, &wanted).await?;
        let mut formed = Vec::new();
        let mut tip = scene.pool.base_sha.clone();
        for member in members {
            if limit > 0 && formed.len() >= limit {
                break;
            }
            let Some(method) = scene.rules.method(&member.pull) else {
                continue;
            };
            let head = &member.pull.head_sha;
            match self.mirrors.merge_onto(&repo, &tip, head, method).await? {
                MergeOutcome::Clean { commit, .. } => {
                    tip = commit;
                    formed.push(member.number());
                }
                MergeOutcome::Conflict { paths } => {
                    tracing::info!(pool = %key, number = member.number(), ?paths, "conflicts with the batch, left out");
                }
            }
        }
        let mut fitting = Fitting::new(formed);
        while let Some(some) = fitting.next() {
            let own = self.own_jobs_of(scene, some).await?;
            fitting.told(own.as_ref().err().map(|unusable| unusable.why.as_str()));
        }
        Ok(fitting.found())
    }

    async fn act(&self, scene: &Scene<'_>, decision: &Decision) -> Result<Outcome, Trouble> {
        match decision {
            Decision::Wait | Decision::FormBatch { .. } => Ok(Outcome::default()),
            Decision::Merge(number) => self.merge_all(scene, &[*number]).await,
            Decision::MergeBatch(numbers) => self.merge_all(scene, numbers).await,
            Decision::Trigger { number, tests } => {
                match self.own_jobs_of(scene, &[*number]).await? {
                    Ok(own) => self.trigger(scene, &[*number], &own, tests).await,
                    Err(unusable) => Ok(unusable.into()),
                }
            }
            Decision::TriggerBatch(numbers) => match self.own_jobs_of(scene, numbers).await? {
                Ok(own) => {
                    let tests = self.batch_tests(scene, numbers, &own).await?;
                    self.trigger(scene, numbers, &own, &tests).await
                }
                Err(unusable) => Ok(unusable.into()),
            },
        }
    }

    async fn forget_pool(&self, state: &State, key: &PoolKey) -> Result<(), Trouble> {
        let Some(pool) = state.pool(&key.org, &key.repo, &key.branch) else {
            return Ok(());
        };
        let command = PutPool {
            pool: Some((**pool).clone()),
            remove: true,
        };
        self.office.propose(Body::PutPool(command)).await?;
        Ok(())
    }

    /// The pool as it stood, with what is wrong now.
    async fn record_trouble(
        &self,
        state: &State,
        key: &PoolKey,
        why: String,
    ) -> Result<(), Trouble> {
        tracing::warn!(pool = %key, %why, "the pool is not served");
        let former = state.pool(&key.org, &key.repo, &key.branch);
        let pool = MergePool {
            org: key.org.clone(),
            repo: key.repo.clone(),
            branch: key.branch.clone(),
            batches: former.map_or(0, |pool| pool.batches),
            action: PoolAction::Wait.into(),
            error: why,
            ..MergePool::default()
        };
        self.put_pool(former.map(Arc::as_ref), pool).await
    }

    async fn record_pool(
        &self,
        scene: &Scene<'_>,
        buckets: &Buckets,
        batches: &Batches,
        decision: &Decision,
        error: String,
    ) -> Result<(), Trouble> {
        let key = &scene.pool.key;
        let view = self.office.view();
        let former = view.pool(&key.org, &key.repo, &key.branch);
        if scene.pool.members.is_empty() {
            return self.forget_pool(&view, key).await;
        }
        let (action, target): (_, Vec<u64>) = match decision {
            _ if !scene.blockers.is_empty() => (PoolAction::Blocked, Vec::new()),
            Decision::Wait | Decision::FormBatch { .. } => (PoolAction::Wait, Vec::new()),
            Decision::Merge(number) => (PoolAction::Merge, vec![*number]),
            Decision::MergeBatch(numbers) => (PoolAction::MergeBatch, numbers.clone()),
            Decision::Trigger { number, .. } => (PoolAction::Trigger, vec![*number]),
            Decision::TriggerBatch(numbers) => (PoolAction::TriggerBatch, numbers.clone()),
        };
        let list = |numbers: &[u64]| pool_pulls(&scene.pool, numbers);
        let pool = MergePool {
            org: key.org.clone(),
            repo: key.repo.clone(),
            branch: key.branch.clone(),
            base_sha: scene.pool.base_sha.clone(),
            success: list(&buckets.success),
            pending: list(&buckets.pending),
            missing: list(&buckets.missing),
            batch_pending: list(&batches.pending),
            action: action.into(),
            target: list(&target),
            blockers: scene
                .blockers
                .iter()
                .map(|blocker| format!("#{} {}", blocker.number, blocker.title))
                .collect(),
            error,
            batches: former.map_or(0, |pool| pool.batches)
                + u64::from(action == PoolAction::TriggerBatch),
            ..MergePool::default()
        };
        self.put_pool(former.map(Arc::as_ref), pool).await
    }

    /// Only what is new is worth an entry.
    async fn put_pool(&self, former: Option<&MergePool>, pool: MergePool) -> Result<(), Trouble> {
        let known = former.is_some_and(|former| {
            let same = MergePool {
                version: former.version,
                updated_ms: former.updated_ms,
                ..pool.clone()
            };
            same == *former
        });
        if !known {
            let command = PutPool {
                pool: Some(pool),
                remove: false,
            };
            self.office.propose(Body::PutPool(command)).await?;
        }
        Ok(())
    }
}

/// Why a pool cannot be looked at.
enum Unready {
    /// Something has not been learned yet, and will queue the pool.
    Wait,
    /// Somebody must change something.
    Broken(String),
}

impl Scene<'_> {
    pub(crate) fn inputs(&self, pull: &Pull, method: Option<MergeMethod>) -> Inputs {
        let method = method.map_or("", MergeMethod::as_str);
        Inputs::of(pull, method, self.rules.running.version)
    }
}

fn open_pulls(state: &State, key: &PoolKey) -> Vec<Arc<PullRequest>> {
    state
        .pull_requests(&key.org, &key.repo)
        .filter(|pull| pull.open && pull.base_ref == key.branch)
        .cloned()
        .collect()
}

fn pool_pulls(pool: &Pool, numbers: &[u64]) -> Vec<PoolPull> {
    let members: BTreeMap<u64, &Member> = pool
        .members
        .iter()
        .map(|member| (member.number(), member))
        .collect();
    numbers
        .iter()
        .filter_map(|number| members.get(number))
        .map(|member| PoolPull {
            number: member.number(),
            head_sha: member.pull.head_sha.clone(),
            author: member.pull.author.clone(),
            title: member.pull.title.clone(),
            reason: member.held.clone().unwrap_or_default(),
        })
        .collect()
}

pub(crate) fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
