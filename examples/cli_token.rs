//! Prints one token and exits: `cargo run --example cli_token -- --demo`
//!
//! The provider is any of those that this crate has, and there is no code for any of them here. The environment says
//! which: `EVERTOKEN_PROVIDER=wecom`, `EVERTOKEN_CORP_ID`, `EVERTOKEN_SECRET` or `EVERTOKEN_SECRET_FILE`, as
//! [`from_env`](evertoken::provider::from_env) reads them; or a file does that is named by `--config`, a
//! [`ProviderConfig`](evertoken::ProviderConfig) in JSON. A credential never stands on the command line, where other
//! users of the machine see it. With `--demo` a stand-in on a loopback port grants the token, and with `--status` the
//! manager says in the end how things stand.
//!
//! Of `refresh-token` the program would have to keep what follows the first one; without a store it works once.
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

use evertoken::testing::ProviderHost;
use evertoken::{Error, ErrorKind, ProviderConfig, TokenManager, TokenManagerBuilder, WeCom, provider};
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
    let demo = options.demo.then(ProviderHost::wecom);
    let tokens = match (&demo, options.config) {
        (Some(host), _) => {
            in_a_hurry(TokenManager::builder(WeCom::new("corp", "secret").base_url(host.url()))).build()?
        }
        (None, Some(path)) => TokenManager::from_config(&read_config(path)?, in_a_hurry)?,
        (None, None) => TokenManager::from_config(&provider::from_env()?, in_a_hurry)?,
    };
    let token = tokens.token();
    if options.status {
        eprintln!("{}", tokens.status());
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

/// Somebody sits in front of it, so it gives up sooner than a service would.
fn in_a_hurry(builder: TokenManagerBuilder) -> TokenManagerBuilder {
    builder.max_wait(Duration::from_secs(8))
}

fn read_config(path: PathBuf) -> Result<ProviderConfig, Error> {
    let unreadable = |cause: &dyn std::fmt::Display| Error::new(ErrorKind::Config, format!("--config: {cause}"));
    let text = fs::read_to_string(path).map_err(|cause| unreadable(&cause))?;
    serde_json::from_str(&text).map_err(|cause| unreadable(&cause))
}

struct Options {
    demo: bool,
    status: bool,
    config: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: Arguments) -> Result<Options, Error> {
        let usage = "there is --demo, --config FILE and --status, and no other argument";
        let path = |text: &OsStr| Ok::<_, Infallible>(PathBuf::from(text));
        let options = Options {
            demo: arguments.contains("--demo"),
            status: arguments.contains("--status"),
            config: arguments
                .opt_value_from_os_str("--config", path)
                .map_err(|_| Error::new(ErrorKind::Config, usage))?,
        };
        if arguments.finish().is_empty() { Ok(options) } else { Err(Error::new(ErrorKind::Config, usage)) }
    }
}

fn advice(error: &Error) -> Option<String> {
    Some(match error.kind() {
        ErrorKind::Denied => "the id or the secret is wrong; trying again cannot help".into(),
        ErrorKind::NotAllowed => "the credential is right; ask its owner to allow this machine".into(),
        ErrorKind::TicketStale => "hand in the next ticket; the configuration names it".into(),
        ErrorKind::Protocol => "is the address right, and is there a proxy in between?".into(),
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
        ErrorKind::Denied | ErrorKind::NotAllowed => 3,
        _ if error.is_retryable() => 4,
        _ => 1,
    })
}
