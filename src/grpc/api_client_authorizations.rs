use std::sync::Arc;

use prost::Message as _;
use prost_types::value::Kind as ValueKind;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{
    caller,
    gate::Presented,
    parse::{Fields, MAX_PAGE_BYTES},
    status, to_timestamp,
};
use crate::{
    authority::{
        Authority, Authorization, AuthorizationChanges, AuthorizationList, AuthorizationPage,
        NewAuthorization,
    },
    domain::{Attribute, ClusterId, Comparand, Detail, Filter, Names, RouteScopes, parse_order},
    proto::v1 as proto,
    verifier::Verifier,
};

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1_000;
const MAX_OFFSET: i64 = 1_000_000;

/// How many conditions, or attributes to sort by or to select, one request may have.
const MAX_PARTS: usize = 100;

#[derive(Clone)]
pub(crate) struct Service {
    pub(super) authority: Arc<Authority>,
    pub(super) verifier: Arc<Verifier>,
}

#[tonic::async_trait]
impl proto::api_client_authorizations_server::ApiClientAuthorizations for Service {
    async fn create_api_client_authorization(
        &self,
        request: Request<proto::CreateApiClientAuthorizationRequest>,
    ) -> Result<Response<proto::CreateApiClientAuthorizationResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let select = select(&mut fields, &request.select);
        let new = NewAuthorization {
            uuid: request.uuid,
            owner: fields.parse_if_set("owner_uuid", request.owner_uuid.as_deref()),
            user_number: request.user_id,
            api_client_id: request.api_client_id,
            scopes: request.scopes.and_then(|scopes| self::scopes(&mut fields, scopes)),
            expires_at: request.expires_at.and_then(|at| fields.instant("expires_at", at)),
        };
        fields.check()?;

        let (made, revision) = self.authority.create_authorization(&caller, new).await?;
        Ok(Response::new(proto::CreateApiClientAuthorizationResponse {
            api_client_authorization: Some(message(made, &select)),
            revision: revision.to_string(),
        }))
    }

    async fn create_system_auth(
        &self,
        request: Request<proto::CreateSystemAuthRequest>,
    ) -> Result<Response<proto::CreateSystemAuthResponse>, Status> {
        let caller = caller(&request)?;
        let proto::CreateSystemAuthRequest { api_client_id, scopes } = request.into_inner();
        let mut fields = Fields::default();
        let scopes = scopes.and_then(|scopes| self::scopes(&mut fields, scopes));
        fields.check()?;

        let (made, revision) =
            self.authority.create_system_authorization(&caller, api_client_id, scopes).await?;
        Ok(Response::new(proto::CreateSystemAuthResponse {
            api_client_authorization: Some(message(made, &[])),
            revision: revision.to_string(),
        }))
    }

    async fn delete_api_client_authorization(
        &self,
        request: Request<proto::DeleteApiClientAuthorizationRequest>,
    ) -> Result<Response<proto::DeleteApiClientAuthorizationResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let uuid = fields.not_empty("uuid", request.into_inner().uuid);
        fields.check()?;

        let (deleted, revision) = self.authority.delete_authorization(&caller, &uuid).await?;
        Ok(Response::new(proto::DeleteApiClientAuthorizationResponse {
            api_client_authorization: Some(message(deleted, &[])),
            revision: revision.to_string(),
        }))
    }

    async fn get_api_client_authorization(
        &self,
        request: Request<proto::GetApiClientAuthorizationRequest>,
    ) -> Result<Response<proto::GetApiClientAuthorizationResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let select = select(&mut fields, &request.select);
        let uuid = fields.not_empty("uuid", request.uuid);
        fields.check()?;

        let found = self.authority.authorization(&caller, &uuid).await?;
        Ok(Response::new(proto::GetApiClientAuthorizationResponse {
            api_client_authorization: Some(message(found, &select)),
        }))
    }

    async fn get_current_api_client_authorization(
        &self,
        request: Request<proto::GetCurrentApiClientAuthorizationRequest>,
    ) -> Result<Response<proto::GetCurrentApiClientAuthorizationResponse>, Status> {
        let presented = request.extensions().get::<Presented>().cloned();
        let presented = presented.ok_or_else(status::caller_missing)?;
        let mut fields = Fields::default();
        let remote: Option<ClusterId> =
            fields.parse_if_set("remote", request.get_ref().remote.as_deref());
        let caller = match (presented.salted(), &remote) {
            (None, _) => caller(&request)?,
            (Some(salted), Some(remote)) => self
                .verifier
                .authenticate_salted(&salted, remote, presented.ip, &presented.request_id)
                .await?
                .ok_or_else(status::caller_refused)?,
            (Some(_), None) => return Err(status::caller_refused()),
        };
        fields.check()?;

        let kept = self.authority.current_authorization(&caller).await?;
        let mut current = message(Authorization { kept, api_token: None }, &[]);
        // Another cluster is not to act as the user anywhere else.
        current.api_token = remote.is_none().then(|| presented.secret());
        Ok(Response::new(proto::GetCurrentApiClientAuthorizationResponse {
            api_client_authorization: Some(current),
        }))
    }

    async fn list_api_client_authorizations(
        &self,
        request: Request<proto::ListApiClientAuthorizationsRequest>,
    ) -> Result<Response<proto::ListApiClientAuthorizationsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let offset = request.offset;
        let (list, select) = list(request)?;
        let limit = list.limit;

        let AuthorizationPage { items: found, available } =
            self.authority.list_authorizations(&caller, list).await?;
        let (mut items, mut bytes, mut is_cut) = (Vec::new(), 0, false);
        for item in found {
            let item = message(item, &select);
            bytes += item.encoded_len();
            is_cut = bytes > MAX_PAGE_BYTES && !items.is_empty();
            if is_cut {
                break;
            }
            items.push(item);
        }
        let limit = if is_cut { i64::try_from(items.len()).unwrap_or(limit) } else { limit };
        Ok(Response::new(proto::ListApiClientAuthorizationsResponse {
            items,
            items_available: available,
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            offset,
        }))
    }

    async fn update_api_client_authorization(
        &self,
        request: Request<proto::UpdateApiClientAuthorizationRequest>,
    ) -> Result<Response<proto::UpdateApiClientAuthorizationResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let select = select(&mut fields, &request.select);
        let uuid = fields.not_empty("uuid", request.uuid);
        let known = ["scopes", "expires_at", "api_client_id", "user_id"];
        let mask = fields.mask(request.update_mask, &known);
        let scopes = mask.pick_filled(&mut fields, "scopes", request.scopes);
        let expires_at = request.expires_at.map(|at| fields.instant("expires_at", at));
        let changes = AuthorizationChanges {
            scopes: scopes.and_then(|scopes| self::scopes(&mut fields, scopes)),
            expires_at: mask.pick("expires_at", expires_at, || Some(None)),
            api_client_id: mask
                .pick("api_client_id", request.api_client_id.map(Some), || Some(None)),
            user_number: mask.pick_filled(&mut fields, "user_id", request.user_id),
        };
        fields.check()?;

        let (updated, revision) =
            self.authority.update_authorization(&caller, &uuid, changes).await?;
        Ok(Response::new(proto::UpdateApiClientAuthorizationResponse {
            api_client_authorization: Some(message(updated, &select)),
            revision: revision.to_string(),
        }))
    }
}

/// What a request lists, and the attributes that it asks for.
fn list(
    request: proto::ListApiClientAuthorizationsRequest,
) -> Result<(AuthorizationList, Vec<Attribute>), Status> {
    let mut fields = Fields::default();
    let select = select(&mut fields, &request.select);
    let wheres = request.r#where.map(|it| it.fields).unwrap_or_default();
    let parts = [
        ("filters", request.filters.len()),
        ("where", wheres.len()),
        ("order", request.order.len()),
    ];
    for (field, length) in parts {
        if length > MAX_PARTS {
            fields.wrong(field, format!("must have at most {MAX_PARTS} elements"));
        }
    }
    let named = request.filters.iter().map(|filter| filter.attributes.len().max(1));
    if request.filters.len() <= MAX_PARTS && named.sum::<usize>() > MAX_PARTS {
        fields.wrong("filters", format!("must have at most {MAX_PARTS} attributes in all"));
    }

    let mut order = Vec::new();
    for (at, text) in request.order.iter().enumerate() {
        match parse_order(text) {
            Ok(by) => order.push(by),
            Err(error) => fields.wrong(format!("order[{at}]"), error),
        }
    }
    let mut filters = Vec::new();
    for (at, given) in request.filters.into_iter().enumerate() {
        match filter(given) {
            Ok(filter) => filters.push(filter),
            Err((part, reason)) => fields.wrong(format!("filters[{at}].{part}"), reason),
        }
    }
    let mut equal = Vec::new();
    for (attribute, value) in wheres {
        match json(value.kind) {
            Some(value) => equal.push(Filter {
                names: Names::One(attribute),
                operator: "=".to_owned(),
                comparand: Comparand::Value(value),
            }),
            None => fields.wrong("where", "must hold values"),
        }
    }
    let limit = match request.limit.map_or(DEFAULT_LIMIT, i64::from) {
        limit if limit < 0 => {
            fields.wrong("limit", "must not be negative");
            0
        }
        limit => limit.min(MAX_LIMIT),
    };
    if !(0..=MAX_OFFSET).contains(&request.offset) {
        fields.wrong("offset", format!("must be 0 to {MAX_OFFSET}"));
    }
    let counts = match proto::CountMode::try_from(request.count) {
        Ok(proto::CountMode::Unspecified | proto::CountMode::Exact) => true,
        Ok(proto::CountMode::None) => false,
        Err(_) => {
            fields.wrong("count", "is not a way to count");
            false
        }
    };
    fields.check()?;
    let list = AuthorizationList {
        filters,
        wheres: equal,
        order,
        select: select.clone(),
        distinct: request.distinct,
        limit,
        offset: request.offset,
        counts,
    };
    Ok((list, select))
}

/// A filter, or which field of it must not be as it is, and why.
fn filter(filter: proto::Filter) -> Result<Filter, (&'static str, &'static str)> {
    let proto::Filter { attribute, operator, operand, attributes, operand_attribute } = filter;
    let names = match (attribute.is_empty(), attributes.is_empty()) {
        (_, true) => Names::One(attribute),
        (true, false) => Names::OneOf(attributes),
        (false, false) => return Err(("attributes", "must be empty beside attribute")),
    };
    let comparand = match (operand, operand_attribute) {
        (None, Some(name)) => Comparand::Attribute(name),
        (Some(_), Some(_)) => return Err(("operand_attribute", "must be unset beside operand")),
        (operand, None) => {
            let value = operand.and_then(|operand| json(operand.kind));
            Comparand::Value(value.ok_or(("operand", "must be set to a value"))?)
        }
    };
    Ok(Filter { names, operator, comparand })
}

/// The attributes that are asked for; none: all.
fn select(fields: &mut Fields, names: &[String]) -> Vec<Attribute> {
    if names.len() > MAX_PARTS {
        fields.wrong("select", format!("must have at most {MAX_PARTS} elements"));
        return Vec::new();
    }
    let mut attributes = Vec::new();
    for (at, name) in names.iter().enumerate() {
        attributes.extend(fields.parse::<Attribute>(&format!("select[{at}]"), name));
    }
    attributes
}

fn scopes(fields: &mut Fields, scopes: proto::ScopeList) -> Option<RouteScopes> {
    RouteScopes::new(scopes.values)
        .map_err(|(at, error)| fields.wrong(format!("scopes.values[{at}]"), error))
        .ok()
}

/// The JSON of a protocol's value; `None` if it is none, such as a number that is not
/// finite.
fn json(kind: Option<ValueKind>) -> Option<Value> {
    Some(match kind? {
        ValueKind::NullValue(_) => Value::Null,
        ValueKind::BoolValue(truth) => truth.into(),
        ValueKind::StringValue(text) => text.into(),
        ValueKind::NumberValue(number) => serde_json::Number::from_f64(number)?.into(),
        ValueKind::ListValue(list) => {
            let values = list.values.into_iter();
            Value::Array(values.map(|value| json(value.kind)).collect::<Option<_>>()?)
        }
        ValueKind::StructValue(object) => {
            let fields = object.fields.into_iter();
            let values = fields.map(|(name, value)| Some((name, json(value.kind)?)));
            Value::Object(values.collect::<Option<_>>()?)
        }
    })
}

/// What is asked for of an API client authorization.
fn message(authorization: Authorization, select: &[Attribute]) -> proto::ApiClientAuthorization {
    let Authorization { kept, api_token } = authorization;
    let etag = kept.credential.etag();
    let credential = kept.credential;
    let is_root = credential.detail == Detail::SystemRoot;
    let (api_client_id, created_by_ip) = match credential.detail {
        Detail::ApiClientAuthorization { api_client_id, created_by_ip } => {
            (api_client_id, created_by_ip)
        }
        Detail::PersonalAccessToken { .. } | Detail::SystemRoot => (None, None),
    };
    let mut message = proto::ApiClientAuthorization {
        uuid: Some(credential.id.0),
        api_token: api_token.map(|token| token.expose().to_owned()),
        api_client_id,
        user_id: Some(kept.user_number),
        created_by_ip_address: created_by_ip,
        last_used_by_ip_address: kept.last_used_ip,
        last_used_at: kept.last_used_at.map(to_timestamp),
        expires_at: credential.expires_at.map(to_timestamp),
        owner_uuid: Some(credential.user_id.to_string()),
        scopes: Some(proto::ScopeList { values: credential.scopes }),
        created_at: (!is_root).then(|| to_timestamp(credential.created_at)),
        etag: Some(etag),
    };
    let left_out = |attribute| !select.is_empty() && !select.contains(&attribute);
    for attribute in Attribute::ALL.into_iter().filter(|attribute| left_out(*attribute)) {
        clear(&mut message, attribute);
    }
    message
}

fn clear(message: &mut proto::ApiClientAuthorization, attribute: Attribute) {
    match attribute {
        Attribute::Uuid => message.uuid = None,
        Attribute::ApiToken => message.api_token = None,
        Attribute::ApiClientId => message.api_client_id = None,
        Attribute::UserId => message.user_id = None,
        Attribute::CreatedByIpAddress => message.created_by_ip_address = None,
        Attribute::LastUsedByIpAddress => message.last_used_by_ip_address = None,
        Attribute::LastUsedAt => message.last_used_at = None,
        Attribute::ExpiresAt => message.expires_at = None,
        Attribute::OwnerUuid => message.owner_uuid = None,
        Attribute::Scopes => message.scopes = None,
        Attribute::CreatedAt => message.created_at = None,
        Attribute::Etag => message.etag = None,
    }
}
