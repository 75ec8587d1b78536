//! What it costs in requests to GitHub when a pull request is opened, found good and approved under kubernetes' plugins,
//! beside what the same costs Prow behind ghproxy.
//!
//! A request is whatever reaches GitHub: one that is answered "not modified" costs no quota, and is one nevertheless.
//! Prow's are counted in its favour: of one delivery, all its plugins ask the same question at the same moment and share
//! one answer, as ghproxy makes of equal questions that are under way. Only those ask again that sleep first, and those
//! that handle another delivery. Both sides pay for what follows: our own labels and comments come back as events. What
//! git fetches is counted apart, and what is asked for by the clock (repairs, needs-rebase's scan) not at all. In neither
//! do those ask GitHub for anything here that hear none of these texts (cat, dog, goose, pony, golint, sigmention,
//! trick-or-treat, yuks), nor does testfreeze, which asks elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap, and say what they found"
)]

mod stage;

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::{encoding::text::encode, registry::Registry};
use stage::{Setup, Stage};
use trireme_sandbox::world::{Pr, World};

/// What kubernetes/kubernetes has on in `../shared/corpus`: its org's, then its own.
const PLUGINS: &str = "approve assign blunderbuss cat cla dog golint goose heart help hold invalidcommitmsg \
    issue-management label lgtm lifecycle milestoneapplier owners-label pony retitle shrug sigmention size skip slackevents \
    testfreeze trick-or-treat trigger verify-owners welcome wip yuks \
    blockade cherry-pick-approved cherry-pick-unapproved mergecommitblocker milestone milestonestatus override release-note \
    require-matching-label";

/// The sections of kubernetes' plugins.yaml that matter to kubernetes/kubernetes, shortened.
const SECTIONS: &str = "
external_plugins: {kubernetes: [{name: needs-rebase, events: [issue_comment, pull_request]}]}
approve: [{repos: [kubernetes/kubernetes], require_self_approval: false}]
blockades: [{repos: [kubernetes/kubernetes], blockregexps: ['^examples/'], explanation: examples have moved}]
blunderbuss: {max_request_count: 2, use_status_availability: true}
cherry_pick_approved: [{org: kubernetes, repo: kubernetes, approvers: [approver]}]
cherry_pick_unapproved: {comment: Not approved.}
heart: {adorees: [mirandachrist], commentregexp: '.*'}
lgtm: [{repos: [kubernetes/kubernetes], store_tree_hash: true}]
milestone_applier: {kubernetes/kubernetes: {main: v1.37}}
require_matching_label:
- {missing_label: do-not-merge/needs-kind, org: kubernetes, repo: kubernetes, prs: true, regexp: ^kind/}
- {missing_label: do-not-merge/needs-sig, org: kubernetes, repo: kubernetes, prs: true, regexp: ^(sig|wg|committee)/}
- {missing_label: needs-triage, org: kubernetes, repo: kubernetes, issues: true, prs: true, regexp: ^triage/, missing_comment: Awaiting triage.}
- {missing_label: needs-priority, org: kubernetes, repo: kubernetes, prs: true, regexp: ^priority/}
size: {s: 10, m: 30, l: 100, xl: 500, xxl: 1000}
triggers: [{repos: [kubernetes], join_org_url: 'https://join', only_org_members: true}]
welcome: [{repos: [kubernetes], message_template: 'Welcome @{{.AuthorLogin}}!'}]
";

const CONFIG: &str = "presubmits: {kubernetes/kubernetes: [
    {name: unit, always_run: true, spec: {containers: [{image: x}]}},
    {name: pkg, run_if_changed: ^pkg/, spec: {containers: [{image: x}]}}]}";

/// Plugins that share it, the request, why it is made, and where in Prow's source (`pkg/plugins/` unless it says else).
type Request = (&'static str, &'static str, &'static str, &'static str);

const OPENED: &[Request] = &[
    // The delivery itself, the pull request's text as a comment included.
    (
        "approve trigger welcome",
        "GET user",
        "who the bot is; once for a process",
        "pkg/github/client.go:getUserData",
    ),
    (
        "approve blunderbuss owners-label trigger",
        "GET git/refs/heads/main",
        "OWNERS and jobs of the base",
        "pkg/repoowners/repoowners.go:LoadRepoOwners, trigger/pull-request.go:handlePR",
    ),
    (
        "approve blunderbuss owners-label",
        "GET collaborators",
        "only those may be in OWNERS",
        "pkg/repoowners/repoowners.go:LoadRepoOwnersSha",
    ),
    (
        "approve blockade blunderbuss heart owners-label size trigger verify-owners",
        "GET pulls/1/files",
        "what is changed",
        "approve/approve.go:handle, trigger/pull-request.go:buildAll, …",
    ),
    (
        "approve blockade invalidcommitmsg label mergecommitblocker owners-label release-note size verify-owners wip",
        "GET issues/1/labels",
        "what is on it",
        "approve/approve.go:handle, wip/wip-label.go:handlePullRequest, …",
    ),
    (
        "approve invalidcommitmsg release-note",
        "GET issues/1/comments",
        "approvals, and old texts of the bot",
        "approve/approve.go:handle, pkg/commentpruner/commentpruner.go:PruneComments",
    ),
    (
        "approve",
        "GET pulls/1/comments",
        "approvals",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "GET pulls/1/reviews",
        "approvals",
        "approve/approve.go:handle",
    ),
    (
        "invalidcommitmsg",
        "GET pulls/1/commits",
        "their messages",
        "invalidcommitmsg/invalidcommitmsg.go:handle",
    ),
    (
        "size",
        "GET contents/.generated_files",
        "what does not count",
        "pkg/genfiles/genfiles.go:NewGroup",
    ),
    (
        "size",
        "GET contents/.gitattributes",
        "what does not count",
        "size/size.go:handlePR",
    ),
    (
        "trigger welcome",
        "GET orgs/kubernetes/members/author",
        "whether the author is trusted",
        "trigger/trigger.go:TrustedUser",
    ),
    (
        "label owners-label",
        "GET labels",
        "which labels there are",
        "label/label.go:handleComment, owners-label/owners-label.go:handle",
    ),
    (
        "blunderbuss",
        "POST graphql",
        "whether the first reviewer is busy; never cached",
        "pkg/reviewer/reviewer.go:IsUserBusy",
    ),
    (
        "blunderbuss",
        "POST graphql",
        "whether the second is",
        "pkg/reviewer/reviewer.go:IsUserBusy",
    ),
    (
        "blunderbuss",
        "POST pulls/1/requested_reviewers",
        "asks both",
        "blunderbuss/blunderbuss.go:handle",
    ),
    (
        "approve",
        "POST issues/1/comments",
        "[APPROVALNOTIFIER]",
        "approve/approve.go:handle",
    ),
    (
        "label",
        "POST issues/1/labels",
        "kind/bug",
        "label/label.go:handleComment",
    ),
    (
        "release-note",
        "POST issues/1/labels",
        "release-note-none",
        "releasenote/releasenote.go:handlePR",
    ),
    (
        "size",
        "POST issues/1/labels",
        "size/XS",
        "size/size.go:handlePR",
    ),
    (
        "owners-label",
        "POST issues/1/labels",
        "sig/node",
        "owners-label/owners-label.go:handle",
    ),
    // After five seconds of sleep.
    (
        "needs-rebase require-matching-label",
        "GET issues/1/labels",
        "what is on it by now",
        "require-matching-label/require-matching-label.go:handle, cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "whether it merges; the first answer tells, at best",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "require-matching-label",
        "POST issues/1/labels",
        "needs-triage",
        "require-matching-label/require-matching-label.go:handle",
    ),
    (
        "require-matching-label",
        "POST issues/1/comments",
        "why",
        "require-matching-label/require-matching-label.go:handle",
    ),
    (
        "require-matching-label",
        "POST issues/1/labels",
        "needs-priority",
        "require-matching-label/require-matching-label.go:handle",
    ),
    // What follows: each label, review request and comment is a delivery of its own.
    (
        "trigger",
        "GET git/refs/heads/main",
        "kind/bug was put on: asked before the action is looked at",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "release-note-none was put on",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "size/XS was put on",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "sig/node was put on",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "needs-triage was put on",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "needs-priority was put on",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "a review was requested",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "another review was requested",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "release-note",
        "GET issues/1/labels",
        "release-note-none was put on",
        "releasenote/releasenote.go:handlePR",
    ),
    (
        "release-note",
        "GET issues/1/comments",
        "release-note-none was put on",
        "pkg/github/client.go:DeleteStaleComments",
    ),
    (
        "require-matching-label",
        "GET issues/1/labels",
        "kind/bug was put on",
        "require-matching-label/require-matching-label.go:handle",
    ),
    (
        "require-matching-label",
        "GET issues/1/labels",
        "sig/node was put on",
        "require-matching-label/require-matching-label.go:handle",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "approve has commented",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:HandleIssueCommentEvent",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "the same, after five seconds",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "needs-rebase",
        "GET issues/1/labels",
        "the same",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "require-matching-label has commented",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:HandleIssueCommentEvent",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "the same, after five seconds",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "needs-rebase",
        "GET issues/1/labels",
        "the same",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
];

const LGTM: &[Request] = &[
    (
        "lgtm",
        "GET collaborators/reviewer",
        "whether that counts",
        "lgtm/lgtm.go:handle",
    ),
    (
        "lgtm",
        "POST issues/1/assignees",
        "whoever reviews is assigned",
        "lgtm/lgtm.go:handle",
    ),
    (
        "lgtm",
        "GET issues/1/labels",
        "whether it is there already",
        "lgtm/lgtm.go:handle",
    ),
    (
        "lgtm",
        "POST issues/1/labels",
        "lgtm",
        "lgtm/lgtm.go:handle",
    ),
    (
        "lgtm needs-rebase",
        "GET pulls/1",
        "its head",
        "lgtm/lgtm.go:handle, cmd/external-plugins/needs-rebase/plugin/plugin.go:HandleIssueCommentEvent",
    ),
    (
        "lgtm",
        "GET commits/HEAD",
        "the tree's hash",
        "lgtm/lgtm.go:handle",
    ),
    (
        "lgtm",
        "POST issues/1/comments",
        "the tree's hash",
        "lgtm/lgtm.go:handle",
    ),
    (
        "lgtm",
        "GET issues/1/comments",
        "what was said when lgtm was taken off",
        "pkg/commentpruner/commentpruner.go:PruneComments",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "after five seconds",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "needs-rebase",
        "GET issues/1/labels",
        "after five seconds",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
    // What follows.
    (
        "trigger",
        "GET git/refs/heads/main",
        "somebody was assigned",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET git/refs/heads/main",
        "lgtm was put on",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "trigger",
        "GET orgs/kubernetes/members/author",
        "lgtm was put on: untrusted ones are tested now",
        "trigger/trigger.go:TrustedUser",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "lgtm has commented",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:HandleIssueCommentEvent",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "the same, after five seconds",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "needs-rebase",
        "GET issues/1/labels",
        "the same",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
];

const APPROVE: &[Request] = &[
    (
        "approve needs-rebase",
        "GET pulls/1",
        "its base",
        "approve/approve.go:handleGenericComment",
    ),
    (
        "approve",
        "GET git/refs/heads/main",
        "OWNERS of the base",
        "pkg/repoowners/repoowners.go:LoadRepoOwners",
    ),
    (
        "approve",
        "GET collaborators",
        "only those may be in OWNERS",
        "pkg/repoowners/repoowners.go:LoadRepoOwnersSha",
    ),
    (
        "approve",
        "GET pulls/1/files",
        "what is changed",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "GET issues/1/labels",
        "whether it is approved",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "GET issues/1/comments",
        "approvals",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "GET pulls/1/comments",
        "approvals",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "GET pulls/1/reviews",
        "approvals",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "DELETE issues/comments/ID",
        "the former notification",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "POST issues/1/comments",
        "[APPROVALNOTIFIER]",
        "approve/approve.go:handle",
    ),
    (
        "approve",
        "POST issues/1/labels",
        "approved",
        "approve/approve.go:handle",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "after five seconds",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "needs-rebase",
        "GET issues/1/labels",
        "after five seconds",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
    // What follows.
    (
        "trigger",
        "GET git/refs/heads/main",
        "approved was put on",
        "trigger/pull-request.go:handlePR",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "a comment is gone: no action is told from another",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:HandleIssueCommentEvent",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "the same, after five seconds",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "needs-rebase",
        "GET issues/1/labels",
        "the same",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "approve has commented",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:HandleIssueCommentEvent",
    ),
    (
        "needs-rebase",
        "GET pulls/1",
        "the same, after five seconds",
        "pkg/github/client.go:IsMergeable",
    ),
    (
        "needs-rebase",
        "GET issues/1/labels",
        "the same",
        "cmd/external-plugins/needs-rebase/plugin/plugin.go:handle",
    ),
];

/// Fetches of Prow's: the mirror for OWNERS (pkg/repoowners/repoowners.go:cacheEntryFor), the mirror again and the pull
/// request (mergecommitblocker/mergecommitblocker.go:handle).
const OPENED_FETCHES: usize = 3;

async fn kubernetes() -> Stage {
    let plugins = PLUGINS.split_whitespace().collect::<Vec<_>>().join(", ");
    let stage = Stage::new(Setup {
        world: World::builder()
            .recorded()
            .repo("kubernetes", "kubernetes")
            .member("other")
            .file(
                "OWNERS",
                "approvers: [approver]\nreviewers: [reviewer, other]\n",
            )
            .file("pkg/OWNERS", "labels: [sig/node]\n"),
        config: CONFIG,
        plugins: format!(
            "plugins: {{kubernetes/kubernetes: {{plugins: [{plugins}]}}}}\n{SECTIONS}"
        ),
        ..Setup::default()
    })
    .await;
    stage.world.repo_labels(&[
        "sig/node",
        "kind/bug",
        "release-note-none",
        "needs-triage",
        "needs-priority",
    ]);
    stage
}

/// What was asked and done since it was last told.
struct Counted {
    /// By plugin and what it is about, from the cache or not; `true` for changes.
    by_plugin: BTreeMap<(String, bool, String), u64>,
    /// What reached GitHub, by plugin.
    sent: Vec<(String, String)>,
    fetches: usize,
}

struct Meter {
    registry: Registry,
    before: BTreeMap<(String, bool, String), u64>,
    exchanges: usize,
}

/// The plugin of `trireme.approve/0.1.0`; of what is asked by the clock there is none.
fn plugin(agent: &str) -> Option<&str> {
    let named = agent.split_once('/')?.0;
    Some(named.split_once('.')?.1)
}

impl Meter {
    fn new(stage: &Stage) -> Self {
        let mut registry = Registry::default();
        stage.github_metrics.register(&mut registry);
        Self {
            registry,
            before: BTreeMap::new(),
            exchanges: 0,
        }
    }

    fn read(&mut self, stage: &Stage) -> Counted {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let mut now: BTreeMap<(String, bool, String), u64> = BTreeMap::new();
        for line in text.lines() {
            let Some(line) = line.strip_prefix("ghcache_responses_total{") else {
                continue;
            };
            let (labels, count) = line.rsplit_once("} ").unwrap();
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
                rest.split_once('"').unwrap().0.to_owned()
            };
            let path = label("path");
            // Whoever comes first asks for all.
            if let Some(plugin) = plugin(&label("user_agent")).filter(|_| path != "/user") {
                let path = path.trim_start_matches("/repos/:owner/:repo").to_owned();
                let key = (plugin.to_owned(), label("mode") == "SKIP", path);
                *now.entry(key).or_default() += count.parse::<u64>().unwrap();
            }
        }
        let mut by_plugin = now.clone();
        for (key, count) in &self.before {
            *by_plugin.get_mut(key).unwrap() -= count;
        }
        by_plugin.retain(|_, count| *count > 0);
        self.before = now;
        let exchanges = stage.world.sandbox().exchanges();
        let agent = |n: usize| {
            let mut headers = exchanges[n].request_headers.iter();
            let agent = headers.find(|(name, _)| name == "user-agent");
            agent.map_or("", |(_, agent)| agent.as_str()).to_owned()
        };
        let (mut sent, mut fetches) = (Vec::new(), 0);
        for (n, exchange) in exchanges.iter().enumerate().skip(self.exchanges) {
            let path = exchange
                .path
                .trim_start_matches("/repos/kubernetes/kubernetes");
            let line = format!("{} {path} {}", exchange.method, exchange.status);
            match plugin(&agent(n)) {
                Some(plugin) => sent.push((plugin.to_owned(), line)),
                None if agent(n).starts_with("git/") => {
                    fetches += usize::from(path.ends_with("/info/refs"));
                }
                None => {}
            }
        }
        self.exchanges = exchanges.len();
        Counted {
            by_plugin,
            sent,
            fetches,
        }
    }
}

impl Counted {
    /// What it comes to, for people.
    fn print(&self, what: &str, prow: &[Request]) {
        let (ours, theirs, fetches) = (self.sent.len(), prow.len(), self.fetches);
        println!("{what}: {ours} requests, Prow's {theirs}; {fetches} fetches of git");
        let mut by_plugin: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (plugin, line) in &self.sent {
            by_plugin.entry(plugin).or_default().push(line);
        }
        for (plugin, lines) in by_plugin {
            println!("  {plugin}: {}", lines.join(", "));
        }
    }

    /// Each plugin's questions, from the cache or not, and its changes.
    fn told(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut last = "";
        for ((plugin, changes, path), count) in &self.by_plugin {
            if plugin != last {
                lines.push(format!("{plugin}:"));
                last = plugin;
            }
            let verb = if *changes { "does" } else { "asks" };
            let times = if *count > 1 {
                format!(" x{count}")
            } else {
                String::new()
            };
            let line = lines.last_mut().unwrap();
            line.push_str(&format!(" {verb} {path}{times},"));
        }
        let whole = lines.iter().map(|line| line.trim_end_matches(','));
        whole.collect::<Vec<_>>().join("\n")
    }

    /// No more than Prow's: in all, and for each plugin what it asks and does, whether shared or not.
    fn expect_no_more_than(&self, prow: &[Request]) {
        assert!(self.sent.len() <= prow.len(), "{:#?}", self.sent);
        let mut theirs: BTreeMap<&str, u64> = BTreeMap::new();
        for (plugins, what, ..) in prow {
            for plugin in plugins.split(' ').filter(|_| *what != "GET user") {
                *theirs.entry(plugin).or_default() += 1;
            }
        }
        let mut ours: BTreeMap<&str, u64> = BTreeMap::new();
        for ((plugin, ..), count) in &self.by_plugin {
            *ours.entry(plugin).or_default() += count;
        }
        for (plugin, ours) in ours {
            let theirs = theirs.get(plugin).copied().unwrap_or_default();
            assert!(ours <= theirs, "{plugin}: ours {ours}, Prow's {theirs}");
        }
    }
}

async fn open(stage: &Stage) -> Pr {
    let text = "What it does.\n/kind bug\n\n```release-note\nNONE\n```\n";
    let pr = stage.world.pr("fix").file("pkg/x.go", "package x\n");
    let pr = pr.body(text).opened_by("author").await;
    stage.settled().await;
    pr
}

/// Of issue 5: "opened", "/lgtm" and "/approve" cost no more than Prow's behind ghproxy.
#[tokio::test]
async fn opened_lgtm_and_approve_cost_no_more_than_behind_ghproxy() {
    let stage = kubernetes().await;
    let mut meter = Meter::new(&stage);
    let pr = open(&stage).await;
    let opened = meter.read(&stage);
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    stage.settled().await;
    let lgtm = meter.read(&stage);
    stage.world.comment("approver", &pr, "/approve").await;
    stage.settled().await;
    let approve = meter.read(&stage);
    assert_eq!(
        stage.world.labels(&pr).join(" "),
        "approved kind/bug lgtm needs-priority needs-triage release-note-none sig/node size/XS"
    );
    for (what, counted, prow) in [
        ("opened", &opened, OPENED),
        ("/lgtm", &lgtm, LGTM),
        ("/approve", &approve, APPROVE),
    ] {
        counted.print(what, prow);
        counted.expect_no_more_than(prow);
    }
    assert!(opened.fetches <= OPENED_FETCHES && lgtm.fetches + approve.fetches == 0);
    insta::assert_snapshot!(opened.told(), @r"
    approve: asks /collaborators, asks /git/ref/heads/:var, asks /issues/:var/comments, asks /issues/:var/labels, asks /pulls/:var/comments, asks /pulls/:var/files, asks /pulls/:var/reviews, does /issues/:var/comments
    blockade: asks /issues/:var/labels, asks /pulls/:var/files
    blunderbuss: asks /collaborators, asks /git/ref/heads/:var, asks /graphql x2, asks /pulls/:var/files, does /pulls/:var/requested_reviewers
    heart: asks /pulls/:var/files
    invalidcommitmsg: asks /issues/:var/comments, asks /issues/:var/labels, asks /pulls/:var/commits
    label: asks /issues/:var/labels, asks /labels, does /issues/:var/labels
    mergecommitblocker: asks /issues/:var/labels
    needs-rebase: asks /issues/:var/labels, asks /pulls/:var x3
    owners-label: asks /collaborators, asks /git/ref/heads/:var, asks /issues/:var/labels, asks /labels, asks /pulls/:var/files, does /issues/:var/labels
    release-note: asks /issues/:var/comments x2, asks /issues/:var/labels x2, does /issues/:var/labels
    require-matching-label: asks /issues/:var/labels x3, does /issues/:var/comments, does /issues/:var/labels x2
    size: asks /issues/:var/labels, asks /pulls/:var/files, does /issues/:var/labels
    trigger: asks /git/ref/heads/:var, asks /orgs/:owner/members/:var, asks /pulls/:var/files
    verify-owners: asks /issues/:var/labels, asks /pulls/:var/files
    welcome: asks /orgs/:owner/members/:var
    wip: asks /issues/:var/labels
    ");
    insta::assert_snapshot!(lgtm.told(), @r"
    lgtm: asks /collaborators/:var, asks /commits/:var, asks /issues/:var/comments, asks /issues/:var/labels, asks /pulls/:var, does /issues/:var/assignees, does /issues/:var/comments, does /issues/:var/labels
    needs-rebase: asks /pulls/:var x2
    trigger: asks /orgs/:owner/members/:var
    ");
    insta::assert_snapshot!(approve.told(), @r"
    approve: asks /collaborators, asks /git/ref/heads/:var, asks /issues/:var/comments, asks /issues/:var/labels, asks /pulls/:var, asks /pulls/:var/comments, asks /pulls/:var/files, asks /pulls/:var/reviews, does /issues/:var/comments, does /issues/:var/labels, does /issues/comments/:var
    needs-rebase: asks /pulls/:var x3
    ");
}

#[test]
fn the_plugins_of_the_stories_are_those_of_kubernetes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/corpus/kubernetes/test-infra/config/prow/plugins.yaml"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("no corpus: kubernetes' plugins are not compared");
        return;
    };
    let (_, plugins) = text.split_once("\nplugins:\n").unwrap();
    let of = |name: &str| -> BTreeSet<&str> {
        let (_, list) = plugins
            .split_once(&format!("\n  {name}:\n    plugins:\n"))
            .unwrap();
        let names = list.lines().map_while(|line| line.strip_prefix("    - "));
        names.collect()
    };
    let theirs: BTreeSet<&str> = of("kubernetes")
        .union(&of("kubernetes/kubernetes"))
        .copied()
        .collect();
    let ours: BTreeSet<&str> = PLUGINS.split_whitespace().collect();
    assert_eq!(ours, theirs);
}
