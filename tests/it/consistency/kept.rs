//! In one process: what is kept of an answer is seen never to outlive a change.

use std::sync::atomic::{AtomicU32, Ordering};

use token_authority::{
    domain::{Pepper, Token},
    proto::v1::{BatchVerifyRequest, batch_verify_result::Result as Answered},
    verifier::{Came, LookedUp},
};
use tonic::Code;

use super::*;
use crate::support::{
    on_both_stores,
    server::{refused, unknown_token},
    wait::until,
};

on_both_stores![
    change_is_seen_by_the_next_call_though_the_answer_was_kept,
    what_was_undone_is_seen_by_the_next_call,
    caller_that_loses_its_right_is_refused_by_the_next_call,
    everybodys_tokens_are_revoked_by_the_next_call,
    old_secret_is_good_until_the_new_one_is_used_and_never_after,
    rewritten_history_drops_all_that_is_kept,
    memory_is_bounded_and_what_was_dropped_is_answered_right,
];

/// Sees to it that the answer is given from what is kept: the store is changed behind
/// everybody's back, and it does not show.
async fn is_kept(server: &TestServer, by: &Client, user: &str, question: &VerifyRequest) {
    static CHANGED: AtomicU32 = AtomicU32::new(0);
    assert!(ask(by, question).await.unwrap().active);
    // What was read there is given once all is applied that was there.
    server.follow().await;
    assert!(ask(by, question).await.unwrap().active);
    let number = CHANGED.fetch_add(1, Ordering::Relaxed);
    let set = async |to: &str| {
        server.place.sql(&format!("UPDATE users SET external_id = {to} WHERE id = '{user}'")).await;
    };
    set(&format!("'behind:{number}'")).await;
    assert_eq!(ask(by, question).await.unwrap().user_external_id, None, "{question:?}");
    set("NULL").await;
}

async fn change_is_seen_by_the_next_call_though_the_answer_was_kept(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    for (number, change) in Change::ALL.into_iter().enumerate() {
        let subject = Subject::of(change, &by, &format!("of{number}")).await;
        is_kept(&server, &by, &subject.user, &subject.question).await;
        subject.change(&by).await;
        let told = ask(&by, &subject.question).await.unwrap();
        assert!(change.is_seen(&told), "{change:?}: {told:?}");
        // The same by the other ways to ask.
        let batch = BatchVerifyRequest {
            requests: vec![subject.question.clone(); 2],
            ..Default::default()
        };
        for result in by.verification().batch_verify(batch).await.unwrap().into_inner().results {
            let Some(Answered::Response(told)) = result.result else { panic!("{result:?}") };
            assert!(change.is_seen(&told), "{change:?}: {told:?}");
        }
    }
    server.stop().await;
}

async fn what_was_undone_is_seen_by_the_next_call(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let mut directory = by.directory();
    let Subject { user, workspace, organization, question, .. } =
        Subject::of(Change::WorkspaceDeactivated, &by, "alice").await;
    for _ in 0..2 {
        for is_active in [false, true] {
            let request = UpdateUserRequest {
                user: user.clone(),
                is_active: Some(is_active),
                ..Default::default()
            };
            directory.update_user(request).await.unwrap();
            assert_eq!(ask(&by, &question).await.unwrap().active, is_active, "user");
        }
        for is_active in [false, true] {
            let request = UpdateWorkspaceRequest {
                workspace: workspace.clone(),
                is_active: Some(is_active),
                ..Default::default()
            };
            directory.update_workspace(request).await.unwrap();
            assert_eq!(ask(&by, &question).await.unwrap().active, is_active, "workspace");
        }
        for is_active in [false, true] {
            let request = UpdateOrganizationRequest {
                organization: organization.clone(),
                is_active: Some(is_active),
                ..Default::default()
            };
            directory.update_organization(request).await.unwrap();
            assert_eq!(ask(&by, &question).await.unwrap().active, is_active, "organization");
        }
    }
    let unbound = token(&by, &user, &[], None).await.token;
    let there =
        VerifyRequest { workspace_id: Some(workspace.clone()), ..super::question(&unbound) };
    for _ in 0..2 {
        assert!(ask(&by, &there).await.unwrap().active);
        server.leave(&user, &workspace).await;
        assert!(!ask(&by, &there).await.unwrap().active);
        server.join(&user, &workspace, "member").await;
    }
    server.stop().await;
}

async fn caller_that_loses_its_right_is_refused_by_the_next_call(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let admin = client(&server);
    let asked = question(&server.admin);

    // An administrator's authorization may ask until its user is none any more.
    let chief = server.administrator("chief").await;
    let made = authorization(&admin, &chief.id, &["all"]).await;
    let by = admin.presenting(&v2(&made));
    for _ in 0..2 {
        ask(&by, &asked).await.unwrap();
    }
    let request =
        UpdateUserRequest { user: chief.id.clone(), is_admin: Some(false), ..Default::default() };
    admin.directory().update_user(request).await.unwrap();
    assert_eq!(ask(&by, &asked).await.unwrap_err().code(), Code::PermissionDenied);

    // A bound verifier learns of unbound tokens as long as their user is a member.
    let Subject { user, workspace, .. } = Subject::of(Change::WorkspaceLeft, &admin, "alice").await;
    let own = token(&admin, &user, &[], None).await.token;
    server.join(&chief.id, &workspace, "admin").await;
    let verifier = token(&admin, &chief.id, &["verify:tokens"], Some(&workspace)).await;
    let by = admin.presenting(&verifier.token);
    for _ in 0..2 {
        assert!(ask(&by, &question(&own)).await.unwrap().active);
        assert!(ask(&by, &question(&own)).await.unwrap().active);
        server.leave(&user, &workspace).await;
        let told = ask(&by, &question(&own)).await.unwrap();
        assert_eq!(told.reason(), Reason::NotFound);
        server.join(&user, &workspace, "guest").await;
    }
    assert!(ask(&by, &question(&own)).await.unwrap().active);
    admin.revoke(&id_of(&verifier)).await.unwrap();
    assert_eq!(refused(ask(&by, &question(&own)).await).0, Code::Unauthenticated);
    server.stop().await;
}

async fn everybodys_tokens_are_revoked_by_the_next_call(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let asked = question(&server.admin);
    for _ in 0..2 {
        assert!(ask(&by, &asked).await.unwrap().active);
    }
    let request = RevokeTokensRequest { target: Some(Target::All(true)), ..Default::default() };
    by.directory().revoke_tokens(request).await.unwrap();
    assert_eq!(ask(&by, &asked).await.unwrap_err().code(), Code::Unauthenticated);
    server.stop().await;
}

async fn old_secret_is_good_until_the_new_one_is_used_and_never_after(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let old = token(&by, &user, &["write:tokens"], None).await;
    is_kept(&server, &by, &user, &question(&old.token)).await;
    let request = RotatePersonalAccessTokenRequest { id: id_of(&old), ..Default::default() };
    let as_itself = by.presenting(&old.token);
    let new = as_itself.tokens().rotate_personal_access_token(request).await.unwrap();
    let new = new.into_inner().token;
    is_kept(&server, &by, &user, &question(&old.token)).await;
    // At once, though nothing of it can be kept before it has taken the other's place.
    assert!(by.verify(&new).await.unwrap().active);
    until("the new one is the current one", Duration::from_secs(5), async || {
        !by.verify(&old.token).await.unwrap().active
    })
    .await;
    for _ in 0..3 {
        assert!(!by.verify(&old.token).await.unwrap().active);
        assert!(by.verify(&new).await.unwrap().active);
    }
    is_kept(&server, &by, &user, &question(&new)).await;
    server.stop().await;
}

/// A backup is restored: the numbers of its revisions are taken a second time.
async fn rewritten_history_drops_all_that_is_kept(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let [lives, dies, other] = {
        let made = async || token(&by, &user, &[], None).await;
        [made().await, made().await, made().await]
    };
    let is_active = async |token: &str| by.verify(token).await.unwrap().active;
    by.revoke(&id_of(&other)).await.unwrap();
    let before = by.revoke(&id_of(&lives)).await.unwrap().revision;
    assert!(!is_active(&lives.token).await && is_active(&dies.token).await);

    let revive = format!("UPDATE credentials SET revoked_at = NULL WHERE id = '{}'", id_of(&lives));
    let kill = format!("UPDATE credentials SET revoked_at = 1 WHERE id = '{}'", id_of(&dies));
    let last = before.split_once('-').unwrap().0;
    let from_kept = || {
        let counts = server.verifier.counts();
        Came::ALL.into_iter().map(|came| counts.answers(came, LookedUp::Kept)).sum::<u64>()
    };
    for (name, rewrite) in [
        ("another change of the same number", "UPDATE revision SET mark = 7".to_owned()),
        (
            "an older head",
            format!(
                "DELETE FROM changes WHERE revision = {last}; UPDATE revision SET \
                 number = {last} - 1, mark = (SELECT mark FROM changes WHERE revision = {last} - 1)"
            ),
        ),
    ] {
        server.follow().await;
        assert!(!is_active(&lives.token).await && is_active(&dies.token).await, "{name}");
        let asked = from_kept();
        assert!(!is_active(&lives.token).await && is_active(&dies.token).await, "{name}");
        assert_eq!(from_kept() - asked, 2, "they are kept: {name}");

        server.place.sql(&format!("BEGIN; {revive}; {kill}; {rewrite}; COMMIT")).await;
        server.clock.sleep(LONGER);
        assert!(is_active(&lives.token).await, "{name}");
        assert!(!is_active(&dies.token).await, "{name}");
        let unreachable = (Code::FailedPrecondition, "REVISION_UNREACHABLE".to_owned());
        let asked = asking(&lives.token, at_least(&before), None);
        assert_eq!(refused(ask(&by, &asked).await), unreachable, "{name}");

        // What comes next has numbers that were taken before.
        if name == "an older head" {
            let again = by.revoke(&id_of(&lives)).await.unwrap().revision;
            assert_eq!(again.split_once('-').unwrap().0, last);
            assert!(!is_active(&lives.token).await);
        } else {
            let restore = format!(
                "UPDATE credentials SET revoked_at = 1 WHERE id = '{}'; \
                 UPDATE credentials SET revoked_at = NULL WHERE id = '{}'; \
                 UPDATE revision SET mark = (SELECT mark FROM changes WHERE revision = {last})",
                id_of(&lives),
                id_of(&dies),
            );
            server.place.sql(&restore).await;
            server.clock.sleep(LONGER);
            assert!(!is_active(&lives.token).await && is_active(&dies.token).await);
        }
    }
    server.stop().await;
}

/// How many tokens are asked about: many times what there is room for.
const MANY: usize = 12_000;

async fn memory_is_bounded_and_what_was_dropped_is_answered_right(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG, "--cache-mib=1"]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let texts: Vec<String> = (0..MANY).map(|_| unknown_token()).collect();
    server.place.sql(&rows_of(engine, &user, &texts)).await;

    let mut told = 0;
    for texts in texts.chunks(1_000) {
        let requests = texts.iter().map(|token| question(token)).collect();
        let request = BatchVerifyRequest { requests, ..Default::default() };
        let answer = by.verification().batch_verify(request).await.unwrap().into_inner();
        for result in answer.results {
            let Some(Answered::Response(answer)) = result.result else { panic!("{result:?}") };
            assert!(answer.active);
            told += 1;
        }
        let bytes = server.verifier.counts().bytes;
        assert!(bytes <= 1024 * 1024 * 5 / 4, "{bytes} bytes");
    }
    assert_eq!(told, MANY);
    let entries = server.verifier.counts().entries;
    assert!((1_000..=MANY / 2).contains(&entries), "{entries}");
    // As good as before: the first ones are gone, the last ones may be there.
    for token in texts.iter().take(3).chain(texts.iter().rev().take(3)) {
        let told = by.verify(token).await.unwrap();
        assert!(told.active);
        by.revoke(&told.token_id).await.unwrap();
        assert_eq!(by.verify(token).await.unwrap().reason(), Reason::Revoked);
    }
    server.stop().await;
}

/// SQL that makes tokens of a user with these texts, as if they had been used before.
fn rows_of(engine: Engine, user: &str, texts: &[String]) -> String {
    let pepper: Pepper = Pepper::to_file(&[7; 32]).parse().unwrap();
    let (before, after) = match engine {
        Engine::Postgres => ("'\\x", "'"),
        Engine::Sqlite => ("X'", "'"),
    };
    let id = |number: usize| format!("'0190a000-0000-7000-8000-{number:012}'");
    let credentials = (0..texts.len()).map(|number| {
        let id = id(number);
        format!(
            "({id}, 'personal_access_token', '{user}', 'n', '', '[]', '[]', '{user}', 0, 0, 0, 0)"
        )
    });
    let secrets = texts.iter().enumerate().map(|(number, text)| {
        let token: Token = text.parse().unwrap();
        let digest = pepper.digest(&token);
        let digest: String = digest.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let (id, pepper) = (id(number), pepper.id().as_str());
        let shown = token.shown();
        format!(
            "({id}, {id}, {before}{digest}{after}, '{pepper}', '$a$b', '{shown}', 'current', 0, 0)"
        )
    });
    let insert = |into: &str, rows: Vec<String>| {
        let statements = rows
            .chunks(1_000)
            .map(|rows| format!("INSERT INTO {into} VALUES {}; ", rows.join(", ")));
        statements.collect::<String>()
    };
    format!(
        "BEGIN; {}{}COMMIT",
        insert(
            "credentials (id, kind, user_id, name, description, scopes, allowed_ips, \
             created_by_user_id, created_at, updated_at, store_epoch, user_epoch)",
            credentials.collect(),
        ),
        insert(
            "secrets (id, credential_id, digest, pepper_id, record, shown, state, created_at, \
             proved_at)",
            secrets.collect(),
        ),
    )
}
