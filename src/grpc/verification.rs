use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    asker, at_once, caller, parse::Fields, presented, status, stream_verify::Answers,
    streams::Streams, to_timestamp, watch, wire,
};
use crate::{
    domain::{CredentialId, ExternalId, Found, Kind, Reason, Revision},
    error::Error,
    proto::{
        encoded::{self, batch_verify_result::Result as BatchResult},
        v1 as proto,
    },
    rights,
    verifier::{Answer, Asker, Consistency, Decision, Event, Knows, Question, Reported, Verifier},
};

/// How many tokens are asked about at once.
const MAX_BATCH: usize = 1_000;

pub(super) struct Service {
    pub(super) verifier: Arc<Verifier>,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl encoded::verification_server::Verification for Service {
    async fn verify(
        &self,
        request: Request<proto::VerifyRequest>,
    ) -> Result<Response<proto::VerifyResponse>, Status> {
        let asker = asker(&request, &rights::VERIFY)?;
        self.verifier.happened(Event::LongWay);
        Ok(Response::new(verify(&self.verifier, request.get_ref(), &asker).await?))
    }

    async fn batch_verify(
        &self,
        request: Request<encoded::BatchVerifyRequest>,
    ) -> Result<Response<encoded::BatchVerifyResponse>, Status> {
        let asker = asker(&request, &rights::BATCH_VERIFY)?;
        let encoded::BatchVerifyRequest { requests, consistency: asked } = request.into_inner();
        let mut fields = Fields::default();
        if requests.len() > MAX_BATCH {
            fields.wrong("requests", format!("must have at most {MAX_BATCH} elements"));
        }
        let consistency = consistency(&mut fields, asked.as_ref());
        fields.check()?;
        if asked.is_none()
            && let Some(kept) = self.kept_batch(&requests, &asker)
        {
            return Ok(Response::new(kept));
        }
        let requests: Vec<_> = requests.into_iter().map(decoded).collect();
        let mut results = Vec::with_capacity(requests.len());
        let mut questions = Vec::with_capacity(requests.len());
        for request in &requests {
            let question = request.as_ref().map_err(Status::clone).and_then(|request| {
                let (question, _) = question(request, &asker)?;
                let mut fields = Fields::default();
                if request.consistency.is_some() {
                    fields.wrong("consistency", "must be unset: the batch has one");
                }
                fields.check()?;
                Ok(question)
            });
            results.push(question.map(|question| questions.push(question)));
        }
        let (decisions, revision) =
            self.verifier.verify_all(&questions, &asker, consistency).await?;
        let mut decisions = decisions.into_iter();
        let mut stale = false;
        let results = results.into_iter().map(|result| {
            let decided = result.and_then(|()| match decisions.next() {
                Some(decision) => Ok(message(decision?)),
                None => Err(Status::internal("a question is without its answer")),
            });
            match decided {
                Ok(response) => {
                    stale |= response.stale;
                    BatchResult::Response(response.encode_to_vec().into())
                }
                Err(status) => BatchResult::Error(status::in_place(&status)),
            }
        });
        Ok(Response::new(batch(results.collect::<Vec<_>>(), revision.to_string(), stale)))
    }

    async fn stream_verify(
        &self,
        request: Request<Streaming<encoded::StreamVerifyRequest>>,
    ) -> Result<Response<BoxStream<encoded::StreamVerifyResponse>>, Status> {
        let asker = asker(&request, &rights::STREAM_VERIFY)?;
        let presented = presented(&request)?;
        let place = self.streams.place(&asker)?;
        let (verifier, questions) = (Arc::clone(&self.verifier), request.into_inner());
        let answers = Answers::new(verifier, asker, presented, questions, place);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn watch(
        &self,
        request: Request<Streaming<proto::WatchRequest>>,
    ) -> Result<Response<BoxStream<proto::WatchResponse>>, Status> {
        let asker = asker(&request, &rights::WATCH)?;
        let presented = presented(&request)?;
        let place = self.streams.place(&asker)?;
        let (verifier, messages) = (Arc::clone(&self.verifier), request.into_inner());
        Ok(Response::new(watch::start(verifier, asker, presented, messages, place)))
    }

    async fn report_use(
        &self,
        request: Request<proto::ReportUseRequest>,
    ) -> Result<Response<proto::ReportUseResponse>, Status> {
        let asker = asker(&request, &rights::REPORT_USE)?;
        let mut fields = Fields::default();
        let items = fields.each("items", request.into_inner().items, reported);
        fields.check()?;
        self.verifier.report(&items, &asker).await?;
        Ok(Response::new(proto::ReportUseResponse {}))
    }

    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        let caller = caller(&request)?;
        rights::WHO_AM_I.own(&caller).map_err(Error::from)?;
        let found = caller.found;
        let expires_at = found.expires_at().map(to_timestamp);
        let Found { credential, secret, owner, .. } = found;
        let kind = kind_message(credential.kind());
        let (workspace_id, organization_id) = credential
            .workspace
            .map(|binding| (binding.workspace_id, binding.organization_id))
            .unzip();
        Ok(Response::new(proto::WhoAmIResponse {
            token_id: credential.id.0,
            kind: kind.into(),
            user: Some(proto::WhoAmIUser {
                id: owner.id.to_string(),
                handle: owner.handle,
                external_id: owner.external_id.map(|id| id.to_string()),
                is_admin: owner.is_admin,
            }),
            organization_id,
            workspace_id,
            scopes: credential.scopes,
            allowed_ips: credential.allowed_ips.to_texts(),
            expires_at,
            // The system root token was never made.
            created_at: (kind != proto::TokenKind::SystemRoot)
                .then(|| to_timestamp(credential.created_at)),
            token_prefix: (kind == proto::TokenKind::PersonalAccessToken).then_some(secret.shown),
        }))
    }
}

/// A use that is reported; `None`, too, if its id can be no token's.
fn reported(fields: &mut Fields, item: proto::TokenUse) -> Option<Reported> {
    let id = fields.not_empty("token_id", item.token_id);
    if item.last_used_at.is_none() {
        fields.wrong("last_used_at", "must be set");
    }
    let at = item.last_used_at.and_then(|at| fields.instant("last_used_at", at));
    let ip = item.client_ip.map(|text| text.parse());
    if let Some(Err(_)) = ip {
        fields.wrong("client_ip", "must be an IP address");
    }
    let is_id = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let ip = ip.and_then(Result::ok);
    is_id.then_some(Reported { credential_id: CredentialId(id), at: at?, ip })
}

/// The answer to a question.
pub(super) async fn verify(
    verifier: &Arc<Verifier>,
    request: &proto::VerifyRequest,
    asker: &Asker,
) -> Result<proto::VerifyResponse, Status> {
    let ((presented, requirement), consistency) = question(request, asker)?;
    Ok(message(verifier.verify(presented, &requirement, asker, consistency).await?))
}

impl Service {
    /// The answers to all questions, if they can be given at once, from what is kept.
    fn kept_batch(
        &self,
        questions: &[Bytes],
        asker: &Asker,
    ) -> Option<encoded::BatchVerifyResponse> {
        let look = self.verifier.look_for(asker)?;
        let answers = at_once::answers(&look, asker.entry(), questions.iter())?;
        let results = answers.into_iter().map(BatchResult::Response);
        Some(batch(results, look.revision_text().to_owned(), false))
    }
}

fn batch(
    results: impl IntoIterator<Item = BatchResult>,
    revision: String,
    stale: bool,
) -> encoded::BatchVerifyResponse {
    let result = |result| encoded::BatchVerifyResult { result: Some(result) };
    let results = results.into_iter().map(result).collect();
    encoded::BatchVerifyResponse { results, revision, stale }
}

/// A question that came among others.
fn decoded(question: Bytes) -> Result<proto::VerifyRequest, Status> {
    proto::VerifyRequest::decode(question).map_err(|_| {
        status::invalid(vec![("request".to_owned(), "must be a VerifyRequest".to_owned())])
    })
}

/// A question that came on a stream, if nothing is wrong with it.
pub(super) fn checked(encoded: Bytes, asker: &Asker) -> Result<proto::VerifyRequest, Status> {
    let request = decoded(encoded)?;
    question(&request, asker)?;
    Ok(request)
}

/// What is asked, with all that is wrong with it said at once.
fn question<'q>(
    request: &'q proto::VerifyRequest,
    asker: &'q Asker,
) -> Result<(Question<'q>, Consistency), Status> {
    let mut fields = Fields::default();
    let consistency = consistency(&mut fields, request.consistency.as_ref());
    let mut requirement = wire::Question::of(request)
        .check(&mut |field, reason| fields.wrong(field.to_string(), reason));
    fields.check()?;
    asker.entry().ask(&mut requirement);
    Ok(((request.token.as_str(), requirement), consistency))
}

fn consistency(fields: &mut Fields, asked: Option<&proto::Consistency>) -> Consistency {
    use proto::consistency::Requirement::{FullyConsistent, MinRevision};
    let Some(asked) = asked else { return Consistency::default() };
    let max_stale =
        asked.max_stale.and_then(|max_stale| fields.duration("consistency.max_stale", max_stale));
    let knows = match &asked.requirement {
        Some(FullyConsistent(true)) => {
            if max_stale.is_some_and(|max_stale| !max_stale.is_zero()) {
                fields.wrong(
                    "consistency.max_stale",
                    "must not be more than zero where fully_consistent is set",
                );
            }
            Knows::Everything
        }
        Some(MinRevision(text)) => fields
            .parse::<Revision>("consistency.min_revision", text)
            .map_or(Knows::Policy, Knows::AtLeast),
        Some(FullyConsistent(false)) | None => Knows::Policy,
    };
    Consistency { knows, max_stale }
}

pub(super) fn message(decision: Decision) -> proto::VerifyResponse {
    let revision = decision.revision.map(|revision| revision.to_string()).unwrap_or_default();
    let varying = proto::VerifyResponse {
        revision,
        max_age: (!decision.max_age.is_zero()).then(|| prost_types::Duration {
            seconds: i64::try_from(decision.max_age.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(decision.max_age.subsec_nanos()).unwrap_or_default(),
        }),
        stale: decision.stale,
        ..Default::default()
    };
    match decision.answer {
        Answer::NotFound => {
            proto::VerifyResponse { reason: proto::Reason::NotFound.into(), ..varying }
        }
        Answer::Active(entry) => {
            let proto::VerifyResponse { revision, max_age, stale, .. } = varying;
            proto::VerifyResponse {
                revision,
                max_age,
                stale,
                ask_again: entry.asks_again(),
                ..wire::active_message(entry.answer())
            }
        }
        Answer::Refused(reason, entry) => {
            let missing_scopes = reason.missing_scopes().to_vec();
            let proto::VerifyResponse { token_id, kind, user_id, expires_at, .. } =
                wire::active_message(entry.answer());
            let revoked_at = entry.revoked_at().map(to_timestamp);
            let refusal =
                proto::Refusal { token_id, kind, user_id, expires_at, revoked_at, missing_scopes };
            proto::VerifyResponse {
                reason: reason_message(&reason).into(),
                refusal: Some(refusal),
                ..varying
            }
        }
    }
}

/// The answer about a token that is active, but for what varies with each call.
pub(super) fn active(found: &Found) -> proto::VerifyResponse {
    let credential = &found.credential;
    let workspace = found.workspace.as_ref();
    let organization = workspace.map(|workspace| &workspace.organization);
    let text = |id: &ExternalId| id.to_string();
    proto::VerifyResponse {
        active: true,
        token_id: credential.id.0.clone(),
        kind: kind_message(credential.kind()).into(),
        user_id: found.owner.id.to_string(),
        user_external_id: found.owner.external_id.as_ref().map(text),
        organization_id: organization.map(|organization| organization.id.clone()),
        organization_external_id: organization
            .and_then(|organization| organization.external_id.as_ref())
            .map(text),
        workspace_id: workspace.map(|workspace| workspace.id.clone()),
        workspace_external_id: workspace
            .and_then(|workspace| workspace.external_id.as_ref())
            .map(text),
        scopes: credential.scopes.clone(),
        expires_at: found.expires_at().map(to_timestamp),
        ..Default::default()
    }
}

pub(super) fn reason_message(reason: &Reason) -> proto::Reason {
    match reason {
        Reason::NotFound => proto::Reason::NotFound,
        Reason::Expired => proto::Reason::Expired,
        Reason::Revoked => proto::Reason::Revoked,
        Reason::OwnerInactive => proto::Reason::OwnerInactive,
        Reason::WorkspaceInactive => proto::Reason::WorkspaceInactive,
        Reason::WrongWorkspace => proto::Reason::WrongWorkspace,
        Reason::IpNotAllowed => proto::Reason::IpNotAllowed,
        Reason::InsufficientScope(_) => proto::Reason::InsufficientScope,
    }
}

fn kind_message(kind: Kind) -> proto::TokenKind {
    match kind {
        Kind::PersonalAccessToken => proto::TokenKind::PersonalAccessToken,
        Kind::ApiClientAuthorization => proto::TokenKind::ApiClientAuthorization,
        Kind::SystemRoot => proto::TokenKind::SystemRoot,
    }
}
