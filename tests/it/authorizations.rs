//! API client authorizations, as those see them who hold them: what SEEDS 3 says of
//! the tokens of Arvados, but for what would make a stronger token of one.

mod concurrency;
mod create;
mod current;
mod forms;
mod get_and_delete;
mod input;
mod keyset;
mod lifetime;
mod list;
mod scopes;
mod system;
mod update;
mod users;
mod who_may;

use std::time::Duration;

use prost_types::{FieldMask, Timestamp, value::Kind};
use serde_json::{Value as Json, json};
use token_authority::proto::v1::{
    ApiClientAuthorization, CreateApiClientAuthorizationRequest as Create,
    CreateSystemAuthRequest as CreateSystem, DeleteApiClientAuthorizationRequest as Delete, Filter,
    GetApiClientAuthorizationRequest as Get, GetCurrentApiClientAuthorizationRequest as Current,
    ListApiClientAuthorizationsRequest as List, ListApiClientAuthorizationsResponse as Items,
    Reason, ScopeList, UpdateApiClientAuthorizationRequest as Update, VerifyRequest,
    VerifyResponse, WhoAmIRequest, WhoAmIResponse,
    api_client_authorizations_client::ApiClientAuthorizationsClient,
};
use tonic::{Code, Status};

use crate::support::{
    Engine,
    server::{As, Place, TestServer, refused, v2},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
/// The address that the tests call from.
const HERE: &str = "127.0.0.1";
/// A uuid that no token has.
const UNKNOWN: &str = "zzzzz-gj3su-unknownunknown0";
const ROOT: &str = "RootRootRootRootRootRootRootRootRoot0123456789";

/// The methods, but for GetCurrentApiClientAuthorization.
const METHODS: [&str; 6] = [
    "CreateApiClientAuthorization",
    "CreateSystemAuth",
    "GetApiClientAuthorization",
    "ListApiClientAuthorizations",
    "UpdateApiClientAuthorization",
    "DeleteApiClientAuthorization",
];

/// The scope that admits one of the methods alone.
fn route(method: &str) -> String {
    format!("POST /token_authority.v1.ApiClientAuthorizations/{method}")
}

/// The methods, as who holds one token calls them.
struct Holder(ApiClientAuthorizationsClient<As>);

type Answer<T = ApiClientAuthorization> = Result<T, Status>;

impl Holder {
    async fn create(&self, request: Create) -> Answer {
        let answer = self.0.clone().create_api_client_authorization(request).await?.into_inner();
        assert!(!answer.revision.is_empty());
        Ok(answer.api_client_authorization.unwrap())
    }

    async fn create_system(&self, request: CreateSystem) -> Answer {
        let answer = self.0.clone().create_system_auth(request).await?.into_inner();
        assert!(!answer.revision.is_empty());
        Ok(answer.api_client_authorization.unwrap())
    }

    async fn get(&self, uuid: &str) -> Answer {
        self.get_only(uuid, &[]).await
    }

    async fn get_only(&self, uuid: &str, select: &[&str]) -> Answer {
        let request = Get { uuid: uuid.to_owned(), select: texts(select) };
        let answer = self.0.clone().get_api_client_authorization(request).await?.into_inner();
        Ok(answer.api_client_authorization.unwrap())
    }

    async fn current(&self) -> Answer {
        self.current_for(None).await
    }

    async fn current_for(&self, remote: Option<&str>) -> Answer {
        let request = Current { remote: remote.map(ToOwned::to_owned) };
        let answer = self.0.clone().get_current_api_client_authorization(request).await?;
        Ok(answer.into_inner().api_client_authorization.unwrap())
    }

    async fn delete(&self, uuid: &str) -> Answer {
        let request = Delete { uuid: uuid.to_owned() };
        let answer = self.0.clone().delete_api_client_authorization(request).await?.into_inner();
        assert!(!answer.revision.is_empty());
        Ok(answer.api_client_authorization.unwrap())
    }

    async fn update(&self, request: Update) -> Answer {
        let answer = self.0.clone().update_api_client_authorization(request).await?.into_inner();
        assert!(!answer.revision.is_empty());
        Ok(answer.api_client_authorization.unwrap())
    }

    async fn list(&self, request: List) -> Answer<Items> {
        Ok(self.0.clone().list_api_client_authorizations(request).await?.into_inner())
    }

    /// The uuids of all that it can list.
    async fn uuids(&self) -> Vec<String> {
        let items = self.list(List::default()).await.unwrap().items;
        items.into_iter().map(|item| item.uuid.unwrap()).collect()
    }

    /// What comes of each of [`METHODS`], the token that they are about being this one.
    async fn each_method(&self, uuid: &str) -> [Result<(), Status>; 6] {
        [
            self.create(Create::default()).await.map(drop),
            self.create_system(CreateSystem::default()).await.map(drop),
            self.get(uuid).await.map(drop),
            self.list(List::default()).await.map(drop),
            self.update(change(uuid)).await.map(drop),
            self.delete(uuid).await.map(drop),
        ]
    }
}

/// A user, and the methods as it calls them with a token that has all scopes.
struct Person {
    id: String,
    number: i64,
    token: ApiClientAuthorization,
    by: Holder,
}

impl Person {
    async fn of(server: &TestServer, id: String) -> Self {
        let token = server.authorization_of(&id, None).await;
        let by = holder(server, &v2(&token));
        Self { id, number: token.user_id(), token, by }
    }

    fn uuid(&self) -> &str {
        self.token.uuid()
    }

    /// The text of its token.
    fn text(&self) -> String {
        v2(&self.token)
    }
}

fn holder(server: &TestServer, token: &str) -> Holder {
    Holder(server.authorizations(token))
}

async fn person(server: &TestServer, handle: &str) -> Person {
    Person::of(server, server.user(handle).await.id).await
}

/// An administrator, another than the first.
async fn chief(server: &TestServer, handle: &str) -> Person {
    Person::of(server, server.administrator(handle).await.id).await
}

/// A server that takes [`ROOT`] as its system root token.
async fn start_with_root(engine: Engine, more: &[&str]) -> TestServer {
    start_with_root_on(Place::new(engine).await, more).await
}

async fn start_with_root_on(place: Place, more: &[&str]) -> TestServer {
    let path = place.path("root-token");
    std::fs::write(&path, ROOT).unwrap();
    let file = format!("--system-root-token-file={}", path.display());
    TestServer::start_on(place, &[&[&*file], more].concat()).await
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn scopes(entries: &[&str]) -> Option<ScopeList> {
    Some(ScopeList { values: texts(entries) })
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: texts(paths) })
}

/// A request that changes nothing.
fn change(uuid: &str) -> Update {
    Update { uuid: uuid.to_owned(), ..Default::default() }
}

/// What a token is to others than who made it just now.
fn without_secret(token: &ApiClientAuthorization) -> ApiClientAuthorization {
    ApiClientAuthorization { api_token: None, ..token.clone() }
}

/// The same, as if it had never been used: a use is written when there is time.
fn without_use(token: &ApiClientAuthorization) -> ApiClientAuthorization {
    ApiClientAuthorization {
        last_used_at: None,
        last_used_by_ip_address: None,
        ..without_secret(token)
    }
}

fn filter(attribute: &str, operator: &str, operand: Json) -> Filter {
    Filter {
        attribute: attribute.to_owned(),
        operator: operator.to_owned(),
        operand: Some(value(operand)),
        ..Default::default()
    }
}

fn value(json: Json) -> prost_types::Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(bool) => Kind::BoolValue(bool),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(list) => {
            let values = list.into_iter().map(value).collect();
            Kind::ListValue(prost_types::ListValue { values })
        }
        Json::Object(_) => Kind::StructValue(object(json)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn object(json: Json) -> prost_types::Struct {
    let Json::Object(fields) = json else { panic!("{json} is no object") };
    prost_types::Struct { fields: fields.into_iter().map(|(name, it)| (name, value(it))).collect() }
}

/// An instant as Arvados writes it: with nine digits.
fn nine_digits(instant: Option<Timestamp>) -> Json {
    let instant = instant.unwrap();
    let whole = Timestamp { nanos: 0, ..instant }.to_string();
    json!(format!("{}.{:09}Z", whole.trim_end_matches('Z'), instant.nanos))
}

fn denied(reason: &str) -> (Code, String) {
    (Code::PermissionDenied, reason.to_owned())
}

fn not_found() -> (Code, String) {
    (Code::NotFound, String::new())
}

/// The caller's own token is not good.
fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned())
}

async fn ask(server: &TestServer, request: VerifyRequest) -> VerifyResponse {
    server.verification(&server.admin).verify(request).await.unwrap().into_inner()
}

/// Why a token is not good; unspecified if it is.
async fn reason(server: &TestServer, token: &str) -> Reason {
    let answer = server.verify(token).await;
    assert_eq!(answer.active, answer.reason() == Reason::Unspecified);
    answer.reason()
}

async fn who(server: &TestServer, token: &str) -> Answer<WhoAmIResponse> {
    Ok(server.verification(token).who_am_i(WhoAmIRequest {}).await?.into_inner())
}

/// Expects a call to be refused so, whatever it would have given.
fn assert_refused<T>(answer: Result<T, Status>, expected: &(Code, String), what: &str) {
    assert_eq!(&refused(answer), expected, "{what}");
}
