//! The sandbox's default world, seen through a GitHub client.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use trireme_forge::github::{Credentials, GitHub, GitHubOptions, RetryPolicy, fixed_secret};
use trireme_forge::{Forge, MergeMethod, MergeRequest, RepoId};
use trireme_sandbox::Exchange;
use trireme_sandbox::conformance::Descriptions;
use trireme_sandbox::world::{BOT, ORG, Pr, REPO, World};

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) forge: Arc<dyn Forge>,
    pub(crate) github: Arc<GitHub>,
    pub(crate) repo: RepoId,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let world = World::builder().recorded().start().await.unwrap();
        let sandbox = world.sandbox();
        let token = fixed_secret(sandbox.token_for(BOT));
        let api = sandbox.url().parse().unwrap();
        let retry = RetryPolicy {
            first_wait: Duration::from_millis(5),
            ..Default::default()
        };
        let options = GitHubOptions {
            retry,
            ..GitHubOptions::new(api, Credentials::Token(token))
        };
        assert_eq!(options.graphql.as_str(), sandbox.graphql_url());
        let github = Arc::new(GitHub::new(options).unwrap());
        Self {
            world,
            forge: Arc::clone(&github) as _,
            github,
            repo: RepoId::new(ORG, REPO),
        }
    }

    pub(crate) async fn pr(&self) -> (Pr, u64) {
        let pr = self
            .world
            .pr("fix")
            .title("Fix the widget")
            .body("please")
            .file("docs/a b.md", "hello\n")
            .opened_by("author")
            .await;
        let number = pr.number;
        (pr, number)
    }

    /// Ends the story: nothing that was said on the way may be foreign to GitHub.
    pub(crate) fn done(self) {
        self.done_but(|_| false);
    }

    /// The same, but for requests that GitHub takes and does not describe any more.
    pub(crate) fn done_but(self, old: impl Fn(&Exchange) -> bool) {
        static DESCRIPTIONS: OnceLock<Option<Descriptions>> = OnceLock::new();
        let descriptions = DESCRIPTIONS
            .get_or_init(|| Descriptions::load(&crate::shared::dir()?.join("github")).unwrap());
        let Some(descriptions) = descriptions else {
            return;
        };
        let mut exchanges = self.world.sandbox().exchanges();
        exchanges.retain(|exchange| !old(exchange));
        let wrong = descriptions.judge(&exchanges);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    pub(crate) fn merge_of(&self, pr: &Pr, method: MergeMethod) -> MergeRequest {
        MergeRequest {
            expected_head_sha: self.world.head(pr),
            method,
            title: None,
            message: None,
        }
    }
}
