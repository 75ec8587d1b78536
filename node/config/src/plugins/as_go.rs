//! Plugins' sections read as Go reads them. Numbers and booleans are texts where a text is wanted: upstream's reader converts
//! them before it decodes a plugin file, which holds no embedded struct (CFG-021); a milestone `1.10` is "1.1" there, and
//! refused nowhere. Names of fields match without case if not exactly (CFG-023). `null` leaves a field as it is, and is the
//! zero value as an item of a list or the value of a map's key.

use std::iter::empty;

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde_json::{Error, Map, Value};

use crate::yaml::Number;

/// Reads a value, loose about texts, the case of names and `null`, and about nothing else.
pub(super) struct AsGo<'a>(pub(super) &'a Value);

/// The text that stands for a number or a boolean.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(match n.as_i64() {
            Some(i) => i.to_string(),
            None => Number::Float(n.as_f64().unwrap_or_default()).as_string(),
        }),
        _ => None,
    }
}

macro_rules! as_written {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.0.$method(visitor)
        })*
    };
}

macro_rules! or_zero {
    ($($method:ident $visit:ident $zero:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                value => value.$method(visitor),
            }
        })*
    };
}

macro_rules! as_text {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match text(self.0) {
                Some(text) => visitor.visit_string(text),
                None if self.0.is_null() => visitor.visit_str(""),
                None => self.0.$method(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for AsGo<'de> {
    type Error = Error;

    as_written! { deserialize_char deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_ignored_any }

    or_zero! {
        deserialize_bool visit_bool false;
        deserialize_i8 visit_i8 0;
        deserialize_i16 visit_i16 0;
        deserialize_i32 visit_i32 0;
        deserialize_i64 visit_i64 0;
        deserialize_u8 visit_u8 0;
        deserialize_u16 visit_u16 0;
        deserialize_u32 visit_u32 0;
        deserialize_u64 visit_u64 0;
        deserialize_f32 visit_f32 0.0;
        deserialize_f64 visit_f64 0.0;
    }

    as_text! { deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Object(map) => visitor.visit_map(Entries::new(map, &[])),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() {
            visitor.visit_seq(SeqDeserializer::new(empty::<()>()))
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => visitor.visit_map(Entries::new(map, fields)),
            Value::Null => visitor.visit_map(MapDeserializer::new(empty::<((), ())>())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) if map.len() == 1 => match map.iter().next() {
                Some((name, value)) => visitor.visit_enum(Variant(name.clone(), Some(value))),
                None => self.0.deserialize_any(visitor),
            },
            Value::String(name) => visitor.visit_enum(Variant(name.clone(), None)),
            other => match text(other) {
                Some(name) => visitor.visit_enum(Variant(name, None)),
                None => other.deserialize_any(visitor),
            },
        }
    }
}

struct Items<'a>(std::slice::Iter<'a, Value>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let next = self.0.next();
        next.map(|item| seed.deserialize(AsGo(item))).transpose()
    }
}

struct Entries<'a> {
    map: &'a Map<String, Value>,
    rest: serde_json::map::Iter<'a>,
    /// Those of the struct that is wanted; none for a map.
    fields: &'static [&'static str],
    value: &'a Value,
}

impl<'a> Entries<'a> {
    fn new(map: &'a Map<String, Value>, fields: &'static [&'static str]) -> Self {
        Self {
            map,
            rest: map.iter(),
            fields,
            value: &Value::Null,
        }
    }

    /// The name that a key stands for; none where the exact one stands beside it and wins.
    fn name(&self, key: &'a str) -> Option<&'a str> {
        if self.fields.contains(&key) {
            return Some(key);
        }
        let mut fields = self.fields.iter();
        match fields.find(|field| field.eq_ignore_ascii_case(key)) {
            Some(field) if self.map.get(*field).is_some_and(|exact| !exact.is_null()) => None,
            Some(field) => Some(field),
            None => Some(key),
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while let Some((key, value)) = self.rest.next() {
            let Some(name) = self.name(key) else { continue };
            if value.is_null() && self.fields.contains(&name) {
                continue;
            }
            self.value = value;
            let name: StringDeserializer<Error> = name.to_owned().into_deserializer();
            return seed.deserialize(name).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(AsGo(self.value))
    }
}

struct Variant<'a>(String, Option<&'a Value>);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Content<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Content<'de>), Error> {
        let name: StringDeserializer<Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.1)))
    }
}

/// What a variant holds; `null` if it holds nothing.
struct Content<'a>(Option<&'a Value>);

impl<'de> VariantAccess<'de> for Content<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        serde::Deserialize::deserialize(AsGo(self.0.unwrap_or(&Value::Null)))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(AsGo(self.0.unwrap_or(&Value::Null)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        AsGo(self.0.unwrap_or(&Value::Null)).deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        AsGo(self.0.unwrap_or(&Value::Null)).deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// CFG-021: what upstream makes texts of in a plugin file; other kinds stay as strict as they are.
    #[test]
    fn cfg_021_scalars_of_plugin_sections_become_texts() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        struct Read {
            milestones: BTreeMap<String, BTreeMap<String, String>>,
            names: Vec<Option<String>>,
            on: bool,
            count: i64,
        }
        let read = |value: &Value| Read::deserialize(AsGo(value));
        let found = read(&json!({
            "milestones": {"o/r": {"main": 1.10, "old": 7, "x": "v1"}}, "names": [true, null, 2e20], "on": true, "count": 5,
        }))
        .unwrap();
        assert_eq!(
            format!("{found:?}"),
            r#"Read { milestones: {"o/r": {"main": "1.1", "old": "7", "x": "v1"}}, names: [Some("true"), None, Some("2e+20")], on: true, count: 5 }"#
        );
        assert!(read(&json!({"on": "yes"})).is_err());
        assert!(read(&json!({"count": "5"})).is_err());
        assert!(read(&json!({"names": [[]]})).is_err());
        // What is empty in a list or a map is there, and what is empty in a struct is as good as absent.
        let found = read(&json!({
            "milestones": {"o/r": null, "o/s": {"main": null}}, "names": null, "on": null, "count": null,
        }))
        .unwrap();
        assert_eq!(
            format!("{found:?}"),
            r#"Read { milestones: {"o/r": {}, "o/s": {"main": ""}}, names: [], on: false, count: 0 }"#
        );
        // CFG-023: an exact name wins; keys of maps are no names.
        let found = read(
            &json!({"Count": 4, "ON": false, "on": true, "Milestones": {"O/r": {}, "o/r": {}}}),
        )
        .unwrap();
        assert_eq!(
            (found.count, found.on, found.milestones.len()),
            (4, true, 2)
        );
        assert_eq!(read(&json!({"Count": 4, "count": null})).unwrap().count, 4);
        #[derive(Debug, Default, Deserialize, PartialEq)]
        #[serde(default)]
        struct Item {
            text: String,
            count: i64,
        }
        let lists = |value: &Value| <(Vec<Item>, Vec<String>, Vec<bool>)>::deserialize(AsGo(value));
        let one = Item {
            text: String::new(),
            count: 0,
        };
        let found = lists(&json!([[null], ["a", null], [null, true]])).unwrap();
        let texts = vec!["a".to_owned(), String::new()];
        assert_eq!(found, (vec![one], texts, vec![false, true]));
    }
}
