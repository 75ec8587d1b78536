//! Tokens of clients and agents: their hashes, never what is shown to whoever carries them.
//!
//! A name may stand on several tokens: to replace one, a second of the same name is made, put in place, and the first
//! revoked. What was done is attributed to the name.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use trireme_proto::state::{ApiToken, Done, PutToken, RevokeToken, Role};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    limits::{EXPIRED_TOKEN_MEMORY_MS, MAX_TOKEN_NAME_BYTES, MAX_TOKENS, PRUNE_PER_ENTRY},
    reject::{Verdict, already_exists, exhausted, invalid, name, not_found, optional_name},
    table::{Record, Table},
};

/// SHA-256 of a whole token.
pub type TokenHash = [u8; 32];

impl Record for ApiToken {
    const KIND: u8 = 18;
    type Key = String;

    fn key(&self) -> String {
        self.id.clone()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tokens {
    rows: Table<ApiToken>,
    by_hash: OrdMap<TokenHash, String>,
    expiring: OrdSet<(i64, String)>,
}

fn hash_of(token: &ApiToken) -> Option<TokenHash> {
    token.sha256.as_ref().try_into().ok()
}

impl Tokens {
    /// False if its id or hash is known, or the hash is none.
    pub(crate) fn put(&mut self, digest: &mut Sum, token: Arc<ApiToken>) -> bool {
        let Some(hash) = hash_of(&token) else {
            return false;
        };
        if self.rows.get(&token.id).is_some() || self.by_hash.contains_key(&hash) {
            return false;
        }
        self.by_hash.insert(hash, token.id.clone());
        if token.expires_ms != 0 {
            self.expiring.insert((token.expires_ms, token.id.clone()));
        }
        self.rows.put(digest, token);
        true
    }

    fn remove(&mut self, digest: &mut Sum, id: &String) -> bool {
        let Some(former) = self.rows.remove(digest, id) else {
            return false;
        };
        if let Some(hash) = hash_of(&former) {
            self.by_hash.remove(&hash);
        }
        self.expiring
            .remove(&(former.expires_ms, former.id.clone()));
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ApiToken>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Names go into principals, where a colon separates.
fn token_name(value: &str) -> Verdict<()> {
    name("token.name", value)?;
    if value.len() > MAX_TOKEN_NAME_BYTES {
        return Err(invalid(format!(
            "token.name is longer than {MAX_TOKEN_NAME_BYTES} bytes"
        )));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@/".contains(&byte);
    if !value.bytes().all(plain) {
        return Err(invalid(
            "token.name may hold letters, digits, '-', '_', '.', '@' and '/'",
        ));
    }
    Ok(())
}

pub(crate) fn put(state: &mut State, entry: &mut Entry, command: &PutToken) -> Verdict {
    let Some(asked) = &command.token else {
        return Err(invalid("no token"));
    };
    name("token.id", &asked.id)?;
    token_name(&asked.name)?;
    optional_name("token.created_by", &asked.created_by)?;
    if asked.role() == Role::Unspecified {
        return Err(invalid(
            "token.role is none of viewer, submitter, operator, agent",
        ));
    }
    if hash_of(asked).is_none() {
        return Err(invalid("token.sha256 is no SHA-256"));
    }
    if asked.expires_ms < 0 || (asked.expires_ms != 0 && asked.expires_ms <= entry.stamp_ms) {
        return Err(invalid("token.expires_ms is in the past"));
    }
    if state.tokens.len() >= MAX_TOKENS {
        return Err(exhausted("tokens", MAX_TOKENS));
    }
    let token = Arc::new(ApiToken {
        created_ms: entry.stamp_ms,
        ..asked.clone()
    });
    if !state.tokens.put(&mut state.digest, token.clone()) {
        return Err(already_exists(format!(
            "token {:?}, or one of the same hash",
            asked.id
        )));
    }
    entry.changed(Change::Token(token));
    Ok(Done::default())
}

/// Its bearer is a stranger from the next request on.
pub(crate) fn revoke(state: &mut State, entry: &mut Entry, command: &RevokeToken) -> Verdict {
    if !state.tokens.remove(&mut state.digest, &command.id) {
        return Err(not_found("token", &command.id));
    }
    entry.changed(Change::Removed(RecordKey::Token {
        id: command.id.clone(),
    }));
    Ok(Done::default())
}

impl State {
    pub(crate) fn forget_tokens(&mut self, entry: &mut Entry) {
        let before = entry.stamp_ms.saturating_sub(EXPIRED_TOKEN_MEMORY_MS);
        for _ in 0..PRUNE_PER_ENTRY {
            match self.tokens.expiring.get_min() {
                Some((expires_ms, id)) if *expires_ms < before => {
                    let id = id.clone();
                    self.tokens.remove(&mut self.digest, &id);
                    entry.changed(Change::Removed(RecordKey::Token { id }));
                }
                _ => break,
            }
        }
    }

    pub fn token(&self, id: &str) -> Option<&Arc<ApiToken>> {
        self.tokens.rows.get(id)
    }

    /// Expired ones included, for a while: whether it is still good is for the door to see, which has a clock.
    pub fn token_by_hash(&self, hash: &TokenHash) -> Option<&Arc<ApiToken>> {
        self.token(self.tokens.by_hash.get(hash)?)
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<ApiToken>> {
        self.tokens.iter()
    }
}
