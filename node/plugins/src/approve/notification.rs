//! Whether a pull request is approved, and the comment that says so (PLG-APPROVE-012 … 020).

use std::collections::BTreeSet;

use super::approvals::{Approval, Approvals};
use super::coverage::{Coverage, Logins};

/// Everything the verdict rests on.
#[derive(Debug, Clone)]
pub(crate) struct Assessment {
    pub(crate) coverage: Coverage,
    pub(crate) approvals: Approvals,
    /// Lower case.
    pub(crate) assignees: Logins,
    /// [`Coverage::candidates`] in the order in which they are weighed.
    pub(crate) candidates: Vec<String>,
    pub(crate) require_issue: bool,
    /// 0 = none named.
    pub(crate) associated_issue: u64,
    /// A person set the label `approved`.
    pub(crate) manually_approved: bool,
}

/// Where the notification's links lead.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    /// `https://github.com/org/repo`.
    pub(crate) repo: String,
    pub(crate) branch: String,
    pub(crate) command_help: String,
    pub(crate) process: String,
    pub(crate) org: String,
    pub(crate) repo_name: String,
    /// `OWNERS`, unless configured otherwise.
    pub(crate) owners_file_name: String,
}

impl Assessment {
    pub(crate) fn files_approved(&self) -> bool {
        self.coverage.approved_by(&self.approvals.logins())
    }

    /// Those who waive the issue, as far as they may approve anything here.
    fn waivers(&self) -> Vec<&Approval> {
        self.approvals
            .iter()
            .filter(|(login, approval)| {
                approval.no_issue && self.coverage.may_approve_something(login)
            })
            .map(|(_, approval)| approval)
            .collect()
    }

    pub(crate) fn requirements_met(&self) -> bool {
        let issue_rule =
            !self.require_issue || self.associated_issue != 0 || !self.waivers().is_empty();
        issue_rule && self.files_approved()
    }

    pub(crate) fn is_approved(&self) -> bool {
        self.requirements_met() || self.manually_approved
    }

    pub(crate) fn suggestions(&self) -> Logins {
        self.coverage
            .suggestions(&self.approvals.logins(), &self.assignees, &self.candidates)
    }

    /// The comment's whole text.
    pub(crate) fn notification(&self, links: &Links) -> String {
        let suggestions = self.suggestions();
        let mut text = String::from("[APPROVALNOTIFIER] This PR is **");
        if !self.is_approved() {
            text.push_str("NOT ");
        }
        text.push_str("APPROVED**\n\n");
        if self.manually_approved && !self.requirements_met() {
            text.push_str("Approval requirements bypassed by manually added approval.\n\n");
        }
        text.push_str("This pull-request has been approved by:");
        let approvals: Vec<&Approval> = self
            .approvals
            .iter()
            .map(|(_, approval)| approval)
            .collect();
        text.push_str(&listed(&approvals));
        let settled = self.files_approved() || self.manually_approved;
        if !settled {
            text.push('\n');
            text.push_str(&self.whom_to_ask(&suggestions, &links.process));
        }
        text.push_str("\n\n");
        text.push_str(&self.about_the_issue());
        text.push_str(&format!(
            "The full list of commands accepted by this bot can be found [here]({}?repo={}%2F{}).\n\n",
            links.command_help, links.org, links.repo_name
        ));
        if settled {
            text.push_str(&format!(
                "The pull request process is described [here]({})\n\n",
                links.process
            ));
        }
        text.push_str(if settled {
            "<details >\n"
        } else {
            "<details open>\n"
        });
        text.push_str("Needs approval from an approver in each of these files:\n\n");
        self.list_files(links, &mut text);
        text.push_str(
            "\nApprovers can indicate their approval by writing `/approve` in a comment\n",
        );
        text.push_str("Approvers can cancel approval by writing `/approve cancel` in a comment\n");
        text.push_str("</details>\n");
        text.push_str(&meta(&suggestions));
        text
    }

    fn whom_to_ask(&self, suggestions: &Logins, process: &str) -> String {
        let link = |login: &String| format!("[{login}](https://github.com/{login})");
        let links = |logins: Vec<&String>| {
            let links: Vec<String> = logins.into_iter().map(link).collect();
            links.join(", ")
        };
        let assigned = links(suggestions.intersection(&self.assignees).collect());
        let others = links(suggestions.difference(&self.assignees).collect());
        let (request, end) = match (assigned.is_empty(), others.is_empty()) {
            (true, true) => return String::new(),
            (false, true) => (format!("please ask for approval from {assigned}"), ""),
            (true, false) => (format!("please assign {others}"), " for approval"),
            (false, false) => (
                format!("please ask for approval from {assigned} and additionally assign {others}"),
                " for approval",
            ),
        };
        format!(
            "**Once this PR has been reviewed and has the lgtm label**, {request}{end}. For more information see [the Code Review Process]({process})."
        )
    }

    fn about_the_issue(&self) -> String {
        if !self.require_issue {
            return String::new();
        }
        if self.associated_issue != 0 {
            return format!("Associated issue: *#{}*\n\n", self.associated_issue);
        }
        let waivers = self.waivers();
        if !waivers.is_empty() {
            return format!(
                "Associated issue requirement bypassed by:{}\n\n",
                listed(&waivers)
            );
        }
        let way_out = if self.manually_approved {
            "Requirement bypassed by manually added approval."
        } else {
            "Update pull-request body to add a reference to an issue, or get approval with `/approve no-issue`"
        };
        format!("*No associated issue*. {way_out}\n\n")
    }

    fn list_files(&self, links: &Links, text: &mut String) {
        let approved = self.approvals.logins();
        let open = self.coverage.unapproved(&approved);
        for path in self.coverage.needed() {
            let file = owners_file(path, &links.owners_file_name);
            let link = format!("{}/blob/{}/{file}", links.repo, links.branch);
            let by = self.approved_by(path).join(",");
            text.push_str(&match (open.contains(path.as_str()), by.is_empty()) {
                (false, _) => format!("- ~~[{file}]({link})~~ [{by}]\n"),
                (true, true) => format!("- **[{file}]({link})**\n"),
                (true, false) => {
                    format!(
                        "- **[{file}]({link})** [{by}]\n  > Need more approvers for rest parts.\n"
                    )
                }
            });
        }
    }

    /// Those who approved and may approve the path, as they spell themselves, sorted so.
    fn approved_by(&self, path: &str) -> Vec<String> {
        let Some(owners) = self.coverage.approvers_of(path) else {
            return Vec::new();
        };
        let spelled: BTreeSet<String> = self
            .approvals
            .iter()
            .filter(|(login, _)| owners.contains(*login))
            .map(|(_, approval)| approval.login.clone())
            .collect();
        spelled.into_iter().collect()
    }
}

fn listed(approvals: &[&Approval]) -> String {
    let all: Vec<String> = approvals.iter().map(ToString::to_string).collect();
    if all.is_empty() {
        String::new()
    } else {
        format!(" {}", all.join(", "))
    }
}

/// A Markdown file that names its own owners stands for itself.
fn owners_file(path: &str, file_name: &str) -> String {
    if path.ends_with(".md") {
        path.to_owned()
    } else if path.is_empty() {
        file_name.to_owned()
    } else {
        format!("{path}/{file_name}")
    }
}

/// The machine-readable end: other tools look for it.
fn meta(suggestions: &Logins) -> String {
    // Go's JSON writer escapes these three for the sake of HTML; nothing else in a login needs more than serde does.
    let json = serde_json::json!({ "approvers": suggestions })
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    format!("<!-- META={json} -->")
}

/// Whether a comment's text is a notification, of this or an earlier state.
pub(crate) fn is_notification(body: &str) -> bool {
    const TITLE: &str = "[ApprovalNotifier]";
    body.get(..TITLE.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(TITLE))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use trireme_forge::owners::RepoOwners;

    use super::*;
    use crate::approve::approvals::How;
    use crate::testing::{oracle, owners_tree};

    #[test]
    fn plg_approve_014_notifications_are_known_by_their_first_word() {
        assert!(is_notification(
            "[APPROVALNOTIFIER] This PR is **APPROVED**"
        ));
        assert!(is_notification("[approvalnotifier]"));
        assert!(!is_notification("x [APPROVALNOTIFIER]"));
        assert!(!is_notification("[APPROVALNOTIF"));
    }

    fn strings(value: &Value) -> Vec<String> {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    }

    fn assessment(case: &Value, owners: &RepoOwners) -> Assessment {
        let mut approvals = Approvals::default();
        for action in case["actions"].as_array().into_iter().flatten() {
            let login = action["login"].as_str().unwrap();
            let how = match action["how"].as_str().unwrap() {
                "approve" => How::Approved,
                "lgtm" => How::Lgtm,
                "author" => How::SelfApproved,
                "remove" => {
                    approvals.remove(login);
                    continue;
                }
                other => panic!("how is {other:?}"),
            };
            let reference = action["reference"].as_str().unwrap();
            approvals.add(login, how, reference, action["no_issue"].as_bool().unwrap());
        }
        Assessment {
            coverage: Coverage::new(&strings(&case["files"]), owners),
            approvals,
            assignees: strings(&case["assignees"])
                .iter()
                .map(|login| login.to_lowercase())
                .collect(),
            candidates: strings(&case["shuffled_approvers"]),
            require_issue: case["require_issue"].as_bool().unwrap(),
            associated_issue: case["associated_issue"].as_u64().unwrap(),
            manually_approved: case["manually_approved"].as_bool().unwrap(),
        }
    }

    /// Against upstream's own answers: PLG-APPROVE-009, PLG-APPROVE-010 (which files are approved), PLG-APPROVE-016,
    /// PLG-APPROVE-017, PLG-APPROVE-018, PLG-APPROVE-019, PLG-APPROVE-020, PLG-APPROVE-021, PLG-APPROVE-025 (the text).
    #[test]
    fn plg_approve_015_notifications_are_upstreams_byte_for_byte() {
        let Some(cases) = oracle("reports.jsonl.gz") else {
            return;
        };
        let mut trees: BTreeMap<(String, bool), RepoOwners> = BTreeMap::new();
        let mut checked = 0;
        for case in cases.iter().filter(|case| case["kind"] == "approve") {
            let tree = case["owners_tree"].as_str().unwrap().to_owned();
            let md_yaml = case["md_yaml"].as_bool().unwrap();
            let owners = trees
                .entry((tree.clone(), md_yaml))
                .or_insert_with(|| owners_tree(&tree, md_yaml));
            let assessment = assessment(case, owners);
            let mut candidates = assessment.coverage.candidates();
            let mut expected = assessment.candidates.clone();
            candidates.sort();
            expected.sort();
            assert_eq!(candidates, expected, "{case}");
            let needed: Vec<String> = assessment.coverage.needed().to_vec();
            assert_eq!(needed, strings(&case["owners_set"]), "{case}");
            let links = Links {
                repo: "https://github.com/org/repo".into(),
                branch: case["branch"].as_str().unwrap().into(),
                command_help: "https://go.k8s.io/bot-commands".into(),
                process: "https://git.k8s.io/community/contributors/guide/owners.md#the-code-review-process".into(),
                org: "org".into(),
                repo_name: "repo".into(),
                owners_file_name: "OWNERS".into(),
            };
            let suggestions: Vec<String> = assessment.suggestions().into_iter().collect();
            assert_eq!(suggestions, strings(&case["ccs"]), "{case}");
            assert_eq!(
                assessment.files_approved(),
                case["files_approved"],
                "{case}"
            );
            assert_eq!(
                assessment.requirements_met(),
                case["requirements_met"],
                "{case}"
            );
            assert_eq!(assessment.is_approved(), case["is_approved"], "{case}");
            assert_eq!(
                assessment.notification(&links),
                case["message"].as_str().unwrap(),
                "{case}"
            );
            checked += 1;
        }
        assert!(checked > 100);
    }
}
