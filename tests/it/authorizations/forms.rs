use token_authority::proto::v1::{
    TokenKind, api_client_authorizations_client::ApiClientAuthorizationsClient,
};

use super::*;
use crate::support::on_both_stores;

on_both_stores![
    token_is_presented_as_v1_or_v2_wherever_one_is_taken,
    good_token_is_told_whole,
    uuid_that_does_not_fit_its_secret_is_refused_as_unknown,
    malformed_texts_are_refused_alike,
    mismatch_proves_nothing_and_leaves_no_trace,
];

/// `secret` with one character changed.
fn another(secret: &str) -> String {
    let (first, rest) = secret.split_at(1);
    format!("{}{rest}", if first == "0" { "1" } else { "0" })
}

/// Its own token, as a caller with these `authorization` headers gets it.
async fn present(server: &TestServer, header: &str) -> Answer {
    let mut client = ApiClientAuthorizationsClient::new(server.presenting(&[header]));
    let answer = client.get_current_api_client_authorization(Current::default()).await?;
    Ok(answer.into_inner().api_client_authorization.unwrap())
}

async fn token_is_presented_as_v1_or_v2_wherever_one_is_taken(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let secret = alice.token.api_token();
    for text in [
        secret.to_owned(),
        alice.text(),
        format!("{}/", alice.text()),
        format!("{}/zzzzz-dz642-0123456789abcde", alice.text()),
        format!("{}/zzzzz-dz642-0123456789abcde/and//more", alice.text()),
    ] {
        for scheme in ["Bearer", "OAuth2"] {
            let told = present(&server, &format!("{scheme} {text}")).await.unwrap();
            assert_eq!((told.uuid(), told.api_token()), (alice.uuid(), secret), "{scheme}");
        }
        assert_eq!(server.verify(&text).await.token_id, alice.uuid());
    }
}

async fn good_token_is_told_whole(engine: Engine) {
    let server = TestServer::start_with(engine, &["--cluster-id=abc12"]).await;
    let alice = person(&server, "alice").await;
    let request = Create {
        scopes: scopes(&["GET /b", "GET /a/"]),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let made = alice.by.create(request).await.unwrap();
    let answer = server.verify(made.api_token()).await;
    assert!(!answer.revision.is_empty());
    let expected = VerifyResponse {
        active: true,
        token_id: made.uuid().to_owned(),
        kind: TokenKind::ApiClientAuthorization.into(),
        user_id: alice.id.clone(),
        scopes: texts(&["GET /b", "GET /a/"]),
        expires_at: made.expires_at,
        revision: answer.revision.clone(),
        ..Default::default()
    };
    assert_eq!(answer, expected);
    for (kind, is_taken) in [
        (TokenKind::ApiClientAuthorization, true),
        (TokenKind::PersonalAccessToken, false),
        (TokenKind::SystemRoot, false),
    ] {
        let request =
            VerifyRequest { token: v2(&made), kinds: vec![kind.into()], ..Default::default() };
        assert_eq!(ask(&server, request).await.active, is_taken, "{kind:?}");
    }
    let told = who(&server, &v2(&made)).await.unwrap();
    assert_eq!((&*told.token_id, told.kind()), (made.uuid(), TokenKind::ApiClientAuthorization));
    assert_eq!((told.scopes, told.expires_at), (expected.scopes, made.expires_at));
    assert_eq!((told.created_at, told.token_prefix), (made.created_at, None));
}

/// Texts that are well-formed and prove nothing: the uuid or the secret is another's,
/// or nobody's.
fn mismatches(own: &ApiClientAuthorization, other: &ApiClientAuthorization) -> [String; 5] {
    let (uuid, secret) = (own.uuid(), own.api_token());
    [
        another(secret),
        format!("v2/{uuid}/{}", another(secret)),
        format!("v2/{uuid}/{}", other.api_token()),
        format!("v2/{}/{secret}", other.uuid()),
        format!("v2/{UNKNOWN}/{secret}"),
    ]
}

async fn uuid_that_does_not_fit_its_secret_is_refused_as_unknown(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let sibling = alice.by.create(Create::default()).await.unwrap();
    let bob = person(&server, "bob").await;
    let unknown = server.verify(&format!("v2/{UNKNOWN}/{}", "0".repeat(50))).await;
    let expected = VerifyResponse { revision: unknown.revision.clone(), ..not_proved() };
    assert_eq!(unknown, expected);
    assert!(!unknown.revision.is_empty());
    for (own, other) in [(&alice.token, &bob.token), (&alice.token, &sibling)] {
        for text in mismatches(own, other) {
            assert_eq!(server.verify(&text).await, unknown);
            for scheme in ["Bearer", "OAuth2"] {
                let answer = present(&server, &format!("{scheme} {text}")).await;
                assert_eq!(refused(answer), unauthenticated());
            }
        }
    }
}

fn not_proved() -> VerifyResponse {
    VerifyResponse { reason: Reason::NotFound.into(), ..Default::default() }
}

async fn malformed_texts_are_refused_alike(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let (uuid, secret) = (alice.uuid(), alice.token.api_token());
    for text in [
        secret.to_uppercase(),
        secret[1..].to_owned(),
        format!("{secret}0"),
        secret[..40].to_owned(),
        secret[..41].to_owned(),
        format!(" {secret}"),
        format!("{secret} "),
        format!("{secret}/"),
        format!("/{secret}"),
        format!("v1/{secret}"),
        format!("v3/{uuid}/{secret}"),
        format!("V2/{uuid}/{secret}"),
        format!("v2/{uuid}"),
        format!("v2/{uuid}/"),
        format!("v2//{secret}"),
        format!("v2/{uuid}//{secret}"),
        format!("v2/{}/{secret}", uuid.to_uppercase()),
        format!("v2/{}/{secret}", &uuid[1..]),
        format!("v2/{uuid}0/{secret}"),
        format!("v2/{}/{secret}", uuid.replace("gj3su", "tpzed")),
        format!("v2/{uuid}/{}", secret.to_uppercase()),
        format!("v2/{uuid}/{}", &secret[1..]),
        format!("v2/{uuid}/{secret}0"),
        format!("v2/{uuid}/{}", &secret[..40]),
        format!("v2/{uuid}/{} /x", &secret[1..]),
        format!("{uuid}/{secret}"),
        "v2/".to_owned(),
        "v2".to_owned(),
        "/".to_owned(),
        " ".to_owned(),
    ] {
        assert_eq!(server.verify(&text).await, not_proved(), "{text}");
        if text.trim() != text {
            continue; // What surrounds a header's value is no part of it.
        }
        for scheme in ["Bearer", "OAuth2"] {
            let answer = present(&server, &format!("{scheme} {text}")).await;
            assert_eq!(refused(answer), unauthenticated(), "{text}");
        }
    }
}

async fn mismatch_proves_nothing_and_leaves_no_trace(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let used = alice.by.create(Create::default()).await.unwrap();
    let deleted = alice.by.create(Create::default()).await.unwrap();
    alice.by.delete(deleted.uuid()).await.unwrap();
    let kept = server.kept().await;
    for text in mismatches(&used, &deleted).iter().chain(&mismatches(&deleted, &used)) {
        assert_eq!(reason(&server, text).await, Reason::NotFound, "not that one is deleted");
        let answer = present(&server, &format!("Bearer {text}")).await;
        assert_eq!(refused(answer), unauthenticated());
    }
    // What is proved after it is written after it.
    let proved = alice.by.create(Create::default()).await.unwrap();
    assert_eq!(reason(&server, &v2(&proved)).await, Reason::Unspecified);
    crate::support::wait::until("a use is written", Duration::from_secs(10), async || {
        alice.by.get(proved.uuid()).await.unwrap().last_used_at.is_some()
    })
    .await;
    let told = alice.by.get(used.uuid()).await.unwrap();
    assert_eq!(told, without_secret(&used), "a mismatch is no use");
    assert_eq!(reason(&server, &v2(&used)).await, Reason::Unspecified);
    alice.by.delete(proved.uuid()).await.unwrap();
    assert!(server.kept().await > kept);
}
