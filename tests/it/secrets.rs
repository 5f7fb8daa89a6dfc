mod over_http;

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose};
use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _},
};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use ring::hmac;
use token_authority::proto::{
    DESCRIPTORS,
    v1::{
        ApiClientAuthorization, Consistency, CreateApiClientAuthorizationRequest,
        CreateMembershipRequest, CreateOrganizationRequest, CreatePersonalAccessTokenRequest,
        CreateSystemAuthRequest, CreateUserRequest, CreateWorkspaceRequest,
        DeleteApiClientAuthorizationRequest, Filter, GetApiClientAuthorizationRequest,
        GetCurrentApiClientAuthorizationRequest, GetPersonalAccessTokenRequest, GetUserRequest,
        ListApiClientAuthorizationsRequest, ListAvailablePatScopesRequest,
        ListPersonalAccessTokensRequest, ListUsersRequest, MembershipRole,
        RevokePersonalAccessTokenRequest, RevokeTokensRequest, RotatePersonalAccessTokenRequest,
        ScopeList, UpdateApiClientAuthorizationRequest, UpdatePersonalAccessTokenRequest,
        UpdateUserRequest, VerifyRequest, WhoAmIRequest, WorkspaceCreatePatRequest,
        WorkspaceListPatsRequest, consistency::Requirement, create_membership_request::Container,
        revoke_tokens_request::Target,
    },
};
use tokio::process::Command;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
};

use crate::support::{
    Engine,
    client::{Client, connect},
    on_both_stores, postgres,
    process::{Process, program, run},
    raw_http2::RawHttp2,
    server::{Place, unknown_token, v2},
    wait::until,
};

on_both_stores![no_token_and_no_pepper_is_in_the_store_or_in_the_log];

/// The system root token.
const ROOT: &str = "RootTokenOfTheTestOfSecrets0123456789XYZ";

/// Texts that must stay with those who hold them.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn keep(&mut self, text: &str) -> String {
        self.0.push(text.to_owned());
        text.to_owned()
    }

    /// What would give one of them away: each whole, its random digits alone,
    /// and both as they look encoded.
    fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for text in &self.0 {
            for form in [text, digits(text)] {
                traces.push(form.to_owned());
                traces.push(hex(form));
                traces.push(hex(form).to_uppercase());
                traces.extend(in_base64(form));
            }
        }
        traces
    }

    /// Fails if one of them is in what was found at `place`.
    fn assert_absent(&self, place: &str, found: &[u8]) {
        let traces = self.traces();
        let found = String::from_utf8_lossy(found);
        for trace in traces {
            let line = || found.lines().find(|line| line.contains(&trace));
            assert!(!found.contains(&trace), "a secret is in {place}: {:?}", line());
        }
    }
}

/// What of a text is secret, as far as it has to be hidden.
fn digits(text: &str) -> &str {
    let digits = match text.strip_prefix("v2/") {
        Some(rest) => rest.split('/').nth(1).unwrap(),
        None => text.split_once('_').map_or(text, |(_, digits)| digits),
    };
    &digits[..digits.len().min(40)]
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// How it looks within a longer text in base64, wherever it begins in that, in
/// both alphabets.
fn in_base64(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for offset in 0..3 {
        let whole = format!("{}{text}", &"..."[..offset]);
        for engine in [general_purpose::STANDARD_NO_PAD, general_purpose::URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&whole);
            // The first and the last digits depend on what stands around.
            forms.push(encoded[4..encoded.len() - 2].to_owned());
        }
    }
    forms
}

async fn no_token_and_no_pepper_is_in_the_store_or_in_the_log(engine: Engine) {
    let place = Place::new(engine).await;
    let mut secrets = Secrets::default();
    let pepper = run(program(["pepper", "new"])).await.stdout;
    fs::write(place.path("pepper-of-test"), &pepper).unwrap();
    secrets.keep(pepper.trim());

    fs::write(place.path("root-token"), ROOT).unwrap();
    secrets.keep(ROOT);
    let root = format!("--system-root-token-file={}", place.path("root-token").display());
    let more = ["--log=trace", "--recoverable-api-tokens", "--verify-system-root-token", &*root];
    let more = more.into_iter().chain(["--token-in-query"]);
    let arguments = place.arguments().into_iter().chain(more.map(Into::into));
    let process = Process::start(arguments).await;
    let admin = secrets.keep(&place.admin_token());
    use_every_call(&process, &admin, &mut secrets).await;
    let authorization = use_of_authorizations(&process, &admin, &mut secrets).await;
    // What shows that one would be found where it should not be: see `.ci/no-tokens`.
    fs::write(place.path("authorization.token"), v2(&authorization)).unwrap();
    misuse_every_call(&process, &admin, &authorization, &mut secrets).await;
    over_http::use_and_misuse(&process, &admin, &v2(&authorization), &mut secrets).await;

    check_store(&place, &secrets).await;
    let log = process.log();
    process.stop().await;
    check_store(&place, &secrets).await;
    secrets.assert_absent("the log", log.as_bytes());
    // The search would have found what is there.
    for known in [
        "CreatePersonalAccessToken",
        "CreateApiClientAuthorization",
        "create_api_client_authorization",
        "workspace_list_pats",
        "\"DEBUG\"",
        "INSERT INTO",
        authorization.uuid(),
    ] {
        assert!(log.contains(known), "{known} is not in the log");
    }
}

/// Tokens made, repeated, verified, used as the caller's, and revoked.
async fn use_every_call(process: &Process, admin: &str, secrets: &mut Secrets) {
    let client = Client::connect(process.address, admin).await;
    let user = CreateUserRequest { handle: "alice".to_owned(), ..Default::default() };
    let user = client.directory().create_user(user).await.unwrap().into_inner().user.unwrap();
    let request = CreatePersonalAccessTokenRequest {
        name: "repeated".to_owned(),
        request_id: Some(uuid::Uuid::now_v7().to_string()),
        scopes: vec!["verify:tokens".to_owned(), "write:tokens".to_owned()],
        user_id: Some(user.id.clone()),
        ..Default::default()
    };
    let mut texts = Vec::new();
    for _ in 0..3 {
        let created = client.tokens().create_personal_access_token(request.clone()).await.unwrap();
        texts.push(secrets.keep(&created.into_inner().token));
    }
    let text = texts.pop().unwrap();
    assert!(client.verify(&text).await.unwrap().active);
    for lost in &texts {
        assert!(!client.verify(lost).await.unwrap().active);
    }
    let again = client.tokens().create_personal_access_token(request).await.unwrap().into_inner();
    assert!(again.already_used);

    let holder = Client::connect(process.address, &text).await;
    let own = holder.create("own").await.unwrap();
    secrets.keep(&own.token);
    let id = own.personal_access_token.unwrap().id;
    holder.who_am_i().await.unwrap();
    holder.verify(&own.token).await.unwrap();
    let update = UpdatePersonalAccessTokenRequest {
        id: id.clone(),
        name: Some("renamed".to_owned()),
        ..Default::default()
    };
    holder.tokens().update_personal_access_token(update).await.unwrap();
    holder.tokens().list_available_pat_scopes(ListAvailablePatScopesRequest {}).await.unwrap();
    holder.revoke(&id).await.unwrap();
    assert!(!holder.verify(&own.token).await.unwrap().active);
    let dead = Client::connect(process.address, &own.token).await;
    assert_eq!(dead.who_am_i().await.unwrap_err().code(), Code::Unauthenticated);

    let list = ListPersonalAccessTokensRequest { page_size: 1, ..Default::default() };
    client.tokens().list_personal_access_tokens(list).await.unwrap();
    let id = own_id(&client).await;
    client.tokens().get_personal_access_token(GetPersonalAccessTokenRequest { id }).await.unwrap();
    client.directory().list_users(ListUsersRequest::default()).await.unwrap();
    client.directory().get_user(GetUserRequest { user: user.id.clone() }).await.unwrap();
    let update = UpdateUserRequest { user: user.id, is_active: Some(false), ..Default::default() };
    client.directory().update_user(update).await.unwrap();
    assert!(holder.who_am_i().await.is_err());
    use_of_a_workspace(process, &client, secrets).await;
}

/// Tokens of a workspace, rotated, shown after that, and ended with others.
async fn use_of_a_workspace(process: &Process, client: &Client, secrets: &mut Secrets) {
    let (slug, name) = ("acme".to_owned(), "Acme".to_owned());
    let organization =
        CreateOrganizationRequest { slug: slug.clone(), name: name.clone(), ..Default::default() };
    client.directory().create_organization(organization).await.unwrap();
    let workspace = CreateWorkspaceRequest {
        organization: slug.clone(),
        slug: slug.clone(),
        name,
        ..Default::default()
    };
    let workspace = client.directory().create_workspace(workspace).await.unwrap().into_inner();
    let join = CreateMembershipRequest {
        user: "handle:admin".to_owned(),
        container: Some(Container::Workspace(workspace.workspace.unwrap().id)),
        role: MembershipRole::Member.into(),
    };
    client.directory().create_membership(join).await.unwrap();
    let create = WorkspaceCreatePatRequest {
        org: slug.clone(),
        workspace: slug.clone(),
        name: "bound".to_owned(),
        scopes: vec!["write:tokens".to_owned()],
        ..Default::default()
    };
    let bound = client.tokens().workspace_create_pat(create).await.unwrap().into_inner();
    let old = secrets.keep(&bound.token);
    let id = bound.personal_access_token.unwrap().id;
    let holder = Client::connect(process.address, &old).await;
    let rotate = RotatePersonalAccessTokenRequest { id, ..Default::default() };
    let lost = holder.tokens().rotate_personal_access_token(rotate.clone()).await.unwrap();
    secrets.keep(&lost.into_inner().token);
    let new = holder.tokens().rotate_personal_access_token(rotate).await.unwrap();
    let new = secrets.keep(&new.into_inner().token);
    assert!(client.verify(&new).await.unwrap().active);
    until("the report of the old secret", Duration::from_secs(10), async || {
        assert!(!client.verify(&old).await.unwrap().active);
        process.log().contains("that a newer one has replaced")
    })
    .await;
    let list =
        WorkspaceListPatsRequest { org: slug.clone(), workspace: slug, ..Default::default() };
    client.tokens().workspace_list_pats(list).await.unwrap();
    let organization = Some(Target::Organization("acme".to_owned()));
    let revoke = RevokeTokensRequest { target: organization, reason: "leaked".to_owned() };
    client.directory().revoke_tokens(revoke).await.unwrap();
    assert!(!client.verify(&new).await.unwrap().active);
}

/// API client authorizations made, shown in every form, kept sealed and given back,
/// listed by their secrets, changed and ended; and the system root token.
async fn use_of_authorizations(
    process: &Process,
    admin: &str,
    secrets: &mut Secrets,
) -> ApiClientAuthorization {
    let client = Client::connect(process.address, admin).await;
    let user = CreateUserRequest { handle: "carol".to_owned(), ..Default::default() };
    let user = client.directory().create_user(user).await.unwrap().into_inner().user.unwrap();
    let create =
        CreateApiClientAuthorizationRequest { owner_uuid: Some(user.id), ..Default::default() };
    let made = client.authorizations().create_api_client_authorization(create.clone()).await;
    let made = made.unwrap().into_inner().api_client_authorization.unwrap();
    let secret = secrets.keep(made.api_token());
    let text = secrets.keep(&v2(&made));
    let salted = secrets.keep(&salted(&made, "zbbbb"));
    for text in [&secret, &text, &format!("{text}/zzzzz-dz642-000000000000001")] {
        assert!(client.verify(text).await.unwrap().active);
        let holder = Client::connect(process.address, text).await;
        holder.who_am_i().await.unwrap();
        let current = GetCurrentApiClientAuthorizationRequest::default();
        let current = holder.authorizations().get_current_api_client_authorization(current).await;
        let current = current.unwrap().into_inner().api_client_authorization.unwrap();
        assert_eq!(current.api_token(), secret);
    }
    let current = GetCurrentApiClientAuthorizationRequest { remote: Some("zbbbb".to_owned()) };
    let holder = Client::connect(process.address, &salted).await;
    holder.authorizations().get_current_api_client_authorization(current).await.unwrap();

    let holder = Client::connect(process.address, &text).await;
    let uuid = made.uuid().to_owned();
    let get = GetApiClientAuthorizationRequest { uuid: uuid.clone(), ..Default::default() };
    let got = holder.authorizations().get_api_client_authorization(get).await.unwrap();
    let got = got.into_inner().api_client_authorization.unwrap();
    assert_eq!(got.api_token(), secret, "it is kept recoverable");
    for list in with_operand(&secret) {
        let listed = holder.authorizations().list_api_client_authorizations(list).await.unwrap();
        let [item] = &listed.into_inner().items[..] else { panic!("it is found by its secret") };
        assert_eq!(item.api_token(), secret);
    }
    let scopes = Some(ScopeList { values: vec!["GET /notes".to_owned()] });
    let own = CreateApiClientAuthorizationRequest { scopes: scopes.clone(), ..Default::default() };
    let own = holder.authorizations().create_api_client_authorization(own).await.unwrap();
    let own = own.into_inner().api_client_authorization.unwrap();
    let own_text = secrets.keep(&v2(&own));
    let mut ask = VerifyRequest {
        token: own_text.clone(),
        request_method: Some("GET".to_owned()),
        request_path: Some("/notes".to_owned()),
        ..Default::default()
    };
    assert!(client.verification().verify(ask.clone()).await.unwrap().into_inner().active);
    ask.request_path = Some("/mail".to_owned());
    assert!(!client.verification().verify(ask).await.unwrap().into_inner().active);
    let uuid_of_own = own.uuid().to_owned();
    let update = UpdateApiClientAuthorizationRequest {
        uuid: uuid_of_own.clone(),
        scopes,
        ..Default::default()
    };
    holder.authorizations().update_api_client_authorization(update).await.unwrap();
    let delete = DeleteApiClientAuthorizationRequest { uuid: uuid_of_own };
    holder.authorizations().delete_api_client_authorization(delete).await.unwrap();
    assert!(!client.verify(&own_text).await.unwrap().active);
    assert!(Client::connect(process.address, &own_text).await.who_am_i().await.is_err());

    let root = Client::connect(process.address, ROOT).await;
    assert!(root.verify(ROOT).await.unwrap().active);
    root.who_am_i().await.unwrap();
    let made_by_root = root.authorizations().create_api_client_authorization(create).await.unwrap();
    let made_by_root = made_by_root.into_inner().api_client_authorization.unwrap();
    secrets.keep(&v2(&made_by_root));
    let system = root.authorizations().create_system_auth(CreateSystemAuthRequest::default()).await;
    let system = system.unwrap().into_inner().api_client_authorization.unwrap();
    secrets.keep(&v2(&system));
    let all = ListApiClientAuthorizationsRequest::default();
    root.authorizations().list_api_client_authorizations(all).await.unwrap();
    made
}

/// The token as its holder shows it to another cluster.
fn salted(made: &ApiClientAuthorization, remote: &str) -> String {
    let key = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let key = hmac::Key::new(key, made.api_token().as_bytes());
    let mac = hmac::sign(&key, remote.as_bytes());
    let digits = mac.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    format!("v2/{}/{digits}", made.uuid())
}

/// Lists of what has a text for its secret, asked in every way.
fn with_operand(text: &str) -> [ListApiClientAuthorizationsRequest; 3] {
    let value = || prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let list = prost_types::ListValue { values: vec![value()] };
    let list = prost_types::Value { kind: Some(prost_types::value::Kind::ListValue(list)) };
    let filtered = |operator: &str, operand| ListApiClientAuthorizationsRequest {
        filters: vec![Filter {
            attribute: "api_token".to_owned(),
            operator: operator.to_owned(),
            operand: Some(operand),
            ..Default::default()
        }],
        ..Default::default()
    };
    let fields = [("api_token".to_owned(), value())].into();
    let stated = ListApiClientAuthorizationsRequest {
        r#where: Some(prost_types::Struct { fields }),
        ..Default::default()
    };
    [filtered("=", value()), filtered("in", list), stated]
}

async fn own_id(client: &Client) -> String {
    client.who_am_i().await.unwrap().token_id
}

/// Tokens where none belongs, and texts that are nearly tokens.
async fn misuse_every_call(
    process: &Process,
    admin: &str,
    authorization: &ApiClientAuthorization,
    secrets: &mut Secrets,
) {
    let client = Client::connect(process.address, admin).await;
    let good = secrets.keep(&client.create("misplaced").await.unwrap().token);
    let unknown = secrets.keep(&unknown_token());
    let other = if &good[20..21] == "0" { "1" } else { "0" };
    let mistyped = secrets.keep(&format!("{}{other}{}", &good[..20], &good[21..]));
    for text in [&unknown, &mistyped] {
        assert!(!client.verify(text).await.unwrap().active);
        assert!(Client::connect(process.address, text).await.who_am_i().await.is_err());
    }
    let (secret, text) = (authorization.api_token(), v2(authorization));
    let short = secrets.keep(&text[..text.len() - 1]);
    let salted = salted(authorization, "zbbbb");
    for text in [&*good, &unknown, &mistyped, secret, &text, &short, &salted, ROOT] {
        in_wrong_fields(&client, text).await;
        in_wrong_headers(process, text).await;
        in_wrong_places_of_http2(process, text).await;
    }
    // What is mistyped has no checksum to be known by, and what is salted or configured
    // no shape.
    for text in [&*good, &unknown, secret, &text] {
        in_every_field(process, admin, text).await;
    }
}

async fn in_wrong_fields(client: &Client, text: &str) {
    let text = || text.to_owned();
    let ask = VerifyRequest { token: text(), ..Default::default() };
    for request in [
        VerifyRequest { required_scopes: vec![text()], ..ask.clone() },
        VerifyRequest { workspace_id: Some(text()), ..ask.clone() },
        VerifyRequest { client_ip: Some(text()), ..ask.clone() },
        VerifyRequest { request_method: Some(text()), request_path: Some(text()), ..ask.clone() },
        VerifyRequest {
            request_method: Some("GET".to_owned()),
            request_path: Some(format!("/{}", text())),
            ..ask.clone()
        },
        VerifyRequest {
            consistency: Some(Consistency {
                requirement: Some(Requirement::MinRevision(text())),
                max_stale: None,
            }),
            ..ask
        },
    ] {
        let _ = client.verification().verify(request).await;
    }
    let create = CreatePersonalAccessTokenRequest { name: "n".to_owned(), ..Default::default() };
    for request in [
        CreatePersonalAccessTokenRequest { scopes: vec![text()], ..create.clone() },
        CreatePersonalAccessTokenRequest { workspace_id: Some(text()), ..create.clone() },
        CreatePersonalAccessTokenRequest { user_id: Some(text()), ..create.clone() },
        CreatePersonalAccessTokenRequest { request_id: Some(text()), ..create.clone() },
        CreatePersonalAccessTokenRequest { allowed_ips: vec![text()], ..create },
    ] {
        assert!(client.tokens().create_personal_access_token(request).await.is_err());
    }
    let list = ListPersonalAccessTokensRequest { page_token: text(), ..Default::default() };
    assert!(client.tokens().list_personal_access_tokens(list).await.is_err());
    let get = GetPersonalAccessTokenRequest { id: text() };
    assert!(client.tokens().get_personal_access_token(get).await.is_err());
    let revoke = RevokePersonalAccessTokenRequest { id: text(), include_descendants: true };
    assert!(client.tokens().revoke_personal_access_token(revoke).await.is_err());
    let update = UpdatePersonalAccessTokenRequest {
        id: text(),
        name: Some("n".to_owned()),
        ..Default::default()
    };
    assert!(client.tokens().update_personal_access_token(update).await.is_err());
    for user in [text(), format!("handle:{}", text()), format!("external:{}", text())] {
        assert!(client.directory().get_user(GetUserRequest { user }).await.is_err());
    }
    in_wrong_fields_of_authorizations(client, text()).await;
    let user = CreateUserRequest { handle: text(), ..Default::default() };
    assert!(client.directory().create_user(user).await.is_err());
    let list = ListUsersRequest { page_token: text(), ..Default::default() };
    assert!(client.directory().list_users(list).await.is_err());
}

async fn in_wrong_fields_of_authorizations(client: &Client, text: String) {
    let mut authorizations = client.authorizations();
    let create = CreateApiClientAuthorizationRequest::default();
    for request in [
        CreateApiClientAuthorizationRequest { uuid: Some(text.clone()), ..create.clone() },
        CreateApiClientAuthorizationRequest { owner_uuid: Some(text.clone()), ..create.clone() },
        CreateApiClientAuthorizationRequest { select: vec![text.clone()], ..create },
    ] {
        assert!(authorizations.create_api_client_authorization(request).await.is_err());
    }
    let get = GetApiClientAuthorizationRequest { uuid: text.clone(), ..Default::default() };
    assert!(authorizations.get_api_client_authorization(get).await.is_err());
    let delete = DeleteApiClientAuthorizationRequest { uuid: text.clone() };
    assert!(authorizations.delete_api_client_authorization(delete).await.is_err());
    let current = GetCurrentApiClientAuthorizationRequest { remote: Some(text.clone()) };
    assert!(authorizations.get_current_api_client_authorization(current).await.is_err());
    let value = |kind| Some(prost_types::Value { kind: Some(kind) });
    let text_value = || value(prost_types::value::Kind::StringValue(text.clone()));
    let fields = [(text.clone(), text_value().unwrap())].into();
    let fields = prost_types::Struct { fields };
    let list = ListApiClientAuthorizationsRequest::default();
    let filtered = |attribute: &str, operator: &str, operand| ListApiClientAuthorizationsRequest {
        filters: vec![Filter {
            attribute: attribute.to_owned(),
            operator: operator.to_owned(),
            operand,
            ..Default::default()
        }],
        ..list.clone()
    };
    let object = value(prost_types::value::Kind::StructValue(fields.clone()));
    for request in [
        ListApiClientAuthorizationsRequest { order: vec![text.clone()], ..list.clone() },
        ListApiClientAuthorizationsRequest { select: vec![text.clone()], ..list.clone() },
        ListApiClientAuthorizationsRequest { r#where: Some(fields), ..list.clone() },
        filtered(&text, "=", text_value()),
        filtered("uuid", &text, text_value()),
        filtered("uuid", "=", object),
        filtered("api_token", "<", text_value()),
        filtered("expires_at", "<", text_value()),
        filtered("api_client_id", "=", text_value()),
    ] {
        assert!(authorizations.list_api_client_authorizations(request).await.is_err());
    }
    for attribute in ["uuid", "owner_uuid", "created_by_ip_address", "last_used_by_ip_address"] {
        for operator in ["=", "!=", "<", "like", "ilike", "is_a"] {
            let request = filtered(attribute, operator, text_value());
            let _ = authorizations.list_api_client_authorizations(request).await;
        }
    }
    for request in with_operand(&text) {
        let _ = authorizations.list_api_client_authorizations(request).await;
    }
    let _ = authorizations.list_api_client_authorizations(filtered("any", "=", text_value())).await;
}

/// In each text of each request in turn, alone and where a name of a user or a
/// container stands after a colon.
async fn in_every_field(process: &Process, admin: &str, text: &str) {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let channel = connect(process.address).await;
    let mut calls = 0;
    for service in pool.services() {
        if service.package_name() != "token_authority.v1" {
            continue;
        }
        for method in service.methods().filter(|method| !method.is_client_streaming()) {
            let path = format!("/{}/{}", service.full_name(), method.name());
            for text in [text.to_owned(), format!("external:{text}")] {
                for message in with_each_text(&method.input(), &text, 0) {
                    let mut grpc = Grpc::new(channel.clone());
                    grpc.ready().await.unwrap();
                    let mut request = Request::new(message.encode_to_vec());
                    let bearer = format!("Bearer {admin}").parse().unwrap();
                    request.metadata_mut().insert("authorization", bearer);
                    let path = PathAndQuery::try_from(&path).unwrap();
                    let _ = grpc.unary(request, path, Bytes).await;
                    calls += 1;
                }
            }
        }
    }
    assert!(calls > 300, "only {calls} calls");
}

/// Messages of this type, each with one text set, at any depth.
fn with_each_text(descriptor: &MessageDescriptor, text: &str, depth: usize) -> Vec<DynamicMessage> {
    let mut messages = Vec::new();
    for field in descriptor.fields() {
        let values = if let Kind::Message(inner) = field.kind()
            && depth < 3
            && !field.is_map()
        {
            let inner = with_each_text(&inner, text, depth + 1);
            inner.into_iter().map(Value::Message).collect()
        } else if field.kind() == Kind::String {
            vec![Value::String(text.to_owned())]
        } else {
            Vec::new()
        };
        for value in values {
            let mut message = DynamicMessage::new(descriptor.clone());
            let value = if field.is_list() { Value::List(vec![value]) } else { value };
            message.set_field(&field, value);
            messages.push(message);
        }
    }
    messages
}

/// Sends what is encoded already, and takes no interest in the answer.
#[derive(Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

async fn in_wrong_headers(process: &Process, text: &str) {
    let channel = connect(process.address).await;
    for (name, value) in [
        ("authorization", text.to_owned()),
        ("authorization", format!("Basic {text}")),
        ("authorization", format!("Bearer {text} {text}")),
        ("authorization", format!("Bearer \"{text}\"")),
        ("x-api-key", text.to_owned()),
        ("x-request-id", text.to_owned()),
        ("cookie", format!("token={text}")),
        ("grpc-timeout", text.to_owned()),
        ("grpc-encoding", text.to_owned()),
    ] {
        let mut request = Request::new(WhoAmIRequest {});
        request.metadata_mut().insert(name, MetadataValue::try_from(&*value).unwrap());
        let mut verification =
            token_authority::proto::v1::verification_client::VerificationClient::new(
                channel.clone(),
            );
        assert!(verification.who_am_i(request).await.is_err());
    }
}

async fn in_wrong_places_of_http2(process: &Process, text: &str) {
    let who_am_i = "/token_authority.v1.Verification/WhoAmI";
    let paths = [
        format!("/token_authority.v1.Verification/{text}"),
        format!("{who_am_i}?access_token={text}"),
        format!("/{text}"),
        text.to_owned(),
        format!("\\{text}"),
        format!("/{text} /"),
    ];
    for path in &paths {
        let mut connection = RawHttp2::open(process.address).await;
        connection.request(1, path, &[], Some(&[])).await;
        connection.end(1).await;
    }
    for (name, value) in [
        ("te", text.to_owned()),
        ("connection", text.to_owned()),
        ("content-length", text.to_owned()),
        ("authorization", format!("Bearer {text}\0")),
        (":protocol", text.to_owned()),
        (":status", text.to_owned()),
        ("Authorization", text.to_owned()),
    ] {
        let mut connection = RawHttp2::open(process.address).await;
        connection.request(1, who_am_i, &[(name, &value)], Some(&[])).await;
        connection.end(1).await;
    }
    for name in [":authority", ":scheme", ":method"] {
        let mut connection = RawHttp2::open(process.address).await;
        connection.request_with(1, who_am_i, (name, &format!("[{text}"))).await;
        connection.end(1).await;
    }
}

async fn check_store(place: &Place, secrets: &Secrets) {
    match &place.database_url {
        Some(url) => {
            let dump = Command::new(postgres::bin().join("pg_dump")).arg(url).output().await;
            let dump = dump.unwrap();
            assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
            assert_dumped(&dump.stdout);
            secrets.assert_absent("the dump", &dump.stdout);
        }
        None => {
            let mut all = Vec::new();
            for name in ["token-authority.db", "token-authority.db-wal", "token-authority.db-shm"] {
                let path = place.path("data").join(name);
                let found = read_if_there(&path);
                secrets.assert_absent(name, &found);
                all.extend(found);
            }
            assert_dumped(&all);
        }
    }
}

/// The search looks at what is kept: it finds what is no secret.
fn assert_dumped(found: &[u8]) {
    for known in ["credential.create", "pat_", "$argon2id$"] {
        assert!(found.windows(known.len()).any(|window| window == known.as_bytes()), "{known}");
    }
}

fn read_if_there(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}
