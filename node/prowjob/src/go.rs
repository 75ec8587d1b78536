//! How Go's `encoding/json` treats fields: `null` leaves the zero value, `omitempty` drops it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// What `omitempty` asks of a value.
pub(crate) trait OmitEmpty {
    /// True when Go leaves the field out.
    fn is_empty(&self) -> bool;

    /// The same behind an `Option` that is `Some`: a pointer is kept, an empty slice or map is not.
    fn is_empty_when_set(&self) -> bool {
        false
    }
}

impl OmitEmpty for String {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl OmitEmpty for bool {
    fn is_empty(&self) -> bool {
        !*self
    }
}

impl OmitEmpty for i64 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}

impl OmitEmpty for serde_json::Value {
    fn is_empty(&self) -> bool {
        self.is_null()
    }
}

impl<T> OmitEmpty for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
    fn is_empty_when_set(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> OmitEmpty for BTreeMap<K, V> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
    fn is_empty_when_set(&self) -> bool {
        self.is_empty()
    }
}

impl<T: OmitEmpty> OmitEmpty for Option<T> {
    fn is_empty(&self) -> bool {
        self.as_ref().is_none_or(OmitEmpty::is_empty_when_set)
    }
}

/// For `deserialize_with`: reads `null` as the zero value, as Go does for every kind of field.
///
/// # Errors
/// What the value's own `Deserialize` reports.
pub fn null_as_zero<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Declares a struct whose fields are written as Go writes them: in this order, under the given keys, and left out
/// when empty unless they stand in the leading `always` block.
macro_rules! go_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(always { $($(#[$ameta:meta])* $akey:literal => $afield:ident: $aty:ty,)* })?
            $($(#[$fmeta:meta])* $key:literal => $field:ident: $ty:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(
                $(#[$ameta])*
                #[serde(rename = $akey, default, deserialize_with = "crate::go::null_as_zero")]
                pub $afield: $aty,
            )*)?
            $(
                $(#[$fmeta])*
                #[serde(
                    rename = $key,
                    default,
                    deserialize_with = "crate::go::null_as_zero",
                    skip_serializing_if = "crate::go::OmitEmpty::is_empty"
                )]
                pub $field: $ty,
            )*
        }

        impl $name {
            /// Its doc comment, as attributes in text.
            pub const DOC: &'static [&'static str] = &[$(stringify!($meta)),*];

            /// The doc comments of its fields by their keys in JSON, as attributes in text.
            pub const FIELD_DOCS: &'static [(&'static str, &'static [&'static str])] = &[
                $($(($akey, &[$(stringify!($ameta)),*]),)*)?
                $(($key, &[$(stringify!($fmeta)),*]),)*
            ];
        }

        impl crate::go::OmitEmpty for $name {
            fn is_empty(&self) -> bool {
                false
            }
        }
    };
}
