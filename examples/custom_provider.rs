//! A provider of your own, as a type and as a closure: `cargo run --example custom_provider`
//!
//! The service is invented. Its tokens are called sessions: `POST /session` with an API key returns `{"session": "...",
//! "ttl": 900}`. Requests carry the session in the header `X-Session`, and the service answers `{"error":
//! "session_over"}` with status 200 when the session is no longer valid. The end of this file contains a small server
//! for it, so that the example runs.

#![allow(clippy::print_stdout)]

use std::error::Error as StdError;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use evertoken::provider::{Context, Grant, Identity, Profile, Provider, ServiceResponse, TokenPlacement};
use evertoken::ureq::http::HeaderMap;
use evertoken::{Error, ErrorKind, Secret, TokenManager, Verdict, provider};

/// Sessions of one account.
#[derive(Clone, Debug)]
struct Warehouse {
    base_url: String,
    account: String,
    // `Secret` shows no text in `Debug`, so deriving `Debug` is safe.
    api_key: Secret,
}

impl Provider for Warehouse {
    fn name(&self) -> &str {
        "warehouse"
    }

    /// Everything that the session depends on. Providers that differ in one of these parts do not share a token.
    fn identity(&self) -> Identity {
        Identity::new("warehouse").part("url", &self.base_url).part("account", &self.account).secret(&self.api_key)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        let reply = context
            .http()
            .post_json(&format!("{}/session", self.base_url), &serde_json::json!({ "account": self.account }))
            .bearer(&self.api_key)
            .send()?;
        match reply.status() {
            401 => {
                return Err(
                    Error::new(ErrorKind::InvalidCredentials, "the API key is unknown; create one").with_status(401)
                );
            }
            _ if !reply.is_success() => return Err(reply.status_error()),
            _ => {}
        }
        let mut json = reply.json()?;
        Ok(Grant::new(json.take_secret("session")?, json.lifetime("ttl")?))
    }

    /// Called by `build()`, before anything is sent.
    fn check(&self) -> Result<(), Error> {
        match self.account.trim().is_empty() || self.api_key.is_blank() {
            true => Err(Error::new(ErrorKind::Config, "the account or the API key is empty")),
            false => Ok(()),
        }
    }

    /// How the service treats its sessions. All other properties keep their defaults.
    fn profile(&self) -> Profile {
        Profile::default().default_lifetime(Duration::from_secs(600)).refresh_ahead(Duration::from_secs(60))
    }

    fn placement(&self) -> TokenPlacement {
        TokenPlacement::header("X-Session")
    }

    /// This service reports an invalid session with status 200 and a code in the body.
    fn verdict(&self, answer: &ServiceResponse<'_>) -> Verdict {
        let over = answer.json().is_some_and(|json| json.get("error").is_some_and(|word| word == "session_over"));
        if over { Verdict::Rejected } else { answer.http_verdict() }
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let base_url = start_service()?;

    println!("a provider as a type");
    let warehouse = Warehouse { base_url: base_url.clone(), account: "4711".into(), api_key: "k-1".into() };
    println!("  Debug output       {warehouse:?}");
    println!("  session_over means {:?}", verdict_on_session_over(&warehouse));
    let tokens = TokenManager::new(warehouse.clone());
    println!("  the session        {:?}", tokens.token()?);

    println!("\nwith a wrong key");
    let wrong = Warehouse { api_key: "k-2".into(), ..warehouse.clone() };
    if let Err(error) = TokenManager::new(wrong).token() {
        println!("  {:<18} {error}", format!("{:?}", error.kind()));
    }

    println!("\nwith no key");
    if let Err(error) = TokenManager::builder(Warehouse { api_key: "".into(), ..warehouse }).build() {
        println!("  {:<18} {error}", format!("{:?}", error.kind()));
    }

    println!("\na provider as a closure");
    let key = Secret::from("k-1");
    let url = format!("{base_url}/session");
    let (sent, account) = (key.clone(), "4711");
    let closure = provider::from_fn("warehouse", move |context| {
        let request = context.http().post_json(&url, &serde_json::json!({ "account": account }));
        let mut json = request.bearer(&sent).send()?.json()?;
        Ok(Grant::new(json.take_secret("session")?, json.lifetime("ttl")?))
    });
    // The identity is needed only if the token is shared through a store; see `from_fn`.
    let closure = closure.identity_part("url", &base_url).identity_part("account", account).secret(&key);
    let tokens = TokenManager::new(closure.placement(TokenPlacement::header("X-Session")));
    println!("  the session        {:?}", tokens.token()?);
    Ok(())
}

fn verdict_on_session_over(provider: &impl Provider) -> Verdict {
    provider.verdict(&ServiceResponse::new(200, &HeaderMap::new(), br#"{"error": "session_over"}"#))
}

// ---- the invented service -------------------------------------------------------------------------------------------

fn start_service() -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let sessions = AtomicUsize::new(0);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // An error means that the client has closed the connection.
            let _ = serve(stream, &sessions);
        }
    });
    Ok(url)
}

fn serve(mut stream: TcpStream, sessions: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut length, mut known) = (0, false);
    for line in reader.by_ref().lines() {
        let line = line?.to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(("authorization", value)) => known = value == "bearer k-1",
            Some(_) => {}
            None if line.is_empty() => break,
            None => {}
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let (status, body) = if known {
        let number = sessions.fetch_add(1, Ordering::Relaxed) + 1;
        ("200 OK", format!(r#"{{"session": "session-{number}", "ttl": 900}}"#))
    } else {
        ("401 Unauthorized", "{}".to_owned())
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}
