//! Signs a person in on the command line: `cargo run --example sign_in`
//!
//! It shows an address and a code, waits until the person has entered it on any device, and has a token from then on.
//! The server comes from the environment: `OAUTH_DEVICE_URL`, `OAUTH_TOKEN_URL`, `OAUTH_CLIENT_ID` and, if it wants one,
//! `OAUTH_SCOPE`. Without them a stand-in on a loopback port plays the server, and the person too.

#![allow(clippy::print_stdout)]

use std::env;
use std::thread;
use std::time::Duration;

use evertoken::testing::FakeVendor;
use evertoken::{DevicePrompt, DeviceSignIn, Error, ErrorKind, OAuth2, RefreshToken, TokenManager};

fn main() -> Result<(), Error> {
    let stand_in = env::var("OAUTH_DEVICE_URL").is_err().then(stand_in);
    let sign_in = match &stand_in {
        Some(host) => {
            let client = OAuth2::public(host.token_url(), "client");
            DeviceSignIn::new(host.url() + "/device_authorization", client)
        }
        None => from_environment()?,
    };

    let mut prompt = sign_in.begin()?;
    println!("Open {} and enter {}", prompt.verification_uri(), prompt.user_code());
    if let Some(url) = prompt.verification_uri_complete() {
        println!("or open {url}");
    }
    if let Some(host) = stand_in.clone() {
        let code = prompt.user_code().to_owned();
        // The person, who takes a moment.
        thread::spawn(move || host.approve(&code));
    }

    let provider = signed_in(&mut prompt)?;
    // A program that is started again keeps `provider.initial_refresh_token()` where it keeps its secrets, and brings it each time. What
    // comes after it is kept in the store that all of its processes share: `.store(..)`.
    let tokens = TokenManager::new(provider);
    println!("Signed in. The token lives for {} s.", tokens.token()?.remaining().as_secs());
    println!("Renewed: {}", tokens.force_refresh()?.fingerprint());
    Ok(())
}

/// Waits for the person, and says from time to time that it does.
fn signed_in(prompt: &mut DevicePrompt) -> Result<RefreshToken, Error> {
    loop {
        if let Some(provider) = prompt.wait_for(Duration::from_secs(20))? {
            return Ok(provider);
        }
        println!("Waiting. The code is good for another {} s.", prompt.remaining().as_secs());
    }
}

fn from_environment() -> Result<DeviceSignIn, Error> {
    let client = OAuth2::public(variable("OAUTH_TOKEN_URL")?, variable("OAUTH_CLIENT_ID")?);
    let client = match env::var("OAUTH_SCOPE") {
        Ok(scope) => client.scope(scope),
        Err(_) => client,
    };
    Ok(DeviceSignIn::new(variable("OAUTH_DEVICE_URL")?, client))
}

fn variable(name: &'static str) -> Result<String, Error> {
    env::var(name).map_err(|_| Error::new(ErrorKind::Config, format!("{name} is not set")))
}

fn stand_in() -> FakeVendor {
    FakeVendor::oauth2().device_interval(Duration::from_secs(1))
}
