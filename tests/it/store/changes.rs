//! How those who hold what they read before learn of what was changed.

use std::{
    sync::{Mutex, mpsc},
    task::Poll,
};

use token_authority::{
    domain::{ContainerKind, ContainerName, ContainerRef, Role},
    store::{
        Change, ContainerChanges, Expects, MAX_CHANGES, MembershipChanges, MembershipPut, News,
        Rotation, TokensOf, Touched,
    },
};

use super::*;
use crate::support::{postgres::Replicated, wait::until};

on_both_stores![
    changes_come_in_order_with_what_they_touched,
    what_came_after_another_history_is_not_told,
    changes_come_a_thousand_at_a_time,
    change_that_is_not_known_touched_everything,
    changes_are_forgotten_when_they_are_old_and_the_newest_never_is,
    changes_are_forgotten_if_there_are_too_many_a_thousand_at_a_time,
    revision_that_is_forgotten_counts_as_reached,
    audit_is_forgotten_if_that_is_asked_for_and_that_is_audited,
    own_change_wakes,
    change_is_told_before_it_is_there_and_once,
    change_that_is_refused_or_alters_no_answer_is_not_told,
    change_is_told_though_nobody_waits_for_it,
];

/// No wait here is as long.
const DEADLINE: Duration = Duration::from_secs(30);

impl TestStore {
    async fn after(&self, after: Revision) -> Option<Vec<Change>> {
        self.news(after).await.changes
    }

    async fn news(&self, after: Revision) -> News {
        let news = self.changes(after).await.unwrap();
        assert_eq!(news.head, self.head().await.unwrap());
        assert_eq!(news.now.is_some(), self.place.database_url.is_some());
        news
    }

    async fn rename(&self, user: &User) -> Revision {
        let name = format!("{:x}", u64::from_ne_bytes(random::bytes()));
        let changes = UserChanges {
            display_name: Some(Some(name.parse().unwrap())),
            ..UserChanges::default()
        };
        let user = UserRef::Id(user.id.clone());
        self.update_user(&user, &changes, &service()).await.unwrap().unwrap().1
    }

    /// What each change of this process is told to touch.
    pub(super) fn told(&self) -> Arc<Mutex<Vec<Change>>> {
        let all: Arc<Mutex<Vec<Change>>> = Arc::default();
        let told = Arc::clone(&all);
        self.before_commit(Box::new(move |touched, revision| {
            told.lock().unwrap().push(Change { revision, touched: touched.to_vec() });
        }));
        all
    }
}

/// Waits until `store` says that something may have changed.
async fn woken(store: &dyn Store) {
    tokio::time::timeout(DEADLINE, store.changed()).await.expect("it wakes");
}

async fn changes_come_in_order_with_what_they_touched(engine: Engine) {
    let store = TestStore::new(engine).await;
    let origin = store.head().await.unwrap();
    assert_eq!(store.after(origin).await, Some(Vec::new()));

    // What alters no answer is no change.
    let alice = store.user("alice").await;
    store.workspace_with(&alice, "member").await;
    let new = new_token(&alice.id);
    store.keep(&new).await;
    assert_eq!(store.after(origin).await, Some(Vec::new()));

    let actor = service();
    let touched_user = Touched::User(alice.id.to_string());
    let mut expected = Vec::new();
    expected.push((store.revoke(&new.id).await, Touched::Credential(new.id.0.clone())));
    let put = MembershipPut {
        user: alice.id.clone(),
        kind: ContainerKind::Workspace,
        container_id: "w".to_owned(),
        role: Some(Role::Guest),
        expects: Expects::One,
    };
    let changes = MembershipChanges { puts: vec![put], only: None };
    let (_, revision) = store.change_memberships(&changes, &actor).await.unwrap();
    let member = Touched::Member { user_id: alice.id.to_string(), workspace_id: "w".to_owned() };
    expected.push((revision, member));
    let inactive = ContainerChanges { is_active: Some(false), ..ContainerChanges::default() };
    for (name, touched) in [
        (
            ContainerName::Workspace {
                workspace: ContainerRef::Id("w".to_owned()),
                organization: None,
            },
            Touched::Workspace("w".to_owned()),
        ),
        (
            ContainerName::Organization(ContainerRef::Id("o".to_owned())),
            Touched::Organization("o".to_owned()),
        ),
    ] {
        let (_, revision) =
            store.update_container(&name, &inactive, &actor).await.unwrap().unwrap();
        expected.push((revision, touched));
    }
    let user = UserRef::Id(alice.id.clone());
    let inactive = UserChanges { is_active: Some(false), ..UserChanges::default() };
    let (_, revision) = store.update_user(&user, &inactive, &actor).await.unwrap().unwrap();
    expected.push((revision, touched_user));
    let reason = "lost".parse().unwrap();
    let revision = store.revoke_tokens(&TokensOf::All, &reason, &actor).await.unwrap().unwrap();
    expected.push((revision, Touched::Everything));

    let expected: Vec<Change> = expected
        .into_iter()
        .map(|(revision, touched)| Change { revision, touched: vec![touched] })
        .collect();
    let numbers: Vec<i64> = expected.iter().map(|change| change.revision.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(store.after(origin).await.as_deref(), Some(&expected[..]));
    for (place, change) in expected.iter().enumerate() {
        assert_eq!(store.after(change.revision).await.as_deref(), Some(&expected[place + 1..]));
    }
}

async fn what_came_after_another_history_is_not_told(engine: Engine) {
    let store = TestStore::new(engine).await;
    let origin = store.head().await.unwrap();
    let mut all = vec![origin];
    for _ in 0..3 {
        all.push(store.rename(&store.administrator).await);
    }
    let last = all[3];
    let elsewhere = |revision: Revision| Revision { mark: !revision.mark, ..revision };
    for revision in &all {
        assert_eq!(store.after(elsewhere(*revision)).await, None);
    }
    // What it has not come to.
    assert_eq!(store.after(Revision { number: 4, ..last }).await, None);
    assert_eq!(store.after(Revision { number: i64::MAX, ..last }).await, None);

    // It was rewritten, or is not kept.
    for (broken, mended, is_told) in [
        (
            "UPDATE changes SET revision = -1 WHERE revision = 1",
            "UPDATE changes SET revision = 1 WHERE revision = -1",
            [false, false, true],
        ),
        (
            "UPDATE changes SET mark = ~mark WHERE revision = 1",
            "UPDATE changes SET mark = ~mark WHERE revision = 1",
            [true, false, true],
        ),
        (
            "UPDATE changes SET revision = -1 WHERE revision = 3",
            "UPDATE changes SET revision = 3 WHERE revision = -1",
            [false, false, false],
        ),
        (
            "UPDATE changes SET mark = ~mark WHERE revision = 3",
            "UPDATE changes SET mark = ~mark WHERE revision = 3",
            [false, false, false],
        ),
    ] {
        store.sql(broken).await;
        for (revision, is_told) in all.iter().zip(is_told) {
            let told = store.after(*revision).await;
            assert_eq!(told.is_some(), is_told, "{broken}: {revision}");
        }
        assert_eq!(store.after(last).await, Some(Vec::new()), "{broken}");
        store.sql(mended).await;
        assert_eq!(store.after(origin).await.unwrap().len(), 3, "{mended}");
    }
}

async fn changes_come_a_thousand_at_a_time(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut last = store.head().await.unwrap();
    store
        .sql(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
             INSERT INTO changes (revision, mark, changed_at, touched) \
             SELECT i, 7 * i, 0, '[[\"user\",\"u' || i || '\"]]' FROM n; \
             UPDATE revision SET number = 2500, mark = 17500",
        )
        .await;
    for (first, count) in [(1, 1000), (1001, 1000), (2001, 500), (2501, 0)] {
        let changes = store.after(last).await.unwrap();
        let expected: Vec<Change> = (first..first + count)
            .map(|number| Change {
                revision: Revision { number, mark: 7 * number },
                touched: vec![Touched::User(format!("u{number}"))],
            })
            .collect();
        assert_eq!(changes, expected);
        last = expected.last().map_or(last, |change| change.revision);
    }
}

async fn changes_are_forgotten_when_they_are_old_and_the_newest_never_is(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut all = vec![store.head().await.unwrap()];
    for _ in 0..4 {
        all.push(store.rename(&store.administrator).await);
    }
    store.sql(&format!("UPDATE changes SET changed_at = {NOW} + revision")).await;
    let (rows, actions) = (store.texts("SELECT action FROM audit").await, store.actions().await);
    assert_eq!(store.forget_history(at(0), None, &service()).await.unwrap(), 0);
    assert_eq!(store.after(all[0]).await.unwrap().len(), 4);
    assert_eq!(store.forget_history(at(2), None, &service()).await.unwrap(), 2);
    for (revision, left) in all.iter().zip([None, None, Some(2), Some(1), Some(0)]) {
        assert_eq!(store.after(*revision).await.map(|news| news.len()), left, "{revision}");
    }
    // One that is new may be among old ones, where clocks differ.
    store.sql(&format!("UPDATE changes SET changed_at = {NOW} + 9 WHERE revision = 2")).await;
    assert_eq!(store.forget_history(at(DAY), None, &service()).await.unwrap(), 2);
    assert_eq!(store.after(all[3]).await, None);
    assert_eq!(store.after(all[4]).await, Some(Vec::new()));
    assert_eq!(store.texts("SELECT 'kept' FROM changes").await.len(), 1);
    let next = store.rename(&store.administrator).await;
    assert_eq!(store.after(all[4]).await.unwrap()[0].revision, next);
    assert_eq!(store.actions().await.len(), actions.len() + 1, "the rename's alone");
    assert_eq!(store.texts("SELECT action FROM audit").await.len(), rows.len() + 1);
}

async fn changes_are_forgotten_if_there_are_too_many_a_thousand_at_a_time(engine: Engine) {
    let store = TestStore::new(engine).await;
    let last = 1_500 + MAX_CHANGES;
    store
        .sql(&format!(
            "DELETE FROM changes; WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
             WHERE i < 2000) INSERT INTO changes (revision, mark, changed_at, touched) \
             SELECT i, 0, {NOW}, '[]' FROM n; UPDATE revision SET number = {last}, mark = 0; \
             INSERT INTO changes (revision, mark, changed_at, touched) VALUES ({last}, 0, {NOW}, '[]')"
        ))
        .await;
    for forgotten in [1_000, 500, 0] {
        assert_eq!(store.forget_history(at(0), None, &service()).await.unwrap(), forgotten);
    }
    let kept = "SELECT min(revision) || ' ' || count(*) FROM changes";
    assert_eq!(store.texts(kept).await, ["1501 501"]);
}

async fn revision_that_is_forgotten_counts_as_reached(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut all = vec![store.head().await.unwrap()];
    for _ in 0..3 {
        all.push(store.rename(&store.administrator).await);
    }
    let other = |revision: Revision| Revision { mark: !revision.mark, ..revision };
    let reached = async |revision: Revision| store.reached(revision).await.unwrap();
    for revision in &all {
        assert!(reached(*revision).await);
        assert!(!reached(other(*revision)).await);
    }
    store.sql(&format!("UPDATE changes SET changed_at = {NOW} + revision")).await;
    assert_eq!(store.forget_history(at(2), None, &service()).await.unwrap(), 2);
    for (revision, is_forgotten) in all.iter().zip([true, true, false, false]) {
        assert!(reached(*revision).await);
        assert_eq!(reached(other(*revision)).await, is_forgotten, "{revision}");
    }
    assert!(!reached(Revision { number: 4, ..all[3] }).await, "it is still to come");
    // It is not kept, but was not forgotten either.
    store.sql("UPDATE changes SET revision = 1 WHERE revision = 2").await;
    assert!(!reached(all[2]).await);
}

async fn audit_is_forgotten_if_that_is_asked_for_and_that_is_audited(engine: Engine) {
    let store = TestStore::new(engine).await;
    store
        .sql(
            "DELETE FROM audit; WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
             WHERE i < 1200) INSERT INTO audit (id, occurred_at, action, caller_user_id, targets, \
             details) SELECT 'a' || i, i, 'x', 'u', '[]', '{}' FROM n",
        )
        .await;
    let before = Timestamp::from_micros(1_101).unwrap();
    let forget = async |audit| store.forget_history(at(-DAY), audit, &service()).await.unwrap();
    assert_eq!(forget(None).await, 0);
    assert_eq!(forget(Some(before)).await, 1_000);
    assert_eq!(forget(Some(before)).await, 100);
    assert_eq!(forget(Some(before)).await, 0);
    let left = store.texts("SELECT action FROM audit WHERE action <> 'x'").await;
    assert_eq!(left, ["audit.purge", "audit.purge"]);
    let left = store.texts("SELECT id FROM audit WHERE action = 'x' ORDER BY occurred_at").await;
    assert_eq!((left.len(), &*left[0]), (100, "a1101"));
}

async fn change_that_is_not_known_touched_everything(engine: Engine) {
    let store = TestStore::new(engine).await;
    let origin = store.head().await.unwrap();
    store.rename(&store.administrator).await;
    let known = Touched::Credential("c".to_owned());
    for (text, expected) in [
        (r#"[["credential","c"]]"#, vec![known.clone()]),
        (r#"[["credential","c"],["planet","p"]]"#, vec![known.clone(), Touched::Everything]),
        (r#"[["credential","c","d"]]"#, vec![Touched::Everything]),
        (r#"[["credential",7]]"#, vec![Touched::Everything]),
        (r#"[{"credential":"c"}]"#, vec![Touched::Everything]),
        (r#"{"credential":"c"}"#, vec![Touched::Everything]),
        ("no JSON", vec![Touched::Everything]),
        ("[]", Vec::new()),
    ] {
        store.sql(&format!("UPDATE changes SET touched = '{text}' WHERE revision = 1")).await;
        assert_eq!(store.after(origin).await.unwrap()[0].touched, expected, "{text}");
    }
}

async fn own_change_wakes(engine: Engine) {
    let store = TestStore::new(engine).await;
    if engine == Engine::Postgres {
        // That it listens from now on.
        woken(&*store).await;
    }
    for _ in 0..3 {
        let waiting = tokio::spawn({
            let store = Arc::clone(&store.store);
            async move { woken(&*store).await }
        });
        store.rename(&store.administrator).await;
        waiting.await.unwrap();
    }
    // What was changed while nobody waited is not missed.
    store.rename(&store.administrator).await;
    woken(&*store).await;
}

async fn change_is_told_before_it_is_there_and_once(engine: Engine) {
    let store = TestStore::new(engine).await;
    let origin = store.head().await.unwrap();
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let (tell, told) = mpsc::sync_channel(0);
    let (go_on, wait) = mpsc::sync_channel::<()>(0);
    let wait = Mutex::new(wait);
    store.before_commit(Box::new(move |touched, revision| {
        tell.send(Change { revision, touched: touched.to_vec() }).unwrap();
        tokio::task::block_in_place(|| wait.lock().unwrap().recv().unwrap());
    }));
    let revoked = tokio::spawn({
        let (store, id, actor) = (Arc::clone(&store.store), new.id.clone(), store.actor());
        async move { store.revoke_credential(token(&id), false, &actor).await.unwrap().unwrap().1 }
    });
    let (change, told) =
        tokio::task::spawn_blocking(move || (told.recv().unwrap(), told)).await.unwrap();
    assert_eq!(change.touched, [Touched::Credential(new.id.0.clone())]);
    assert_eq!(change.revision.number, 1);
    assert_eq!(store.after(origin).await, Some(Vec::new()));
    let found = store.found(&new.secret.digest).await.unwrap();
    assert_eq!(found.credential.revoked_at, None);
    go_on.send(()).unwrap();
    assert_eq!(revoked.await.unwrap(), change.revision);
    assert_eq!(store.after(origin).await, Some(vec![change]));
    assert!(told.try_recv().is_err());
}

async fn change_that_is_refused_or_alters_no_answer_is_not_told(engine: Engine) {
    let store = TestStore::new(engine).await;
    let told = store.told();
    let origin = store.head().await.unwrap();
    let alice = store.user("alice").await;
    let (first, second) = (new_token(&alice.id), new_token(&alice.id));
    store.keep(&first).await;
    store.keep(&second).await;
    assert_eq!(*told.lock().unwrap(), []);

    store.revoke(&first.id).await;
    // Done once, it is not done again.
    store.revoke(&first.id).await;
    let revoked = Actor { user_id: alice.id.clone(), ..store.actor_with(&first.id) };
    let changes = UserChanges { is_admin: Some(true), ..UserChanges::default() };
    let user = UserRef::Id(alice.id.clone());
    let refused = store.update_user(&user, &changes, &revoked).await;
    assert_eq!(refusal(refused), Refusal::CallerRevoked);
    let rotation = Rotation { secret: new_secret(), overlap: Duration::from_secs(1) };
    let refused = store.rotate_credential(token(&second.id), &rotation, None, &revoked).await;
    assert_eq!(refusal(refused), Refusal::CallerRevoked);
    let changes = store.after(origin).await.unwrap();
    assert_eq!(*told.lock().unwrap(), changes);
    assert_eq!(changes.len(), 1);
}

async fn change_is_told_though_nobody_waits_for_it(engine: Engine) {
    let store = TestStore::new(engine).await;
    let origin = store.head().await.unwrap();
    let told = store.told();
    // Given up at each of its steps in turn, it is told whenever it is there.
    for steps in 0.. {
        let user = UserRef::Id(store.administrator.id.clone());
        let name = format!("Name {steps}").parse().unwrap();
        let changes = UserChanges { display_name: Some(Some(name)), ..UserChanges::default() };
        let actor = store.actor();
        let mut change = Box::pin(store.update_user(&user, &changes, &actor));
        let mut polls = 0;
        let done = std::future::poll_fn(|context| match change.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if polls == steps => Poll::Ready(None),
            Poll::Pending => {
                polls += 1;
                Poll::Pending
            }
        })
        .await;
        drop(change);
        // What was given up is rolled back, or there, before the next is done.
        let settled = store.rename(&store.administrator).await;
        let told = told.lock().unwrap().clone();
        for change in store.after(origin).await.unwrap() {
            assert!(told.contains(&change), "{change:?}: {told:?}");
        }
        assert_eq!(told.last().unwrap().revision, settled);
        if done.is_some() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn change_of_another_process_wakes_also_after_a_lost_connection() {
    let store = TestStore::new(Engine::Postgres).await;
    let other = open(&store.place, Migrate::Check).await.unwrap();
    let listeners = "SELECT CAST(pid AS TEXT) FROM pg_stat_activity \
                     WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let mut last = store.head().await.unwrap();
    let user = UserRef::Id(store.administrator.id.clone());
    for name in ["first", "second"] {
        // That it listens from now on.
        woken(&*store).await;
        until("it listens", DEADLINE, async || store.texts(listeners).await.len() == 1).await;
        let changes = UserChanges {
            display_name: Some(Some(name.parse().unwrap())),
            ..UserChanges::default()
        };
        let (_, revision) = other.update_user(&user, &changes, &service()).await.unwrap().unwrap();
        loop {
            woken(&*store).await;
            if store.after(last).await.unwrap().iter().any(|change| change.revision == revision) {
                break;
            }
        }
        last = revision;
        let cut = format!(
            "SELECT CAST(pg_terminate_backend(CAST(pid AS INTEGER)) AS TEXT) FROM ({listeners}) AS l (pid)"
        );
        assert_eq!(store.texts(&cut).await, ["true"]);
        // Something may be missed.
        woken(&*store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_may_be_behind_or_away_and_tells_no_changes() {
    let mut servers = Replicated::start().await;
    let (primary, standby) = (servers.primary(), servers.standby());
    let limits = PoolLimits { connections: 4, wait: DEADLINE };
    let both = Servers { replica: Some(&standby), ..Servers::at(&primary) };
    let store = open_postgres(both, limits, Migrate::Auto).await.unwrap();
    assert!(store.has_replica());
    assert!(!TestStore::new(Engine::Sqlite).await.has_replica());
    assert!(store.bootstrap(&first(), &service(), &|| Ok(())).await.unwrap());

    let owner = UserRef::Handle("admin".parse().unwrap());
    let owner = store.user(&owner).await.unwrap().unwrap();
    let [early, late] = [new_token(&owner.id), new_token(&owner.id)];
    store.insert_credential(&early, None, &service()).await.unwrap();
    let find = async |new: &NewCredential| {
        let digests = slice::from_ref(&new.secret.digest);
        store.find(Wanted { digests, ..Wanted::default() }).await.unwrap()
    };
    let find_at_replica = async |new: &NewCredential| {
        let digests = slice::from_ref(&new.secret.digest);
        store.find_at_replica(Wanted { digests, ..Wanted::default() }).await
    };
    let mut on_primary = PgConnection::connect(&primary).await.unwrap();
    let mut on_standby = PgConnection::connect(&standby).await.unwrap();
    let mut has_followed = async || {
        let written: String = sqlx::query_scalar("SELECT CAST(pg_current_wal_lsn() AS TEXT)")
            .fetch_one(&mut on_primary)
            .await
            .unwrap();
        let mut standby = PgConnection::connect(&standby).await.unwrap();
        until("it follows", DEADLINE, async || {
            sqlx::query_scalar("SELECT pg_last_wal_replay_lsn() >= CAST($1 AS pg_lsn)")
                .bind(&written)
                .fetch_one(&mut standby)
                .await
                .unwrap()
        })
        .await;
    };
    has_followed().await;
    let (found, known) = (find_at_replica(&early).await.unwrap(), find(&early).await);
    assert_eq!(found.found, known.found);
    assert!(found.found.is_some());

    // What it has not come to yet is not there.
    sqlx::raw_sql("SELECT pg_wal_replay_pause()").execute(&mut on_standby).await.unwrap();
    until("it pauses", DEADLINE, async || {
        sqlx::query_scalar("SELECT pg_get_wal_replay_pause_state() = 'paused'")
            .fetch_one(&mut on_standby)
            .await
            .unwrap()
    })
    .await;
    store.insert_credential(&late, None, &service()).await.unwrap();
    let (_, revision) =
        store.revoke_credential(token(&early.id), false, &service()).await.unwrap().unwrap();
    assert!(find(&late).await.found.is_some());
    assert!(find_at_replica(&late).await.unwrap().found.is_none());
    let behind = find_at_replica(&early).await.unwrap();
    assert_eq!(behind.head.number, revision.number - 1);
    assert_eq!(behind.found.unwrap().credential.revoked_at, None);
    let now = find(&early).await;
    assert_eq!(now.head, revision);
    assert!(now.found.unwrap().credential.revoked_at.is_some());
    sqlx::raw_sql("SELECT pg_wal_replay_resume()").execute(&mut on_standby).await.unwrap();
    has_followed().await;
    assert_eq!(find_at_replica(&early).await.unwrap().head, revision);

    // A store that is there alone could confirm what is long over.
    let limits = PoolLimits { wait: Duration::from_millis(500), ..limits };
    let alone = open_postgres(Servers::at(&standby), limits, Migrate::Check).await;
    assert!(matches!(alone.map(drop), Err(StoreError::Unavailable(_))));

    servers.stop_standby().await;
    for _ in 0..3 {
        assert!(find_at_replica(&late).await.is_none());
        assert!(find(&late).await.found.is_some());
    }
    store.close().await;
}
