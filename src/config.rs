//! The settings: each is a flag, an environment variable and a TOML key of one
//! name. A flag wins over the environment, that over the file.

mod read;

use std::{fs, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use http::Uri;
use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::{
    domain::{CatalogueEntry, ClusterId, Invalid, PatPrefix, UserRef},
    start::StartError,
    store::{Migrate, is_postgres_url},
    upkeep::OnReuse,
};
pub use read::{ConfigError, read};

/// Issues tokens, and says on every request whether one is good, whose it is and for what.
///
/// Each setting --some-name is also the environment variable TOKEN_AUTHORITY_SOME_NAME and the key
/// some-name of the TOML file that --config names. A flag wins over the environment, that over the
/// file.
#[derive(Debug, Parser)]
#[command(name = "token-authority", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve over gRPC and HTTP; with nothing set, on the loopback address with an embedded store
    Serve(Box<Settings>),
    /// Bring the store's schema up to date and stop
    Migrate(StoreSettings),
    /// Make, list and replace peppers, the keys of the digests that tokens are stored as
    Pepper {
        /// What to do.
        #[command(subcommand)]
        command: PepperCommand,
    },
    /// Make tokens for --bootstrap-token-file
    Token {
        /// What to do.
        #[command(subcommand)]
        command: NewToken,
    },
    /// Make a token for an administrator who has none any more, straight in the store, and print
    /// it. It does everything for 24 hours
    AdminToken(Box<AdminTokenSettings>),
}

/// What to do with peppers.
#[derive(Debug, Subcommand)]
pub enum PepperCommand {
    /// Print a new one
    New,
    /// Print those that were ever loaded: which is current, and how many secrets are under each
    List(StoreSettings),
    /// Make one that is loaded everywhere the current one
    Promote(PromoteSettings),
}

/// Settings of `pepper promote`.
#[derive(Debug, Clone, Args)]
pub struct PromoteSettings {
    /// File with the pepper
    #[arg(long, env = "TOKEN_AUTHORITY_PEPPER_FILE", value_delimiter = ',')]
    pub pepper_file: Vec<PathBuf>,

    /// Where the tokens are.
    #[command(flatten)]
    pub store: StoreSettings,
}

/// Settings of `admin-token`.
#[derive(Debug, Clone, Args)]
pub struct AdminTokenSettings {
    /// The administrator: an id, handle:NAME or external:NAME; unset: the oldest active one
    #[arg(long)]
    pub user: Option<UserRef>,

    /// How the token is made.
    #[command(flatten)]
    pub issuer: IssuerSettings,

    /// Where the tokens are.
    #[command(flatten)]
    pub store: StoreSettings,
}

/// What to make.
#[derive(Debug, Subcommand)]
pub enum NewToken {
    /// Print a new one
    New {
        /// What it begins with: the first, as for `serve`
        #[arg(
            long,
            env = "TOKEN_AUTHORITY_PAT_PREFIX",
            value_delimiter = ',',
            default_value = "pat_"
        )]
        pat_prefix: Vec<PatPrefix>,
    },
}

/// Settings of `serve`.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Address and port of the gRPC listener
    #[arg(long, env = "TOKEN_AUTHORITY_GRPC_LISTEN", default_value = "127.0.0.1:50051")]
    pub grpc_listen: SocketAddr,

    /// Address and port of the HTTP listener; empty: there is none
    #[arg(long, env = "TOKEN_AUTHORITY_HTTP_LISTEN", default_value = "127.0.0.1:8080")]
    pub http_listen: Listen,

    /// Network whose proxies are believed when they say by X-Forwarded-For from where a call over
    /// HTTP comes; repeatable
    #[arg(long, env = "TOKEN_AUTHORITY_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpNet>,

    /// Let anybody who has a token ask /oauth2/introspect whether it is good, and for what, but not
    /// whose it is; without it callers show a token of their own
    #[arg(long, env = "TOKEN_AUTHORITY_OPEN_INTROSPECTION", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub open_introspection: bool,

    /// Take a token also from the query of a call to Arvados' API, as `?api_token=`, for clients that
    /// can send no header: whoever sees or keeps the URL has it
    #[arg(long, env = "TOKEN_AUTHORITY_TOKEN_IN_QUERY", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub token_in_query: bool,

    /// URL where clients reach the HTTP listener, such as `https://tokens.example.org/`, which the
    /// discovery document tells Arvados' clients to call; unset: the address that they used for it
    #[arg(long, env = "TOKEN_AUTHORITY_HTTP_ROOT_URL")]
    pub http_root_url: Option<RootUrl>,

    /// Address and port of the listener for /healthz and /readyz, without TLS; empty: there is none
    #[arg(long, env = "TOKEN_AUTHORITY_ADMIN_LISTEN", default_value = "127.0.0.1:9090")]
    pub admin_listen: Listen,

    /// Where things are kept.
    #[command(flatten)]
    pub store: StoreSettings,

    /// How tokens are made.
    #[command(flatten)]
    pub issuer: IssuerSettings,

    /// Start without the store's current pepper, which is lost for good: the first of --pepper-file
    /// takes its place, and tokens are recovered, slowly, as they are used. To be taken back once
    /// `pepper list` counts none under the lost one
    #[arg(long, env = "TOKEN_AUTHORITY_ACCEPT_PEPPER_LOSS", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub accept_pepper_loss: bool,

    /// File with the personal access token that the administrator gets at the first start; without
    /// it one is made and written to admin.token in the data directory
    #[arg(long, env = "TOKEN_AUTHORITY_BOOTSTRAP_TOKEN_FILE")]
    pub bootstrap_token_file: Option<PathBuf>,

    /// Five of 0-9 and a-z that begin every id; fixed at the first start
    #[arg(long, env = "TOKEN_AUTHORITY_CLUSTER_ID", default_value = "zzzzz")]
    pub cluster_id: ClusterId,

    /// Certificate chain in PEM, which turns TLS on; read again when it changes and on SIGHUP
    #[arg(long, env = "TOKEN_AUTHORITY_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert in PEM
    #[arg(long, env = "TOKEN_AUTHORITY_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Authorities in PEM, one of which must have signed each client's certificate
    #[arg(long, env = "TOKEN_AUTHORITY_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,

    /// Listen without TLS on other addresses than loopback
    #[arg(long, env = "TOKEN_AUTHORITY_ALLOW_PLAINTEXT", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub allow_plaintext: bool,

    /// Serve gRPC reflection, which tells anybody the API
    #[arg(long, env = "TOKEN_AUTHORITY_REFLECTION", default_value = "true",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub reflection: bool,

    /// Scope that personal access tokens may carry, SCOPE=DESCRIPTION; repeatable. It admits every
    /// scope that it covers
    #[arg(long, env = "TOKEN_AUTHORITY_SCOPE", value_delimiter = ',',
        default_values = ["read:*=Read everything", "write:*=Change everything"])]
    pub scope: Vec<CatalogueEntry>,

    /// Lifetime of a personal access token whose request does not say, such as 90d; unset: for ever
    #[arg(long, env = "TOKEN_AUTHORITY_PAT_DEFAULT_LIFETIME")]
    pub pat_default_lifetime: Option<Span>,

    /// Greatest lifetime of a personal access token, such as 365d; unset: for ever
    #[arg(long, env = "TOKEN_AUTHORITY_PAT_MAX_LIFETIME")]
    pub pat_max_lifetime: Option<Span>,

    /// Personal access tokens, neither revoked nor expired, that one user may have bound to no
    /// workspace, and bound to each
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_PATS_PER_USER", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_pats_per_user: u32,

    /// Lifetime of an API client authorization whose request does not say, such as 90d; unset: for
    /// ever
    #[arg(long, env = "TOKEN_AUTHORITY_AUTHORIZATION_DEFAULT_LIFETIME")]
    pub authorization_default_lifetime: Option<Span>,

    /// Greatest lifetime of an API client authorization, such as 365d, to which none and a later end
    /// are cut; administrators keep a later end; unset: for ever
    #[arg(long, env = "TOKEN_AUTHORITY_AUTHORIZATION_MAX_LIFETIME")]
    pub authorization_max_lifetime: Option<Span>,

    /// API client authorizations, neither deleted nor expired, that one user may have
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_AUTHORIZATIONS_PER_USER", default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub max_authorizations_per_user: u32,

    /// Let tokens be used to make, see, change and delete API client authorizations; without it,
    /// each may only see itself, and the system root token make and list them
    #[arg(long, env = "TOKEN_AUTHORITY_ISSUE_TRUSTED_TOKENS", default_value = "true",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub issue_trusted_tokens: bool,

    /// Keep the secrets of API client authorizations recoverable from now on, sealed with the
    /// pepper, and show them to their owners; without it those that are kept so are forgotten
    #[arg(long, env = "TOKEN_AUTHORITY_RECOVERABLE_API_TOKENS", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub recoverable_api_tokens: bool,

    /// Token of at least 32 printable characters, no blanks or commas, that acts as the system user
    /// and may do everything; with those of --system-root-token-file at most two, so that one can
    /// be replaced. Not on the command line
    #[arg(
        long,
        env = "TOKEN_AUTHORITY_SYSTEM_ROOT_TOKEN",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub system_root_token: Vec<Hidden>,

    /// File with such a token; read again when it changes and on SIGHUP. A token that its file no
    /// longer holds is refused from then on, also if it holds no other: replace the file by renaming
    #[arg(long, env = "TOKEN_AUTHORITY_SYSTEM_ROOT_TOKEN_FILE", value_delimiter = ',')]
    pub system_root_token_file: Vec<PathBuf>,

    /// Answer Verify for system root tokens too
    #[arg(long, env = "TOKEN_AUTHORITY_VERIFY_SYSTEM_ROOT_TOKEN", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub verify_system_root_token: bool,

    /// How long a secret stays good beside its successor, until that is first used, if a rotation
    /// does not say; at most 90d
    #[arg(long, env = "TOKEN_AUTHORITY_ROTATION_OVERLAP", default_value = "24h")]
    pub rotation_overlap: Span,

    /// Make a user who is named as external:NAME and not known, along with the first token that an
    /// administrator makes for it
    #[arg(long, env = "TOKEN_AUTHORITY_JIT_USERS", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub jit_users: bool,

    /// What becomes of a token whose secret is shown after a rotation has replaced it
    #[arg(long, env = "TOKEN_AUTHORITY_ON_SECRET_REUSE", default_value = "report")]
    pub on_secret_reuse: OnReuse,

    /// How old the newest change may be that an answer of Verify does not know of: calls that begin
    /// later than this after a change was acknowledged see it, in every process
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_STALENESS", default_value = "2s")]
    pub max_staleness: Span,

    /// How old an answer of Verify may be while the store is away, if the call does not say; such
    /// answers are marked stale. Unset: none is given, the calls fail
    #[arg(long, env = "TOKEN_AUTHORITY_STALE_IF_ERROR")]
    pub stale_if_error: Option<Span>,

    /// How long callers of Verify may reuse an answer that a token is good, which adds to
    /// --max-staleness; never past the token's end. Unset: not at all
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_AGE")]
    pub max_age: Option<Span>,

    /// Memory for what is kept of verifications, in MiB: a token takes about 400 bytes
    #[arg(long, env = "TOKEN_AUTHORITY_CACHE_MIB", default_value = "256",
        value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub cache_mib: u32,

    /// Keep when and from where tokens were last used
    #[arg(long, env = "TOKEN_AUTHORITY_LAST_USE", default_value = "true",
        default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub last_use: bool,

    /// Calls under way at once at each listener; more are refused with RESOURCE_EXHAUSTED, over HTTP
    /// with 503
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_CALLS", default_value = "1024",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_calls: u32,

    /// Connections at once at each listener; more wait to be accepted
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_CONNECTIONS", default_value = "4096",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Calls at once on one connection
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_STREAMS", default_value = "256",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_streams: u32,

    /// Streams of StreamVerify and Watch that are open at once, of which no token gets more than
    /// three quarters; more are refused with RESOURCE_EXHAUSTED
    #[arg(long, env = "TOKEN_AUTHORITY_MAX_OPEN_STREAMS", default_value = "1024",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_open_streams: u32,

    /// Longest time that one call may take
    #[arg(long, env = "TOKEN_AUTHORITY_CALL_DEADLINE", default_value = "10s")]
    pub call_deadline: Span,

    /// Longest time that calls under way are given to finish at SIGTERM
    #[arg(long, env = "TOKEN_AUTHORITY_SHUTDOWN_DEADLINE", default_value = "10s")]
    pub shutdown_deadline: Span,

    /// What to log: a level, or TARGET=LEVEL,...
    #[arg(long, env = "TOKEN_AUTHORITY_LOG", default_value = "info")]
    pub log: String,

    /// How to log
    #[arg(long, env = "TOKEN_AUTHORITY_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// How long expired and revoked tokens are kept before they are forgotten, at least 24h
    #[arg(long, env = "TOKEN_AUTHORITY_KEEP_DEAD", default_value = "90d")]
    pub keep_dead: Span,

    /// How long changes are kept for who follows them, at least 1m; who is further behind
    /// starts over
    #[arg(long, env = "TOKEN_AUTHORITY_KEEP_CHANGES", default_value = "24h")]
    pub keep_changes: Span,

    /// How long the audit is kept, at least 1d [default: for good]
    #[arg(long, env = "TOKEN_AUTHORITY_KEEP_AUDIT")]
    pub keep_audit: Option<Span>,
}

/// Settings of how tokens are made.
#[derive(Debug, Clone, Args)]
pub struct IssuerSettings {
    /// File with a pepper, the key of the digests that tokens are stored as: hex or base64 of at
    /// least 32 bytes; up to four. The embedded store makes its own in the data directory
    #[arg(long, env = "TOKEN_AUTHORITY_PEPPER_FILE", value_delimiter = ',')]
    pub pepper_file: Vec<PathBuf>,

    /// What personal access tokens begin with; repeatable: the first for new ones, all are accepted
    #[arg(long, env = "TOKEN_AUTHORITY_PAT_PREFIX", value_delimiter = ',', default_value = "pat_")]
    pub pat_prefix: Vec<PatPrefix>,

    /// Memory of the Argon2id record of a new token, in KiB
    #[arg(long, env = "TOKEN_AUTHORITY_ARGON2_MEMORY_KIB", default_value = "1024",
        value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub argon2_memory_kib: u32,

    /// Passes over that memory
    #[arg(long, env = "TOKEN_AUTHORITY_ARGON2_PASSES", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub argon2_passes: u32,
}

/// Settings of the store.
#[derive(Debug, Clone, Args)]
pub struct StoreSettings {
    /// Directory of the embedded store, its pepper and the first token
    #[arg(long, env = "TOKEN_AUTHORITY_DATA_DIR", default_value = "token-authority-data")]
    pub data_dir: PathBuf,

    /// URL of the PostgreSQL database, postgres://USER@HOST/NAME; unset: the embedded store. With a
    /// password in it, not on the command line. On another machine its certificate is verified
    /// unless the URL names another sslmode
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Hidden>,

    /// File with that URL
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_URL_FILE")]
    pub database_url_file: Option<PathBuf>,

    /// The same of the same database without a pooler that passes no notifications on; unset:
    /// there is none between
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_LISTEN_URL", hide_env_values = true)]
    pub database_listen_url: Option<Hidden>,

    /// File with that URL
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_LISTEN_URL_FILE")]
    pub database_listen_url_file: Option<PathBuf>,

    /// The same of a streaming replica, where tokens that are not cached are looked up first;
    /// unset: there is none
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_REPLICA_URL", hide_env_values = true)]
    pub database_replica_url: Option<Hidden>,

    /// File with that URL
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_REPLICA_URL_FILE")]
    pub database_replica_url_file: Option<PathBuf>,

    /// Connections to PostgreSQL that answer calls; to a replica at most as many
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_CONNECTIONS", default_value = "16",
        value_parser = clap::value_parser!(u32).range(3..=1_000))]
    pub database_connections: u32,

    /// Longest time that a call waits for one of them
    #[arg(long, env = "TOKEN_AUTHORITY_DATABASE_WAIT", default_value = "2s")]
    pub database_wait: Span,

    /// What to do with a schema that is older than the program
    #[arg(long, env = "TOKEN_AUTHORITY_MIGRATE", default_value = "auto")]
    pub migrate: Migrate,

    /// TOML file with settings
    #[arg(long, env = "TOKEN_AUTHORITY_CONFIG")]
    pub config: Option<PathBuf>,
}

impl StoreSettings {
    /// The URL of the PostgreSQL database; `None`: the embedded store.
    ///
    /// # Errors
    ///
    /// The file that should hold it can't be read.
    pub fn database_url(&self) -> Result<Option<Zeroizing<String>>, StartError> {
        let names = ["database-url", "database-url-file"];
        url(names, self.database_url.as_ref(), self.database_url_file.as_ref())
    }

    /// Its URL without what may stand between, if that is another.
    ///
    /// # Errors
    ///
    /// The file that should hold it can't be read, or it is the URL of no PostgreSQL
    /// database.
    pub fn database_listen_url(&self) -> Result<Option<Zeroizing<String>>, StartError> {
        let names = ["database-listen-url", "database-listen-url-file"];
        let given =
            url(names, self.database_listen_url.as_ref(), self.database_listen_url_file.as_ref())?;
        self.beside_database(names, given)
    }

    /// The URL of its replica, if there is one.
    ///
    /// # Errors
    ///
    /// The file that should hold it can't be read, or it is the URL of no PostgreSQL
    /// database.
    pub fn database_replica_url(&self) -> Result<Option<Zeroizing<String>>, StartError> {
        let names = ["database-replica-url", "database-replica-url-file"];
        let given = url(
            names,
            self.database_replica_url.as_ref(),
            self.database_replica_url_file.as_ref(),
        )?;
        self.beside_database(names, given)
    }

    fn beside_database(
        &self,
        [setting, _]: [&'static str; 2],
        given: Option<Zeroizing<String>>,
    ) -> Result<Option<Zeroizing<String>>, StartError> {
        let Some(given) = given else { return Ok(None) };
        if self.database_url()?.is_none() {
            return Err(StartError::new(setting, "needs database-url"));
        }
        if !is_postgres_url(&given) {
            return Err(StartError::new(setting, "is not the URL of a PostgreSQL database"));
        }
        Ok(Some(given))
    }
}

/// The URL in a setting, or in the file that another one names.
fn url(
    [setting, file_setting]: [&'static str; 2],
    given: Option<&Hidden>,
    file: Option<&PathBuf>,
) -> Result<Option<Zeroizing<String>>, StartError> {
    match (given, file) {
        (Some(_), Some(_)) => {
            let reason = format!("must not be given where {setting} is");
            Err(StartError::new(file_setting, reason))
        }
        (Some(Hidden(url)), None) => Ok(Some(Zeroizing::new(url.clone()))),
        (None, None) => Ok(None),
        (None, Some(path)) => match fs::read_to_string(path) {
            Ok(text) => Ok(Some(Zeroizing::new(text.trim().to_owned()))),
            Err(error) => {
                let reason = format!("{}: {error}", path.display());
                Err(StartError::new(file_setting, reason))
            }
        },
    }
}

/// A setting that may hold a secret: its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Hidden(pub String);

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(…)")
    }
}

/// Where to listen, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|it| Self(Some(it))) }
    }
}

/// Where clients reach the HTTP listener: a URL that ends with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootUrl(pub String);

impl FromStr for RootUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parsed: Option<Uri> = text.parse().ok();
        let is_root = parsed.is_some_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.query().is_none()
                && url.host().is_some_and(|host| !host.is_empty())
                && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
        if !is_root || text.contains('#') {
            return Err(Invalid("must be a URL such as https://tokens.example.org/".to_owned()));
        }
        Ok(Self(format!("{}/", text.trim_end_matches('/'))))
    }
}

/// A span of time: a number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(Duration);

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Span {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "ms" => Some(Duration::from_millis(1)),
            "s" => Some(Duration::from_secs(1)),
            "m" => Some(Duration::from_mins(1)),
            "h" => Some(Duration::from_hours(1)),
            "d" => Some(Duration::from_hours(24)),
            _ => None,
        };
        unit.zip(number.parse::<u32>().ok())
            .and_then(|(unit, number)| unit.checked_mul(number))
            .filter(|span| !span.is_zero())
            .map(Self)
            .ok_or_else(|| Invalid("must be a number above 0 and ms, s, m, h or d".to_owned()))
    }
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}
