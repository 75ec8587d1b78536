//! Texts into which the answers of earlier effects are put when they are sent.

use trireme_proto::state::{CommentEffect, Insert, Piece, Subject};

use super::Ordinal;

/// How one thing that was done is told, and how several are. In both, `{done}` stands for them and `{count}` for their
/// number.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    pub one: &'a str,
    pub many: &'a str,
    pub separator: &'a str,
}

/// What a comment or a new issue says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Text {
    body: String,
    inserts: Vec<Insert>,
}

impl<T: Into<String>> From<T> for Text {
    fn from(body: T) -> Self {
        Self {
            body: body.into(),
            inserts: Vec::new(),
        }
    }
}

impl Text {
    /// Goes on with the other text.
    #[must_use]
    pub fn and(mut self, more: impl Into<Self>) -> Self {
        let more = more.into();
        let shift = self.here();
        self.body.push_str(&more.body);
        let moved = more.inserts.into_iter().map(|insert| Insert {
            at: insert.at.saturating_add(shift),
            ..insert
        });
        self.inserts.extend(moved);
        self
    }

    /// Goes on with what that effect answered: names it left out, the number of what it made, why it was refused.
    #[must_use]
    pub fn and_result(self, of: Ordinal) -> Self {
        let piece = Piece {
            ordinal: of.0,
            text: String::new(),
        };
        self.insert(vec![piece], "")
    }

    /// Goes on with those texts whose effects were done.
    #[must_use]
    pub fn and_those_done(self, texts: Vec<(Ordinal, String)>, separator: &str) -> Self {
        let pieces = texts.into_iter().map(|(of, text)| Piece {
            ordinal: of.0,
            text,
        });
        self.insert(pieces.collect(), separator)
    }

    /// Goes on with those texts whose effects were done, told as [`Counted`] says; when none was, nothing is said at all.
    #[must_use]
    pub fn and_counted(self, texts: Vec<(Ordinal, String)>, told: &Counted<'_>) -> Self {
        let mut text = self.and_those_done(texts, told.separator);
        if let Some(insert) = text.inserts.last_mut() {
            told.one.clone_into(&mut insert.one);
            told.many.clone_into(&mut insert.many);
        }
        text
    }

    fn insert(mut self, pieces: Vec<Piece>, separator: &str) -> Self {
        let at = self.here();
        self.inserts.push(Insert {
            at,
            pieces,
            separator: separator.to_owned(),
            ..Insert::default()
        });
        self
    }

    fn here(&self) -> u32 {
        u32::try_from(self.body.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn into_parts(self) -> (String, Vec<Insert>) {
        (self.body, self.inserts)
    }

    pub(super) fn into_comment(self, subject: Option<Subject>) -> CommentEffect {
        CommentEffect {
            subject,
            body: self.body,
            inserts: self.inserts,
        }
    }
}

/// The body with each insert as `fill` tells it.
pub(crate) fn filled(
    body: &str,
    inserts: &[Insert],
    mut fill: impl FnMut(&Insert) -> String,
) -> String {
    let mut text = String::with_capacity(body.len());
    let mut from = 0;
    for insert in inserts {
        let at = insert.at as usize;
        // The state refuses inserts that are not in order or not within the text.
        text.push_str(body.get(from..at).unwrap_or_default());
        text.push_str(&fill(insert));
        from = at;
    }
    text.push_str(body.get(from..).unwrap_or_default());
    text
}

/// As a person reads a plan: `{n}` for the answer of effect n.
pub(super) fn marked(body: &str, inserts: &[Insert]) -> String {
    filled(body, inserts, |insert| {
        let pieces = insert.pieces.iter().map(|piece| match piece.text.as_str() {
            "" => format!("{{{}}}", piece.ordinal),
            text => format!("{{{} if {} is done}}", text, piece.ordinal),
        });
        let told = pieces.collect::<Vec<_>>();
        joined(insert, &told)
    })
}

/// The pieces that are left, as their insert tells them.
pub(crate) fn joined(insert: &Insert, pieces: &[impl AsRef<str>]) -> String {
    let pieces: Vec<&str> = pieces.iter().map(AsRef::as_ref).collect();
    let done = pieces.join(&insert.separator);
    let template = match pieces.len() {
        _ if !is_counted(insert) => return done,
        0 => return String::new(),
        1 => &insert.one,
        _ => &insert.many,
    };
    let counted = template.replace("{count}", &pieces.len().to_string());
    counted.replacen("{done}", &done, 1)
}

/// Whether the comment is only sent if a piece of it is left.
pub(crate) fn is_counted(insert: &Insert) -> bool {
    !insert.one.is_empty()
}
