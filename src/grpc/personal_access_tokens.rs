use std::sync::Arc;

use prost::Message;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status};

use super::{
    caller,
    parse::{Fields, list_of, page},
    to_timestamp,
};
use crate::{
    authority::{Authority, Expiry, Issued, NewToken},
    caller::Caller,
    domain::{self, Detail},
    proto::v1::{self as proto, create_personal_access_token_request as create_request},
    rights::{self, Right},
    store::{CredentialChanges, Cursor, Kept, Repeat},
};

pub(super) struct Service(pub(super) Arc<Authority>);

#[tonic::async_trait]
impl proto::personal_access_tokens_server::PersonalAccessTokens for Service {
    async fn create_personal_access_token(
        &self,
        request: Request<proto::CreatePersonalAccessTokenRequest>,
    ) -> Result<Response<proto::CreatePersonalAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let new = new_token(request.into_inner())?;
        let Issued { token, kept, revision } = self.0.create(&caller, new).await?;
        Ok(Response::new(proto::CreatePersonalAccessTokenResponse {
            already_used: token.is_none(),
            token: token.map(|token| token.expose().to_owned()).unwrap_or_default(),
            personal_access_token: Some(self.message(kept)),
            revision: revision.to_string(),
        }))
    }

    async fn list_available_pat_scopes(
        &self,
        request: Request<proto::ListAvailablePatScopesRequest>,
    ) -> Result<Response<proto::ListAvailablePatScopesResponse>, Status> {
        let available = self.0.available_scopes(&caller(&request)?);
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
        let list = list_of(
            &rights::LIST_PATS,
            &proto::ListPersonalAccessTokensRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let mut fields = Fields::default();
        let size = fields.page_size(request.page_size);
        let after = fields.cursor(&request.page_token, list);
        let user = fields.parse_if_set("user_id", request.user_id.as_deref());
        fields.check()?;

        let rows = self
            .0
            .list(&caller, user.as_ref(), request.show_revoked, after.as_ref(), size + 1)
            .await?;
        let cursor = |kept: &Kept| Cursor {
            created_at: kept.credential.created_at,
            id: kept.credential.id.0.clone(),
        };
        let (personal_access_tokens, next_page_token) =
            page(rows, size, list, cursor, |kept| self.message(kept));
        Ok(Response::new(proto::ListPersonalAccessTokensResponse {
            personal_access_tokens,
            available_scopes: available_scopes(&self.0, &caller),
            next_page_token,
        }))
    }

    async fn get_personal_access_token(
        &self,
        request: Request<proto::GetPersonalAccessTokenRequest>,
    ) -> Result<Response<proto::GetPersonalAccessTokenResponse>, Status> {
        let caller = caller(&request)?;
        let id = not_empty("id", request.into_inner().id)?;
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
        let mask = fields.mask(request.update_mask, &["name", "description"]);
        let name = mask.pick_filled(&mut fields, "name", request.name.as_deref());
        let description = mask.pick("description", request.description.as_deref(), || Some(""));
        let changes = CredentialChanges {
            name: fields.parse_if_set("name", name),
            description: fields.parse_if_set("description", description),
        };
        if request.id.is_empty() {
            fields.wrong("id", "must not be empty");
        }
        fields.check()?;

        let (kept, revision) = self.0.update(&caller, &request.id, &changes).await?;
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
        let id = not_empty("id", request.id)?;
        let (kept, revision) = self.0.revoke(&caller, &id, request.include_descendants).await?;
        Ok(Response::new(proto::RevokePersonalAccessTokenResponse {
            personal_access_token: Some(self.message(kept)),
            revision: revision.to_string(),
        }))
    }
}

impl Service {
    fn message(&self, kept: Kept) -> proto::PersonalAccessToken {
        let state = match kept.credential.status(self.0.now()) {
            domain::Status::Active => proto::TokenState::Active,
            domain::Status::Expired => proto::TokenState::Expired,
            domain::Status::Revoked => proto::TokenState::Revoked,
        };
        let Kept { credential, secret, last_used_at, last_used_ip } = kept;
        let (name, description) = match credential.detail {
            Detail::PersonalAccessToken { name, description } => {
                (name.to_string(), description.to_string())
            }
            Detail::ApiClientAuthorization { .. } => Default::default(),
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
                .filter(|id| !id.is_system())
                .map(|id| id.to_string()),
            created_by_token_id: credential.created_by_token_id.map(|id| id.0),
            current_secret_created_at: Some(to_timestamp(secret.created_at)),
            previous_secret_expires_at: None,
        }
    }
}

fn new_token(request: proto::CreatePersonalAccessTokenRequest) -> Result<NewToken, Status> {
    let mut fields = Fields::default();
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
    let request_id = fields.parse_if_set("request_id", request.request_id.as_deref());
    let user = fields.parse_if_set("user_id", request.user_id.as_deref());
    let workspace_id = match &request.workspace_id {
        Some(id) if id.is_empty() || id.len() > 64 || id.contains('\0') => {
            fields.wrong("workspace_id", "must be the id of a workspace");
            None
        }
        id => id.clone(),
    };
    let name = fields.require("name", name)?;
    let description = fields.require("description", description)?;
    let repeat = request_id.map(|request_id| Repeat {
        request_id,
        body_hash: body_hash(
            &rights::CREATE_PAT,
            &proto::CreatePersonalAccessTokenRequest { request_id: None, ..request },
        ),
    });
    Ok(NewToken { name, description, scopes, workspace_id, expiry, allowed_ips, user, repeat })
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

fn available_scopes(authority: &Authority, caller: &Caller) -> Vec<String> {
    authority.available_scopes(caller).into_iter().map(|(scope, _)| scope.to_string()).collect()
}

fn not_empty(field: &str, text: String) -> Result<String, Status> {
    let mut fields = Fields::default();
    if text.is_empty() {
        fields.wrong(field, "must not be empty");
    }
    fields.check().map(|()| text)
}
