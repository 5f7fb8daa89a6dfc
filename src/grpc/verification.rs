use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{caller, parse::Fields, to_timestamp};
use crate::{
    domain::{Found, Kind, Kinds, Reason, Requirement, Revision, Route},
    error::Error,
    proto::v1 as proto,
    rights,
    verifier::{Answer, Consistency, Decision, Verifier},
};

/// The longest path that is judged, in bytes.
const MAX_PATH: usize = 8 * 1024;

pub(super) struct Service(pub(super) Arc<Verifier>);

#[tonic::async_trait]
impl proto::verification_server::Verification for Service {
    async fn verify(
        &self,
        request: Request<proto::VerifyRequest>,
    ) -> Result<Response<proto::VerifyResponse>, Status> {
        let caller = caller(&request)?;
        rights::VERIFY.own(&caller).map_err(Error::from)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        if request.token.is_empty() {
            fields.wrong("token", "must not be empty");
        }
        let consistency = consistency(&mut fields, request.consistency.as_ref());
        let mut requirement = requirement(&mut fields, &request);
        fields.check()?;
        requirement.askers_workspace_id = caller.workspace_id();

        let decision =
            self.0.verify(&request.token, &requirement, caller.token_id(), consistency).await?;
        Ok(Response::new(message(decision)))
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

fn requirement<'a>(fields: &mut Fields, request: &'a proto::VerifyRequest) -> Requirement<'a> {
    let route = match (&request.request_method, &request.request_path) {
        (None, None) => None,
        (Some(method), Some(path)) => route(fields, method, path),
        (Some(_), None) => {
            fields.wrong("request_path", "must be set where request_method is");
            None
        }
        (None, Some(_)) => {
            fields.wrong("request_method", "must be set where request_path is");
            None
        }
    };
    let client_ip = request.client_ip.as_deref().and_then(|text| {
        let address = text.parse().ok();
        if address.is_none() {
            fields.wrong("client_ip", "must be an IP address");
        }
        address
    });
    if request
        .workspace_id
        .as_ref()
        .is_some_and(|id| id.is_empty() || id.len() > 64 || id.contains('\0'))
    {
        fields.wrong("workspace_id", "must be the id of a workspace");
    }
    let mut requirement = Requirement {
        route,
        workspace_id: request.workspace_id.as_deref(),
        client_ip,
        ..Requirement::default()
    };
    for (at, text) in request.required_scopes.iter().enumerate() {
        if let Err(error) = requirement.require(text) {
            fields.wrong(format!("required_scopes[{at}]"), error);
        }
    }
    requirement.kinds = kinds(fields, &request.kinds);
    requirement
}

fn route<'a>(fields: &mut Fields, method: &'a str, path: &'a str) -> Option<Route<'a>> {
    let is_method =
        (1..=32).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
    if !is_method {
        fields.wrong("request_method", "must be an HTTP method in capital letters");
    }
    let is_path = path.starts_with('/')
        && path.len() <= MAX_PATH
        && !path.contains(|c: char| c == '?' || c == '#' || c.is_control());
    if !is_path {
        fields.wrong("request_path", "must be a path that starts with / and has no query");
    }
    (is_method && is_path).then_some(Route { method, path })
}

/// The kinds that are accepted; none named: every one.
fn kinds(fields: &mut Fields, numbers: &[i32]) -> Kinds {
    let mut kinds = Kinds::ANY;
    for (at, number) in numbers.iter().enumerate() {
        match proto::TokenKind::try_from(*number) {
            Ok(proto::TokenKind::PersonalAccessToken) => kinds.insert(Kind::PersonalAccessToken),
            Ok(proto::TokenKind::ApiClientAuthorization) => {
                kinds.insert(Kind::ApiClientAuthorization);
            }
            Ok(proto::TokenKind::SystemRoot) => kinds.insert(Kind::SystemRoot),
            Ok(proto::TokenKind::Unspecified) | Err(_) => {
                fields.wrong(format!("kinds[{at}]"), "is not a kind of token");
            }
        }
    }
    kinds
}

fn consistency(fields: &mut Fields, asked: Option<&proto::Consistency>) -> Consistency {
    use proto::consistency::Requirement::{FullyConsistent, MinRevision};
    let Some(asked) = asked else { return Consistency::Default };
    let max_stale = asked
        .max_stale
        .and_then(|max_stale| fields.duration("consistency.max_stale", max_stale))
        .unwrap_or_default();
    match &asked.requirement {
        Some(FullyConsistent(true)) if !max_stale.is_zero() => {
            fields.wrong(
                "consistency.max_stale",
                "must not be more than zero where fully_consistent is set",
            );
            Consistency::Default
        }
        Some(MinRevision(text)) => fields
            .parse::<Revision>("consistency.min_revision", text)
            .map_or(Consistency::Default, Consistency::AtLeast),
        // Each answer is read from the store: it can't be newer.
        Some(FullyConsistent(_)) | None => Consistency::Default,
    }
}

fn message(decision: Decision) -> proto::VerifyResponse {
    let revision = decision.revision.map(|revision| revision.to_string()).unwrap_or_default();
    match decision.answer {
        Answer::NotFound => refused(proto::Reason::NotFound, None, revision),
        Answer::Refused(reason, found) => {
            let (reason, missing_scopes) = match reason {
                Reason::NotFound => return refused(proto::Reason::NotFound, None, revision),
                Reason::Expired => (proto::Reason::Expired, Vec::new()),
                Reason::Revoked => (proto::Reason::Revoked, Vec::new()),
                Reason::OwnerInactive => (proto::Reason::OwnerInactive, Vec::new()),
                Reason::WorkspaceInactive => (proto::Reason::WorkspaceInactive, Vec::new()),
                Reason::WrongWorkspace => (proto::Reason::WrongWorkspace, Vec::new()),
                Reason::IpNotAllowed => (proto::Reason::IpNotAllowed, Vec::new()),
                Reason::InsufficientScope(missing) => (proto::Reason::InsufficientScope, missing),
            };
            let refusal = proto::Refusal {
                kind: kind_message(found.credential.kind()).into(),
                expires_at: found.expires_at().map(to_timestamp),
                revoked_at: found.credential.revoked_at.map(to_timestamp),
                token_id: found.credential.id.0,
                user_id: found.owner.id.to_string(),
                missing_scopes,
            };
            refused(reason, Some(refusal), revision)
        }
        Answer::Active(found) => active(*found, revision),
    }
}

fn refused(
    reason: proto::Reason,
    refusal: Option<proto::Refusal>,
    revision: String,
) -> proto::VerifyResponse {
    proto::VerifyResponse { reason: reason.into(), refusal, revision, ..Default::default() }
}

fn active(found: Found, revision: String) -> proto::VerifyResponse {
    let expires_at = found.expires_at().map(to_timestamp);
    let (workspace, organization) = found
        .workspace
        .map(|workspace| {
            let organization = workspace.organization;
            ((workspace.id, workspace.external_id), (organization.id, organization.external_id))
        })
        .unzip();
    let (workspace_id, workspace_external_id) = workspace.unzip();
    let (organization_id, organization_external_id) = organization.unzip();
    proto::VerifyResponse {
        active: true,
        reason: proto::Reason::Unspecified.into(),
        kind: kind_message(found.credential.kind()).into(),
        token_id: found.credential.id.0,
        user_id: found.owner.id.to_string(),
        user_external_id: found.owner.external_id.map(|id| id.to_string()),
        organization_id,
        organization_external_id: organization_external_id.flatten().map(|id| id.to_string()),
        workspace_id,
        workspace_external_id: workspace_external_id.flatten().map(|id| id.to_string()),
        scopes: found.credential.scopes,
        expires_at,
        refusal: None,
        revision,
        max_age: None,
        stale: false,
    }
}

fn kind_message(kind: Kind) -> proto::TokenKind {
    match kind {
        Kind::PersonalAccessToken => proto::TokenKind::PersonalAccessToken,
        Kind::ApiClientAuthorization => proto::TokenKind::ApiClientAuthorization,
        Kind::SystemRoot => proto::TokenKind::SystemRoot,
    }
}
