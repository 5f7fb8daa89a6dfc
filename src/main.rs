//! The program: reads the settings, and serves.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use token_authority::{
    clock::SystemClock,
    config::{self, Cli, Command, ConfigError, LogFormat, NewToken, PepperCommand, Settings},
    domain::{Pepper, Token},
    operator, random,
    server::Server,
    start::{self, StartError},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

fn main() -> ExitCode {
    let cli = match config::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(ConfigError::Clap(error)) if !error.use_stderr() => {
            // Help and version.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(ConfigError::Clap(error)) => {
            let text = error.to_string();
            return fail(text.lines().next().unwrap_or_default().trim_start_matches("error: "));
        }
        Err(ConfigError::Start(error)) => return fail(&error.to_string()),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(sentence: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "token-authority: {sentence}");
    ExitCode::FAILURE
}

fn run(cli: Cli) -> io::Result<()> {
    match cli.command {
        Command::Pepper { command } => pepper(command),
        Command::AdminToken(settings) => {
            let token = runtime()?
                .block_on(operator::admin_token(&settings, &SystemClock::new()))
                .map_err(io::Error::other)?;
            writeln!(io::stdout(), "{}", token.expose())
        }
        Command::Token { command: NewToken::New { pat_prefix } } => {
            let prefix =
                pat_prefix.first().ok_or_else(|| io::Error::other("pat-prefix: must name one"))?;
            let token = Token::from_random(prefix, &random::bytes());
            writeln!(io::stdout(), "{}", token.expose())
        }
        Command::Migrate(settings) => runtime()?.block_on(async {
            let store = start::open_store(&settings).await.map_err(io::Error::other)?;
            store.close().await;
            Ok(())
        }),
        Command::Serve(settings) => {
            log(&settings).map_err(io::Error::other)?;
            let runtime = runtime()?;
            let served = runtime.block_on(serve(*settings));
            // Connections that outlived the deadline are not waited for.
            runtime.shutdown_background();
            served
        }
    }
}

fn pepper(command: PepperCommand) -> io::Result<()> {
    let mut stdout = io::stdout();
    match command {
        PepperCommand::New => stdout.write_all(Pepper::to_file(&random::bytes()).as_bytes()),
        PepperCommand::List(settings) => {
            let peppers =
                runtime()?.block_on(operator::list_peppers(&settings)).map_err(io::Error::other)?;
            for pepper in peppers {
                let state = if pepper.is_current { "current" } else { "other" };
                writeln!(stdout, "{} {state} {}", pepper.id.as_str(), pepper.secrets)?;
            }
            Ok(())
        }
        PepperCommand::Promote(settings) => {
            let (id, others) = runtime()?
                .block_on(operator::promote_pepper(&settings, &SystemClock::new()))
                .map_err(io::Error::other)?;
            writeln!(stdout, "{} is current; secrets under others: {others}", id.as_str())
        }
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn serve(settings: Settings) -> io::Result<()> {
    let server =
        Server::bind(settings, Arc::new(SystemClock::new())).await.map_err(io::Error::other)?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let files = server.files();
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            files.reload().await;
        }
    });
    tracing::info!(
        address = %server.address(),
        http = server.http_address().map(tracing::field::display),
        tls = server.files().has_tls(),
        "serving"
    );
    server
        .serve(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}

fn log(settings: &Settings) -> Result<(), StartError> {
    let filter = filter(&settings.log)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let holds_no_header = filter_fn(holds_no_header);
    match settings.log_format {
        LogFormat::Text => subscriber.finish().with(holds_no_header).init(),
        LogFormat::Json => subscriber.json().finish().with(holds_no_header).init(),
    }
    Ok(())
}

/// Below INFO the transport tells the headers that it can't read, in which a
/// caller may have put its token: that is not for the log, whatever `--log` says.
fn holds_no_header(event: &Metadata<'_>) -> bool {
    let source = event.target().split("::").next().unwrap_or_default();
    *event.level() <= Level::INFO
        || !["h2", "hyper", "hyper_util", "tonic", "tower", "axum"].contains(&source)
}

fn filter(text: &str) -> Result<EnvFilter, StartError> {
    // A mistyped level would be taken for the name of a target, and nothing logged.
    let is_level = |part: &str| part.trim().parse::<LevelFilter>().is_ok();
    if let Some(wrong) = text.split(',').find(|part| !part.contains('=') && !is_level(part)) {
        return Err(StartError::new("log", format!("{wrong} is no level, nor TARGET=LEVEL")));
    }
    text.parse().map_err(|error| StartError::new("log", error))
}
