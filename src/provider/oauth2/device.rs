//! Signing in with a code on another device (RFC 8628).

use std::fmt;
use std::thread;
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::http::{HttpConfig, Json, check_url};
use crate::provider::Context;
use crate::provider::errors::ErrorRule;
use crate::provider::oauth2::{OAuth2, OAuthErrors, RefreshToken};
use crate::secret::{Secret, plain_url};

/// Signs a person in who sits before a terminal: they open an address on any device and enter a code there (RFC 8628).
///
/// What comes of it is the first refresh token, for a [`RefreshToken`], which needs a store that outlasts the program
/// unless the program signs in each time. See `examples/sign_in.rs`.
///
/// ```no_run
/// use evertoken::{DeviceSignIn, OAuth2, TokenManager};
///
/// let client = OAuth2::public("https://login.example/oauth2/token", "client-id").scope("offline_access");
/// let prompt = DeviceSignIn::new("https://login.example/oauth2/device", client.clone()).begin()?;
/// println!("Open {} and enter {}", prompt.verification_uri(), prompt.user_code());
/// let tokens = TokenManager::new(prompt.wait()?);
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct DeviceSignIn {
    device_url: String,
    client: OAuth2,
    http: HttpConfig,
}

impl DeviceSignIn {
    /// Signs in at the server whose device authorization endpoint is `device_url`, as `client`. Ask for the scope that
    /// brings a refresh token, often `offline_access`.
    pub fn new(device_url: impl Into<String>, client: OAuth2) -> DeviceSignIn {
        DeviceSignIn { device_url: device_url.into(), client, http: HttpConfig::default() }
    }

    /// How the server is reached. Default: as a manager does.
    #[must_use]
    pub fn http(self, http: impl Into<HttpConfig>) -> DeviceSignIn {
        DeviceSignIn { http: http.into(), ..self }
    }

    /// Asks for a code. Blocks up to the time limit for one exchange.
    ///
    /// # Errors
    ///
    /// As a fetch: [`ErrorKind::Config`] for a setting or scope that is wrong, [`ErrorKind::InvalidCredentials`] for a client that
    /// may not do this, and what the network brings.
    pub fn begin(&self) -> Result<DevicePrompt, Error> {
        self.begin_sign_in().map_err(|error| error.of(NAME))
    }

    fn begin_sign_in(&self) -> Result<DevicePrompt, Error> {
        self.client.check_settings()?;
        check_url(&self.device_url).map_err(Error::config)?;
        self.http.check()?;
        let context = Context::new(self.http.clone(), self.http.whole_timeout());
        let mut json = self.client.exchange_at(&self.device_url, &context, &[], &[], &ERRORS)?;
        let device_code = json.take_secret("device_code")?;
        let seconds = |json: &Json, name| json.integer(name).and_then(|seconds| u64::try_from(seconds).ok());
        let (lifetime, interval) = (seconds(&json, "expires_in"), seconds(&json, "interval"));
        let interval = interval.map_or(INTERVAL, Duration::from_secs).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let prompt = DevicePrompt {
            user_code: shown(&json, "user_code")?,
            verification_uri: address(&json, "verification_uri").or_else(|_| address(&json, "verification_url"))?,
            verification_uri_complete: address(&json, "verification_uri_complete").ok(),
            device_code,
            until: Deadline::within(
                lifetime.map_or(USUAL_LIFETIME, Duration::from_secs).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME),
            ),
            next_poll: Deadline::within(interval),
            over: None,
            interval,
            sign_in: self.clone(),
        };
        Ok(prompt)
    }
}

impl fmt::Debug for DeviceSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSignIn")
            .field("device_url", &plain_url(&self.device_url))
            .field("client", &self.client)
            .field("http", &self.http)
            .finish()
    }
}

/// What the person is shown, and the wait for them.
///
/// Whoever enters the code signs this program in as themselves, so it is shown to the person before it alone.
pub struct DevicePrompt {
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    device_code: Secret,
    until: Deadline,
    interval: Duration,
    /// Asked any sooner, the server asks for longer pauses.
    next_poll: Deadline,
    /// How it has ended.
    over: Option<Error>,
    sign_in: DeviceSignIn,
}

impl DevicePrompt {
    /// The code to enter.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// The address to open.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// An address with the code in it, for a link or a picture to scan, if the server has one.
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.verification_uri_complete.as_deref()
    }

    /// How long the code is good for.
    pub fn remaining(&self) -> Duration {
        self.until.remaining()
    }

    /// Waits until the person has signed in. Blocks as long as the code is good for, often a quarter of an hour.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when the code is over, [`ErrorKind::Forbidden`] when the person refused,
    /// [`ErrorKind::InvalidResponse`] when the server gives no refresh token, perhaps for want of a scope. A network that
    /// fails meanwhile is tried again.
    pub fn wait(mut self) -> Result<RefreshToken, Error> {
        loop {
            if let Some(signed_in) = self.wait_for(self.remaining())? {
                return Ok(signed_in);
            }
        }
    }

    /// The same for `wait`, and at most for the time of one exchange longer, for a program that looks at something else
    /// in between. `None`: not yet.
    ///
    /// # Errors
    ///
    /// As [`wait`](DevicePrompt::wait).
    pub fn wait_for(&mut self, wait: Duration) -> Result<Option<RefreshToken>, Error> {
        let wait = Deadline::within(wait);
        while self.over.is_none() {
            if self.until.has_passed() {
                self.over = Some(Error::new(ErrorKind::TimedOut, OVER));
                break;
            }
            thread::sleep(self.next_poll.min(wait).min(self.until).remaining());
            if !self.next_poll.has_passed() {
                if wait.has_passed() {
                    return Ok(None);
                }
                continue;
            }
            match self.poll() {
                Ok(signed_in) => {
                    self.over = Some(Error::config("the sign-in is done already"));
                    return Ok(Some(signed_in));
                }
                Err(error) => self.over = self.note(error).err(),
            }
        }
        self.over.clone().map_or(Ok(None), |error| Err(error.of(NAME)))
    }

    fn poll(&self) -> Result<RefreshToken, Error> {
        let DeviceSignIn { client, http, .. } = &self.sign_in;
        let context = Context::new(http.clone(), http.whole_timeout());
        let grant = [("grant_type", GRANT_TYPE), ("device_code", self.device_code.expose())];
        let mut json = client.exchange(&context, &grant, &[&self.device_code], &ERRORS)?;
        let refresh_token = json.take_secret("refresh_token").ok().filter(|token| !token.is_blank());
        let refresh_token = refresh_token.ok_or_else(|| Error::invalid_response(NO_REFRESH_TOKEN))?;
        Ok(RefreshToken::new(client.clone(), refresh_token))
    }

    /// Goes on after an answer that says "not yet", and after trouble that passes.
    fn note(&mut self, error: Error) -> Result<(), Error> {
        match (error.code(), error.kind()) {
            (Some("authorization_pending"), _) => {}
            (Some("slow_down"), _) => self.interval = (self.interval + SLOWER).min(LONGEST_INTERVAL),
            (_, ErrorKind::TimedOut | ErrorKind::Unavailable | ErrorKind::Throttled) => {
                let asked = error.retry_after().unwrap_or(self.interval * 2);
                self.interval = asked.clamp(self.interval, LONGEST_INTERVAL);
            }
            _ => return Err(error),
        }
        self.next_poll = Deadline::within(self.interval);
        Ok(())
    }
}

impl fmt::Debug for DevicePrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePrompt")
            .field("verification_uri", &self.verification_uri)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// A text that a person is shown: nothing in it moves the cursor of a terminal, or turns the text around.
fn shown(json: &Json, name: &str) -> Result<String, Error> {
    let text = json.text(name).filter(|text| !text.is_empty() && text.len() <= LONGEST_TEXT);
    match text.filter(|text| text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))) {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::invalid_response(format!("the server's reply has no {name} that can be shown"))),
    }
}

fn address(json: &Json, name: &str) -> Result<String, Error> {
    let url = shown(json, name)?;
    match check_url(url.split('#').next().unwrap_or_default()) {
        Ok(()) => Ok(url),
        Err(_) => {
            Err(Error::invalid_response("the server wants the code entered at no address that a person should trust"))
        }
    }
}

const NAME: &str = "device sign-in";

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What the standard says when the server does not.
const INTERVAL: Duration = Duration::from_secs(5);

const SLOWER: Duration = Duration::from_secs(5);

const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

const LONGEST_INTERVAL: Duration = Duration::from_secs(300);

/// A code that is good for less could not even be typed.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(5);

/// Servers have to tell, and some do not.
const USUAL_LIFETIME: Duration = Duration::from_secs(600);

const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);

const LONGEST_TEXT: usize = 2048;

const OVER: &str = "nobody has signed in with the code in time; begin again";

const NO_REFRESH_TOKEN: &str =
    "the server gives no refresh token; ask for the scope that brings one, often offline_access";

const ERRORS: OAuthErrors = OAuthErrors { rules: &[ERROR_RULES], ..OAuthErrors::STANDARD };

const ERROR_RULES: &[ErrorRule] = &[
    ("access_denied", ErrorKind::Forbidden, "the person has refused to sign in"),
    ("authorization_pending", ErrorKind::Unavailable, "nobody has signed in with the code yet"),
    ("expired_token", ErrorKind::TimedOut, OVER),
    ("invalid_grant", ErrorKind::InvalidCredentials, "the server does not know the code; begin again"),
];
