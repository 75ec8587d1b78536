//! Answers that GitHub lets us use again: a conditional request that is answered "not modified" costs no budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, header};

use super::transport::Answer;

/// How many bytes of bodies are kept; the least recently used go first.
const MAX_BYTES: usize = 32 << 20;

/// Larger answers are not kept: they would push out many small ones that are asked for more often.
const MAX_ENTRY: usize = 1 << 20;

/// What makes two requests the same: who asks, in which media type, for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) identity: String,
    pub(super) accept: &'static str,
    pub(super) url: String,
}

#[derive(Debug, Default)]
pub(super) struct EtagCache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// Use number → key, the least recently used first.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    etag: HeaderValue,
    answer: Answer,
    used: u64,
}

impl EtagCache {
    pub(super) fn etag(&self, key: &Key) -> Option<HeaderValue> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.entries.get(key).map(|entry| entry.etag.clone())
    }

    /// The answer to use after a "not modified".
    pub(super) fn get(&self, key: &Key) -> Option<Answer> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let entry = inner.entries.get_mut(key)?;
        inner.uses += 1;
        inner.by_use.remove(&entry.used);
        inner.by_use.insert(inner.uses, key.clone());
        entry.used = inner.uses;
        Some(entry.answer.clone())
    }

    pub(super) fn put(&self, key: Key, answer: &Answer) {
        let Some(etag) = answer.headers.get(header::ETAG) else {
            return;
        };
        if answer.body.len() > MAX_ENTRY {
            return;
        }
        let mut headers = HeaderMap::new();
        if let Some(link) = answer.headers.get(header::LINK) {
            headers.insert(header::LINK, link.clone());
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        inner.uses += 1;
        inner.bytes += answer.body.len();
        let entry = Entry {
            etag: etag.clone(),
            used: inner.uses,
            answer: Answer {
                headers,
                ..answer.clone()
            },
        };
        inner.by_use.insert(inner.uses, key.clone());
        if let Some(former) = inner.entries.insert(key, entry) {
            inner.bytes -= former.answer.body.len();
            inner.by_use.remove(&former.used);
        }
        while inner.bytes > MAX_BYTES {
            let Some((_, oldest)) = inner.by_use.pop_first() else {
                break;
            };
            if let Some(entry) = inner.entries.remove(&oldest) {
                inner.bytes -= entry.answer.body.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    fn key(n: usize) -> Key {
        Key {
            identity: String::new(),
            accept: "",
            url: n.to_string(),
        }
    }

    fn answer(size: usize) -> Answer {
        let headers = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("\"x\""))]);
        Answer {
            status: StatusCode::OK,
            headers,
            body: Bytes::from(vec![0; size]),
        }
    }

    #[test]
    fn the_cache_stays_within_its_bytes_and_keeps_what_is_used() {
        let cache = EtagCache::default();
        for n in 0..32 {
            cache.put(key(n), &answer(MAX_ENTRY));
        }
        assert!(cache.get(&key(0)).is_some());
        cache.put(key(32), &answer(MAX_ENTRY));
        assert!(cache.get(&key(0)).is_some() && cache.get(&key(1)).is_none());
        cache.put(key(0), &answer(10));
        cache.put(key(33), &answer(MAX_ENTRY + 1));
        assert!(cache.etag(&key(33)).is_none());
        let inner = cache.inner.lock().unwrap();
        assert_eq!(inner.bytes, 31 * MAX_ENTRY + 10);
        assert_eq!(inner.by_use.len(), inner.entries.len());
    }
}
