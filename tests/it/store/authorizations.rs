//! API client authorizations: listed, changed, and kept recoverable.

use serde_json::{Value, json};
use token_authority::{
    domain::{
        Attribute, Comparand, Condition, Credential, Description, Direction, Filter, Names,
        Peppers, Sealed,
    },
    store::{AuthorizationQuery, AuthorizationUpdate, KeptSeal, TokensOf, Updated},
};

use super::*;

on_both_stores![
    // Listing.
    authorizations_are_listed_within_reach_the_newest_first,
    deleted_authorizations_are_not_listed_and_expired_ones_are,
    those_available_are_counted_whatever_the_page_has,
    secrets_and_scopes_are_compared_as_they_were_given,
    // Updating.
    updated_authorization_is_as_it_shall_be,
    update_of_what_is_as_it_shall_be_takes_no_revision,
    update_of_what_was_changed_since_changes_nothing,
    updates_at_once_change_it_once,
    authorization_that_is_not_there_is_not_updated,
    update_that_a_deletion_overtakes_changes_nothing,
    new_owner_of_an_update_must_be_there_and_active,
    authorization_that_is_given_away_ends_with_its_new_owner,
    quota_counts_what_is_given_or_revived,
    caller_may_give_its_own_authorization_away,
    // What is kept recoverable.
    seal_follows_its_secret_to_another_pepper,
    seals_are_told_by_their_pepper_and_forgotten_for_good,
    what_was_ended_in_the_past_is_kept_as_long_as_what_is_ended_now,
    repeats_of_requests_end_with_a_change_of_their_caller,
    // What else they need.
    user_is_found_by_its_number_until_it_is_deleted,
    id_that_is_taken_is_told_and_nothing_is_kept,
];

pub(super) fn peppers() -> Peppers {
    Peppers::new(vec![pepper()]).unwrap()
}

/// All of them within reach.
pub(super) fn everything(reach: &Reach) -> AuthorizationQuery {
    AuthorizationQuery {
        reach: reach.clone(),
        conditions: Vec::new(),
        order: Vec::new(),
        distinct: Vec::new(),
        offset: 0,
        limit: 1_000,
        counts: true,
    }
}

pub(super) fn condition(attribute: &str, operator: &str, operand: &Value) -> Condition {
    let filter = Filter {
        names: Names::One(attribute.to_owned()),
        operator: operator.to_owned(),
        comparand: Comparand::Value(operand.clone()),
    };
    Condition::parse(&filter, &peppers()).unwrap()
}

fn authorization(id: &CredentialId) -> Target<'_> {
    Target { id: &id.0, kind: Kind::ApiClientAuthorization, reach: &ANYWHERE }
}

/// What leaves it as it is.
fn unchanged(before: &Kept) -> AuthorizationUpdate {
    let before = before.credential.clone();
    let Detail::ApiClientAuthorization { api_client_id, .. } = before.detail else {
        panic!("another kind: {before:?}")
    };
    AuthorizationUpdate {
        user_id: before.user_id.clone(),
        scopes: before.scopes.clone(),
        expires_at: before.expires_at,
        api_client_id,
        quota: 1_000_000,
        before,
    }
}

fn sealed(number: u8) -> Option<Sealed> {
    Some(Sealed::from_stored(vec![number; 78]))
}

impl TestStore {
    pub(super) async fn listed(&self, query: &AuthorizationQuery) -> Vec<CredentialId> {
        let (kept, available) = self.list_authorizations(query).await.unwrap();
        assert_eq!(available, Some(kept.len().try_into().unwrap()));
        kept.into_iter().map(|kept| kept.credential.id).collect()
    }

    async fn try_alter(&self, update: &AuthorizationUpdate) -> Result<Option<Updated>, StoreError> {
        let target = authorization(&update.before.id);
        let updated = self.update_authorization(target, update, &self.actor_at(5)).await?;
        Ok(updated.map(|(updated, _)| updated))
    }

    async fn alter(&self, update: &AuthorizationUpdate) -> Kept {
        match self.try_alter(update).await.unwrap() {
            Some(Updated::Done(kept)) => *kept,
            other => panic!("not changed: {other:?}"),
        }
    }

    async fn end_tokens_of(&self, user: &User) {
        let of = TokensOf::User(user.id.clone());
        let reason: Description = "lost".parse().unwrap();
        self.revoke_tokens(&of, &reason, &self.actor()).await.unwrap().unwrap();
    }

    async fn is_ended(&self, new: &NewCredential) -> bool {
        self.found(&new.secret.digest).await.unwrap().credential.ended
    }
}

async fn what_was_ended_in_the_past_is_kept_as_long_as_what_is_ended_now(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let new = new_authorization(&user.id);
    let kept = store.keep(&new).await;
    // The change is of the instant 5.
    store.alter(&AuthorizationUpdate { expires_at: Some(at(1)), ..unchanged(&kept) }).await;
    assert_eq!(store.purge(at(5), &store.actor()).await.unwrap(), 0);
    assert!(store.found(&new.secret.digest).await.is_some());
    assert_eq!(store.purge(at(6), &store.actor()).await.unwrap(), 1);
    assert!(store.found(&new.secret.digest).await.is_none());
}

async fn repeats_of_requests_end_with_a_change_of_their_caller(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let caller = new_authorization(&user.id);
    let kept = store.keep(&caller).await;
    let actor = store.actor_with_owner(&caller, &user);
    let first = store.repeat(&new_token(&user.id), &request(1), &actor).await;
    let again = store.repeat(&new_token(&user.id), &request(1), &actor).await;
    assert_eq!(again.kept.credential.id, first.kept.credential.id);
    store.alter(&AuthorizationUpdate { expires_at: Some(at(100)), ..unchanged(&kept) }).await;
    let other = store.repeat(&new_token(&user.id), &request(1), &actor).await;
    assert_ne!(other.kept.credential.id, first.kept.credential.id);
}

async fn authorizations_are_listed_within_reach_the_newest_first(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let mut kept = Vec::new();
    for (owner, later) in [(&alice, 2), (&bob, 1), (&alice, 1), (&alice, 3)] {
        let new = new_authorization(&owner.id);
        kept.push(store.keep_as(&new, &store.actor_at(later)).await);
    }
    store.keep(&new_token(&alice.id)).await;

    let (listed, available) = store.list_authorizations(&everything(&of(&alice))).await.unwrap();
    assert_eq!(listed, [kept[3].clone(), kept[0].clone(), kept[2].clone()]);
    assert_eq!(listed[0].user_number, alice.number);
    assert_eq!(available, Some(3));
    let id = |at: usize| kept[at].credential.id.clone();
    let tied = if id(1).0 > id(2).0 { [id(1), id(2)] } else { [id(2), id(1)] };
    let [newer, older] = tied;
    assert_eq!(store.listed(&everything(&ANYWHERE)).await, [id(3), id(0), newer, older]);
    assert_eq!(store.listed(&everything(&of(&store.administrator))).await, []);
    let bound = Reach { workspace_id: Some("w".to_owned()), ..of(&alice) };
    assert_eq!(store.listed(&everything(&bound)).await, []);
    store.sql(&format!("UPDATE users SET is_admin = TRUE WHERE id = '{}'", alice.id)).await;
    let sparing = Reach { spares_administrators: true, ..Reach::default() };
    assert_eq!(store.listed(&everything(&sparing)).await, [id(1)]);
}

async fn deleted_authorizations_are_not_listed_and_expired_ones_are(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let (deleted, expired) = (new_authorization(&alice.id), new_authorization(&alice.id));
    let expired = NewCredential { expires_at: Some(at(-1)), ..expired };
    for new in [&deleted, &expired, &new_authorization(&bob.id)] {
        store.keep(new).await;
    }
    let target = authorization(&deleted.id);
    store.revoke_credential(target, false, &store.actor()).await.unwrap().unwrap();
    store.end_tokens_of(&bob).await;
    assert_eq!(store.listed(&everything(&ANYWHERE)).await, slice::from_ref(&expired.id));
    let in_any_order = AuthorizationQuery {
        order: vec![(Attribute::ExpiresAt, Direction::Ascending)],
        distinct: vec![Attribute::OwnerUuid],
        ..everything(&ANYWHERE)
    };
    assert_eq!(store.listed(&in_any_order).await, [expired.id]);
}

async fn those_available_are_counted_whatever_the_page_has(engine: Engine) {
    let store = TestStore::new(engine).await;
    for later in 0..5 {
        let new = new_authorization(&store.administrator.id);
        store.keep_as(&new, &store.actor_at(later)).await;
    }
    let all = store.listed(&everything(&ANYWHERE)).await;
    let page = async |offset, limit, counts| {
        let query = AuthorizationQuery { offset, limit, counts, ..everything(&ANYWHERE) };
        let (kept, available) = store.list_authorizations(&query).await.unwrap();
        (kept.into_iter().map(|kept| kept.credential.id).collect::<Vec<_>>(), available)
    };
    assert_eq!(page(1, 2, true).await, (all[1..3].to_vec(), Some(5)));
    assert_eq!(page(4, 2, true).await, (all[4..].to_vec(), Some(5)));
    assert_eq!(page(9, 2, true).await, (Vec::new(), Some(5)));
    assert_eq!(page(0, 0, true).await, (Vec::new(), Some(5)));
    assert_eq!(page(0, 2, false).await, (all[..2].to_vec(), None));
}

async fn secrets_and_scopes_are_compared_as_they_were_given(engine: Engine) {
    let store = TestStore::new(engine).await;
    let secret = Token::authorization(&random::bytes());
    let owner = &store.administrator.id;
    let mut new = NewCredential {
        scopes: vec!["GET /b".to_owned(), "GET /a".to_owned()],
        ..new_authorization(owner)
    };
    new.secret.digest = pepper().digest(&secret);
    let kept = store.keep(&new).await;
    store.keep(&new_authorization(owner)).await;
    let listed = async |attribute: &str, operator: &str, operand: Value| {
        let conditions = vec![condition(attribute, operator, &operand)];
        store.listed(&AuthorizationQuery { conditions, ..everything(&ANYWHERE) }).await
    };
    let other = Token::authorization(&random::bytes());
    let (secret, other) = (secret.expose(), other.expose());
    assert_eq!(listed("api_token", "=", json!(secret)).await, slice::from_ref(&new.id));
    assert_eq!(listed("api_token", "in", json!([other, secret])).await, slice::from_ref(&new.id));
    assert_eq!(listed("api_token", "=", json!(other)).await, []);
    assert_eq!(listed("api_token", "=", json!(format!("v2/{}/{secret}", new.id.0))).await, []);
    assert_eq!(listed("scopes", "=", json!(["GET /a", "GET /b"])).await, [new.id.clone()]);
    assert_eq!(listed("scopes", "=", json!(["GET /a"])).await, []);

    let scopes = vec!["GET /d".to_owned(), "GET /c".to_owned()];
    let kept = store.alter(&AuthorizationUpdate { scopes, ..unchanged(&kept) }).await;
    assert_eq!(listed("scopes", "=", json!(["GET /a", "GET /b"])).await, []);
    assert_eq!(listed("scopes", "=", json!(["GET /c", "GET /d"])).await, [new.id.clone()]);
    store.alter(&AuthorizationUpdate { scopes: Vec::new(), ..unchanged(&kept) }).await;
    assert_eq!(listed("scopes", "=", json!([])).await, [new.id]);
}

async fn updated_authorization_is_as_it_shall_be(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let new = new_authorization(&alice.id);
    let before = store.keep(&new).await;
    let bystander = store.keep(&new_authorization(&alice.id)).await;
    let update = AuthorizationUpdate {
        user_id: bob.id.clone(),
        scopes: vec!["GET /b".to_owned(), "GET /a".to_owned()],
        expires_at: Some(at(9)),
        api_client_id: None,
        ..unchanged(&before)
    };
    let alices = of(&alice);
    let target = Target { reach: &alices, ..authorization(&new.id) };
    let actor = store.actor_at(5);
    let (updated, revision) =
        store.update_authorization(target, &update, &actor).await.unwrap().unwrap();
    let Updated::Done(kept) = updated else { panic!("stale") };
    let expected = Kept {
        credential: Credential {
            user_id: bob.id.clone(),
            scopes: update.scopes.clone(),
            expires_at: Some(at(9)),
            detail: Detail::ApiClientAuthorization {
                api_client_id: None,
                created_by_ip: Some("203.0.113.9".to_owned()),
            },
            updated_at: at(5),
            ..before.credential.clone()
        },
        user_number: bob.number,
        ..before
    };
    assert_eq!(*kept, expected);
    assert_eq!(store.credential(authorization(&new.id)).await.unwrap(), Some(expected));
    assert_eq!(store.credential(target).await.unwrap(), None, "it is another's");
    let untouched = store.credential(authorization(&bystander.credential.id)).await.unwrap();
    assert_eq!(untouched, Some(bystander));
    assert_eq!(revision.number, 1);
    // Who knew of it as the user's before is told of the user.
    let told = format!(r#"[["user","{}"],["credential","{}"]]"#, alice.id, new.id.0);
    assert_eq!(store.touched().await, [told]);
    assert_eq!(store.actions().await.last().unwrap(), "credential.update");
    let query = "SELECT targets || details FROM audit WHERE action = 'credential.update'";
    let said = store.texts(query).await;
    let expected = format!(
        r#"["{}"]{{"api_client_id":null,"expires_at":{},"owner_uuid":"{}","scopes":["GET /b","GET /a"]}}"#,
        new.id.0,
        NOW + 9,
        bob.id
    );
    assert_eq!(said, [expected]);

    let narrower = AuthorizationUpdate { scopes: Vec::new(), ..unchanged(&kept) };
    store.alter(&narrower).await;
    assert!(store.texts(query).await.iter().any(|said| said.ends_with(r#"{"scopes":[]}"#)));
}

async fn update_of_what_is_as_it_shall_be_takes_no_revision(engine: Engine) {
    let store = TestStore::new(engine).await;
    let kept = store.keep(&new_authorization(&store.administrator.id)).await;
    let (head, actions) = (store.head().await.unwrap(), store.actions().await);
    assert_eq!(store.alter(&unchanged(&kept)).await, kept);
    assert_eq!((store.head().await.unwrap(), store.actions().await), (head, actions));
}

async fn update_of_what_was_changed_since_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let before = store.keep(&new_authorization(&store.administrator.id)).await;
    let first = AuthorizationUpdate { api_client_id: None, ..unchanged(&before) };
    let kept = store.alter(&first).await;
    let (head, actions) = (store.head().await.unwrap(), store.actions().await);
    let second = AuthorizationUpdate { expires_at: Some(at(9)), ..unchanged(&before) };
    assert_eq!(store.try_alter(&second).await.unwrap(), Some(Updated::Stale));
    assert_eq!(store.try_alter(&first).await.unwrap(), Some(Updated::Stale));
    assert_eq!((store.head().await.unwrap(), store.actions().await), (head, actions));
    assert_eq!(store.credential(authorization(&before.credential.id)).await.unwrap(), Some(kept));
}

async fn updates_at_once_change_it_once(engine: Engine) {
    let store = TestStore::new(engine).await;
    let before = store.keep(&new_authorization(&store.administrator.id)).await;
    let updated = at_once(8, |number| {
        let (inner, actor) = (Arc::clone(&store.store), store.actor_at(5));
        let number = i64::try_from(number).unwrap();
        let update =
            AuthorizationUpdate { api_client_id: Some(100 + number), ..unchanged(&before) };
        async move {
            let target = authorization(&update.before.id);
            inner.update_authorization(target, &update, &actor).await.unwrap().unwrap().0
        }
    })
    .await;
    let stale = updated.iter().filter(|updated| **updated == Updated::Stale).count();
    assert_eq!(stale, 7);
    assert_eq!(store.head().await.unwrap().number, 1);
}

async fn authorization_that_is_not_there_is_not_updated(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let kept = store.keep(&new_authorization(&alice.id)).await;
    let ended = store.keep(&new_authorization(&bob.id)).await;
    let deleted = store.keep(&new_authorization(&alice.id)).await;
    let other_kind = store.keep(&new_token(&alice.id)).await;
    let target = authorization(&deleted.credential.id);
    store.revoke_credential(target, false, &store.actor()).await.unwrap().unwrap();
    store.end_tokens_of(&bob).await;
    let (head, actions) = (store.head().await.unwrap(), store.actions().await);
    let update = AuthorizationUpdate { api_client_id: None, ..unchanged(&kept) };
    let bobs = of(&bob);
    let id = &kept.credential.id;
    for target in [
        authorization(&ended.credential.id),
        authorization(&deleted.credential.id),
        authorization(&other_kind.credential.id),
        token(&other_kind.credential.id),
        authorization(&CredentialId("zzzzz-gj3su-nobodysnobodysn".to_owned())),
        Target { reach: &bobs, ..authorization(id) },
    ] {
        let updated = store.update_authorization(target, &update, &store.actor()).await.unwrap();
        assert!(updated.is_none(), "{target:?}");
    }
    assert_eq!((store.head().await.unwrap(), store.actions().await), (head, actions));
}

async fn update_that_a_deletion_overtakes_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let kept = store.keep(&new_authorization(&store.administrator.id)).await;
    let actions = store.actions().await;
    let mut deletion = Sql::open(&store.place).await;
    deletion.run(begin(engine)).await.unwrap();
    let id = &kept.credential.id.0;
    let delete = format!("UPDATE credentials SET revoked_at = 42 WHERE id = '{id}'");
    deletion.run(&delete).await.unwrap();
    let update = tokio::spawn({
        let (inner, actor) = (Arc::clone(&store.store), store.actor());
        let update = AuthorizationUpdate { api_client_id: None, ..unchanged(&kept) };
        async move {
            let target = authorization(&update.before.id);
            inner.update_authorization(target, &update, &actor).await
        }
    });
    store.until_it_waits(&update).await;
    deletion.run("COMMIT").await.unwrap();
    assert!(update.await.unwrap().unwrap().is_none());
    assert_eq!(store.actions().await, actions);
}

async fn new_owner_of_an_update_must_be_there_and_active(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let kept = store.keep(&new_authorization(&alice.id)).await;
    let give = |id: &UserId| AuthorizationUpdate { user_id: id.clone(), ..unchanged(&kept) };
    let nobody = "zzzzz-tpzed-nobodysnobodysn".parse().unwrap();
    assert_eq!(refusal(store.try_alter(&give(&nobody)).await), Refusal::NoOwner);
    let inactive = UserChanges { is_active: Some(false), ..UserChanges::default() };
    store.update(&bob, inactive.clone()).await.unwrap();
    assert_eq!(refusal(store.try_alter(&give(&bob.id)).await), Refusal::OwnerInactive);

    // Of its own, nothing is asked.
    store.update(&alice, inactive).await.unwrap();
    let update = AuthorizationUpdate { api_client_id: None, ..unchanged(&kept) };
    store.alter(&update).await;
}

async fn authorization_that_is_given_away_ends_with_its_new_owner(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    store.end_tokens_of(&bob).await;
    let new = new_authorization(&alice.id);
    let kept = store.keep(&new).await;
    store.alter(&AuthorizationUpdate { user_id: bob.id.clone(), ..unchanged(&kept) }).await;
    assert!(!store.is_ended(&new).await);
    store.end_tokens_of(&alice).await;
    assert!(!store.is_ended(&new).await);
    store.end_tokens_of(&bob).await;
    assert!(store.is_ended(&new).await);
}

async fn quota_counts_what_is_given_or_revived(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let active = store.keep(&new_authorization(&alice.id)).await;
    let expires_at = Some(at(5));
    let expired = store.keep(&NewCredential { expires_at, ..new_authorization(&alice.id) }).await;
    let with_quota = |kept: &Kept, quota| AuthorizationUpdate { quota, ..unchanged(kept) };

    let give = AuthorizationUpdate { user_id: bob.id.clone(), ..with_quota(&active, 0) };
    assert_eq!(refusal(store.try_alter(&give).await), Refusal::QuotaReached);
    let revive = AuthorizationUpdate { expires_at: None, ..with_quota(&expired, 1) };
    assert_eq!(refusal(store.try_alter(&revive).await), Refusal::QuotaReached);
    // What stays as dead or as alive as it is needs no room.
    let dead = AuthorizationUpdate { expires_at: Some(at(4)), ..with_quota(&expired, 0) };
    let expired = store.alter(&dead).await;
    let alive = AuthorizationUpdate { expires_at: Some(at(6)), ..with_quota(&active, 0) };
    let active = store.alter(&alive).await;

    let give = AuthorizationUpdate { user_id: bob.id.clone(), ..with_quota(&active, 1) };
    store.alter(&give).await;
    let revive = AuthorizationUpdate { expires_at: Some(at(6)), ..with_quota(&expired, 1) };
    store.alter(&revive).await;
}

async fn caller_may_give_its_own_authorization_away(engine: Engine) {
    let store = TestStore::new(engine).await;
    let bob = store.user("bob").await;
    let own = new_authorization(&store.administrator.id);
    let kept = store.keep(&own).await;
    let actor = Actor { basis: Basis::Administrator, ..store.actor_with(&own.id) };
    let give = AuthorizationUpdate { user_id: bob.id.clone(), ..unchanged(&kept) };
    let target = authorization(&own.id);
    let updated = store.update_authorization(target, &give, &actor).await.unwrap().unwrap().0;
    let Updated::Done(kept) = updated else { panic!("stale") };
    assert_eq!(kept.credential.user_id, bob.id);

    // It acts as nobody's administrator from now on.
    let other = store.keep(&new_authorization(&bob.id)).await;
    let update = AuthorizationUpdate { api_client_id: None, ..unchanged(&other) };
    let target = authorization(&other.credential.id);
    let refused = store.update_authorization(target, &update, &actor).await;
    assert_eq!(refusal(refused), Refusal::CallerRevoked);
    let back = AuthorizationUpdate { user_id: store.administrator.id.clone(), ..unchanged(&kept) };
    let bobs = Actor { user_id: bob.id, ..actor };
    let refused = store.update_authorization(authorization(&own.id), &back, &bobs).await;
    assert_eq!(refusal(refused), Refusal::CallerRevoked);
}

async fn seal_follows_its_secret_to_another_pepper(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (old, current) = (pepper().id().clone(), other_pepper(8));
    store.note_peppers(slice::from_ref(&current), at(0)).await.unwrap();
    store.promote_pepper(&current, Promotion::Rotation, &service()).await.unwrap();
    for (before, given, after) in [
        (sealed(1), sealed(2), sealed(2)),
        (sealed(1), None, None),
        // What is not kept recoverable does not become so.
        (None, sealed(2), None),
        (None, None, None),
    ] {
        let mut new = new_authorization(&store.administrator.id);
        new.secret.sealed = before.clone();
        let kept = store.keep(&new).await;
        assert_eq!(kept.sealed, before);
        let digest = new_secret().digest;
        let redigested =
            store.redigest(&kept.secret.id, &old, &current, &digest, given.as_ref()).await;
        assert!(redigested.unwrap());
        let kept = store.credential(authorization(&new.id)).await.unwrap().unwrap();
        assert_eq!((kept.sealed, kept.secret.pepper_id), (after, Some(current.clone())));
    }
}

async fn seals_are_told_by_their_pepper_and_forgotten_for_good(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut seals = Vec::new();
    for number in 0..4_u8 {
        let mut new = new_authorization(&store.administrator.id);
        new.secret.sealed = if number == 3 { None } else { sealed(number) };
        let kept = store.keep(&new).await;
        if let Some(sealed) = kept.sealed {
            let (secret_id, credential_id) = (kept.secret.id, kept.credential.id);
            seals.push(KeptSeal { secret_id, credential_id, sealed });
        }
    }
    seals.sort_by(|one, other| one.secret_id.cmp(&other.secret_id));
    let under =
        async |pepper: &PepperId, after: &str| store.sealed_under(pepper, after).await.unwrap();
    assert_eq!(under(pepper().id(), "").await, seals);
    assert_eq!(under(pepper().id(), &seals[0].secret_id).await, seals[1..]);
    assert_eq!(under(pepper().id(), &seals[2].secret_id).await, []);
    assert_eq!(under(&other_pepper(8), "").await, []);

    let head = store.head().await.unwrap();
    assert_eq!(store.forget_seals(&store.actor_at(5)).await.unwrap(), 3);
    assert_eq!(under(pepper().id(), "").await, []);
    assert_eq!(store.actions().await.last().unwrap(), "secrets.forget_sealed");
    let actions = store.actions().await;
    assert_eq!(store.forget_seals(&store.actor_at(5)).await.unwrap(), 0);
    assert_eq!((store.head().await.unwrap(), store.actions().await), (head, actions));
}

async fn user_is_found_by_its_number_until_it_is_deleted(engine: Engine) {
    let store = TestStore::new(engine).await;
    let alice = store.user("alice").await;
    assert_eq!(store.user_by_number(alice.number).await.unwrap().as_ref(), Some(&alice));
    for number in [0, -1, alice.number + 1, i64::MAX, i64::MIN] {
        assert_eq!(store.user_by_number(number).await.unwrap(), None, "{number}");
    }
    let name = UserRef::Id(alice.id.clone());
    store.delete_user(&name, &store.actor()).await.unwrap().unwrap();
    assert_eq!(store.user_by_number(alice.number).await.unwrap(), None);
}

async fn id_that_is_taken_is_told_and_nothing_is_kept(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let taken = new_authorization(&alice.id);
    let kept = store.keep(&taken).await;
    let actions = store.actions().await;
    let again = NewCredential { id: taken.id.clone(), ..new_authorization(&bob.id) };
    for repeat in [None, Some(request(1))] {
        let refused = store.insert_credential(&again, repeat.as_ref(), &store.actor()).await;
        assert!(matches!(refused, Err(StoreError::AlreadyExists(Unique::Id))), "{refused:?}");
    }
    assert_eq!(store.credential(authorization(&taken.id)).await.unwrap(), Some(kept));
    assert!(store.found(&again.secret.digest).await.is_none());
    assert_eq!(store.actions().await, actions);
    // The name of the refused request is free.
    let other = new_authorization(&bob.id);
    assert!(!store.repeat(&other, &request(1), &store.actor()).await.already_used);
}
