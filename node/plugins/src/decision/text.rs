//! Texts into which the answers of earlier effects are put when they are sent.

use trireme_proto::state::{CommentEffect, Insert, Piece, Subject};

use super::Ordinal;

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

    fn insert(mut self, pieces: Vec<Piece>, separator: &str) -> Self {
        let at = self.here();
        self.inserts.push(Insert {
            at,
            pieces,
            separator: separator.to_owned(),
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
        pieces.collect::<Vec<_>>().join(&insert.separator)
    })
}
