use super::*;
use crate::support::{on_both_stores, server::exceeded};

on_both_stores![
    none_and_a_later_end_are_cut_to_the_greatest_lifetime,
    end_is_cut_at_an_update_only_if_it_is_what_changes,
    default_lifetime_is_for_requests_that_do_not_say,
    default_lifetime_stays_within_the_greatest_and_within_the_callers,
];

const MAX: &str = "--authorization-max-lifetime=1h";

/// Ends that are asked for, and what comes of them: for regular users, and for
/// administrators.
fn ends(server: &TestServer) -> [(Option<Timestamp>, [Option<Timestamp>; 2]); 6] {
    let max = Some(server.after(HOUR));
    let [soon, later] = [MINUTE, HOUR + Duration::from_micros(1)].map(|it| Some(server.after(it)));
    let past = Some(Timestamp { seconds: 5, nanos: 0 });
    let far = Some(server.after(1_000 * HOUR));
    [
        (None, [max, max]),
        (soon, [soon, soon]),
        (max, [max, max]),
        (later, [max, later]),
        (far, [max, far]),
        (past, [past, past]),
    ]
}

async fn none_and_a_later_end_are_cut_to_the_greatest_lifetime(engine: Engine) {
    let server = start_with_root(engine, &[MAX]).await;
    let user = server.user("alice").await;
    let alice = holder(&server, &server.text_of(&user.id, &["admin:all"]).await);
    let admin = holder(&server, &server.admin);
    let root = holder(&server, ROOT);
    server.clock.advance(SECOND);
    for (given, [for_users, for_administrators]) in ends(&server) {
        let own = Create { expires_at: given, ..Default::default() };
        let for_alice = Create { owner_uuid: Some(user.id.clone()), ..own.clone() };
        for (by, request, expected) in [
            (&alice, &own, for_users),
            (&admin, &own, for_administrators),
            (&admin, &for_alice, for_administrators),
            (&root, &for_alice, for_administrators),
        ] {
            let made = by.create(request.clone()).await.unwrap();
            assert_eq!(made.expires_at, expected, "{given:?}");
        }
    }
    for by in [admin, root] {
        let made = by.create_system(CreateSystem::default()).await.unwrap();
        assert_eq!(made.expires_at, Some(server.after(HOUR)));
    }
}

async fn end_is_cut_at_an_update_only_if_it_is_what_changes(engine: Engine) {
    let server = TestServer::start_with(engine, &[MAX]).await;
    let user = server.user("alice").await;
    let administrator = server.administrator("chief").await;
    let far = Some(server.after(2_000 * HOUR));
    for (owner, is_administrator) in [(user, false), (administrator, true)] {
        let by = holder(&server, &server.text_of(&owner.id, &["admin:all"]).await);
        let request = Create { owner_uuid: Some(owner.id), expires_at: far, ..Default::default() };
        let made = holder(&server, &server.admin).create(request).await.unwrap();
        assert_eq!(made.expires_at, far, "an administrator keeps a later one");
        server.clock.advance(SECOND);
        let other = Update { scopes: scopes(&["GET /a"]), ..change(made.uuid()) };
        assert_eq!(by.update(other).await.unwrap().expires_at, far, "it is not what changes");
        let same = Update { expires_at: far, ..change(made.uuid()) };
        assert_eq!(by.update(same).await.unwrap().expires_at, far, "nor now");
        assert_eq!(by.update(change(made.uuid())).await.unwrap().expires_at, far);
        for (given, expected) in ends(&server) {
            let update_mask = mask(&["expires_at"]);
            let request = Update { expires_at: given, update_mask, ..change(made.uuid()) };
            let updated = by.update(request).await.unwrap();
            assert_eq!(updated.expires_at, expected[usize::from(is_administrator)], "{given:?}");
        }
    }
}

async fn default_lifetime_is_for_requests_that_do_not_say(engine: Engine) {
    let server = TestServer::start_with(engine, &["--authorization-default-lifetime=10m"]).await;
    let user = server.user("alice").await;
    let alice = holder(&server, &server.text_of(&user.id, &["admin:all"]).await);
    server.clock.advance(SECOND);
    let far = Some(server.after(1_000 * HOUR));
    for by in [&alice, &holder(&server, &server.admin)] {
        let made = by.create(Create::default()).await.unwrap();
        assert_eq!(made.expires_at, Some(server.after(10 * MINUTE)));
        let request = Create { expires_at: far, ..Default::default() };
        assert_eq!(by.create(request).await.unwrap().expires_at, far);
        let never = Update { update_mask: mask(&["expires_at"]), ..change(made.uuid()) };
        assert_eq!(by.update(never).await.unwrap().expires_at, None, "that says it");
    }
    let made = holder(&server, &server.admin).create_system(CreateSystem::default()).await;
    assert_eq!(made.unwrap().expires_at, Some(server.after(10 * MINUTE)));
}

async fn default_lifetime_stays_within_the_greatest_and_within_the_callers(engine: Engine) {
    let both = ["--authorization-default-lifetime=10m", MAX];
    let server = TestServer::start_with(engine, &both).await;
    let admin = holder(&server, &server.admin);
    let made = admin.create(Create::default()).await.unwrap();
    assert_eq!(made.expires_at, Some(server.after(10 * MINUTE)));
    let request = Create { expires_at: Some(server.after(MINUTE)), ..Default::default() };
    let short = admin.create(request).await.unwrap();
    let by = holder(&server, &v2(&short));
    let made = by.create(Create::default()).await.unwrap();
    assert_eq!(made.expires_at, short.expires_at);
    // What is cut is judged as it is cut.
    let later = Create { expires_at: Some(server.after(1_000 * HOUR)), ..Default::default() };
    assert_eq!(exceeded(by.create(later).await), "expires_at");
    let user = server.user("alice").await;
    let end = Create {
        owner_uuid: Some(user.id.clone()),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let an_hour = admin.create(end).await.unwrap();
    let later = Create { expires_at: Some(server.after(1_000 * HOUR)), ..Default::default() };
    let made = holder(&server, &v2(&an_hour)).create(later).await.unwrap();
    assert_eq!(made.expires_at, an_hour.expires_at);
}
