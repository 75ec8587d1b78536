//! Answers that GitHub lets us use again: a conditional request that is answered "not modified" costs no budget. What
//! cannot change is not even asked for again, nor what was asked for since the event came that is decided about; what
//! does no harm stands in while GitHub is broken (GHC-041, GHC-049).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::freshness::{Freshness, Outdated, STALE_FOR, UNCHANGED_FOR};
use super::transport::Answer;

/// How many bytes are kept unless told otherwise; the least recently used go first.
pub const CACHE_BYTES: usize = 64 << 20;

/// Larger answers are not kept: they would push out many small ones that are asked for more often.
const MAX_ENTRY: usize = 1 << 20;

/// Plugins of which it is remembered that they have changed something: more than there are.
const MAX_CHANGERS: usize = 100;

/// What an entry takes besides its body, about: its key twice, headers, nodes of trees.
const OVERHEAD: usize = 512;

/// What makes two requests the same: which server, who asks, in which media type, for what. Not the token, which changes
/// every hour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) server: usize,
    /// Below the API's root, whichever address of the server is asked; names in lower case.
    pub(super) path: String,
    pub(super) identity: String,
    pub(super) accept: &'static str,
}

#[derive(Debug)]
pub(super) struct EtagCache {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In order of paths, so that those of a repository stand together.
    entries: BTreeMap<Key, Entry>,
    /// Use number → key, the least recently used first.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` where GitHub has no tag for it.
    etag: Option<Condition>,
    answer: Answer,
    used: u64,
    /// When GitHub last said that it is so; `None` once a change has made that doubtful. It may still be asked for by its
    /// tag, which is free if it is the same after all.
    confirmed: Option<Instant>,
    /// When the question left that was answered so last; `None` once that does not help anybody.
    asked: Option<Instant>,
    /// Plugins that have changed something of it since.
    changed_by: Vec<Arc<str>>,
}

/// How to ask whether an answer is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    Etag(HeaderValue),
    /// GitHub has no tag for some answers, but a time.
    Modified(HeaderValue),
}

impl Condition {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let etag = headers.get(header::ETAG).cloned().map(Self::Etag);
        etag.or_else(|| {
            headers
                .get(header::LAST_MODIFIED)
                .cloned()
                .map(Self::Modified)
        })
    }

    pub(super) fn put(self, headers: &mut HeaderMap) {
        match self {
            Self::Etag(etag) => headers.insert(header::IF_NONE_MATCH, etag),
            Self::Modified(at) => headers.insert(header::IF_MODIFIED_SINCE, at),
        };
    }
}

impl Entry {
    fn bytes(&self, key: &Key) -> usize {
        self.answer.body.len() + 2 * key.path.len() + OVERHEAD
    }

    fn changed(&mut self, by: Option<&Arc<str>>) {
        let Some(by) = by.filter(|by| !self.changed_by.contains(by)) else {
            return;
        };
        if self.changed_by.len() < MAX_CHANGERS {
            self.changed_by.push(Arc::clone(by));
        } else {
            self.asked = None;
        }
    }

    fn if_younger(&self, than: Duration, now: Instant) -> Option<Answer> {
        let age = now.duration_since(self.confirmed?);
        (age < than).then(|| self.answer.clone())
    }
}

impl Inner {
    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes(key);
            self.by_use.remove(&entry.used);
        }
    }

    fn used(&mut self, key: &Key) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        self.by_use.remove(&entry.used);
        entry.used = self.uses;
        self.by_use.insert(entry.used, key.clone());
        Some(entry)
    }
}

impl EtagCache {
    /// Keeps so many bytes at most.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            inner: Mutex::default(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
    }

    pub(super) fn condition(&self, key: &Key) -> Option<Condition> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.entries.get(key)?.etag.clone()
    }

    /// The answer to use after a "not modified" to what was asked then.
    pub(super) fn confirmed(&self, key: &Key, asked: Instant, now: Instant) -> Option<Answer> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner.used(key)?;
        entry.confirmed = Some(now);
        entry.asked = Some(asked);
        entry.changed_by.clear();
        Some(entry.answer.clone())
    }

    /// The same, where it is not known any more whether it is so.
    pub(super) fn former(&self, key: &Key) -> Option<Answer> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Some(inner.used(key)?.answer.clone())
    }

    /// What GitHub answered to a question that left no earlier than `since`. Changes by others than the reader do not
    /// matter: they could as well have come after the answer.
    pub(super) fn as_new_as(&self, key: &Key, since: Instant, reader: &str) -> Option<Answer> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner.used(key)?;
        let is_new = entry.asked.is_some_and(|asked| asked >= since);
        let knows_better = entry.changed_by.iter().any(|plugin| **plugin == *reader);
        (is_new && !knows_better).then(|| entry.answer.clone())
    }

    /// An answer that needs no question, because it cannot have changed.
    pub(super) fn unchanging(&self, key: &Key, now: Instant) -> Option<Answer> {
        if Freshness::of(&key.path) != Freshness::Unchanging {
            return None;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner.used(key)?;
        entry.if_younger(UNCHANGED_FOR, now)
    }

    /// An answer for a time when none is to be had, where an old one does no harm.
    pub(super) fn stale(&self, key: &Key, now: Instant) -> Option<Answer> {
        if Freshness::of(&key.path) == Freshness::Live {
            return None;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = inner.used(key)?;
        entry.if_younger(STALE_FOR, now)
    }

    /// Keeps an answer to what was asked then.
    pub(super) fn put(&self, key: Key, answer: &Answer, asked: Instant, now: Instant) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        inner.remove(&key);
        if answer.body.len() > MAX_ENTRY {
            return;
        }
        let mut headers = HeaderMap::new();
        if let Some(link) = answer.headers.get(header::LINK) {
            headers.insert(header::LINK, link.clone());
        }
        inner.uses += 1;
        let entry = Entry {
            etag: Condition::of(&answer.headers),
            used: inner.uses,
            confirmed: Some(now),
            asked: Some(asked),
            changed_by: Vec::new(),
            answer: Answer {
                headers,
                ..answer.clone()
            },
        };
        inner.bytes += entry.bytes(&key);
        inner.by_use.insert(inner.uses, key.clone());
        inner.entries.insert(key, entry);
        while inner.bytes > self.most {
            let Some((_, oldest)) = inner.by_use.pop_first() else {
                break;
            };
            inner.remove(&oldest);
        }
    }

    /// A change may have made this old: it stands in for nothing any more, and is asked for again before it is used.
    /// `by`: the plugin that made it.
    pub(super) fn doubt(&self, server: usize, outdated: &Outdated, by: Option<&Arc<str>>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let first = Key {
            server,
            path: outdated.root().to_owned(),
            identity: String::new(),
            accept: "",
        };
        let range = (Bound::Included(first), Bound::Unbounded);
        let of_root = inner
            .entries
            .range_mut(range)
            .take_while(|(key, _)| key.server == server && key.path.starts_with(outdated.root()));
        for (key, entry) in of_root {
            if outdated.covers(&key.path) {
                entry.confirmed = None;
                entry.changed(by);
            }
        }
    }

    /// Changes were missed: the same for all.
    pub(super) fn doubt_all(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, entry) in &mut inner.entries {
            if Freshness::of(&key.path) != Freshness::Unchanging {
                entry.confirmed = None;
                entry.asked = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;

    fn key(path: &str) -> Key {
        Key {
            server: 0,
            path: path.to_owned(),
            identity: String::new(),
            accept: "",
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
    fn ghc_049_the_cache_stays_within_its_bytes_and_keeps_what_is_used() {
        let cache = EtagCache::new(4 * (MAX_ENTRY + 2 * OVERHEAD));
        let now = Instant::now();
        for n in 0..4 {
            cache.put(key(&n.to_string()), &answer(MAX_ENTRY), now, now);
        }
        assert!(cache.confirmed(&key("0"), now, now).is_some());
        cache.put(key("4"), &answer(MAX_ENTRY), now, now);
        assert!(cache.condition(&key("0")).is_some() && cache.condition(&key("1")).is_none());
        cache.put(key("0"), &answer(10), now, now);
        cache.put(key("5"), &answer(MAX_ENTRY + 1), now, now);
        assert!(cache.condition(&key("5")).is_none());
        let inner = cache.inner.lock().unwrap();
        assert_eq!(inner.by_use.len(), inner.entries.len());
        let told: usize = inner
            .entries
            .iter()
            .map(|(key, entry)| entry.bytes(key))
            .sum();
        assert_eq!(inner.bytes, told);
        assert!(inner.bytes <= cache.most);
    }

    #[test]
    fn ghc_050_what_a_change_made_doubtful_stands_in_for_nothing_and_is_asked_for_by_its_tag() {
        let cache = EtagCache::new(CACHE_BYTES);
        let now = Instant::now();
        let elsewhere = Key {
            server: 1,
            ..key("/repos/o/r/labels")
        };
        let (labels, milestones) = (key("/repos/o/r/labels"), key("/repos/o/r/milestones"));
        let others = key("/repos/o/r2/labels");
        for key in [&elsewhere, &labels, &milestones, &others] {
            cache.put(key.clone(), &answer(1), now, now);
        }
        let is_stale = |key: &Key| cache.stale(key, now).is_some();
        cache.doubt(0, &Outdated::repo("O", "R", Some(1)), None);
        assert!(is_stale(&labels));
        cache.doubt(0, &Outdated::repo("O", "R", None), None);
        assert!(!is_stale(&labels) && !is_stale(&milestones));
        assert!(is_stale(&elsewhere) && is_stale(&others));
        assert!(cache.condition(&labels).is_some());
        assert!(cache.confirmed(&labels, now, now).is_some() && is_stale(&labels));
        cache.doubt_all();
        assert!(!is_stale(&labels) && !is_stale(&elsewhere));
    }

    #[test]
    fn ghc_049_an_old_answer_is_given_for_a_while_only() {
        let cache = EtagCache::new(CACHE_BYTES);
        let now = Instant::now();
        let (slow, live) = (key("/repos/o/r/labels"), key("/repos/o/r/pulls/1"));
        cache.put(slow.clone(), &answer(1), now, now);
        cache.put(live.clone(), &answer(1), now, now);
        let later = now + STALE_FOR - Duration::from_secs(1);
        assert!(cache.stale(&slow, later).is_some() && cache.stale(&live, later).is_none());
        assert!(cache.stale(&slow, now + STALE_FOR).is_none());
        assert!(cache.unchanging(&slow, now).is_none());
        assert!(cache.confirmed(&slow, now, now + STALE_FOR).is_some());
        assert!(cache.stale(&slow, now + STALE_FOR).is_some());
    }

    /// One answer serves all who decide about an event, whatever others change meanwhile; not whoever changed it, and
    /// nobody to whom something newer was told.
    #[test]
    fn ghc_050_what_was_asked_for_since_an_event_serves_all_who_decide_about_it() {
        let cache = EtagCache::new(CACHE_BYTES);
        let event = Instant::now();
        let after = |ms| event + Duration::from_millis(ms);
        let labels = key("/repos/o/r/issues/1/labels");
        let untagged = Answer {
            headers: HeaderMap::new(),
            ..answer(1)
        };
        cache.put(labels.clone(), &untagged, after(1), after(5));
        assert_eq!(cache.condition(&labels), None);
        let serves = |since, reader| cache.as_new_as(&labels, since, reader).is_some();
        assert!(serves(event, "size") && serves(after(1), "size") && !serves(after(2), "size"));
        let outdated = Outdated::repo("o", "r", Some(1));
        cache.doubt(0, &outdated, Some(&"hold".into()));
        cache.doubt(0, &outdated, None);
        assert!(serves(event, "size") && !serves(event, "hold"));
        assert!(cache.confirmed(&labels, after(8), after(9)).is_some());
        assert!(serves(after(8), "hold"));
        cache.doubt_all();
        assert!(!serves(event, "size"));
    }
}
