//! A service that keeps answers: it asks by the client library, and answers `Verify` from
//! what that keeps. A process of its own.

use std::{io::Write as _, process::ExitCode};

use token_authority::{
    client::{Answer, Client, Options, OwnToken, Question},
    proto::v1::{
        Reason, VerifyRequest, VerifyResponse,
        verification_server::{Verification, VerificationServer},
    },
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::reference::serving;

struct Keeper(Client);

#[tonic::async_trait]
impl Verification for Keeper {
    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyResponse>, Status> {
        let answered = self.0.verify(Question::new(&request.get_ref().token)).await;
        let response = match answered.map_err(|error| Status::unavailable(error.to_string()))? {
            Answer::Active { identity, .. } => VerifyResponse {
                active: true,
                token_id: identity.token_id.clone(),
                ..Default::default()
            },
            Answer::Refused { .. } | _ => {
                VerifyResponse { reason: Reason::Revoked.into(), ..Default::default() }
            }
        };
        Ok(Response::new(response))
    }
}

/// Serves until it is killed. The arguments: its own token, and the addresses of servers.
pub(crate) fn serve(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let own = OwnToken::text(arguments.next().expect("the token comes first"));
    let servers: Vec<String> = arguments.take_while(|address| !address.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.expect("a runtime starts").block_on(async {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())
            .expect("there is a port")
            .with_nodelay(Some(true));
        let address = incoming.local_addr().expect("it is bound");
        let client = Client::start(Options::new(servers, own)).expect("the options are good");
        writeln!(std::io::stderr(), "{}", serving(address)).expect("somebody reads it");
        Server::builder()
            .add_service(VerificationServer::new(Keeper(client)))
            .serve_with_incoming(incoming)
            .await
    });
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
