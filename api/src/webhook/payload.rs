//! What the door reads of a payload: a few texts. Everything else is skipped without being kept, for it is read before the
//! signature is checked - the secret depends on the repository - and anybody may send it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// The fields of all kinds of events that say what one is about. A field of another shape than GitHub's counts as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Payload {
    pub(super) action: Text,
    pub(super) number: Number,
    #[serde(rename = "ref")]
    pub(super) git_ref: Text,
    pub(super) repository: Part<Repository>,
    pub(super) organization: Part<Account>,
    pub(super) sender: Part<Account>,
    pub(super) pull_request: Part<Numbered>,
    pub(super) issue: Part<Numbered>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Repository {
    pub(super) full_name: Text,
    pub(super) name: Text,
    pub(super) owner: Part<Account>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Account {
    pub(super) login: Text,
    pub(super) name: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Numbered {
    pub(super) number: Number,
}

impl Payload {
    /// # Errors
    /// When it is no JSON.
    pub(super) fn read(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice::<Part<Self>>(bytes).map(|part| part.0)
    }
}

/// An object, read as `T`; anything else is skipped.
#[derive(Debug, Default)]
pub(super) struct Part<T>(pub(super) T);

/// A text; anything else is skipped.
#[derive(Debug, Default)]
pub(super) struct Text(pub(super) String);

/// A whole number; anything else is skipped.
#[derive(Debug, Default)]
pub(super) struct Number(pub(super) Option<u64>);

/// Takes any JSON: keeps what `T` is made from.
struct Lenient<T>(PhantomData<T>);

trait Kept: Default {
    fn of_text(_: &str) -> Self {
        Self::default()
    }

    fn of_number(_: u64) -> Self {
        Self::default()
    }

    /// # Errors
    /// When the object is no JSON to its end.
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

impl Kept for Text {
    fn of_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Kept for Number {
    fn of_number(number: u64) -> Self {
        Self(Some(number))
    }
}

impl<T: Default + for<'de> Deserialize<'de>> Kept for Part<T> {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object)).map(Self)
    }
}

impl<'de, T: Kept> Visitor<'de> for Lenient<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::of_text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(T::of_number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::of_object(object)
    }
}

macro_rules! lenient {
    ($($kept:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kept {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Lenient(PhantomData))
            }
        }
    )*};
}

lenient!(Text, Number);

impl<'de, T: Default + for<'a> Deserialize<'a>> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lenient(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_another_shape_counts_as_absent() {
        let read = |text: &str| {
            let payload = Payload::read(text.as_bytes()).unwrap();
            (
                payload.repository.0.full_name.0,
                payload.number.0,
                payload.pull_request.0.number.0,
            )
        };
        let none = (String::new(), None, None);
        for odd in [
            "null",
            "[1, {}]",
            r#""text""#,
            "{}",
            r#"{"repository": null, "number": "7", "pull_request": [{"number": 7}]}"#,
            r#"{"repository": {"full_name": {"a": [1]}}, "number": -7, "pull_request": true}"#,
            r#"{"repository": "org/repo", "number": 7.5, "pull_request": {"number": null}}"#,
        ] {
            assert_eq!(read(odd), none, "{odd}");
        }
        let all = r#"{"x": [[{}]], "repository": {"full_name": "o/r"}, "number": 7, "pull_request": {"number": 8}}"#;
        assert_eq!(read(all), ("o/r".to_owned(), Some(7), Some(8)));
        for broken in ["", "{", r#"{"x": }"#, "{} {}"] {
            assert!(Payload::read(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
