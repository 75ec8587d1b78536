//! A delivery that three plugins took in different ways, for tests.

use std::sync::Arc;

use trireme_proto::state::{
    CommentEffect, Condition, Delivery, DeliveryState, Effect, EffectOutcome, EffectState, Header,
    LabelEffect, Plan, Subject, effect::Action,
};

pub(super) fn delivery() -> Delivery {
    let names = ["wip", "lgtm", "hold", "approve"].map(str::to_owned);
    Delivery {
        guid: "72d3162e".to_owned(),
        event: "issue_comment".to_owned(),
        action: "created".to_owned(),
        org: "acme".to_owned(),
        repo: "widget".to_owned(),
        number: 7,
        sender: "ann".to_owned(),
        received_ms: 1_767_225_600_000,
        handled_ms: 1_767_225_603_000,
        node_id: 2,
        state: DeliveryState::Handled.into(),
        plugins: names.to_vec(),
        settled: names.to_vec(),
        headers: vec![Header {
            name: "x-github-event".to_owned(),
            value: "issue_comment".into(),
        }],
        ..Delivery::default()
    }
}

pub(super) fn plans() -> Vec<Arc<Plan>> {
    let subject = Some(Subject {
        org: "acme".to_owned(),
        repo: "widget".to_owned(),
        number: 7,
    });
    let label = Effect {
        action: Some(Action::AddLabel(LabelEffect {
            subject: subject.clone(),
            label: "lgtm".to_owned(),
        })),
        state: EffectState::Dead.into(),
        attempts: 5,
        error: "422: no".to_owned(),
        ..Effect::default()
    };
    let comment = Effect {
        action: Some(Action::Comment(CommentEffect {
            subject,
            body: "LGTM\n\nit is".to_owned(),
            ..CommentEffect::default()
        })),
        condition: Some(Condition {
            ordinal: 0,
            outcomes: vec![EffectOutcome::Ok.into()],
        }),
        state: EffectState::Skipped.into(),
        error: "effect 0 was refused".to_owned(),
        ..Effect::default()
    };
    let plan = |plugin: &str| Plan {
        guid: "72d3162e".to_owned(),
        plugin: plugin.to_owned(),
        config_version: 3,
        ..Plan::default()
    };
    vec![
        Arc::new(Plan {
            failures: 5,
            error: "404 no such file".to_owned(),
            dead: true,
            ..plan("approve")
        }),
        Arc::new(Plan {
            planned_ms: 1_767_225_601_000,
            effects: vec![label, comment],
            jobs: vec!["0f1e".to_owned()],
            ..plan("lgtm")
        }),
    ]
}
