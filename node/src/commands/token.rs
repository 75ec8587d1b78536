//! `token`.

use serde_json::{Value, json};
use trireme_api::auth::{new_token, role_name};
use trireme_proto::{
    api::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, WhoAmIRequest},
    state::{ApiToken, Role},
};

use super::{connect, now_ms, request_id};
use crate::{
    cli::{Period, RoleArg, Target, TokenCommand},
    output::{Format, age, print, print_json, table},
};

/// # Errors
/// When no node answers or the asker is no operator.
pub async fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create {
            name,
            role,
            expires,
            target,
        } => create(&target, name, role, expires).await,
        TokenCommand::List(target) => list(&target).await,
        TokenCommand::Revoke { id, target } => revoke(&target, id).await,
        TokenCommand::Whoami(target) => whoami(&target).await,
        TokenCommand::Generate => Ok(print(&(new_token() + "\n"))?),
    }
}

fn role(arg: RoleArg) -> Role {
    match arg {
        RoleArg::Viewer => Role::Viewer,
        RoleArg::Submitter => Role::Submitter,
        RoleArg::Operator => Role::Operator,
        RoleArg::Agent => Role::Agent,
    }
}

/// Standard output has the token and nothing else, so that it can go to a file.
async fn create(
    target: &Target,
    name: String,
    arg: RoleArg,
    expires: Option<Period>,
) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let answer = client
        .auth()
        .create_token(CreateTokenRequest {
            name,
            role: role(arg).into(),
            expires_seconds: expires.map_or(0, |period| period.seconds),
        })
        .await?
        .into_inner();
    let token = answer.token.unwrap_or_default();
    if target.output == Format::Json {
        let mut shown = token_json(&token);
        shown["token"] = json!(answer.secret);
        return print_json(&shown);
    }
    print(&format!("{}\n", answer.secret))?;
    #[expect(clippy::print_stderr, reason = "what is said beside the answer")]
    {
        eprintln!(
            "this is the only time it is shown; revoke it with: trireme token revoke {}",
            token.id
        );
    }
    Ok(())
}

async fn list(target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let answer = client
        .auth()
        .list_tokens(ListTokensRequest { read: None })
        .await?
        .into_inner();
    if target.output == Format::Json {
        let items: Vec<Value> = answer.tokens.iter().map(token_json).collect();
        return print_json(&json!({ "items": items }));
    }
    Ok(print(&token_table(&answer.tokens, now_ms()))?)
}

async fn revoke(target: &Target, id: String) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let answer = client
        .auth()
        .revoke_token(RevokeTokenRequest {
            id: id.clone(),
            request_id: request_id(),
        })
        .await?
        .into_inner();
    match target.output {
        Format::Json => print_json(&json!({ "id": id, "revision": answer.revision })),
        Format::Text => Ok(print(&format!("{id} is revoked\n"))?),
    }
}

async fn whoami(target: &Target) -> anyhow::Result<()> {
    let client = connect(target).await?;
    let me = client.auth().who_am_i(WhoAmIRequest {}).await?.into_inner();
    let role = role_name(me.role());
    match target.output {
        Format::Json => print_json(&json!({
            "principal": me.principal, "role": role, "expires_ms": me.expires_ms,
        })),
        Format::Text => Ok(print(&format!("{} ({role})\n", me.principal))?),
    }
}

fn token_json(token: &ApiToken) -> Value {
    json!({
        "id": token.id, "name": token.name, "role": role_name(token.role()),
        "created_ms": token.created_ms, "created_by": token.created_by,
        "expires_ms": (token.expires_ms != 0).then_some(token.expires_ms),
    })
}

fn token_table(tokens: &[ApiToken], now_ms: i64) -> String {
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .map(|token| {
            let expires = match token.expires_ms {
                0 => "never".to_owned(),
                then if then <= now_ms => "expired".to_owned(),
                then => format!("in {}", age(then, now_ms)),
            };
            vec![
                token.name.clone(),
                role_name(token.role()).to_owned(),
                age(now_ms, token.created_ms),
                expires,
                token.created_by.clone(),
                token.id.clone(),
            ]
        })
        .collect();
    table(
        &["NAME", "ROLE", "AGE", "EXPIRES", "CREATED BY", "ID"],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_listed_with_what_becomes_of_them() {
        let now = 10 * 86_400_000;
        let token = |name: &str, expires_ms| ApiToken {
            id: format!("id-{name}"),
            name: name.to_owned(),
            role: Role::Submitter.into(),
            created_ms: now - 120_000,
            created_by: "operator-file".to_owned(),
            expires_ms,
            ..ApiToken::default()
        };
        let tokens = [
            token("a", 0),
            token("b", now + 3 * 86_400_000),
            token("c", now - 1),
        ];
        insta::assert_snapshot!(token_table(&tokens, now), @r"
        NAME  ROLE       AGE  EXPIRES  CREATED BY     ID
        a     submitter  2m   never    operator-file  id-a
        b     submitter  2m   in 3d    operator-file  id-b
        c     submitter  2m   expired  operator-file  id-c
        ");
    }
}
