//! How often memory is allocated for an answer that is kept: each allocation is one
//! that a change has to give a reason for.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
};

use allocation_counter::measure;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::{
    Request, Response, client::conn::http2 as client, server::conn::http2 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use token_authority::{
    clock::{Clock, Uptime, uptime},
    config::{self, Command},
    domain::{Requirement, Timestamp},
    listener::Peer,
    proto::v1::{
        CreateOrganizationRequest, CreatePersonalAccessTokenRequest,
        CreatePersonalAccessTokenResponse, CreateWorkspaceRequest, MembershipRole,
        MembershipUpsert, UpsertMembershipsRequest, VerifyRequest, VerifyResponse,
        directory_client::DirectoryClient, membership_upsert::Container,
        personal_access_tokens_client::PersonalAccessTokensClient,
    },
    server::Server,
    verifier::Outcome,
};
use tonic::{Request as Call, transport::Channel};

/// What gRPC's answer takes beside its bytes: its headers and its trailers, for each a
/// list and an index.
const HEADERS: u64 = 2 + 2;

/// A clock that stands still, so that no use is noted but the first.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000).unwrap()
    }

    fn uptime(&self) -> Uptime {
        uptime()
    }
}

/// The body of a request.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// A token of the administrator that is bound to the workspace beside it.
async fn tokens(channel: Channel, admin: &str) -> (CreatePersonalAccessTokenResponse, String) {
    fn by<T>(admin: &str, message: T) -> Call<T> {
        let mut call = Call::new(message);
        let bearer = format!("Bearer {admin}").parse().unwrap();
        call.metadata_mut().insert("authorization", bearer);
        call
    }
    let mut directory = DirectoryClient::new(channel.clone());
    let (slug, name) = ("o".to_owned(), "O".to_owned());
    let request = CreateOrganizationRequest { slug, name, ..Default::default() };
    directory.create_organization(by(admin, request)).await.unwrap();
    let request = CreateWorkspaceRequest {
        organization: "o".to_owned(),
        slug: "w".to_owned(),
        name: "W".to_owned(),
        ..Default::default()
    };
    let workspace = directory.create_workspace(by(admin, request)).await.unwrap().into_inner();
    let workspace = workspace.workspace.unwrap().id;
    let membership = MembershipUpsert {
        user: "handle:admin".to_owned(),
        container: Some(Container::Workspace(workspace.clone())),
        role: MembershipRole::Member.into(),
    };
    let request = UpsertMembershipsRequest { memberships: vec![membership] };
    directory.upsert_memberships(by(admin, request)).await.unwrap();
    let request = CreatePersonalAccessTokenRequest {
        name: "of a test".to_owned(),
        scopes: vec!["read:*".to_owned(), "write:notes".to_owned()],
        workspace_id: Some(workspace.clone()),
        ..Default::default()
    };
    let mut tokens = PersonalAccessTokensClient::new(channel);
    let made = tokens.create_personal_access_token(by(admin, request)).await.unwrap();
    (made.into_inner(), workspace)
}

#[tokio::test]
async fn kept_answer_is_given_with_one_allocation_for_its_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "token-authority",
        "serve",
        "--grpc-listen=127.0.0.1:0",
        "--http-listen=",
        "--admin-listen=",
        // However slow the machine is, what was read stays new enough.
        "--max-staleness=1h",
        &format!("--data-dir={}", directory.path().display()),
    ];
    let arguments = arguments.into_iter().map(Into::into);
    let Command::Serve(settings) = config::read(arguments).unwrap().command else {
        unreachable!("the first argument is serve");
    };
    let served = Server::bind(*settings, Arc::new(Still)).await.unwrap();
    let (gate, verifier, address) = (served.gate(), served.verifier(), served.address());
    tokio::spawn(served.serve(std::future::pending()));
    let admin = std::fs::read_to_string(directory.path().join("admin.token")).unwrap();
    let admin = admin.trim();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let (made, workspace) = tokens(channel.connect().await.unwrap(), admin).await;

    let (near, far) = tokio::io::duplex(64 * 1024);
    let counted = Arc::new(Mutex::new(Vec::new()));
    let counts = Arc::clone(&counted);
    let service = service_fn(move |request| {
        let (gate, counts) = (gate.clone(), Arc::clone(&counts));
        async move {
            // So that the body is there, as it is when calls come together.
            tokio::task::yield_now().await;
            let mut answer = pin!(gate.answer(request, Peer(address)));
            let mut count = 0;
            let response = poll_fn(|context| {
                let mut polled = None;
                count += measure(|| polled = Some(answer.as_mut().poll(context))).count_total;
                polled.unwrap()
            });
            let (head, body) = response.await?.into_parts();
            let mut body = pin!(body);
            let mut frames = Vec::new();
            while let Some(frame) = poll_fn(|context| {
                let mut polled = None;
                count += measure(|| polled = Some(body.as_mut().poll_frame(context))).count_total;
                polled.unwrap()
            })
            .await
            {
                frames.push(frame.unwrap());
            }
            counts.lock().unwrap().push(count);
            let data = frames.into_iter().find_map(|frame| frame.into_data().ok());
            Ok::<_, std::convert::Infallible>(Response::from_parts(head, Whole(data)))
        }
    });
    let connection = server::Builder::new(TokioExecutor::new());
    tokio::spawn(connection.serve_connection(TokioIo::new(far), service));
    let (mut send, connection) =
        client::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);

    let question = VerifyRequest {
        token: made.token.clone(),
        required_scopes: vec!["read:mail".to_owned(), "write:notes".to_owned()],
        workspace_id: Some(workspace.clone()),
        client_ip: Some("10.0.0.1".to_owned()),
        ..Default::default()
    };
    let message = question.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body: Bytes = [&[0], &length[..], &message].concat().into();
    for _ in 0..8 {
        let request = Request::post("http://localhost/token_authority.v1.Verification/Verify")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {admin}"))
            .body(Whole(Some(body.clone())))
            .unwrap();
        let mut answer = pin!(send.send_request(request).await.unwrap().into_body());
        let frame = poll_fn(|context| answer.as_mut().poll_frame(context)).await.unwrap();
        let data = frame.unwrap().into_data().unwrap();
        assert!(VerifyResponse::decode(&data[5..]).unwrap().active);
    }
    // What is done for the first time in a thread may allocate.
    let least = counted.lock().unwrap().iter().min().copied();
    assert_eq!(least, Some(1 + HEADERS), "{counted:?}");

    let looked = measure(|| {
        let look = verifier.look().unwrap();
        let asker = look.asker(admin, Some(address.ip())).unwrap();
        assert!(asker.may_verify());
        let mut requirement = Requirement {
            workspace_id: Some(&workspace),
            client_ip: Some("10.0.0.1".parse().unwrap()),
            ..Requirement::default()
        };
        requirement.require("read:mail").unwrap();
        requirement.require("write:notes").unwrap();
        asker.ask(&mut requirement);
        let outcome = look.outcome(&made.token, &requirement);
        assert!(matches!(outcome, Some(Outcome::Active(_))));
    });
    assert_eq!(looked.count_total, 0);
}
