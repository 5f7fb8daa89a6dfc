use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use sqlx::Connection as _;
use tempfile::TempDir;
use token_authority::{
    clock::Clock as _,
    config::{self, Command, Settings},
    domain::{Pepper, Token},
    hashing::Recovery,
    proto::v1::{
        ApiClientAuthorization, Consistency, CreateApiClientAuthorizationRequest,
        CreateOrganizationRequest, CreatePersonalAccessTokenRequest,
        CreatePersonalAccessTokenResponse, CreateUserRequest, CreateWorkspaceRequest,
        DeleteMembershipRequest, MembershipRole, MembershipUpsert, ScopeList,
        UpsertMembershipsRequest, User, VerifyRequest, VerifyResponse,
        api_client_authorizations_client::ApiClientAuthorizationsClient, consistency,
        credentials_client::CredentialsClient, delete_membership_request,
        directory_client::DirectoryClient, membership_upsert,
        personal_access_tokens_client::PersonalAccessTokensClient,
        verification_client::VerificationClient,
    },
    random,
    server::Server,
    verifier::Verifier,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorInfo, StatusExt as _};

use super::{Engine, clock::TestClock, pki::Authority, postgres};

/// A server in this process, on a port of its own, whose clock the test moves.
pub(crate) struct TestServer {
    pub(crate) clock: TestClock,
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
    /// Where it answers HTTP.
    pub(crate) http: Option<SocketAddr>,
    /// Where those ask who run it.
    pub(crate) admin_address: Option<SocketAddr>,
    /// The token of the first administrator.
    pub(crate) admin: String,
    /// Where its store is: for SQL that the API does not offer yet.
    pub(crate) place: Place,
    /// What proves secrets whose pepper is not loaded.
    pub(crate) recovery: Arc<Recovery>,
    /// What answers.
    pub(crate) verifier: Arc<Verifier>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

/// A store, and what goes with it.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) database_url: Option<String>,
}

/// Presents its `authorization` headers with each call.
#[derive(Clone)]
pub(crate) struct Presented(Vec<MetadataValue<Ascii>>);

impl Presented {
    pub(crate) fn bearer(token: &str) -> Self {
        Self(vec![format!("Bearer {token}").parse().unwrap()])
    }
}

impl Interceptor for Presented {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for value in &self.0 {
            request.metadata_mut().append("authorization", value.clone());
        }
        Ok(request)
    }
}

pub(crate) type As = InterceptedService<Channel, Presented>;

impl Place {
    /// An empty store.
    pub(crate) async fn new(engine: Engine) -> Self {
        let directory = super::directory();
        let database_url = match engine {
            Engine::Postgres => Some(postgres::empty_database().await),
            Engine::Sqlite => None,
        };
        fs::write(directory.path().join("pepper-of-test"), Pepper::to_file(&[7; 32]).as_bytes())
            .unwrap();
        Self { directory, database_url }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The arguments of `serve` on this store.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["serve".into(), "--grpc-listen=127.0.0.1:0".into()];
        let mut option = |name: &str, value: &std::ffi::OsStr| {
            arguments.push(name.into());
            arguments.push(value.into());
        };
        option("--data-dir", self.directory.path().join("data").as_os_str());
        option("--pepper-file", self.path("pepper-of-test").as_os_str());
        if let Some(url) = &self.database_url {
            option("--database-url", url.as_ref());
        }
        arguments
    }

    /// Puts a certificate of `localhost` there; the arguments that name it.
    pub(crate) fn certificate(&self, authority: &Authority) -> [String; 2] {
        let (certificate, key) = authority.issue("localhost");
        [("cert", "tls.crt", certificate), ("key", "tls.key", key)].map(|(name, file, text)| {
            let path = self.path(file);
            fs::write(&path, text).unwrap();
            format!("--tls-{name}={}", path.display())
        })
    }

    pub(crate) fn settings(&self, more: &[&str]) -> Settings {
        let arguments = std::iter::once("token-authority".into())
            .chain(self.arguments())
            .chain(["http", "admin"].map(|name| format!("--{name}-listen=127.0.0.1:0").into()))
            .chain(more.iter().map(OsString::from));
        let Command::Serve(settings) = config::read(arguments).unwrap().command else {
            unreachable!("the first argument is serve");
        };
        *settings
    }

    pub(crate) fn admin_token(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("data/admin.token")).unwrap();
        text.trim().to_owned()
    }

    /// Runs SQL that both engines take, for what the API does not offer yet.
    pub(crate) async fn sql(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        match &self.database_url {
            Some(url) => {
                let pool = sqlx::PgPool::connect(url).await.unwrap();
                sqlx::raw_sql(statement).execute(&pool).await.unwrap();
                pool.close().await;
            }
            None => {
                let path = self.directory.path().join("data/token-authority.db");
                let pool = sqlx::SqlitePool::connect(path.to_str().unwrap()).await.unwrap();
                sqlx::raw_sql(statement).execute(&pool).await.unwrap();
                pool.close().await;
            }
        }
    }

    /// The number that a query gives.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(query.to_owned());
        match &self.database_url {
            Some(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
            }
            None => {
                let path = self.directory.path().join("data/token-authority.db");
                let mut connection =
                    sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
            }
        }
    }
}

impl TestServer {
    pub(crate) async fn start(engine: Engine) -> Self {
        Self::start_with(engine, &[]).await
    }

    /// With more arguments of `serve`.
    pub(crate) async fn start_with(engine: Engine, more: &[&str]) -> Self {
        Self::start_on(Place::new(engine).await, more).await
    }

    /// On a store that may have been used before.
    pub(crate) async fn start_on(place: Place, more: &[&str]) -> Self {
        let endpoint = |address| Channel::from_shared(format!("http://{address}")).unwrap();
        Self::start_and_connect(place, more, endpoint).await
    }

    /// The same with TLS, as `localhost`, by a certificate of this authority.
    pub(crate) async fn start_secured(place: Place, more: &[&str], authority: &Authority) -> Self {
        let certificate = place.certificate(authority);
        let more = [&certificate.each_ref().map(String::as_str), more].concat();
        let trusted = Certificate::from_pem(&authority.certificate);
        let trusted = ClientTlsConfig::new().ca_certificate(trusted).domain_name("localhost");
        let endpoint = |address| {
            let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
            endpoint.tls_config(trusted).unwrap()
        };
        Self::start_and_connect(place, &more, endpoint).await
    }

    async fn start_and_connect(
        place: Place,
        more: &[&str],
        endpoint: impl FnOnce(SocketAddr) -> Endpoint,
    ) -> Self {
        let clock = TestClock::new();
        let server = Server::bind(place.settings(more), Arc::new(clock.clone())).await.unwrap();
        let (address, http) = (server.address(), server.http_address());
        let admin_address = server.admin_address();
        let (recovery, verifier) = (server.recovery(), server.verifier());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        let channel = endpoint(address).connect().await.unwrap();
        let admin = place.admin_token();
        let (stop, served) = (Some(stop), Some(served));
        Self {
            clock,
            channel,
            address,
            http,
            admin_address,
            admin,
            place,
            recovery,
            verifier,
            stop,
            served,
        }
    }

    /// Stops it and leaves its store.
    pub(crate) async fn stop(mut self) -> Place {
        let _ = self.stop.take().unwrap().send(());
        let Self { channel, place, served, .. } = self;
        drop(channel);
        served.unwrap().await.unwrap();
        place
    }

    /// Changes the store by SQL, and tells whoever follows it that everything was touched.
    pub(crate) async fn change(&self, statement: &str) {
        let told = format!(
            "UPDATE revision SET number = number + 1, mark = 42; \
            INSERT INTO changes (revision, mark, changed_at, touched) \
            SELECT number, mark, {}, '[[\"everything\"]]' FROM revision",
            self.clock.now().as_micros()
        );
        self.place.sql(&format!("{statement}; {told}")).await;
        self.follow().await;
    }

    /// Has it look at what was changed.
    pub(crate) async fn follow(&self) {
        let requirement = consistency::Requirement::FullyConsistent(true);
        let request = VerifyRequest {
            token: "-".to_owned(),
            consistency: Some(Consistency { requirement: Some(requirement), max_stale: None }),
            ..Default::default()
        };
        let _ = self.verification(&self.admin).verify(request).await;
    }

    /// Calls a method by its path, with an empty request.
    pub(crate) async fn call(&self, path: &str, token: Option<&str>) -> Result<(), Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let mut request = Request::new(());
        if let Some(token) = token {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let path = PathAndQuery::try_from(path).unwrap();
        grpc.unary(request, path, ProstCodec::<(), ()>::default()).await.map(drop)
    }

    fn call_as(&self, token: &str) -> As {
        InterceptedService::new(self.channel.clone(), Presented::bearer(token))
    }

    /// A channel on which every call has these `authorization` headers.
    pub(crate) fn presenting(&self, values: &[&str]) -> As {
        let values = values.iter().map(|value| value.parse().unwrap()).collect();
        InterceptedService::new(self.channel.clone(), Presented(values))
    }

    pub(crate) fn tokens(&self, token: &str) -> PersonalAccessTokensClient<As> {
        PersonalAccessTokensClient::new(self.call_as(token))
    }

    pub(crate) fn verification(&self, token: &str) -> VerificationClient<As> {
        VerificationClient::new(self.call_as(token))
    }

    pub(crate) fn authorizations(&self, token: &str) -> ApiClientAuthorizationsClient<As> {
        ApiClientAuthorizationsClient::new(self.call_as(token))
    }

    pub(crate) fn credentials(&self, token: &str) -> CredentialsClient<As> {
        CredentialsClient::new(self.call_as(token))
    }

    /// An API client authorization of a user, made by the administrator; with all
    /// scopes if none are named.
    pub(crate) async fn authorization_of(
        &self,
        user_id: &str,
        scopes: Option<&[&str]>,
    ) -> ApiClientAuthorization {
        let values = |scopes: &[&str]| scopes.iter().map(ToString::to_string).collect();
        let request = CreateApiClientAuthorizationRequest {
            owner_uuid: Some(user_id.to_owned()),
            scopes: scopes.map(|scopes| ScopeList { values: values(scopes) }),
            ..Default::default()
        };
        let mut client = self.authorizations(&self.admin);
        let made = client.create_api_client_authorization(request).await.unwrap().into_inner();
        made.api_client_authorization.unwrap()
    }

    pub(crate) fn directory(&self, token: &str) -> DirectoryClient<As> {
        DirectoryClient::new(self.call_as(token))
    }

    /// A new user, made by the administrator.
    pub(crate) async fn user(&self, handle: &str) -> User {
        let request = CreateUserRequest { handle: handle.to_owned(), ..Default::default() };
        let response = self.directory(&self.admin).create_user(request).await.unwrap();
        response.into_inner().user.unwrap()
    }

    /// A new administrator, made by the first.
    pub(crate) async fn administrator(&self, handle: &str) -> User {
        let request =
            CreateUserRequest { handle: handle.to_owned(), is_admin: true, ..Default::default() };
        let response = self.directory(&self.admin).create_user(request).await.unwrap();
        response.into_inner().user.unwrap()
    }

    /// A token with these scopes for a user, made by the administrator.
    pub(crate) async fn token_of(
        &self,
        user_id: &str,
        scopes: &[&str],
    ) -> CreatePersonalAccessTokenResponse {
        let request = CreatePersonalAccessTokenRequest {
            name: "of a test".to_owned(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            user_id: Some(user_id.to_owned()),
            ..Default::default()
        };
        self.tokens(&self.admin).create_personal_access_token(request).await.unwrap().into_inner()
    }

    /// The text of such a token.
    pub(crate) async fn text_of(&self, user_id: &str, scopes: &[&str]) -> String {
        self.token_of(user_id, scopes).await.token
    }

    /// A new workspace in a new organization; the id of the workspace.
    pub(crate) async fn workspace(&self, slug: &str) -> String {
        let mut directory = self.directory(&self.admin);
        let organization = CreateOrganizationRequest {
            slug: format!("org-of-{slug}"),
            name: "Org".to_owned(),
            external_id: Some(format!("org:{slug}")),
            ..Default::default()
        };
        directory.create_organization(organization).await.unwrap();
        let workspace = CreateWorkspaceRequest {
            organization: format!("org-of-{slug}"),
            slug: slug.to_owned(),
            name: "Workspace".to_owned(),
            external_id: Some(format!("ws:{slug}")),
            ..Default::default()
        };
        let made = directory.create_workspace(workspace).await.unwrap().into_inner();
        made.workspace.unwrap().id
    }

    /// Makes a user a member of a workspace.
    pub(crate) async fn join(&self, user_id: &str, workspace_id: &str, role: &str) {
        let role = format!("MEMBERSHIP_ROLE_{}", role.to_uppercase());
        let membership = MembershipUpsert {
            user: user_id.to_owned(),
            container: Some(membership_upsert::Container::Workspace(workspace_id.to_owned())),
            role: MembershipRole::from_str_name(&role).unwrap().into(),
        };
        let request = UpsertMembershipsRequest { memberships: vec![membership] };
        self.directory(&self.admin).upsert_memberships(request).await.unwrap();
    }

    /// A token bound to a workspace, as its user makes one.
    pub(crate) async fn bound(&self, user_id: &str, workspace_id: &str) -> String {
        self.bound_with(user_id, workspace_id, &[]).await
    }

    /// The same, with these scopes.
    pub(crate) async fn bound_with(
        &self,
        user_id: &str,
        workspace_id: &str,
        scopes: &[&str],
    ) -> String {
        let request = CreatePersonalAccessTokenRequest {
            name: "of a test".to_owned(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            user_id: Some(user_id.to_owned()),
            workspace_id: Some(workspace_id.to_owned()),
            ..Default::default()
        };
        let made = self.tokens(&self.admin).create_personal_access_token(request).await.unwrap();
        made.into_inner().token
    }

    /// Ends a membership.
    pub(crate) async fn leave(&self, user_id: &str, workspace_id: &str) {
        let request = DeleteMembershipRequest {
            user: user_id.to_owned(),
            container: Some(delete_membership_request::Container::Workspace(
                workspace_id.to_owned(),
            )),
        };
        self.directory(&self.admin).delete_membership(request).await.unwrap();
    }

    /// The instant that its clock shows, and so much more.
    pub(crate) fn after(&self, by: Duration) -> prost_types::Timestamp {
        let (seconds, nanos) = self.clock.now().saturating_add(by).to_seconds_and_nanos();
        prost_types::Timestamp { seconds, nanos }
    }

    /// How much is kept: a call that changes nothing leaves it as it is.
    pub(crate) async fn kept(&self) -> i64 {
        let tables = ["audit", "changes", "credentials", "secrets", "users", "request_ids"];
        let counts = tables.map(|table| format!("(SELECT count(*) FROM {table})"));
        self.place.number(&format!("SELECT {}", counts.join(" + "))).await
    }

    /// What the administrator is told of a token.
    pub(crate) async fn verify(&self, token: &str) -> VerifyResponse {
        let request = VerifyRequest { token: token.to_owned(), ..Default::default() };
        self.verification(&self.admin).verify(request).await.unwrap().into_inner()
    }
}

/// The code of a refusal and its stable reason, empty where it has none.
pub(crate) fn refused<T>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.err().expect("the call is refused");
    (status.code(), info(&status).map(|info| info.reason).unwrap_or_default())
}

/// The fields that an INVALID_ARGUMENT names.
pub(crate) fn wrong_fields<T>(answer: Result<T, Status>) -> Vec<String> {
    let status = answer.err().expect("the call is refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let request = status.get_details_bad_request().expect("it names the fields");
    assert!(request.field_violations.iter().all(|wrong| !wrong.description.is_empty()));
    request.field_violations.into_iter().map(|wrong| wrong.field).collect()
}

/// The field in which a request goes beyond its caller's token.
pub(crate) fn exceeded<T>(answer: Result<T, Status>) -> String {
    let status = answer.err().expect("the call is refused");
    let info = info(&status).expect("it has a reason");
    assert_eq!((status.code(), &*info.reason), (Code::PermissionDenied, "EXCEEDS_CALLER"));
    info.metadata["field"].clone()
}

fn info(status: &Status) -> Option<ErrorInfo> {
    let info = status.get_details_error_info();
    if let Some(info) = &info {
        assert_eq!(info.domain, "token-authority");
    }
    info
}

/// The text `v2/{uuid}/{secret}` of an API client authorization that was just made.
pub(crate) fn v2(made: &ApiClientAuthorization) -> String {
    format!("v2/{}/{}", made.uuid(), made.api_token())
}

/// A well-formed token that nobody was given.
pub(crate) fn unknown_token() -> String {
    let random = random::bytes();
    Token::from_random(&"pat_".parse().unwrap(), &random).expose().to_owned()
}
