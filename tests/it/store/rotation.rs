//! New secrets for credentials that stay, and what is within reach.

use token_authority::{
    domain::Status,
    store::{Reach, Rotation},
};

use super::*;

on_both_stores![
    rotated_credential_has_a_pending_secret_and_an_end_of_the_one_before,
    secret_that_was_not_proved_is_not_promoted,
    promoted_secret_is_current_and_the_one_before_superseded,
    promotions_at_once_promote_once,
    rotation_replaces_a_pending_secret_that_was_not_proved,
    rotation_promotes_a_pending_secret_that_was_proved,
    rotation_never_lengthens_what_ends_earlier,
    repeated_rotation_replaces_its_own_secret_alone,
    caller_with_a_superseded_secret_changes_nothing,
    dead_credential_is_not_rotated,
    rotation_that_a_revocation_overtakes_is_refused,
    reuse_of_a_superseded_secret_is_noted_once,
    reuse_revokes_where_it_is_to,
    reuse_before_the_promotion_is_written_writes_both,
    superseded_secrets_are_purged_in_time,
    what_is_beyond_reach_is_not_there,
    what_ended_with_others_is_neither_listed_nor_counted,
    what_ended_with_others_is_settled_and_then_purged,
];

/// A second is longer than any overlap here.
const OVERLAP: Duration = Duration::from_millis(1);

fn rotation() -> Rotation {
    Rotation { secret: new_secret(), overlap: OVERLAP }
}

impl TestStore {
    async fn rotate(&self, id: &CredentialId, rotation: &Rotation) -> Inserted {
        let rotated = self.rotate_credential(token(id), rotation, None, &self.actor()).await;
        rotated.unwrap().unwrap().0
    }

    async fn try_rotate(
        &self,
        id: &CredentialId,
        actor: &Actor,
    ) -> Result<Option<(Inserted, Revision)>, StoreError> {
        self.rotate_credential(token(id), &rotation(), None, actor).await
    }

    async fn proved(&self, secret: &NewSecret) {
        assert!(self.prove(&secret.id, at(0)).await.unwrap());
    }

    async fn state(&self, secret: &NewSecret) -> Option<SecretState> {
        self.found(&secret.digest).await.map(|found| found.secret.state)
    }

    /// A credential whose secret was rotated, and the new one proved.
    async fn superseded(&self) -> (NewCredential, Rotation) {
        let new = new_token(&self.administrator.id);
        self.keep(&new).await;
        let rotation = rotation();
        self.rotate(&new.id, &rotation).await;
        self.proved(&rotation.secret).await;
        assert!(self.promote_secret(&rotation.secret.id, &service()).await.unwrap());
        (new, rotation)
    }
}

async fn rotated_credential_has_a_pending_secret_and_an_end_of_the_one_before(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    let before = store.keep(&new).await;
    let actor = store.actor_at(5);
    let rotation = rotation();
    let (inserted, revision) =
        store.rotate_credential(token(&new.id), &rotation, None, &actor).await.unwrap().unwrap();
    assert_eq!(revision.number, 1);
    assert_eq!(store.touched().await, [touches(&new.id)]);
    assert_eq!(store.actions().await.last().unwrap(), "credential.rotate");
    assert!(!inserted.already_used);
    let kept = inserted.kept;
    assert_eq!(kept.secret.state, SecretState::Pending);
    assert_eq!(
        (&kept.secret.id, &kept.secret.shown),
        (&rotation.secret.id, &rotation.secret.shown)
    );
    assert_eq!((kept.secret.created_at, kept.secret.expires_at), (at(5), None));
    assert_eq!(kept.previous_secret_expires_at, Some(at(5 + MILLISECOND)));
    let expected = Kept { credential: kept.credential.clone(), ..kept.clone() };
    assert_eq!(store.credential(token(&new.id)).await.unwrap(), Some(expected));
    assert_eq!(kept.credential.updated_at, at(5));
    let unchanged = token_authority::domain::Credential {
        updated_at: before.credential.updated_at,
        ..kept.credential
    };
    assert_eq!(unchanged, before.credential);

    let old = store.found(&new.secret.digest).await.unwrap().secret;
    assert_eq!((old.state, old.expires_at), (SecretState::Current, Some(at(5 + MILLISECOND))));
    assert_eq!(store.state(&rotation.secret).await, Some(SecretState::Pending));
    let nobodys = CredentialId("0198c0de-0000-7000-8000-00000000000a".to_owned());
    assert!(store.try_rotate(&nobodys, &actor).await.unwrap().is_none());
}

async fn secret_that_was_not_proved_is_not_promoted(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let rotation = rotation();
    store.rotate(&new.id, &rotation).await;
    let head = store.head().await.unwrap();
    for secret in [&rotation.secret, &new.secret] {
        assert!(!store.promote_secret(&secret.id, &service()).await.unwrap());
    }
    assert!(!store.promote_secret("nobody's", &service()).await.unwrap());
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(store.state(&rotation.secret).await, Some(SecretState::Pending));
}

async fn promoted_secret_is_current_and_the_one_before_superseded(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (new, rotation) = store.superseded().await;
    let old = store.found(&new.secret.digest).await.unwrap().secret;
    assert_eq!((old.state, old.expires_at), (SecretState::Superseded, Some(at(0))));
    let current = store.found(&rotation.secret.digest).await.unwrap().secret;
    assert_eq!((current.state, current.expires_at), (SecretState::Current, None));
    assert_eq!(store.touched().await, [touches(&new.id), touches(&new.id)]);
    let kept = store.credential(token(&new.id)).await.unwrap().unwrap();
    assert_eq!(kept.secret.id, rotation.secret.id);
    assert_eq!(kept.previous_secret_expires_at, None);
    // Again, it is done.
    assert!(!store.promote_secret(&rotation.secret.id, &service()).await.unwrap());
}

async fn promotions_at_once_promote_once(engine: Engine) {
    let store = Arc::new(TestStore::new(engine).await);
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let rotation = rotation();
    store.rotate(&new.id, &rotation).await;
    store.proved(&rotation.secret).await;
    let promoted = at_once(8, |_| {
        let (store, id) = (Arc::clone(&store), rotation.secret.id.clone());
        async move { store.promote_secret(&id, &service()).await.unwrap() }
    })
    .await;
    assert_eq!(promoted.into_iter().filter(|promoted| *promoted).count(), 1);
    assert_eq!(store.touched().await.len(), 2);
}

async fn rotation_replaces_a_pending_secret_that_was_not_proved(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let [lost, next] = [rotation(), rotation()];
    store.rotate(&new.id, &lost).await;
    store.rotate(&new.id, &next).await;
    assert_eq!(store.state(&lost.secret).await, None);
    assert!(!store.prove(&lost.secret.id, at(0)).await.unwrap());
    assert_eq!(store.state(&next.secret).await, Some(SecretState::Pending));
    assert_eq!(store.state(&new.secret).await, Some(SecretState::Current));
}

async fn rotation_promotes_a_pending_secret_that_was_proved(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let [proved, next] = [rotation(), rotation()];
    store.rotate(&new.id, &proved).await;
    store.proved(&proved.secret).await;
    store.rotate(&new.id, &next).await;
    assert_eq!(store.state(&new.secret).await, Some(SecretState::Superseded));
    let current = store.found(&proved.secret.digest).await.unwrap().secret;
    assert_eq!((current.state, current.expires_at), (SecretState::Current, Some(at(MILLISECOND))));
    assert_eq!(store.state(&next.secret).await, Some(SecretState::Pending));
}

async fn rotation_never_lengthens_what_ends_earlier(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    store.rotate(&new.id, &rotation()).await;
    let longer = Rotation { overlap: 2 * OVERLAP, ..rotation() };
    let kept = store.rotate(&new.id, &longer).await.kept;
    assert_eq!(kept.previous_secret_expires_at, Some(at(MILLISECOND)));
    let shorter = Rotation { overlap: Duration::ZERO, ..rotation() };
    let kept = store.rotate(&new.id, &shorter).await.kept;
    assert_eq!(kept.previous_secret_expires_at, Some(at(0)));
}

async fn repeated_rotation_replaces_its_own_secret_alone(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let [first, again, other] = [rotation(), rotation(), rotation()];
    let repeated = async |rotation: &Rotation, number: u128| {
        let (repeat, actor) = (request(number), store.actor());
        let rotated =
            store.rotate_credential(token(&new.id), rotation, Some(&repeat), &actor).await;
        rotated.map(|rotated| rotated.unwrap().0)
    };
    assert!(!repeated(&first, 1).await.unwrap().already_used);
    assert!(!repeated(&again, 1).await.unwrap().already_used);
    assert_eq!(store.state(&first.secret).await, None);
    assert!(store.actions().await.contains(&"credential.rotate_again".to_owned()));
    assert!(!repeated(&other, 2).await.unwrap().already_used);
    // The first request's secret is replaced by the second's, which it leaves alone.
    assert!(repeated(&rotation(), 1).await.unwrap().already_used);
    assert_eq!(store.state(&other.secret).await, Some(SecretState::Pending));
    store.proved(&other.secret).await;
    assert!(repeated(&rotation(), 2).await.unwrap().already_used);

    let (mut of_another, actor) = (request(2), store.actor());
    of_another.body_hash = [2; 32];
    let rotated =
        store.rotate_credential(token(&new.id), &rotation(), Some(&of_another), &actor).await;
    assert_eq!(refusal(rotated), Refusal::RequestIdReused);
}

async fn caller_with_a_superseded_secret_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (new, rotated) = store.superseded().await;
    let with = |secret: &NewSecret| Actor {
        secret_id: Some(secret.id.clone()),
        ..store.actor_with(&new.id)
    };
    let head = store.head().await.unwrap();
    let refused = store.try_rotate(&new.id, &with(&new.secret)).await;
    assert_eq!(refusal(refused), Refusal::SupersededSecret);
    let user = store.insert_user(&new_user("late"), &with(&new.secret)).await;
    assert_eq!(refusal(user), Refusal::CallerRevoked);
    let gone = Actor { secret_id: Some("gone".to_owned()), ..store.actor_with(&new.id) };
    assert_eq!(refusal(store.insert_user(&new_user("late"), &gone).await), Refusal::CallerRevoked);
    assert_eq!(store.head().await.unwrap(), head);
    assert!(store.try_rotate(&new.id, &with(&rotated.secret)).await.unwrap().is_some());

    // Nor does one whose successor was proved, before the promotion is made.
    let proved = rotation();
    store.rotate(&new.id, &proved).await;
    store.proved(&proved.secret).await;
    let refused = store.try_rotate(&new.id, &with(&rotated.secret)).await;
    assert_eq!(refusal(refused), Refusal::SupersededSecret);
}

async fn dead_credential_is_not_rotated(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    store.workspace_with(&user, "member").await;
    let expires = NewCredential { expires_at: Some(at(10)), ..new_token(&user.id) };
    let bound = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&user.id) };
    let [revoked, of_inactive] = [new_token(&user.id), new_token(&user.id)];
    for new in [&expires, &bound, &revoked, &of_inactive] {
        store.keep(new).await;
    }
    store.revoke(&revoked.id).await;
    assert_eq!(refusal(store.try_rotate(&revoked.id, &store.actor()).await), Refusal::TokenRevoked);
    assert!(store.try_rotate(&expires.id, &store.actor_at(9)).await.is_ok());
    assert_eq!(
        refusal(store.try_rotate(&expires.id, &store.actor_at(10)).await),
        Refusal::TokenExpired
    );
    store.sql("UPDATE organizations SET is_active = FALSE").await;
    assert_eq!(
        refusal(store.try_rotate(&bound.id, &store.actor()).await),
        Refusal::WorkspaceInactive
    );
    store.sql("UPDATE memberships SET id = 'another'").await;
    assert_eq!(refusal(store.try_rotate(&bound.id, &store.actor()).await), Refusal::TokenRevoked);
    store
        .update(&user, UserChanges { is_active: Some(false), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(
        refusal(store.try_rotate(&of_inactive.id, &store.actor()).await),
        Refusal::OwnerInactive
    );
}

async fn rotation_that_a_revocation_overtakes_is_refused(engine: Engine) {
    let store = Arc::new(TestStore::new(engine).await);
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let mut other = Sql::open(&store.place).await;
    other.run(begin(engine)).await.unwrap();
    let revoke = format!("UPDATE credentials SET revoked_at = 1 WHERE id = '{}'", new.id.0);
    other.run(&revoke).await.unwrap();
    let (rotating, id) = (Arc::clone(&store), new.id.clone());
    let task = tokio::spawn(async move { rotating.try_rotate(&id, &rotating.actor()).await });
    store.until_it_waits(&task).await;
    other.run("COMMIT").await.unwrap();
    assert_eq!(refusal(task.await.unwrap()), Refusal::TokenRevoked);
}

async fn reuse_of_a_superseded_secret_is_noted_once(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (new, rotation) = store.superseded().await;
    let head = store.head().await.unwrap();
    assert!(!store.note_reuse(&rotation.secret.id, false, &service()).await.unwrap());
    assert!(!store.found(&new.secret.digest).await.unwrap().secret.reuse_noted);
    assert!(store.note_reuse(&new.secret.id, false, &service()).await.unwrap());
    assert!(store.found(&new.secret.digest).await.unwrap().secret.reuse_noted);
    assert!(!store.note_reuse(&new.secret.id, false, &service()).await.unwrap());
    assert_eq!(store.head().await.unwrap(), head, "no answer changes");
    let noted = store.actions().await;
    assert_eq!(noted.iter().filter(|action| *action == "credential.secret_reused").count(), 1);
}

async fn reuse_revokes_where_it_is_to(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (new, rotation) = store.superseded().await;
    let actor = Actor { at: at(7), ..service() };
    // Though it was noted before the server was set to.
    assert!(store.note_reuse(&new.secret.id, false, &actor).await.unwrap());
    assert!(store.note_reuse(&new.secret.id, true, &actor).await.unwrap());
    assert!(!store.note_reuse(&new.secret.id, true, &actor).await.unwrap());
    let found = store.found(&rotation.secret.digest).await.unwrap();
    assert_eq!(found.credential.revoked_at, Some(at(7)));
    assert_eq!(store.touched().await.last(), Some(&touches(&new.id)));
}

async fn reuse_before_the_promotion_is_written_writes_both(engine: Engine) {
    let store = TestStore::new(engine).await;
    let new = new_token(&store.administrator.id);
    store.keep(&new).await;
    let rotation = rotation();
    store.rotate(&new.id, &rotation).await;
    store.proved(&rotation.secret).await;
    // It is over with the first proof of its successor, whatever is written.
    assert_eq!(store.state(&new.secret).await, Some(SecretState::Superseded));
    assert!(store.note_reuse(&new.secret.id, false, &service()).await.unwrap());
    assert_eq!(store.state(&rotation.secret).await, Some(SecretState::Current));
    assert_eq!(store.touched().await.len(), 2);
    assert!(!store.promote_secret(&rotation.secret.id, &service()).await.unwrap());
}

async fn superseded_secrets_are_purged_in_time(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (new, rotation) = store.superseded().await;
    store.purge(at(0), &store.actor()).await.unwrap();
    assert!(store.found(&new.secret.digest).await.is_some());
    assert_eq!(store.purge(at(1), &store.actor()).await.unwrap(), 1);
    assert!(store.found(&new.secret.digest).await.is_none());
    assert!(store.found(&rotation.secret.digest).await.is_some());
}

async fn what_is_beyond_reach_is_not_there(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    store.workspace_with(&user, "member").await;
    let bound = NewCredential { workspace_id: Some("w".to_owned()), ..new_token(&user.id) };
    let [free, administrators] = [new_token(&user.id), new_token(&store.administrator.id)];
    for new in [&bound, &free, &administrators] {
        store.keep(new).await;
    }
    let everything = Reach::default();
    let of_user = Reach { owner: Some(user.id.clone()), ..Reach::default() };
    let of_workspace = Reach { workspace_id: Some("w".to_owned()), ..Reach::default() };
    let of_another = Reach { workspace_id: Some("v".to_owned()), ..Reach::default() };
    let spares = Reach { spares_administrators: true, ..Reach::default() };
    let kind = Kind::PersonalAccessToken;
    for (reach, seen) in [
        (&everything, [true, true, true]),
        (&of_user, [true, true, false]),
        (&of_workspace, [true, false, false]),
        (&of_another, [false, false, false]),
        (&spares, [true, true, false]),
    ] {
        for (new, seen) in [&bound, &free, &administrators].into_iter().zip(seen) {
            let target = Target { id: &new.id.0, kind, reach };
            assert_eq!(store.credential(target).await.unwrap().is_some(), seen, "{reach:?}");
            let changes = CredentialChanges { name: Some("x".parse().unwrap()), description: None };
            let updated = store.update_credential(target, &changes, &store.actor()).await.unwrap();
            assert_eq!(updated.is_some(), seen, "{reach:?}");
            let rotated =
                store.rotate_credential(target, &rotation(), None, &store.actor()).await.unwrap();
            assert_eq!(rotated.is_some(), seen, "{reach:?}");
            if !seen {
                let revoked = store.revoke_credential(target, true, &store.actor()).await.unwrap();
                assert!(revoked.is_none(), "{reach:?}");
            }
        }
    }
    let listed = async |reach: &Reach| {
        let kept = store.list_credentials(reach, kind, true, None, 10).await.unwrap();
        let mut ids: Vec<_> = kept.into_iter().map(|kept| kept.credential.id.0).collect();
        ids.sort();
        ids
    };
    let mut both = vec![bound.id.0.clone(), free.id.0.clone()];
    both.sort();
    assert_eq!(listed(&of_user).await, both);
    assert_eq!(listed(&of_workspace).await, [bound.id.0.as_str()]);
    assert!(listed(&of_another).await.is_empty());
    let bound_of_user = Reach { workspace_id: Some("w".to_owned()), ..of_user };
    assert_eq!(listed(&bound_of_user).await, [bound.id.0.as_str()]);
    let of_spared = Reach { owner: Some(store.administrator.id.clone()), ..spares };
    assert!(listed(&of_spared).await.is_empty());
}

async fn what_ended_with_others_is_neither_listed_nor_counted(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    store.workspace_with(&user, "member").await;
    let quota = 1;
    let free = || NewCredential { quota, ..new_token(&user.id) };
    let bound = || NewCredential { workspace_id: Some("w".to_owned()), ..free() };
    let first = bound();
    store.keep(&free()).await;
    store.keep(&first).await;
    let actor = store.actor();
    let insert = async |new: NewCredential| store.insert_credential(&new, None, &actor).await;
    assert_eq!(refusal(insert(free()).await), Refusal::QuotaReached);
    assert_eq!(refusal(insert(bound()).await), Refusal::QuotaReached);
    let reach = Reach { owner: Some(user.id.clone()), ..Reach::default() };
    let listed = async |with_revoked: bool| {
        let kind = Kind::PersonalAccessToken;
        store.list_credentials(&reach, kind, with_revoked, None, 10).await.unwrap().len()
    };
    assert_eq!(listed(false).await, 2);
    store.sql("DELETE FROM memberships").await;
    assert_eq!((listed(false).await, listed(true).await), (1, 2));
    let ended = store.credential(token(&first.id)).await.unwrap().unwrap();
    assert_eq!(ended.credential.status(at(0)), Status::Revoked);
    store
        .sql(&format!(
            "INSERT INTO memberships (id, user_id, workspace_id, role, created_at, updated_at) \
             VALUES ('again', '{}', 'w', 'member', 0, 0)",
            user.id
        ))
        .await;
    assert!(insert(bound()).await.is_ok());
    assert_eq!(refusal(insert(free()).await), Refusal::QuotaReached);
    store.sql("UPDATE users SET token_epoch = 1 WHERE handle = 'alice'").await;
    assert_eq!((listed(false).await, listed(true).await), (0, 3));
    assert!(insert(free()).await.is_ok());
}

async fn what_ended_with_others_is_settled_and_then_purged(engine: Engine) {
    let store = TestStore::new(engine).await;
    let user = store.user("alice").await;
    let [ended, stays, revoked] = [(); 3].map(|()| new_token(&user.id));
    store.keep(&ended).await;
    store.keep(&revoked).await;
    store.revoke(&revoked.id).await;
    store.sql("UPDATE users SET token_epoch = 1 WHERE handle = 'alice'").await;
    store.keep(&stays).await;
    let head = store.head().await.unwrap();
    let actor = Actor { at: at(7), ..service() };
    assert_eq!(store.settle(None, &actor).await.unwrap(), None, "there are few");
    assert_eq!(store.head().await.unwrap().number, head.number + 1);
    assert_eq!(store.touched().await.last(), Some(&touches(&ended.id)));
    let revoked_at = async |new: &NewCredential| {
        store.credential(token(&new.id)).await.unwrap().unwrap().credential.revoked_at
    };
    assert_eq!(revoked_at(&ended).await, Some(at(7)));
    assert_eq!(revoked_at(&stays).await, None);
    assert_eq!(revoked_at(&revoked).await, Some(at(0)));
    // Done again, it finds nothing.
    assert_eq!(store.settle(Some(&ended.id), &actor).await.unwrap(), None);
    assert_eq!(store.settle(None, &actor).await.unwrap(), None);
    assert_eq!(store.head().await.unwrap().number, head.number + 1);
    assert_eq!(store.purge(at(7), &service()).await.unwrap(), 1);
    assert_eq!(store.purge(at(8), &service()).await.unwrap(), 1);
    assert!(store.credential(token(&ended.id)).await.unwrap().is_none());
    assert!(store.credential(token(&stays.id)).await.unwrap().is_some());
}
