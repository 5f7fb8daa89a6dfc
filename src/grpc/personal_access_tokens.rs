use std::sync::Arc;

use prost::Message;
use prost_types::FieldMask;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::{caller, parse::Fields, to_timestamp};
use crate::{
    authority::{Authority, Bound, Expiry, Issued, NewToken},
    caller::Caller,
    domain::{self, ContainerName, Detail, Token},
    proto::v1::{self as proto, create_personal_access_token_request as create_request},
    rights::{self, Right},
    store::{CredentialChanges, Cursor, Kept, Repeat},
};

#[derive(Clone)]
pub(crate) struct Service(pub(super) Arc<Authority>);

#[tonic::async_trait]
impl proto::personal_access_tokens_server::PersonalAccessTokens for Service {
    async fn create_personal_access_token(
        &self,
        request: Request<proto::CreatePersonalAccessTokenRequest>,
    ) -> Result<Response<proto::CreatePersonalAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let hash = body_hash(
            &rights::CREATE_PAT,
            &proto::CreatePersonalAccessTokenRequest { request_id: None, ..request.clone() },
        );
        let new = new_token(Fields::default(), request, None, hash)?;
        let Issued { token, kept, revision } = self.0.create(&caller, new).await?;
        Ok(Response::new(proto::CreatePersonalAccessTokenResponse {
            already_used: token.is_none(),
            token: exposed(token),
            personal_access_token: Some(self.message(kept)),
            revision: revision.to_string(),
        }))
    }

    async fn list_available_pat_scopes(
        &self,
        request: Request<proto::ListAvailablePatScopesRequest>,
    ) -> Result<Response<proto::ListAvailablePatScopesResponse>, Status> {
        let available = self.0.available_scopes(&caller(&request)?, None).await?;
        let description = |(scope, description): (domain::Scope, String)| proto::ScopeDescription {
            scope: scope.to_string(),
            description,
        };
        Ok(Response::new(proto::ListAvailablePatScopesResponse {
            scopes: available.iter().map(|(scope, _)| scope.to_string()).collect(),
            descriptions: available.into_iter().map(description).collect(),
        }))
    }

    async fn list_personal_access_tokens(
        &self,
        request: Request<proto::ListPersonalAccessTokensRequest>,
    ) -> Result<Response<proto::ListPersonalAccessTokensResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let page = fields.page(&rights::LIST_PATS, &request);
        let user = fields.parse_if_set("user_id", request.user_id.as_deref());
        fields.check()?;

        let after = page.after.as_ref();
        let rows = self
            .0
            .list(&caller, None, user.as_ref(), request.show_revoked, after, page.limit())
            .await?;
        let (personal_access_tokens, next_page_token) =
            page.of(rows, cursor, |kept| self.message(kept));
        Ok(Response::new(proto::ListPersonalAccessTokensResponse {
            personal_access_tokens,
            available_scopes: self.available_scopes(&caller, None).await?,
            next_page_token,
        }))
    }

    async fn get_personal_access_token(
        &self,
        request: Request<proto::GetPersonalAccessTokenRequest>,
    ) -> Result<Response<proto::GetPersonalAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let id = fields.not_empty("id", request.into_inner().id);
        fields.check()?;
        let kept = self.0.get(&caller, &id).await?;
        Ok(Response::new(proto::GetPersonalAccessTokenResponse {
            personal_access_token: Some(self.message(kept)),
        }))
    }

    async fn update_personal_access_token(
        &self,
        request: Request<proto::UpdatePersonalAccessTokenRequest>,
    ) -> Result<Response<proto::UpdatePersonalAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.not_empty("id", request.id);
        let (name, description) = (request.name.as_deref(), request.description.as_deref());
        let changes = changes(&mut fields, request.update_mask, name, description);
        fields.check()?;

        let (kept, revision) = self.0.update(&caller, None, &id, &changes).await?;
        Ok(Response::new(proto::UpdatePersonalAccessTokenResponse {
            personal_access_token: Some(self.message(kept)),
            revision: revision.to_string(),
        }))
    }

    async fn revoke_personal_access_token(
        &self,
        request: Request<proto::RevokePersonalAccessTokenRequest>,
    ) -> Result<Response<proto::RevokePersonalAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.not_empty("id", request.id);
        fields.check()?;
        let (revoked, revision) =
            self.0.revoke(&caller, None, &id, request.include_descendants).await?;
        Ok(Response::new(proto::RevokePersonalAccessTokenResponse {
            personal_access_token: Some(self.message(revoked.kept)),
            revision: revision.to_string(),
        }))
    }

    async fn rotate_personal_access_token(
        &self,
        request: Request<proto::RotatePersonalAccessTokenRequest>,
    ) -> Result<Response<proto::RotatePersonalAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let hash = body_hash(
            &rights::ROTATE_PAT,
            &proto::RotatePersonalAccessTokenRequest { request_id: None, ..request.clone() },
        );
        let mut fields = Fields::default();
        let id = fields.not_empty("id", request.id);
        let overlap = request.overlap.and_then(|overlap| fields.duration("overlap", overlap));
        let repeat = repeat(&mut fields, request.request_id.as_deref(), hash);
        fields.check()?;

        let Issued { token, kept, revision } =
            self.0.rotate(&caller, &id, overlap, repeat.as_ref()).await?;
        Ok(Response::new(proto::RotatePersonalAccessTokenResponse {
            already_used: token.is_none(),
            token: exposed(token),
            personal_access_token: Some(self.message(kept)),
            revision: revision.to_string(),
        }))
    }

    async fn workspace_create_pat(
        &self,
        request: Request<proto::WorkspaceCreatePatRequest>,
    ) -> Result<Response<proto::WorkspaceCreatePatResponse>, Status> {
        use proto::{
            create_personal_access_token_request::Expiry, workspace_create_pat_request as workspace,
        };
        let caller = caller(&request)?;
        let request = request.into_inner();
        let hash = body_hash(
            &rights::WORKSPACE_CREATE_PAT,
            &proto::WorkspaceCreatePatRequest { request_id: None, ..request.clone() },
        );
        let mut fields = Fields::default();
        let name = workspace_name(&mut fields, &request.org, &request.workspace)?;
        let same = proto::CreatePersonalAccessTokenRequest {
            name: request.name,
            description: request.description,
            scopes: request.scopes,
            workspace_id: None,
            expiry: request.expiry.map(|expiry| match expiry {
                workspace::Expiry::ExpiresAt(at) => Expiry::ExpiresAt(at),
                workspace::Expiry::Ttl(ttl) => Expiry::Ttl(ttl),
            }),
            allowed_ips: request.allowed_ips,
            request_id: request.request_id,
            user_id: request.user_id,
        };
        let new = new_token(fields, same, Some(name), hash)?;
        let Issued { token, kept, revision } = self.0.create(&caller, new).await?;
        Ok(Response::new(proto::WorkspaceCreatePatResponse {
            already_used: token.is_none(),
            token: exposed(token),
            personal_access_token: Some(self.message(kept)),
            revision: revision.to_string(),
        }))
    }

    async fn workspace_list_pats(
        &self,
        request: Request<proto::WorkspaceListPatsRequest>,
    ) -> Result<Response<proto::WorkspaceListPatsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let page = fields.page(&rights::WORKSPACE_LIST_PATS, &request);
        let user = fields.parse_if_set("user_id", request.user_id.as_deref());
        let name = Some(workspace_name(&mut fields, &request.org, &request.workspace)?);

        let (name, after) = (name.as_ref(), page.after.as_ref());
        let rows = self
            .0
            .list(&caller, name, user.as_ref(), request.show_revoked, after, page.limit())
            .await?;
        let (personal_access_tokens, next_page_token) =
            page.of(rows, cursor, |kept| self.message(kept));
        Ok(Response::new(proto::WorkspaceListPatsResponse {
            personal_access_tokens,
            available_scopes: self.available_scopes(&caller, name).await?,
            next_page_token,
        }))
    }

    async fn workspace_update_pat(
        &self,
        request: Request<proto::WorkspaceUpdatePatRequest>,
    ) -> Result<Response<proto::WorkspaceUpdatePatResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.not_empty("id", request.id);
        let (name, description) = (request.name.as_deref(), request.description.as_deref());
        let changes = changes(&mut fields, request.update_mask, name, description);
        let workspace = workspace_name(&mut fields, &request.org, &request.workspace)?;

        let (kept, revision) = self.0.update(&caller, Some(&workspace), &id, &changes).await?;
        Ok(Response::new(proto::WorkspaceUpdatePatResponse {
            personal_access_token: Some(self.message(kept)),
            revision: revision.to_string(),
        }))
    }

    async fn workspace_revoke_pat(
        &self,
        request: Request<proto::WorkspaceRevokePatRequest>,
    ) -> Result<Response<proto::WorkspaceRevokePatResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let id = fields.not_empty("id", request.id);
        let workspace = workspace_name(&mut fields, &request.org, &request.workspace)?;

        let (revoked, revision) =
            self.0.revoke(&caller, Some(&workspace), &id, request.include_descendants).await?;
        Ok(Response::new(proto::WorkspaceRevokePatResponse {
            personal_access_token: Some(self.message(revoked.kept)),
            revision: revision.to_string(),
        }))
    }
}

impl Service {
    /// What decides.
    pub(crate) fn authority(&self) -> &Authority {
        &self.0
    }

    async fn available_scopes(
        &self,
        caller: &Caller,
        workspace: Option<&ContainerName>,
    ) -> Result<Vec<String>, Status> {
        let available = self.0.available_scopes(caller, workspace).await?;
        Ok(available.into_iter().map(|(scope, _)| scope.to_string()).collect())
    }

    fn message(&self, kept: Kept) -> proto::PersonalAccessToken {
        let now = self.0.now();
        let state = match kept.credential.status(now) {
            domain::Status::Active => proto::TokenState::Active,
            domain::Status::Expired => proto::TokenState::Expired,
            domain::Status::Revoked => proto::TokenState::Revoked,
        };
        let Kept {
            credential,
            secret,
            previous_secret_expires_at,
            last_used_at,
            last_used_ip,
            user_number: _,
            sealed: _,
        } = kept;
        let (name, description) = match credential.detail {
            Detail::PersonalAccessToken { name, description } => {
                (name.to_string(), description.to_string())
            }
            Detail::ApiClientAuthorization { .. } | Detail::SystemRoot => Default::default(),
        };
        let (workspace_id, organization_id) = credential
            .workspace
            .map(|binding| (binding.workspace_id, binding.organization_id))
            .unzip();
        proto::PersonalAccessToken {
            id: credential.id.0,
            name,
            description,
            scopes: credential.scopes,
            user_id: credential.user_id.to_string(),
            organization_id,
            workspace_id,
            created_at: Some(to_timestamp(credential.created_at)),
            updated_at: Some(to_timestamp(credential.updated_at)),
            last_used_at: last_used_at.map(to_timestamp),
            last_used_ip,
            expires_at: credential.expires_at.map(to_timestamp),
            token_prefix: secret.shown,
            allowed_ips: credential.allowed_ips.to_texts(),
            state: state.into(),
            revoked_at: credential.revoked_at.map(to_timestamp),
            created_by_user_id: Some(credential.created_by_user_id)
                .filter(|id| !id.is_system() || credential.created_by_token_id.is_some())
                .map(|id| id.to_string()),
            created_by_token_id: credential.created_by_token_id.map(|id| id.0),
            current_secret_created_at: Some(to_timestamp(secret.created_at)),
            previous_secret_expires_at: previous_secret_expires_at
                .filter(|end| *end > now)
                .map(to_timestamp),
        }
    }
}

/// A request for a new token, bound to the workspace that the call is about or to
/// the one in the request.
fn new_token(
    mut fields: Fields,
    request: proto::CreatePersonalAccessTokenRequest,
    about: Option<ContainerName>,
    hash: [u8; 32],
) -> Result<NewToken, Status> {
    let name = fields.parse("name", &request.name);
    let description =
        fields.parse("description", request.description.as_deref().unwrap_or_default());
    let scopes = fields.scopes("scopes", &request.scopes);
    let allowed_ips = fields.networks("allowed_ips", &request.allowed_ips);
    let expiry = match request.expiry {
        None => None,
        Some(create_request::Expiry::ExpiresAt(at)) => {
            fields.instant("expires_at", at).map(Expiry::At)
        }
        Some(create_request::Expiry::Ttl(ttl)) => fields.duration("ttl", ttl).map(Expiry::After),
    };
    let repeat = repeat(&mut fields, request.request_id.as_deref(), hash);
    let user = fields.parse_if_set("user_id", request.user_id.as_deref());
    let workspace = match (about, request.workspace_id) {
        (Some(name), _) => Bound::In(name),
        (None, None) => Bound::AsCaller,
        (None, Some(id)) => {
            if id.is_empty() || id.len() > 64 || id.contains('\0') {
                fields.wrong("workspace_id", "must be the id of a workspace");
            }
            Bound::To(id)
        }
    };
    let name = fields.require("name", name)?;
    let description = fields.require("description", description)?;
    Ok(NewToken { name, description, scopes, workspace, expiry, allowed_ips, user, repeat })
}

fn changes(
    fields: &mut Fields,
    mask: Option<FieldMask>,
    name: Option<&str>,
    description: Option<&str>,
) -> CredentialChanges {
    let mask = fields.mask(mask, &["name", "description"]);
    let name = mask.pick_filled(fields, "name", name);
    let description = mask.pick("description", description, || Some(""));
    CredentialChanges {
        name: fields.parse_if_set("name", name),
        description: fields.parse_if_set("description", description),
    }
}

/// The workspace that a call is about; an error says all that is wrong so far.
fn workspace_name(
    fields: &mut Fields,
    organization: &str,
    workspace: &str,
) -> Result<ContainerName, Status> {
    let organization = fields.parse("org", organization);
    let workspace = fields.parse("workspace", workspace);
    let organization = Some(fields.require("org", organization)?);
    Ok(ContainerName::Workspace {
        workspace: fields.require("workspace", workspace)?,
        organization,
    })
}

fn repeat(fields: &mut Fields, request_id: Option<&str>, body_hash: [u8; 32]) -> Option<Repeat> {
    let request_id = fields.parse_if_set("request_id", request_id)?;
    Some(Repeat { request_id, body_hash })
}

/// What tells one request from another under the same id.
fn body_hash(right: &Right, request: &impl Message) -> [u8; 32] {
    Sha256::new()
        .chain_update(right.path)
        .chain_update([0])
        .chain_update(request.encode_to_vec())
        .finalize()
        .into()
}

fn cursor(kept: &Kept) -> Cursor {
    Cursor { created_at: kept.credential.created_at, id: kept.credential.id.0.clone() }
}

/// The secret text, in the one answer that has it; empty for a repeat that has none.
fn exposed(token: Option<Token>) -> String {
    token.map(|token| token.expose().to_owned()).unwrap_or_default()
}
