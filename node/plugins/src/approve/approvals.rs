//! Who approved, as their texts and reviews say it (PLG-APPROVE-001 … 008).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use trireme_forge::{IssueComment, Review, ReviewComment, ReviewState};

use crate::text::commands;

commands! {
    COMMAND = r"(?m)^/([^\s]+)[\t ]*([^\n\r]*)";
}

/// How somebody approved: the tooltip of their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    SelfApproved,
    Approved,
    Lgtm,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfApproved => "Author self-approved",
            Self::Approved => "Approved",
            Self::Lgtm => "LGTM",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Approval {
    /// As they spell it.
    pub(crate) login: String,
    pub(crate) how: How,
    /// The page of the text.
    pub(crate) reference: String,
    /// Accepts that no issue is named.
    pub(crate) no_issue: bool,
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            login,
            how,
            reference,
            ..
        } = self;
        write!(f, "*<a href=\"{reference}\" title=\"{how}\">{login}</a>*")
    }
}

/// At most one approval per login, whatever its case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Approvals(BTreeMap<String, Approval>);

impl Approvals {
    /// The latest counts, but one that waives the issue is not replaced by one that does not.
    pub(crate) fn add(&mut self, login: &str, how: How, reference: &str, no_issue: bool) {
        let key = login.to_lowercase();
        if !no_issue && self.0.get(&key).is_some_and(|had| had.no_issue) {
            return;
        }
        let approval = Approval {
            login: login.to_owned(),
            how,
            reference: reference.to_owned(),
            no_issue,
        };
        self.0.insert(key, approval);
    }

    pub(crate) fn remove(&mut self, login: &str) {
        self.0.remove(&login.to_lowercase());
    }

    /// Lower case.
    pub(crate) fn logins(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// By lower-case login.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Approval)> {
        self.0
            .iter()
            .map(|(login, approval)| (login.as_str(), approval))
    }
}

/// Whether texts of others than the command's own users count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) lgtm_acts_as_approve: bool,
    pub(crate) reviews_count: bool,
}

/// Anything people wrote on a pull request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    pub(crate) author: String,
    pub(crate) body: String,
    pub(crate) at: Timestamp,
    pub(crate) html_url: String,
    pub(crate) review: Option<ReviewState>,
}

/// Everything people wrote, oldest first; reviews count from when they were submitted.
pub(crate) fn conversation(
    comments: &[IssueComment],
    review_comments: &[ReviewComment],
    reviews: &[Review],
) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    texts.extend(review_comments.iter().map(|comment| Text {
        author: comment.author.login.clone(),
        body: comment.body.clone(),
        at: comment.created_at,
        html_url: comment.html_url.clone(),
        review: None,
    }));
    texts.extend(comments.iter().map(|comment| Text {
        author: comment.author.login.clone(),
        body: comment.body.clone(),
        at: comment.created_at,
        html_url: comment.html_url.clone(),
        review: None,
    }));
    texts.extend(reviews.iter().map(|review| Text {
        author: review.author.login.clone(),
        body: review.body.clone(),
        at: review.submitted_at.unwrap_or(Timestamp::MIN),
        html_url: review.html_url.clone(),
        review: Some(review.state),
    }));
    texts.sort_by_key(|text| text.at);
    texts
}

/// One command of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Approve {
        no_issue: bool,
    },
    Lgtm {
        no_issue: bool,
    },
    /// Takes back either.
    Cancel {
        lgtm: bool,
    },
}

fn words(body: &str) -> impl Iterator<Item = Word> {
    COMMAND.captures_iter(body).filter_map(|found| {
        let arguments = found[2].trim().to_lowercase();
        let no_issue = arguments == "no-issue";
        let cancel = arguments.contains("cancel");
        match found[1].to_uppercase().as_str() {
            "REMOVE-APPROVE" => Some(Word::Cancel { lgtm: false }),
            "APPROVE" if cancel => Some(Word::Cancel { lgtm: false }),
            "LGTM" if cancel => Some(Word::Cancel { lgtm: true }),
            "APPROVE" => Some(Word::Approve { no_issue }),
            "LGTM" => Some(Word::Lgtm { no_issue }),
            _ => None,
        }
    })
}

/// Whether the text has a command that approves or takes back.
pub(crate) fn has_command(body: &str, rules: Rules) -> bool {
    words(body).any(|word| match word {
        Word::Approve { .. } | Word::Cancel { lgtm: false } => true,
        Word::Lgtm { .. } | Word::Cancel { lgtm: true } => rules.lgtm_acts_as_approve,
    })
}

/// Whether a review of that state approves or takes back by itself.
pub(crate) fn review_counts(state: ReviewState, rules: Rules) -> bool {
    rules.reviews_count
        && matches!(
            state,
            ReviewState::Approved | ReviewState::ChangesRequested | ReviewState::Dismissed
        )
}

/// Adds what `texts` say, oldest first. `ignored` tells the bots.
pub(crate) fn add_from_texts(
    approvals: &mut Approvals,
    texts: &[Text],
    rules: Rules,
    ignored: impl Fn(&str) -> bool,
) {
    for text in texts {
        let relevant = has_command(&text.body, rules)
            || text.review.is_some_and(|state| review_counts(state, rules));
        if text.author.is_empty() || ignored(&text.author) || !relevant {
            continue;
        }
        match text.review.filter(|_| rules.reviews_count) {
            Some(ReviewState::Approved) => {
                approvals.add(&text.author, How::Approved, &text.html_url, false);
            }
            Some(ReviewState::ChangesRequested) => approvals.remove(&text.author),
            _ => {}
        }
        // Once a text counts, every /lgtm in it does (PLG-APPROVE-006).
        for word in words(&text.body) {
            match word {
                Word::Cancel { .. } => approvals.remove(&text.author),
                Word::Approve { no_issue } => {
                    approvals.add(&text.author, How::Approved, &text.html_url, no_issue);
                }
                Word::Lgtm { no_issue } => {
                    approvals.add(&text.author, How::Lgtm, &text.html_url, no_issue);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Rules = Rules {
        lgtm_acts_as_approve: false,
        reviews_count: true,
    };

    fn text(author: &str, body: &str, review: Option<ReviewState>) -> Text {
        Text {
            author: author.to_owned(),
            body: body.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            html_url: "u".to_owned(),
            review,
        }
    }

    fn told(texts: &[Text], rules: Rules) -> String {
        let mut approvals = Approvals::default();
        add_from_texts(&mut approvals, texts, rules, |login| login == "bot");
        let all: Vec<String> = approvals
            .iter()
            .map(|(_, approval)| {
                let waives = if approval.no_issue { ", no issue" } else { "" };
                format!("{} ({}{waives})", approval.login, approval.how)
            })
            .collect();
        all.join("; ")
    }

    #[test]
    fn plg_approve_001_commands() {
        let lgtm = Rules {
            lgtm_acts_as_approve: true,
            ..PLAIN
        };
        for (body, plain, with_lgtm) in [
            ("/approve", true, true),
            ("/APPROVE", true, true),
            ("/approve no-issue", true, true),
            ("/approve cancel", true, true),
            ("/remove-approve", true, true),
            ("text\n/approve\r\nmore", true, true),
            ("/lgtm", false, true),
            ("/lgtm cancel", false, true),
            (" /approve", false, false),
            ("/approved", false, false),
            ("please /approve", false, false),
        ] {
            assert_eq!(has_command(body, PLAIN), plain, "{body:?}");
            assert_eq!(has_command(body, lgtm), with_lgtm, "{body:?}");
        }
    }

    #[test]
    fn plg_approve_005_later_texts_beat_earlier_ones() {
        let approve = || text("Alice", "/approve", None);
        let cancel = || text("alice", "/approve cancel", None);
        assert_eq!(told(&[approve()], PLAIN), "Alice (Approved)");
        assert_eq!(told(&[approve(), cancel()], PLAIN), "");
        assert_eq!(told(&[cancel(), approve()], PLAIN), "Alice (Approved)");
        assert_eq!(
            told(&[text("a", "/approve now cancel it", None)], PLAIN),
            ""
        );
        assert_eq!(
            told(&[text("a", "/approve\n/remove-approve", None)], PLAIN),
            ""
        );
        assert_eq!(told(&[text("bot", "/approve", None)], PLAIN), "");
        assert_eq!(told(&[text("", "/approve", None)], PLAIN), "");
    }

    #[test]
    fn plg_approve_005_a_command_beats_its_own_review() {
        use ReviewState::{Approved, ChangesRequested, Dismissed};
        let off = Rules {
            reviews_count: false,
            ..PLAIN
        };
        let review = |body, state| [text("a", body, Some(state))];
        assert_eq!(told(&review("", Approved), PLAIN), "a (Approved)");
        assert_eq!(told(&review("", Approved), off), "");
        assert_eq!(
            told(&review("/approve", ChangesRequested), PLAIN),
            "a (Approved)"
        );
        assert_eq!(told(&review("/approve cancel", Approved), PLAIN), "");
        let both = |state| [text("a", "", Some(Approved)), text("a", "", Some(state))];
        assert_eq!(told(&both(ChangesRequested), PLAIN), "");
        assert_eq!(told(&both(Dismissed), PLAIN), "a (Approved)");
    }

    #[test]
    fn plg_approve_006_a_relevant_text_carries_its_lgtm() {
        assert_eq!(told(&[text("a", "/lgtm", None)], PLAIN), "");
        assert_eq!(
            told(&[text("a", "/approve\n/lgtm", None)], PLAIN),
            "a (LGTM)"
        );
        assert_eq!(
            told(&[text("a", "/approve\n/lgtm cancel", None)], PLAIN),
            ""
        );
    }

    #[test]
    fn plg_approve_007_a_waiver_is_not_replaced() {
        let texts = [
            text("a", "/approve no-issue", None),
            text("a", "/approve", None),
        ];
        assert_eq!(told(&texts, PLAIN), "a (Approved, no issue)");
        assert_eq!(
            told(&[text("a", "/approve no-issue please", None)], PLAIN),
            "a (Approved)"
        );
    }

    #[test]
    fn plg_approve_004_texts_stand_in_order_of_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let review = Review {
            id: 1,
            node_id: String::new(),
            html_url: "r".into(),
            author: trireme_forge::User::new("r"),
            body: String::new(),
            state: ReviewState::Approved,
            submitted_at: Some(at(2)),
            commit_id: None,
        };
        let comment = |author: &str, second| IssueComment {
            id: 1,
            html_url: "c".into(),
            author: trireme_forge::User::new(author),
            body: String::new(),
            created_at: at(second),
            updated_at: at(9),
        };
        let texts = conversation(
            &[comment("c3", 3), comment("c1", 1), comment("c2", 2)],
            &[],
            &[review],
        );
        let authors: Vec<&str> = texts.iter().map(|text| text.author.as_str()).collect();
        assert_eq!(authors, ["c1", "c2", "r", "c3"]);
    }
}
