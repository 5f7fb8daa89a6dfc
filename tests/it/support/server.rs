use std::{ffi::OsString, path::PathBuf, sync::Arc};

use tempfile::TempDir;
use token_authority::{
    config::{self, Command, Settings},
    domain::{Pepper, Token},
    proto::v1::{
        CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse, CreateUserRequest,
        User, VerifyRequest, VerifyResponse, directory_client::DirectoryClient,
        personal_access_tokens_client::PersonalAccessTokensClient,
        verification_client::VerificationClient,
    },
    server::Server,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::{Engine, clock::TestClock, postgres};

/// A server in this process, on a port of its own, whose clock the test moves.
pub(crate) struct TestServer {
    pub(crate) clock: TestClock,
    pub(crate) channel: Channel,
    pub(crate) address: std::net::SocketAddr,
    /// The token of the first administrator.
    pub(crate) admin: String,
    /// Where its store is: for SQL that the API does not offer yet.
    pub(crate) place: Place,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<std::io::Result<()>>>,
}

/// A store, and what goes with it.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) database_url: Option<String>,
}

/// Presents a token with each call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub(crate) type As = InterceptedService<Channel, Bearer>;

impl Place {
    /// An empty store.
    pub(crate) async fn new(engine: Engine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database_url = match engine {
            Engine::Postgres => Some(postgres::empty_database().await),
            Engine::Sqlite => None,
        };
        std::fs::write(
            directory.path().join("pepper-of-test"),
            Pepper::to_file(&[7; 32]).as_bytes(),
        )
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

    pub(crate) fn settings(&self, more: &[&str]) -> Settings {
        let arguments = std::iter::once("token-authority".into())
            .chain(self.arguments())
            .chain(more.iter().map(OsString::from));
        match config::read(arguments).unwrap().command {
            Command::Serve(settings) => *settings,
            _ => unreachable!("the first argument is serve"),
        }
    }

    pub(crate) fn admin_token(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("data/admin.token")).unwrap();
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
        let clock = TestClock::new();
        let server = Server::bind(place.settings(more), Arc::new(clock.clone())).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        let channel =
            Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let admin = place.admin_token();
        Self { clock, channel, address, admin, place, stop: Some(stop), served: Some(served) }
    }

    /// Stops it and leaves its store.
    pub(crate) async fn stop(mut self) -> Place {
        let _ = self.stop.take().unwrap().send(());
        let Self { channel, place, served, .. } = self;
        drop(channel);
        served.unwrap().await.unwrap().unwrap();
        place
    }

    fn call_as(&self, token: &str) -> As {
        let value = format!("Bearer {token}").parse().unwrap();
        InterceptedService::new(self.channel.clone(), Bearer(value))
    }

    pub(crate) fn tokens(&self, token: &str) -> PersonalAccessTokensClient<As> {
        PersonalAccessTokensClient::new(self.call_as(token))
    }

    pub(crate) fn verification(&self, token: &str) -> VerificationClient<As> {
        VerificationClient::new(self.call_as(token))
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

    /// What the administrator is told of a token.
    pub(crate) async fn verify(&self, token: &str) -> VerifyResponse {
        let request = VerifyRequest { token: token.to_owned(), ..Default::default() };
        self.verification(&self.admin).verify(request).await.unwrap().into_inner()
    }
}

/// A well-formed token that nobody was given.
pub(crate) fn unknown_token() -> String {
    let random = token_authority::random::bytes();
    Token::from_random(&"pat_".parse().unwrap(), &random).expose().to_owned()
}
