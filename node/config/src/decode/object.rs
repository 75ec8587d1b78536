//! The macro that declares a struct of a configuration file: for each field its name in the file and whether Go
//! leaves it out when empty. Reading and writing follow from that.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use trireme_prowjob::{GoDuration, MetaDuration};

use super::{Cx, free};
use crate::yaml::{Entry, Node};

/// A struct with named fields, some of them perhaps in embedded structs.
pub(crate) trait Object: Default {
    /// Sets the field of this exact name; false if there is none.
    fn set<'n>(&mut self, name: &str, node: &'n Node, cx: &mut Cx<'n>) -> bool;

    /// All names, those of embedded structs included.
    fn names(into: &mut Vec<&'static str>);

    /// Writes the fields in the order of their declaration.
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

impl<T: Object + Clone> Object for Arc<T> {
    fn set<'n>(&mut self, name: &str, node: &'n Node, cx: &mut Cx<'n>) -> bool {
        Self::make_mut(self).set(name, node, cx)
    }

    fn names(into: &mut Vec<&'static str>) {
        T::names(into);
    }

    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        (**self).write(map)
    }
}

/// Reads a mapping into an object. Keys that match no name exactly match without case; an exact one wins.
pub(crate) fn decode<'n, T: Object>(node: &'n Node, cx: &mut Cx<'n>) -> T {
    let mut object = T::default();
    let mut inexact: Vec<&'n Entry> = Vec::new();
    let entries = cx.entries(node, "a mapping");
    for entry in entries {
        if !set(&mut object, &entry.key, entry, cx) {
            inexact.push(entry);
        }
    }
    if inexact.is_empty() {
        return object;
    }
    let mut names = Vec::new();
    T::names(&mut names);
    let free = free(names.iter().copied(), entries);
    for entry in inexact {
        match names
            .iter()
            .find(|name| name.eq_ignore_ascii_case(&entry.key))
        {
            Some(name) if node.get(name).is_none() => {
                set(&mut object, name, entry, cx);
            }
            Some(name) => cx.shadowed_field(&entry.key, name, entry.key_at),
            None => cx.unknown_field(entry, &free),
        }
    }
    object
}

fn set<'n, T: Object>(object: &mut T, name: &str, entry: &'n Entry, cx: &mut Cx<'n>) -> bool {
    cx.under(&entry.key, |cx| object.set(name, &entry.value, cx))
}

/// What Go's `omitempty` leaves out.
pub(crate) trait Empty {
    fn is_empty(&self) -> bool;

    /// The same behind an `Option` that is set: a pointer stays, an empty list or map goes.
    fn is_empty_when_set(&self) -> bool {
        false
    }
}

impl Empty for String {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl Empty for bool {
    fn is_empty(&self) -> bool {
        !self
    }
}

impl Empty for i64 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}

impl Empty for GoDuration {
    fn is_empty(&self) -> bool {
        false
    }
}

impl Empty for MetaDuration {
    fn is_empty(&self) -> bool {
        false
    }
}

impl Empty for serde_json::Value {
    fn is_empty(&self) -> bool {
        self.is_null()
    }
}

impl<T: Empty> Empty for Option<T> {
    fn is_empty(&self) -> bool {
        self.as_ref().is_none_or(Empty::is_empty_when_set)
    }
}

impl<T: Empty> Empty for Arc<T> {
    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }
}

impl<T> Empty for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn is_empty_when_set(&self) -> bool {
        self.is_empty()
    }
}

impl<T> Empty for BTreeMap<String, T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn is_empty_when_set(&self) -> bool {
        self.is_empty()
    }
}

/// Declares a struct of a configuration file. Each field starts with how it stands in the file:
/// `[omit "name"]` is left out when empty, `[always "name"]` never, `[embed]` is a struct whose fields stand beside
/// these, `[derived]` stands in no file.
macro_rules! object {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$fmeta:meta])* [$($how:tt)+] $field:ident: $ty:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        pub struct $name {
            $($(#[$fmeta])* pub $field: $ty,)*
        }

        impl $crate::decode::Object for $name {
            fn set<'n>(&mut self, name: &str, node: &'n $crate::yaml::Node, cx: &mut $crate::decode::Cx<'n>) -> bool {
                $(object!(@set [$($how)+] self.$field, name, node, cx);)*
                let _ = (name, node, cx);
                false
            }

            fn names(into: &mut Vec<&'static str>) {
                $(object!(@names [$($how)+] $ty, into);)*
                let _ = into;
            }

            fn write<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                $(object!(@write [$($how)+] self.$field, map);)*
                let _ = map;
                Ok(())
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode<'n>(node: &'n $crate::yaml::Node, cx: &mut $crate::decode::Cx<'n>) -> Self {
                $crate::decode::decode_object(node, cx)
            }
        }

        impl $crate::decode::describe::DescribeObject for $name {
            const NAME: &'static str = stringify!($name);
            const DOC: &'static [&'static str] = &[$(stringify!($meta)),*];

            fn properties(into: &mut $crate::decode::describe::Properties<'_>) {
                $(object!(@describe [$($how)+] $ty, into, [$(stringify!($fmeta)),*]);)*
                let _ = into;
            }
        }

        impl $crate::decode::Describe for $name {
            fn describe(into: &mut $crate::decode::Definitions) -> serde_json::Value {
                $crate::decode::describe::object::<Self>(into)
            }
        }

        impl $crate::decode::Empty for $name {
            fn is_empty(&self) -> bool {
                false
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(None)?;
                $crate::decode::Object::write(self, &mut map)?;
                map.end()
            }
        }
    };

    (@set [omit $tag:literal] $self:ident.$field:ident, $key:ident, $node:ident, $cx:ident) => {
        if $key == $tag {
            $self.$field = $crate::decode::Decode::decode($node, $cx);
            return true;
        }
    };
    (@set [always $tag:literal] $self:ident.$field:ident, $key:ident, $node:ident, $cx:ident) => {
        object!(@set [omit $tag] $self.$field, $key, $node, $cx);
    };
    (@set [embed] $self:ident.$field:ident, $key:ident, $node:ident, $cx:ident) => {
        if $cx.embedded(|cx| $crate::decode::Object::set(&mut $self.$field, $key, $node, cx)) {
            return true;
        }
    };
    (@set [derived] $self:ident.$field:ident, $key:ident, $node:ident, $cx:ident) => {};

    (@names [omit $tag:literal] $ty:ty, $into:ident) => { $into.push($tag); };
    (@names [always $tag:literal] $ty:ty, $into:ident) => { $into.push($tag); };
    (@names [embed] $ty:ty, $into:ident) => { <$ty as $crate::decode::Object>::names($into); };
    (@names [derived] $ty:ty, $into:ident) => {};

    (@describe [omit $tag:literal] $ty:ty, $into:ident, [$($doc:expr),*]) => { $into.field::<$ty>($tag, &[$($doc),*]); };
    (@describe [always $tag:literal] $ty:ty, $into:ident, [$($doc:expr),*]) => { $into.field::<$ty>($tag, &[$($doc),*]); };
    (@describe [embed] $ty:ty, $into:ident, [$($doc:expr),*]) => { $into.embed::<$ty>(); };
    (@describe [derived] $ty:ty, $into:ident, [$($doc:expr),*]) => {};

    (@write [omit $tag:literal] $self:ident.$field:ident, $map:ident) => {
        if !$crate::decode::Empty::is_empty(&$self.$field) {
            $map.serialize_entry($tag, &$self.$field)?;
        }
    };
    (@write [always $tag:literal] $self:ident.$field:ident, $map:ident) => {
        $map.serialize_entry($tag, &$self.$field)?;
    };
    (@write [embed] $self:ident.$field:ident, $map:ident) => {
        $crate::decode::Object::write(&$self.$field, $map)?;
    };
    (@write [derived] $self:ident.$field:ident, $map:ident) => {};
}
