//! The services over gRPC: parse the request, call, convert the answer.

mod api_client_authorizations;
mod directory;
pub mod gate;
mod parse;
mod personal_access_tokens;
pub mod reply;
mod status;
mod verification;

use std::sync::Arc;

use tonic::{Request, Status, service::Routes};

use crate::{
    authority::Authority,
    caller::Caller,
    directory::Directory,
    domain::Timestamp,
    proto::v1::{
        api_client_authorizations_server::ApiClientAuthorizationsServer,
        credentials_server::{Credentials, CredentialsServer},
        directory_server::DirectoryServer,
        personal_access_tokens_server::PersonalAccessTokensServer,
        verification_server::VerificationServer,
    },
    verifier::Verifier,
};

/// The largest request that is read, in bytes.
const MAX_REQUEST: usize = 64 * 1024;

/// The same for the directory, of which a thousand records come at once.
const MAX_DIRECTORY_REQUEST: usize = 1024 * 1024;

/// The names of the services whose health is told, Verification first.
pub const SERVICES: [&str; 5] = [
    "token_authority.v1.Verification",
    "token_authority.v1.PersonalAccessTokens",
    "token_authority.v1.ApiClientAuthorizations",
    "token_authority.v1.Directory",
    "token_authority.v1.Credentials",
];

/// All services of `proto/token_authority/v1`. RPCs whose turn has not come
/// answer UNIMPLEMENTED.
#[must_use]
pub fn routes(verifier: Arc<Verifier>, authority: Arc<Authority>, directory: Directory) -> Routes {
    let mut routes = Routes::builder();
    routes
        .add_service(
            VerificationServer::new(verification::Service(Arc::clone(&verifier)))
                .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            PersonalAccessTokensServer::new(personal_access_tokens::Service(Arc::clone(
                &authority,
            )))
            .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(
            DirectoryServer::new(directory::Service(directory))
                .max_decoding_message_size(MAX_DIRECTORY_REQUEST),
        )
        .add_service(
            ApiClientAuthorizationsServer::new(api_client_authorizations::Service {
                authority: Arc::clone(&authority),
                verifier: Arc::clone(&verifier),
            })
            .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(CredentialsServer::new(Later));
    routes.routes()
}

/// Services of which no RPC is served yet.
struct Later;

impl Credentials for Later {}

/// Who makes this call: the gate has put it there.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(status::caller_missing)
}

fn to_timestamp(instant: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = instant.to_seconds_and_nanos();
    prost_types::Timestamp { seconds, nanos }
}
