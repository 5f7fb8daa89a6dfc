//! Reads the settings from where they are.

use std::{ffi::OsString, fs, path::PathBuf};

use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, parser::ValueSource};

use super::{Cli, Hidden};
use crate::start::StartError;

/// Reads the settings from the arguments, the environment and the file that
/// they name.
///
/// # Errors
///
/// Something is wrong with one of them: clap's error for its own, which also
/// stands for `--help` and `--version`.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ConfigError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut matches = Cli::command().try_get_matches_from(&arguments)?;
    if let Some(path) = config_file(&matches) {
        let command = with_file(Cli::command(), &path)?;
        matches = command.try_get_matches_from(&arguments)?;
    }
    refuse_secrets(&matches)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// What clap says; may be a request for help.
    #[error(transparent)]
    Clap(#[from] clap::Error),
    /// One sentence that names the setting.
    #[error(transparent)]
    Start(#[from] StartError),
}

fn config_file(matches: &ArgMatches) -> Option<PathBuf> {
    innermost(matches).try_get_one::<PathBuf>("config").ok()?.cloned()
}

/// What was said to the subcommand that is to run.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    match matches.subcommand() {
        Some((_, matches)) => innermost(matches),
        None => matches,
    }
}

/// The command with the values in a TOML file as its defaults.
fn with_file(mut command: clap::Command, path: &PathBuf) -> Result<clap::Command, StartError> {
    let wrong = |reason: String| StartError::new("config", format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
    for (key, value) in table {
        let id = key.replace('-', "_");
        let serve = command.find_subcommand("serve").expect("it is defined above");
        let setting = serve.get_arguments().find(|argument| argument.get_long() == Some(&key));
        let Some(setting) = setting.filter(|_| key != "config") else {
            return Err(wrong(format!("{key} is no setting")));
        };
        let texts = match value.as_array() {
            Some(values) if matches!(setting.get_action(), ArgAction::Append) => {
                values.iter().map(to_text).collect()
            }
            Some(_) => return Err(wrong(format!("{key} takes one value and no list"))),
            None => to_text(&value).map(|text| vec![text]),
        };
        let texts: Vec<String> = texts
            .ok_or_else(|| wrong(format!("{key} must be a text, a number or a list of these")))?;
        command = with_default(command, &id, &texts);
    }
    Ok(command)
}

/// The command and its subcommands with a default for one setting: each takes of the
/// file what it knows.
fn with_default(mut command: clap::Command, id: &str, texts: &[String]) -> clap::Command {
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |command| with_default(command, id, texts));
    }
    if command.get_arguments().any(|argument| argument.get_id() == id) {
        command = command.mut_arg(id, |argument| argument.default_values(texts.to_vec()));
    }
    command
}

fn to_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

/// A secret on the command line is there for every user of the machine to see.
fn refuse_secrets(matches: &ArgMatches) -> Result<(), StartError> {
    let matches = innermost(matches);
    let is_known = matches.try_contains_id("system_root_token").is_ok();
    if is_known && matches.value_source("system_root_token") == Some(ValueSource::CommandLine) {
        let reason = "must not be on the command line: use TOKEN_AUTHORITY_SYSTEM_ROOT_TOKEN or --system-root-token-file";
        return Err(StartError::new("system-root-token", reason));
    }
    let urls = [
        ("database-url", "database_url", "TOKEN_AUTHORITY_DATABASE_URL"),
        ("database-listen-url", "database_listen_url", "TOKEN_AUTHORITY_DATABASE_LISTEN_URL"),
        ("database-replica-url", "database_replica_url", "TOKEN_AUTHORITY_DATABASE_REPLICA_URL"),
    ];
    for (setting, id, variable) in urls {
        let Ok(Some(Hidden(url))) = matches.try_get_one::<Hidden>(id) else { continue };
        let typed = matches.value_source(id) == Some(ValueSource::CommandLine);
        if typed && has_password(url) {
            let reason = format!(
                "must not hold a password on the command line: use {variable} or --{setting}-file"
            );
            return Err(StartError::new(setting, reason));
        }
    }
    Ok(())
}

fn has_password(url: &str) -> bool {
    url.split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
        || url.contains("password=")
}
