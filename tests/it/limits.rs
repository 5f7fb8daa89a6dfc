use std::{
    io,
    time::{Duration, Instant},
};

use prost::Message as _;
use token_authority::proto::v1::{
    CreatePersonalAccessTokenRequest, CreateUserRequest, Filter,
    ListApiClientAuthorizationsRequest, VerifyRequest, WhoAmIRequest,
    verification_client::VerificationClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb;
use tonic_types::StatusExt as _;

use crate::support::{
    Engine,
    blocker::{Blocker, WAITING},
    client::{Client, connect},
    on_both_stores,
    process::Process,
    raw_http2::{End, RawHttp2},
    relay::Relay,
    server::{Place, TestServer, unknown_token},
    wait,
};

/// What a condition may take to come true.
const SOON: Duration = Duration::from_secs(10);

on_both_stores![path_that_is_not_exactly_a_methods_reaches_no_handler];

async fn health(channel: Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(HealthClient::new(channel).check(request).await?.into_inner().status())
}

fn client(server: &TestServer) -> Client {
    Client::over(server.channel.clone(), &server.admin)
}

/// A call that waits for what `Blocker` holds.
fn create_blocked(server: &TestServer) -> tokio::task::JoinHandle<Result<(), Status>> {
    let client = client(server);
    tokio::spawn(async move { client.create("blocked").await.map(|_| ()) })
}

async fn wait_for_waiting(server: &TestServer, calls: i64) {
    wait::until("the calls wait", SOON, async || server.place.number(WAITING).await == calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_over_64_kib_is_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    let ask = async |length: usize| client(&server).create(&"x".repeat(length)).await;
    assert_eq!(ask(60 * 1024).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask(64 * 1024).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(ask(8 * 1024 * 1024).await.unwrap_err().code(), Code::OutOfRange);
    client(&server).who_am_i().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_over_1_mib_are_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    let ask = async |length: usize| {
        let request = VerifyRequest { token: "x".repeat(length), ..Default::default() };
        server.verification(&server.admin).verify(request).await
    };
    for length in [60 * 1024, 64 * 1024, 1020 * 1024] {
        assert!(!ask(length).await.unwrap().into_inner().active);
    }
    assert_eq!(ask(1024 * 1024).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(ask(8 * 1024 * 1024).await.unwrap_err().code(), Code::OutOfRange);
    client(&server).who_am_i().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_with_filters_over_64_kib_is_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    let ask = async |length: usize| {
        let filter = Filter { attribute: "x".repeat(length), ..Default::default() };
        let filters = vec![filter];
        let request = ListApiClientAuthorizationsRequest { filters, ..Default::default() };
        server.authorizations(&server.admin).list_api_client_authorizations(request).await
    };
    assert_eq!(ask(60 * 1024).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask(64 * 1024).await.unwrap_err().code(), Code::OutOfRange);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_of_authorizations_over_2_mib_is_cut_short_and_says_so() {
    let server = TestServer::start(Engine::Sqlite).await;
    let entries: Vec<_> = (0..100).map(|entry| format!("GET /{entry:0250}")).collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    for _ in 0..100 {
        server.authorization_of("handle:admin", Some(&entries)).await;
    }
    let mut uuids = std::collections::BTreeSet::new();
    let mut pages = 0;
    while uuids.len() < 100 {
        let request = ListApiClientAuthorizationsRequest {
            limit: Some(1_000),
            offset: uuids.len().try_into().unwrap(),
            ..Default::default()
        };
        let mut authorizations = server.authorizations(&server.admin);
        let page = authorizations.list_api_client_authorizations(request).await.unwrap();
        let page = page.into_inner();
        assert_eq!(page.items_available, Some(100));
        assert!(page.encoded_len() <= 2 * 1024 * 1024 + 64 * 1024, "{}", page.encoded_len());
        if uuids.is_empty() {
            assert!((60..100).contains(&page.items.len()), "{}", page.items.len());
            assert_eq!(usize::try_from(page.limit).unwrap(), page.items.len());
        }
        uuids.extend(page.items.into_iter().map(|item| item.uuid.unwrap()));
        pages += 1;
    }
    assert_eq!(pages, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_16_kib_are_refused() {
    let server = TestServer::start(Engine::Sqlite).await;
    let ask = async |length: usize| {
        let mut request = Request::new(WhoAmIRequest {});
        let filling = MetadataValue::try_from("x".repeat(length)).unwrap();
        request.metadata_mut().insert("x-filling", filling);
        server.verification(&server.admin).who_am_i(request).await
    };
    ask(12 * 1024).await.unwrap();
    let refused = ask(17 * 1024).await.unwrap_err();
    assert!(refused.message().contains("431"), "{refused:?}");
    client(&server).who_am_i().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_the_limit_of_a_connection_wait_or_are_refused() {
    let server = TestServer::start_with(Engine::Postgres, &["--max-streams=2"]).await;
    let blocker = Blocker::of_writes(&server.place).await;
    // Clients that know the limit hold the third call back.
    let calls = [(); 3].map(|()| create_blocked(&server));
    wait_for_waiting(&server, 2).await;
    let other = Client::connect(server.address, &server.admin).await;
    other.who_am_i().await.unwrap();

    // One that does not is told that the third was not begun (REFUSED_STREAM), while the
    // first two wait for their messages.
    let mut raw = RawHttp2::open(server.address).await;
    let bearer = format!("Bearer {}", server.admin);
    for stream in [1, 3, 5] {
        let path = "/token_authority.v1.Verification/WhoAmI";
        raw.request(stream, path, &[("authorization", &bearer)], None).await;
    }
    assert_eq!(raw.end(5).await, End::Reset(7));
    assert_eq!(server.place.number(WAITING).await, 2);
    blocker.release().await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
    drop((raw, other));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn call_over_its_deadline_ends_and_changes_nothing() {
    let server = TestServer::start_with(Engine::Postgres, &["--call-deadline=1s"]).await;
    let blocker = Blocker::of_writes(&server.place).await;
    let answer = server.tokens(&server.admin).create_personal_access_token(late()).await;
    assert_eq!(answer.unwrap_err().code(), Code::DeadlineExceeded);
    // Its own, sooner one: by hand, since tonic's client would give up by itself.
    let mut raw = RawHttp2::open(server.address).await;
    let bearer = format!("Bearer {}", server.admin);
    let headers = [("authorization", &*bearer), ("grpc-timeout", "200m")];
    raw.request(1, CREATE, &headers, Some(&late().encode_to_vec())).await;
    let since = Instant::now();
    assert_eq!(raw.end(1).await, End::Answered);
    assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
    blocker.release().await;
    // Those that were given up hold nothing and have left nothing.
    client(&server).create("in time").await.unwrap();
    wait::until("they are gone", SOON, async || {
        let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND application_name = 'token-authority' AND state <> 'idle'";
        server.place.number(left).await == 0
    })
    .await;
    for table in ["credentials", "secrets", "audit"] {
        let more = server.place.number(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(more, 2, "{table}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_deadline_is_answered_with_deadline_exceeded() {
    let place = Place::new(Engine::Postgres).await;
    let process = Process::start(place.arguments()).await;
    let blocker = Blocker::of_writes(&place).await;
    let bearer = format!("Bearer {}", place.admin_token());
    let headers =
        [("authorization", &*bearer), ("grpc-timeout", "100m"), ("x-request-id", "the-late-one")];
    let mut raw = RawHttp2::open(process.address).await;
    raw.request(1, CREATE, &headers, Some(&late().encode_to_vec())).await;
    assert_eq!(raw.end(1).await, End::Answered);
    let told = |line: &str| line.contains("the-late-one") && line.contains("DeadlineExceeded");
    wait::until("the log has the call", SOON, async || process.log().lines().any(told)).await;
    blocker.release().await;
    drop(raw);
    process.stop().await;
}

const CREATE: &str = "/token_authority.v1.PersonalAccessTokens/CreatePersonalAccessToken";

fn late() -> CreatePersonalAccessTokenRequest {
    CreatePersonalAccessTokenRequest { name: "late".to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_limit_are_shed_and_health_still_answers() {
    let server = TestServer::start_with(Engine::Postgres, &["--max-calls=1"]).await;
    let blocker = Blocker::of_writes(&server.place).await;
    let call = create_blocked(&server);
    wait_for_waiting(&server, 1).await;
    let shed = client(&server).who_am_i().await.unwrap_err();
    assert_eq!(shed.code(), Code::ResourceExhausted);
    assert_eq!(shed.get_details_error_info().unwrap().reason, "OVERLOADED");
    assert!(shed.get_details_retry_info().unwrap().retry_delay.is_some());
    // A probe that fails under load would end the process that bears it.
    let serving = health(server.channel.clone(), "").await.unwrap();
    assert_eq!(serving, ServingStatus::Serving);
    blocker.release().await;
    call.await.unwrap().unwrap();
    client(&server).who_am_i().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_token_takes_no_room_from_those_who_do() {
    let server =
        TestServer::start_with(Engine::Sqlite, &["--max-calls=2", "--call-deadline=1s"]).await;
    // Calls that never say what they ask.
    let mut flood = RawHttp2::open(server.address).await;
    for call in 0..100 {
        flood.request(2 * call + 1, "/grpc.health.v1.Health/Check", &[], None).await;
    }
    // The answer to one that is whole tells that the others have arrived.
    flood.request(201, "/grpc.health.v1.Health/Check", &[], Some(&[])).await;
    assert_eq!(flood.end(201).await, End::Answered);
    client(&server).who_am_i().await.unwrap();
    health(server.channel.clone(), "").await.unwrap();
    // And none of them is under way for ever.
    assert_eq!(flood.end(1).await, End::Answered);
    server.stop().await;
}

/// Whoever may not ask is told so before the question is there, which may never come.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_takes_no_room_with_a_question_that_never_ends() {
    let more = ["--max-calls=2", "--call-deadline=60s"];
    let server = TestServer::start_with(Engine::Sqlite, &more).await;
    let unknown = format!("Bearer {}", unknown_token());
    let mut flood = RawHttp2::open(server.address).await;
    let streams: Vec<u32> = (0..50).map(|call| 4 * call + 1).collect();
    for stream in &streams {
        flood.request(*stream, VERIFY, &[], None).await;
        flood.request(*stream + 2, VERIFY, &[("authorization", &unknown)], None).await;
    }
    let all: Vec<u32> = streams.iter().flat_map(|stream| [*stream, *stream + 2]).collect();
    flood.all_end(&all).await;
    client(&server).who_am_i().await.unwrap();
    server.stop().await;
}

const VERIFY: &str = "/token_authority.v1.Verification/Verify";

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_salted_token_takes_no_room_from_those_who_show_their_own() {
    let more = ["--max-calls=2", "--call-deadline=1s", "--recoverable-api-tokens"];
    let server = TestServer::start_with(Engine::Sqlite, &more).await;
    // It is judged with a request that never comes.
    let text = format!("Bearer v2/zzzzz-gj3su-0123456789abcde/{}", "0".repeat(40));
    let salted = [("authorization", &*text)];
    let mut flood = RawHttp2::open(server.address).await;
    for call in 0..100 {
        flood.request(2 * call + 1, CURRENT, &salted, None).await;
    }
    flood.request(201, "/grpc.health.v1.Health/Check", &[], Some(&[])).await;
    assert_eq!(flood.end(201).await, End::Answered);
    client(&server).who_am_i().await.unwrap();
    server.stop().await;

    // Where none can be judged, it is refused before.
    let server = TestServer::start_with(Engine::Sqlite, &more[..1]).await;
    let mut flood = RawHttp2::open(server.address).await;
    flood.request(1, CURRENT, &salted, None).await;
    assert_eq!(flood.end(1).await, End::Answered);
    server.stop().await;
}

const CURRENT: &str =
    "/token_authority.v1.ApiClientAuthorizations/GetCurrentApiClientAuthorization";

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_wait_until_another_closes() {
    let server = TestServer::start_with(Engine::Sqlite, &["--max-connections=2"]).await;
    let second = Client::connect(server.address, &server.admin).await;
    second.who_am_i().await.unwrap();
    let mut third = RawHttp2::open(server.address).await;
    third.request(1, "/token_authority.v1.Verification/WhoAmI", &[], Some(&[])).await;
    let mut answer = std::pin::pin!(third.end(1));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(early.is_err(), "a third connection was served");
    drop(second);
    assert_eq!(answer.await, End::Answered);
    server.stop().await;
}

/// Or such connections would be all there may be, without a token.
#[tokio::test(flavor = "multi_thread")]
async fn connection_whose_client_reads_no_answer_is_dropped() {
    let server = TestServer::start_with(Engine::Sqlite, &["--max-connections=1"]).await;
    let address = server.http.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(address).await.unwrap();
    let dropped = async {
        loop {
            deaf.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        }
    };
    // HTTP1_WRITE_TIME is 30 s.
    let dropped: Result<io::Result<()>, _> =
        tokio::time::timeout(Duration::from_mins(1), dropped).await;
    assert!(dropped.expect("it is dropped").is_err());
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    next.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_that_does_not_say_what_it_speaks_is_dropped_and_holds_no_other_up() {
    let server = TestServer::start(Engine::Sqlite).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"P").await.unwrap();
    let other = Client::connect(server.address, &server.admin).await;
    other.who_am_i().await.unwrap();
    let since = Instant::now();
    for stream in [silent, slow] {
        let dropped = async {
            stream.readable().await.unwrap();
            stream.try_read(&mut [0; 1])
        };
        // FIRST_WORDS is 10 s.
        let dropped = tokio::time::timeout(Duration::from_secs(15), dropped).await;
        assert_eq!(dropped.expect("it is dropped").unwrap(), 0, "something was said to it");
    }
    assert!(since.elapsed() > Duration::from_secs(5), "it was dropped at once");
    server.stop().await;
}

async fn path_that_is_not_exactly_a_methods_reaches_no_handler(engine: Engine) {
    let server = TestServer::start(engine).await;
    let bearer = format!("Bearer {}", server.admin);
    let before = server.kept().await;
    let good = "/token_authority.v1.Directory/CreateUser";
    let ask = async |path: &str, headers: &[(&str, &str)], handle: &str| {
        let request = CreateUserRequest { handle: handle.to_owned(), ..Default::default() };
        let mut raw = RawHttp2::open(server.address).await;
        raw.request(1, path, headers, Some(&request.encode_to_vec())).await;
        raw.end(1).await
    };
    let authorization = ("authorization", &*bearer);
    for path in [
        &good[1..],
        &good.to_lowercase(),
        &good.to_uppercase(),
        &format!("/{good}"),
        &format!("{good}/"),
        &good.replace("/Create", "//Create"),
        &good.replace("/Create", "/./Create"),
        &good.replace("/Create", "/x/../Create"),
        &good.replace("/Create", "%2FCreate"),
        &good.replace("CreateUser", "CreateUse%72"),
        &good.replace("token_authority.v1.", ""),
        &format!("http://localhost{good}"),
        "",
        "*",
        "/",
    ] {
        ask(path, &[authorization], "by-a-wrong-path").await;
        assert_eq!(server.kept().await, before, "{path:?}");
    }
    for headers in [
        &[][..],
        &[("authorization", "Bearer ")],
        &[("authorization", "Basic YTpi")],
        &[authorization, authorization],
        &[("Authorization", &*bearer)],
        &[("x-authorization", &*bearer)],
    ] {
        ask(good, headers, "by-nobody").await;
        assert_eq!(server.kept().await, before, "{headers:?}");
    }
    // The same bytes on the right path with the token do it.
    assert_eq!(ask(good, &[authorization], "by-the-right-path").await, End::Answered);
    assert_ne!(server.kept().await, before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_call() {
    let server = TestServer::start(Engine::Sqlite).await;
    let ask = async |token: &str, id: Option<&str>| {
        let mut request = Request::new(WhoAmIRequest {});
        if let Some(id) = id {
            request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        }
        let metadata = match server.verification(token).who_am_i(request).await {
            Ok(answer) => answer.metadata().clone(),
            Err(status) => status.metadata().clone(),
        };
        metadata.get("x-request-id").unwrap().to_str().unwrap().to_owned()
    };
    for token in [&*server.admin, "no-token"] {
        assert_eq!(ask(token, Some("my-call/7")).await, "my-call/7");
        let longest = ["0123456789abcde"; 8].join("-");
        assert_eq!(ask(token, Some(&longest)).await, longest);
        let made = [
            ask(token, None).await,
            ask(token, None).await,
            ask(token, Some("")).await,
            ask(token, Some("two words")).await,
            ask(token, Some(&format!("{longest}-a"))).await,
            // Which may be a token.
            ask(token, Some(&server.admin)).await,
        ];
        for (at, id) in made.iter().enumerate() {
            assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
            assert!(!made[..at].contains(id), "{id} was made twice");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_need_no_token_and_all_else_does() {
    let server = TestServer::start(Engine::Sqlite).await;
    for service in ["", "token_authority.v1.Verification", "token_authority.v1.Directory"] {
        assert_eq!(health(server.channel.clone(), service).await.unwrap(), ServingStatus::Serving);
    }
    assert_eq!(health(server.channel.clone(), "none").await.unwrap_err().code(), Code::NotFound);
    let anonymous =
        VerificationClient::new(server.channel.clone()).who_am_i(WhoAmIRequest {}).await;
    assert_eq!(anonymous.unwrap_err().code(), Code::Unauthenticated);

    macro_rules! reflected {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(server.channel.clone());
            let asked = tokio_stream::once(request);
            let mut told = client.server_reflection_info(asked).await.unwrap().into_inner();
            format!("{:?}", told.message().await.unwrap().unwrap())
        }};
    }
    for told in [reflected!(v1), reflected!(v1alpha)] {
        assert!(told.contains("token_authority.v1.Verification"), "{told}");
        assert!(told.contains("grpc.health.v1.Health"), "{told}");
    }
    server.stop().await;

    let server = TestServer::start_with(Engine::Sqlite, &["--reflection=false"]).await;
    let mut client =
        pb::v1::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let refused = client.server_reflection_info(tokio_stream::empty()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_is_away_is_said_and_is_recovered_from() {
    let mut place = Place::new(Engine::Postgres).await;
    let (mut relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &["--database-wait=500ms"]).await;
    let token = client(&server).create("before").await.unwrap().token;

    for _ in 0..2 {
        relay.cut().await;
        // So long ago it was that anybody made sure of anything.
        server.clock.sleep(Duration::from_secs(3));
        let is = async |expected: ServingStatus| {
            let services = ["", "token_authority.v1.Verification"];
            for service in services {
                if health(server.channel.clone(), service).await.unwrap() != expected {
                    return false;
                }
            }
            true
        };
        for answer in [
            client(&server).who_am_i().await.map(|_| ()),
            client(&server).verify(&token).await.map(|_| ()),
            client(&server).create("away").await.map(|_| ()),
        ] {
            let away = answer.unwrap_err();
            assert_eq!(away.code(), Code::Unavailable, "{away:?}");
            assert_eq!(away.get_details_error_info().unwrap().reason, "STORE_UNAVAILABLE");
        }
        wait::until("health tells", SOON, async || is(ServingStatus::NotServing).await).await;
        relay.mend();
        wait::until("health recovers", SOON, async || is(ServingStatus::Serving).await).await;
        assert!(client(&server).verify(&token).await.unwrap().active);
    }
    client(&server).create("after").await.unwrap();
    assert_eq!(server.place.number("SELECT count(*) FROM credentials").await, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_before_http2_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = TestServer::start(Engine::Sqlite).await;
    for garbage in [&b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], &[0; 64], &[0xff; 64]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut said = Vec::new();
        let closed = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await;
        let _ = closed.expect("the connection is closed");
    }
    let client = Client::over(connect(server.address).await, &server.admin);
    client.who_am_i().await.unwrap();
    server.stop().await;
}
