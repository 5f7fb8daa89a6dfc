//! The first start: an empty store gets its identity, an administrator and a
//! token for it.

use std::{
    fmt::Display,
    fs::{self, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    domain::{
        ClusterId, ControlScope, CredentialId, Detail, PatPrefix, Pepper, Timestamp, Token,
        UserKind,
    },
    issuer::Issuer,
    random,
    start::StartError,
    store::{Actor, Bootstrap, Identity, NewCredential, NewUser, Store},
};

/// The file in the data directory that the first token is written to.
pub const TOKEN_FILE: &str = "admin.token";

/// Where the first token comes from.
pub enum FirstToken {
    /// From this file, which the operator wrote.
    Given(PathBuf),
    /// Made here, and written to [`TOKEN_FILE`] in this directory.
    Made(PathBuf),
}

/// Makes what an empty store begins with; leaves any other as it is.
///
/// The token is on the disk before the store knows of it: whoever finds the
/// store made finds the token too. One that is there already, left by a start
/// that broke off, is taken.
///
/// # Errors
///
/// The token can't be read or written, or the store failed.
pub async fn bootstrap(
    store: &dyn Store,
    clock: &dyn Clock,
    issuer: &Issuer,
    cluster_id: &ClusterId,
    first_token: &FirstToken,
    accepted: &[PatPrefix],
) -> Result<(), StartError> {
    let now = clock.now();
    let given = match first_token {
        FirstToken::Given(path) => Some(read_token("bootstrap-token-file", path, accepted)?),
        FirstToken::Made(directory) => {
            let path = directory.join(TOKEN_FILE);
            path.exists().then(|| read_token("data-dir", &path, accepted)).transpose()?
        }
    };
    let is_made = given.is_none();
    let token = given.unwrap_or_else(|| Token::from_random(&issuer.prefix, &random::bytes()));
    let first = first(issuer, cluster_id, &token, now).await?;
    let actor = Actor::service(cluster_id.system_user(), now);
    let write = || match first_token {
        FirstToken::Made(directory) if is_made => write_token(directory, &token),
        FirstToken::Made(_) | FirstToken::Given(_) => Ok(()),
    };
    if !store.bootstrap(&first, &actor, &write).await? {
        return Ok(());
    }
    tracing::info!(
        user.id = first.administrator.id.as_str(),
        "first start: the store has an administrator now"
    );
    if let FirstToken::Made(directory) = first_token {
        let path = directory.join(TOKEN_FILE);
        tracing::info!(path = %path.display(), "the administrator's token is in this file");
        let mut terminal = io::stdout();
        if terminal.is_terminal() {
            // To a person at a terminal, and to nothing that keeps what is printed.
            let _ = writeln!(terminal, "administrator's token: {}", token.expose());
        }
    }
    Ok(())
}

async fn first(
    issuer: &Issuer,
    cluster_id: &ClusterId,
    token: &Token,
    now: Timestamp,
) -> Result<Bootstrap, StartError> {
    let administrator = NewUser {
        id: cluster_id.user_id(u128::from_ne_bytes(random::bytes())),
        handle: "admin".parse().expect("a handle"),
        display_name: None,
        kind: UserKind::Human,
        is_admin: true,
        is_active: true,
        external_id: None,
    };
    let secret =
        issuer.secret(token, now).await.map_err(|error| StartError::new("serve", error))?;
    let credential = NewCredential {
        id: CredentialId(random::id(now)),
        user_id: administrator.id.clone(),
        workspace_id: None,
        detail: Detail::PersonalAccessToken {
            name: "bootstrap".parse().expect("a name"),
            description: "Made at the first start".parse().expect("a description"),
        },
        scopes: vec![ControlScope::AdminAll.as_str().to_owned()],
        allowed_ips: Vec::new(),
        expires_at: None,
        secret,
        quota: 1,
        spares_administrators: false,
        new_owner: None,
    };
    let identity = Identity {
        cluster_id: cluster_id.clone(),
        current_pepper: credential.secret.pepper_id.clone(),
    };
    Ok(Bootstrap { identity, administrator, credential })
}

fn read_token(
    setting: &'static str,
    path: &Path,
    accepted: &[PatPrefix],
) -> Result<Token, StartError> {
    let text = Zeroizing::new(
        fs::read_to_string(path)
            .map_err(|error| StartError::new(setting, format!("{}: {error}", path.display())))?,
    );
    let token: Token = text.trim().parse().map_err(|_| {
        let reason = "holds no personal access token: token-authority token new makes one";
        StartError::new(setting, format!("{} {reason}", path.display()))
    })?;
    if accepted.iter().any(|prefix| Some(prefix.as_str()) == token.pat_prefix()) {
        Ok(token)
    } else {
        let reason = "holds a token whose prefix is none of pat-prefix";
        Err(StartError::new(setting, format!("{} {reason}", path.display())))
    }
}

fn write_token(directory: &Path, token: &Token) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", token.expose()));
    write_secret(&directory.join(TOKEN_FILE), &text)
}

/// The pepper of the embedded store: the one in its directory, made there if it is
/// not there and `may_make`.
///
/// # Errors
///
/// It can't be read or written, or it is gone.
pub fn embedded_pepper(directory: &Path, may_make: bool) -> Result<Pepper, StartError> {
    let path = directory.join("pepper");
    let wrong =
        |reason: &dyn Display| StartError::new("data-dir", format!("{}: {reason}", path.display()));
    match (path.exists(), may_make) {
        (true, _) => {}
        (false, true) => {
            write_secret(&path, &Pepper::to_file(&random::bytes()))
                .map_err(|error| wrong(&error))?;
        }
        (false, false) => return Err(wrong(&"is gone: no token can be verified without it")),
    }
    read_pepper("data-dir", &path)
}

/// The pepper in a file.
///
/// # Errors
///
/// It can't be read or holds none.
pub fn read_pepper(setting: &'static str, path: &Path) -> Result<Pepper, StartError> {
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| StartError::new(setting, format!("{}: {error}", path.display())))?;
    text.parse().map_err(|error| StartError::new(setting, format!("{} {error}", path.display())))
}

/// Writes a file that only its owner may read, whole or not at all, and waits
/// until it is on the disk.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
