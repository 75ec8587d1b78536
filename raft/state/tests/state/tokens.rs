//! Tokens: their hashes come, are found, go, and expire; and nobody takes another's agent.

use trireme_proto::state::{self as pb, ApiToken, Rejection, Role, command::Body};
use trireme_state::{is_known, limits::EXPIRED_TOKEN_MEMORY_MS, min_level_of};

use crate::replica::{DAY_MS, Replica, code, command, register};

fn token(id: &str, hash: u8) -> ApiToken {
    ApiToken {
        id: id.into(),
        name: "ci-bot".into(),
        role: Role::Submitter.into(),
        sha256: vec![hash; 32].into(),
        created_by: "operator-file".into(),
        ..ApiToken::default()
    }
}

fn put(token: ApiToken) -> Body {
    Body::PutToken(pb::PutToken { token: Some(token) })
}

fn revoke(id: &str) -> Body {
    Body::RevokeToken(pb::RevokeToken { id: id.into() })
}

fn at_level_2() -> Replica {
    let mut replica = Replica::new();
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level: 2 }));
    replica
}

#[test]
fn tokens_are_found_by_their_hash_until_they_are_revoked() {
    let mut replica = at_level_2();
    replica.done(put(token("a", 1)));
    // The successor of the first has its name.
    replica.done(put(token("b", 2)));
    let found = replica.state.token_by_hash(&[1; 32]).unwrap();
    assert_eq!((found.id.as_str(), found.created_ms), ("a", replica.now_ms));
    assert_eq!(replica.state.counts().tokens, 2);
    replica.done(revoke("a"));
    assert!(replica.state.token_by_hash(&[1; 32]).is_none());
    assert!(replica.state.token_by_hash(&[2; 32]).is_some());
    assert_eq!(replica.refused(revoke("a")), Rejection::NotFound);
}

#[test]
fn what_is_no_token_is_refused() {
    let mut replica = at_level_2();
    replica.done(put(token("a", 1)));
    let expires_ms = replica.now_ms;
    for (wrong, why) in [
        (token("a", 2), Rejection::AlreadyExists),
        (token("b", 1), Rejection::AlreadyExists),
        (token("", 2), Rejection::Invalid),
        (
            ApiToken {
                sha256: vec![2; 31].into(),
                ..token("b", 2)
            },
            Rejection::Invalid,
        ),
        (
            ApiToken {
                role: 0,
                ..token("b", 2)
            },
            Rejection::Invalid,
        ),
        (
            ApiToken {
                name: "a:b".into(),
                ..token("b", 2)
            },
            Rejection::Invalid,
        ),
        (
            ApiToken {
                name: "n".repeat(101),
                ..token("b", 2)
            },
            Rejection::Invalid,
        ),
        (
            ApiToken {
                expires_ms,
                ..token("b", 2)
            },
            Rejection::Invalid,
        ),
    ] {
        assert_eq!(replica.refused(put(wrong.clone())), why, "{wrong:?}");
    }
    assert_eq!(replica.state.tokens().count(), 1);
}

#[test]
fn an_expired_token_is_listed_for_a_while_and_then_forgotten() {
    let mut replica = at_level_2();
    let expires_ms = replica.now_ms + DAY_MS;
    replica.done(put(ApiToken {
        expires_ms,
        ..token("a", 1)
    }));
    replica.done(put(token("b", 2)));
    replica.pass(DAY_MS + EXPIRED_TOKEN_MEMORY_MS);
    replica.done(put(token("c", 3)));
    assert!(replica.state.token("a").is_some());
    replica.pass(1);
    replica.done(put(token("d", 4)));
    assert!(replica.state.token("a").is_none());
    assert!(replica.state.token_by_hash(&[1; 32]).is_none());
    assert!(replica.state.token("b").is_some());
}

#[test]
fn what_an_older_build_would_not_understand_needs_level_2() {
    let mut replica = Replica::new();
    for body in [put(token("a", 1)), revoke("a")] {
        let command = command(body);
        assert_eq!(min_level_of(&command), 2);
        assert!(is_known(&command));
        assert_eq!(code(replica.run_command(command)), Rejection::Conflict);
    }
    assert_eq!(min_level_of(&command(register("agent", 1))), 1);
    assert_eq!(
        min_level_of(&command(register_as("agent", "token:worker"))),
        2
    );
}

fn register_as(agent: &str, principal: &str) -> Body {
    match register(agent, 1) {
        Body::RegisterAgent(pb::RegisterAgent { agent: Some(agent) }) => {
            Body::RegisterAgent(pb::RegisterAgent {
                agent: Some(pb::Agent {
                    principal: principal.to_owned(),
                    ..agent
                }),
            })
        }
        other => other,
    }
}

#[test]
fn an_agent_belongs_to_whoever_registered_it_first() {
    let mut replica = at_level_2();
    replica.done(register("agent", 1));
    // It had no owner.
    replica.done(register_as("agent", "token:worker"));
    replica.done(register_as("agent", "token:worker"));
    assert_eq!(
        replica.refused(register_as("agent", "token:thief")),
        Rejection::Conflict
    );
    assert_eq!(replica.refused(register("agent", 1)), Rejection::Conflict);
    let agent = replica.state.agent("agent").unwrap();
    assert_eq!(agent.principal, "token:worker");
}
