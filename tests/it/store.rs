//! Every promise of `Store` and of its schema, on both engines.
#![deny(dead_code)]

mod authorizations;
mod changes;
mod directory;
mod filters;
mod plans;
mod rotation;
mod together;
mod uses;

use std::{
    collections::HashSet,
    fs, io,
    ops::Deref,
    os::unix::fs::PermissionsExt as _,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, SqliteConnection, error::ErrorKind};
use token_authority::{
    domain::{
        CredentialId, Detail, Digest, Found, Kind, Pepper, PepperId, Revision, SecretState,
        Timestamp, Token, User, UserId, UserKind, UserRef,
    },
    random,
    store::{
        Actor, Basis, Bootstrap, CredentialChanges, Cursor, Identity, Inserted, Kept, KeptPepper,
        Lookup, MAX_ROWS, Migrate, NewCredential, NewSecret, NewUser, PoolLimits, Promotion,
        REQUEST_ID_LIFETIME, Reach, Refusal, Repeat, Servers, Store, StoreError, Target, Unique,
        Unloaded, UserChanges, UserFilter, Wanted, Workspaces, open_postgres, open_sqlite,
    },
    upkeep::{Job, OnReuse, Upkeep},
};
use tokio::task::JoinHandle;

use crate::support::{Engine, clock::TestClock, on_both_stores, server::Place};

on_both_stores![
    // The first start.
    first_start_is_made_once_and_its_repeat_changes_nothing,
    first_start_that_fails_before_its_commit_makes_nothing,
    first_starts_at_once_make_one,
    // Revisions and the audit.
    revisions_are_gapless_and_in_commit_order_under_concurrent_changes,
    revision_is_reached_if_it_is_of_this_history_and_not_beyond_its_head,
    each_change_has_an_audit_row_that_says_who_did_what,
    what_changes_nothing_takes_no_revision_and_no_audit_row,
    // Finding.
    head_comes_with_every_answer_even_of_nothing_found,
    any_of_four_digests_finds_its_credential,
    found_credential_comes_with_what_is_true_of_its_owner,
    bound_credential_is_found_with_its_workspace_and_organization,
    bound_credential_stays_dead_after_its_membership_ended,
    guest_is_no_member_under_a_bound_credential,
    membership_of_the_workspaces_asked_about_is_told,
    raised_epoch_outdates_what_was_born_before_it_and_nothing_after,
    superseded_secret_is_found_as_such,
    many_are_found_as_each_alone,
    what_is_unreadable_is_so_alone,
    // Proving.
    first_proof_is_noted_and_later_ones_change_nothing,
    replaced_secret_can_not_be_proved,
    // Creating.
    credential_comes_back_as_it_was_given,
    new_credential_takes_no_revision,
    owner_must_be_there_and_active,
    quota_counts_what_may_be_used_of_its_kind,
    creations_at_once_never_exceed_the_quota,
    workspace_must_be_there_and_active_and_the_owner_a_member,
    revoked_caller_makes_no_credential,
    digest_that_is_there_already_is_a_fault_and_nothing_is_kept,
    // Repeating a creation.
    repeat_before_the_first_proof_replaces_the_secret,
    repeat_after_the_first_proof_keeps_the_secret,
    repeat_does_not_revive_a_revoked_credential,
    revoked_caller_replaces_no_secret,
    request_id_is_for_one_request,
    request_ids_of_two_callers_are_apart,
    request_id_is_free_again_when_its_lifetime_is_over,
    refused_creation_leaves_its_request_id_free,
    identical_requests_at_once_make_one_credential,
    // Reading and listing.
    credential_of_another_owner_or_kind_is_not_there,
    list_has_the_credentials_of_one_owner_and_kind,
    pages_of_credentials_lose_and_double_nothing,
    last_use_is_listed,
    // Updating.
    update_changes_what_it_names_and_nothing_else,
    revoked_credential_is_not_updated,
    update_that_a_revocation_overtakes_is_refused,
    personal_access_token_alone_is_updated,
    // Revoking.
    first_revocation_counts_and_later_ones_change_nothing,
    descendants_of_any_depth_are_revoked_a_thousand_at_a_time,
    revocation_that_fills_its_transaction_is_whole,
    what_is_made_while_its_maker_is_being_revoked_is_revoked_with_it,
    // Callers who lost their right, and what has been dead for long.
    caller_who_lost_its_right_changes_nothing,
    caller_who_is_revoked_while_its_change_waits_changes_nothing,
    administrator_may_step_down_and_be_no_administrator_after_it,
    what_is_dead_for_long_is_purged_and_nothing_else,
    // Users.
    user_comes_back_as_it_was_given_and_is_found_by_each_of_its_names,
    handle_and_external_id_are_those_of_one_user,
    names_of_a_deleted_user_are_free_and_it_is_found_by_id_alone,
    user_update_changes_what_it_names_and_nothing_else,
    user_update_takes_a_revision_and_touches_the_user,
    user_that_is_not_there_is_not_updated,
    system_user_does_not_change,
    last_administrator_stays,
    administrators_who_step_down_at_once_leave_one,
    users_are_listed_by_what_they_are,
    pages_of_users_lose_and_double_nothing,
    // The schema.
    what_must_never_be_is_forbidden_by_the_schema,
    store_of_a_newer_schema_is_not_opened,
    check_refuses_an_empty_store_and_leaves_it_so,
    reopened_store_has_all_that_was_kept,
    // Peppers.
    secret_under_a_pepper_that_is_not_loaded_is_told_and_is_a_candidate,
    candidates_are_at_most_four,
    secret_is_redigested_once_and_towards_the_current_pepper_alone,
    pepper_that_was_loaded_is_promoted_and_that_is_audited,
    promotions_at_once_leave_one_current_pepper,
    peppers_are_listed_oldest_first_with_their_secrets,
    upkeep_that_was_asked_for_is_written_before_it_ends,
];

/// The instant of every change that a check does not date otherwise: one whose
/// microseconds a store that rounds would lose.
const NOW: i64 = 1_800_000_000_123_457;

const MILLISECOND: i64 = 1_000;
const DAY: i64 = 86_400_000_000;

/// The row of the first start in `changes` touched nothing.
const ORIGIN: &str = "[]";

/// A store after its first start.
struct TestStore {
    store: Arc<dyn Store>,
    place: Place,
    administrator: User,
    /// The credential of the administrator.
    first: CredentialId,
}

impl Deref for TestStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl TestStore {
    async fn new(engine: Engine) -> Self {
        Self::on(Place::new(engine).await).await
    }

    async fn on(place: Place) -> Self {
        let store = open(&place, Migrate::Auto).await.unwrap();
        let first = first();
        assert!(store.bootstrap(&first, &service(), &|| Ok(())).await.unwrap());
        let administrator = UserRef::Id(first.administrator.id);
        let administrator = store.user(&administrator).await.unwrap().unwrap();
        Self { store, place, administrator, first: first.credential.id }
    }

    /// The administrator, by its first credential.
    fn actor(&self) -> Actor {
        self.actor_with(&self.first)
    }

    fn actor_with(&self, credential: &CredentialId) -> Actor {
        Actor {
            user_id: self.administrator.id.clone(),
            token_id: Some(credential.clone()),
            secret_id: None,
            as_it_was: None,
            ip: Some("203.0.113.7".parse().unwrap()),
            request_id: Some("call-1".to_owned()),
            at: at(0),
            basis: Basis::Own,
            appoints: true,
        }
    }

    fn actor_with_owner(&self, token: &NewCredential, owner: &User) -> Actor {
        Actor { user_id: owner.id.clone(), ..self.actor_with(&token.id) }
    }

    fn actor_at(&self, later: i64) -> Actor {
        Actor { at: at(later), ..self.actor() }
    }

    async fn user(&self, handle: &str) -> User {
        self.insert_user(&new_user(handle), &self.actor()).await.unwrap().0
    }

    /// Keeps a credential, and asserts that it is not the repeat of another.
    async fn keep(&self, new: &NewCredential) -> Kept {
        self.keep_as(new, &self.actor()).await
    }

    async fn keep_as(&self, new: &NewCredential, actor: &Actor) -> Kept {
        let (inserted, _) = self.insert_credential(new, None, actor).await.unwrap();
        assert!(!inserted.already_used);
        inserted.kept
    }

    async fn repeat(&self, new: &NewCredential, repeat: &Repeat, actor: &Actor) -> Inserted {
        self.insert_credential(new, Some(repeat), actor).await.unwrap().0
    }

    async fn found(&self, digest: &Digest) -> Option<Found> {
        self.look_up(slice::from_ref(digest)).await.found
    }

    async fn look_up(&self, digests: &[Digest]) -> Lookup {
        self.find(Wanted { digests, ..Wanted::default() }).await.unwrap()
    }

    async fn revoke(&self, id: &CredentialId) -> Revision {
        self.revoke_credential(token(id), false, &self.actor()).await.unwrap().unwrap().1
    }

    async fn update(&self, user: &User, changes: UserChanges) -> Result<User, StoreError> {
        let name = UserRef::Id(user.id.clone());
        let updated = self.update_user(&name, &changes, &self.actor()).await?;
        Ok(updated.expect("the user is there").0)
    }

    async fn sql(&self, statement: &str) {
        Sql::open(&self.place).await.run(statement).await.unwrap();
    }

    async fn texts(&self, query: &str) -> Vec<String> {
        Sql::open(&self.place).await.texts(query).await
    }

    /// What each change since the first start touched.
    async fn touched(&self) -> Vec<String> {
        let touched = self.texts("SELECT touched FROM changes ORDER BY revision").await;
        assert_eq!(touched[0], ORIGIN);
        touched[1..].to_vec()
    }

    /// The actions since the first start, which come in the order of their dates.
    async fn actions(&self) -> Vec<String> {
        let query =
            "SELECT action FROM audit WHERE action <> 'store.bootstrap' ORDER BY occurred_at, id";
        self.texts(query).await
    }

    /// Waits until the task waits for a row that a transaction of the check holds.
    /// In the embedded store it waits for the one writer, which can't be seen.
    async fn until_it_waits<T>(&self, task: &JoinHandle<T>) {
        if self.place.database_url.is_none() {
            return;
        }
        let waiting = "SELECT query FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while self.texts(waiting).await.is_empty() {
            assert!(!task.is_finished(), "it must wait");
        }
    }

    /// The workspace `w` of the organization `o`, with this user in it by the
    /// membership `m`.
    async fn workspace_with(&self, user: &User, role: &str) {
        self.sql(&format!(
            "INSERT INTO organizations (id, slug, name, external_id, is_active, created_at, \
             updated_at) VALUES ('o', 'o', 'O', 'o at ours', TRUE, 0, 0); \
             INSERT INTO workspaces (id, organization_id, slug, name, external_id, is_active, \
             created_at, updated_at) VALUES ('w', 'o', 'w', 'W', 'w at ours', TRUE, 0, 0); \
             INSERT INTO memberships (id, user_id, workspace_id, role, created_at, updated_at) \
             VALUES ('m', '{}', 'w', '{role}', 0, 0)",
            user.id
        ))
        .await;
    }
}

/// A connection beside those of the store, for SQL that both engines take.
enum Sql {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Sql {
    async fn open(place: &Place) -> Self {
        match &place.database_url {
            Some(url) => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            None => {
                let path = place.path("data/token-authority.db");
                Self::Sqlite(SqliteConnection::connect(path.to_str().unwrap()).await.unwrap())
            }
        }
    }

    async fn run(&mut self, statement: &str) -> Result<(), sqlx::Error> {
        let statement = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()));
        match self {
            Self::Postgres(connection) => statement.execute(connection).await.map(drop),
            Self::Sqlite(connection) => statement.execute(connection).await.map(drop),
        }
    }

    /// The one column of what a query gives.
    async fn texts(&mut self, query: &str) -> Vec<String> {
        let query = sqlx::AssertSqlSafe(query.to_owned());
        match self {
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_all(connection).await,
            Self::Sqlite(connection) => sqlx::query_scalar(query).fetch_all(connection).await,
        }
        .unwrap()
    }
}

async fn open(place: &Place, migrate: Migrate) -> Result<Arc<dyn Store>, StoreError> {
    match &place.database_url {
        Some(url) => {
            let limits = PoolLimits { connections: 10, wait: Duration::from_secs(30) };
            open_postgres(Servers::at(url), limits, migrate).await
        }
        None => {
            fs::create_dir_all(place.path("data")).unwrap();
            open_sqlite(&place.path("data"), migrate).await
        }
    }
}

/// `later` microseconds after [`NOW`].
fn at(later: i64) -> Timestamp {
    Timestamp::from_micros(NOW + later).unwrap()
}

fn pepper() -> Pepper {
    Pepper::to_file(&[7; 32]).parse().unwrap()
}

/// The service itself, at the first start.
fn service() -> Actor {
    Actor::service("zzzzz-tpzed-000000000000000".parse().unwrap(), at(0))
}

fn first() -> Bootstrap {
    let administrator = NewUser { is_admin: true, ..new_user("admin") };
    Bootstrap {
        identity: Identity {
            cluster_id: "zzzzz".parse().unwrap(),
            current_pepper: pepper().id().clone(),
        },
        credential: new_token(&administrator.id),
        administrator,
    }
}

fn new_user(handle: &str) -> NewUser {
    let digits = u64::from_ne_bytes(random::bytes()) % 1_000_000_000_000_000;
    NewUser {
        id: format!("zzzzz-tpzed-{digits:015}").parse().unwrap(),
        handle: handle.parse().unwrap(),
        display_name: None,
        kind: UserKind::Human,
        is_admin: false,
        is_active: true,
        external_id: None,
    }
}

/// A personal access token.
fn new_token(owner: &UserId) -> NewCredential {
    NewCredential {
        id: CredentialId(random::id(at(0))),
        user_id: owner.clone(),
        workspace_id: None,
        detail: Detail::PersonalAccessToken {
            name: "ci".parse().unwrap(),
            description: "builds".parse().unwrap(),
        },
        scopes: vec!["read:notes".to_owned()],
        allowed_ips: Vec::new(),
        expires_at: None,
        secret: new_secret(),
        quota: 1_000_000,
        spares_administrators: false,
        new_owner: None,
    }
}

fn new_authorization(owner: &UserId) -> NewCredential {
    let digits = u64::from_ne_bytes(random::bytes()) % 1_000_000_000_000_000;
    NewCredential {
        id: CredentialId(format!("zzzzz-gj3su-{digits:015}")),
        detail: Detail::ApiClientAuthorization {
            api_client_id: Some(7),
            created_by_ip: Some("203.0.113.9".to_owned()),
        },
        scopes: vec!["all".to_owned()],
        ..new_token(owner)
    }
}

fn new_secret() -> NewSecret {
    let token = Token::from_random(&"pat_".parse().unwrap(), &random::bytes());
    let pepper = pepper();
    NewSecret {
        id: random::id(at(0)),
        digest: pepper.digest(&token),
        pepper_id: pepper.id().clone(),
        record: "$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
        shown: token.shown().to_owned(),
        sealed: None,
    }
}

/// A request of that number, to be repeated.
fn request(number: u128) -> Repeat {
    Repeat { request_id: format!("{number:032x}").parse().unwrap(), body_hash: [1; 32] }
}

/// The personal access token with this id, whoever owns it.
fn token(id: &CredentialId) -> Target<'_> {
    Target { id: &id.0, kind: Kind::PersonalAccessToken, reach: &ANYWHERE }
}

/// Any credential.
static ANYWHERE: Reach = Reach { owner: None, workspace_id: None, spares_administrators: false };

/// The credentials of a user.
fn of(owner: &User) -> Reach {
    Reach { owner: Some(owner.id.clone()), ..Reach::default() }
}

/// What `changes` says of a change to this credential.
fn touches(id: &CredentialId) -> String {
    format!(r#"[["credential","{}"]]"#, id.0)
}

/// SQL for a credential like `like`, made with `made_with`.
fn descendant(id: &str, like: &CredentialId, made_with: &str) -> String {
    format!(
        "INSERT INTO credentials (id, kind, user_id, name, description, scopes, allowed_ips, \
         created_by_user_id, created_by_token_id, created_at, updated_at, store_epoch, user_epoch) \
         SELECT {id}, kind, user_id, name, description, scopes, allowed_ips, created_by_user_id, \
         {made_with}, created_at, updated_at, store_epoch, user_epoch \
         FROM credentials CROSS JOIN n WHERE id = '{}'",
        like.0
    )
}

/// Begins a transaction that others wait for.
fn begin(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgres => "BEGIN",
        Engine::Sqlite => "BEGIN IMMEDIATE",
    }
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Refusal {
    let Err(StoreError::Refused(refusal)) = result else { panic!("not refused: {result:?}") };
    refusal
}

/// Starts them all before it waits for any.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    task: impl Fn(usize) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(task(number))).collect();
    let mut results = Vec::with_capacity(count);
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn first_start_is_made_once_and_its_repeat_changes_nothing(engine: Engine) {
    let place = Place::new(engine).await;
    let store = open(&place, Migrate::Auto).await.unwrap();
    assert_eq!(store.identity().await.unwrap(), None);

    let made = first();
    assert!(store.bootstrap(&made, &service(), &|| Ok(())).await.unwrap());
    assert_eq!(store.identity().await.unwrap(), Some(made.identity.clone()));
    let head = store.head().await.unwrap();
    assert_eq!(head.number, 0);
    let users = store.list_users(&UserFilter::default(), None, 10).await.unwrap();
    let ids: HashSet<&str> = users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(ids, [made.administrator.id.as_str(), "zzzzz-tpzed-000000000000000"].into());
    assert!(users.iter().all(|user| user.is_admin && user.is_active));
    let digests = slice::from_ref(&made.credential.secret.digest);
    let found = store.find(Wanted { digests, ..Wanted::default() }).await.unwrap().found.unwrap();
    assert_eq!(found.credential.id, made.credential.id);
    assert_eq!(found.credential.created_by_token_id, None);

    let mut second = first();
    second.identity.cluster_id = "yyyyy".parse().unwrap();
    let must_not_run = || -> io::Result<()> { panic!("there is nothing to commit") };
    assert!(!store.bootstrap(&second, &service(), &must_not_run).await.unwrap());
    assert_eq!(store.identity().await.unwrap(), Some(made.identity));
    assert_eq!(store.list_users(&UserFilter::default(), None, 10).await.unwrap(), users);
    assert_eq!(store.head().await.unwrap(), head);
}

async fn first_start_that_fails_before_its_commit_makes_nothing(engine: Engine) {
    let place = Place::new(engine).await;
    let store = open(&place, Migrate::Auto).await.unwrap();
    let fail = || Err(io::Error::other("the disk is full"));
    let failed = store.bootstrap(&first(), &service(), &fail).await;
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    assert_eq!(store.identity().await.unwrap(), None);
    assert_eq!(store.list_users(&UserFilter::default(), None, 10).await.unwrap(), []);
    let audit = Sql::open(&place).await.texts("SELECT action FROM audit").await;
    assert!(audit.is_empty(), "{audit:?}");
    assert!(store.bootstrap(&first(), &service(), &|| Ok(())).await.unwrap());
}

async fn first_starts_at_once_make_one(engine: Engine) {
    let place = Place::new(engine).await;
    let store = open(&place, Migrate::Auto).await.unwrap();
    let made = at_once(4, |_| {
        let store = Arc::clone(&store);
        async move { store.bootstrap(&first(), &service(), &|| Ok(())).await.unwrap() }
    })
    .await;
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
    assert_eq!(store.list_users(&UserFilter::default(), None, 10).await.unwrap().len(), 2);
}

async fn revisions_are_gapless_and_in_commit_order_under_concurrent_changes(engine: Engine) {
    const MUTATORS: usize = 8;
    const CHANGES: usize = 25;
    let store = TestStore::new(engine).await;
    let mut victims = Vec::new();
    for number in 0..MUTATORS {
        let user = store.user(&format!("user-{number}")).await;
        let mut tokens = Vec::new();
        for _ in 0..CHANGES.div_ceil(2) {
            tokens.push(store.keep(&new_token(&user.id)).await.credential.id);
        }
        victims.push((UserRef::Id(user.id), tokens));
    }

    let done = Arc::new(AtomicBool::new(false));
    let mut reader = Sql::open(&store.place).await;
    let watched = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) {
                let gaps = "SELECT CAST(max(revision) + 1 - count(*) AS TEXT) FROM changes";
                assert_eq!(reader.texts(gaps).await, ["0"]);
                reads += 1;
            }
            reads
        }
    });
    let returned = at_once(MUTATORS, |number| {
        let (inner, actor) = (Arc::clone(&store.store), store.actor());
        let (user, tokens) = victims[number].clone();
        async move {
            let mut revisions: Vec<Revision> = Vec::new();
            for change in 0..CHANGES {
                let revision = if change % 2 == 0 {
                    let target = token(&tokens[change / 2]);
                    inner.revoke_credential(target, false, &actor).await.unwrap().unwrap().1
                } else {
                    let name = format!("Name {change}").parse().unwrap();
                    let changes =
                        UserChanges { display_name: Some(Some(name)), ..UserChanges::default() };
                    inner.update_user(&user, &changes, &actor).await.unwrap().unwrap().1
                };
                assert!(inner.reached(revision).await.unwrap());
                assert!(inner.head().await.unwrap().number >= revision.number);
                assert!(revisions.last().is_none_or(|last| last.number < revision.number));
                revisions.push(revision);
            }
            revisions
        }
    })
    .await;
    done.store(true, Ordering::SeqCst);
    assert!(watched.await.unwrap() > 0);

    let mut returned = returned.concat();
    returned.sort_by_key(|revision| revision.number);
    let numbers: Vec<i64> = returned.iter().map(|revision| revision.number).collect();
    let all: Vec<i64> = (1..).take(MUTATORS * CHANGES).collect();
    assert_eq!(numbers, all);
    let kept = store
        .texts(
            "SELECT CAST(revision AS TEXT) || ' ' || CAST(mark AS TEXT) FROM changes \
             WHERE revision > 0 ORDER BY revision",
        )
        .await;
    let told: Vec<String> =
        returned.iter().map(|revision| format!("{} {}", revision.number, revision.mark)).collect();
    assert_eq!(kept, told);
    assert_eq!(store.head().await.unwrap(), *returned.last().unwrap());
    let marks: HashSet<i64> = returned.iter().map(|revision| revision.mark).collect();
    assert_eq!(marks.len(), returned.len());
}

async fn revision_is_reached_if_it_is_of_this_history_and_not_beyond_its_head(engine: Engine) {
    let store = TestStore::new(engine).await;
    let origin = store.head().await.unwrap();
    let user = store.user("alice").await;
    let older = store.revoke(&store.keep(&new_token(&user.id)).await.credential.id).await;
    let head = store.revoke(&store.keep(&new_token(&user.id)).await.credential.id).await;
    assert_eq!(store.head().await.unwrap(), head);
    for revision in [origin, older, head] {
        assert!(store.reached(revision).await.unwrap(), "{revision}");
        let foreign = Revision { mark: revision.mark ^ 1, ..revision };
        assert!(!store.reached(foreign).await.unwrap(), "{foreign}");
    }
    for number in [-1, head.number + 1, i64::MAX] {
        let elsewhere = Revision { number, ..head };
        assert!(!store.reached(elsewhere).await.unwrap(), "{elsewhere}");
    }
}

async fn each_change_has_an_audit_row_that_says_who_did_what(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut later = 0;
    let mut actor = || {
        later += MILLISECOND;
        store.actor_at(later)
    };
    let (user, _) = store.insert_user(&new_user("alice"), &actor()).await.unwrap();
    let new = new_token(&user.id);
    let id = &new.id.0;
    store.insert_credential(&new, Some(&request(1)), &actor()).await.unwrap();
    let again = NewCredential { secret: new_secret(), ..new.clone() };
    store.insert_credential(&again, Some(&request(1)), &actor()).await.unwrap();
    let renamed =
        CredentialChanges { name: Some("cd".parse().unwrap()), ..CredentialChanges::default() };
    store.update_credential(token(&new.id), &renamed, &actor()).await.unwrap();
    store.revoke_credential(token(&new.id), true, &actor()).await.unwrap();
    let inactive = UserChanges { is_active: Some(false), ..UserChanges::default() };
    let name = UserRef::Id(user.id.clone());
    store.update_user(&name, &inactive, &actor()).await.unwrap();

    let rows = store
        .texts(
            "SELECT CAST(occurred_at AS TEXT) || ' ' || action || ' ' || targets || ' ' || \
             coalesce(CAST(revision AS TEXT), '-') || ' ' || caller_user_id || ' ' || \
             coalesce(caller_token_id, '-') || ' ' || coalesce(caller_ip, '-') || ' ' || \
             coalesce(request_id, '-') FROM audit ORDER BY occurred_at",
        )
        .await;
    let by = format!("{} {} 203.0.113.7 call-1", store.administrator.id, store.first.0);
    let expected = [
        format!(
            r#"store.bootstrap ["{}","{}"] - zzzzz-tpzed-000000000000000 - - -"#,
            store.administrator.id, store.first.0
        ),
        format!(r#"user.create ["{}"] - {by}"#, user.id),
        format!(r#"credential.create ["{id}"] - {by}"#),
        format!(r#"credential.create_again ["{id}"] 1 {by}"#),
        format!(r#"credential.update ["{id}"] - {by}"#),
        format!(r#"credential.revoke ["{id}"] 2 {by}"#),
        format!(r#"user.update ["{}"] 3 {by}"#, user.id),
    ];
    let expected: Vec<String> =
        (NOW..).step_by(1_000).zip(expected).map(|(at, row)| format!("{at} {row}")).collect();
    assert_eq!(rows, expected);
}

async fn what_changes_nothing_takes_no_revision_and_no_audit_row(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let new = new_token(&user.id);
    store.repeat(&new, &request(1), &store.actor()).await;
    store.prove(&new.secret.id, at(0)).await.unwrap();
    let revoked = store.keep(&new_token(&user.id)).await.credential.id;
    store.revoke(&revoked).await;
    let (head, actions) = (store.head().await.unwrap(), store.actions().await);

    let actor = store.actor();
    let again = NewCredential { secret: new_secret(), ..new.clone() };
    assert!(store.repeat(&again, &request(1), &actor).await.already_used);
    refusal(
        store.insert_credential(&NewCredential { quota: 0, ..new.clone() }, None, &actor).await,
    );
    let nothing = CredentialChanges::default();
    store.update_credential(token(&new.id), &nothing, &actor).await.unwrap().unwrap();
    refusal(store.update_credential(token(&revoked), &nothing, &actor).await);
    let (_, revision) =
        store.revoke_credential(token(&revoked), true, &actor).await.unwrap().unwrap();
    assert_eq!(revision, head);
    let nobody = CredentialId("nobody's".to_owned());
    assert_eq!(store.revoke_credential(token(&nobody), true, &actor).await.unwrap(), None);
    assert_eq!(store.update_credential(token(&nobody), &nothing, &actor).await.unwrap(), None);
    store.insert_user(&new_user("alice"), &actor).await.unwrap_err();

    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(store.actions().await, actions);
}

async fn head_comes_with_every_answer_even_of_nothing_found(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let new = new_token(&user.id);
    store.keep(&new).await;
    for round in 1..=2 {
        let head = store.revoke(&store.keep(&new_token(&user.id)).await.credential.id).await;
        assert_eq!(head.number, round);
        let digests = [new_secret().digest, new_secret().digest];
        for digests in [&digests[..], &[]] {
            let lookup = store.look_up(digests).await;
            assert!(lookup.found.is_none());
            assert_eq!(lookup.head, head);
        }
        let digests = [new.secret.digest.clone()];
        let lookup = store.look_up(&digests).await;
        assert!(lookup.found.is_some());
        assert_eq!(lookup.head, head);
    }
}

async fn any_of_four_digests_finds_its_credential(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    for place in 0..4 {
        let mut digests: Vec<Digest> = (0..4).map(|_| new_secret().digest).collect();
        digests[place] = new.secret.digest.clone();
        for length in place + 1..=4 {
            let asked = &digests[..length];
            let found = store.look_up(asked).await.found;
            assert_eq!(found.expect("it is there").credential.id, new.id, "{place} of {length}");
        }
    }
}

async fn found_credential_comes_with_what_is_true_of_its_owner(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = NewUser { external_id: Some("okta|1".parse().unwrap()), ..new_user("alice") };
    let (user, _) = store.insert_user(&user, &store.actor()).await.unwrap();
    let new = new_token(&user.id);
    let kept = store.keep(&new).await;

    let found = store.found(&new.secret.digest).await.unwrap();
    assert_eq!(found.credential, kept.credential);
    assert_eq!(found.secret, kept.secret);
    assert_eq!(found.owner.id, user.id);
    assert_eq!(found.owner.handle, "alice");
    assert_eq!(found.owner.external_id, user.external_id);
    assert!(found.owner.is_active && !found.owner.is_admin);
    assert_eq!(found.workspace, None);
    assert!(!found.credential.ended && !found.member_of_required && !found.member_of_askers);

    let changes = UserChanges {
        handle: Some("alice.b".parse().unwrap()),
        is_admin: Some(true),
        is_active: Some(false),
        external_id: Some(None),
        ..UserChanges::default()
    };
    store.update(&user, changes).await.unwrap();
    let owner = store.found(&new.secret.digest).await.unwrap().owner;
    assert_eq!(owner.handle, "alice.b");
    assert_eq!(owner.external_id, None);
    assert!(owner.is_admin && !owner.is_active);
}

async fn bound_credential_is_found_with_its_workspace_and_organization(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    store.workspace_with(&user, "member").await;
    let new = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&user.id) };
    let kept = store.keep(&new).await;
    let binding = kept.credential.workspace.unwrap();
    assert_eq!(binding.workspace_id, "w");
    assert_eq!(binding.organization_id, "o");
    assert_eq!(binding.membership_id, "m");

    let found = store.found(&new.secret.digest).await.unwrap();
    let workspace = found.workspace.unwrap();
    assert!(!found.credential.ended && workspace.is_active && workspace.organization.is_active);
    assert_eq!(workspace.id, "w");
    assert_eq!(workspace.external_id.unwrap().as_str(), "w at ours");
    assert_eq!(workspace.organization.id, "o");
    assert_eq!(workspace.organization.external_id.unwrap().as_str(), "o at ours");

    store.sql("UPDATE workspaces SET is_active = FALSE").await;
    let workspace = store.found(&new.secret.digest).await.unwrap().workspace.unwrap();
    assert!(!workspace.is_active && workspace.organization.is_active);
    let sql = "UPDATE workspaces SET is_active = TRUE; UPDATE organizations SET is_active = FALSE";
    store.sql(sql).await;
    let workspace = store.found(&new.secret.digest).await.unwrap().workspace.unwrap();
    assert!(workspace.is_active && !workspace.organization.is_active);
}

async fn bound_credential_stays_dead_after_its_membership_ended(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    store.workspace_with(&user, "member").await;
    let new = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&user.id) };
    store.keep(&new).await;
    store.sql("DELETE FROM memberships").await;
    assert!(store.found(&new.secret.digest).await.unwrap().credential.ended);
    store
        .sql(&format!(
            "INSERT INTO memberships (id, user_id, workspace_id, role, created_at, updated_at) \
             VALUES ('m2', '{}', 'w', 'owner', 0, 0)",
            user.id
        ))
        .await;
    let found = store.found(&new.secret.digest).await.unwrap();
    assert!(found.credential.ended, "under another membership it stays dead");
}

async fn guest_is_no_member_under_a_bound_credential(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    store.workspace_with(&user, "owner").await;
    let new = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&user.id) };
    store.keep(&new).await;
    for (role, expected) in [("member", true), ("guest", false), ("admin", true)] {
        store.sql(&format!("UPDATE memberships SET role = '{role}'")).await;
        let found = store.found(&new.secret.digest).await.unwrap();
        assert_eq!(!found.credential.ended, expected, "{role}");
    }
}

async fn membership_of_the_workspaces_asked_about_is_told(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    store.workspace_with(&alice, "guest").await;
    let (of_alice, of_bob) = (new_token(&alice.id), new_token(&bob.id));
    store.keep(&of_alice).await;
    store.keep(&of_bob).await;
    let flags = async |new: &NewCredential, required, askers| {
        let digests = slice::from_ref(&new.secret.digest);
        let workspaces = Workspaces { required, askers };
        let wanted = Wanted { digests, workspaces, ..Wanted::default() };
        let found = store.find(wanted).await.unwrap().found.unwrap();
        let organization = found.required_organization_id.as_deref();
        assert_eq!(organization, required.filter(|required| *required == "w").map(|_| "o"));
        (found.member_of_required, found.member_of_askers)
    };
    assert_eq!(flags(&of_alice, Some("w"), None).await, (true, false));
    assert_eq!(flags(&of_alice, None, Some("w")).await, (false, true));
    assert_eq!(flags(&of_alice, Some("w"), Some("w")).await, (true, true));
    assert_eq!(flags(&of_alice, Some("v"), Some("v")).await, (false, false));
    assert_eq!(flags(&of_bob, Some("w"), Some("w")).await, (false, false));
    for table in ["workspaces", "organizations"] {
        store.sql(&format!("UPDATE {table} SET is_active = FALSE")).await;
        assert!(!flags(&of_alice, Some("w"), None).await.0, "{table}");
        store.sql(&format!("UPDATE {table} SET is_active = TRUE")).await;
    }
}

async fn raised_epoch_outdates_what_was_born_before_it_and_nothing_after(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    store.workspace_with(&alice, "member").await;
    let make = async |owner: &User, workspace: Option<&str>| {
        let workspace_id = workspace.map(str::to_owned);
        let new = NewCredential { workspace_id, ..new_token(&owner.id) };
        store.keep(&new).await;
        new.secret.digest
    };
    let outdated =
        async |digest: &Digest| store.found(digest).await.expect("it is there").credential.ended;
    // Whose epoch is raised, and whether it is that of a bound token of alice,
    // of an unbound one of hers, and of one of bob.
    for (raised, expected) in [
        (
            format!("users SET token_epoch = token_epoch + 1 WHERE id = '{}'", alice.id),
            [true, true, false],
        ),
        ("workspaces SET token_epoch = token_epoch + 1".to_owned(), [true, false, false]),
        ("organizations SET token_epoch = token_epoch + 1".to_owned(), [true, false, false]),
        ("store SET token_epoch = token_epoch + 1".to_owned(), [true, true, true]),
    ] {
        let born_before =
            [make(&alice, Some("w")).await, make(&alice, None).await, make(&bob, None).await];
        for digest in &born_before {
            assert!(!outdated(digest).await, "{raised}");
        }
        store.sql(&format!("UPDATE {raised}")).await;
        for (digest, expected) in born_before.iter().zip(expected) {
            assert_eq!(outdated(digest).await, expected, "{raised}");
        }
        // By the service itself: the administrator's token may be outdated, too.
        let new = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&alice.id) };
        store.insert_credential(&new, None, &service()).await.unwrap();
        assert!(!outdated(&new.secret.digest).await, "{raised}");
    }
}

async fn superseded_secret_is_found_as_such(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    store
        .sql(&format!(
            "UPDATE secrets SET state = 'superseded', expires_at = 42 WHERE id = '{}'",
            new.secret.id
        ))
        .await;
    let secret = store.found(&new.secret.digest).await.unwrap().secret;
    assert_eq!(secret.state, SecretState::Superseded);
    assert_eq!(secret.expires_at, Timestamp::from_micros(42));
}

async fn many_are_found_as_each_alone(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    store.workspace_with(&alice, "member").await;
    let bound = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&alice.id) };
    let (of_alice, of_bob) = (new_token(&alice.id), new_authorization(&bob.id));
    let revoked = new_token(&bob.id);
    let kept = [&bound, &of_alice, &of_bob, &revoked];
    for new in kept {
        store.keep(new).await;
    }
    store.revoke(&revoked.id).await;

    let mut digests: Vec<Vec<Digest>> = Vec::new();
    for new in kept {
        let own = new.secret.digest.clone();
        digests.push(vec![own.clone()]);
        digests.push(vec![new_secret().digest, own, new_secret().digest, new_secret().digest]);
    }
    digests.extend([vec![new_secret().digest], Vec::new()]);
    let mut wanted = Vec::new();
    for askers in [None, Some("w"), Some("v")] {
        for required in [None, Some("w"), Some("v"), Some("")] {
            let workspaces = Workspaces { required, askers };
            let each =
                digests.iter().map(|digests| Wanted { digests, workspaces, ..Wanted::default() });
            wanted.extend(each);
        }
    }
    let all = store.find_all(&wanted).await.unwrap();
    assert_eq!(all.head, store.head().await.unwrap());
    assert_eq!(all.current_pepper, *pepper().id());
    let lookups: Vec<Lookup> = all.lookups.into_iter().map(Result::unwrap).collect();
    assert_eq!(lookups.len(), wanted.len());
    assert_eq!(lookups.iter().filter(|lookup| lookup.found.is_some()).count(), 3 * 4 * 8);
    for (wanted, lookup) in wanted.iter().zip(&lookups) {
        let alone = store.find(*wanted).await.unwrap();
        assert_eq!(lookup.found, alone.found, "{wanted:?}");
        assert_eq!((lookup.head, &lookup.current_pepper), (all.head, &all.current_pepper));
    }
    // As many as come at once, by whichever statements.
    let at_once = wanted.iter().map(|wanted| store.find(*wanted));
    for (lookup, found) in lookups.iter().zip(together(at_once).await) {
        assert_eq!(lookup.found, found.unwrap().found);
    }

    let one = [bound.secret.digest];
    let workspaces = Workspaces { required: Some("w"), askers: None };
    let one = Wanted { digests: &one, workspaces, ..Wanted::default() };
    let most = store.find_all(&vec![one; MAX_ROWS.try_into().unwrap()]).await.unwrap();
    let is_member = |lookup: Lookup| lookup.found.unwrap().member_of_required;
    assert!(most.lookups.into_iter().map(Result::unwrap).all(is_member));
    let none = store.find_all(&[]).await.unwrap();
    assert!(none.lookups.is_empty());
    assert_eq!(none.head, store.head().await.unwrap());
}

/// What becomes of all of these, which run at the same time.
async fn together<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, output) in &mut all {
            if output.is_none()
                && let Poll::Ready(ended) = one.as_mut().poll(context)
            {
                *output = Some(ended);
            }
        }
        if all.iter().all(|(_, output)| output.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    all.into_iter().map(|(_, output)| output.expect("all ended")).collect()
}

/// A fault of the store, as what is stored in a form that nobody knows, is of one alone.
async fn what_is_unreadable_is_so_alone(engine: Engine) {
    let store = TestStore::new(engine).await;
    let [good, bad] = [(); 2].map(|()| new_token(&store.administrator.id));
    store.keep(&good).await;
    store.keep(&bad).await;
    store.sql(&format!("UPDATE credentials SET scopes = '?' WHERE id = '{}'", bad.id.0)).await;
    let wanted = [&good, &bad, &good]
        .map(|new| Wanted { digests: slice::from_ref(&new.secret.digest), ..Wanted::default() });
    let all = store.find_all(&wanted).await.unwrap().lookups;
    let found = all.iter().map(|lookup| lookup.as_ref().ok().map(|it| it.found.is_some()));
    assert_eq!(found.collect::<Vec<_>>(), [Some(true), None, Some(true)]);
    assert!(matches!(&all[1], Err(StoreError::Failed(_))));
}

async fn first_proof_is_noted_and_later_ones_change_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    let made = store.repeat(&new, &request(1), &store.actor()).await;
    assert_eq!(made.kept.secret.proved_at, None);
    let head = store.head().await.unwrap();
    for later in [5, 9, 1] {
        assert!(store.prove(&new.secret.id, at(later)).await.unwrap());
        let found = store.found(&new.secret.digest).await.unwrap();
        assert_eq!(found.secret.proved_at, Some(at(5)));
    }
    assert_eq!(store.head().await.unwrap(), head);
}

async fn replaced_secret_can_not_be_proved(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.repeat(&new, &request(1), &store.actor()).await;
    let again = NewCredential { secret: new_secret(), ..new.clone() };
    store.repeat(&again, &request(1), &store.actor()).await;
    assert!(!store.prove(&new.secret.id, at(1)).await.unwrap());
    assert!(store.prove(&again.secret.id, at(1)).await.unwrap());
    assert!(!store.prove("nobody's", at(1)).await.unwrap());
}

async fn credential_comes_back_as_it_was_given(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let token = NewCredential {
        detail: Detail::PersonalAccessToken {
            name: "it's \"ci\" 日本語".parse().unwrap(),
            description: "".parse().unwrap(),
        },
        scopes: vec!["write:notes".to_owned(), "read:*".to_owned()],
        allowed_ips: vec!["2001:db8::/32".to_owned(), "10.0.0.0/8".to_owned()],
        expires_at: Some(Timestamp::MAX),
        ..new_token(&user.id)
    };
    let authorization = NewCredential { expires_at: Some(at(-DAY)), ..new_authorization(&user.id) };
    let unknown = Detail::ApiClientAuthorization { api_client_id: None, created_by_ip: None };
    let bare = NewCredential { detail: unknown, scopes: Vec::new(), ..new_authorization(&user.id) };
    for new in [token, authorization, bare] {
        let kept = store.keep(&new).await;
        let credential = &kept.credential;
        assert_eq!(credential.id, new.id);
        assert_eq!(credential.user_id, new.user_id);
        assert_eq!(credential.workspace, None);
        assert_eq!(credential.scopes, new.scopes);
        assert_eq!(credential.allowed_ips.to_texts(), new.allowed_ips);
        assert_eq!(credential.created_at, at(0));
        assert_eq!(credential.updated_at, at(0));
        assert_eq!(credential.expires_at, new.expires_at);
        assert_eq!(credential.revoked_at, None);
        assert_eq!(credential.created_by_user_id, store.administrator.id);
        assert_eq!(credential.created_by_token_id.as_ref(), Some(&store.first));
        assert_eq!(credential.detail, new.detail);
        assert_eq!(kept.secret.id, new.secret.id);
        assert_eq!(kept.secret.state, SecretState::Current);
        assert_eq!(kept.secret.shown, new.secret.shown);
        assert_eq!(kept.secret.created_at, at(0));
        assert_eq!(kept.secret.expires_at, None);
        assert_eq!(kept.secret.proved_at, Some(at(0)), "no repeat can replace it");
        assert_eq!((kept.last_used_at, &kept.last_used_ip), (None, &None));

        let target = Target { id: &new.id.0, kind: credential.kind(), reach: &of(&user) };
        assert_eq!(store.credential(target).await.unwrap(), Some(kept.clone()));
        assert_eq!(store.found(&new.secret.digest).await.unwrap().credential, kept.credential);
    }
}

async fn new_credential_takes_no_revision(engine: Engine) {
    let store = TestStore::new(engine).await;
    let head = store.head().await.unwrap();
    let new = new_token(&store.administrator.id);
    let (_, revision) = store.insert_credential(&new, None, &store.actor()).await.unwrap();
    assert_eq!(revision, head);
    let new = new_token(&store.administrator.id);
    let made = store.insert_credential(&new, Some(&request(1)), &store.actor()).await;
    assert_eq!(made.unwrap().1, head);
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(store.actions().await, ["credential.create", "credential.create"]);
}

async fn owner_must_be_there_and_active(engine: Engine) {
    let store = TestStore::new(engine).await;
    let system = "zzzzz-tpzed-000000000000000".parse().unwrap();
    let refused = store.insert_credential(&new_token(&system), None, &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::NoOwner, "nobody could take it back");
    let actor = store.actor();
    let nobody = new_token(&new_user("nobody").id);
    let refused = store.insert_credential(&nobody, None, &actor).await;
    assert_eq!(refusal(refused), Refusal::NoOwner);

    let user = store.user("alice").await;
    store
        .update(&user, UserChanges { is_active: Some(false), ..UserChanges::default() })
        .await
        .unwrap();
    let refused = store.insert_credential(&new_token(&user.id), None, &actor).await;
    assert_eq!(refusal(refused), Refusal::OwnerInactive);

    store.sql(&format!("UPDATE users SET deleted_at = 1 WHERE id = '{}'", user.id)).await;
    let refused = store.insert_credential(&new_token(&user.id), None, &actor).await;
    assert_eq!(refusal(refused), Refusal::NoOwner);
}

async fn quota_counts_what_may_be_used_of_its_kind(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let of = |user: &User| NewCredential { quota: 2, ..new_token(&user.id) };
    let revoked = of(&alice);
    store.keep(&revoked).await;
    store.keep(&NewCredential { expires_at: Some(at(0)), quota: 9, ..of(&alice) }).await;
    store.keep(&of(&alice)).await;
    let refused = store.insert_credential(&of(&alice), None, &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::QuotaReached);

    store.keep(&of(&bob)).await;
    store.keep(&NewCredential { quota: 1, ..new_authorization(&alice.id) }).await;
    store.revoke(&revoked.id).await;
    store.keep(&of(&alice)).await;
    let refused = store.insert_credential(&of(&alice), None, &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::QuotaReached);
}

async fn creations_at_once_never_exceed_the_quota(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let results = at_once(20, |_| {
        let (inner, actor) = (Arc::clone(&store.store), store.actor());
        let new = NewCredential { quota: 5, ..new_token(&user.id) };
        async move { inner.insert_credential(&new, None, &actor).await }
    })
    .await;
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 5);
    for result in refused {
        assert_eq!(refusal(result), Refusal::QuotaReached);
    }
    let kept = store
        .list_credentials(&of(&user), Kind::PersonalAccessToken, true, None, 99)
        .await
        .unwrap();
    assert_eq!(kept.len(), 5);
}

async fn workspace_must_be_there_and_active_and_the_owner_a_member(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    store.workspace_with(&alice, "member").await;
    let refused = async |owner: &User, workspace: &str| {
        let workspace_id = Some(workspace.to_owned());
        let new = NewCredential { workspace_id, ..new_token(&owner.id) };
        refusal(store.insert_credential(&new, None, &store.actor()).await)
    };
    assert_eq!(refused(&alice, "v").await, Refusal::NoWorkspace);
    assert_eq!(refused(&bob, "w").await, Refusal::NotAMember);
    store.sql("UPDATE memberships SET role = 'guest'").await;
    assert_eq!(refused(&alice, "w").await, Refusal::NotAMember);
    store.sql("UPDATE memberships SET role = 'member'").await;
    for table in ["workspaces", "organizations"] {
        store.sql(&format!("UPDATE {table} SET is_active = FALSE")).await;
        assert_eq!(refused(&alice, "w").await, Refusal::WorkspaceInactive, "{table}");
        store.sql(&format!("UPDATE {table} SET is_active = TRUE")).await;
    }
    for role in ["owner", "admin", "member"] {
        store.sql(&format!("UPDATE memberships SET role = '{role}'")).await;
        let workspace_id = Some("w".to_owned());
        store.keep(&NewCredential { workspace_id, ..new_token(&alice.id) }).await;
    }
}

async fn revoked_caller_makes_no_credential(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let caller = store.keep(&new_token(&user.id)).await.credential.id;
    let actor = store.actor_with(&caller);
    store.keep_as(&new_token(&user.id), &actor).await;
    store.revoke(&caller).await;
    let refused = store.insert_credential(&new_token(&user.id), None, &actor).await;
    assert_eq!(refusal(refused), Refusal::CallerRevoked);
}

async fn digest_that_is_there_already_is_a_fault_and_nothing_is_kept(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let new = new_token(&user.id);
    store.keep(&new).await;
    let actions = store.actions().await;
    let mut double = new_token(&user.id);
    double.secret.digest = new.secret.digest.clone();
    let failed = store.insert_credential(&double, Some(&request(1)), &store.actor()).await;
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");

    assert_eq!(store.credential(token(&double.id)).await.unwrap(), None);
    assert_eq!(store.found(&new.secret.digest).await.unwrap().credential.id, new.id);
    assert_eq!(store.actions().await, actions);
    // Its request id is free, too.
    double.secret = new_secret();
    assert_eq!(
        store.repeat(&double, &request(1), &store.actor()).await.kept.credential.id,
        double.id
    );
}

async fn repeat_before_the_first_proof_replaces_the_secret(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let new = NewCredential { quota: 1, ..new_token(&user.id) };
    let made = store.repeat(&new, &request(1), &store.actor()).await;
    let mut replaced = new.secret.digest.clone();
    for round in 1..=2 {
        let again = NewCredential {
            id: CredentialId(random::id(at(1))),
            secret: new_secret(),
            ..new.clone()
        };
        let actor = store.actor_at(round);
        let (repeated, revision) =
            store.insert_credential(&again, Some(&request(1)), &actor).await.unwrap();
        assert!(!repeated.already_used);
        assert_eq!(repeated.kept.credential, made.kept.credential);
        assert_eq!(repeated.kept.secret.id, again.secret.id);
        assert_eq!(repeated.kept.secret.shown, again.secret.shown);
        assert_eq!(repeated.kept.secret.proved_at, None);
        assert_eq!(repeated.kept.secret.created_at, at(round));
        assert_eq!(revision.number, round);
        assert_eq!(store.head().await.unwrap(), revision);
        assert_eq!(store.found(&replaced).await, None);
        assert_eq!(store.found(&again.secret.digest).await.unwrap().credential.id, new.id);
        assert_eq!(store.credential(token(&again.id)).await.unwrap(), None);
        replaced = again.secret.digest;
    }
    assert_eq!(store.touched().await, [touches(&new.id), touches(&new.id)]);
}

async fn repeat_after_the_first_proof_keeps_the_secret(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.repeat(&new, &request(1), &store.actor()).await;
    assert!(store.prove(&new.secret.id, at(1)).await.unwrap());
    let head = store.head().await.unwrap();

    let again = NewCredential { secret: new_secret(), ..new_token(&store.administrator.id) };
    let (repeated, revision) =
        store.insert_credential(&again, Some(&request(1)), &store.actor()).await.unwrap();
    assert!(repeated.already_used);
    assert_eq!(repeated.kept.credential.id, new.id);
    assert_eq!(repeated.kept.secret.id, new.secret.id);
    assert_eq!(revision, head);
    assert_eq!(store.found(&again.secret.digest).await, None);
    assert_eq!(store.found(&new.secret.digest).await.unwrap().credential.id, new.id);
    assert_eq!(store.credential(token(&again.id)).await.unwrap(), None);
}

async fn repeat_does_not_revive_a_revoked_credential(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.repeat(&new, &request(1), &store.actor()).await;
    let head = store.revoke(&new.id).await;
    let again = NewCredential { secret: new_secret(), ..new.clone() };
    let repeated = store.repeat(&again, &request(1), &store.actor()).await;
    assert!(repeated.already_used);
    assert_eq!(repeated.kept.credential.revoked_at, Some(at(0)));
    assert_eq!(store.found(&again.secret.digest).await, None);
    assert_eq!(store.head().await.unwrap(), head);
}

async fn revoked_caller_replaces_no_secret(engine: Engine) {
    let store = TestStore::new(engine).await;
    let caller = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    let actor = store.actor_with(&caller);
    let new = new_token(&store.administrator.id);
    store.repeat(&new, &request(1), &actor).await;
    store.revoke(&caller).await;
    let again = NewCredential { secret: new_secret(), ..new.clone() };
    let refused = store.insert_credential(&again, Some(&request(1)), &actor).await;
    assert_eq!(refusal(refused), Refusal::CallerRevoked);
    assert!(store.found(&new.secret.digest).await.is_some());
}

async fn request_id_is_for_one_request(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.repeat(&new, &request(1), &store.actor()).await;
    let other = new_token(&store.administrator.id);
    let body = Repeat { body_hash: [2; 32], ..request(1) };
    let refused = store.insert_credential(&other, Some(&body), &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::RequestIdReused);
    assert!(store.found(&new.secret.digest).await.is_some());
    assert_eq!(store.credential(token(&other.id)).await.unwrap(), None);

    let made = store.repeat(&other, &request(2), &store.actor()).await;
    assert_eq!(made.kept.credential.id, other.id);
}

async fn request_ids_of_two_callers_are_apart(engine: Engine) {
    let store = TestStore::new(engine).await;
    let other_caller = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    let (mine, theirs) = (new_token(&store.administrator.id), new_token(&store.administrator.id));
    store.repeat(&mine, &request(1), &store.actor()).await;
    let body = Repeat { body_hash: [2; 32], ..request(1) };
    let made = store.repeat(&theirs, &body, &store.actor_with(&other_caller)).await;
    assert_eq!(made.kept.credential.id, theirs.id);
    assert!(store.found(&mine.secret.digest).await.is_some());
    assert!(store.found(&theirs.secret.digest).await.is_some());
}

async fn request_id_is_free_again_when_its_lifetime_is_over(engine: Engine) {
    let store = TestStore::new(engine).await;
    assert_eq!(REQUEST_ID_LIFETIME, Duration::from_micros(DAY.unsigned_abs()));
    let new = new_token(&store.administrator.id);
    store.repeat(&new, &request(1), &store.actor()).await;
    let again = NewCredential { secret: new_secret(), ..new.clone() };
    let last = store.repeat(&again, &request(1), &store.actor_at(DAY - 1)).await;
    assert_eq!(last.kept.credential.id, new.id);

    let next = new_token(&store.administrator.id);
    let body = Repeat { body_hash: [2; 32], ..request(1) };
    let made = store.repeat(&next, &body, &store.actor_at(DAY)).await;
    assert!(!made.already_used);
    assert_eq!(made.kept.credential.id, next.id);
    assert!(store.found(&again.secret.digest).await.is_some());

    // It is taken again, and for as long.
    let again = NewCredential { secret: new_secret(), ..next.clone() };
    let repeated = store.repeat(&again, &body, &store.actor_at(2 * DAY - 1)).await;
    assert_eq!(repeated.kept.credential.id, next.id);
}

async fn refused_creation_leaves_its_request_id_free(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    let beyond = NewCredential { quota: 1, ..new.clone() };
    let refused = store.insert_credential(&beyond, Some(&request(1)), &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::QuotaReached);
    let body = Repeat { body_hash: [2; 32], ..request(1) };
    let made = store.repeat(&new, &body, &store.actor()).await;
    assert_eq!(made.kept.credential.id, new.id);
}

async fn identical_requests_at_once_make_one_credential(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let results = at_once(16, |_| {
        let (inner, actor, new) = (Arc::clone(&store.store), store.actor(), new_token(&user.id));
        async move {
            let result = inner.insert_credential(&new, Some(&request(1)), &actor).await;
            (new.secret.digest, result.unwrap())
        }
    })
    .await;
    let kept = store
        .list_credentials(&of(&user), Kind::PersonalAccessToken, true, None, 99)
        .await
        .unwrap();
    assert_eq!(kept.len(), 1);
    let mut live = Vec::new();
    for (digest, (inserted, _)) in &results {
        assert!(!inserted.already_used, "nobody proved a secret");
        assert_eq!(inserted.kept.credential.id, kept[0].credential.id);
        live.extend(store.found(digest).await.map(|_| inserted.kept.secret.id.clone()));
    }
    assert_eq!(live, [kept[0].secret.id.clone()]);
    // One made it, and fifteen changed it.
    assert_eq!(store.head().await.unwrap().number, 15);
}

async fn credential_of_another_owner_or_kind_is_not_there(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let new = new_token(&alice.id);
    let kept = store.keep(&new).await;
    let (id, kind) = (new.id.0.as_str(), Kind::PersonalAccessToken);
    let changes =
        CredentialChanges { name: Some("x".parse().unwrap()), ..CredentialChanges::default() };
    for target in [
        Target { id, kind, reach: &of(&bob) },
        Target { id, kind: Kind::ApiClientAuthorization, reach: &ANYWHERE },
        Target { id: "nobody's", kind, reach: &ANYWHERE },
    ] {
        let actor = store.actor();
        assert_eq!(store.credential(target).await.unwrap(), None, "{target:?}");
        let updated = store.update_credential(target, &changes, &actor).await.unwrap();
        assert_eq!(updated, None, "{target:?}");
        let revoked = store.revoke_credential(target, true, &actor).await.unwrap();
        assert_eq!(revoked, None, "{target:?}");
    }
    for reach in [&ANYWHERE, &of(&alice)] {
        let there = store.credential(Target { id, kind, reach }).await.unwrap();
        assert_eq!(there.as_ref(), Some(&kept));
    }
}

async fn list_has_the_credentials_of_one_owner_and_kind(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let first = store.keep_as(&new_token(&alice.id), &store.actor_at(0)).await;
    let second = store.keep_as(&new_token(&alice.id), &store.actor_at(1)).await;
    let third = store.keep_as(&new_token(&alice.id), &store.actor_at(2)).await;
    let other_kind = store.keep(&new_authorization(&alice.id)).await;
    let of_bob = store.keep(&new_token(&bob.id)).await;
    store.revoke(&second.credential.id).await;
    let revoked = store.credential(token(&second.credential.id)).await.unwrap().unwrap();

    let list = async |owner: &User, kind, with_revoked| {
        store.list_credentials(&of(owner), kind, with_revoked, None, 99).await.unwrap()
    };
    let (pat, authorization) = (Kind::PersonalAccessToken, Kind::ApiClientAuthorization);
    assert_eq!(list(&alice, pat, false).await, [third.clone(), first.clone()]);
    assert_eq!(list(&alice, pat, true).await, [third, revoked, first]);
    assert_eq!(list(&alice, authorization, true).await, [other_kind]);
    assert_eq!(list(&bob, pat, true).await, [of_bob]);
    assert_eq!(list(&bob, authorization, true).await, []);
}

async fn pages_of_credentials_lose_and_double_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let mut newest_first = Vec::new();
    for later in [0, 0, 0, 1, 1, 1, 1, 2] {
        newest_first.push(store.keep_as(&new_token(&user.id), &store.actor_at(later)).await);
    }
    let place = |kept: &Kept| Cursor {
        created_at: kept.credential.created_at,
        id: kept.credential.id.0.clone(),
    };
    newest_first.sort_by_key(|kept| (kept.credential.created_at, kept.credential.id.0.clone()));
    newest_first.reverse();
    for size in 1..=9 {
        let mut listed: Vec<Kept> = Vec::new();
        loop {
            let after = listed.last().map(place);
            let page = store
                .list_credentials(
                    &of(&user),
                    Kind::PersonalAccessToken,
                    false,
                    after.as_ref(),
                    size,
                )
                .await
                .unwrap();
            assert!(i64::try_from(page.len()).unwrap() <= size);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= newest_first.len(), "in pages of {size}");
        }
        assert_eq!(listed, newest_first, "in pages of {size}");
    }
}

async fn last_use_is_listed(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let new = new_token(&user.id);
    store.keep(&new).await;
    store
        .sql(&format!(
            "INSERT INTO last_uses (credential_id, last_used_at, last_used_ip) \
             VALUES ('{}', {NOW}, '203.0.113.8')",
            new.id.0
        ))
        .await;
    let listed = store
        .list_credentials(&of(&user), Kind::PersonalAccessToken, false, None, 9)
        .await
        .unwrap();
    assert_eq!(listed[0].last_used_at, Some(at(0)));
    assert_eq!(listed[0].last_used_ip.as_deref(), Some("203.0.113.8"));
    assert_eq!(store.credential(token(&new.id)).await.unwrap().as_ref(), listed.first());
}

async fn update_changes_what_it_names_and_nothing_else(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    let mut expected = store.keep(&new).await;
    let bystander = store.keep(&new_token(&store.administrator.id)).await;
    let head = store.head().await.unwrap();
    for (later, name, description) in
        [(1, Some("cd"), None), (2, None, Some("")), (3, Some("ci"), Some("deploys"))]
    {
        let changes = CredentialChanges {
            name: name.map(|name| name.parse().unwrap()),
            description: description.map(|description| description.parse().unwrap()),
        };
        let updated =
            store.update_credential(token(&new.id), &changes, &store.actor_at(later)).await;
        let (updated, revision) = updated.unwrap().unwrap();
        assert_eq!(revision, head);
        expected.credential.updated_at = at(later);
        let Detail::PersonalAccessToken { name, description } = &mut expected.credential.detail
        else {
            unreachable!("it is a personal access token")
        };
        *name = changes.name.unwrap_or_else(|| name.clone());
        *description = changes.description.unwrap_or_else(|| description.clone());
        assert_eq!(updated, expected);
        assert_eq!(store.credential(token(&new.id)).await.unwrap().as_ref(), Some(&expected));
    }
    let nothing = CredentialChanges::default();
    let updated = store.update_credential(token(&new.id), &nothing, &store.actor_at(4)).await;
    assert_eq!(updated.unwrap().unwrap().0, expected);
    let unchanged = store.credential(token(&bystander.credential.id)).await.unwrap();
    assert_eq!(unchanged, Some(bystander));
}

async fn revoked_credential_is_not_updated(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    store.revoke(&new.id).await;
    let before = store.credential(token(&new.id)).await.unwrap();
    let changes =
        CredentialChanges { name: Some("cd".parse().unwrap()), ..CredentialChanges::default() };
    let refused = store.update_credential(token(&new.id), &changes, &store.actor_at(1)).await;
    assert_eq!(refusal(refused), Refusal::TokenRevoked);
    assert_eq!(store.credential(token(&new.id)).await.unwrap(), before);
}

async fn update_that_a_revocation_overtakes_is_refused(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let actions = store.actions().await;
    let mut revocation = Sql::open(&store.place).await;
    revocation.run(begin(engine)).await.unwrap();
    let revoke = format!("UPDATE credentials SET revoked_at = 42 WHERE id = '{}'", new.id.0);
    revocation.run(&revoke).await.unwrap();
    let update = tokio::spawn({
        let (inner, actor, id) = (Arc::clone(&store.store), store.actor(), new.id.clone());
        let changes =
            CredentialChanges { name: Some("cd".parse().unwrap()), ..CredentialChanges::default() };
        async move { inner.update_credential(token(&id), &changes, &actor).await }
    });
    store.until_it_waits(&update).await;
    revocation.run("COMMIT").await.unwrap();
    assert_eq!(refusal(update.await.unwrap()), Refusal::TokenRevoked);
    assert_eq!(store.actions().await, actions);
}

async fn caller_who_lost_its_right_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let shown_as = |name: &str| UserChanges {
        display_name: Some(Some(name.parse().unwrap())),
        ..UserChanges::default()
    };
    let set = |what: &str| format!("UPDATE {what}");
    let mut deputies = 0;
    for lost in [
        "credentials SET revoked_at = 1 WHERE id = 'TOKEN'",
        "users SET is_active = FALSE WHERE id = 'USER'",
        "users SET is_admin = FALSE WHERE id = 'USER'",
        "users SET token_epoch = token_epoch + 1 WHERE id = 'USER'",
        "store SET token_epoch = token_epoch + 1",
    ] {
        deputies += 1;
        let deputy = NewUser { is_admin: true, ..new_user(&format!("deputy{deputies}")) };
        store.insert_user(&deputy, &service()).await.unwrap();
        let held = new_token(&deputy.id);
        store.insert_credential(&held, None, &service()).await.unwrap();
        let actor = Actor {
            user_id: deputy.id.clone(),
            basis: Basis::Administrator,
            ..store.actor_with(&held.id)
        };
        let name = UserRef::Id(bob.id.clone());
        store.update_user(&name, &shown_as("before"), &actor).await.unwrap();

        let lost = lost.replace("TOKEN", &held.id.0).replace("USER", deputy.id.as_str());
        store.sql(&set(&lost)).await;
        let actions = store.actions().await;
        let head = store.head().await.unwrap();
        let updated = store.update_user(&name, &shown_as("after"), &actor).await;
        assert_eq!(refusal(updated), Refusal::CallerRevoked, "{lost}");
        let made = store.insert_user(&new_user("carol"), &actor).await;
        assert_eq!(refusal(made), Refusal::CallerRevoked, "{lost}");
        let issued = store.insert_credential(&new_token(&alice.id), None, &actor).await;
        assert_eq!(refusal(issued), Refusal::CallerRevoked, "{lost}");
        assert_eq!(store.head().await.unwrap(), head, "{lost}");
        assert_eq!(store.actions().await, actions, "{lost}");
    }
}

async fn caller_who_is_revoked_while_its_change_waits_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mallory = store.user("mallory").await;
    let caller = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    let mut revocation = Sql::open(&store.place).await;
    revocation.run(begin(engine)).await.unwrap();
    let hold = format!("UPDATE users SET updated_at = 1 WHERE id = '{}'", mallory.id);
    revocation.run(&hold).await.unwrap();
    let revoke = format!("UPDATE credentials SET revoked_at = 1 WHERE id = '{}'", caller.0);
    revocation.run(&revoke).await.unwrap();
    let update = tokio::spawn({
        let (inner, actor) = (Arc::clone(&store.store), store.actor_with(&caller));
        let name = UserRef::Id(mallory.id.clone());
        let changes = UserChanges { is_admin: Some(true), ..UserChanges::default() };
        async move { inner.update_user(&name, &changes, &actor).await }
    });
    store.until_it_waits(&update).await;
    revocation.run("COMMIT").await.unwrap();
    assert_eq!(refusal(update.await.unwrap()), Refusal::CallerRevoked);
    let after = store.store.user(&UserRef::Id(mallory.id)).await.unwrap().unwrap();
    assert!(!after.is_admin);
}

async fn administrator_may_step_down_and_be_no_administrator_after_it(engine: Engine) {
    let store = TestStore::new(engine).await;
    let deputy = NewUser { is_admin: true, ..new_user("deputy") };
    store.insert_user(&deputy, &store.actor()).await.unwrap();
    let actor = Actor { basis: Basis::Administrator, ..store.actor() };
    let name = UserRef::Id(store.administrator.id.clone());
    let down = UserChanges { is_admin: Some(false), ..UserChanges::default() };
    let (stepped_down, _) = store.update_user(&name, &down, &actor).await.unwrap().unwrap();
    assert!(!stepped_down.is_admin);
    let up = UserChanges { is_admin: Some(true), ..UserChanges::default() };
    let refused = store.update_user(&name, &up, &actor).await;
    assert_eq!(refusal(refused), Refusal::CallerRevoked);
}

async fn what_is_dead_for_long_is_purged_and_nothing_else(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let expiring = |at| NewCredential { expires_at: Some(at), ..new_token(&user.id) };
    let (revoked, expired, late) = (new_token(&user.id), expiring(at(9)), expiring(at(10)));
    let ending = |at| NewCredential { expires_at: Some(at), ..new_authorization(&user.id) };
    let (extendable, extended) = (ending(at(9)), ending(at(10)));
    let live = new_token(&user.id);
    for new in [&revoked, &expired, &late, &extendable, &extended, &live] {
        store.keep(new).await;
    }
    store.repeat(&new_token(&user.id), &request(1), &store.actor()).await;
    store.revoke(&revoked.id).await;

    // What a dead one has made is revoked by way of it, so it is kept with that.
    let maker = new_token(&user.id);
    store.keep(&maker).await;
    let child = new_token(&user.id);
    store.keep_as(&child, &store.actor_with_owner(&maker, &user)).await;
    store.revoke(&maker.id).await;

    let lifetime = i64::try_from(REQUEST_ID_LIFETIME.as_micros()).unwrap();
    let purger = Actor { at: at(lifetime - 1), ..service() };
    assert_eq!(store.purge(at(10), &purger).await.unwrap(), 3);
    for (new, is_there) in [
        (&revoked, false),
        (&expired, false),
        (&late, true),
        (&extendable, false),
        (&extended, true),
        (&live, true),
        (&maker, true),
        (&child, true),
    ] {
        assert_eq!(store.found(&new.secret.digest).await.is_some(), is_there, "{new:?}");
    }
    assert_eq!(store.purge(at(10), &purger).await.unwrap(), 0);
    let actions = store.actions().await;
    assert_eq!(actions.iter().filter(|action| *action == "credential.purge").count(), 1);

    let purger = Actor { at: at(lifetime), ..service() };
    assert_eq!(store.purge(at(10), &purger).await.unwrap(), 1, "the request id is over");
    assert!(store.texts("SELECT request_id FROM request_ids").await.is_empty());
}

async fn personal_access_token_alone_is_updated(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_authorization(&store.administrator.id);
    let kept = store.keep(&new).await;
    let target = Target { id: &new.id.0, kind: Kind::ApiClientAuthorization, reach: &ANYWHERE };
    let name =
        CredentialChanges { name: Some("cd".parse().unwrap()), ..CredentialChanges::default() };
    for changes in [name, CredentialChanges::default()] {
        let updated = store.update_credential(target, &changes, &store.actor_at(1)).await.unwrap();
        assert_eq!(updated, None, "{changes:?}");
    }
    assert_eq!(store.credential(target).await.unwrap(), Some(kept));
}

async fn first_revocation_counts_and_later_ones_change_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let new = new_token(&user.id);
    let before = store.keep(&new).await;
    let bystander = new_token(&user.id);
    store.keep(&bystander).await;
    let mut first = None;
    for later in 1..=3 {
        let actor = store.actor_at(later);
        let (revoked, revision) =
            store.revoke_credential(token(&new.id), later == 2, &actor).await.unwrap().unwrap();
        assert!(!revoked.more);
        assert_eq!(revoked.kept.credential.revoked_at, Some(at(1)));
        assert_eq!(revoked.kept.credential.updated_at, at(1));
        assert_eq!(revoked.kept.secret, before.secret);
        assert_eq!(*first.get_or_insert(revision), revision);
        let found = store.found(&new.secret.digest).await.unwrap();
        assert_eq!(found.credential, revoked.kept.credential);
    }
    assert_eq!(store.head().await.unwrap().number, 1);
    assert_eq!(store.touched().await, [touches(&new.id)]);
    assert_eq!(store.found(&bystander.secret.digest).await.unwrap().credential.revoked_at, None);
}

async fn descendants_of_any_depth_are_revoked_a_thousand_at_a_time(engine: Engine) {
    let store = TestStore::new(engine).await;
    let root = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    let child = new_token(&store.administrator.id);
    store.keep_as(&child, &store.actor_with(&root)).await;
    store.keep_as(&new_token(&store.administrator.id), &store.actor_with(&root)).await;
    // Of the child a chain of 1,000, and of its 500th link 500 more; the 700th
    // link was revoked before, what was made with it was not.
    let made_with = format!(
        "CASE WHEN i = 1 THEN '{}' WHEN i <= 1000 THEN 'link-' || CAST(i - 1 AS TEXT) \
         ELSE 'link-500' END",
        child.id.0
    );
    store
        .sql(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) {}; \
             UPDATE credentials SET revoked_at = 42 WHERE id = 'link-700'",
            descendant("'link-' || CAST(i AS TEXT)", &child.id, &made_with)
        ))
        .await;

    let (revoked, revision) =
        store.revoke_credential(token(&child.id), false, &store.actor()).await.unwrap().unwrap();
    assert!(!revoked.more);
    assert_eq!(revision.number, 1);
    let live = "SELECT id FROM credentials WHERE revoked_at IS NULL AND id LIKE 'link-%'";
    assert_eq!(store.texts(live).await.len(), 1499, "not without being asked to");

    let mut calls = 0;
    loop {
        let actor = store.actor_at(1);
        let (revoked, revision) =
            store.revoke_credential(token(&child.id), true, &actor).await.unwrap().unwrap();
        calls += 1;
        assert_eq!(revision.number, 1 + calls);
        assert_eq!(revoked.kept.credential.revoked_at, Some(at(0)), "the first counts");
        if !revoked.more {
            break;
        }
    }
    assert_eq!(calls, 2);
    assert_eq!(store.texts(live).await, Vec::<String>::new());
    let first_counts = "SELECT CAST(revoked_at AS TEXT) FROM credentials WHERE id = 'link-700'";
    assert_eq!(store.texts(first_counts).await, ["42"]);
    let untouched = "SELECT id FROM credentials WHERE revoked_at IS NULL AND id NOT LIKE 'link-%'";
    assert_eq!(store.texts(untouched).await.len(), 3, "ancestors and siblings stay");

    let mut sizes = Vec::new();
    let mut all = HashSet::new();
    for touched in store.touched().await {
        let ids: Vec<(String, String)> = serde_json::from_str(&touched).unwrap();
        sizes.push(i64::try_from(ids.len()).unwrap());
        all.extend(ids);
    }
    assert_eq!(sizes, [1, MAX_ROWS, 499]);
    assert_eq!(all.len(), 1500);
}

async fn revocation_that_fills_its_transaction_is_whole(engine: Engine) {
    let store = TestStore::new(engine).await;
    let root = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    store
        .sql(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) {}",
            descendant("'child-' || CAST(i AS TEXT)", &root, &format!("'{}'", root.0))
        ))
        .await;
    let revoke = async || {
        store.revoke_credential(token(&root), true, &store.actor()).await.unwrap().unwrap()
    };
    let (_, revision) = revoke().await;
    assert_eq!(revision.number, 1);
    let live = "SELECT id FROM credentials WHERE revoked_at IS NULL";
    assert_eq!(store.texts(live).await, [store.first.0.as_str()]);
    let (revoked, again) = revoke().await;
    assert!(!revoked.more);
    assert_eq!(again, revision);
}

async fn what_is_made_while_its_maker_is_being_revoked_is_revoked_with_it(engine: Engine) {
    let store = TestStore::new(engine).await;
    let root = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    let child = new_token(&store.administrator.id);
    store.keep_as(&child, &store.actor_with(&root)).await;

    // A creation with the child that holds the child and is not committed yet.
    let mut creation = Sql::open(&store.place).await;
    creation.run(begin(engine)).await.unwrap();
    if engine == Engine::Postgres {
        let hold = format!("SELECT id FROM credentials WHERE id = '{}' FOR SHARE", child.id.0);
        creation.run(&hold).await.unwrap();
    }
    let insert = descendant("'grandchild'", &child.id, &format!("'{}'", child.id.0));
    creation.run(&format!("WITH n (i) AS (SELECT 1) {insert}")).await.unwrap();

    let revocation = tokio::spawn({
        let (inner, actor, root) = (Arc::clone(&store.store), store.actor(), root.clone());
        async move { inner.revoke_credential(token(&root), true, &actor).await }
    });
    store.until_it_waits(&revocation).await;
    creation.run("COMMIT").await.unwrap();
    let mut more = revocation.await.unwrap().unwrap().unwrap().0.more;
    while more {
        let revoked = store.revoke_credential(token(&root), true, &store.actor()).await;
        more = revoked.unwrap().unwrap().0.more;
    }
    let live = "SELECT id FROM credentials WHERE revoked_at IS NULL";
    assert_eq!(store.texts(live).await, [store.first.0.as_str()]);
}

async fn user_comes_back_as_it_was_given_and_is_found_by_each_of_its_names(engine: Engine) {
    let store = TestStore::new(engine).await;
    let head = store.head().await.unwrap();
    let plain = new_user("plain");
    let full = NewUser {
        display_name: Some("Åse \"the\" O'Neil".parse().unwrap()),
        kind: UserKind::Service,
        is_admin: true,
        is_active: false,
        external_id: Some("okta|1".parse().unwrap()),
        ..new_user("full")
    };
    for new in [&plain, &full] {
        let (user, revision) = store.insert_user(new, &store.actor_at(1)).await.unwrap();
        let expected = User {
            id: new.id.clone(),
            number: user.number,
            handle: new.handle.clone(),
            display_name: new.display_name.clone(),
            kind: new.kind,
            is_admin: new.is_admin,
            is_active: new.is_active,
            external_id: new.external_id.clone(),
            created_at: at(1),
            updated_at: at(1),
            deleted_at: None,
        };
        assert_eq!(user, expected);
        assert_eq!(revision, head, "it has no token whose answer could change");
        let mut names = vec![UserRef::Id(user.id.clone()), UserRef::Handle(user.handle.clone())];
        names.extend(user.external_id.clone().map(UserRef::External));
        for name in names {
            assert_eq!(store.store.user(&name).await.unwrap().as_ref(), Some(&user), "{name:?}");
        }
    }
    for name in [
        UserRef::Id(new_user("nobody").id),
        UserRef::Handle("nobody".parse().unwrap()),
        UserRef::External("okta|2".parse().unwrap()),
        // A name of one sort is none of another.
        UserRef::External("full".parse().unwrap()),
    ] {
        assert_eq!(store.store.user(&name).await.unwrap(), None, "{name:?}");
    }
}

async fn handle_and_external_id_are_those_of_one_user(engine: Engine) {
    let store = TestStore::new(engine).await;
    let external_id = Some("okta|1".parse().unwrap());
    let alice = NewUser { external_id: external_id.clone(), ..new_user("alice") };
    store.insert_user(&alice, &store.actor()).await.unwrap();
    let bob = store.user("bob").await;
    let taken = |result: Result<User, StoreError>| {
        let Err(StoreError::AlreadyExists(field)) = result else { panic!("{result:?}") };
        field
    };
    let insert =
        async |new: NewUser| store.insert_user(&new, &store.actor()).await.map(|(user, _)| user);
    assert_eq!(taken(insert(new_user("alice")).await), Unique::Handle);
    let double = NewUser { external_id: external_id.clone(), ..new_user("carol") };
    assert_eq!(taken(insert(double).await), Unique::ExternalId);

    let handle = UserChanges { handle: Some(alice.handle), ..UserChanges::default() };
    assert_eq!(taken(store.update(&bob, handle).await), Unique::Handle);
    let external = UserChanges { external_id: Some(external_id), ..UserChanges::default() };
    assert_eq!(taken(store.update(&bob, external).await), Unique::ExternalId);
    assert_eq!(store.store.user(&UserRef::Id(bob.id.clone())).await.unwrap(), Some(bob));
    assert_eq!(store.head().await.unwrap().number, 0);
    assert_eq!(store.actions().await, ["user.create", "user.create"]);
}

async fn names_of_a_deleted_user_are_free_and_it_is_found_by_id_alone(engine: Engine) {
    let store = TestStore::new(engine).await;
    let external_id = Some("okta|1".parse().unwrap());
    let new = NewUser { external_id: external_id.clone(), ..new_user("alice") };
    let (former, _) = store.insert_user(&new, &store.actor()).await.unwrap();
    store
        .sql(&format!(
            "UPDATE users SET is_active = FALSE, deleted_at = 42 WHERE id = '{}'",
            former.id
        ))
        .await;
    let handle = UserRef::Handle(former.handle.clone());
    let external = UserRef::External(external_id.clone().unwrap());
    assert_eq!(store.store.user(&handle).await.unwrap(), None);
    assert_eq!(store.store.user(&external).await.unwrap(), None);
    let by_id = store.store.user(&UserRef::Id(former.id.clone())).await.unwrap().unwrap();
    assert_eq!(by_id.deleted_at, Timestamp::from_micros(42));

    let again = NewUser { external_id, ..new_user("alice") };
    let (present, _) = store.insert_user(&again, &store.actor()).await.unwrap();
    assert_eq!(store.store.user(&handle).await.unwrap().as_ref(), Some(&present));
    assert_eq!(store.store.user(&external).await.unwrap(), Some(present));
}

async fn user_update_changes_what_it_names_and_nothing_else(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut expected = store.user("alice").await;
    let bystander = store.user("bob").await;
    let name = UserRef::Id(expected.id.clone());
    let mut later = 0;
    let mut check = async |changes: UserChanges, change: &dyn Fn(&mut User)| {
        later += 1;
        change(&mut expected);
        expected.updated_at = at(later);
        let updated = store.update_user(&name, &changes, &store.actor_at(later)).await.unwrap();
        assert_eq!(updated.unwrap().0, expected, "{changes:?}");
        let read = store.store.user(&name).await.unwrap();
        assert_eq!(read.as_ref(), Some(&expected), "{changes:?}");
    };
    let none = UserChanges::default;
    let shown = || Some("Alice".parse().unwrap());
    let external = || Some("okta|1".parse().unwrap());
    check(UserChanges { handle: Some("al".parse().unwrap()), ..none() }, &|user| {
        user.handle = "al".parse().unwrap();
    })
    .await;
    check(UserChanges { display_name: Some(shown()), ..none() }, &|user| {
        user.display_name = shown();
    })
    .await;
    check(UserChanges { external_id: Some(external()), ..none() }, &|user| {
        user.external_id = external();
    })
    .await;
    check(UserChanges { kind: Some(UserKind::Service), ..none() }, &|user| {
        user.kind = UserKind::Service;
    })
    .await;
    check(UserChanges { is_admin: Some(true), ..none() }, &|user| user.is_admin = true).await;
    check(UserChanges { is_active: Some(false), ..none() }, &|user| user.is_active = false).await;
    check(UserChanges { is_active: Some(true), ..none() }, &|user| user.is_active = true).await;
    check(UserChanges { is_admin: Some(false), ..none() }, &|user| user.is_admin = false).await;
    check(UserChanges { display_name: Some(None), ..none() }, &|user| user.display_name = None)
        .await;
    check(UserChanges { external_id: Some(None), ..none() }, &|user| user.external_id = None).await;
    let unchanged = store.store.user(&UserRef::Id(bystander.id.clone())).await.unwrap();
    assert_eq!(unchanged, Some(bystander));
}

async fn user_update_takes_a_revision_and_touches_the_user(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    for round in 1..=3 {
        let name = UserRef::Handle(user.handle.clone());
        let changes = UserChanges { is_active: Some(round == 2), ..UserChanges::default() };
        let updated = store.update_user(&name, &changes, &store.actor()).await.unwrap();
        let revision = updated.unwrap().1;
        assert_eq!(revision.number, round);
        assert_eq!(store.head().await.unwrap(), revision);
        let touched = store.touched().await;
        assert_eq!(touched.last(), Some(&format!(r#"[["user","{}"]]"#, user.id)));
    }
}

async fn user_that_is_not_there_is_not_updated(engine: Engine) {
    let store = TestStore::new(engine).await;
    let deleted = store.user("alice").await;
    store
        .sql(&format!(
            "UPDATE users SET is_active = FALSE, deleted_at = 42 WHERE id = '{}'",
            deleted.id
        ))
        .await;
    let before = store.store.user(&UserRef::Id(deleted.id.clone())).await.unwrap();
    let actions = store.actions().await;
    for changes in [
        UserChanges { is_active: Some(true), ..UserChanges::default() },
        UserChanges { is_admin: Some(false), ..UserChanges::default() },
    ] {
        for name in [
            UserRef::Id(deleted.id.clone()),
            UserRef::Handle("alice".parse().unwrap()),
            UserRef::Id(new_user("nobody").id),
            UserRef::External("nobody".parse().unwrap()),
        ] {
            let updated = store.update_user(&name, &changes, &store.actor()).await.unwrap();
            assert_eq!(updated, None, "{name:?}");
        }
    }
    assert_eq!(store.store.user(&UserRef::Id(deleted.id)).await.unwrap(), before);
    assert_eq!(store.actions().await, actions);
    assert_eq!(store.head().await.unwrap().number, 0);
}

async fn system_user_does_not_change(engine: Engine) {
    let store = TestStore::new(engine).await;
    let id = UserRef::Id("zzzzz-tpzed-000000000000000".parse().unwrap());
    let before = store.store.user(&id).await.unwrap().unwrap();
    for changes in [
        UserChanges { is_active: Some(false), ..UserChanges::default() },
        UserChanges { display_name: Some(None), ..UserChanges::default() },
    ] {
        for name in [&id, &UserRef::Handle(before.handle.clone())] {
            let refused = store.update_user(name, &changes, &store.actor()).await;
            assert_eq!(refusal(refused), Refusal::SystemUser);
        }
    }
    assert_eq!(store.store.user(&id).await.unwrap(), Some(before));
}

async fn last_administrator_stays(engine: Engine) {
    let store = TestStore::new(engine).await;
    let first = &store.administrator;
    let demoted = || UserChanges { is_admin: Some(false), ..UserChanges::default() };
    let deactivated = || UserChanges { is_active: Some(false), ..UserChanges::default() };
    let alice = store.user("alice").await;
    let inactive = NewUser { is_admin: true, is_active: false, ..new_user("inactive") };
    store.insert_user(&inactive, &store.actor()).await.unwrap();
    for changes in [demoted(), deactivated()] {
        assert_eq!(refusal(store.update(first, changes).await), Refusal::LastAdministrator);
    }
    let still = store.store.user(&UserRef::Id(first.id.clone())).await.unwrap();
    assert_eq!(still.as_ref(), Some(first));
    assert_eq!(store.head().await.unwrap().number, 0);

    // Who is no administrator may step down, and so may one of two.
    store.update(&alice, demoted()).await.unwrap();
    let promoted = UserChanges { is_admin: Some(true), ..UserChanges::default() };
    store.update(&alice, promoted).await.unwrap();
    store.update(first, deactivated()).await.unwrap();
    assert_eq!(refusal(store.update(&alice, demoted()).await), Refusal::LastAdministrator);
}

async fn administrators_who_step_down_at_once_leave_one(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut administrators = vec![store.administrator.id.clone()];
    for number in 1..8 {
        let new = NewUser { is_admin: true, ..new_user(&format!("admin-{number}")) };
        administrators.push(store.insert_user(&new, &store.actor()).await.unwrap().0.id);
    }
    let results = at_once(administrators.len(), |number| {
        let (inner, actor) = (Arc::clone(&store.store), store.actor());
        let name = UserRef::Id(administrators[number].clone());
        let changes = if number % 2 == 0 {
            UserChanges { is_admin: Some(false), ..UserChanges::default() }
        } else {
            UserChanges { is_active: Some(false), ..UserChanges::default() }
        };
        async move { inner.update_user(&name, &changes, &actor).await }
    })
    .await;
    let refused: Vec<_> = results.into_iter().filter(Result::is_err).map(refusal).collect();
    assert_eq!(refused, [Refusal::LastAdministrator]);
}

async fn users_are_listed_by_what_they_are(engine: Engine) {
    let store = TestStore::new(engine).await;
    for (handle, kind, is_admin, is_active) in [
        ("person", UserKind::Human, false, true),
        ("program", UserKind::Service, false, true),
        ("former", UserKind::Human, false, false),
        ("boss", UserKind::Human, true, true),
        ("deleted", UserKind::Human, false, false),
    ] {
        let new = NewUser { kind, is_admin, is_active, ..new_user(handle) };
        store.insert_user(&new, &store.actor()).await.unwrap();
    }
    store.sql("UPDATE users SET deleted_at = 42 WHERE handle = 'deleted'").await;
    let list = async |filter: UserFilter| {
        let users = store.list_users(&filter, None, 99).await.unwrap();
        let mut handles: Vec<String> =
            users.iter().map(|user| user.handle.as_str().to_owned()).collect();
        handles.sort();
        handles.join(" ")
    };
    let any = UserFilter::default;
    assert_eq!(list(any()).await, "admin boss former person program system");
    let filter = UserFilter { with_deleted: true, ..any() };
    assert_eq!(list(filter).await, "admin boss deleted former person program system");
    let filter = UserFilter { is_active: Some(true), ..any() };
    assert_eq!(list(filter).await, "admin boss person program system");
    let filter = UserFilter { is_active: Some(false), ..any() };
    assert_eq!(list(filter).await, "former");
    let filter = UserFilter { is_admin: Some(true), ..any() };
    assert_eq!(list(filter).await, "admin boss system");
    let filter = UserFilter { is_admin: Some(false), is_active: Some(true), ..any() };
    assert_eq!(list(filter).await, "person program");
    let filter = UserFilter { kind: Some(UserKind::Service), ..any() };
    assert_eq!(list(filter).await, "program system");
    let filter = UserFilter { kind: Some(UserKind::Human), ..any() };
    assert_eq!(list(filter).await, "admin boss former person");
}

async fn pages_of_users_lose_and_double_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut newest_first = store.list_users(&UserFilter::default(), None, 9).await.unwrap();
    for (number, later) in [0, 1, 1, 1, 2, 2].into_iter().enumerate() {
        let new = new_user(&format!("user-{number}"));
        newest_first.push(store.insert_user(&new, &store.actor_at(later)).await.unwrap().0);
    }
    newest_first.sort_by_key(|user| (user.created_at, user.id.to_string()));
    newest_first.reverse();
    for size in 1..=9 {
        let mut listed: Vec<User> = Vec::new();
        loop {
            let after = listed
                .last()
                .map(|user| Cursor { created_at: user.created_at, id: user.id.to_string() });
            let page =
                store.list_users(&UserFilter::default(), after.as_ref(), size).await.unwrap();
            assert!(i64::try_from(page.len()).unwrap() <= size);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= newest_first.len(), "in pages of {size}");
        }
        assert_eq!(listed, newest_first, "in pages of {size}");
    }
}

async fn what_must_never_be_is_forbidden_by_the_schema(engine: Engine) {
    use ErrorKind::{
        CheckViolation as Check, ForeignKeyViolation as Foreign, NotNullViolation as Null,
        UniqueViolation as Double,
    };
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    store.workspace_with(&user, "member").await;
    let bound = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&user.id) };
    store.repeat(&bound, &request(1), &store.actor()).await;
    store.keep(&new_authorization(&user.id)).await;
    store
        .sql(&format!(
            "INSERT INTO organizations (id, slug, name, is_active, created_at, updated_at) \
             VALUES ('o2', 'o2', 'O', TRUE, 0, 0); \
             INSERT INTO workspaces (id, organization_id, slug, name, is_active, created_at, \
             updated_at) VALUES ('w2', 'o', 'w2', 'W', TRUE, 0, 0); \
             INSERT INTO memberships (id, user_id, organization_id, role, created_at, updated_at) \
             VALUES ('of o', '{user}', 'o', 'owner', 0, 0), ('of o2', '{user}', 'o2', 'owner', 0, 0); \
             INSERT INTO memberships (id, user_id, workspace_id, role, created_at, updated_at) \
             VALUES ('of w2', '{user}', 'w2', 'owner', 0, 0); \
             UPDATE users SET external_id = 'okta|1' WHERE handle = 'alice'; \
             INSERT INTO imported_shapes (id, prefix, length, alphabet, scheme, created_at) \
             VALUES ('s', 'ghp_', 40, 'base62', 'sha256', 0)",
            user = user.id
        ))
        .await;
    let pat = "UPDATE credentials SET {} WHERE workspace_id = 'w'";
    let first = format!("UPDATE credentials SET {{}} WHERE id = '{}'", store.first.0);
    let authorization = "UPDATE credentials SET {} WHERE kind = 'api_client_authorization'";
    let alice = "UPDATE users SET {} WHERE handle = 'alice'";
    let secret = format!("UPDATE secrets SET {{}} WHERE credential_id = '{}'", bound.id.0);
    let another_secret = format!(
        "INSERT INTO secrets (id, credential_id, record, shown, state, created_at, digest, pepper_id) \
         SELECT {{}} FROM secrets WHERE credential_id = '{}'",
        bound.id.0
    );
    let forbidden: &[(&str, ErrorKind, &[&str])] = &[
        (
            "{}",
            Check,
            &[
                "INSERT INTO store (id, cluster_id, bootstrapped_at) VALUES (2, 'yyyyy', 0)",
                "INSERT INTO revision (id, number, mark) VALUES (2, 0, 0)",
                "UPDATE revision SET number = -1",
                "INSERT INTO memberships (id, user_id, organization_id, workspace_id, role, created_at, \
             updated_at) SELECT 'x', id, 'o', 'w', 'member', 0, 0 FROM users WHERE handle = 'admin'",
                "INSERT INTO memberships (id, user_id, role, created_at, updated_at) \
             SELECT 'x', id, 'member', 0, 0 FROM users WHERE handle = 'admin'",
                "UPDATE memberships SET role = 'king'",
                "UPDATE request_ids SET body_hash = substr(body_hash, 1, 31)",
                "UPDATE imported_shapes SET length = 0",
            ],
        ),
        (
            "{}",
            Double,
            &[
                "INSERT INTO store (id, cluster_id, bootstrapped_at) VALUES (1, 'yyyyy', 0)",
                "INSERT INTO revision (id, number, mark) VALUES (1, 0, 0)",
                "INSERT INTO changes (revision, mark, changed_at, touched) VALUES (0, 1, 0, '[]')",
                "INSERT INTO peppers (id, is_current, created_at) VALUES ('other', TRUE, 0)",
                "UPDATE organizations SET slug = 'o'",
                "UPDATE organizations SET external_id = 'same'",
                "UPDATE workspaces SET slug = 'w'",
                "UPDATE workspaces SET external_id = 'same'",
                "UPDATE memberships SET workspace_id = 'w' WHERE workspace_id IS NOT NULL",
                "UPDATE memberships SET organization_id = 'o' WHERE organization_id IS NOT NULL",
                "INSERT INTO request_ids (caller_id, request_id, body_hash, credential_id, secret_id, created_at) \
             SELECT caller_id, request_id, body_hash, credential_id, secret_id, created_at FROM request_ids",
                "INSERT INTO imported_shapes (id, prefix, length, alphabet, scheme, created_at) \
             VALUES ('s2', 'ghp_', 40, 'hex', 'sha512', 0)",
            ],
        ),
        (
            "{}",
            Foreign,
            &[
                "DELETE FROM peppers",
                "DELETE FROM users",
                "DELETE FROM workspaces WHERE id = 'w'",
                "UPDATE workspaces SET organization_id = 'nobody'",
                "UPDATE memberships SET user_id = 'nobody' WHERE id = 'm'",
                "UPDATE memberships SET workspace_id = 'nowhere' WHERE id = 'm'",
                "UPDATE memberships SET organization_id = 'nowhere' WHERE id = 'of o'",
                "UPDATE request_ids SET credential_id = 'none'",
                "INSERT INTO last_uses (credential_id, last_used_at) VALUES ('none', 0)",
                "INSERT INTO verifier_uses (credential_id, verifier_id, client_ip, last_used_at) \
             VALUES ('none', 'none', '', 0)",
            ],
        ),
        ("{}", Null, &["UPDATE audit SET caller_user_id = NULL"]),
        (alice, Check, &["kind = 'robot'", "deleted_at = 1"]),
        (alice, Double, &["handle = 'admin'"]),
        ("UPDATE users SET {} WHERE handle = 'admin'", Double, &["external_id = 'okta|1'"]),
        (alice, Null, &["handle = NULL", "is_admin = NULL", "is_active = NULL"]),
        (
            &first,
            Check,
            &[
                "name = NULL",
                "description = NULL",
                "name = NULL, description = NULL",
                "kind = 'robot'",
                "kind = 'api_client_authorization'",
                "membership_id = 'm'",
                "organization_id = 'o'",
                "workspace_epoch = 0",
                "organization_epoch = 0",
                "workspace_id = 'w'",
            ],
        ),
        (
            pat,
            Check,
            &[
                "membership_id = NULL",
                "organization_id = NULL",
                "workspace_epoch = NULL",
                "organization_epoch = NULL",
            ],
        ),
        (
            authorization,
            Check,
            &[
                "name = 'ci'",
                "name = 'ci', description = 'builds'",
                "workspace_id = 'w', organization_id = 'o', membership_id = 'm', workspace_epoch = 0, \
             organization_epoch = 0",
            ],
        ),
        (
            pat,
            Foreign,
            &[
                "user_id = 'nobody'",
                "created_by_user_id = 'nobody'",
                "workspace_id = 'nowhere'",
                "organization_id = 'nowhere'",
            ],
        ),
        (
            pat,
            Null,
            &["user_id = NULL", "scopes = NULL", "allowed_ips = NULL", "user_epoch = NULL"],
        ),
        (
            &secret,
            Check,
            &[
                "digest = NULL",
                "pepper_id = NULL",
                "digest = substr(digest, 1, 31)",
                "record = 'the token itself'",
                "state = 'revived'",
            ],
        ),
        (&secret, Foreign, &["pepper_id = 'unknown'", "credential_id = 'none'"]),
        (&secret, Null, &["record = NULL", "credential_id = NULL"]),
        (
            &another_secret,
            Double,
            &[
                "'x', credential_id, record, shown, 'superseded', 0, digest, pepper_id",
                "'x', credential_id, record, shown, 'current', 0, NULL, NULL",
            ],
        ),
        (
            "INSERT INTO secrets (id, credential_id, record, shown, state, created_at) \
             SELECT i, credential_id, record, shown, 'pending', 0 \
             FROM secrets CROSS JOIN (SELECT 'x' AS i UNION ALL SELECT 'y') n",
            Double,
            &[""],
        ),
    ];
    let mut sql = Sql::open(&store.place).await;
    for (frame, expected, states) in forbidden {
        for state in *states {
            let statement = frame.replace("{}", state);
            let error = sql.run(&statement).await.expect_err(&statement);
            let kind = error.as_database_error().map(|error| error.kind());
            assert_eq!(kind.as_ref(), Some(expected), "{statement}: {error}");
        }
    }
    // What is forbidden twice is not forbidden once.
    let legitimate =
        another_secret.replace("{}", "'x', credential_id, record, shown, 'pending', 0, NULL, NULL");
    sql.run(&legitimate).await.unwrap();
    let retired = "INSERT INTO peppers (id, is_current, created_at) \
                   VALUES ('old', FALSE, 0), ('older', FALSE, 0)";
    sql.run(retired).await.unwrap();
}

async fn store_of_a_newer_schema_is_not_opened(engine: Engine) {
    let TestStore { store, place, .. } = TestStore::new(engine).await;
    store.close().await;
    drop(store);
    Sql::open(&place)
        .await
        .run(
            "INSERT INTO _sqlx_migrations \
             (version, description, installed_on, success, checksum, execution_time) \
             SELECT 9999, 'of a later program', installed_on, success, checksum, execution_time \
             FROM _sqlx_migrations WHERE version = 1",
        )
        .await
        .unwrap();
    for migrate in [Migrate::Auto, Migrate::Check] {
        let error = open(&place, migrate).await.err().expect("it is newer than the program");
        assert!(matches!(error, StoreError::Failed(_)), "{migrate:?}: {error:?}");
    }
    Sql::open(&place).await.run("DELETE FROM _sqlx_migrations WHERE version = 9999").await.unwrap();
    assert!(open(&place, Migrate::Check).await.unwrap().identity().await.unwrap().is_some());
}

async fn check_refuses_an_empty_store_and_leaves_it_so(engine: Engine) {
    let place = Place::new(engine).await;
    let error = open(&place, Migrate::Check).await.err().expect("it is empty");
    assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
    match engine {
        Engine::Postgres => {
            let tables = "SELECT CAST(tablename AS TEXT) FROM pg_tables \
                          WHERE schemaname = 'public'";
            let tables = Sql::open(&place).await.texts(tables).await;
            assert!(tables.is_empty(), "{tables:?}");
        }
        Engine::Sqlite => assert!(!place.path("data/token-authority.db").exists()),
    }
    open(&place, Migrate::Auto).await.unwrap().close().await;
    assert_eq!(open(&place, Migrate::Check).await.unwrap().identity().await.unwrap(), None);
}

async fn reopened_store_has_all_that_was_kept(engine: Engine) {
    let TestStore { store, place, administrator, first } = TestStore::new(engine).await;
    let new = new_token(&administrator.id);
    let actor = Actor { user_id: administrator.id.clone(), token_id: Some(first), ..service() };
    store.insert_credential(&new, None, &actor).await.unwrap();
    let (_, revision) =
        store.revoke_credential(token(&new.id), false, &actor).await.unwrap().unwrap();
    let kept = store.credential(token(&new.id)).await.unwrap();
    store.close().await;
    let closed = store.head().await;
    assert!(matches!(closed, Err(StoreError::Unavailable(_))), "{closed:?}");
    drop(store);

    for migrate in [Migrate::Auto, Migrate::Check] {
        let store = open(&place, migrate).await.unwrap();
        assert_eq!(store.head().await.unwrap(), revision);
        assert_eq!(store.credential(token(&new.id)).await.unwrap(), kept);
        assert!(!store.bootstrap(&self::first(), &service(), &|| Ok(())).await.unwrap());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn change_that_postgresql_gives_up_to_end_a_deadlock_is_tried_again() {
    let store = TestStore::new(Engine::Postgres).await;
    let parent = new_token(&store.administrator.id);
    store.keep(&parent).await;
    let child = new_token(&store.administrator.id);
    store.keep_as(&child, &store.actor_with(&parent.id)).await;

    let lock =
        |id: &CredentialId| format!("UPDATE credentials SET updated_at = 1 WHERE id = '{}'", id.0);
    let mut other = Sql::open(&store.place).await;
    // It is the store's transaction that notices.
    other.run("SET deadlock_timeout = '1min'").await.unwrap();
    other.run(begin(Engine::Postgres)).await.unwrap();
    other.run(&lock(&child.id)).await.unwrap();
    let revocation = tokio::spawn({
        let (inner, actor, id) = (Arc::clone(&store.store), store.actor(), parent.id.clone());
        async move { inner.revoke_credential(token(&id), true, &actor).await }
    });
    store.until_it_waits(&revocation).await;
    other.run(&lock(&parent.id)).await.unwrap();
    other.run("COMMIT").await.unwrap();
    let (revoked, _) = revocation.await.unwrap().unwrap().unwrap();
    assert!(revoked.kept.credential.revoked_at.is_some());
    let child = store.credential(token(&child.id)).await.unwrap().unwrap();
    assert!(child.credential.revoked_at.is_some());
    assert_eq!(store.head().await.unwrap().number, 1, "what was given up left no gap");
}

#[tokio::test]
async fn embedded_store_is_opened_once_at_a_time() {
    let TestStore { store, place, .. } = TestStore::new(Engine::Sqlite).await;
    for migrate in [Migrate::Auto, Migrate::Check] {
        let error = open(&place, migrate).await.err().expect("it is open already");
        assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
    }
    store.head().await.unwrap();
    drop(store);
    open(&place, Migrate::Auto).await.unwrap();
}

#[tokio::test]
async fn files_of_the_embedded_store_are_for_its_owner_alone() {
    let store = TestStore::new(Engine::Sqlite).await;
    let mut names = Vec::new();
    for entry in fs::read_dir(store.place.path("data")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(mode, 0o600, "{name}");
        names.push(name);
    }
    names.sort();
    let files = ["lock", "token-authority.db", "token-authority.db-shm", "token-authority.db-wal"];
    assert_eq!(names, files);
}

// Peppers.

fn other_pepper(byte: u8) -> PepperId {
    Pepper::to_file(&[byte; 32]).parse::<Pepper>().unwrap().id().clone()
}

async fn secret_under_a_pepper_that_is_not_loaded_is_told_and_is_a_candidate(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let (shown, own) = (new.secret.shown.as_str(), pepper().id().clone());
    let others: Vec<PepperId> = (10..14).map(other_pepper).collect();
    let with_own = [others[0].clone(), own];
    let unknown = [new_secret().digest];
    for (shown, loaded, expected) in [
        (shown, &others[..], true),
        (shown, &others[..1], true),
        (shown, &[], true),
        (shown, &with_own[..], false),
        ("pat_00000000", &others[..], false),
        ("", &others[..], false),
    ] {
        let unloaded = Unloaded { shown, loaded };
        let wanted = Wanted { digests: &unknown, unloaded, ..Wanted::default() };
        let lookup = store.find(wanted).await.unwrap();
        assert!(lookup.found.is_none());
        assert_eq!(lookup.has_unloaded, expected, "{unloaded:?}");
        // Of many each is told for itself.
        let other = Unloaded { shown: "pat_other", loaded };
        let wanted =
            [wanted, Wanted { unloaded: other, ..wanted }, Wanted { digests: &[], ..wanted }];
        let many = store.find_all(&wanted).await.unwrap().lookups.into_iter();
        let told: Vec<bool> = many.map(|lookup| lookup.unwrap().has_unloaded).collect();
        assert_eq!(told, [expected, false, expected], "{unloaded:?}");
        let candidates = store.candidates(unloaded).await.unwrap();
        let candidates: Vec<_> =
            candidates.iter().map(|candidate| (&candidate.digest, &*candidate.record)).collect();
        let all = [(&new.secret.digest, &*new.secret.record)];
        assert_eq!(candidates, if expected { &all[..] } else { &[] }, "{unloaded:?}");
    }
    // Once one is found, no other is asked about.
    let digests = [new.secret.digest.clone()];
    let unloaded = Unloaded { shown, loaded: &others };
    let wanted = Wanted { digests: &digests, unloaded, ..Wanted::default() };
    let lookup = store.find(wanted).await.unwrap();
    assert!(lookup.found.is_some() && !lookup.has_unloaded);
    for lookup in store.find_all(&[wanted, wanted]).await.unwrap().lookups {
        let lookup = lookup.unwrap();
        assert!(lookup.found.is_some() && !lookup.has_unloaded);
    }
}

async fn candidates_are_at_most_four(engine: Engine) {
    let store = TestStore::new(engine).await;
    for _ in 0..6 {
        let mut new = new_token(&store.administrator.id);
        new.secret.shown = "pat_00000000".to_owned();
        store.keep(&new).await;
    }
    let unloaded = Unloaded { shown: "pat_00000000", loaded: &[other_pepper(10)] };
    assert_eq!(store.candidates(unloaded).await.unwrap().len(), 4);
}

async fn secret_is_redigested_once_and_towards_the_current_pepper_alone(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    let kept = store.keep(&new).await;
    let (old, current) = (pepper().id().clone(), other_pepper(8));
    let redigest = async |from: &PepperId, to: &PepperId, digest: &Digest| {
        store.redigest(&kept.secret.id, from, to, digest, None).await.unwrap()
    };
    let digest = new_secret().digest;
    store.note_peppers(slice::from_ref(&current), at(0)).await.unwrap();
    assert!(!redigest(&old, &current, &digest).await, "it is not current");
    store.promote_pepper(&current, Promotion::Rotation, &service()).await.unwrap();
    assert!(!redigest(&current, &current, &digest).await, "the secret is not under it");
    assert!(!store.redigest("unknown", &old, &current, &digest, None).await.unwrap());
    assert_eq!(store.found(&new.secret.digest).await.unwrap().secret.pepper_id, Some(old.clone()));

    let (head, actions) = (store.head().await.unwrap(), store.actions().await);
    let redigested = at_once(8, |_| {
        let (store, id) = (Arc::clone(&store.store), kept.secret.id.clone());
        let (old, current, digest) = (old.clone(), current.clone(), digest.clone());
        async move { store.redigest(&id, &old, &current, &digest, None).await.unwrap() }
    })
    .await;
    assert_eq!(redigested.iter().filter(|redigested| **redigested).count(), 1);
    assert!(store.found(&new.secret.digest).await.is_none());
    let found = store.found(&digest).await.unwrap();
    assert_eq!(found.credential, kept.credential);
    assert_eq!(found.secret.id, kept.secret.id);
    assert_eq!(found.secret.pepper_id, Some(current));
    assert_eq!((store.head().await.unwrap(), store.actions().await), (head, actions));
}

async fn pepper_that_was_loaded_is_promoted_and_that_is_audited(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (first, second, third) = (pepper().id().clone(), other_pepper(8), other_pepper(9));
    let current = async || {
        let identity = store.identity().await.unwrap().unwrap();
        assert_eq!(store.look_up(&[]).await.current_pepper, identity.current_pepper);
        identity.current_pepper
    };
    let promote = async |id: &PepperId, because| {
        let actor =
            Actor { at: at(i64::try_from(store.actions().await.len()).unwrap()), ..service() };
        store.promote_pepper(id, because, &actor).await
    };
    let head = store.head().await.unwrap();
    assert_eq!(refusal(promote(&second, Promotion::Rotation).await), Refusal::NoPepper);
    store.note_peppers(&[first.clone(), second.clone(), third.clone()], at(0)).await.unwrap();
    assert!(!promote(&first, Promotion::Rotation).await.unwrap(), "it is current");
    assert!(store.actions().await.is_empty());
    assert_eq!(current().await, first);
    assert!(promote(&second, Promotion::Rotation).await.unwrap());
    assert!(!promote(&second, Promotion::Loss(second.clone())).await.unwrap());
    assert!(!promote(&third, Promotion::Loss(first.clone())).await.unwrap(), "it is not current");
    assert_eq!(current().await, second);
    assert!(promote(&third, Promotion::Loss(second.clone())).await.unwrap());
    assert_eq!(current().await, third);
    assert_eq!(store.actions().await, ["pepper.promote", "pepper.lost"]);
    let said = store
        .texts("SELECT targets || details FROM audit WHERE action LIKE 'pepper.%' ORDER BY occurred_at")
        .await;
    let expected = [(&second, &first), (&third, &second)]
        .map(|(now, before)| format!(r#"["{}"]{{"before":"{}"}}"#, now.as_str(), before.as_str()));
    assert_eq!(said, expected);
    assert_eq!(store.head().await.unwrap(), head, "no answer changes");
}

async fn promotions_at_once_leave_one_current_pepper(engine: Engine) {
    let store = TestStore::new(engine).await;
    let ids: Vec<PepperId> = (10..18).map(other_pepper).collect();
    store.note_peppers(&ids, at(0)).await.unwrap();
    let promoted = at_once(ids.len(), |number| {
        let (store, id) = (Arc::clone(&store.store), ids[number].clone());
        async move { store.promote_pepper(&id, Promotion::Rotation, &service()).await.unwrap() }
    })
    .await;
    assert_eq!(promoted, [true; 8]);
    assert_eq!(store.actions().await, ["pepper.promote"; 8]);
    let current = store.peppers().await.unwrap();
    assert_eq!(current.iter().filter(|pepper| pepper.is_current).count(), 1);
}

async fn peppers_are_listed_oldest_first_with_their_secrets(engine: Engine) {
    let store = TestStore::new(engine).await;
    for _ in 0..2 {
        store.keep(&new_token(&store.administrator.id)).await;
    }
    let (later, earlier) = (other_pepper(8), other_pepper(9));
    for _ in 0..2 {
        store.note_peppers(slice::from_ref(&later), at(2)).await.unwrap();
        store.note_peppers(&[earlier.clone(), pepper().id().clone()], at(1)).await.unwrap();
    }
    let kept =
        |id: &PepperId, is_current, secrets| KeptPepper { id: id.clone(), is_current, secrets };
    assert_eq!(
        store.peppers().await.unwrap(),
        [kept(pepper().id(), true, 3), kept(&earlier, false, 0), kept(&later, false, 0)]
    );
}

async fn upkeep_that_was_asked_for_is_written_before_it_ends(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(store.keep(&new_token(&store.administrator.id)).await.secret.id);
    }
    let to = other_pepper(8);
    store.note_peppers(slice::from_ref(&to), at(0)).await.unwrap();
    store.promote_pepper(&to, Promotion::Rotation, &service()).await.unwrap();
    let clock = Arc::new(TestClock::new());
    let system = service().user_id;
    let (upkeep, task) = Upkeep::start(Arc::clone(&store.store), clock, system, OnReuse::Report);
    for secret_id in ids {
        let (from, to, digest) = (pepper().id().clone(), to.clone(), new_secret().digest);
        upkeep.ask(Job::Redigest { secret_id, from, to, digest, sealed: None });
    }
    upkeep.finish(task).await;
    let peppers = store.peppers().await.unwrap();
    assert_eq!(peppers.iter().find(|pepper| pepper.id == to).unwrap().secrets, 100);
}
