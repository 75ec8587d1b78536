//! Kubernetes' times: RFC 3339, UTC, whole seconds.

use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::go::OmitEmpty;

/// A moment, cut to the second when it is made, because its JSON carries no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Timestamp);

impl Time {
    /// The moment.
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0.as_second()
    }
}

impl From<Timestamp> for Time {
    fn from(t: Timestamp) -> Self {
        // Floor, so that the second counts up through 1970 as well; a value inside the range always has its second.
        let second = t.as_nanosecond().div_euclid(1_000_000_000);
        let floored = i64::try_from(second)
            .ok()
            .and_then(|s| Timestamp::from_second(s).ok());
        Self(floored.unwrap_or(t))
    }
}

impl Deref for Time {
    type Target = Timestamp;
    fn deref(&self) -> &Timestamp {
        &self.0
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl OmitEmpty for Time {
    fn is_empty(&self) -> bool {
        false
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Timestamp::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_cut_to_the_second_and_printed_in_utc() {
        let t: Time = serde_json::from_str("\"2026-02-03T06:05:06.789+02:00\"").unwrap();
        insta::assert_snapshot!(serde_json::to_string(&t).unwrap(), @r#""2026-02-03T04:05:06Z""#);
    }
}
