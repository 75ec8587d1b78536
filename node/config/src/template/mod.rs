//! Go's text templates (CFG-029), as far as configurations use them: links to a job's page, the text below a results
//! comment, Slack messages, merge commits. Fields go by Go's names (`.Spec.Refs.Org`), an unknown one is an error.
//!
//! Why not a crate: in Go an unknown field of a struct is an error and an absent key of a map is `<no value>`, and
//! configurations need both (a typing error is found at load; `.Labels.x` renders where no job has that label). `gotmpl`
//! 0.6 carries structs as maps and knows one rule for all of them; `gtmpl` has been without a release since 2021.

mod exec;
mod parse;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use trireme_prowjob::ProwJob;

use parse::Node;

/// A template, parsed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Template(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    body: Vec<Node>,
    /// By name, from `define` and `block`.
    defined: BTreeMap<String, Vec<Node>>,
}

/// Why a text is no template, or why it gives no text for a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("{0}")]
    Execution(String),
}

/// A pull request as the templates of merge commits see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplatePull<'a> {
    pub org: &'a str,
    pub repo: &'a str,
    pub number: i64,
    pub title: &'a str,
    pub body: &'a str,
    pub author_login: &'a str,
    pub base_ref_name: &'a str,
    pub head_ref_name: &'a str,
    pub head_ref_oid: &'a str,
}

impl Template {
    /// # Errors
    /// What of the text Go would not parse.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_with(text, &[])
    }

    /// With functions beyond the built-in ones; `replace` is the only one that there is.
    pub(crate) fn parse_with(text: &str, functions: &[&str]) -> Result<Self, TemplateError> {
        let (body, defined) = parse::parse(text, functions)?;
        Ok(Self(Arc::new(Parsed { body, defined })))
    }

    /// The text for a job.
    ///
    /// # Errors
    /// A field that there is not, or one of something that is unset.
    pub fn for_job(&self, job: &ProwJob) -> Result<String, TemplateError> {
        let value =
            serde_json::to_value(job).map_err(|e| TemplateError::Execution(e.to_string()))?;
        exec::execute(&self.0, "ProwJob", &value)
    }

    /// The text for a pull request.
    ///
    /// # Errors
    /// A field that there is not.
    pub fn for_pull(&self, pull: &TemplatePull<'_>) -> Result<String, TemplateError> {
        let value = serde_json::json!({
            "NameWithOwner": format!("{}/{}", pull.org, pull.repo),
            "Org": pull.org,
            "Repo": pull.repo,
            "Number": pull.number,
            "Title": pull.title,
            "Body": pull.body,
            "AuthorLogin": pull.author_login,
            "BaseRefName": pull.base_ref_name,
            "HeadRefName": pull.head_ref_name,
            "HeadRefOID": pull.head_ref_oid,
        });
        self.for_value("CodeReviewCommon", &value)
    }

    /// The text that welcomes the author of a first pull request. Prow makes it with `html/template`: comments of HTML are
    /// left out, in the template alone, because what is put in are names that need no escaping anywhere in HTML.
    ///
    /// # Errors
    /// A field that there is not, or a comment without an end.
    pub fn for_newcomer(
        &self,
        org: &str,
        repo: &str,
        login: &str,
        name: &str,
    ) -> Result<String, TemplateError> {
        let value = serde_json::json!({
            "Org": org,
            "Repo": repo,
            "AuthorLogin": login,
            "AuthorName": name,
        });
        without_comments(&self.for_value("PRInfo", &value)?)
    }

    fn for_value(&self, type_name: &'static str, value: &Value) -> Result<String, TemplateError> {
        exec::execute(&self.0, type_name, value)
    }
}

/// HTML without its comments.
fn without_comments(html: &str) -> Result<String, TemplateError> {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, comment)) = rest.split_once("<!--") {
        text.push_str(before);
        let Some((_, after)) = comment.split_once("-->") else {
            let why = "it ends in a comment: there is a <!-- without its -->";
            return Err(TemplateError::Execution(why.to_owned()));
        };
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> ProwJob {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {
                "type": "presubmit", "job": "unit", "max_concurrency": 2,
                "refs": {"org": "o", "repo": "r", "base_sha": "0123456789abcdef",
                         "pulls": [{"number": 7, "author": "al", "sha": "s"}, {"number": 8, "author": "bo", "sha": "t"}]},
            },
            "status": {"startTime": null, "state": "success", "build_id": "42"},
        }))
        .unwrap()
    }

    fn render(text: &str) -> String {
        match Template::parse(text).and_then(|template| template.for_job(&job())) {
            Ok(text) => text,
            Err(e) => format!("error: {e}"),
        }
    }

    #[test]
    fn cfg_029_templates_of_the_wild() {
        let link = r#"{{if eq .Spec.Type "presubmit"}}pr-logs/pull{{else if eq .Spec.Type "batch"}}batch{{else}}logs{{end}}{{if .Spec.Refs}}{{if ne .Spec.Refs.Org ""}}{{if ne .Spec.Refs.Org "kubernetes"}}/{{.Spec.Refs.Org}}_{{.Spec.Refs.Repo}}{{end}}{{end}}{{end}}/{{with index .Spec.Refs.Pulls 0}}{{.Number}}{{end}}/{{.Spec.Job}}/{{.Status.BuildID}}/"#;
        insta::assert_snapshot!(render(link), @"pr-logs/pull/o_r/7/unit/42/");
        insta::assert_snapshot!(render(r#"{{range $i, $p := .Spec.Refs.Pulls}}{{if $i}}, {{end}}#{{$p.Number}} by {{.Author}}{{end}}"#), @"#7 by al, #8 by bo");
        insta::assert_snapshot!(render(r#"{{printf "%.7s %q %d" .Spec.Refs.BaseSHA .Spec.Job .Spec.MaxConcurrency}}"#), @r#"0123456 "unit" 2"#);
        insta::assert_snapshot!(render("a {{- /* note */ -}} b {{- \" c\" -}} \n d"), @"ab cd");
        insta::assert_snapshot!(render(r#"{{if and .Spec.Refs (not .Spec.Hidden) (gt (len .Spec.Refs.Pulls) 1)}}yes{{end}}"#), @"yes");
        insta::assert_snapshot!(render(r#"{{.Name}} {{.ObjectMeta.Labels.a}} {{index .Labels "x"}}{{.Labels.x}}"#), @"n b <no value>");
        insta::assert_snapshot!(render(r#"{{range .Spec.ExtraRefs}}x{{else}}none{{end}}{{with .Spec.DecorationConfig}}x{{else}} at all{{end}}"#), @"none at all");
        insta::assert_snapshot!(render(r#"{{define "x"}}<{{.}}>{{end}}{{template "x" .Spec.Job}}"#), @"<unit>");
        insta::assert_snapshot!(render(r#"{{$x := "a"}}{{if true}}{{$x = "b"}}{{end}}{{$x | printf "%s%s" "z"}}"#), @"zb");
    }

    #[test]
    fn cfg_029_what_go_refuses() {
        insta::assert_snapshot!(render("{{.Nope}}"), @"error: can't evaluate field Nope in type ProwJob");
        insta::assert_snapshot!(render("{{.Spec.DecorationConfig.Timeout}}"), @"error: nil pointer evaluating DecorationConfig.Timeout");
        insta::assert_snapshot!(render("a\n{{nofunc}}"), @r#"error: line 2: function "nofunc" not defined"#);
        insta::assert_snapshot!(render("{{.Spec"), @"error: line 1: unclosed action");
        insta::assert_snapshot!(render("{{if .Spec}}x"), @"error: line 1: unexpected EOF");
        insta::assert_snapshot!(render("{{end}}"), @"error: line 1: unexpected {{end}}");
        insta::assert_snapshot!(render("{{$x}}"), @r#"error: line 1: undefined variable "$x""#);
        insta::assert_snapshot!(render("{{index .Spec.Refs.Pulls 5}}"), @"error: error calling index: index out of range: 5");
        insta::assert_snapshot!(render(r#"{{eq .Spec.Job 1}}"#), @"error: error calling eq: incompatible types for comparison");
    }

    #[test]
    fn merge_commits() {
        let template = Template::parse("{{ .Title }} (#{{ .Number }})").unwrap();
        let pull = TemplatePull {
            title: "Fix",
            number: 5,
            ..TemplatePull::default()
        };
        assert_eq!(template.for_pull(&pull).unwrap(), "Fix (#5)");
        // Fields of forks parse; they fail when used.
        let template =
            Template::parse(r#"{{- $n := .ExtractContent "(?im)^x" .Body -}}{{$n}}"#).unwrap();
        assert!(template.for_pull(&pull).is_err());
    }
}
