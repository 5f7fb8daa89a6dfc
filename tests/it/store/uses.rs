//! When and from where credentials were last used, and what is sealed of their secrets.

use token_authority::{
    domain::Sealed,
    store::{KeptUse, LastUse, USES_KEPT, Use},
};

use super::*;

on_both_stores![
    last_use_is_kept_with_its_address_as_it_is,
    later_use_counts_and_an_earlier_one_changes_nothing,
    use_of_what_is_there_no_more_is_passed_over,
    five_thousand_uses_are_noted_at_once,
    uses_that_are_noted_at_once_in_any_order_are_all_noted,
    noted_use_takes_no_revision_and_no_audit_row,
    last_use_goes_with_its_credential,
    use_is_kept_for_each_verifier_and_address,
    uses_are_listed_in_pages_last_use_first,
    who_is_bound_to_a_workspace_knows_of_its_credentials_and_of_its_members_unbound_ones,
    uses_that_are_long_ago_or_too_many_are_forgotten,
    seals_are_listed_by_pepper_in_pages,
    redigested_secret_is_sealed_anew_only_if_it_was,
    forgotten_seals_are_gone_and_nothing_else_is,
];

fn used(id: &CredentialId, later: i64, ip: Option<&str>) -> LastUse {
    LastUse { credential_id: id.clone(), at: at(later), ip: ip.map(|ip| ip.parse().unwrap()) }
}

impl TestStore {
    async fn note(&self, uses: &[LastUse]) {
        self.note_last_uses(uses).await.unwrap();
    }

    async fn token(&self) -> CredentialId {
        let new = new_token(&self.administrator.id);
        self.keep(&new).await;
        new.id
    }

    /// When and from where it was last used, as the store says.
    async fn last_use(&self, id: &CredentialId) -> (Option<Timestamp>, Option<String>) {
        let kept = self.credential(token(id)).await.unwrap().unwrap();
        (kept.last_used_at, kept.last_used_ip)
    }

    /// An API client authorization whose secret is sealed.
    async fn sealed(&self, seal: &[u8]) -> NewSecret {
        let mut new = new_authorization(&self.administrator.id);
        new.secret.sealed = Some(Sealed::from_stored(seal.to_vec()));
        self.keep(&new).await;
        new.secret
    }
}

fn from(ip: &str, later: i64) -> (Option<Timestamp>, Option<String>) {
    (Some(at(later)), Some(ip.to_owned()))
}

async fn last_use_is_kept_with_its_address_as_it_is(engine: Engine) {
    let store = TestStore::new(engine).await;
    let [v4, v6, mapped, unknown, unused] = [
        store.token().await,
        store.token().await,
        store.token().await,
        store.token().await,
        store.token().await,
    ];
    let uses = [
        used(&v4, 1, Some("203.0.113.8")),
        used(&v6, 2, Some("2001:db8::1")),
        used(&mapped, 3, Some("::ffff:203.0.113.9")),
        used(&unknown, 4, None),
    ];
    store.note(&uses).await;
    assert_eq!(store.last_use(&v4).await, from("203.0.113.8", 1));
    assert_eq!(store.last_use(&v6).await, from("2001:db8::1", 2));
    assert_eq!(store.last_use(&mapped).await, from("203.0.113.9", 3));
    assert_eq!(store.last_use(&unknown).await, (Some(at(4)), None));
    assert_eq!(store.last_use(&unused).await, (None, None));
    store.note(&[]).await;
}

async fn later_use_counts_and_an_earlier_one_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let id = store.token().await;
    store.note(&[used(&id, 5, Some("203.0.113.5"))]).await;
    store.note(&[used(&id, 4, Some("203.0.113.4"))]).await;
    assert_eq!(store.last_use(&id).await, from("203.0.113.5", 5));
    store.note(&[used(&id, 6, None)]).await;
    assert_eq!(store.last_use(&id).await, (Some(at(6)), None), "an older address would lie");
}

async fn use_of_what_is_there_no_more_is_passed_over(engine: Engine) {
    let store = TestStore::new(engine).await;
    let id = store.token().await;
    let gone = |id: &str| used(&CredentialId(id.to_owned()), 9, None);
    store.note(&[gone("0"), used(&id, 1, None), gone("z")]).await;
    assert_eq!(store.last_use(&id).await, (Some(at(1)), None));
    assert_eq!(store.place.number("SELECT count(*) FROM last_uses").await, 1);
}

/// So many credentials more, whose ids are the numbers from 1 on.
async fn add_numbered(store: &TestStore, count: usize) {
    let descendant = descendant("CAST(n AS TEXT)", &store.first, "NULL");
    store
        .sql(&format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count}) \
             {descendant}"
        ))
        .await;
}

async fn five_thousand_uses_are_noted_at_once(engine: Engine) {
    let store = TestStore::new(engine).await;
    add_numbered(&store, 5_000).await;
    let uses: Vec<_> =
        (1..=5_000).map(|n| used(&CredentialId(n.to_string()), n, Some("2001:db8::1"))).collect();
    store.note(&uses).await;
    let noted = format!(
        "SELECT count(*) FROM last_uses WHERE last_used_ip = '2001:db8::1' \
         AND last_used_at = {NOW} + CAST(credential_id AS BIGINT)"
    );
    assert_eq!(store.place.number(&noted).await, 5_000);
}

async fn uses_that_are_noted_at_once_in_any_order_are_all_noted(engine: Engine) {
    let store = TestStore::new(engine).await;
    add_numbered(&store, 2_000).await;
    at_once(8, |number| {
        let later = i64::try_from(number).unwrap();
        let mut uses: Vec<_> =
            (1..=2_000).map(|n| used(&CredentialId(n.to_string()), later, None)).collect();
        uses.rotate_left(number * 250);
        if number % 2 == 0 {
            uses.reverse();
        }
        let store = Arc::clone(&store.store);
        async move { store.note_last_uses(&uses).await.unwrap() }
    })
    .await;
    let noted = format!("SELECT count(*) FROM last_uses WHERE last_used_at = {NOW} + 7");
    assert_eq!(store.place.number(&noted).await, 2_000);
}

async fn noted_use_takes_no_revision_and_no_audit_row(engine: Engine) {
    let store = TestStore::new(engine).await;
    let id = store.token().await;
    let (head, actions) = (store.head().await.unwrap(), store.actions().await);
    let before = store.credential(token(&id)).await.unwrap().unwrap();
    store.note(&[used(&id, 1, None)]).await;
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(store.actions().await, actions);
    let after = store.credential(token(&id)).await.unwrap().unwrap();
    assert_eq!(after, Kept { last_used_at: Some(at(1)), ..before });
}

async fn last_use_goes_with_its_credential(engine: Engine) {
    let store = TestStore::new(engine).await;
    let id = store.token().await;
    store.note(&[used(&id, 1, None)]).await;
    store.revoke(&id).await;
    store.note(&[used(&id, 2, None)]).await;
    assert_eq!(store.last_use(&id).await, (Some(at(2)), None), "it was used before that");
    assert_eq!(store.purge(at(DAY), &service()).await.unwrap(), 1);
    assert_eq!(store.place.number("SELECT count(*) FROM last_uses").await, 0);
}

/// A use before a verifier.
fn before(id: &CredentialId, verifier: &CredentialId, later: i64, ip: Option<&str>) -> Use {
    Use {
        credential_id: id.clone(),
        verifier_id: Some(verifier.clone()),
        ip: ip.map(|ip| ip.parse().unwrap()),
        at: at(later),
    }
}

impl TestStore {
    async fn uses(&self, id: &CredentialId) -> Vec<KeptUse> {
        self.list_uses(id, None, 1_000).await.unwrap().unwrap()
    }
}

async fn use_is_kept_for_each_verifier_and_address(engine: Engine) {
    let store = TestStore::new(engine).await;
    let [id, verifier, gone] = [store.token().await, store.token().await, store.token().await];
    let unknown = CredentialId("0198c0de-0000-7000-8000-000000000001".to_owned());
    store.revoke(&gone).await;
    store.purge(at(DAY), &service()).await.unwrap();
    let head = store.head().await.unwrap();
    store.note_uses(&[]).await.unwrap();
    let here = Use { verifier_id: None, ..before(&id, &id, 2, Some("::ffff:203.0.113.9")) };
    let uses = [
        before(&id, &verifier, 4, None),
        before(&id, &verifier, 3, Some("2001:DB8::1")),
        here,
        before(&id, &unknown, 1, None),
        before(&gone, &verifier, 1, None),
    ];
    store.note_uses(&uses).await.unwrap();
    let user = || Some(store.administrator.id.clone());
    let expected = |verifier: Option<&CredentialId>, user, ip: Option<&str>, later| KeptUse {
        verifier_id: verifier.cloned(),
        verifier_user_id: user,
        ip: ip.map(ToOwned::to_owned),
        last_used_at: at(later),
    };
    let mut all = vec![
        expected(Some(&verifier), user(), None, 4),
        expected(Some(&verifier), user(), Some("2001:db8::1"), 3),
        expected(None, None, Some("203.0.113.9"), 2),
        expected(Some(&unknown), None, None, 1),
    ];
    assert_eq!(store.uses(&id).await, all);
    assert_eq!(store.list_uses(&gone, None, 10).await.unwrap(), None);
    assert_eq!(store.uses(&verifier).await, []);

    // A later use counts, an earlier one changes nothing.
    let uses = [before(&id, &unknown, 9, None), before(&id, &verifier, 1, Some("2001:db8::1"))];
    store.note_uses(&uses).await.unwrap();
    all.rotate_right(1);
    all[0].last_used_at = at(9);
    assert_eq!(store.uses(&id).await, all);
    assert_eq!(store.head().await.unwrap(), head, "no answer changes");
}

async fn uses_are_listed_in_pages_last_use_first(engine: Engine) {
    let store = TestStore::new(engine).await;
    let [id, one, two] = [store.token().await, store.token().await, store.token().await];
    let ips = ["10.0.0.1", "10.0.0.2", "2001:db8::3"];
    let mut uses = Vec::new();
    for (place, ip) in ips.into_iter().enumerate() {
        // Some of the same instant.
        for verifier in [&one, &two] {
            uses.push(before(&id, verifier, place as i64 / 2, Some(ip)));
        }
    }
    store.note_uses(&uses).await.unwrap();
    let all = store.uses(&id).await;
    assert_eq!(all.len(), uses.len());
    assert!(all.windows(2).all(|two| two[0].last_used_at >= two[1].last_used_at));
    let mut listed: Vec<KeptUse> = Vec::new();
    loop {
        let after = listed.last().map(KeptUse::cursor);
        let page = store.list_uses(&id, after.as_ref(), 2).await.unwrap().unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
        assert!(listed.len() <= all.len(), "a page begins after the one before");
    }
    assert_eq!(listed, all);
}

async fn who_is_bound_to_a_workspace_knows_of_its_credentials_and_of_its_members_unbound_ones(
    engine: Engine,
) {
    let store = TestStore::new(engine).await;
    let [alice, bob] = [store.user("alice").await, store.user("bob").await];
    store.workspace_with(&alice, "guest").await;
    let [hers, his, bound, elsewhere] =
        [new_token(&alice.id), new_token(&bob.id), new_token(&bob.id), new_token(&alice.id)];
    let all = [&hers, &his, &bound, &elsewhere].map(|new| new.id.clone());
    for new in [&hers, &his, &bound, &elsewhere] {
        store.keep(new).await;
    }
    let bind = |id: &CredentialId, workspace: &str| {
        format!(
            "UPDATE credentials SET workspace_id = '{workspace}', organization_id = 'o', \
             membership_id = 'm', workspace_epoch = 0, organization_epoch = 0 WHERE id = '{}'; ",
            id.0
        )
    };
    let other = "INSERT INTO workspaces (id, organization_id, slug, name, is_active, created_at, \
        updated_at) VALUES ('v', 'o', 'v', 'V', TRUE, 0, 0); ";
    store.sql(&(other.to_owned() + &bind(&bound.id, "w") + &bind(&elsewhere.id, "v"))).await;
    let ids = [&all[..], &[CredentialId("\"'".to_owned())]].concat();
    let known = async |workspace: Option<&str>| {
        let mut known = store.known(&ids, workspace).await.unwrap();
        known.sort_by_key(|id| all.iter().position(|each| each == id));
        known
    };
    assert_eq!(known(None).await, all);
    assert_eq!(known(Some("w")).await, [hers.id, bound.id]);
    assert_eq!(known(Some("v")).await, [elsewhere.id]);
    assert_eq!(known(Some("none")).await, []);
    assert_eq!(store.known(&[], None).await.unwrap(), []);
}

async fn uses_that_are_long_ago_or_too_many_are_forgotten(engine: Engine) {
    let store = TestStore::new(engine).await;
    let [id, one, two] = [store.token().await, store.token().await, store.token().await];
    let ip = |number: i64| format!("10.0.{}.{}", number / 200, number % 200);
    let uses: Vec<Use> =
        (0..3 * USES_KEPT).map(|number| before(&id, &one, number, Some(&ip(number)))).collect();
    store.note_uses(&uses).await.unwrap();
    store.note_uses(&[before(&id, &two, 5, None), before(&one, &two, -1, None)]).await.unwrap();
    let (head, actions) = (store.head().await.unwrap(), store.actions().await);
    assert_eq!(store.forget_uses(at(0), None, &service()).await.unwrap(), None);
    let (of_one, others): (Vec<_>, Vec<_>) =
        store.uses(&id).await.into_iter().partition(|kept| kept.verifier_id == Some(one.clone()));
    assert_eq!(of_one.len() as i64, USES_KEPT);
    assert_eq!(of_one.last().unwrap().last_used_at, at(2 * USES_KEPT), "the last ones");
    assert_eq!(others.len(), 1, "each verifier has its own");
    assert_eq!(store.uses(&one).await, [], "it is long ago");
    assert_eq!((store.head().await.unwrap(), store.actions().await), (head, actions));

    // More than are forgotten at once: the rest is looked at again.
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)";
    store
        .sql(&format!(
            "{numbers} INSERT INTO verifier_uses (credential_id, verifier_id, client_ip, \
             last_used_at) SELECT '{}', '', 'a' || i, {NOW} + i FROM n",
            two.0
        ))
        .await;
    let next = store.forget_uses(at(0), None, &service()).await.unwrap();
    assert!(next.is_some());
    assert_eq!(store.uses(&two).await.len(), 200);
    assert_eq!(store.forget_uses(at(0), next.as_ref(), &service()).await.unwrap(), None);
    assert_eq!(store.uses(&two).await.len() as i64, USES_KEPT);
}

async fn seals_are_listed_by_pepper_in_pages(engine: Engine) {
    let store = TestStore::new(engine).await;
    store.keep(&new_authorization(&store.administrator.id)).await;
    let mut expected = Vec::new();
    for seal in [b"one", b"two"] {
        expected.push((store.sealed(seal).await.id, seal.to_vec()));
    }
    expected.sort();
    let page = async |after: &str| {
        let kept = store.sealed_under(pepper().id(), after).await.unwrap();
        let pairs = kept.into_iter().map(|kept| (kept.secret_id, kept.sealed.as_bytes().to_vec()));
        pairs.collect::<Vec<_>>()
    };
    assert_eq!(page("").await, expected);
    assert_eq!(page(&expected[0].0).await, expected[1..]);
    assert_eq!(page(&expected[1].0).await, []);
    assert_eq!(store.sealed_under(&other_pepper(8), "").await.unwrap(), []);
}

async fn redigested_secret_is_sealed_anew_only_if_it_was(engine: Engine) {
    let store = TestStore::new(engine).await;
    let plain = new_authorization(&store.administrator.id);
    store.keep(&plain).await;
    let sealed = store.sealed(b"old").await;
    let (old, current) = (pepper().id().clone(), other_pepper(8));
    store.note_peppers(slice::from_ref(&current), at(0)).await.unwrap();
    store.promote_pepper(&current, Promotion::Rotation, &service()).await.unwrap();
    let again = Sealed::from_stored(b"new".to_vec());
    for id in [&plain.secret.id, &sealed.id] {
        let digest = new_secret().digest;
        assert!(store.redigest(id, &old, &current, &digest, Some(&again)).await.unwrap());
    }
    let kept = store.sealed_under(&current, "").await.unwrap();
    let kept: Vec<_> = kept.iter().map(|kept| (&kept.secret_id, &kept.sealed)).collect();
    assert_eq!(kept, [(&sealed.id, &again)]);
    assert_eq!(store.sealed_under(&old, "").await.unwrap(), []);
}

async fn forgotten_seals_are_gone_and_nothing_else_is(engine: Engine) {
    let store = TestStore::new(engine).await;
    let secrets = [store.sealed(b"one").await, store.sealed(b"two").await];
    let (head, actions) = (store.head().await.unwrap(), store.actions().await);
    assert_eq!(store.forget_seals(&service()).await.unwrap(), 2);
    assert_eq!(store.sealed_under(pepper().id(), "").await.unwrap(), []);
    for secret in &secrets {
        assert!(store.found(&secret.digest).await.is_some(), "they can be used as before");
    }
    assert_eq!(store.head().await.unwrap(), head);
    let forgotten = [actions, vec!["secrets.forget_sealed".to_owned()]].concat();
    assert_eq!(store.actions().await.len(), forgotten.len());
    assert!(store.actions().await.contains(&"secrets.forget_sealed".to_owned()));
    assert_eq!(store.forget_seals(&service()).await.unwrap(), 0);
    assert_eq!(store.actions().await.len(), forgotten.len(), "there was nothing to forget");
}
