//! Arvados' `api_client_authorizations` (SEEDS 3).

mod discovery;
mod filters;
mod parameters;
mod record;

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
        AUTHORIZATION,
    },
};
use prost_types::FieldMask;

use super::{
    Answer, Call,
    problem::{Kind as Of, Problem},
    route::not_served,
};
use crate::{
    caller::Caller,
    domain::{Kind, SaltedToken},
    grpc::{called_by, presented_by},
    proto::v1::{self as proto, api_client_authorizations_server::ApiClientAuthorizations as _},
    random,
};
use parameters::{Parameters, Select};

/// The longest name that a caller may give its call, in characters (SEEDS 3.13).
pub(super) const MAX_REQUEST_ID: usize = 1024;

/// What is a caller here.
const KINDS: [Kind; 2] = [Kind::ApiClientAuthorization, Kind::SystemRoot];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether a browser may ask, wherever.
    Preflight,
    /// What can be called, and how.
    Discovery,
    /// Something of the tokens, by this method unless the request names another.
    Tokens(Place, Method),
}

/// A path below that of the tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    All,
    Current,
    SystemAuth,
    One(String),
}

impl Route {
    /// # Errors
    ///
    /// Nothing is served there, or not so.
    pub(super) fn of(method: &Method, parts: &[&str]) -> Result<Self, Problem> {
        if method == Method::OPTIONS {
            return Ok(Self::Preflight);
        }
        let parts = match parts {
            // A slash at the end of the path is no part of it.
            [path @ .., ""] => path,
            path => path,
        };
        let place = match parts {
            ["discovery", "v1", "apis", "arvados", "v1", "rest"] => {
                let is_read = [Method::GET, Method::HEAD].contains(method);
                return is_read.then_some(Self::Discovery).ok_or_else(|| not_served("GET, HEAD"));
            }
            ["arvados", "v1", "api_client_authorizations", rest @ ..] => match rest {
                [] => Place::All,
                ["current"] => Place::Current,
                ["create_system_auth"] => Place::SystemAuth,
                [uuid] if !uuid.is_empty() => Place::One((*uuid).to_owned()),
                _ => return Err(Problem::missing()),
            },
            _ => return Err(Problem::missing()),
        };
        // Whatever is sent by POST may name another method.
        if method != Method::POST {
            place.check(method)?;
        }
        Ok(Self::Tokens(place, method.clone()))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Discovery => "discovery",
            Self::Tokens(..) => "api_client_authorizations",
        }
    }

    pub(super) async fn answer(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        match self {
            Self::Preflight => Ok(preflight()),
            Self::Discovery => discovery::answer(call),
            Self::Tokens(place, method) => answer(call, place, method).await,
        }
    }
}

impl Place {
    fn methods(&self) -> &'static str {
        match self {
            Self::All => "GET, HEAD, POST",
            Self::Current => "GET, HEAD",
            Self::SystemAuth => "POST",
            Self::One(_) => "GET, HEAD, PUT, PATCH, DELETE",
        }
    }

    fn check(&self, method: &Method) -> Result<(), Problem> {
        let is_served = self.methods().split(", ").any(|served| served == method.as_str());
        if is_served { Ok(()) } else { Err(not_served(self.methods())) }
    }

    /// The path that scopes are about.
    fn path(&self) -> String {
        let below = match self {
            Self::All => "",
            Self::Current => "/current",
            Self::SystemAuth => "/create_system_auth",
            Self::One(uuid) => return format!("/arvados/v1/api_client_authorizations/{uuid}"),
        };
        format!("/arvados/v1/api_client_authorizations{below}")
    }
}

/// A name for a call that has none, as Arvados makes them: `req-` and 20 base36 digits.
pub(super) fn new_request_id() -> String {
    let mut rest = u128::from_ne_bytes(random::bytes());
    let mut id = "req-".to_owned();
    for _ in 0..20 {
        let digit = u32::try_from(rest % 36).expect("below 36");
        id.extend(char::from_digit(digit, 36));
        rest /= 36;
    }
    id
}

fn preflight() -> Answer {
    let mut answer = Answer::empty(StatusCode::OK);
    let methods = "GET, HEAD, PUT, POST, DELETE, PATCH, OPTIONS";
    answer.header(ACCESS_CONTROL_ALLOW_METHODS, methods);
    answer.header(ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type");
    answer.header(ACCESS_CONTROL_MAX_AGE, "86400");
    answer
}

/// The token that a call presents: in its query only where that is allowed, and where there
/// is no header (SEEDS 3.3).
fn presented<'a>(call: &'a Call<'_>) -> Result<Cow<'a, str>, Problem> {
    if !call.front.token_in_query || call.headers.contains_key(AUTHORIZATION) {
        return call.presented().map(Cow::Borrowed);
    }
    let parameters = form_urlencoded::parse(call.query.as_bytes());
    let mut presented = parameters.filter(|(name, _)| name == "api_token");
    let (_, token) = presented.next().ok_or_else(Problem::anonymous)?;
    if presented.next().is_some() { Err(Problem::unauthenticated()) } else { Ok(token) }
}

async fn answer(call: &Call<'_>, place: &Place, sent: &Method) -> Result<Answer, Problem> {
    let presented = presented(call)?;
    // Such a token proves somebody only together with `remote`, and is for GET alone.
    let is_salted = *place == Place::Current
        && *sent != Method::POST
        && presented.parse::<SaltedToken>().is_ok();
    let room = is_salted.then(|| call.front.room_for_salted.try_acquire()).transpose();
    let _room = room.map_err(|_| Problem::overloaded())?;
    let (caller, body) = if is_salted {
        (None, Bytes::new())
    } else {
        (Some(call.caller(&presented, &KINDS).await?), call.body().await?)
    };
    let mut parameters = Parameters::of(call, &body)?;
    let method = parameters.method(sent, call.headers)?;
    place.check(&method)?;
    let caller = caller.map(|caller| {
        let route = Some((method.as_str().to_owned(), place.path()));
        Caller { route, ..caller.clone() }
    });
    if let Some(caller) = &caller {
        parameters.check_cluster(caller, &call.front.verifier.roots.cluster_id)?;
    }
    let select = parameters.select();
    let asked = match (place, &caller) {
        (Place::Current, caller) => Asked::Current(caller.as_ref(), &presented),
        (_, None) => return Err(Problem::unauthenticated()),
        (Place::All, Some(caller)) if method == Method::POST => Asked::Create(caller),
        (Place::All, Some(caller)) => Asked::List(caller),
        (Place::SystemAuth, Some(caller)) => Asked::CreateSystem(caller),
        (Place::One(uuid), Some(caller)) => match method {
            Method::DELETE => Asked::Delete(caller, uuid),
            Method::PUT | Method::PATCH => Asked::Update(caller, uuid),
            _ => Asked::Get(caller, uuid),
        },
    };
    let _ = call.name.set(asked.name());
    let mut answer = asked.answer(call, parameters, &select).await?;
    if method == Method::HEAD && *sent == Method::POST {
        answer.body = None;
    }
    Ok(answer)
}

/// What is asked for, by whom, and of which token.
enum Asked<'a> {
    Create(&'a Caller),
    CreateSystem(&'a Caller),
    Current(Option<&'a Caller>, &'a str),
    Delete(&'a Caller, &'a str),
    Get(&'a Caller, &'a str),
    List(&'a Caller),
    Update(&'a Caller, &'a str),
}

impl Asked<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create_api_client_authorization",
            Self::CreateSystem(_) => "create_system_auth",
            Self::Current(..) => "current_api_client_authorization",
            Self::Delete(..) => "delete_api_client_authorization",
            Self::Get(..) => "get_api_client_authorization",
            Self::List(_) => "list_api_client_authorizations",
            Self::Update(..) => "update_api_client_authorization",
        }
    }

    async fn answer(
        self,
        call: &Call<'_>,
        parameters: Parameters,
        select: &Select,
    ) -> Result<Answer, Problem> {
        let service = &call.front.services.authorizations;
        let authorization = match self {
            Self::Create(caller) => {
                let request = called_by(caller, creation(parameters)?);
                let made = service.create_api_client_authorization(request).await?;
                made.into_inner().api_client_authorization
            }
            Self::CreateSystem(caller) => {
                let request = called_by(caller, system_creation(parameters)?);
                let made = service.create_system_auth(request).await?;
                made.into_inner().api_client_authorization
            }
            Self::Current(caller, token) => {
                let message = current(parameters)?;
                let request = presented_by(caller, token, call.ip, &call.request_id, message);
                let current = service.get_current_api_client_authorization(request).await?;
                current.into_inner().api_client_authorization
            }
            Self::Delete(caller, uuid) => {
                parameters.check()?;
                let request = proto::DeleteApiClientAuthorizationRequest { uuid: uuid.to_owned() };
                let request = called_by(caller, request);
                let deleted = service.delete_api_client_authorization(request).await?;
                deleted.into_inner().api_client_authorization
            }
            Self::Get(caller, uuid) => {
                parameters.check()?;
                let uuid = uuid.to_owned();
                let request = proto::GetApiClientAuthorizationRequest { uuid, select: Vec::new() };
                let found = service.get_api_client_authorization(called_by(caller, request));
                found.await?.into_inner().api_client_authorization
            }
            Self::List(caller) => {
                let request = called_by(caller, list(parameters, select)?);
                let listed = service.list_api_client_authorizations(request).await?;
                return Ok(Answer::ok(record::list(listed.into_inner(), select)));
            }
            Self::Update(caller, uuid) => {
                let request = called_by(caller, update(parameters, caller, uuid)?);
                let updated = service.update_api_client_authorization(request).await?;
                updated.into_inner().api_client_authorization
            }
        };
        let authorization = authorization.unwrap_or_default();
        Ok(Answer::ok(record::authorization(authorization, select)))
    }
}

fn creation(
    mut parameters: Parameters,
) -> Result<proto::CreateApiClientAuthorizationRequest, Problem> {
    let mut attributes = parameters.attributes();
    let request = proto::CreateApiClientAuthorizationRequest {
        uuid: attributes.text("uuid"),
        owner_uuid: attributes.text("owner_uuid"),
        user_id: attributes.number("user_id").flatten(),
        api_client_id: attributes.number("api_client_id").flatten(),
        scopes: attributes.scopes(),
        expires_at: attributes.expires_at().flatten(),
        select: Vec::new(),
    };
    attributes.end();
    parameters.check()?;
    Ok(request)
}

fn system_creation(mut parameters: Parameters) -> Result<proto::CreateSystemAuthRequest, Problem> {
    let mut attributes = parameters.attributes();
    let request = proto::CreateSystemAuthRequest {
        api_client_id: attributes.number("api_client_id").flatten(),
        scopes: attributes.scopes(),
    };
    attributes.end();
    parameters.check()?;
    Ok(request)
}

fn current(
    mut parameters: Parameters,
) -> Result<proto::GetCurrentApiClientAuthorizationRequest, Problem> {
    let remote = parameters.text("remote");
    parameters.check()?;
    Ok(proto::GetCurrentApiClientAuthorizationRequest { remote })
}

fn list(
    mut parameters: Parameters,
    select: &Select,
) -> Result<proto::ListApiClientAuthorizationsRequest, Problem> {
    let request = proto::ListApiClientAuthorizationsRequest {
        filters: parameters.filters(),
        r#where: parameters.wheres(),
        order: parameters.order(),
        select: select.of_service(),
        distinct: parameters.truth("distinct"),
        limit: parameters.digits("limit").map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        offset: parameters.digits("offset").unwrap_or_default(),
        count: parameters.count().into(),
    };
    parameters.check()?;
    Ok(request)
}

fn update(
    mut parameters: Parameters,
    caller: &Caller,
    uuid: &str,
) -> Result<proto::UpdateApiClientAuthorizationRequest, Problem> {
    let names = ["scopes", "expires_at", "api_client_id", "user_id"];
    let mut attributes = parameters.attributes();
    let paths = attributes.present(&names);
    let other_uuid = attributes.text("uuid").is_some_and(|given| given != uuid);
    let request = proto::UpdateApiClientAuthorizationRequest {
        uuid: uuid.to_owned(),
        scopes: attributes.scopes(),
        expires_at: attributes.expires_at().flatten(),
        api_client_id: attributes.number("api_client_id").flatten(),
        user_id: attributes.number("user_id").flatten(),
        update_mask: Some(FieldMask { paths }),
        select: Vec::new(),
    };
    attributes.end();
    parameters.check()?;
    match other_uuid {
        // SEEDS 3.7 tells administrators so.
        true if caller.is_administrator() => Err(Problem::new(Of::Denied, "uuid can't be changed")),
        true => Err(Problem::invalid("uuid can't be changed")),
        false => Ok(request),
    }
}
