//! Before which verifiers and from where a token was used, and what verifiers report of it.

use std::time::Duration;

use token_authority::proto::v1::{
    ListUsageRequest, ReportUseRequest, TokenUse, Usage, VerifyRequest, WhoAmIRequest,
};
use tonic::Code;

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, v2, wrong_fields},
    wait,
};

on_both_stores![
    use_is_listed_for_each_verifier_and_address,
    verifiers_that_ask_in_turn_are_all_noted,
    use_at_this_service_has_no_verifier,
    system_root_token_is_a_verifier_of_the_system_user,
    uses_are_listed_in_pages_of_their_own_list,
    usage_of_what_is_not_there_is_not_found,
    reported_use_is_noted_with_its_verifier,
    report_of_what_its_verifier_may_not_know_of_is_passed_over,
    malformed_report_names_its_fields_and_notes_nothing,
];

/// In what time a first use is noted.
const FIRST: Duration = Duration::from_secs(2);

/// What a condition may take to come true that has no promise of its own.
const SOON: Duration = Duration::from_secs(20);

/// A token and its id.
struct Made {
    text: String,
    id: String,
    user_id: String,
}

impl TestServer {
    async fn made(&self, handle: &str, scopes: &[&str]) -> Made {
        let user = self.user(handle).await;
        let made = self.token_of(&user.id, scopes).await;
        let id = made.personal_access_token.unwrap().id;
        Made { text: made.token, id, user_id: user.id }
    }

    async fn verified(&self, verifier: &str, token: &str, ip: Option<&str>) {
        let request = VerifyRequest {
            token: token.to_owned(),
            client_ip: ip.map(ToOwned::to_owned),
            ..Default::default()
        };
        let answer = self.verification(verifier).verify(request).await.unwrap();
        assert!(answer.into_inner().active);
    }

    async fn usage_of(&self, id: &str) -> Vec<Usage> {
        let request = ListUsageRequest { id: id.to_owned(), ..Default::default() };
        let listed = self.credentials(&self.admin).list_usage(request).await.unwrap().into_inner();
        assert_eq!(listed.next_page_token, "");
        listed.usage
    }

    async fn until_used(&self, id: &str, uses: usize, deadline: Duration) -> Vec<Usage> {
        wait::until("uses are noted", deadline, async || self.usage_of(id).await.len() >= uses)
            .await;
        let usage = self.usage_of(id).await;
        assert_eq!(usage.len(), uses, "{usage:?}");
        usage
    }

    async fn report(&self, verifier: &str, items: Vec<TokenUse>) {
        self.verification(verifier).report_use(ReportUseRequest { items }).await.unwrap();
    }
}

fn usage(verifier: &Made, ip: Option<&str>, last_used_at: prost_types::Timestamp) -> Usage {
    Usage {
        verifier_token_id: Some(verifier.id.clone()),
        verifier_user_id: Some(verifier.user_id.clone()),
        client_ip: ip.map(ToOwned::to_owned),
        last_used_at: Some(last_used_at),
    }
}

fn token_use(id: &str, last_used_at: prost_types::Timestamp, ip: Option<&str>) -> TokenUse {
    TokenUse {
        token_id: id.to_owned(),
        last_used_at: Some(last_used_at),
        client_ip: ip.map(ToOwned::to_owned),
    }
}

async fn use_is_listed_for_each_verifier_and_address(engine: Engine) {
    let server = TestServer::start(engine).await;
    let token = server.made("alice", &["read:*"]).await;
    let [mail, notes] = [
        server.made("mail", &["verify:tokens"]).await,
        server.made("notes", &["verify:tokens"]).await,
    ];
    let mut expected = Vec::new();
    for (verifier, ip) in
        [(&mail, None), (&mail, Some("2001:db8::7")), (&notes, Some("203.0.113.7"))]
    {
        server.verified(&verifier.text, &token.text, ip).await;
        expected.insert(0, usage(verifier, ip, server.after(Duration::ZERO)));
        assert_eq!(server.until_used(&token.id, expected.len(), FIRST).await, expected);
        server.clock.advance(Duration::from_secs(1));
    }
    // Another form of the same address is no other, and later uses are noted once a
    // minute.
    server.clock.advance(Duration::from_secs(30));
    server.verified(&notes.text, &token.text, Some("::ffff:203.0.113.7")).await;
    let used = server.after(Duration::ZERO);
    server.clock.advance(Duration::from_secs(30));
    let is_noted = async || server.usage_of(&token.id).await[0].last_used_at == Some(used);
    wait::until("the later use is noted", FIRST, is_noted).await;
    expected[0].last_used_at = Some(used);
    assert_eq!(server.usage_of(&token.id).await, expected);
}

async fn verifiers_that_ask_in_turn_are_all_noted(engine: Engine) {
    let server = TestServer::start(engine).await;
    let token = server.made("alice", &["read:*"]).await;
    let mut verifiers = Vec::new();
    for number in 0..8 {
        verifiers.push(server.made(&format!("verifier-{number}"), &["verify:tokens"]).await);
    }
    // One may be passed over in a second, but not in all of them.
    for _ in 0..4 {
        for verifier in &verifiers {
            server.verified(&verifier.text, &token.text, None).await;
        }
        server.clock.advance(Duration::from_secs(1));
    }
    let listed = server.until_used(&token.id, verifiers.len(), FIRST).await;
    for verifier in &verifiers {
        assert!(listed.iter().any(|each| each.verifier_token_id() == verifier.id));
    }
}

async fn use_at_this_service_has_no_verifier(engine: Engine) {
    let server = TestServer::start(engine).await;
    let token = server.made("alice", &["verify:tokens"]).await;
    let here = |at| Usage {
        client_ip: Some("127.0.0.1".to_owned()),
        last_used_at: Some(at),
        ..Default::default()
    };
    server.verification(&token.text).who_am_i(WhoAmIRequest {}).await.unwrap();
    let first = here(server.after(Duration::ZERO));
    assert_eq!(server.until_used(&token.id, 1, FIRST).await, [first]);
    // Who asks about another is used here, too, and about itself is its own verifier.
    server.clock.advance(Duration::from_mins(2));
    server.verified(&token.text, &token.text, None).await;
    let now = server.after(Duration::ZERO);
    let mut listed = server.until_used(&token.id, 2, FIRST).await;
    listed.sort_by_key(|each| each.verifier_token_id.is_some());
    assert_eq!(listed, [here(now), usage(&token, None, now)]);
}

async fn system_root_token_is_a_verifier_of_the_system_user(engine: Engine) {
    let root = "RootTokenOfTheTestOfWhoUsedWhichToken0123";
    let place = crate::support::server::Place::new(engine).await;
    std::fs::write(place.path("root"), root).unwrap();
    let file = format!("--system-root-token-file={}", place.path("root").display());
    let server = TestServer::start_on(place, &[&file]).await;
    let user = server.user("alice").await;
    let made = server.authorization_of(&user.id, None).await;
    server.verified(root, &v2(&made), None).await;
    let listed = server.until_used(made.uuid(), 1, FIRST).await;
    assert_eq!(listed[0].verifier_token_id(), "zzzzz-gj3su-000000000000000");
    assert_eq!(listed[0].verifier_user_id(), "zzzzz-tpzed-000000000000000");
}

async fn uses_are_listed_in_pages_of_their_own_list(engine: Engine) {
    let server = TestServer::start(engine).await;
    let [token, other] = [server.made("alice", &[]).await, server.made("bob", &[]).await];
    let ips = ["203.0.113.7", "2001:db8::7", "198.51.100.1", "198.51.100.2"];
    let now = server.after(Duration::ZERO);
    let other_form = token_use(&token.id, now, Some("::ffff:203.0.113.7"));
    let items = ips.map(|ip| token_use(&token.id, now, Some(ip)));
    server.report(&server.admin, [&items[..], &[other_form]].concat()).await;
    let all = server.until_used(&token.id, ips.len(), SOON).await;

    let mut credentials = server.credentials(&server.admin);
    let mut request = ListUsageRequest { id: token.id.clone(), page_size: 3, ..Default::default() };
    let first = credentials.list_usage(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    let second = credentials.list_usage(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.usage.len(), &*second.next_page_token), (3, ""));
    assert_eq!([first.usage, second.usage].concat(), all);

    request.id = other.id.clone();
    assert_eq!(wrong_fields(credentials.list_usage(request).await), ["page_token"]);
    let request = ListUsageRequest { page_size: -1, ..Default::default() };
    assert_eq!(wrong_fields(credentials.list_usage(request).await), ["page_size", "id"]);
}

async fn usage_of_what_is_not_there_is_not_found(engine: Engine) {
    let server = TestServer::start(engine).await;
    for id in ["0198c0de-0000-7000-8000-000000000001", "x", "\0", "' OR 1"] {
        let request = ListUsageRequest { id: id.to_owned(), ..Default::default() };
        let listed = server.credentials(&server.admin).list_usage(request).await;
        assert_eq!(listed.unwrap_err().code(), Code::NotFound, "{id}");
    }
    let unused = server.made("alice", &[]).await;
    assert_eq!(server.usage_of(&unused.id).await, []);
}

async fn reported_use_is_noted_with_its_verifier(engine: Engine) {
    let server = TestServer::start(engine).await;
    let [token, later, soon] = [
        server.made("alice", &["read:*"]).await,
        server.made("bob", &["read:*"]).await,
        server.made("carol", &["read:*"]).await,
    ];
    let verifier = server.made("mail", &["verify:tokens"]).await;
    let changes = "SELECT (SELECT number FROM revision) + (SELECT count(*) FROM audit)";
    let before = server.place.number(changes).await;
    let first = server.after(Duration::ZERO);
    server.clock.advance(Duration::from_secs(10));
    let (now, to_come) = (server.after(Duration::ZERO), server.after(Duration::from_secs(5)));
    let items = vec![
        token_use(&token.id, now, Some("203.0.113.7")),
        // Older than what is known, by then.
        token_use(&token.id, first, Some("203.0.113.7")),
        token_use(&later.id, first, None),
        token_use(&soon.id, to_come, None),
    ];
    server.report(&verifier.text, items).await;
    let expected = usage(&verifier, Some("203.0.113.7"), now);
    assert_eq!(server.until_used(&token.id, 1, FIRST).await, [expected]);
    let expected = usage(&verifier, None, first);
    assert_eq!(server.until_used(&later.id, 1, FIRST).await, [expected]);
    assert_eq!(server.until_used(&soon.id, 1, FIRST).await, [usage(&verifier, None, now)]);
    assert_eq!(server.place.number(changes).await, before, "no answer changes");

    // It is the last use as any other; one that is older than what is written is passed over.
    server.clock.advance(Duration::from_mins(5));
    server.report(&verifier.text, vec![token_use(&token.id, first, Some("203.0.113.7"))]).await;
    let mark = server.after(Duration::ZERO);
    server.report(&verifier.text, vec![token_use(&later.id, mark, None)]).await;
    let is_noted = async || server.usage_of(&later.id).await[0].last_used_at == Some(mark);
    wait::until("what was reported after it is noted", SOON, is_noted).await;
    assert_eq!(server.usage_of(&token.id).await, [usage(&verifier, Some("203.0.113.7"), now)]);
    let last = format!("SELECT last_used_at FROM last_uses WHERE credential_id = '{}'", token.id);
    let micros = now.seconds * 1_000_000 + i64::from(now.nanos / 1_000);
    assert_eq!(server.place.number(&last).await, micros);
}

async fn report_of_what_its_verifier_may_not_know_of_is_passed_over(engine: Engine) {
    let server = TestServer::start(engine).await;
    let [member, stranger] = [server.made("member", &[]).await, server.made("stranger", &[]).await];
    let verifier = server.user("verifier").await;
    let [own, other] = [server.workspace("own").await, server.workspace("other").await];
    for (user, workspace) in
        [(&verifier.id, &own), (&member.user_id, &own), (&member.user_id, &other)]
    {
        server.join(user, workspace, "member").await;
    }
    let asker = server.bound_with(&verifier.id, &own, &["verify:tokens"]).await;
    let id_of = async |text: String| server.verify(&text).await.token_id;
    let of_own = id_of(server.bound(&member.user_id, &own).await).await;
    let of_other = id_of(server.bound(&member.user_id, &other).await).await;
    let made_up = "0198c0de-0000-7000-8000-000000000001";

    // Those that were verified to learn their ids are used by that; the clock shows
    // another time since.
    server.clock.advance(Duration::from_mins(2));
    let now = server.after(Duration::ZERO);
    let ids = [&of_own, &of_other, &member.id, &stranger.id, made_up, "x y", "\0", "\u{fffd}"];
    let items = ids.map(|id| token_use(id, now, Some("203.0.113.7")));
    server.report(&asker, items.to_vec()).await;
    let reported = async |id: &str| {
        server.usage_of(id).await.iter().any(|each| each.client_ip() == "203.0.113.7")
    };
    for known in [&of_own, &member.id] {
        wait::until("the use is noted", FIRST, async || reported(known).await).await;
    }
    for unknown in [&of_other, &stranger.id] {
        assert!(!reported(unknown).await);
    }
}

async fn malformed_report_names_its_fields_and_notes_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let token = server.made("alice", &[]).await;
    let now = server.after(Duration::ZERO);
    let good = token_use(&token.id, now, None);
    let mut verification = server.verification(&server.admin);
    let mut report =
        async |items: Vec<TokenUse>| verification.report_use(ReportUseRequest { items }).await;
    let beyond = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let items = vec![
        good.clone(),
        token_use("", now, None),
        TokenUse { last_used_at: None, ..good.clone() },
        token_use(&token.id, beyond, Some("10.0.0.1:80")),
        token_use(&token.id, now, Some("")),
    ];
    let expected = [
        "items[1].token_id",
        "items[2].last_used_at",
        "items[3].last_used_at",
        "items[3].client_ip",
        "items[4].client_ip",
    ];
    assert_eq!(wrong_fields(report(items).await), expected);
    assert_eq!(wrong_fields(report(vec![good.clone(); 1_001]).await), ["items"]);
    report(Vec::new()).await.unwrap();
    let other = server.made("bob", &[]).await;
    report(vec![token_use(&other.id, now, None); 1_000]).await.unwrap();
    server.until_used(&other.id, 1, SOON).await;
    assert_eq!(server.usage_of(&token.id).await, []);
}
