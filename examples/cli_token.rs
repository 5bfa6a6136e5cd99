//! A command-line tool that prints one token and exits: `cargo run --example cli_token -- --demo`
//!
//! # The provider
//!
//! The tool works with every provider of the crate. Environment variables describe the provider, for example
//! `EVERTOKEN_PROVIDER=wecom`, `EVERTOKEN_CORP_ID` and `EVERTOKEN_SECRET` or `EVERTOKEN_SECRET_FILE`; see
//! [`from_env`](evertoken::provider::from_env). With `--config FILE`, a JSON file describes the provider; see
//! [`ProviderConfig`](evertoken::provider::ProviderConfig). There is no argument for a credential, because other users
//! of the machine can read command lines.
//!
//! # The token
//!
//! The token is kept in a file in the user's cache directory. The next start prints the same token without a fetch, and
//! of several tools that start at once, one fetches.
//!
//! - `--store DIR` keeps the token in another directory, `--no-store` keeps it in memory only.
//! - `--forget` fetches a new token, for a credential whose rights have changed.
//! - `--status` prints the status of the token and where it is kept, on standard error.
//! - `--demo` fetches the token from a fake vendor on a loopback port. Start the demo twice: the second start prints
//!   the token of the first. The fake vendor has a new port at each start, and the URL is part of the derived key, so
//!   the demo sets a key of its own. Its token is kept in a directory beside the usual one.
//!
//! The provider `refresh-token` works from start to start too, because the latest refresh token is kept beside the
//! token. A cache directory may be cleared, and then the person has to sign in again: name another directory with
//! `--store`.
//!
//! # The exit code
//!
//! 0: the token was printed. 2: correct a setting. 3: correct the credential or its rights. 4: try again later. 1:
//! anything else.

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
    // `run` has dropped everything when it returns, so `main` can return an exit code.
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
    // `from_config` calls this once more for the parent of a provider, so both tokens are kept in the same store.
    let set_up = |builder: TokenManagerBuilder| match &store {
        Some(store) => with_short_waits(builder).store(store.clone()),
        None => with_short_waits(builder),
    };
    let demo = options.demo.then(fake_vendor);
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
    // Without a working store there is a token all the same, but the next start has to fetch. Say so.
    for event in events.try_iter().filter(|event| matches!(event.kind, EventKind::StoreDown { .. })) {
        eprintln!("cli_token: {event}");
    }
    if options.status {
        let status = tokens.status();
        eprintln!("{status}\n  kept        {}", where_kept(store.as_ref(), &status));
    }
    let token = token?;
    // The only place at which this program shows the token.
    println!("{}", token.expose());
    eprintln!("cli_token: valid for {} s", token.remaining().as_secs());
    // Dropping the last handle ends the background work and does not wait. `shutdown` is for programs that continue and
    // have to know that no fetch is in flight any more.
    drop(tokens);
    Ok(())
}

/// A person waits for this tool, so it gives up sooner than a service would. Nine seconds are enough for the fetch of
/// another process and then one of our own.
fn with_short_waits(builder: TokenManagerBuilder) -> TokenManagerBuilder {
    builder.http(HttpConfig::default().timeout(Duration::from_secs(3))).max_wait(Duration::from_secs(9))
}

/// A fake vendor that grants a different token to each process, so that a token shows which process fetched it.
fn fake_vendor() -> FakeVendor {
    FakeVendor::wecom().granting(format!("demo-token-{}", std::process::id()), 7200)
}

fn where_kept(store: Option<&FileStore>, status: &Status) -> String {
    let Some(store) = store else { return "in memory only, until this process ends".into() };
    let directory = store.directory().display();
    match status.origin {
        _ if status.store_down_for.is_some() => format!("in memory only; {directory} cannot be used"),
        Some(TokenOrigin::Store) => format!("in {directory}; the token was there, and nothing was fetched"),
        Some(_) => format!("in {directory}; the token was fetched, and the next start will find it there"),
        None => format!("in {directory}, as soon as there is one"),
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
        let usage = "unknown argument; use --demo, --config FILE, --store DIR, --no-store, --forget or --status";
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

    /// Returns the store for the token. `None`: memory only.
    fn store(&self) -> Result<Option<FileStore>, Error> {
        Ok(match &self.directory {
            _ if self.no_store => None,
            Some(directory) => Some(FileStore::at(directory)),
            // A directory of its own, so that the demo does not touch real tokens.
            None if self.demo => Some(FileStore::at(FileStore::new()?.directory().with_file_name("evertoken-demo"))),
            None => Some(FileStore::new()?),
        })
    }
}

fn advice(error: &Error) -> Option<String> {
    Some(match error.kind() {
        ErrorKind::InvalidCredentials => "check the id and the secret; another try cannot help".into(),
        ErrorKind::SignInRequired => "sign in again, and put the new refresh token into the configuration".into(),
        ErrorKind::Forbidden => "the credential is correct; ask its owner to allow this machine".into(),
        ErrorKind::TicketRequired => "put the latest ticket into the configuration".into(),
        ErrorKind::InvalidResponse => "check the address, and whether a proxy answers in its place".into(),
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
        ErrorKind::InvalidCredentials | ErrorKind::SignInRequired | ErrorKind::Forbidden => 3,
        _ if error.is_retryable() => 4,
        _ => 1,
    })
}
