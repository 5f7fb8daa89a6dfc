//! What whoever runs the service does at the store itself, beside the servers.

use std::{sync::Arc, time::Duration};

use crate::{
    bootstrap,
    clock::Clock,
    config::{AdminTokenSettings, PromoteSettings, StoreSettings},
    domain::{ControlScope, CredentialId, Detail, PepperId, Token, User, UserRef},
    random,
    start::{self, StartError},
    store::{
        Actor, Basis, Cursor, Identity, KeptPepper, Migrate, NewCredential, Promotion, Refusal,
        Store, StoreError, UserFilter,
    },
};

/// How long a token lives that was made at the store itself.
const LIFETIME: Duration = Duration::from_hours(24);

/// The peppers that were ever loaded.
///
/// # Errors
///
/// The store can't be opened or read, or is empty.
pub async fn list_peppers(settings: &StoreSettings) -> Result<Vec<KeptPepper>, StartError> {
    let store = open(settings).await?;
    identity(store.as_ref()).await?;
    let peppers = store.peppers().await?;
    store.close().await;
    Ok(peppers)
}

/// Makes a pepper the current one; its id, and how many secrets are under others.
///
/// # Errors
///
/// No process has loaded it yet, or the store can't be opened or written.
pub async fn promote_pepper(
    settings: &PromoteSettings,
    clock: &dyn Clock,
) -> Result<(PepperId, i64), StartError> {
    let [file] = settings.pepper_file.as_slice() else {
        return Err(StartError::new("pepper-file", "must name the one pepper to be promoted"));
    };
    let id = bootstrap::read_pepper("pepper-file", file)?.id().clone();
    let store = open(&settings.store).await?;
    let identity = identity(store.as_ref()).await?;
    let actor = Actor::service(identity.cluster_id.system_user(), clock.now());
    match store.promote_pepper(&id, Promotion::Rotation, &actor).await {
        Err(StoreError::Refused(Refusal::NoPepper)) => {
            let reason =
                "holds a pepper that no process has loaded: start all of them with it first";
            return Err(StartError::new("pepper-file", format!("{} {reason}", file.display())));
        }
        promoted => promoted?,
    };
    let peppers = store.peppers().await?;
    store.close().await;
    let others = peppers.iter().filter(|pepper| pepper.id != id).map(|pepper| pepper.secrets).sum();
    Ok((id, others))
}

/// Makes a token that does everything for a day, for an active administrator.
///
/// # Errors
///
/// There is no such administrator, the store's current pepper is not given, or the
/// store can't be opened or written.
pub async fn admin_token(
    settings: &AdminTokenSettings,
    clock: &dyn Clock,
) -> Result<Token, StartError> {
    let store = open(&settings.store).await?;
    let identity = identity(store.as_ref()).await?;
    let peppers = start::read_peppers(&settings.issuer.pepper_file, &settings.store, false)?;
    if !peppers.follow(&identity.current_pepper) {
        return Err(start::without_current(&identity));
    }
    let issuer = start::issuer(&settings.issuer, peppers)?;
    let user = administrator(store.as_ref(), settings.user.as_ref()).await?;
    let now = clock.now();
    let (token, secret) =
        issuer.issue(now).await.map_err(|error| StartError::new("admin-token", error))?;
    let credential = NewCredential {
        id: CredentialId(random::id(now)),
        user_id: user.id,
        workspace_id: None,
        detail: Detail::PersonalAccessToken {
            name: "break-glass".parse().expect("a name"),
            description: "Made by token-authority admin-token".parse().expect("a description"),
        },
        scopes: vec![ControlScope::AdminAll.as_str().to_owned()],
        allowed_ips: Vec::new(),
        expires_at: Some(now.saturating_add(LIFETIME)),
        secret,
        quota: i64::MAX,
        spares_administrators: false,
        new_owner: None,
    };
    let system = Actor::service(identity.cluster_id.system_user(), now);
    let actor = Actor { basis: Basis::BreakGlass, ..system };
    store.insert_credential(&credential, None, &actor).await?;
    store.close().await;
    Ok(token)
}

/// The store as it is: to bring its schema up to date is for the servers, or for
/// `token-authority migrate`.
async fn open(settings: &StoreSettings) -> Result<Arc<dyn Store>, StartError> {
    if settings.database_url()?.is_none() && !settings.data_dir.is_dir() {
        let reason = format!("{} is not there", settings.data_dir.display());
        return Err(StartError::new("data-dir", reason));
    }
    let settings = StoreSettings { migrate: Migrate::Check, ..settings.clone() };
    start::open_store(&settings).await
}

async fn identity(store: &dyn Store) -> Result<Identity, StartError> {
    store
        .identity()
        .await?
        .ok_or_else(|| StartError::new("store", "is empty: token-authority serve begins one"))
}

/// The active administrator so named, or else the oldest.
async fn administrator(store: &dyn Store, name: Option<&UserRef>) -> Result<User, StartError> {
    let user = match name {
        Some(name) => store.user(name).await?,
        None => oldest_administrator(store).await?,
    };
    user.filter(|user| user.is_admin && user.is_active && !user.id.is_system())
        .ok_or_else(|| StartError::new("user", "is no active administrator"))
}

async fn oldest_administrator(store: &dyn Store) -> Result<Option<User>, StoreError> {
    let filter =
        UserFilter { is_active: Some(true), is_admin: Some(true), ..UserFilter::default() };
    let mut oldest = None;
    let mut after = None;
    loop {
        // The newest come first.
        let page = store.list_users(&filter, after.as_ref(), 1_000).await?;
        let Some(last) = page.last() else { return Ok(oldest) };
        after = Some(Cursor { created_at: last.created_at, id: last.id.to_string() });
        oldest = page.into_iter().rfind(|user| !user.id.is_system()).or(oldest);
    }
}
