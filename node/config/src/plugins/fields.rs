//! Which fields a type that serde reads knows at some place in it: asked of the type's own reader, by walking it down to
//! that place.

use std::cell::Cell;
use std::iter::once;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IntoDeserializer, Visitor};

type Names = &'static [&'static str];

/// The names that `T` knows below a path of keys and indexes; none where it is no struct, or a flattened one.
pub(super) fn known<'de, T: Deserialize<'de>>(path: &'de [&'de str]) -> Names {
    let names = Cell::new(&[][..]);
    // It never reads anything to the end.
    let _ends_early = T::deserialize(Walk {
        path,
        names: &names,
    });
    names.get()
}

#[derive(Clone, Copy)]
struct Walk<'de, 'n> {
    path: &'de [&'de str],
    names: &'n Cell<Names>,
}

impl<'de, 'n> Walk<'de, 'n> {
    fn next(self) -> Result<(&'de str, Self), Error> {
        let (step, path) = self.path.split_first().ok_or_else(end)?;
        Ok((step, Self { path, ..self }))
    }

    fn into_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(MapDeserializer::new(once(self.next()?)))
    }
}

fn end() -> Error {
    Error::custom("the end of the path")
}

impl<'de> IntoDeserializer<'de, Error> for Walk<'de, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Walk<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(end())
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: Names,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            self.names.set(fields);
            return Err(end());
        }
        self.into_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.into_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(once(self.next()?.1)))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only its reader is asked")]
    struct Outer {
        list: Vec<Inner>,
        map: BTreeMap<String, Option<Inner>>,
    }

    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only its reader is asked")]
    struct Inner {
        size: i64,
        names: Vec<String>,
    }

    #[test]
    fn fields_at_every_depth() {
        assert_eq!(known::<Outer>(&[]), ["list", "map"]);
        assert_eq!(known::<Outer>(&["list", "7"]), ["size", "names"]);
        assert_eq!(known::<Outer>(&["map", "any.key"]), ["size", "names"]);
        for none in [&["map"][..], &["list", "7", "size"], &["nothing", "x"]] {
            assert_eq!(known::<Outer>(none), [""; 0], "{none:?}");
        }
    }
}
