//! The inbox: a delivery is accepted once, each plugin plans once, effects are done in order.

use trireme_proto::state::{
    self as pb, DeliveryState, EffectState, JobState, Rejection, command::Body,
};

use trireme_state::DeliveryFilter;

use crate::replica::{
    DAY_MS, Replica, abort, accept, blob, chunk, command, comment, commit, create, delivery, plan,
    presubmit, pull_request, put_pulls, settle_effect, start_effect,
};

fn state_of(replica: &Replica, guid: &str) -> DeliveryState {
    replica.state.delivery(guid).expect("accepted").state()
}

/// Outcomes and skipping are from this level on.
fn at_effects_level(mut replica: Replica) -> Replica {
    let level = trireme_state::EFFECTS_LEVEL;
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level }));
    replica
}

/// Delivery `g`, planned by `trigger` and `lgtm` with two effects each.
fn planned() -> Replica {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    let plans = vec![
        plan("trigger", vec![comment("one"), comment("two")]),
        plan("lgtm", vec![comment("three")]),
    ];
    replica.done(Body::CommitPlans(commit(
        "g",
        &["trigger", "lgtm", "hold"],
        plans,
        &["hold"],
    )));
    replica
}

#[test]
fn a_delivery_is_accepted_once() {
    let mut replica = Replica::new();
    assert!(!replica.done(accept("g")).duplicate);
    let stored = replica.state.delivery("g").unwrap().clone();
    assert_eq!(
        (stored.received_ms, stored.revision),
        (replica.now_ms, replica.index())
    );
    assert!(replica.done(accept("g")).duplicate);
    assert_eq!(replica.state.delivery("g"), Some(&stored));
    assert!(replica.last.changes.is_empty());
}

#[test]
fn deliveries_are_read_in_order_of_arrival_also_within_an_entry() {
    let mut replica = Replica::new();
    replica.done(accept("m"));
    replica.entry(vec![command(accept("z")), command(accept("a"))]);
    let order = |replica: &Replica| -> Vec<String> {
        replica
            .state
            .open_deliveries()
            .map(|delivery| delivery.guid.clone())
            .collect()
    };
    assert_eq!(order(&replica), ["m", "z", "a"]);
    replica.done(Body::CommitPlans(commit("z", &[], vec![], &[])));
    assert_eq!(order(&replica), ["m", "a"]);
    let newest: Vec<_> = replica
        .state
        .deliveries_newest_first(None)
        .map(|delivery| &delivery.guid)
        .collect();
    assert_eq!(newest, ["a", "z", "m"]);
}

#[test]
fn a_guid_is_remembered_for_a_day_after_the_delivery_left() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    replica.done(Body::CommitPlans(commit("g", &[], vec![], &[])));
    let sweep = Body::SweepDeliveries(pb::SweepDeliveries {
        guids: vec!["g".into()],
    });
    replica.done(sweep);
    assert!(replica.state.delivery("g").is_none());
    replica.pass(DAY_MS);
    assert!(replica.done(accept("g")).duplicate);
    replica.pass(1);
    assert!(!replica.done(accept("g")).duplicate);
}

#[test]
fn a_delivery_that_is_still_open_is_never_accepted_again() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    replica.pass(3 * DAY_MS);
    replica.entry(vec![]);
    assert!(!replica.state.is_delivery_seen("g"));
    assert!(replica.done(accept("g")).duplicate);
}

#[test]
fn malformed_deliveries_are_refused() {
    let mut replica = Replica::new();
    let mut put = |delivery: pb::Delivery| {
        replica.refused(Body::AcceptDelivery(pb::AcceptDelivery {
            delivery: Some(delivery),
        }))
    };
    assert_eq!(
        put(pb::Delivery {
            guid: String::new(),
            ..delivery("g")
        }),
        Rejection::Invalid
    );
    assert_eq!(
        put(pb::Delivery {
            event: String::new(),
            ..delivery("g")
        }),
        Rejection::Invalid
    );
    let large = pb::Delivery {
        payload_zstd: vec![0; (256 << 10) + 1].into(),
        ..delivery("g")
    };
    assert_eq!(put(large), Rejection::Invalid);
    assert_eq!(
        put(pb::Delivery {
            blob: Some(blob(1, 1000)),
            ..delivery("g")
        }),
        Rejection::Invalid
    );
    let by_blob = pb::Delivery {
        payload_zstd: vec![].into(),
        ..delivery("g")
    };
    let huge = pb::Delivery {
        blob: Some(blob(1, (25 << 20) + 1)),
        ..by_blob.clone()
    };
    assert_eq!(put(huge), Rejection::Invalid);
    assert_eq!(
        put(pb::Delivery {
            blob: Some(blob(1, 1000)),
            ..by_blob
        }),
        Rejection::NotFound
    );
}

#[test]
fn a_large_delivery_names_its_blob() {
    let mut replica = Replica::new();
    replica.done(chunk(1, 0, 1, b"payload"));
    let large = pb::Delivery {
        payload_zstd: vec![].into(),
        blob: Some(blob(1, 1000)),
        ..delivery("g")
    };
    replica.done(Body::AcceptDelivery(pb::AcceptDelivery {
        delivery: Some(large),
    }));
    let sweep = || {
        Body::SweepBlobs(pb::SweepBlobs {
            sha256: vec![vec![1; 32].into()],
            config_pages: vec![],
        })
    };
    replica.pass(DAY_MS);
    assert!(replica.done(sweep()).duplicate);
    replica.done(Body::CommitPlans(commit("g", &[], vec![], &[])));
    replica.done(Body::SweepDeliveries(pb::SweepDeliveries {
        guids: vec!["g".into()],
    }));
    assert!(!replica.done(sweep()).duplicate);
}

#[test]
fn a_blob_stays_while_one_of_two_deliveries_names_it() {
    let mut replica = Replica::new();
    replica.done(chunk(1, 0, 1, b"payload"));
    for guid in ["g", "h"] {
        let large = pb::Delivery {
            payload_zstd: vec![].into(),
            blob: Some(blob(1, 1000)),
            ..delivery(guid)
        };
        replica.done(Body::AcceptDelivery(pb::AcceptDelivery {
            delivery: Some(large),
        }));
        replica.done(Body::CommitPlans(commit(guid, &[], vec![], &[])));
    }
    replica.pass(DAY_MS);
    for (guid, swept) in [("g", false), ("h", true)] {
        replica.done(Body::SweepDeliveries(pb::SweepDeliveries {
            guids: vec![guid.into()],
        }));
        let sweep = Body::SweepBlobs(pb::SweepBlobs {
            sha256: vec![vec![1; 32].into()],
            config_pages: vec![],
        });
        assert_eq!(replica.done(sweep).duplicate, !swept);
    }
}

#[test]
fn a_delivery_without_plugins_is_handled_by_its_first_commit() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    replica.done(Body::CommitPlans(commit("g", &[], vec![], &[])));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
    assert_eq!(
        replica.state.delivery("g").unwrap().handled_ms,
        replica.now_ms
    );
}

#[test]
fn plugins_are_fixed_by_the_first_commit() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    replica.done(Body::CommitPlans(commit("g", &["a", "b"], vec![], &["a"])));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Planned);
    let other = commit("g", &["a", "b", "c"], vec![plan("c", vec![])], &[]);
    assert_eq!(
        replica.refused(Body::CommitPlans(other)),
        Rejection::Invalid
    );
    replica.done(Body::CommitPlans(commit(
        "g",
        &[],
        vec![plan("b", vec![])],
        &[],
    )));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
    assert_eq!(replica.state.delivery("g").unwrap().plugins, ["a", "b"]);
}

#[test]
fn a_plugin_plans_once() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    let with_job = |id: &str, text: &str| pb::PlanBody {
        jobs: vec![pb::NewJob {
            job: Some(Box::new(presubmit(id, "unit", 1, "head"))),
            ..pb::NewJob::default()
        }],
        ..plan("trigger", vec![comment(text)])
    };
    let first = commit("g", &["trigger", "hold"], vec![with_job("a", "first")], &[]);
    assert_eq!(replica.done(Body::CommitPlans(first)).created, ["a"]);
    let second = commit(
        "g",
        &["trigger", "hold"],
        vec![with_job("b", "second")],
        &["hold"],
    );
    let done = replica.done(Body::CommitPlans(second.clone()));
    assert_eq!(
        (done.already_planned, done.created),
        (vec!["trigger".to_owned()], vec![])
    );
    assert!(!done.duplicate, "hold was new");
    assert!(replica.state.job("b").is_none());
    let again = replica.done(Body::CommitPlans(second));
    assert!(again.duplicate);
    assert_eq!(again.already_planned, ["trigger", "hold"]);
    let stored = replica.state.plan("g", "trigger").unwrap();
    assert_eq!(
        (stored.jobs.as_slice(), stored.effects.len()),
        (["a".to_owned()].as_slice(), 1)
    );
}

#[test]
fn jobs_aborts_and_the_mirror_change_in_the_entry_of_the_plan() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("old", "unit", 1, "old")]));
    replica.done(put_pulls([pull_request(2, "x", 1)]));
    replica.done(accept("g"));
    let body = pb::PlanBody {
        jobs: vec![pb::NewJob {
            job: Some(Box::new(presubmit("new", "unit", 1, "new"))),
            ..pb::NewJob::default()
        }],
        abort: vec![pb::AbortJob {
            id: "old".into(),
            reason: "Aborted by trigger plugin.".into(),
        }],
        pull_requests: vec![pull_request(1, "new", 5)],
        close_pull_requests: vec!["org/repo#2".into(), "org/repo#3".into()],
        ..plan("trigger", vec![])
    };
    let done = replica.done(Body::CommitPlans(commit(
        "g",
        &["trigger"],
        vec![body.clone()],
        &[],
    )));
    assert_eq!(
        (done.created, done.aborted),
        (vec!["new".to_owned()], vec!["old".to_owned()])
    );
    assert_eq!(replica.job("old").state(), JobState::Aborted);
    assert_eq!(
        replica
            .state
            .pull_request("org", "repo", 1)
            .unwrap()
            .head_sha,
        "new"
    );
    assert!(!replica.state.pull_request("org", "repo", 2).unwrap().open);
    let stored = replica.state.plan("g", "trigger").unwrap();
    assert_eq!(
        (stored.jobs.as_slice(), stored.aborted.as_slice()),
        (["new".to_owned()].as_slice(), ["old".to_owned()].as_slice())
    );

    replica.done(accept("h"));
    for broken in ["org/repo", "repo#1", "org/repo#x", "/repo#1"] {
        let body = pb::PlanBody {
            close_pull_requests: vec![broken.into()],
            ..body.clone()
        };
        let bad = commit("h", &["trigger"], vec![body], &[]);
        assert_eq!(
            replica.refused(Body::CommitPlans(bad)),
            Rejection::Invalid,
            "{broken}"
        );
    }
}

#[test]
fn a_commit_that_contradicts_itself_is_refused() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    let mut refused = |commit: pb::CommitPlans| replica.refused(Body::CommitPlans(commit));
    let both = commit("g", &["a"], vec![plan("a", vec![])], &["a"]);
    assert_eq!(refused(both), Rejection::Invalid);
    let stranger = commit("g", &["a"], vec![], &["b"]);
    assert_eq!(refused(stranger), Rejection::Invalid);
    assert_eq!(
        refused(commit("g", &["a", "a"], vec![], &[])),
        Rejection::Invalid
    );
    let empty = commit(
        "g",
        &["a"],
        vec![plan("a", vec![pb::Effect::default()])],
        &[],
    );
    assert_eq!(refused(empty), Rejection::Invalid);
    assert_eq!(
        refused(commit("unknown", &["a"], vec![], &[])),
        Rejection::NotFound
    );
}

#[test]
fn effects_are_done_in_order_and_the_delivery_is_handled_after_the_last() {
    let mut replica = planned();
    let open: Vec<_> = replica
        .state
        .open_effects()
        .map(|(plan, next)| (plan.plugin.clone(), next))
        .collect();
    assert_eq!(open, [("lgtm".to_owned(), 0), ("trigger".to_owned(), 0)]);
    assert_eq!(
        replica.refused(start_effect("g", "trigger", 1)),
        Rejection::Conflict
    );
    assert_eq!(
        replica.refused(settle_effect("g", "trigger", 1, EffectState::Done)),
        Rejection::Conflict
    );

    replica.done(start_effect("g", "trigger", 0));
    let effect = replica.state.plan("g", "trigger").unwrap().effects[0].clone();
    assert_eq!((effect.state(), effect.attempts), (EffectState::Started, 1));
    assert_eq!(effect.started_ms, replica.now_ms);
    replica.done(settle_effect("g", "trigger", 0, EffectState::Waiting));
    replica.done(start_effect("g", "trigger", 0));
    replica.done(settle_effect("g", "trigger", 0, EffectState::Done));
    assert!(
        replica
            .done(settle_effect("g", "trigger", 0, EffectState::Done))
            .duplicate
    );
    assert_eq!(
        replica.refused(start_effect("g", "trigger", 0)),
        Rejection::Conflict
    );
    replica.done(start_effect("g", "trigger", 1));
    replica.done(settle_effect("g", "trigger", 1, EffectState::Done));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Planned);
    replica.done(start_effect("g", "lgtm", 0));
    replica.done(settle_effect("g", "lgtm", 0, EffectState::Done));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
    assert_eq!(replica.state.open_effects().count(), 0);
}

#[test]
fn a_dead_effect_settles_and_can_be_redriven() {
    let mut replica = at_effects_level(planned());
    for (plugin, ordinal, result) in [
        ("trigger", 0, EffectState::Dead),
        ("trigger", 1, EffectState::Done),
        ("lgtm", 0, EffectState::Done),
    ] {
        replica.done(start_effect("g", plugin, ordinal));
        let Body::SettleEffect(settle) = settle_effect("g", plugin, ordinal, result) else {
            unreachable!("that is what it makes");
        };
        replica.done(Body::SettleEffect(pb::SettleEffect {
            outcome: pb::EffectOutcome::Refused.into(),
            result: "no".into(),
            ..settle
        }));
    }
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
    assert_eq!(replica.state.dead_plans().count(), 1);
    let redrive = |ordinal| {
        Body::Redrive(pb::Redrive {
            guid: "g".into(),
            plugin: "trigger".into(),
            ordinal,
            ..pb::Redrive::default()
        })
    };
    assert_eq!(replica.refused(redrive(1)), Rejection::Conflict);
    replica.done(redrive(0));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Planned);
    let (open, next) = replica.state.open_effects().next().unwrap();
    assert_eq!((open.effects[0].attempts, next), (0, 0));
    // What it came to when it was given up is not what it comes to now.
    assert_eq!(
        (open.effects[0].outcome(), open.effects[0].result.as_str()),
        (pb::EffectOutcome::Unspecified, "")
    );
    replica.done(start_effect("g", "trigger", 0));
    replica.done(settle_effect("g", "trigger", 0, EffectState::Done));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
    assert_eq!(replica.state.dead_plans().count(), 0);
}

/// A skipped effect was left out on purpose: nobody revives it.
#[test]
fn a_skipped_effect_stays_skipped() {
    let mut replica = at_effects_level(planned());
    replica.done(settle_effect("g", "trigger", 0, EffectState::Skipped));
    let redrive = Body::Redrive(pb::Redrive {
        guid: "g".into(),
        plugin: "trigger".into(),
        ..pb::Redrive::default()
    });
    assert_eq!(replica.refused(redrive), Rejection::Conflict);
    let plan = replica.state.plan("g", "trigger").unwrap();
    assert_eq!(plan.effects[0].state(), EffectState::Skipped);
}

#[test]
fn deliveries_are_listed_newest_first_in_pages_and_by_what_is_dead() {
    let mut replica = Replica::new();
    for guid in ["a", "b", "c", "d"] {
        replica.done(accept(guid));
        let plans = vec![
            plan("lgtm", vec![comment("x")]),
            plan("hold", vec![comment("y")]),
        ];
        replica.done(Body::CommitPlans(commit(
            guid,
            &["lgtm", "hold"],
            plans,
            &[],
        )));
    }
    for guid in ["a", "c"] {
        for plugin in ["lgtm", "hold"] {
            replica.done(start_effect(guid, plugin, 0));
            replica.done(settle_effect(guid, plugin, 0, EffectState::Dead));
        }
    }
    let pages = |filter: DeliveryFilter, size| {
        let mut filter = filter;
        let mut pages: Vec<String> = Vec::new();
        loop {
            let page = replica.state.find_deliveries(&filter, size);
            let guids = page
                .deliveries
                .iter()
                .map(|delivery| delivery.guid.as_str());
            pages.push(guids.collect());
            let Some(next) = page.next else {
                return pages;
            };
            filter.before = Some(next);
        }
    };
    let all = DeliveryFilter::default;
    let dead = || DeliveryFilter {
        dead: true,
        ..all()
    };
    assert_eq!(pages(all(), 3), ["dcb", "a"]);
    assert_eq!(
        pages(
            DeliveryFilter {
                unhandled: true,
                ..all()
            },
            1
        ),
        ["d", "b"]
    );
    assert_eq!(pages(dead(), 9), ["ca"]);
    assert_eq!(pages(dead(), 1), ["c", "a"]);
    assert_eq!(
        pages(
            DeliveryFilter {
                plugin: "wip".into(),
                ..dead()
            },
            9
        ),
        [""]
    );
}

#[test]
fn a_plugin_that_cannot_decide_is_counted_given_up_and_redriven() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    let failed = |dead| {
        Body::SettlePlan(pb::SettlePlan {
            guid: "g".into(),
            plugin: "trigger".into(),
            error: "404".into(),
            dead,
        })
    };
    assert_eq!(replica.refused(failed(false)), Rejection::Conflict);
    replica.done(Body::CommitPlans(commit("g", &["trigger"], vec![], &[])));
    replica.done(failed(false));
    replica.done(failed(true));
    let dead = replica.state.plan("g", "trigger").unwrap();
    assert_eq!(
        (dead.failures, dead.error.as_str(), dead.dead),
        (2, "404", true)
    );
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
    assert_eq!(replica.refused(failed(true)), Rejection::Conflict);
    // Given up is decided: a late plan does not count.
    let late = commit("g", &[], vec![plan("trigger", vec![comment("late")])], &[]);
    assert!(replica.done(Body::CommitPlans(late.clone())).duplicate);

    replica.done(Body::Redrive(pb::Redrive {
        guid: "g".into(),
        plugin: "trigger".into(),
        ..pb::Redrive::default()
    }));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Planned);
    replica.done(Body::CommitPlans(late));
    assert_eq!(replica.state.plan("g", "trigger").unwrap().effects.len(), 1);
}

#[test]
fn a_plugin_that_failed_may_have_nothing_to_do_after_all() {
    let mut replica = Replica::new();
    replica.done(accept("g"));
    replica.done(Body::CommitPlans(commit("g", &["trigger"], vec![], &[])));
    replica.done(Body::SettlePlan(pb::SettlePlan {
        guid: "g".into(),
        plugin: "trigger".into(),
        error: "502".into(),
        dead: false,
    }));
    replica.done(Body::CommitPlans(commit("g", &[], vec![], &["trigger"])));
    let plan = replica.state.plan("g", "trigger").unwrap();
    assert_eq!((plan.failures, plan.error.as_str()), (1, ""));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
}

#[test]
fn only_handled_deliveries_are_swept_and_their_plans_with_them() {
    let mut replica = planned();
    let sweep = || {
        Body::SweepDeliveries(pb::SweepDeliveries {
            guids: vec!["g".into(), "x".into()],
        })
    };
    assert!(replica.done(sweep()).duplicate);
    for (plugin, ordinal) in [("trigger", 0), ("trigger", 1), ("lgtm", 0)] {
        replica.done(settle_effect("g", plugin, ordinal, EffectState::Dead));
    }
    assert_eq!(
        replica
            .state
            .deliveries_handled_before(replica.now_ms + 1)
            .count(),
        1
    );
    assert!(!replica.done(sweep()).duplicate);
    let counts = replica.state.counts();
    assert_eq!(
        (counts.deliveries, counts.plans, counts.seen_deliveries),
        (0, 0, 1)
    );
}

#[test]
fn an_aborted_job_is_not_aborted_again_by_a_plan() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    replica.done(abort(&["a"]));
    replica.done(accept("g"));
    let body = pb::PlanBody {
        abort: vec![pb::AbortJob {
            id: "a".into(),
            reason: String::new(),
        }],
        ..plan("trigger", vec![])
    };
    let done = replica.done(Body::CommitPlans(commit(
        "g",
        &["trigger"],
        vec![body],
        &[],
    )));
    assert_eq!(done.aborted, Vec::<String>::new());
}

/// Of a cluster whose members all know what this build knows.
fn leveled() -> Replica {
    let mut replica = Replica::new();
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: trireme_state::FEATURE_LEVEL,
    }));
    replica
}

fn waiting_for(ordinal: u32, outcomes: &[pb::EffectOutcome]) -> pb::Effect {
    pb::Effect {
        condition: Some(pb::Condition {
            ordinal,
            outcomes: outcomes.iter().map(|outcome| (*outcome).into()).collect(),
        }),
        ..comment("told of it")
    }
}

fn committing(effects: Vec<pb::Effect>) -> Body {
    Body::CommitPlans(commit("g", &["lgtm"], vec![plan("lgtm", effects)], &[]))
}

#[test]
fn an_effect_may_wait_for_what_an_earlier_one_comes_to() {
    let mut replica = leveled();
    replica.done(accept("g"));
    let refused = [pb::EffectOutcome::Refused];
    replica.done(committing(vec![
        comment("one"),
        waiting_for(0, &refused),
        waiting_for(0, &refused),
    ]));
    replica.done(start_effect("g", "lgtm", 0));
    replica.done(Body::SettleEffect(pb::SettleEffect {
        outcome: pb::EffectOutcome::Partly.into(),
        result: "alice, bob".to_owned(),
        ..match settle_effect("g", "lgtm", 0, EffectState::Done) {
            Body::SettleEffect(settle) => settle,
            other => panic!("{other:?}"),
        }
    }));
    // Left out without having been begun.
    replica.done(settle_effect("g", "lgtm", 1, EffectState::Skipped));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Planned);
    replica.done(settle_effect("g", "lgtm", 2, EffectState::Skipped));
    assert_eq!(state_of(&replica, "g"), DeliveryState::Handled);
    let effects = &replica.state.plan("g", "lgtm").unwrap().effects;
    assert_eq!(effects[0].outcome(), pb::EffectOutcome::Partly);
    assert_eq!(effects[0].result, "alice, bob");
    assert_eq!(effects[1].state(), EffectState::Skipped);
}

#[test]
fn an_effect_speaks_of_earlier_ones_alone() {
    let mut replica = leveled();
    replica.done(accept("g"));
    let of = |ordinal, at| {
        let mut effect = comment("f\u{fc}r");
        if let Some(pb::effect::Action::Comment(comment)) = &mut effect.action {
            comment.inserts = vec![pb::Insert {
                at,
                pieces: vec![pb::Piece {
                    ordinal,
                    text: String::new(),
                }],
                ..pb::Insert::default()
            }];
        }
        effect
    };
    for wrong in [
        waiting_for(1, &[pb::EffectOutcome::Ok]),
        waiting_for(0, &[]),
        // Of itself, beyond the text, within a character.
        of(1, 0),
        of(0, 5),
        of(0, 2),
        pb::Effect {
            action: Some(pb::effect::Action::OpenIssue(pb::OpenIssueEffect {
                inserts: vec![pb::Insert {
                    at: 1,
                    ..pb::Insert::default()
                }],
                ..pb::OpenIssueEffect::default()
            })),
            ..pb::Effect::default()
        },
    ] {
        let code = replica.refused(committing(vec![comment("one"), wrong]));
        assert_eq!(code, Rejection::Invalid);
    }
    replica.done(committing(vec![comment("one"), of(0, 4)]));
}

#[test]
fn an_effect_keeps_the_head_that_it_is_for() {
    let mut replica = at_effects_level(Replica::new());
    replica.done(accept("g"));
    let for_head = |sha: &str| pb::Effect {
        head_sha: sha.to_owned(),
        ..comment("one")
    };
    let long = "a".repeat(10_000);
    let code = replica.refused(committing(vec![for_head(&long)]));
    assert_eq!(code, Rejection::Invalid);
    replica.done(committing(vec![for_head("abc"), comment("two")]));
    let effects = &replica.state.plan("g", "lgtm").unwrap().effects;
    assert_eq!(effects[0].head_sha, "abc");
    assert_eq!(effects[1].head_sha, "");
}

#[test]
fn what_earlier_versions_do_not_know_has_its_level() {
    let level = |body| trireme_state::min_level_of(&command(body));
    assert_eq!(level(committing(vec![comment("one")])), 1);
    let waiting = waiting_for(0, &[pb::EffectOutcome::Ok]);
    assert_eq!(level(committing(vec![comment("one"), waiting])), 6);
    let reopen = pb::Effect {
        action: Some(pb::effect::Action::Reopen(pb::ReopenEffect::default())),
        ..pb::Effect::default()
    };
    assert_eq!(level(committing(vec![reopen])), 6);
    let edit = |was: &'static [u8]| pb::Effect {
        action: Some(pb::effect::Action::EditComment(pb::EditCommentEffect {
            was_sha256: was.into(),
            ..pb::EditCommentEffect::default()
        })),
        ..pb::Effect::default()
    };
    assert_eq!(level(committing(vec![edit(b"")])), 1);
    assert_eq!(level(committing(vec![edit(b"sum")])), 6);
    assert_eq!(level(settle_effect("g", "lgtm", 0, EffectState::Done)), 1);
    assert_eq!(
        level(settle_effect("g", "lgtm", 0, EffectState::Skipped)),
        6
    );
    let for_head = pb::Effect {
        head_sha: "abc".to_owned(),
        ..comment("one")
    };
    assert_eq!(level(committing(vec![for_head])), 6);
    let headed = pb::PlanBody {
        head_sha: "abc".to_owned(),
        ..plan("lgtm", vec![])
    };
    assert_eq!(
        level(Body::CommitPlans(commit("g", &["lgtm"], vec![headed], &[]))),
        6
    );
    let Body::AcceptDelivery(mut accepted) = accept("g") else {
        panic!("no acceptance");
    };
    assert_eq!(level(Body::AcceptDelivery(accepted.clone())), 1);
    if let Some(delivery) = &mut accepted.delivery {
        delivery.headers.push(pb::Header::default());
    }
    assert_eq!(level(Body::AcceptDelivery(accepted)), 6);
}
