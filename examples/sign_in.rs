//! Signs a person in on the command line, with the device flow of RFC 8628: `cargo run --example sign_in`
//!
//! The program prints an address and a code, waits until the person has entered the code on any device, and then has a
//! token. Set `OAUTH_DEVICE_URL`, `OAUTH_TOKEN_URL`, `OAUTH_CLIENT_ID` and, if the server requires it, `OAUTH_SCOPE`.
//! Without these variables, a fake server on a loopback port is used, and a thread plays the person.

#![allow(clippy::print_stdout)]

use std::env;
use std::thread;
use std::time::Duration;

use evertoken::testing::FakeVendor;
use evertoken::{DevicePrompt, DeviceSignIn, Error, ErrorKind, OAuth2, RefreshToken, TokenManager};

fn main() -> Result<(), Error> {
    let fake_server = env::var("OAUTH_DEVICE_URL").is_err().then(fake_server);
    let sign_in = match &fake_server {
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
    if let Some(host) = fake_server.clone() {
        let code = prompt.user_code().to_owned();
        // This thread plays the person.
        thread::spawn(move || host.approve(&code));
    }

    let provider = wait_for_person(&mut prompt)?;
    // To stay signed in after a restart, keep `provider.initial_refresh_token()` with your secrets and create the
    // provider from it at each start. Set a store with `.store(..)`, which keeps the refresh tokens that follow.
    let tokens = TokenManager::new(provider);
    println!("Signed in. The token is valid for {} s.", tokens.token()?.remaining().as_secs());
    println!("Refreshed. The fingerprint of the new token is {}.", tokens.force_refresh()?.fingerprint());
    Ok(())
}

/// Waits until the person has entered the code, and prints a line every 20 s meanwhile.
fn wait_for_person(prompt: &mut DevicePrompt) -> Result<RefreshToken, Error> {
    loop {
        if let Some(provider) = prompt.wait_for(Duration::from_secs(20))? {
            return Ok(provider);
        }
        println!("Waiting. The code is valid for another {} s.", prompt.remaining().as_secs());
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

fn fake_server() -> FakeVendor {
    FakeVendor::oauth2().device_interval(Duration::from_secs(1))
}
