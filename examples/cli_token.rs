//! Prints one token and exits: `cargo run --example cli_token -- --demo`
//!
//! The credential comes from the environment, never from the command line, where other users of the machine see it:
//! `WECOM_CORP_ID` and `WECOM_CORP_SECRET`, or `OAUTH_TOKEN_URL`, `OAUTH_CLIENT_ID`, `OAUTH_CLIENT_SECRET` and, if the
//! server wants one, `OAUTH_SCOPE`. With `--demo` a stand-in on a loopback port grants it.
//!
//! The exit code tells a script what to do: 0 here it is, 2 mend a setting, 3 mend the credential or its
//! rights, 4 try again later, 1 anything else.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use evertoken::testing::ProviderHost;
use evertoken::{Error, ErrorKind, OAuth2, TokenManager, TokenManagerBuilder, WeCom};

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
    let demo = env::args().any(|argument| argument == "--demo").then(ProviderHost::wecom);
    let tokens = manager(demo.as_ref())?;
    let token = tokens.token()?;
    // This is what the program is for. Nothing else in it shows the token.
    println!("{}", token.expose());
    eprintln!("cli_token: lives {} s", token.remaining().as_secs());
    // Here the last handle goes, and with it the background work. That takes no time: it signals and joins nothing.
    // `shutdown` is for programs that go on and want to know that nothing is in the air any more.
    drop(tokens);
    Ok(())
}

fn manager(demo: Option<&ProviderHost>) -> Result<TokenManager, Error> {
    if let Some(host) = demo {
        return built(TokenManager::builder(WeCom::new("corp", "secret").base_url(host.url())));
    }
    if let Ok(corp_id) = env::var("WECOM_CORP_ID") {
        return built(TokenManager::builder(WeCom::new(corp_id, variable("WECOM_CORP_SECRET")?)));
    }
    let Ok(url) = env::var("OAUTH_TOKEN_URL") else {
        let text = "set WECOM_CORP_ID or OAUTH_TOKEN_URL and what belongs to it, or say --demo";
        return Err(Error::new(ErrorKind::Config, text));
    };
    let provider = OAuth2::new(url, variable("OAUTH_CLIENT_ID")?, variable("OAUTH_CLIENT_SECRET")?);
    built(TokenManager::builder(match env::var("OAUTH_SCOPE") {
        Ok(scope) => provider.scope(scope),
        Err(_) => provider,
    }))
}

/// Somebody sits in front of it, so it gives up sooner than a service would.
fn built(builder: TokenManagerBuilder) -> Result<TokenManager, Error> {
    builder.max_wait(Duration::from_secs(8)).build()
}

fn variable(name: &'static str) -> Result<String, Error> {
    env::var(name).map_err(|_| Error::new(ErrorKind::Config, format!("{name} is not set")))
}

fn advice(error: &Error) -> Option<String> {
    Some(match error.kind() {
        ErrorKind::Denied => "the id or the secret is wrong; trying again cannot help".into(),
        ErrorKind::NotAllowed => "the credential is right; ask its owner to allow this machine".into(),
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
