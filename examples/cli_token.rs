//! Prints one token and exits: `cargo run --example cli_token -- --demo`
//!
//! The provider is any of those that this crate has, and there is no code for any of them here. The environment says
//! which: `EVERTOKEN_PROVIDER=wecom`, `EVERTOKEN_CORP_ID`, `EVERTOKEN_SECRET` or `EVERTOKEN_SECRET_FILE`, as
//! [`from_env`](evertoken::provider::from_env) reads them; or a file does that is named by `--config`, a
//! [`ProviderConfig`](evertoken::provider::ProviderConfig) in JSON. A credential never stands on the command line, where other
//! users of the machine see it.
//!
//! The token is kept in a file of the user's cache directory, so the next start prints it without a fetch, and of several
//! that start at once one fetches. `--store DIR` keeps it in another directory, and `--no-store` not at all. `--forget`
//! fetches another one, for a credential whose rights have changed. `--status` says on the error output how things stand:
//! what is held, where it came from and where it is kept.
//!
//! With `--demo` a stand-in on a loopback port grants the token. Start it twice: the second start has the token of the first.
//! The stand-in has another port each time, and the address is a part of what tells credentials apart, so the demo names the
//! key of its token itself. It keeps it in a directory of its own, below the system's one for temporary files.
//!
//! `refresh-token` works from start to start, because the latest refresh token is kept beside the token. What is in a cache
//! may be cleared away, and then the person has to sign in again: name a directory with `--store`.
//!
//! The exit code tells a script what to do: 0 here it is, 2 mend a setting, 3 mend the credential or its
//! rights, 4 try again later, 1 anything else.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use evertoken::provider::ProviderConfig;
use evertoken::testing::FakeVendor;
use evertoken::{
    Error, ErrorKind, EventKind, FileStore, HttpConfig, Status, TokenManager, TokenManagerBuilder, TokenOrigin, WeCom,
    provider,
};
use pico_args::Arguments;

fn main() -> ExitCode {
    // Everything that must be tidied up is dropped in `run`, so leaving `main` is a clean end.
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cli_token: {error}");
            if let Some(advice) = advice(&error) {
                eprintln!("           {advice}");
            }
            exit_code(&error)
        }
    }
}

fn run() -> Result<(), Error> {
    let options = Options::read(Arguments::from_env())?;
    let store = options.store()?;
    // Called for the provider's parents too, if it has any: they are kept in the same place.
    let set_up = |builder: TokenManagerBuilder| match &store {
        Some(store) => in_a_hurry(builder).store(store.clone()),
        None => in_a_hurry(builder),
    };
    let demo = options.demo.then(stand_in);
    let tokens = match (&demo, &options.config) {
        (Some(host), _) => {
            let provider = WeCom::new("corp", "secret").base_url(host.url());
            set_up(TokenManager::builder(provider)).key("cli_token:demo").build()?
        }
        (None, Some(path)) => TokenManager::from_config(&read_config(path)?, set_up)?,
        (None, None) => TokenManager::from_config(&provider::from_env()?, set_up)?,
    };
    let events = tokens.events();
    if options.forget {
        tokens.invalidate()?;
    }
    let token = tokens.token();
    // The token comes all the same, but the next start will fetch again, and nobody would know why.
    for event in events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. })) {
        eprintln!("cli_token: {event}");
    }
    if options.status {
        let status = tokens.status();
        eprintln!("{status}\n  kept        {}", kept(store.as_ref(), &status));
    }
    let token = token?;
    // This is what the program is for. Nothing else in it shows the token.
    println!("{}", token.expose());
    eprintln!("cli_token: lives {} s", token.remaining().as_secs());
    // Here the last handle goes, and with it the background work. That takes no time: it signals and joins nothing.
    // `shutdown` is for programs that go on and want to know that nothing is in the air any more.
    drop(tokens);
    Ok(())
}

/// Somebody sits in front of it, so it gives up sooner than a service would: after another process and this one have both
/// had the time for a fetch.
fn in_a_hurry(builder: TokenManagerBuilder) -> TokenManagerBuilder {
    builder.http(HttpConfig::default().timeout(Duration::from_secs(3))).max_wait(Duration::from_secs(9))
}

/// A vendor that grants each start another token, so that it shows where a token came from.
fn stand_in() -> FakeVendor {
    FakeVendor::wecom().granting(format!("demo-token-{}", std::process::id()), 7200)
}

fn kept(store: Option<&FileStore>, status: &Status) -> String {
    let Some(store) = store else { return "in memory only; it goes with this process".into() };
    let directory = store.directory().display();
    match status.origin {
        _ if status.store_down_for.is_some() => format!("in memory only; {directory} cannot be used"),
        Some(TokenOrigin::Store) => format!("in {directory}; it was there already, and nothing was fetched"),
        Some(_) => format!("in {directory}; it was fetched, and the next start finds it there"),
        None => format!("in {directory}, once there is one"),
    }
}

fn read_config(path: &PathBuf) -> Result<ProviderConfig, Error> {
    let unreadable = |cause: &dyn std::fmt::Display| Error::new(ErrorKind::Config, format!("--config: {cause}"));
    let text = fs::read_to_string(path).map_err(|cause| unreadable(&cause))?;
    serde_json::from_str(&text).map_err(|cause| unreadable(&cause))
}

struct Options {
    demo: bool,
    status: bool,
    forget: bool,
    no_store: bool,
    directory: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: Arguments) -> Result<Options, Error> {
        let usage =
            "there is --demo, --config FILE, --store DIR, --no-store, --forget and --status, and no other argument";
        let wrong = || Error::new(ErrorKind::Config, usage);
        let path = |text: &OsStr| Ok::<_, Infallible>(PathBuf::from(text));
        let options = Options {
            demo: arguments.contains("--demo"),
            status: arguments.contains("--status"),
            forget: arguments.contains("--forget"),
            no_store: arguments.contains("--no-store"),
            directory: arguments.opt_value_from_os_str("--store", path).map_err(|_| wrong())?,
            config: arguments.opt_value_from_os_str("--config", path).map_err(|_| wrong())?,
        };
        if arguments.finish().is_empty() { Ok(options) } else { Err(wrong()) }
    }

    /// Where the token is kept. `None`: nowhere.
    fn store(&self) -> Result<Option<FileStore>, Error> {
        Ok(match &self.directory {
            _ if self.no_store => None,
            Some(directory) => Some(FileStore::at(directory)),
            // Beside the real one.
            None if self.demo => Some(FileStore::at(FileStore::new()?.directory().with_file_name("evertoken-demo"))),
            None => Some(FileStore::new()?),
        })
    }
}

fn advice(error: &Error) -> Option<String> {
    Some(match error.kind() {
        ErrorKind::InvalidCredentials => "the id or the secret is wrong; trying again cannot help".into(),
        ErrorKind::Forbidden => "the credential is right; ask its owner to allow this machine".into(),
        ErrorKind::TicketRequired => "hand in the next ticket; the configuration names it".into(),
        ErrorKind::InvalidResponse => "is the address right, and is there a proxy in between?".into(),
        ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::TimedOut => {
            let wait = error.retry_after().unwrap_or(Duration::from_secs(1));
            format!("try again in {} s", wait.as_secs().max(1))
        }
        _ => return None,
    })
}

fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(match error.kind() {
        ErrorKind::Config => 2,
        ErrorKind::InvalidCredentials | ErrorKind::Forbidden => 3,
        _ if error.is_retryable() => 4,
        _ => 1,
    })
}
