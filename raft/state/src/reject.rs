//! How commands are refused, and the checks that several kinds share.

use trireme_proto::state as pb;

use crate::limits::{MAX_NAME_BYTES, MAX_RECORD_BYTES, MAX_TEXT_BYTES};

/// What a command's function returns: nothing has been changed if it is an error.
pub(crate) type Verdict<T = pb::Done> = Result<T, pb::Rejected>;

fn rejected(code: pb::Rejection, message: impl Into<String>) -> pb::Rejected {
    pb::Rejected {
        code: code.into(),
        message: message.into(),
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> pb::Rejected {
    rejected(pb::Rejection::Invalid, message)
}

pub(crate) fn not_found(what: &str, key: &str) -> pb::Rejected {
    rejected(pb::Rejection::NotFound, format!("no {what} {key:?}"))
}

pub(crate) fn conflict(message: impl Into<String>) -> pb::Rejected {
    rejected(pb::Rejection::Conflict, message)
}

pub(crate) fn already_exists(message: impl Into<String>) -> pb::Rejected {
    rejected(pb::Rejection::AlreadyExists, message)
}

pub(crate) fn fenced(message: impl Into<String>) -> pb::Rejected {
    rejected(pb::Rejection::Fenced, message)
}

pub(crate) fn not_in_office(message: impl Into<String>) -> pb::Rejected {
    rejected(pb::Rejection::NotInOffice, message)
}

pub(crate) fn exhausted(what: &str, bound: usize) -> pb::Rejected {
    rejected(
        pb::Rejection::ResourceExhausted,
        format!("{what}: at the bound of {bound}"),
    )
}

pub(crate) fn full(what: &str, used: u64, bound: u64) -> pb::Rejected {
    rejected(
        pb::Rejection::ResourceExhausted,
        format!("{what}: {used} of at most {bound} bytes are used"),
    )
}

/// A name that becomes part of keys: present, bounded, without control characters.
pub(crate) fn name(field: &str, value: &str) -> Verdict<()> {
    if value.is_empty() {
        return Err(invalid(format!("{field} is missing")));
    }
    optional_name(field, value)
}

pub(crate) fn optional_name(field: &str, value: &str) -> Verdict<()> {
    if value.len() > MAX_NAME_BYTES {
        return Err(invalid(format!(
            "{field} is longer than {MAX_NAME_BYTES} bytes"
        )));
    }
    // What most names are made of is told without decoding it.
    let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !plain && value.chars().any(char::is_control) {
        return Err(invalid(format!("{field} contains a control character")));
    }
    Ok(())
}

pub(crate) fn record_size<M: prost::Message>(what: &str, record: &M) -> Verdict<()> {
    let size = record.encoded_len();
    if size > MAX_RECORD_BYTES {
        return Err(invalid(format!(
            "{what} has {size} bytes, at most {MAX_RECORD_BYTES} are allowed"
        )));
    }
    Ok(())
}

pub(crate) fn at_most(what: &str, count: usize, bound: usize) -> Verdict<()> {
    if count > bound {
        return Err(invalid(format!(
            "{count} {what} in one command, at most {bound} are allowed"
        )));
    }
    Ok(())
}

/// Free text, cut to its bound at a character boundary.
pub(crate) fn cut(text: &str) -> String {
    cut_to(text, MAX_TEXT_BYTES)
}

/// The same with a bound in bytes.
pub(crate) fn cut_to(text: &str, bound: usize) -> String {
    text[..text.floor_char_boundary(bound)].to_owned()
}
