//! The services over gRPC: parse the request, call, convert the answer.

mod api_client_authorizations;
mod at_once;
mod credentials;
mod directory;
pub mod gate;
mod parse;
mod personal_access_tokens;
mod received;
pub mod reply;
mod status;
mod stream_verify;
pub mod streams;
mod verification;
mod watch;
mod wire;

use std::{net::IpAddr, sync::Arc};

use tonic::{Request, Status, service::Routes};

use crate::{
    authority::Authority,
    caller::Caller,
    credentials::Credentials,
    directory::Directory,
    domain::Timestamp,
    error::Error,
    proto::{
        encoded::verification_server::VerificationServer,
        v1::{
            api_client_authorizations_server::ApiClientAuthorizationsServer,
            credentials_server::CredentialsServer, directory_server::DirectoryServer,
            personal_access_tokens_server::PersonalAccessTokensServer,
        },
    },
    rights::Right,
    verifier::{Asker, Event, Verifier},
};
use gate::Presented;
use streams::Streams;

pub(crate) use api_client_authorizations::Service as ApiClientAuthorizations;
pub(crate) use personal_access_tokens::Service as PersonalAccessTokens;
pub(crate) use wire::encode_active;

/// The largest request that is read, in bytes.
const MAX_REQUEST: usize = 64 * 1024;

/// The same where a thousand records, or questions, come at once.
const MAX_LONG_REQUEST: usize = 1024 * 1024;

/// The names of the services whose health is told, Verification first.
pub const SERVICES: [&str; 5] = [
    "token_authority.v1.Verification",
    "token_authority.v1.PersonalAccessTokens",
    "token_authority.v1.ApiClientAuthorizations",
    "token_authority.v1.Directory",
    "token_authority.v1.Credentials",
];

/// The services that are also called otherwise than over gRPC.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) tokens: PersonalAccessTokens,
    pub(crate) authorizations: ApiClientAuthorizations,
}

impl Services {
    pub(crate) fn new(authority: &Arc<Authority>, verifier: &Arc<Verifier>) -> Self {
        Self {
            tokens: personal_access_tokens::Service(Arc::clone(authority)),
            authorizations: api_client_authorizations::Service {
                authority: Arc::clone(authority),
                verifier: Arc::clone(verifier),
            },
        }
    }
}

/// All services of `proto/token_authority/v1`. RPCs whose turn has not come
/// answer UNIMPLEMENTED.
#[must_use]
pub(crate) fn routes(
    verifier: Arc<Verifier>,
    services: &Services,
    directory: Directory,
    credentials: Credentials,
    streams: Streams,
) -> Routes {
    let mut routes = Routes::builder();
    routes
        .add_service(
            VerificationServer::new(verification::Service { verifier, streams })
                .max_decoding_message_size(MAX_LONG_REQUEST),
        )
        .add_service(
            PersonalAccessTokensServer::new(services.tokens.clone())
                .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            DirectoryServer::new(directory::Service(directory))
                .max_decoding_message_size(MAX_LONG_REQUEST),
        )
        .add_service(
            ApiClientAuthorizationsServer::new(services.authorizations.clone())
                .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            CredentialsServer::new(credentials::Service(credentials))
                .max_decoding_message_size(MAX_REQUEST),
        );
    routes.routes()
}

/// A call of a service by who is known already.
pub(crate) fn called_by<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

/// The same where it matters with what it proves who it is: a token that was salted for
/// another cluster proves somebody only together with the message.
pub(crate) fn presented_by<T>(
    caller: Option<&Caller>,
    token: &str,
    ip: IpAddr,
    request_id: &str,
    message: T,
) -> Request<T> {
    let mut request = Request::new(message);
    let extensions = request.extensions_mut();
    extensions.insert(Presented::new(token, ip, request_id));
    if let Some(caller) = caller {
        extensions.insert(caller.clone());
    }
    request
}

/// Who makes this call: the gate has put it there.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(status::caller_missing)
}

/// Who asks about tokens, if it may call this: the gate has put it there.
fn asker<T>(request: &Request<T>, right: &Right) -> Result<Asker, Status> {
    let asker = request.extensions().get::<Asker>().ok_or_else(status::caller_missing)?;
    asker.may(right).map_err(Error::from)?;
    Ok(asker.clone())
}

/// With what it proved who it is: the gate has put it there.
fn presented<T>(request: &Request<T>) -> Result<Presented, Status> {
    request.extensions().get::<Presented>().cloned().ok_or_else(status::caller_missing)
}

/// Who presents this again, on a stream, if it still may call this.
async fn asker_again(
    verifier: &Arc<Verifier>,
    presented: &Presented,
    right: &Right,
) -> Result<Asker, Status> {
    let Presented { ip, request_id, .. } = presented;
    let asker = verifier.asker(presented.text(), *ip, request_id).await?;
    let asker = asker.ok_or_else(|| {
        verifier.happened(Event::CallerRefused);
        status::caller_refused()
    })?;
    asker.may(right).map_err(Error::from)?;
    Ok(asker)
}

fn to_timestamp(instant: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = instant.to_seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}
