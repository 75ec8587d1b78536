//! GraphQL: Tide's search, judged by GitHub's schema where it is at hand.

use serde_json::{Value, json};
use trireme_sandbox::FileChange;
use trireme_sandbox::forge::{NewStatus, ReviewState, StatusState};
use trireme_sandbox::world::{BOT, Pr, World};

use crate::support::{Api, descriptions, judge};

/// What Prow's Tide asks of every pull request, with its alias and its inline fragments.
const TIDE: &str = r#"
query ($query: String!, $searchCursor: String) {
  rateLimit { cost remaining }
  search(type: ISSUE, first: 37, after: $searchCursor, query: $query) {
    pageInfo { hasNextPage endCursor }
    nodes {
      ... on PullRequest {
        number
        author { login }
        authorMetadata: author { __typename }
        baseRef { name prefix }
        headRefName
        headRefOid
        mergeable
        mergeStateStatus
        canBeRebased
        repository { name nameWithOwner owner { login } }
        reviewDecision
        isDraft
        commits(last: 4) { nodes { commit {
          status { contexts { context description state } }
          oid
          statusCheckRollup { contexts(last: 100) { nodes { ... on CheckRun { name conclusion status } } } }
        } } }
        labels(first: 100) { nodes { name } }
        milestone { title }
        body
        title
        updatedAt
      }
    }
  }
}"#;

async fn found(api: &Api, query: &str) -> Vec<u64> {
    let answer = api.graphql(TIDE, json!({"query": query})).await;
    assert_eq!(answer["errors"], Value::Null, "{answer}");
    let nodes = answer["data"]["search"]["nodes"].as_array().unwrap();
    let mut numbers: Vec<u64> = nodes.iter().filter_map(|n| n["number"].as_u64()).collect();
    numbers.sort_unstable();
    numbers
}

fn status(context: &str, state: StatusState) -> NewStatus {
    NewStatus {
        state,
        context: context.into(),
        description: Some("Job succeeded. BaseSHA:x".into()),
        target_url: None,
    }
}

#[tokio::test]
async fn tides_query_is_answered_as_github_answers_it() {
    let clock = trireme_sandbox::Clock::manual("2024-05-01T12:00:00Z".parse().unwrap());
    let world = World::builder()
        .clock(clock)
        .recorded()
        .start()
        .await
        .unwrap();
    let pr = world
        .pr("fix")
        .title("Fix it")
        .body("Please")
        .opened_by("author")
        .await;
    world.label(BOT, &pr, "lgtm").await;
    let bot = world.user(BOT);
    bot.review(world.repo(), pr.number, ReviewState::Approved, "", &[])
        .unwrap();
    let head = world.head(&pr);
    bot.set_status(world.repo(), &head, status("ci/x", StatusState::Success))
        .await
        .unwrap();
    world
        .sandbox()
        .set_check_run(world.repo(), &head, "build", "completed", Some("success"))
        .unwrap();
    let api = Api::of(&world, BOT);
    let answer = api
        .graphql(
            TIDE,
            json!({"query": "is:pr state:open repo:\"acme/widget\" label:\"lgtm\""}),
        )
        .await;
    let shown = serde_json::to_string_pretty(&answer)
        .unwrap()
        .replace(&head, "<head>");
    insta::assert_snapshot!(shown, @r#"
    {
      "data": {
        "rateLimit": {
          "cost": 1,
          "remaining": 4999
        },
        "search": {
          "pageInfo": {
            "hasNextPage": false,
            "endCursor": "Y3Vyc29yOjE="
          },
          "nodes": [
            {
              "number": 1,
              "author": {
                "login": "author"
              },
              "authorMetadata": {
                "__typename": "User"
              },
              "baseRef": {
                "name": "main",
                "prefix": "refs/heads/"
              },
              "headRefName": "fix",
              "headRefOid": "<head>",
              "mergeable": "MERGEABLE",
              "mergeStateStatus": "CLEAN",
              "canBeRebased": true,
              "repository": {
                "name": "widget",
                "nameWithOwner": "acme/widget",
                "owner": {
                  "login": "acme"
                }
              },
              "reviewDecision": "APPROVED",
              "isDraft": false,
              "commits": {
                "nodes": [
                  {
                    "commit": {
                      "status": {
                        "contexts": [
                          {
                            "context": "ci/x",
                            "description": "Job succeeded. BaseSHA:x",
                            "state": "SUCCESS"
                          }
                        ]
                      },
                      "oid": "<head>",
                      "statusCheckRollup": {
                        "contexts": {
                          "nodes": [
                            {
                              "name": "build",
                              "conclusion": "SUCCESS",
                              "status": "COMPLETED"
                            },
                            {}
                          ]
                        }
                      }
                    }
                  }
                ]
              },
              "labels": {
                "nodes": [
                  {
                    "name": "lgtm"
                  }
                ]
              },
              "milestone": null,
              "body": "Please",
              "title": "Fix it",
              "updatedAt": "2024-05-01T12:00:00Z"
            }
          ]
        }
      }
    }
    "#);
    judge(&world, &[]);
}

#[tokio::test]
async fn the_terms_of_a_search_narrow_it() {
    let world = World::start().await;
    let other = trireme_sandbox::forge::RepoName::new("acme", "gadget");
    world
        .add_repo(&other, vec![FileChange::write("README.md", "x\n")])
        .await;
    world
        .push(BOT, "release", vec![FileChange::write("r", "r\n")])
        .await;
    let first = world.pr("one").opened_by("author").await;
    let second = world.pr("two").base("release").opened_by("reviewer").await;
    let third = world.pr("three").draft().opened_by("author").await;
    let _elsewhere = world.at(other).pr("four").opened_by("author").await;
    let label = async |pr: &Pr, name: &str| world.label(BOT, pr, name).await;
    label(&first, "lgtm").await;
    label(&second, "lgtm").await;
    label(&second, "do-not-merge/hold").await;
    label(&third, "Kind/Bug").await;
    world
        .user(BOT)
        .open_issue(world.repo(), "An issue", None, &["lgtm".into()])
        .unwrap();
    let api = Api::of(&world, BOT);
    let here = "is:pr state:open archived:false repo:\"acme/widget\"";
    for (terms, expected) in [
        ("", vec![1, 2, 3]),
        ("label:\"lgtm\"", vec![1, 2]),
        ("label:lgtm -label:\"do-not-merge/hold\"", vec![1]),
        ("label:\"kind/bug\"", vec![3]),
        ("label:\"kind/bug\",\"do-not-merge/hold\"", vec![2, 3]),
        ("base:\"release\"", vec![2]),
        ("base:\"release\" base:\"main\"", vec![1, 2, 3]),
        ("-base:\"release\"", vec![1, 3]),
        ("author:\"reviewer\"", vec![2]),
        ("draft:true", vec![3]),
        ("is:closed", vec![]),
        ("updated:>=2000-01-01T00:00:00Z", vec![1, 2, 3]),
        ("updated:*..2000-01-01T00:00:00Z", vec![]),
        ("-repo:\"acme/widget\"", vec![]),
    ] {
        assert_eq!(
            found(&api, &format!("{here} {terms}")).await,
            expected,
            "{terms}"
        );
    }
    assert_eq!(
        found(&api, "is:pr org:\"acme\" -repo:\"acme/widget\"").await,
        [1]
    );
    assert_eq!(found(&api, "is:pr org:\"acme\"").await, [1, 1, 2, 3]);
    let outsider = Api::of(&world, "outsider");
    world
        .sandbox()
        .change(|forge| {
            forge.repo_mut(world.repo())?.private = true;
            Ok(())
        })
        .unwrap();
    assert_eq!(found(&outsider, here).await, Vec::<u64>::new());
}

#[tokio::test]
async fn a_search_is_walked_page_by_page() {
    let world = World::start().await;
    for branch in ["a", "b", "c"] {
        world.pr(branch).opened_by("author").await;
    }
    let api = Api::of(&world, BOT);
    let query = "query($after: String) { search(type: ISSUE, first: 2, after: $after, query: \"is:pr sort:created-asc\") { issueCount pageInfo { hasNextPage endCursor } edges { node { ... on PullRequest { number } } } } }";
    let first = api.graphql(query, json!({})).await;
    let search = &first["data"]["search"];
    assert_eq!(search["issueCount"], 3);
    assert_eq!(
        search["edges"],
        json!([{"node": {"number": 1}}, {"node": {"number": 2}}])
    );
    assert_eq!(search["pageInfo"]["hasNextPage"], true);
    let second = api
        .graphql(query, json!({"after": search["pageInfo"]["endCursor"]}))
        .await;
    let search = &second["data"]["search"];
    assert_eq!(search["edges"], json!([{"node": {"number": 3}}]));
    assert_eq!(search["pageInfo"]["hasNextPage"], false);
}

#[tokio::test]
async fn fragments_variables_and_directives_are_honoured() {
    let world = World::start().await;
    world.pr("a").opened_by("author").await;
    let api = Api::of(&world, BOT);
    let query = r#"
        query Q($with: Boolean!, $n: Int = 5) {
          me: viewer { login @include(if: $with) __typename }
          hits: search(type: ISSUE, first: $n, query: "is:pr") { nodes { ...Pr } }
        }
        fragment Pr on PullRequest { n: number, title @skip(if: $with) }"#;
    let answer = api.graphql(query, json!({"with": false})).await;
    assert_eq!(
        answer["data"],
        json!({"me": {"__typename": "User"}, "hits": {"nodes": [{"n": 1, "title": "a"}]}})
    );
}

#[tokio::test]
async fn errors_have_githubs_shape() {
    let world = World::start().await;
    let api = Api::of(&world, BOT);
    let mut told = Vec::new();
    for query in [
        "{ nonsense }",
        "{ search(type: ISSUE, query: \"x\") { issueCount } }",
        "{ search(type: ISSUE, query: \"x\", first: 200) { issueCount } }",
        "{ repository(owner: \"o\", name: \"r\") { name } }",
        "{ viewer { login }",
        "",
    ] {
        let answer = api.graphql(query, json!({})).await;
        told.push(format!("{query}\n{answer}"));
    }
    let anonymous = Api::anonymous(&world)
        .post("/graphql", json!({"query": "{ viewer { login } }"}))
        .await;
    told.push(format!(
        "anonymous: {} {}",
        anonymous.status, anonymous.body["message"]
    ));
    insta::assert_snapshot!(told.join("\n\n"), @r#"
    { nonsense }
    {"errors":[{"path":["query"],"extensions":{"code":"undefinedField","typeName":"Query","fieldName":"nonsense"},"message":"Field 'nonsense' doesn't exist on type 'Query'","locations":[{"line":1,"column":3}]}]}

    { search(type: ISSUE, query: "x") { issueCount } }
    {"data":null,"errors":[{"type":"MISSING_PAGINATION_BOUNDARIES","path":["search"],"locations":[{"line":1,"column":3}],"message":"You must provide a `first` or `last` value to properly paginate the `search` connection."}]}

    { search(type: ISSUE, query: "x", first: 200) { issueCount } }
    {"data":null,"errors":[{"type":"EXCESSIVE_PAGINATION","path":["search"],"locations":[{"line":1,"column":3}],"message":"Requesting 200 records on the `search` connection exceeds the `first` limit of 100 records."}]}

    { repository(owner: "o", name: "r") { name } }
    {"data":{"repository":null},"errors":[{"type":"NOT_FOUND","path":["repository"],"locations":[{"line":1,"column":3}],"message":"Could not resolve to a Repository with the name 'o/r'."}]}

    { viewer { login }
    {"errors":[{"message":"syntax error: expected R_CURLY, got EOF","locations":[{"line":1,"column":19}]}]}


    {"errors":[{"message":"A query attribute must be specified and must be a string."}]}

    anonymous: 401 "This endpoint requires you to be authenticated."
    "#);
}

/// What the sandbox serves is a part of what GitHub serves: same fields, same types.
#[test]
fn the_schema_served_is_a_part_of_githubs() {
    use apollo_compiler::schema::ExtendedType;
    let Some(descriptions) = descriptions() else {
        return;
    };
    let whole = descriptions.graphql_schema();
    let served = include_str!("../../src/graphql/schema.graphql");
    let served = apollo_compiler::Schema::parse_and_validate(served, "served.graphql").unwrap();
    let mut wrong = Vec::new();
    for (name, kind) in &served.types {
        if kind.is_built_in() {
            continue;
        }
        let Some(real) = whole.types.get(name) else {
            wrong.push(format!("type {name}"));
            continue;
        };
        let fields = |kind: &ExtendedType| match kind {
            ExtendedType::Object(object) => object.fields.clone(),
            ExtendedType::Interface(interface) => interface.fields.clone(),
            _ => Default::default(),
        };
        let real = fields(real);
        for (field, definition) in fields(kind) {
            let same = real.get(&field).is_some_and(|r| {
                r.ty == definition.ty
                    && definition
                        .arguments
                        .iter()
                        .all(|a| r.argument_by_name(&a.name).is_some_and(|b| a.ty == b.ty))
            });
            if !same {
                wrong.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
