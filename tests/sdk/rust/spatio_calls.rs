//! Makes every call that the published Rust client has, and the mistakes that can be
//! made; `spatio_calls.py` says how it is run.

use std::{collections::HashMap, env, fmt::Debug, io};

use chrono::{DateTime, FixedOffset};
use serde_json::{Value, json};
use spatio_sdk::{
    apis::{
        Error,
        configuration::Configuration,
        personal_access_tokens_api::{
            create_personal_access_token, list_available_pat_scopes, list_personal_access_tokens,
            revoke_personal_access_token, update_personal_access_token, workspace_create_pat,
            workspace_list_pats, workspace_revoke_pat, workspace_update_pat,
        },
    },
    models::{CreatePatRequest, PersonalAccessToken, UpdatePatRequest},
};

const ODD: &str = "nope/../x y";
const UNKNOWN: &str = "0198c0de-0000-7000-8000-00000000000a";
const LATER: &str = "2031-01-02T03:04:05Z";

/// What a refusal says, apart from its sentence for people.
type Refused<'a> = (u16, Option<&'a str>);

const ANONYMOUS: Refused<'_> = (401, Some("CALLER_TOKEN_MISSING"));
const NOT_GOOD: Refused<'_> = (401, Some("CALLER_TOKEN_REFUSED"));
const INVALID: Refused<'_> = (400, Some("INVALID_ARGUMENT"));
const NO_ROLE: Refused<'_> = (403, Some("CALLER_ROLE"));
const MISSING: Refused<'_> = (404, None);

/// That a call was refused, and how.
#[track_caller]
fn refused<T: Debug, E: Debug>(answer: Result<T, Error<E>>, (status, code): Refused<'_>) {
    let Err(Error::ResponseError(said)) = answer else {
        panic!("it is not refused: {answer:?}");
    };
    let body: Value = serde_json::from_str(&said.content).unwrap();
    assert!(body["error"].is_string(), "{body}");
    assert_eq!((said.status.as_u16(), body["code"].as_str()), (status, code), "{body}");
    // Whatever the status is, the client makes an `ApiError` of it and calls it so.
    let entity = format!("{:?}", said.entity);
    assert!(entity.starts_with("Some(Status401(ApiError {"), "{entity}");
}

fn time(text: &str) -> DateTime<FixedOffset> {
    text.parse().unwrap()
}

fn named(name: &str) -> CreatePatRequest {
    CreatePatRequest::new(name.to_owned())
}

fn body(value: Value) -> HashMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let world: Value = serde_json::from_str(&env::var("WORLD").unwrap()).unwrap();
    let text = |pointer: &str| world.pointer(pointer).unwrap().as_str().unwrap();
    let api = |token: Option<&str>| Configuration {
        base_path: text("/base").to_owned(),
        bearer_access_token: token.map(ToOwned::to_owned),
        ..Default::default()
    };
    let (member, outsider) = (&api(Some(text("/token"))), &api(Some(text("/outsider"))));
    let admin = &api(Some(text("/admin")));
    let now = Some(time(text("/now")));
    let by_id = (text("/organization/id"), text("/workspace/id"));
    let by_slug = (text("/organization/slug"), text("/workspace/slug"));
    let before = list_personal_access_tokens(member).await.unwrap().tokens;

    // One's own tokens. What is null is `Some(None)` to this client, or `None` to others.
    let scopes = list_available_pat_scopes(member).await.unwrap().scopes;
    assert_eq!(json!(scopes), world["scopes"]);

    let made = create_personal_access_token(member, named("least")).await.unwrap();
    let (least, least_token) = (*made.pat.unwrap(), made.token);
    let prefix = least.token_prefix.clone().unwrap();
    assert!(least_token.starts_with(&prefix) && prefix.starts_with("pat_"));
    assert_ne!(least_token, prefix);
    let expected = PersonalAccessToken {
        name: Some("least".to_owned()),
        description: Some(String::new()),
        scopes: Some(Vec::new()),
        workspace_id: Some(None),
        created_at: now,
        last_used_at: Some(None),
        expires_at: Some(None),
        ..least.clone()
    };
    assert_eq!(least, expected);

    let request = CreatePatRequest {
        description: Some("all that there is".to_owned()),
        scopes: Some(vec!["read:notes".to_owned()]),
        workspace_id: Some(by_id.1.to_owned()),
        expires_at: Some(time(LATER)),
        ..named("most")
    };
    let made = create_personal_access_token(member, request.clone()).await.unwrap();
    let (mut most, most_token) = (*made.pat.unwrap(), made.token);
    let expected = PersonalAccessToken {
        name: Some(request.name),
        description: request.description,
        scopes: request.scopes,
        workspace_id: Some(request.workspace_id),
        created_at: now,
        last_used_at: Some(None),
        expires_at: Some(request.expires_at),
        ..most.clone()
    };
    assert_eq!(most, expected);

    let listed = list_personal_access_tokens(member).await.unwrap();
    assert_eq!(listed.available_scopes, Some(scopes));
    assert_eq!(listed.tokens.len(), before.len() + 2);
    assert!(listed.tokens.contains(&least) && listed.tokens.contains(&most));

    let update = async |name: Option<&str>, description: Option<&str>| {
        let [name, description] = [name, description].map(|it| it.map(ToOwned::to_owned));
        let request = UpdatePatRequest { name, description };
        update_personal_access_token(member, &most.id.clone(), request).await.unwrap()
    };
    let renamed = update(Some("most of all"), None).await;
    assert_eq!(update(None, None).await, renamed);
    let cleared = update(None, Some("")).await;
    most.name = Some("most of all".to_owned());
    assert_eq!(renamed, most);
    most.description = Some(String::new());
    assert_eq!(cleared, most);

    // Those of a workspace.
    let request = json!({ "name": "bound", "scopes": ["read:notes"], "expiresAt": LATER });
    let made = workspace_create_pat(member, by_id.0, by_id.1, body(request)).await.unwrap();
    assert_eq!(made.len(), 2);
    let bound_token = made["token"].as_str().unwrap().to_owned();
    let mut bound: PersonalAccessToken = serde_json::from_value(made["pat"].clone()).unwrap();
    assert!(bound_token.starts_with(bound.token_prefix.as_deref().unwrap()));
    let expected = PersonalAccessToken {
        name: Some("bound".to_owned()),
        description: Some(String::new()),
        scopes: Some(vec!["read:notes".to_owned()]),
        workspace_id: Some(Some(by_id.1.to_owned())),
        created_at: now,
        last_used_at: Some(None),
        expires_at: Some(Some(time(LATER))),
        ..bound.clone()
    };
    assert_eq!(bound, expected);

    for (org, workspace) in [by_id, by_slug] {
        let listed = workspace_list_pats(member, org, workspace).await.unwrap();
        assert!(listed.len() == 2 && listed["availableScopes"].is_array());
        let tokens: Vec<PersonalAccessToken> =
            serde_json::from_value(listed["tokens"].clone()).unwrap();
        assert_eq!(tokens.len(), 2);
        assert!(tokens.contains(&bound) && tokens.contains(&most));
        assert!(!listed["tokens"].to_string().contains(&bound_token));
    }

    let id = bound.id.clone();
    let update = async |(org, workspace): (&str, &str), changes: Value| {
        let changed = workspace_update_pat(member, org, workspace, &id, body(changes)).await?;
        let changed = serde_json::to_value(changed)?;
        Ok::<PersonalAccessToken, Error<_>>(serde_json::from_value(changed)?)
    };
    bound.name = Some("bound still".to_owned());
    bound.description = Some("d".to_owned());
    let changes = json!({ "name": "bound still", "description": "d" });
    assert_eq!(update(by_slug, changes).await.unwrap(), bound);
    bound.description = Some(String::new());
    assert_eq!(update(by_slug, json!({ "description": "" })).await.unwrap(), bound);
    refused(update(by_id, json!({ "scopes": ["read:notes"] })).await, INVALID);
    assert_eq!(update(by_id, json!({})).await.unwrap(), bound);

    // What nobody may do. None of it makes or changes anything.
    let request = || body(json!({ "name": "n" }));
    let rename = || UpdatePatRequest { name: Some("n".to_owned()), description: None };
    for (caller, how) in [
        (&api(None), ANONYMOUS),
        (&api(Some(text("/unknown"))), NOT_GOOD),
        (&api(Some("pat_")), NOT_GOOD),
    ] {
        refused(list_available_pat_scopes(caller).await, how);
        refused(list_personal_access_tokens(caller).await, how);
        refused(create_personal_access_token(caller, named("n")).await, how);
        refused(update_personal_access_token(caller, &least.id, rename()).await, how);
        refused(revoke_personal_access_token(caller, &least.id).await, how);
        let (org, workspace) = by_id;
        refused(workspace_list_pats(caller, org, workspace).await, how);
        refused(workspace_create_pat(caller, org, workspace, request()).await, how);
        refused(workspace_update_pat(caller, org, workspace, &id, request()).await, how);
        refused(workspace_revoke_pat(caller, org, workspace, &id).await, how);
    }

    let with_scope =
        |scope: &str| CreatePatRequest { scopes: Some(vec![scope.to_owned()]), ..named("n") };
    for request in [
        named(" "),
        with_scope("no scope"),
        with_scope("fly:notes"),
        CreatePatRequest { expires_at: now, ..named("n") },
        CreatePatRequest { expires_at: Some(time("2001-02-03T00:00:00Z")), ..named("n") },
    ] {
        refused(create_personal_access_token(member, request).await, INVALID);
    }
    for (code, request) in [
        ("NOT_A_MEMBER", CreatePatRequest { workspace_id: Some(by_id.1.to_owned()), ..named("n") }),
        ("EXCEEDS_CALLER", with_scope("read:notes")),
    ] {
        refused(create_personal_access_token(outsider, request).await, (403, Some(code)));
    }
    for wrong in [
        json!({}),
        json!({ "name": " " }),
        json!({ "name": 7 }),
        json!({ "name": "n", "expiresAt": "tomorrow" }),
    ] {
        let answer = workspace_create_pat(member, by_slug.0, by_slug.1, body(wrong)).await;
        refused(answer, INVALID);
    }

    for id in [UNKNOWN, ODD, text("/foreign")] {
        let (org, workspace) = by_id;
        refused(update_personal_access_token(member, id, rename()).await, MISSING);
        refused(revoke_personal_access_token(member, id).await, MISSING);
        refused(workspace_update_pat(member, org, workspace, id, request()).await, MISSING);
        refused(workspace_revoke_pat(member, org, workspace, id).await, MISSING);
    }

    for (caller, (org, workspace), how) in [
        (outsider, by_id, NO_ROLE),
        (outsider, by_slug, NO_ROLE),
        // That there is no such workspace is told to administrators alone.
        (member, (by_slug.0, "nowhere"), NO_ROLE),
        (member, ("nobody", by_slug.1), NO_ROLE),
        (admin, (by_slug.0, "nowhere"), MISSING),
        // This client writes `my+org%2Fx`, which is another name.
        (admin, ("my org/x", by_slug.1), MISSING),
        (admin, (by_id.0, ODD), MISSING),
    ] {
        refused(workspace_list_pats(caller, org, workspace).await, how);
        refused(workspace_create_pat(caller, org, workspace, request()).await, how);
        refused(workspace_update_pat(caller, org, workspace, &id, request()).await, how);
        refused(workspace_revoke_pat(caller, org, workspace, &id).await, how);
    }

    let made = json!({ "least": least_token, "most": most_token, "bound": bound_token });
    println!("{made}");
    io::stdin().read_line(&mut String::new()).unwrap();

    revoke_personal_access_token(member, &least.id).await.unwrap();
    workspace_revoke_pat(member, by_slug.0, by_slug.1, &id).await.unwrap();
    refused(revoke_personal_access_token(member, &least.id).await, MISSING);
    refused(workspace_revoke_pat(member, by_id.0, by_id.1, &id).await, MISSING);
    refused(list_available_pat_scopes(&api(Some(&least_token))).await, NOT_GOOD);
    let mut left = list_personal_access_tokens(member).await.unwrap().tokens;
    left.retain(|pat| before.iter().all(|other| other.id != pat.id));
    assert!(left.len() == 1 && left[0].id == most.id);
}
