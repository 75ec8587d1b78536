//! Random commands over a small world. What must hold is checked by [`Replica::entry`]; here is only chance, and what
//! needs the whole history: fences and build ids are given once, plans count once, guids are accepted once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use trireme_proto::state::{
    self as pb, EffectState, IntentState, JobState, command::Body, outcome,
};
use trireme_state::{BASE_LEVEL, FEATURE_LEVEL};

use crate::replica::{
    Answer, DAY_MS, Replica, abort, accept, answer, blob, chunk, command, comment, commit, config,
    create, finish, intent, lease, open, periodic, plan, presubmit, pull_request, put_pulls,
    register, release, settle_effect, settle_intent, settle_report, start, start_effect,
    take_office,
};

/// How a command that needs a token chooses it.
#[derive(Clone, Copy, Debug)]
enum Token {
    Present,
    Stale,
    Zero,
}

/// A command whose tokens are filled in when it is its turn.
#[derive(Clone, Debug)]
enum Act {
    Plain(Box<Body>),
    New {
        id: u8,
        job: u8,
        pull: u64,
        head: u8,
        unless_exists: bool,
        supersede: bool,
        limit: u32,
        retries: u32,
    },
    Lease {
        id: u8,
        agent: u8,
        token: Token,
        max_running: u32,
        capacity: Option<u32>,
    },
    Start {
        id: u8,
        token: Token,
    },
    Finish {
        id: u8,
        token: Token,
        state: i32,
    },
    Release {
        id: u8,
        token: Token,
        unstarted: bool,
    },
    Agent {
        agent: u8,
        token: Token,
        draining: bool,
        lost: bool,
    },
    Config {
        blob: u8,
        expected: Token,
    },
    Paged {
        blob: u8,
        other: u8,
        expected: Token,
    },
}

#[derive(Clone, Debug)]
struct Step {
    act: Act,
    epoch: Option<Token>,
    request: Option<u8>,
}

#[derive(Clone, Debug)]
struct Round {
    pass_ms: i64,
    steps: Vec<Step>,
}

fn plain(body: Body) -> Act {
    Act::Plain(Box::new(body))
}

fn job_id(id: u8) -> String {
    format!("job-{id}")
}

fn agent_id(agent: u8) -> String {
    format!("agent-{agent}")
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![6 => Just(Token::Present), 1 => Just(Token::Stale), 1 => Just(Token::Zero)]
}

fn job_act() -> impl Strategy<Value = Act> {
    let id = 0..8u8;
    prop_oneof![
        4 => (id.clone(), 0..3u8, 1..3u64, 0..2u8, any::<bool>(), any::<bool>(), 0..3u32, 0..3u32).prop_map(
            |(id, job, pull, head, unless_exists, supersede, limit, retries)| Act::New {
                id, job, pull, head, unless_exists, supersede, limit, retries
            }
        ),
        5 => (id.clone(), 0..2u8, token(), 0..4u32, proptest::option::of(0..3u32)).prop_map(
            |(id, agent, token, max_running, capacity)| Act::Lease { id, agent, token, max_running, capacity }
        ),
        2 => (id.clone(), token()).prop_map(|(id, token)| Act::Start { id, token }),
        3 => (id.clone(), token(), 0..9i32).prop_map(|(id, token, state)| Act::Finish { id, token, state }),
        2 => (id.clone(), token(), any::<bool>())
            .prop_map(|(id, token, unstarted)| Act::Release { id, token, unstarted }),
        2 => proptest::collection::vec(id.clone(), 1..3).prop_map(|ids| {
            let ids: Vec<_> = ids.into_iter().map(job_id).collect();
            plain(abort(&ids.iter().map(String::as_str).collect::<Vec<_>>()))
        }),
        1 => id.clone().prop_map(|id| plain(Body::TriggerJob(pb::TriggerJob {
            id: job_id(id),
            cluster: "build01".into(),
        }))),
        3 => (id.clone(), 0..2u8, 0..8i32, any::<bool>(), any::<bool>()).prop_map(
            |(id, reporter, state, failed, dead)| plain(Body::SettleReport(pb::SettleReport {
                state,
                failed,
                dead,
                ..settle_report(&job_id(id), ["github-reporter", "gcs"][usize::from(reporter)], JobState::Error)
            }))
        ),
        1 => id.prop_map(|id| plain(Body::SweepJobs(pb::SweepJobs { ids: vec![job_id(id)] }))),
        2 => (0..2u8, 0..3u32).prop_map(|(agent, capacity)| plain(register(&agent_id(agent), capacity))),
        1 => (0..2u8, token(), any::<bool>(), any::<bool>())
            .prop_map(|(agent, token, draining, lost)| Act::Agent { agent, token, draining, lost }),
    ]
}

fn guid() -> impl Strategy<Value = String> {
    (0..4u8).prop_map(|guid| format!("guid-{guid}"))
}

fn plugin() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("trigger"), Just("lgtm"), Just("stranger")]
}

fn plan_body() -> impl Strategy<Value = pb::PlanBody> {
    (
        plugin(),
        0..3usize,
        proptest::option::of(0..8u8),
        any::<bool>(),
    )
        .prop_map(|(plugin, effects, job, close)| pb::PlanBody {
            jobs: job
                .map(|id| pb::NewJob {
                    job: Some(Box::new(presubmit(&job_id(id), "unit", 1, "h0"))),
                    ..Default::default()
                })
                .into_iter()
                .collect(),
            close_pull_requests: close.then(|| "org/repo#1".to_owned()).into_iter().collect(),
            pull_requests: vec![pull_request(2, "h1", 3)],
            ..plan(
                plugin,
                (0..effects).map(|at| comment(&at.to_string())).collect(),
            )
        })
}

fn inbox_act() -> impl Strategy<Value = Act> {
    let body = prop_oneof![
        4 => guid().prop_map(|guid| accept(&guid)),
        4 => (guid(), proptest::collection::vec(plan_body(), 0..2), proptest::option::of(plugin())).prop_map(
            |(guid, plans, idle)| {
                let idle: Vec<_> = idle.into_iter().collect();
                Body::CommitPlans(commit(&guid, &["trigger", "lgtm"], plans, &idle))
            }
        ),
        2 => (guid(), plugin(), any::<bool>()).prop_map(|(guid, plugin, dead)| {
            Body::SettlePlan(pb::SettlePlan { guid, plugin: plugin.into(), error: "x".into(), dead })
        }),
        3 => (guid(), plugin(), 0..3u32).prop_map(|(guid, plugin, at)| start_effect(&guid, plugin, at)),
        4 => (guid(), plugin(), 0..3u32, prop_oneof![
            Just(EffectState::Done), Just(EffectState::Dead), Just(EffectState::Waiting), Just(EffectState::Started)
        ]).prop_map(|(guid, plugin, at, state)| settle_effect(&guid, plugin, at, state)),
        1 => (guid(), plugin(), 0..3u32).prop_map(|(guid, plugin, ordinal)| {
            Body::Redrive(pb::Redrive { guid, plugin: plugin.into(), ordinal, ..Default::default() })
        }),
        1 => (0..8u8).prop_map(|id| Body::Redrive(pb::Redrive {
            job_id: job_id(id),
            reporter: "gcs".into(),
            ..Default::default()
        })),
        1 => guid().prop_map(|guid| Body::SweepDeliveries(pb::SweepDeliveries { guids: vec![guid] })),
    ];
    body.prop_map(plain)
}

fn tide_act() -> impl Strategy<Value = Act> {
    let intent_state = prop_oneof![
        Just(IntentState::Merged),
        Just(IntentState::Observed),
        Just(IntentState::Refused),
        Just(IntentState::Withdrawn),
        Just(IntentState::Open),
    ];
    let body = prop_oneof![
        3 => (1..4u64, 0..3u8, 0..5i64, any::<bool>()).prop_map(|(number, head, updated_ms, open)| {
            put_pulls([pb::PullRequest { open, ..pull_request(number, &format!("h{head}"), updated_ms) }])
        }),
        2 => (0..3u8, 0..4i32, 0..5i64).prop_map(|(head, state, updated_ms)| {
            let context = pb::Context { context: "ci/unit".into(), state, updated_ms, ..Default::default() };
            Body::PutPullRequests(pb::PutPullRequests {
                pull_requests: vec![],
                contexts: vec![pb::HeadContext {
                    org: "org".into(),
                    repo: "repo".into(),
                    sha: format!("h{head}"),
                    context: Some(context),
                }],
            })
        }),
        3 => (0..5u8, 1..3u64, 0..2u8)
            .prop_map(|(id, number, head)| open(intent(&format!("i{id}"), number, &format!("h{head}")))),
        3 => (0..5u8, intent_state).prop_map(|(id, state)| settle_intent(&format!("i{id}"), state)),
        1 => (0..2u64, any::<bool>()).prop_map(|(batches, remove)| Body::PutPool(pb::PutPool {
            pool: Some(pb::MergePool {
                org: "org".into(),
                repo: "repo".into(),
                branch: "main".into(),
                batches,
                ..Default::default()
            }),
            remove,
        })),
    ];
    body.prop_map(plain)
}

fn other_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3u8, 0..3u32, 1..3u32, 0..2u8)
            .prop_map(|(name, index, count, data)| plain(chunk(name, index, count, &[data]))),
        2 => (0..3u8, token()).prop_map(|(blob, expected)| Act::Config { blob, expected }),
        3 => (0..3u8, 0..3u8).prop_map(|(name, more)| plain(Body::PutConfigPage(pb::PutConfigPage {
            page: Some(pb::ConfigPage { files: page(name, more), ..Default::default() }),
        }))),
        3 => (0..3u8, 0..3u8, token())
            .prop_map(|(blob, other, expected)| Act::Paged { blob, other, expected }),
        1 => (0..3u8).prop_map(|name| plain(Body::SweepBlobs(pb::SweepBlobs {
            sha256: vec![vec![name; 32].into()],
            config_pages: (0..3u8).map(|more| page_name(name, more)).collect(),
        }))),
        2 => (0..3u64, 0..5u64).prop_map(|(node, term)| plain(take_office(node, term))),
        1 => (0..3u8, -1..3i64).prop_map(|(key, at_ms)| plain(Body::PutCursor(pb::PutCursor {
            cursors: vec![pb::Cursor { key: format!("c{key}"), at_ms, ..Default::default() }],
        }))),
        1 => (0..3u8, 0..3i64).prop_map(|(key, due_ms)| plain(Body::PutTimer(pb::PutTimer {
            timer: Some(pb::Timer { key: format!("t{key}"), due_ms, version: 0 }),
        }))),
        1 => (0..3u8).prop_map(|key| plain(Body::DropTimer(pb::DropTimer { key: format!("t{key}") }))),
        1 => (0..3u8, 0..3u8, 0..3i64).prop_map(|(id, hash, days)| plain(Body::PutToken(pb::PutToken {
            token: Some(pb::ApiToken {
                id: format!("token-{id}"),
                name: "ci".into(),
                role: pb::Role::Viewer.into(),
                sha256: vec![hash; 32].into(),
                expires_ms: if days == 0 { 0 } else { crate::replica::START_MS + days * DAY_MS },
                ..Default::default()
            }),
        }))),
        1 => (0..3u8).prop_map(|id| plain(Body::RevokeToken(pb::RevokeToken { id: format!("token-{id}") }))),
        1 => (0..2u8, any::<bool>()).prop_map(|(key, clear)| plain(Body::SetAlarm(pb::SetAlarm {
            alarm: Some(pb::Alarm { key: format!("a{key}"), ..Default::default() }),
            clear,
        }))),
        1 => (0..6u32).prop_map(|level| plain(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level }))),
    ]
}

/// Two files, or one where both names are the same.
fn page(name: u8, more: u8) -> Vec<pb::ConfigFile> {
    let named = std::collections::BTreeSet::from([name, more]);
    let file = |name: u8| pb::ConfigFile {
        role: "job".into(),
        path: format!("{name}"),
        blob: Some(blob(name, 1000)),
    };
    named.into_iter().map(file).collect()
}

fn page_name(name: u8, more: u8) -> bytes::Bytes {
    trireme_state::ids::config_page(&page(name, more))
        .to_vec()
        .into()
}

fn step() -> impl Strategy<Value = Step> {
    let act = prop_oneof![5 => job_act(), 4 => inbox_act(), 2 => tide_act(), 2 => other_act()];
    let epoch = prop_oneof![5 => Just(None), 2 => token().prop_map(Some)];
    let request = prop_oneof![6 => Just(None), 1 => (0..4u8).prop_map(Some)];
    (act, epoch, request).prop_map(|(act, epoch, request)| Step {
        act,
        epoch,
        request,
    })
}

fn round() -> impl Strategy<Value = Round> {
    let pass = prop_oneof![8 => 0..3i64, 1 => Just(11 * 60_000i64), 1 => Just(DAY_MS), 1 => Just(8 * DAY_MS)];
    // Mostly one command per entry: then every refusal is checked to have changed nothing.
    let steps = prop_oneof![
        4 => proptest::collection::vec(step(), 1..=1),
        1 => proptest::collection::vec(step(), 0..5),
    ];
    (pass, steps).prop_map(|(pass_ms, steps)| Round { pass_ms, steps })
}

fn choose(token: Token, present: u64) -> u64 {
    match token {
        Token::Present => present,
        Token::Stale => present.saturating_sub(1),
        Token::Zero => 0,
    }
}

fn body(replica: &Replica, act: &Act) -> Body {
    let fence = |id: u8, token: Token| {
        let job = replica.state.job(&job_id(id));
        choose(
            token,
            job.and_then(|job| job.lease.as_ref())
                .map_or(0, |lease| lease.fence),
        )
    };
    let incarnation = |agent: u8, token: Token| {
        choose(
            token,
            replica
                .state
                .agent(&agent_id(agent))
                .map_or(0, |agent| agent.incarnation),
        )
    };
    match act {
        Act::Plain(body) => (**body).clone(),
        Act::New {
            id,
            job,
            pull,
            head,
            unless_exists,
            supersede,
            limit,
            retries,
        } => {
            let names = ["unit", "lint", "tick"];
            let name = names[usize::from(*job)];
            let new = if name == "tick" {
                periodic(&job_id(*id), name)
            } else {
                presubmit(&job_id(*id), name, *pull, &format!("h{head}"))
            };
            let state = if *retries == 2 {
                JobState::Scheduling
            } else {
                JobState::Triggered
            };
            let new = pb::Job {
                max_concurrency: *limit,
                retries_left: *retries,
                queue: "queue".into(),
                reporters: vec!["github-reporter".into(), "gcs".into()],
                deadline_ms: if *limit == 2 { replica.now_ms + 2 } else { 0 },
                state: state.into(),
                ..new
            };
            Body::CreateJobs(pb::CreateJobs {
                jobs: vec![pb::NewJob {
                    job: Some(Box::new(new)),
                    unless_exists: *unless_exists,
                    supersede: *supersede,
                    cause: String::new(),
                }],
                cursors: vec![],
            })
        }
        Act::Lease {
            id,
            agent,
            token,
            max_running,
            capacity,
        } => Body::LeaseJob(pb::LeaseJob {
            max_running: *max_running,
            queue_capacity: *capacity,
            ..lease(&job_id(*id), &agent_id(*agent), incarnation(*agent, *token))
        }),
        Act::Start { id, token } => start(&job_id(*id), fence(*id, *token)),
        Act::Finish { id, token, state } => {
            let state = JobState::try_from(*state).unwrap_or(JobState::Success);
            finish(&job_id(*id), fence(*id, *token), state)
        }
        Act::Release {
            id,
            token,
            unstarted,
        } => release(&job_id(*id), fence(*id, *token), *unstarted),
        Act::Agent {
            agent,
            token,
            draining,
            lost,
        } => Body::SetAgent(pb::SetAgent {
            id: agent_id(*agent),
            incarnation: incarnation(*agent, *token),
            draining: *draining,
            lost: *lost,
            node_id: 0,
        }),
        Act::Config { blob, expected } => {
            let current = replica.state.config().map_or(0, |config| config.number);
            Body::PutConfig(pb::PutConfig {
                expected_current: choose(*expected, current),
                ..config(*blob)
            })
        }
        Act::Paged {
            blob,
            other,
            expected,
        } => {
            let current = replica.state.config().map_or(0, |config| config.number);
            Body::PutConfig(pb::PutConfig {
                config: Some(pb::ConfigVersion {
                    pages: vec![page_name(*blob, *other)],
                    ..pb::ConfigVersion::default()
                }),
                expected_current: choose(*expected, current),
            })
        }
    }
}

/// What is judged over a whole history.
#[derive(Default)]
struct History {
    fences: BTreeSet<(String, u64)>,
    build_ids: BTreeMap<String, u64>,
    last_build_id: u64,
    epochs: BTreeSet<u64>,
    planned: BTreeMap<(String, String), Vec<pb::effect::Action>>,
}

impl History {
    fn note(&mut self, replica: &Replica, command: &pb::Command, answer: &Answer) {
        let Ok(done) = answer else { return };
        if done.duplicate {
            return;
        }
        match &command.body {
            Some(Body::LeaseJob(body)) => {
                assert!(
                    self.fences.insert((body.id.clone(), done.token)),
                    "a fence was given twice"
                );
                let build_id: u64 = done.build_id.parse().expect("decimal");
                let former = self.build_ids.insert(body.id.clone(), build_id);
                if former != Some(build_id) {
                    assert!(build_id > self.last_build_id, "a build id went back");
                    self.last_build_id = build_id;
                }
            }
            Some(Body::TakeOffice(_)) => {
                assert!(self.epochs.insert(done.token), "an epoch was given twice")
            }
            Some(Body::CommitPlans(body)) => {
                for plan in replica
                    .state
                    .plans_of(&body.guid)
                    .filter(|plan| trireme_state::is_committed(plan))
                {
                    let key = (plan.guid.clone(), plan.plugin.clone());
                    let actions: Vec<_> = plan
                        .effects
                        .iter()
                        .filter_map(|effect| effect.action.clone())
                        .collect();
                    let former = self.planned.entry(key).or_insert_with(|| actions.clone());
                    assert_eq!(*former, actions, "a plan was replaced");
                }
            }
            Some(Body::SweepDeliveries(body)) => {
                self.planned
                    .retain(|(guid, _), _| !body.guids.contains(guid));
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_promises(
        level in prop_oneof![Just(BASE_LEVEL), Just(FEATURE_LEVEL)],
        rounds in proptest::collection::vec(round(), 1..80),
    ) {
        let mut replica = Replica::new();
        let mut history = History::default();
        replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level }));
        for agent in 0..2 {
            replica.done(register(&agent_id(agent), 0));
        }
        for round in rounds {
            replica.pass(round.pass_ms);
            let commands: Vec<_> = round
                .steps
                .iter()
                .map(|step| pb::Command {
                    epoch: step.epoch.map_or(0, |token| choose(token, replica.state.office().epoch)),
                    request_id: step.request.map(|id| id.to_string()).unwrap_or_default(),
                    ..command(body(&replica, &step.act))
                })
                .collect();
            let outcomes = replica.entry(commands.clone());
            prop_assert_eq!(outcomes.len(), commands.len());
            for (command, outcome) in commands.iter().zip(&outcomes) {
                prop_assert!(matches!(
                    &outcome.result,
                    Some(outcome::Result::Done(_) | outcome::Result::Rejected(_))
                ));
                history.note(&replica, command, &answer(outcome));
            }
        }
    }

    /// Any bytes that decode as a command get an outcome.
    #[test]
    fn any_command_gets_an_outcome(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 10..42u32) {
        use prost::Message as _;
        let mut framed = Vec::new();
        prost::encoding::encode_key(kind, prost::encoding::WireType::LengthDelimited, &mut framed);
        prost::encoding::encode_varint(bytes.len() as u64, &mut framed);
        framed.extend_from_slice(&bytes);
        if let Ok(command) = pb::Command::decode(&framed[..]) {
            let mut replica = Replica::new();
            replica.done(create([presubmit("a", "x", 1, "head")]));
            let outcomes = replica.entry(vec![command]);
            prop_assert_eq!(outcomes.len(), 1);
        }
    }
}
