//! `hooks`: webhooks of orgs and repositories made, changed or deleted; Prow's `ghhook` (HOOK-040, HOOK-041).

use clap::Args;
use serde_json::json;
use trireme_forge::{ForgeError, HookOwner, HookSpec, Hooks, RepoId};

use super::{
    ask::note,
    github::{GitHubArgs, usage},
};
use crate::{
    output::{Format, print, print_json, table},
    secrets::Censor,
};

/// Orgs and repositories named in one command.
const MAX_TARGETS: usize = 10_000;

#[derive(Debug, Args)]
pub struct HooksArgs {
    /// Where the webhooks go; a webhook is known by it.
    #[arg(long, value_name = "URL")]
    pub hook_url: String,
    /// An org or a repository; may be given several times.
    #[arg(long = "repo", value_name = "ORG[/REPO]", required = true)]
    pub repos: Vec<String>,
    /// A file with the secret that signs what is sent.
    #[arg(long, value_name = "FILE")]
    pub hmac_path: Option<String>,
    /// The secret itself; other users of this host can see it while the command runs.
    #[arg(long, value_name = "SECRET")]
    pub hmac_value: Option<String>,
    /// An event that is sent; may be given several times.
    #[arg(long = "event", value_name = "EVENT", default_value = "*")]
    pub events: Vec<String>,
    /// Do it; without, only say what would be done.
    #[arg(long)]
    pub confirm: bool,
    /// Delete the webhook.
    #[arg(long)]
    pub delete_webhook: bool,
    #[command(flatten)]
    pub github: GitHubArgs,
    /// text for people, json for programs.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What is to be done to a target, known once its webhooks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Edit(u64),
    Delete(u64),
    /// To be deleted, and not there.
    Absent,
}

impl Step {
    fn did(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Edit(_) => "edited",
            Self::Delete(_) => "deleted",
            Self::Absent => "absent",
        }
    }

    fn would(self) -> &'static str {
        match self {
            Self::Create => "would be created",
            Self::Edit(_) => "would be edited",
            Self::Delete(_) => "would be deleted",
            Self::Absent => "absent",
        }
    }
}

fn owner(text: &str) -> Option<HookOwner> {
    match text.split_once('/') {
        None if !text.trim().is_empty() => Some(HookOwner::Org(text.to_owned())),
        Some(_) => text.parse::<RepoId>().ok().map(HookOwner::Repo),
        None => None,
    }
}

/// What is wanted of whom.
#[derive(Debug)]
struct Wanted {
    owners: Vec<HookOwner>,
    spec: HookSpec,
}

fn wanted(args: &HooksArgs) -> anyhow::Result<Wanted> {
    let given = (args.hmac_path.as_deref(), args.hmac_value.as_deref());
    let given = (
        given.0.filter(|path| !path.is_empty()),
        given.1.filter(|value| !value.is_empty()),
    );
    let secret = match given {
        _ if args.delete_webhook => None,
        (None, None) => {
            return Err(usage(
                "either --hmac-path or --hmac-value must be given: GitHub signs what it sends with it",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(usage("--hmac-path and --hmac-value cannot be given both"));
        }
        (Some(path), None) => {
            let text = std::fs::read_to_string(path)
                .map_err(|why| usage(format!("--hmac-path: cannot read {path}: {why}")))?;
            Some(text.trim().to_owned())
        }
        (None, Some(value)) => Some(value.to_owned()),
    };
    if secret.as_ref().is_some_and(String::is_empty) {
        return Err(usage("--hmac-path: the file is empty"));
    }
    if let Some(secret) = &secret {
        Censor::of_process().hide("--hmac", vec![secret.clone().into_bytes()]);
    }
    let is_web = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if !args.hook_url.parse().is_ok_and(|url| is_web(&url)) {
        let url = &args.hook_url;
        return Err(usage(format!(
            "--hook-url {url:?}: expected http:// or https:// and a host"
        )));
    }
    if args.repos.len() > MAX_TARGETS {
        return Err(usage(format!("--repo: at most {MAX_TARGETS}")));
    }
    let read = |text: &String| {
        owner(text).ok_or_else(|| usage(format!("--repo {text:?}: write it as ORG or ORG/REPO")))
    };
    Ok(Wanted {
        owners: args.repos.iter().map(read).collect::<Result<_, _>>()?,
        spec: HookSpec {
            url: args.hook_url.clone(),
            secret,
            events: args.events.clone(),
            active: true,
        },
    })
}

async fn step(
    forge: &impl Hooks,
    owner: &HookOwner,
    url: &str,
    delete: bool,
) -> Result<Step, ForgeError> {
    let hooks = forge.hooks(owner).await?;
    let found = hooks.iter().find(|hook| hook.url == url);
    Ok(match (found, delete) {
        (None, false) => Step::Create,
        (None, true) => Step::Absent,
        (Some(hook), false) => Step::Edit(hook.id),
        (Some(hook), true) => Step::Delete(hook.id),
    })
}

async fn take(
    forge: &impl Hooks,
    owner: &HookOwner,
    step: Step,
    spec: &HookSpec,
) -> Result<(), ForgeError> {
    match step {
        Step::Create => forge.create_hook(owner, spec).await.map(drop),
        Step::Edit(id) => forge.edit_hook(owner, id, spec).await.map(drop),
        Step::Delete(id) => forge.delete_hook(owner, id).await,
        Step::Absent => Ok(()),
    }
}

/// # Errors
/// When the command line is wrong, or GitHub refuses: what comes after is left as it is.
pub async fn run(args: HooksArgs) -> anyhow::Result<()> {
    let Wanted { owners, spec } = wanted(&args)?;
    let client = args.github.client()?;
    let mut told = Vec::new();
    let mut failed = None;
    for owner in &owners {
        let done = client
            .ask(async |github| {
                let step = step(github, owner, &spec.url, args.delete_webhook).await?;
                if args.confirm {
                    take(github, owner, step, &spec).await?;
                }
                Ok(step)
            })
            .await;
        match done {
            Ok(step) => {
                if step == Step::Absent {
                    note(&format!(
                        "{owner}: there is no webhook to {}, nothing is deleted",
                        spec.url
                    ));
                }
                told.push((owner.to_string(), step));
            }
            Err(why) => {
                failed = Some((owner, client.failed(why)));
                break;
            }
        }
    }
    show(&args, &told)?;
    let left = owners.len() - told.len();
    match failed {
        None => Ok(()),
        Some((owner, why)) => Err(why.context(format!(
            "the webhook of {owner} was not set up, {left} of {} are as they were",
            owners.len()
        ))),
    }
}

fn show(args: &HooksArgs, told: &[(String, Step)]) -> anyhow::Result<()> {
    let word = |step: &Step| match args.confirm {
        true => step.did(),
        false => step.would(),
    };
    if args.output == Format::Json {
        return print_json(&json!({
            "confirmed": args.confirm, "url": args.hook_url,
            "items": told.iter().map(|(owner, step)| json!({ "of": owner, "webhook": step.did() })).collect::<Vec<_>>(),
        }));
    }
    let rows: Vec<Vec<String>> = told
        .iter()
        .map(|(owner, step)| vec![owner.clone(), word(step).to_owned()])
        .collect();
    let mut text = table(&["OF", "WEBHOOK"], &rows);
    if !args.confirm {
        text.push_str("nothing was changed; with --confirm it is\n");
    }
    Ok(print(&text)?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use trireme_forge::{
        Deliveries as _,
        github::{Credentials, GitHub, GitHubOptions, fixed_secret},
    };
    use trireme_sandbox::world::{BOT, ORG, REPO, World};

    use super::*;

    #[derive(clap::Parser)]
    #[command(args_override_self = true)]
    struct Program {
        #[command(flatten)]
        hooks: HooksArgs,
    }

    fn parse(line: &str) -> Result<HooksArgs, String> {
        let words = std::iter::once("hooks").chain(line.split_whitespace());
        let parsed = Program::try_parse_from(words);
        parsed
            .map(|program| program.hooks)
            .map_err(|why| why.to_string())
    }

    /// HOOK-040
    #[test]
    fn hook_040_what_ghhook_refuses_is_refused() {
        let told = |line: &str| match parse(line)
            .and_then(|args| wanted(&args).map_err(|why| why.to_string()))
        {
            Ok(_) => "good".to_owned(),
            Err(why) => why,
        };
        let url = "--hook-url=https://ci/hook --repo=acme --repo=acme/widget";
        assert_eq!(told(&format!("{url} --hmac-value=s")), "good");
        assert_eq!(told(&format!("{url} --delete-webhook")), "good");
        insta::assert_snapshot!(told(url), @"either --hmac-path or --hmac-value must be given: GitHub signs what it sends with it");
        insta::assert_snapshot!(told(&format!("{url} --hmac-value=s --hmac-path=p")), @"--hmac-path and --hmac-value cannot be given both");
        insta::assert_snapshot!(told(&format!("{url} --hmac-value=s --repo=a/b/c")), @r#"--repo "a/b/c": write it as ORG or ORG/REPO"#);
        insta::assert_snapshot!(told("--hook-url=ci --repo=acme --hmac-value=s"), @r#"--hook-url "ci": expected http:// or https:// and a host"#);
        assert!(told("--repo=acme --hmac-value=s").contains("--hook-url"));
        assert!(told("--hook-url=https://ci --hmac-value=s").contains("--repo"));
        let usual = parse(&format!("{url} --hmac-value=s")).unwrap();
        assert_eq!(usual.events, ["*"]);
        assert!(!usual.confirm);
    }

    /// HOOK-041: created, then edited, then deleted, then left alone; a file is trimmed.
    #[tokio::test]
    async fn hook_041_webhooks_are_known_by_their_url() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hmac");
        std::fs::write(&path, "s3cret\n").unwrap();
        let line = format!(
            "--hook-url=https://ci.example/hook --repo={ORG} --repo={ORG}/{REPO} --event=push --hmac-path={}",
            path.display()
        );
        let args = parse(&line).unwrap();
        let Wanted { owners, spec } = wanted(&args).unwrap();
        assert_eq!(spec.secret.as_deref(), Some("s3cret"));
        let world = World::builder().start().await.unwrap();
        let token = world.sandbox().token_for(BOT);
        let api = world.sandbox().url().parse().unwrap();
        let credentials = Credentials::Token(fixed_secret(token));
        let github = GitHub::new(GitHubOptions::new(api, credentials)).unwrap();
        let mut told = Vec::new();
        for delete in [false, false, true, true] {
            for owner in &owners {
                let step = step(&github, owner, &spec.url, delete).await.unwrap();
                take(&github, owner, step, &spec).await.unwrap();
                told.push(step.did());
            }
            let there = github.repo_hooks(&RepoId::new(ORG, REPO)).await.unwrap();
            let ours = there.iter().find(|hook| hook.url == spec.url);
            assert_eq!(ours.is_some(), !delete);
            if let Some(ours) = ours {
                assert_eq!(ours.events, ["push"]);
            }
        }
        let all = [
            "created", "created", "edited", "edited", "deleted", "deleted", "absent", "absent",
        ];
        assert_eq!(told, all);
        world.sandbox().stop();
    }
}
