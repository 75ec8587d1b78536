//! Pages and JSON for people.
