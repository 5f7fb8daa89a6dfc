//! Verify has two ways: what is asked most is answered at once by hand-made framing, the
//! rest by the generated code. Here each call goes both, and the answers are compared
//! to the byte.

use std::{fs, time::Duration};

use proptest::{
    collection, option,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use prost::Message as _;
use token_authority::{
    proto::v1::{
        BatchVerifyRequest, BatchVerifyResponse, BatchVerifyResult, Consistency,
        CreatePersonalAccessTokenRequest, RevokePersonalAccessTokenRequest, StreamVerifyRequest,
        StreamVerifyResponse, UpdateUserRequest, VerifyRequest, VerifyResponse,
        batch_verify_result::Result as BatchResult, consistency::Requirement,
        create_personal_access_token_request::Expiry,
        stream_verify_response::Result as StreamResult,
    },
    verifier::{Came, Event, LookedUp},
};

use crate::support::{
    Engine,
    http2::{Answered, Http2},
    on_both_stores,
    raw_http2::framed,
    server::{Place, TestServer, unknown_token, v2},
};

on_both_stores![both_ways_answer_alike];

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_answer_alike_whatever_is_asked() {
    let mut world = World::new(Engine::Sqlite).await;
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let calls = any_call(&world);
    let (mut asked, mut at_once) = (0, 0);
    // How many of a hundred are answered at once is a matter of luck.
    while asked < 100 || at_once < 20 {
        assert!(asked < 500, "what is asked is answered at once: {at_once}");
        let call = calls.new_tree(&mut runner).unwrap().current();
        at_once += u32::from(world.both_ways(&call).await);
        asked += 1;
    }
}

const VERIFY: &str = "/token_authority.v1.Verification/Verify";
const BATCH_VERIFY: &str = "/token_authority.v1.Verification/BatchVerify";
const STREAM_VERIFY: &str = "/token_authority.v1.Verification/StreamVerify";
const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// What sends a call the long way and changes nothing else of it.
const LONG_WAY: (&str, &str) = ("grpc-encoding", "identity");

const ROOT: &str = "the-root-token-of-this-test-0123456789";

/// A call as it is sent.
#[derive(Debug, Clone)]
struct Call {
    headers: Vec<(&'static str, String)>,
    body: Vec<Vec<u8>>,
}

/// Whether a call is to be answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    AtOnce,
    Long,
    /// It is no question, or not from somebody who may ask.
    Neither,
}

struct World {
    server: TestServer,
    connection: Http2,
    tokens: Tokens,
    workspace: String,
    other_workspace: String,
}

struct Tokens {
    good: Vec<String>,
    refused: Vec<String>,
    /// May ask, as the administrator may.
    asking: Vec<String>,
    not_asking: Vec<String>,
    bound: String,
}

impl World {
    async fn new(engine: Engine) -> Self {
        let place = Place::new(engine).await;
        let file = place.path("root-token");
        fs::write(&file, ROOT).unwrap();
        let root = format!("--system-root-token-file={}", file.display());
        // However slow the machine is, what was read stays new enough.
        let server = TestServer::start_on(place, &["--max-staleness=1h", &root]).await;
        let alice = server.user("alice").await.id;
        let request = UpdateUserRequest {
            user: alice.clone(),
            external_id: Some("okta|1".to_owned()),
            ..Default::default()
        };
        server.directory(&server.admin).update_user(request).await.unwrap();
        let [workspace, other_workspace, closed] = [
            server.workspace("w").await,
            server.workspace("other").await,
            server.workspace("closed").await,
        ];
        for workspace in [&workspace, &closed] {
            server.join(&alice, workspace, "member").await;
        }
        let make = async |user_id: &str, request: CreatePersonalAccessTokenRequest| {
            let request = CreatePersonalAccessTokenRequest {
                name: "of a test".to_owned(),
                user_id: Some(user_id.to_owned()),
                ..request
            };
            let made = server.tokens(&server.admin).create_personal_access_token(request).await;
            made.unwrap().into_inner()
        };
        let bound = make(
            &alice,
            CreatePersonalAccessTokenRequest {
                scopes: vec!["write:notes".to_owned(), "read:*".to_owned()],
                workspace_id: Some(workspace.clone()),
                expiry: Some(Expiry::ExpiresAt(
                    server.after(Duration::from_micros(86_400_234_567)),
                )),
                ..Default::default()
            },
        );
        let bound = bound.await.token;
        let limited = CreatePersonalAccessTokenRequest {
            allowed_ips: vec!["10.0.0.0/8".to_owned()],
            ..Default::default()
        };
        let all = v2(&server.authorization_of(&alice, None).await);
        let some = server.authorization_of(&alice, Some(&["GET /notes", "POST /notes/"])).await;
        let good = vec![
            bound.clone(),
            server.text_of(&alice, &["read:notes"]).await,
            server.text_of(&alice, &[]).await,
            make(&alice, limited).await.token,
            all,
            v2(&some),
            some.api_token().to_owned(),
            server.admin.clone(),
        ];

        let expired = CreatePersonalAccessTokenRequest {
            expiry: Some(Expiry::ExpiresAt(server.after(Duration::from_secs(1)))),
            ..Default::default()
        };
        let expired = make(&alice, expired).await.token;
        let revoked = make(&alice, CreatePersonalAccessTokenRequest::default()).await;
        let id = revoked.personal_access_token.unwrap().id;
        let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
        server.tokens(&server.admin).revoke_personal_access_token(request).await.unwrap();
        let bob = server.user("bob").await.id;
        let of_bob = server.text_of(&bob, &["read:notes"]).await;
        let request = UpdateUserRequest { user: bob, is_active: Some(false), ..Default::default() };
        server.directory(&server.admin).update_user(request).await.unwrap();
        let in_closed = server.bound(&alice, &closed).await;
        server
            .place
            .sql(&format!("UPDATE workspaces SET is_active = FALSE WHERE id = '{closed}'"))
            .await;
        server.clock.advance(Duration::from_secs(1));
        let refused = vec![
            expired,
            revoked.token,
            of_bob,
            in_closed,
            unknown_token(),
            "v2/zzzzz-gj3su-0123456789abcde/3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdm5"
                .to_owned(),
            "garbage".to_owned(),
            "pat_".to_owned(),
        ];

        let admin2 = server.administrator("carol").await.id;
        let path = "POST /token_authority.v1.Verification/Verify";
        let asking = vec![
            server.admin.clone(),
            server.text_of(&alice, &["verify:tokens"]).await,
            server.bound_with(&alice, &workspace, &["verify:tokens"]).await,
            v2(&server.authorization_of(&admin2, None).await),
            v2(&server.authorization_of(&admin2, Some(&[path])).await),
        ];
        let not_asking = vec![
            server.text_of(&alice, &["read:notes"]).await,
            v2(&server.authorization_of(&alice, None).await),
            v2(&server.authorization_of(&admin2, Some(&["GET /"])).await),
            unknown_token(),
            "garbage".to_owned(),
        ];
        let tokens = Tokens { good, refused, asking, not_asking, bound };
        let connection = Http2::connect(server.address).await;
        let mut world = Self { server, connection, tokens, workspace, other_workspace };
        // All that happened before is applied when this is answered.
        let newest = VerifyRequest {
            consistency: Some(consistency(Some(Requirement::FullyConsistent(true)))),
            ..world.question()
        };
        assert_eq!(world.ways(&world.ask(&newest)).await.0, Way::Long);
        // What is kept for a while must not run out between two calls that are compared.
        world.server.clock.hold();
        world
    }

    fn question(&self) -> VerifyRequest {
        VerifyRequest { token: self.tokens.bound.clone(), ..Default::default() }
    }

    fn ask(&self, request: &VerifyRequest) -> Call {
        self.send(framed(&request.encode_to_vec()))
    }

    fn send(&self, body: Vec<u8>) -> Call {
        Call { headers: self.headers_of(&self.server.admin), body: vec![body] }
    }

    fn headers_of(&self, token: &str) -> Vec<(&'static str, String)> {
        vec![(GRPC.0, GRPC.1.to_owned()), ("authorization", format!("Bearer {token}"))]
    }

    /// What is answered, and what that does to the counts.
    async fn answer(
        &mut self,
        call: &Call,
        more: Option<(&str, &str)>,
    ) -> (Answered, Vec<u64>, u64) {
        let headers: Vec<(&str, &str)> =
            call.headers.iter().map(|(name, value)| (*name, value.as_str())).chain(more).collect();
        let before = self.server.verifier.counts();
        let mut answered = self.connection.post(VERIFY, &headers, &call.body).await;
        let after = self.server.verifier.counts();
        let mut counted = Vec::new();
        for came in Came::ALL {
            for looked_up in LookedUp::ALL {
                counted.push(after.answers(came, looked_up) - before.answers(came, looked_up));
            }
        }
        let happened = |event| after.events(event) - before.events(event);
        for event in [Event::Read, Event::Joined, Event::UnknownKept, Event::CallerRefused] {
            counted.push(happened(event));
        }
        let is_named = call.headers.iter().any(|(name, _)| *name == "x-request-id");
        // Otherwise it is made for the call, as is that in place of a bad one.
        if let Some(id) = answered.headers.remove("x-request-id")
            && is_named
            && call.headers.iter().any(|(name, value)| *name == "x-request-id" && id == value)
        {
            answered.headers.insert("x-request-id", id);
        }
        (answered, counted, happened(Event::LongWay))
    }

    /// How a call goes by itself, and its answer, which is the same on either way.
    async fn ways(&mut self, call: &Call) -> (Way, Answered) {
        // From here on there is kept what can be.
        self.answer(call, None).await;
        self.server.follow().await;
        let (answered, counted, long) = self.answer(call, None).await;
        let (generated, by_generated, must_be_long) = self.answer(call, Some(LONG_WAY)).await;
        assert_eq!(answered, generated, "{call:?}");
        assert_eq!(counted, by_generated, "{call:?}");
        let way = match (must_be_long, long) {
            (0, _) => Way::Neither,
            (_, 0) => Way::AtOnce,
            (..) => Way::Long,
        };
        (way, answered)
    }

    /// Whether a call goes both ways.
    async fn both_ways(&mut self, call: &Call) -> bool {
        self.ways(call).await.0 == Way::AtOnce
    }

    async fn expect(&mut self, call: &Call, way: Way) {
        let (went, answered) = self.ways(call).await;
        assert_eq!(went, way, "{call:?} {answered:?}");
    }
}

fn consistency(requirement: Option<Requirement>) -> Consistency {
    Consistency { requirement, max_stale: None }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

async fn both_ways_answer_alike(engine: Engine) {
    let mut world = World::new(engine).await;
    questions(&mut world).await;
    together(&mut world).await;
    wrong_questions(&mut world).await;
    bodies(&mut world).await;
    callers(&mut world).await;
    headers(&mut world).await;
}

/// Every outcome of every kind of question.
async fn questions(world: &mut World) {
    for request in every_question(world) {
        world.expect(&world.ask(&request), Way::AtOnce).await;
    }
    let far = Requirement::MinRevision("not-a-revision".to_owned());
    for asked in [None, Some(Requirement::FullyConsistent(true)), Some(far)] {
        let consistency = Some(consistency(asked));
        let request = VerifyRequest { consistency, ..world.question() };
        world.expect(&world.ask(&request), Way::Long).await;
    }
}

fn every_question(world: &World) -> Vec<VerifyRequest> {
    let tokens: Vec<_> = world.tokens.good.iter().chain(&world.tokens.refused).cloned().collect();
    let some = |text: &str| Some(text.to_owned());
    let about = |token| {
        let plain = VerifyRequest { token, ..Default::default() };
        [
            plain.clone(),
            VerifyRequest { client_ip: some("10.1.2.3"), ..plain.clone() },
            VerifyRequest { client_ip: some("2001:db8::1"), ..plain.clone() },
            VerifyRequest { workspace_id: Some(world.workspace.clone()), ..plain.clone() },
            VerifyRequest { workspace_id: Some(world.other_workspace.clone()), ..plain.clone() },
            VerifyRequest { required_scopes: texts(&["read:notes"]), ..plain.clone() },
            VerifyRequest {
                required_scopes: texts(&["read:mail", "write:mail", "write:mail", "admin:all"]),
                client_ip: some("10.1.2.3"),
                ..plain.clone()
            },
            VerifyRequest {
                required_scopes: texts(&["write:notes"]),
                request_method: some("GET"),
                request_path: some("/notes"),
                ..plain.clone()
            },
            VerifyRequest {
                request_method: some("PUT"),
                request_path: some("/notes/1"),
                ..plain.clone()
            },
            VerifyRequest { kinds: vec![1], ..plain.clone() },
            VerifyRequest { kinds: vec![2, 3], ..plain },
        ]
    };
    tokens.into_iter().flat_map(about).collect()
}

/// Asked together, or on a stream, each question is answered as it is by itself.
async fn together(world: &mut World) {
    let kept = every_question(world);
    let wrong = VerifyRequest { client_ip: Some("10.0.0".to_owned()), ..world.question() };
    let never_asked = VerifyRequest { token: unknown_token(), ..Default::default() };
    let all = [&kept[..], &[wrong, VerifyRequest::default(), never_asked]].concat();
    let headers = world.headers_of(&world.server.admin);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut alone = Vec::new();
    for request in &all {
        let answered = world.answer(&world.ask(request), None).await.0;
        alone.push(match answered.body.get(5..) {
            Some(message) => Ok(VerifyResponse::decode(message).unwrap()),
            None => Err(answered.headers["grpc-status"].to_str().unwrap().parse::<i32>().unwrap()),
        });
    }
    assert_eq!(alone.iter().filter(|answer| answer.is_err()).count(), 2);
    let revision = alone[0].as_ref().unwrap().revision.clone();

    for (requests, asked) in [(&kept, None), (&kept, Some(Consistency::default())), (&all, None)] {
        let request = BatchVerifyRequest { requests: requests.clone(), consistency: asked };
        let body = framed(&request.encode_to_vec());
        let answered = world.connection.post(BATCH_VERIFY, &headers, &[body]).await;
        let batch = BatchVerifyResponse::decode(&answered.body[5..]).unwrap();
        let results = batch.results.iter().zip(&alone).map(|(result, alone)| {
            let result = result.result.clone().map(|result| match (result, alone) {
                (BatchResult::Error(error), Err(code)) => {
                    assert_eq!(error.code, *code);
                    BatchResult::Error(error)
                }
                (_, alone) => BatchResult::Response(alone.clone().unwrap()),
            });
            BatchVerifyResult { result }
        });
        let results: Vec<_> = results.collect();
        assert_eq!(results.len(), requests.len());
        let expected = BatchVerifyResponse { results, revision: revision.clone(), stale: false };
        assert_eq!(answered.body, framed(&expected.encode_to_vec()));
    }

    let torn = framed(&[10, 2, 10, 9]);
    let answered = world.connection.post(BATCH_VERIFY, &headers, &[torn]).await;
    let batch = BatchVerifyResponse::decode(&answered.body[5..]).unwrap();
    let Some(BatchResult::Error(error)) = &batch.results[0].result else { panic!("{batch:?}") };
    assert_eq!(error.code, 3);

    let questions = all.iter().zip(0..).map(|(request, id)| {
        framed(&StreamVerifyRequest { id, request: Some(request.clone()) }.encode_to_vec())
    });
    let body = questions.collect::<Vec<_>>().concat();
    // A question that is none spoils no other.
    let torn = framed(&[8, 0xe7, 7, 18, 2, 10, 9]);
    let body = [torn, body].concat();
    let answered = world.connection.post(STREAM_VERIFY, &headers, &[body]).await;
    let mut rest = &answered.body[..];
    let mut seen = Vec::new();
    while let Some((header, more)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let (message, more) = more.split_at(length);
        rest = more;
        let answer = StreamVerifyResponse::decode(message).unwrap();
        let id = answer.id;
        if id == 999 {
            let Some(StreamResult::Error(error)) = answer.result else { panic!("{answer:?}") };
            assert_eq!((error.code, &*error.message), (3, "request must be a VerifyRequest"));
            continue;
        }
        match (answer.result.unwrap(), &alone[usize::try_from(id).unwrap()]) {
            (StreamResult::Error(error), Err(code)) => assert_eq!(error.code, *code),
            (_, alone) => {
                let result = Some(StreamResult::Response(alone.clone().unwrap()));
                assert_eq!(message, StreamVerifyResponse { id, result }.encode_to_vec());
            }
        }
        seen.push(id);
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..all.len() as u64));
}

/// What is wrong with a question is said by the generated code alone.
async fn wrong_questions(world: &mut World) {
    let good = world.question();
    let some = |text: &str| Some(text.to_owned());
    for request in [
        VerifyRequest::default(),
        VerifyRequest { client_ip: some("10.0.0"), ..good.clone() },
        VerifyRequest { workspace_id: some(""), ..good.clone() },
        VerifyRequest { workspace_id: some(&"x".repeat(65)), ..good.clone() },
        VerifyRequest { required_scopes: texts(&["read:notes", "Nonsense"]), ..good.clone() },
        VerifyRequest { kinds: vec![0], ..good.clone() },
        VerifyRequest { kinds: vec![9, -1], ..good.clone() },
        VerifyRequest { request_method: some("GET"), ..good.clone() },
        VerifyRequest { request_path: some("/notes"), ..good.clone() },
        VerifyRequest {
            request_method: some("get"),
            request_path: some("notes?x=y"),
            client_ip: some("x"),
            ..good.clone()
        },
    ] {
        world.expect(&world.ask(&request), Way::Long).await;
    }
}

/// Forms that a message or its frame can have.
async fn bodies(world: &mut World) {
    let message = world.question().encode_to_vec();
    let whole = framed(&message);
    let and = |more: &[u8]| framed(&[&message[..], more].concat());

    // Kinds one by one and packed, fields out of order, lists in pieces.
    let ordered = [&[0x3a, 2, 1, 2, 0x38, 1, 0x12, 10][..], b"read:notes", &message[..]].concat();
    for body in [and(&[0x3a, 1, 1]), and(&[0x38, 1]), and(&[0x38, 0x81, 0]), framed(&ordered)] {
        world.expect(&world.send(body), Way::AtOnce).await;
    }
    let (head, tail) = whole.split_at(7);
    for pieces in [vec![head.to_vec(), tail.to_vec()], vec![whole.clone(), Vec::new()]] {
        let call = Call { body: pieces, ..world.send(Vec::new()) };
        world.expect(&call, Way::AtOnce).await;
    }
    for body in [
        // Not known, known with another type, twice, a group, and what prost merges.
        and(&[0x50, 1]),
        and(&[0xfa, 0x07, 1, b'x']),
        and(&message),
        and(&[0x42, 0]),
        and(&[0x2a, 1, b'a', 0x2a, 1, b'b']),
        framed(&[]),
    ] {
        world.expect(&world.send(body), Way::Long).await;
    }
    for body in [
        Vec::new(),
        and(&[0x08, 1]),
        and(&[0x12, 1, 0xff]),
        and(&[0x12, 9]),
        and(&[0x3a, 1, 0x80]),
        whole[..3].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], &whole].concat(),
        [&whole[..], &[0]].concat(),
        [&[1], &whole[1..]].concat(),
        [&[2], &whole[1..]].concat(),
        framed(&vec![0; 64 * 1024 + 1]),
        [&[0, 0xff, 0xff, 0xff, 0xff][..], &message].concat(),
    ] {
        let (way, answered) = world.ways(&world.send(body)).await;
        assert_ne!(way, Way::AtOnce, "{answered:?}");
    }
}

async fn callers(world: &mut World) {
    let body = world.ask(&world.question()).body;
    let by = |headers| Call { headers, body: body.clone() };
    for caller in world.tokens.asking.clone() {
        for scheme in ["Bearer ", "bearer  ", "OAuth2 "] {
            let headers =
                vec![(GRPC.0, GRPC.1.to_owned()), ("authorization", format!("{scheme}{caller}"))];
            world.expect(&by(headers), Way::AtOnce).await;
        }
        // What those learn who are bound to a workspace.
        let [tokens, refused] = [&world.tokens.good, &world.tokens.refused];
        for token in [tokens[1].clone(), tokens[4].clone(), refused[2].clone()] {
            let request = VerifyRequest { token, ..Default::default() };
            let call = Call { headers: world.headers_of(&caller), ..world.ask(&request) };
            world.expect(&call, Way::AtOnce).await;
        }
    }
    for caller in world.tokens.not_asking.clone() {
        world.expect(&by(world.headers_of(&caller)), Way::Neither).await;
    }
    world.expect(&by(world.headers_of(ROOT)), Way::Long).await;
    let authorization = |value: &str| ("authorization", value.to_owned());
    let good = format!("Bearer {}", world.server.admin);
    for more in [
        vec![],
        vec![authorization(&good), authorization(&good)],
        vec![authorization(&world.server.admin)],
        vec![authorization(&good.replace("Bearer", "Basic"))],
        vec![authorization("")],
        vec![authorization("Bearer")],
    ] {
        let headers = [vec![(GRPC.0, GRPC.1.to_owned())], more].concat();
        world.expect(&by(headers), Way::Neither).await;
    }
}

async fn headers(world: &mut World) {
    let call = world.ask(&world.question());
    let with = |name: &'static str, value: &str| Call {
        headers: [&call.headers[..], &[(name, value.to_owned())]].concat(),
        body: call.body.clone(),
    };
    for (name, value) in [
        ("x-request-id", "0198c0de-0000-7000-8000-000000000001"),
        ("x-request-id", "a"),
        ("grpc-timeout", "10S"),
        ("grpc-timeout", "nonsense"),
        ("grpc-accept-encoding", "gzip,identity"),
        ("user-agent", "test"),
    ] {
        world.expect(&with(name, value), Way::AtOnce).await;
    }
    let token_like = world.tokens.bound.clone();
    for id in ["", " ", "a b", "é", &"1-".repeat(100), token_like.as_str()] {
        world.expect(&with("x-request-id", id), Way::Long).await;
    }
    for (content_type, way) in
        [("application/grpc+proto", Way::AtOnce), ("application/grpc;charset=utf-8", Way::Long)]
    {
        let mut call = call.clone();
        call.headers[0].1 = content_type.to_owned();
        world.expect(&call, way).await;
    }
}

/// A call of any form, most often one that is asked.
fn any_call(world: &World) -> impl Strategy<Value = Call> + use<> {
    let tokens = &world.tokens;
    let asked = [tokens.good.clone(), tokens.refused.clone()].concat();
    let callers = prop_oneof![
        5 => select(tokens.asking.clone()),
        1 => select(tokens.not_asking.clone()),
    ];
    let scopes =
        select(texts(&["read:notes", "read:*", "write:mail", "admin:all", "all", "x", ""]));
    let workspaces =
        select(vec![world.workspace.clone(), world.other_workspace.clone(), "x".to_owned()]);
    let addresses = select(texts(&["10.0.0.1", "::1", "::ffff:10.0.0.1", "10.0.0.1/8"]));
    let routes = option::weighted(
        0.3,
        (select(texts(&["GET", "POST", "get"])), select(texts(&["/notes", "/notes/1", "x"]))),
    );
    let consistency = option::weighted(0.05, Just(Consistency::default()));
    let parts = (
        select(asked),
        collection::vec(scopes, 0..4),
        routes,
        option::weighted(0.3, workspaces),
        option::weighted(0.5, addresses),
        collection::vec(prop_oneof![8 => 1..4i32, 1 => any::<i32>()], 0..3),
        consistency,
    );
    let request = parts.prop_map(
        |(token, required_scopes, route, workspace_id, client_ip, kinds, consistency)| {
            let (request_method, request_path) = route.unzip();
            VerifyRequest {
                token,
                required_scopes,
                request_method,
                request_path,
                workspace_id,
                client_ip,
                kinds,
                consistency,
            }
        },
    );
    let garbled = option::weighted(0.15, (any::<Index>(), any::<u8>()));
    let cut = option::weighted(0.3, any::<Index>());
    (callers, request, garbled, cut).prop_map(|(caller, request, garbled, cut)| {
        let mut body = framed(&request.encode_to_vec());
        if let Some((at, byte)) = garbled {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let tail = cut.map(|cut| body.split_off(cut.index(body.len())));
        let headers =
            vec![(GRPC.0, GRPC.1.to_owned()), ("authorization", format!("Bearer {caller}"))];
        Call { headers, body: [Some(body), tail].into_iter().flatten().collect() }
    })
}
