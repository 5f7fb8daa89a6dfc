use std::time::Duration;

use token_authority::proto::v1::{
    CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse,
    GetPersonalAccessTokenRequest, PersonalAccessToken, Reason, RevokePersonalAccessTokenRequest,
    RotatePersonalAccessTokenRequest, RotatePersonalAccessTokenResponse, UpdateUserRequest,
    WhoAmIRequest, create_personal_access_token_request::Expiry,
    personal_access_tokens_client::PersonalAccessTokensClient,
};
use tonic::{Code, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::support::{
    Engine,
    lossy::Lossy,
    on_both_stores,
    server::{Presented, TestServer, exceeded, refused, wrong_fields},
    wait::until,
};

on_both_stores![
    new_secret_is_of_the_same_token_and_the_old_one_is_good_until_it_is_used,
    old_secret_ends_with_the_overlap_though_the_new_one_is_not_used,
    without_overlap_the_old_secret_ends_at_once,
    rotation_lengthens_nothing,
    next_rotation_replaces_a_secret_that_was_not_used,
    old_secret_rotates_again_until_the_new_one_is_used,
    repeated_rotation_replaces_the_lost_secret_until_it_is_used,
    lost_answer_to_a_rotation_locks_nobody_out,
    lost_answer_to_a_creation_locks_nobody_out,
    use_of_a_replaced_secret_is_reported_once,
    use_of_a_replaced_secret_ends_the_token_where_the_server_is_set_to,
    dead_tokens_are_not_rotated,
    nobody_rotates_what_can_do_more_than_his_own_token,
    issuer_rotates_what_he_could_have_issued,
    what_only_counts_by_its_name_is_not_in_a_token_that_may_do_everything,
    repeat_of_a_creation_does_not_lift_the_end_that_a_rotation_set,
    wrong_overlap_is_refused,
];

const DAY: Duration = Duration::from_hours(24);

fn by_id(id: &str) -> RotatePersonalAccessTokenRequest {
    RotatePersonalAccessTokenRequest { id: id.to_owned(), ..Default::default() }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

impl TestServer {
    async fn rotate(&self, as_token: &str, id: &str) -> RotatePersonalAccessTokenResponse {
        self.try_rotate(as_token, by_id(id)).await.unwrap()
    }

    async fn try_rotate(
        &self,
        as_token: &str,
        request: RotatePersonalAccessTokenRequest,
    ) -> Result<RotatePersonalAccessTokenResponse, Status> {
        let rotated = self.tokens(as_token).rotate_personal_access_token(request).await;
        rotated.map(tonic::Response::into_inner)
    }

    async fn is_active(&self, token: &str) -> bool {
        self.verify(token).await.active
    }

    /// Waits until the old secret of a rotation is superseded by its successor.
    async fn is_superseded(&self, id: &str) {
        let query = format!(
            "SELECT count(*) FROM secrets WHERE credential_id = '{id}' AND state = 'pending'"
        );
        until("promotion", Duration::from_secs(5), async || self.place.number(&query).await == 0)
            .await;
    }

    async fn audited(&self, action: &str) -> i64 {
        let query = format!("SELECT count(*) FROM audit WHERE action = '{action}'");
        self.place.number(&query).await
    }

    async fn shown(&self, id: &str) -> PersonalAccessToken {
        let request = GetPersonalAccessTokenRequest { id: id.to_owned() };
        let got = self.tokens(&self.admin).get_personal_access_token(request).await.unwrap();
        got.into_inner().personal_access_token.unwrap()
    }

    /// A user with a token that may write its tokens.
    async fn writer(&self) -> (String, CreatePersonalAccessTokenResponse) {
        let user = self.user("alice").await;
        let token = self.token_of(&user.id, &["write:tokens", "read:notes"]).await;
        (user.id, token)
    }
}

fn id_of(created: &CreatePersonalAccessTokenResponse) -> String {
    created.personal_access_token.as_ref().unwrap().id.clone()
}

async fn new_secret_is_of_the_same_token_and_the_old_one_is_good_until_it_is_used(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, old) = server.writer().await;
    let id = id_of(&old);
    server.clock.advance(Duration::from_secs(60));
    let new = server.rotate(&old.token, &id).await;
    let shown = new.personal_access_token.unwrap();
    assert_eq!(
        (shown.id.as_str(), &shown.scopes),
        (id.as_str(), &vec!["write:tokens".to_owned(), "read:notes".to_owned()])
    );
    assert!(new.token.starts_with(&shown.token_prefix));
    assert_eq!(shown.current_secret_created_at, Some(server.after(Duration::ZERO)));
    assert_eq!(shown.previous_secret_expires_at, Some(server.after(DAY)));
    assert_eq!(shown.updated_at, Some(server.after(Duration::ZERO)));
    assert_eq!(server.shown(&id).await, shown);

    // The answer about the old secret ends with it.
    let before = server.verify(&old.token).await;
    assert!(before.active);
    assert_eq!(before.expires_at, Some(server.after(DAY)));
    let first = server.verify(&new.token).await;
    assert!(first.active);
    assert_eq!((first.token_id.as_str(), first.expires_at), (id.as_str(), None));
    server.is_superseded(&id).await;
    let refused = server.verify(&old.token).await;
    assert_eq!((refused.active, refused.reason()), (false, Reason::Expired));
    assert_eq!(refused.refusal.unwrap().token_id, id);
    assert!(server.is_active(&new.token).await);
    let shown = server.shown(&id).await;
    assert_eq!(shown.previous_secret_expires_at, None);
    assert!(new.token.starts_with(&shown.token_prefix));
    assert_eq!(server.audited("credential.promote").await, 1);
}

async fn old_secret_ends_with_the_overlap_though_the_new_one_is_not_used(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, old) = server.writer().await;
    let id = id_of(&old);
    let request = RotatePersonalAccessTokenRequest { overlap: seconds(60), ..by_id(&id) };
    let new = server.try_rotate(&old.token, request).await.unwrap();
    server.clock.advance(Duration::from_secs(60) - Duration::from_micros(1));
    assert!(server.is_active(&old.token).await);
    server.clock.advance(Duration::from_micros(1));
    assert_eq!(server.verify(&old.token).await.reason(), Reason::Expired);
    assert_eq!(server.shown(&id).await.previous_secret_expires_at, None);
    assert!(server.is_active(&new.token).await);
}

async fn without_overlap_the_old_secret_ends_at_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, old) = server.writer().await;
    let request = RotatePersonalAccessTokenRequest { overlap: seconds(0), ..by_id(&id_of(&old)) };
    let new = server.try_rotate(&old.token, request).await.unwrap();
    assert!(!server.is_active(&old.token).await);
    assert!(server.is_active(&new.token).await);
}

async fn rotation_lengthens_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let request = CreatePersonalAccessTokenRequest {
        name: "short".to_owned(),
        scopes: vec!["write:tokens".to_owned()],
        user_id: Some(user.id),
        expiry: Some(Expiry::Ttl(seconds(3600).unwrap())),
        ..Default::default()
    };
    let old = server
        .tokens(&server.admin)
        .create_personal_access_token(request)
        .await
        .unwrap()
        .into_inner();
    let id = id_of(&old);
    let end = server.after(Duration::from_secs(3600));
    let with =
        |overlap| RotatePersonalAccessTokenRequest { overlap: seconds(overlap), ..by_id(&id) };
    let first = server.try_rotate(&old.token, with(60)).await.unwrap();
    assert_eq!(first.personal_access_token.unwrap().expires_at, Some(end));
    // A longer overlap later does not bring the old secret more time than it had.
    let second = server.try_rotate(&old.token, with(600)).await.unwrap();
    assert_eq!(
        server.verify(&old.token).await.expires_at,
        Some(server.after(Duration::from_secs(60)))
    );
    server.clock.advance(Duration::from_secs(60));
    assert!(!server.is_active(&old.token).await);
    assert!(server.is_active(&second.token).await);
    server.clock.advance(Duration::from_secs(3540));
    assert_eq!(server.verify(&second.token).await.reason(), Reason::Expired);
}

async fn next_rotation_replaces_a_secret_that_was_not_used(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, old) = server.writer().await;
    let id = id_of(&old);
    let lost = server.rotate(&old.token, &id).await;
    let new = server.rotate(&old.token, &id).await;
    assert_eq!(server.verify(&lost.token).await.reason(), Reason::NotFound);
    assert!(server.is_active(&old.token).await);
    // One that was used is not lost: it has its overlap.
    assert!(server.is_active(&new.token).await);
    let third = server.rotate(&server.admin, &id).await;
    assert!(server.is_active(&new.token).await);
    assert!(!server.is_active(&old.token).await);
    assert!(server.is_active(&third.token).await);
    server.is_superseded(&id).await;
    assert!(!server.is_active(&new.token).await);
}

async fn old_secret_rotates_again_until_the_new_one_is_used(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, old) = server.writer().await;
    let id = id_of(&old);
    server.rotate(&old.token, &id).await;
    let new = server.rotate(&old.token, &id).await;
    // Its own call is a use, too.
    server.verification(&new.token).who_am_i(WhoAmIRequest {}).await.unwrap();
    server.is_superseded(&id).await;
    let again = server.tokens(&old.token).rotate_personal_access_token(by_id(&id)).await;
    assert_eq!(refused(again), (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned()));
    server.rotate(&new.token, &id).await;
}

async fn repeated_rotation_replaces_the_lost_secret_until_it_is_used(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, old) = server.writer().await;
    let id = id_of(&old);
    let request = |number: u8| RotatePersonalAccessTokenRequest {
        request_id: Some(format!("0198c0de-0000-7000-8000-0000000000{number:02x}")),
        ..by_id(&id)
    };
    let lost = server.try_rotate(&old.token, request(1)).await.unwrap();
    server.clock.advance(Duration::from_secs(60));
    let again = server.try_rotate(&old.token, request(1)).await.unwrap();
    assert!(!again.already_used);
    assert_eq!(server.verify(&lost.token).await.reason(), Reason::NotFound);
    // It is the same rotation, whose overlap began when it was first asked for.
    let end = server.after(DAY - Duration::from_secs(60));
    assert_eq!(server.verify(&old.token).await.expires_at, Some(end));

    let other = RotatePersonalAccessTokenRequest { overlap: seconds(1), ..request(1) };
    let other = server.tokens(&old.token).rotate_personal_access_token(other).await;
    assert_eq!(refused(other), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));

    assert!(server.is_active(&again.token).await);
    server.is_superseded(&id).await;
    let used = server.try_rotate(&again.token, request(1)).await.unwrap();
    assert!(used.already_used && used.token.is_empty());
    assert_eq!(used.personal_access_token.unwrap().id, id);
    // Another request is another rotation.
    let next = server.try_rotate(&again.token, request(2)).await.unwrap();
    assert!(server.is_active(&again.token).await);
    // One that was replaced by a rotation since has no secret to give any more.
    let after_it = server.try_rotate(&again.token, request(3)).await.unwrap();
    assert!(server.try_rotate(&again.token, request(2)).await.unwrap().already_used);
    assert_eq!(server.verify(&next.token).await.reason(), Reason::NotFound);
    assert!(server.is_active(&after_it.token).await);
}

/// Calls once on a way on which the answer gets lost after the change was made;
/// the secret that was in it.
async fn lose<T>(
    server: &TestServer,
    token: &str,
    call: impl AsyncFnOnce(
        PersonalAccessTokensClient<InterceptedService<Channel, Presented>>,
    ) -> Result<T, Status>,
) -> String {
    let lossy = Lossy::to(server.address).await;
    let way = Channel::from_shared(format!("http://{}", lossy.address)).unwrap();
    let way = way.connect().await.unwrap();
    let client =
        PersonalAccessTokensClient::new(InterceptedService::new(way, Presented::bearer(token)));
    lossy.lose_answers();
    let mut lost = None;
    let (answer, ()) = tokio::join!(call(client), async {
        until("the answer", Duration::from_secs(5), async || {
            lost = lossy.lost_token();
            lost.is_some()
        })
        .await;
        lossy.cut().await;
    });
    assert!(answer.is_err(), "the answer arrived");
    lost.unwrap()
}

async fn lost_answer_to_a_rotation_locks_nobody_out(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, old) = server.writer().await;
    let id = id_of(&old);
    for request_id in [None, Some("0198c0de-0000-7000-8000-000000000001".to_owned())] {
        let request = RotatePersonalAccessTokenRequest { request_id, ..by_id(&id) };
        let once = request.clone();
        let lost = lose(&server, &old.token, async |mut client| {
            client.rotate_personal_access_token(once).await
        })
        .await;
        // The caller has its old secret, and rotates with it again.
        assert!(server.is_active(&old.token).await);
        let new = server.try_rotate(&old.token, request).await.unwrap();
        assert!(!new.already_used);
        assert!(server.is_active(&old.token).await);
        assert_eq!(server.verify(&lost).await.reason(), Reason::NotFound);
    }
    let last = server.rotate(&old.token, &id).await;
    assert!(server.is_active(&last.token).await);
}

async fn lost_answer_to_a_creation_locks_nobody_out(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-pats-per-user=2"]).await;
    let (_, own) = server.writer().await;
    let request = CreatePersonalAccessTokenRequest {
        name: "lost".to_owned(),
        request_id: Some("0198c0de-0000-7000-8000-000000000001".to_owned()),
        ..Default::default()
    };
    let once = request.clone();
    let lost = lose(&server, &own.token, async |mut client| {
        client.create_personal_access_token(once).await
    })
    .await;
    // It is the same token, within the quota, with another secret.
    let mut client = server.tokens(&own.token);
    let again = client.create_personal_access_token(request).await.unwrap().into_inner();
    assert!(!again.already_used);
    assert!(server.is_active(&again.token).await);
    assert_eq!(server.verify(&lost).await.reason(), Reason::NotFound);
}

async fn superseded(server: &TestServer) -> (String, String, String) {
    let (_, old) = server.writer().await;
    let id = id_of(&old);
    let new = server.rotate(&old.token, &id).await.token;
    assert!(server.is_active(&new).await);
    server.is_superseded(&id).await;
    (id, old.token, new)
}

async fn use_of_a_replaced_secret_is_reported_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (id, old, new) = superseded(&server).await;
    let reused = "credential.secret_reused";
    for _ in 0..3 {
        assert_eq!(server.verify(&old).await.reason(), Reason::Expired);
        until("the report", Duration::from_secs(5), async || server.audited(reused).await == 1)
            .await;
    }
    let mut as_caller = server.verification(&old);
    assert!(as_caller.who_am_i(WhoAmIRequest {}).await.is_err());
    assert!(server.is_active(&new).await, "of the token itself nothing is changed");
    // What is asked for later is done later: one more rotation, and all before it is done.
    let newest = server.rotate(&new, &id).await.token;
    assert!(server.is_active(&newest).await);
    server.is_superseded(&id).await;
    assert_eq!(server.audited(reused).await, 1);
}

async fn use_of_a_replaced_secret_ends_the_token_where_the_server_is_set_to(engine: Engine) {
    let server = TestServer::start_with(engine, &["--on-secret-reuse=revoke"]).await;
    let (id, old, new) = superseded(&server).await;
    assert!(server.is_active(&new).await);
    assert!(!server.is_active(&old).await);
    until("the end", Duration::from_secs(5), async || !server.is_active(&new).await).await;
    assert_eq!(server.verify(&new).await.reason(), Reason::Revoked);
    assert!(server.shown(&id).await.revoked_at.is_some());
}

async fn dead_tokens_are_not_rotated(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let workspace = server.workspace("main").await;
    server.join(&user.id, &workspace, "member").await;
    let mut admin = server.tokens(&server.admin);
    let mut new = async |request: CreatePersonalAccessTokenRequest| {
        let request = CreatePersonalAccessTokenRequest {
            name: "dead".to_owned(),
            user_id: Some(user.id.clone()),
            ..request
        };
        id_of(&admin.create_personal_access_token(request).await.unwrap().into_inner())
    };
    let refused_with = async |id: &str| {
        let rotated = server.tokens(&server.admin).rotate_personal_access_token(by_id(id)).await;
        refused(rotated)
    };
    let expired = new(CreatePersonalAccessTokenRequest {
        expiry: Some(Expiry::Ttl(seconds(60).unwrap())),
        ..Default::default()
    })
    .await;
    let revoked = new(CreatePersonalAccessTokenRequest::default()).await;
    let bound = new(CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace.clone()),
        ..Default::default()
    })
    .await;
    let free = new(CreatePersonalAccessTokenRequest::default()).await;
    let request = RevokePersonalAccessTokenRequest { id: revoked.clone(), ..Default::default() };
    server.tokens(&server.admin).revoke_personal_access_token(request).await.unwrap();
    server.clock.advance(Duration::from_secs(60));
    let failed = |reason: &str| (Code::FailedPrecondition, reason.to_owned());
    assert_eq!(refused_with(&expired).await, failed("TOKEN_EXPIRED"));
    assert_eq!(refused_with(&revoked).await, failed("TOKEN_REVOKED"));
    server
        .place
        .sql(&format!("UPDATE workspaces SET is_active = FALSE WHERE id = '{workspace}'"))
        .await;
    assert_eq!(refused_with(&bound).await, failed("WORKSPACE_INACTIVE"));
    server
        .place
        .sql(&format!("UPDATE workspaces SET is_active = TRUE WHERE id = '{workspace}'"))
        .await;
    server.leave(&user.id, &workspace).await;
    // To its user it is not there to be a member of any more.
    assert_eq!(refused_with(&bound).await, failed("TOKEN_REVOKED"));
    let mut directory = server.directory(&server.admin);
    let request =
        UpdateUserRequest { user: user.id.clone(), is_active: Some(false), ..Default::default() };
    directory.update_user(request).await.unwrap();
    assert_eq!(refused_with(&free).await, failed("USER_INACTIVE"));
    let unknown = refused_with("0198c0de-0000-7000-8000-00000000000a").await;
    assert_eq!(unknown, (Code::NotFound, String::new()));
}

async fn nobody_rotates_what_can_do_more_than_his_own_token(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let create = async |scopes: &[&str], ips: &[&str], ttl: Option<i64>| {
        let request = CreatePersonalAccessTokenRequest {
            name: "of alice".to_owned(),
            user_id: Some(user.id.clone()),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            allowed_ips: ips.iter().map(ToString::to_string).collect(),
            expiry: ttl.map(|ttl| Expiry::Ttl(seconds(ttl).unwrap())),
            ..Default::default()
        };
        let mut admin = server.tokens(&server.admin);
        admin.create_personal_access_token(request).await.unwrap().into_inner()
    };
    let local: &[&str] = &["127.0.0.0/8"];
    let own = create(&["write:tokens", "read:*"], local, Some(3600)).await;
    let rotate =
        async |id: String| server.tokens(&own.token).rotate_personal_access_token(by_id(&id)).await;
    let wider = create(&["write:notes"], local, Some(60)).await;
    assert_eq!(exceeded(rotate(id_of(&wider)).await), "scopes");
    let control = create(&["verify:tokens"], local, Some(60)).await;
    assert_eq!(exceeded(rotate(id_of(&control)).await), "scopes");
    let anywhere = create(&["read:notes"], &[], Some(60)).await;
    assert_eq!(exceeded(rotate(id_of(&anywhere)).await), "allowed_ips");
    let longer = create(&["read:notes"], local, Some(3601)).await;
    assert_eq!(exceeded(rotate(id_of(&longer)).await), "expires_at");
    let forever = create(&["read:notes"], local, None).await;
    assert_eq!(exceeded(rotate(id_of(&forever)).await), "expires_at");
    let covered = create(&["read:notes"], &["127.0.0.1"], Some(3600)).await;
    rotate(id_of(&covered)).await.unwrap();
    rotate(id_of(&own)).await.unwrap();
    // Another's is not there.
    let other = server.user("bob").await;
    let others = server.token_of(&other.id, &[]).await;
    assert_eq!(refused(rotate(id_of(&others)).await), (Code::NotFound, String::new()));
}

async fn issuer_rotates_what_he_could_have_issued(engine: Engine) {
    let server = TestServer::start(engine).await;
    let issuing = server.administrator("issuer").await;
    let issuer = server.text_of(&issuing.id, &["issue:tokens"]).await;
    let user = server.user("alice").await;
    let rotate =
        async |id: String| server.tokens(&issuer).rotate_personal_access_token(by_id(&id)).await;
    let issued = server.token_of(&user.id, &["write:notes"]).await;
    rotate(id_of(&issued)).await.unwrap();
    let control = server.token_of(&user.id, &["read:tokens"]).await;
    assert_eq!(exceeded(rotate(id_of(&control)).await), "scopes");
    let administrators = server.token_of(&issuing.id, &["read:notes"]).await;
    assert_eq!(refused(rotate(id_of(&administrators)).await), (Code::NotFound, String::new()));
}

async fn what_only_counts_by_its_name_is_not_in_a_token_that_may_do_everything(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let everything = server.text_of(&user.id, &["admin:all"]).await;
    for scope in ["verify:tokens", "issue:tokens"] {
        let id = id_of(&server.token_of(&user.id, &[scope]).await);
        let rotated = server.tokens(&everything).rotate_personal_access_token(by_id(&id)).await;
        assert_eq!(exceeded(rotated), "scopes", "{scope}");
    }
    let verifier = server.token_of(&user.id, &["verify:tokens", "write:tokens"]).await;
    let other = id_of(&server.token_of(&user.id, &["verify:tokens"]).await);
    server.rotate(&verifier.token, &other).await;
}

async fn repeat_of_a_creation_does_not_lift_the_end_that_a_rotation_set(engine: Engine) {
    let server = TestServer::start(engine).await;
    let request = CreatePersonalAccessTokenRequest {
        name: "repeated".to_owned(),
        request_id: Some("0198c0de-0000-7000-8000-000000000001".to_owned()),
        ..Default::default()
    };
    let mut admin = server.tokens(&server.admin);
    let created = admin.create_personal_access_token(request.clone()).await.unwrap().into_inner();
    let rotation =
        RotatePersonalAccessTokenRequest { overlap: seconds(60), ..by_id(&id_of(&created)) };
    let rotated = server.try_rotate(&server.admin, rotation).await.unwrap();
    let again = admin.create_personal_access_token(request).await.unwrap().into_inner();
    assert!(again.already_used && again.token.is_empty());
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(server.verify(&created.token).await.reason(), Reason::Expired);
    assert!(server.is_active(&rotated.token).await);
}

async fn wrong_overlap_is_refused(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (_, own) = server.writer().await;
    let kept = server.kept().await;
    for overlap in [seconds(-1), seconds(90 * 86_400 + 1)] {
        let request = RotatePersonalAccessTokenRequest { overlap, ..by_id(&id_of(&own)) };
        let answer = server.tokens(&own.token).rotate_personal_access_token(request).await;
        assert_eq!(wrong_fields(answer), ["overlap"]);
    }
    let request =
        RotatePersonalAccessTokenRequest { request_id: Some("again".to_owned()), ..by_id("") };
    let answer = server.tokens(&own.token).rotate_personal_access_token(request).await;
    assert_eq!(wrong_fields(answer), ["id", "request_id"]);
    assert_eq!(server.kept().await, kept);
}
