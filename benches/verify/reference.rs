//! What the server is measured against: the code that tonic generates for the same
//! service, answering without a look at anything. A process of its own.

use std::{
    io::{Write as _, stderr},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use prost::Message as _;
use token_authority::proto::v1::{
    BatchVerifyRequest, BatchVerifyResponse, BatchVerifyResult, StreamVerifyRequest,
    StreamVerifyResponse, VerifyRequest, VerifyResponse, batch_verify_result,
    stream_verify_response,
    verification_server::{Verification, VerificationServer},
};
use tokio_stream::StreamExt as _;
use tonic::{
    Request, Response, Status, Streaming,
    codegen::BoxStream,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

/// Answers each question with this, of the size that the server's have.
struct Constant(VerifyResponse);

#[tonic::async_trait]
impl Verification for Constant {
    async fn verify(&self, _: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn batch_verify(
        &self,
        request: Request<BatchVerifyRequest>,
    ) -> Result<Response<BatchVerifyResponse>, Status> {
        let result = BatchVerifyResult {
            result: Some(batch_verify_result::Result::Response(self.0.clone())),
        };
        Ok(Response::new(BatchVerifyResponse {
            results: vec![result; request.get_ref().requests.len()],
            revision: self.0.revision.clone(),
            stale: false,
        }))
    }

    async fn stream_verify(
        &self,
        request: Request<Streaming<StreamVerifyRequest>>,
    ) -> Result<Response<BoxStream<StreamVerifyResponse>>, Status> {
        let answer = self.0.clone();
        let answers = request.into_inner().map(move |question| {
            let result = stream_verify_response::Result::Response(answer.clone());
            Ok(StreamVerifyResponse { id: question?.id, result: Some(result) })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Serves until it is killed. The arguments: the answer, encoded, in hexadecimal, and the
/// files of a certificate and its key, if it is to speak TLS.
pub(crate) fn serve(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let answer = unhex(&arguments.next().expect("the answer comes first"));
    let answer = VerifyResponse::decode(&*answer).expect("an answer");
    let files: Vec<PathBuf> =
        arguments.take_while(|file| !file.starts_with("--")).map(PathBuf::from).collect();

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.expect("a runtime starts").block_on(async {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())
            .expect("there is a port")
            .with_nodelay(Some(true));
        let address = incoming.local_addr().expect("it is bound");
        // The server's own settings.
        let mut server = Server::builder()
            .max_concurrent_streams(256)
            .http2_max_header_list_size(16 * 1024)
            .http2_max_pending_accept_reset_streams(Some(20))
            .max_connection_age(Duration::from_hours(1))
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)));
        if let [certificate, key] = &files[..] {
            let read = |file: &PathBuf| std::fs::read(file).expect("it can be read");
            let identity = Identity::from_pem(read(certificate), read(key));
            server = server
                .tls_config(ServerTlsConfig::new().identity(identity))
                .expect("the certificate is good");
        }
        writeln!(stderr(), "{}", serving(address)).expect("somebody reads it");
        server
            .add_service(VerificationServer::new(Constant(answer)))
            .serve_with_incoming(incoming)
            .await
    });
    served.expect("it serves until it is killed");
    ExitCode::SUCCESS
}

/// That it serves at this address, as the server's log says it.
pub(crate) fn serving(address: SocketAddr) -> String {
    format!(r#"{{"fields":{{"message":"serving","address":"{address}"}}}}"#)
}

/// The bytes in a text of two hexadecimal digits each.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}
