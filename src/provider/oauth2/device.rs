//! Device sign-in (device authorization grant, RFC 8628): a person enters a code on any device.
//!
//! 1. [`DeviceSignIn::begin`] asks the device authorization endpoint for a `user_code`, a `verification_uri` and a
//!    `device_code`. The program shows the first two to the person.
//! 2. [`DevicePrompt::wait`] sends the `device_code` to the token endpoint every `interval` seconds. The server answers
//!    `authorization_pending` until the person has entered the code, and `slow_down` when it is asked too often, which
//!    lengthens the interval for good. A failure of the network or the server lengthens the interval, too, and does not
//!    end the sign-in.
//! 3. The sign-in ends with a refresh token, with the person's refusal (`access_denied`), with the end of the code
//!    (`expired_token`, or its `expires_in` has passed), or with an error that cannot pass.
//!
//! The server names intervals and lifetimes, and the constants at the end of the file bound them, so that a wrong value
//! neither blocks the program for days nor floods the server.

use std::fmt;
use std::thread;
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::{Error, ErrorKind};
use crate::http::{HttpConfig, Json, check_url};
use crate::provider::Context;
use crate::provider::base_url::check_url_setting;
use crate::provider::errors::ErrorRule;
use crate::provider::oauth2::{OAuth2, OAuthErrors, RefreshToken};
use crate::secret::{Secret, plain_url};

/// Signs a person in with a code that the person enters on any device (device authorization grant, RFC 8628).
///
/// The result is a [`RefreshToken`] provider with the first refresh token. Keep its record in a store that outlasts the
/// program, unless the person signs in at each start. `examples/sign_in.rs` is a whole program; the guide explains it
/// in [signing in](crate::guide::signing_in).
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
    /// Makes a sign-in as `client` at the device authorization endpoint `device_url` (`device_authorization_endpoint`).
    ///
    /// Set the scope that makes the server grant a refresh token, often `offline_access`.
    pub fn new(device_url: impl Into<String>, client: OAuth2) -> DeviceSignIn {
        DeviceSignIn { device_url: device_url.into(), client, http: HttpConfig::default() }
    }

    /// Sets how the server is reached: time limits, proxy, certificates. Default: as for a manager.
    #[must_use]
    pub fn http(self, http: impl Into<HttpConfig>) -> DeviceSignIn {
        DeviceSignIn { http: http.into(), ..self }
    }

    /// Asks the server for a code. Blocks for one HTTP exchange, at most for the
    /// [time limit](HttpConfig::timeout) of the HTTP configuration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a wrong setting or scope, [`ErrorKind::InvalidCredentials`] for a client that may not
    /// use this grant, and the errors of the network.
    pub fn begin(&self) -> Result<DevicePrompt, Error> {
        self.begin_sign_in().map_err(|error| error.of(NAME))
    }

    fn begin_sign_in(&self) -> Result<DevicePrompt, Error> {
        self.http.allowing_plain_http(|| {
            self.client.check_settings_for(&[("device_code", "remove it")])?;
            check_url_setting("device_url", &self.device_url)
        })?;
        self.http.check()?;
        let context = Context::new(self.http.clone(), self.http.whole_timeout());
        let mut json = self.client.request_device_code(&self.device_url, &context, &ERRORS)?;
        let device_code = json.take_secret("device_code")?;
        let seconds = |json: &Json, name| json.integer(name).and_then(|seconds| u64::try_from(seconds).ok());
        let (lifetime, interval) = (seconds(&json, "expires_in"), seconds(&json, "interval"));
        let interval = interval.map_or(DEFAULT_INTERVAL, Duration::from_secs).clamp(MIN_INTERVAL, MAX_INTERVAL);
        let prompt = DevicePrompt {
            user_code: displayable_text(&json, "user_code")?,
            // Google's name for the field has a `url` at the end.
            verification_uri: displayable_url(&json, "verification_uri")
                .or_else(|_| displayable_url(&json, "verification_url"))?,
            verification_uri_complete: displayable_url(&json, "verification_uri_complete").ok(),
            device_code,
            expires_at: Deadline::within(
                lifetime.map_or(DEFAULT_CODE_LIFETIME, Duration::from_secs).clamp(MIN_CODE_LIFETIME, MAX_CODE_LIFETIME),
            ),
            next_poll: Deadline::within(interval),
            ended: None,
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

/// The code and URL for the person, and the wait until the person has signed in.
///
/// The code signs this program in as the person who enters it. Show it to the person in front of the program only.
pub struct DevicePrompt {
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    device_code: Secret,
    expires_at: Deadline,
    interval: Duration,
    /// A poll before this time makes the server ask for a longer interval.
    next_poll: Deadline,
    /// The error of all further calls, after the sign-in has ended.
    ended: Option<Error>,
    sign_in: DeviceSignIn,
}

impl DevicePrompt {
    /// The code that the person enters (`user_code`).
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// The URL that the person opens (`verification_uri`).
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// A URL that contains the code (`verification_uri_complete`), for a link or a QR code, if the server names one.
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.verification_uri_complete.as_deref()
    }

    /// The time until the code expires.
    pub fn remaining(&self) -> Duration {
        self.expires_at.remaining()
    }

    /// Waits until the person has signed in. Blocks until the code expires at the latest, often for 15 minutes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SignInRequired`] when the code expired, [`ErrorKind::Forbidden`] when the person refused,
    /// [`ErrorKind::InvalidResponse`] when the server granted no refresh token, usually because a scope is missing.
    /// Failures of the network or the server are retried.
    pub fn wait(mut self) -> Result<RefreshToken, Error> {
        loop {
            if let Some(signed_in) = self.wait_for(self.remaining())? {
                return Ok(signed_in);
            }
        }
    }

    /// Waits at most `wait`, plus the time of one HTTP exchange, for a program that has other work in between. Returns
    /// `None` when the person has not signed in yet.
    ///
    /// # Errors
    ///
    /// The errors of [`wait`](DevicePrompt::wait).
    pub fn wait_for(&mut self, wait: Duration) -> Result<Option<RefreshToken>, Error> {
        let wait = Deadline::within(wait);
        while self.ended.is_none() {
            if self.expires_at.has_passed() {
                self.ended = Some(Error::new(ErrorKind::SignInRequired, CODE_EXPIRED));
                break;
            }
            // Sleep until the first of: the next poll, the end of this call, the end of the code.
            thread::sleep(self.next_poll.min(wait).min(self.expires_at).remaining());
            if !self.next_poll.has_passed() {
                if wait.has_passed() {
                    return Ok(None);
                }
                // The code expired before the next poll; the head of the loop reports that.
                continue;
            }
            match self.poll() {
                Ok(signed_in) => {
                    self.ended = Some(Error::config("this sign-in has succeeded before; begin a new one"));
                    return Ok(Some(signed_in));
                }
                Err(error) => self.ended = self.continue_after(error).err(),
            }
        }
        self.ended.clone().map_or(Ok(None), |error| Err(error.of(NAME)))
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

    /// Sets the time of the next poll after `authorization_pending`, `slow_down` or a failure that may pass. Returns
    /// any other error, which ends the sign-in.
    fn continue_after(&mut self, error: Error) -> Result<(), Error> {
        match (error.code(), error.kind()) {
            (Some("authorization_pending"), _) => {}
            // The longer interval applies to all further polls (RFC 8628, section 3.5).
            (Some("slow_down"), _) => self.interval = (self.interval + SLOW_DOWN_STEP).min(MAX_INTERVAL),
            (_, ErrorKind::Unavailable | ErrorKind::Throttled) => {
                // Exponential backoff, as RFC 8628, section 3.5 asks for after a connection timeout.
                let asked = error.retry_after().unwrap_or(self.interval * 2);
                self.interval = asked.clamp(self.interval, MAX_INTERVAL);
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

/// Reads a text that a person is shown. Only printable ASCII is accepted, so that a hostile server can neither move the
/// cursor of a terminal nor reverse the direction of the text.
fn displayable_text(json: &Json, name: &str) -> Result<String, Error> {
    let text = json.text(name).filter(|text| !text.is_empty() && text.len() <= MAX_TEXT_LENGTH);
    match text.filter(|text| text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))) {
        Some(text) => Ok(text.to_owned()),
        None => Err(Error::invalid_response(format!("the server's reply has no {name} in printable ASCII"))),
    }
}

/// Reads a URL that a person is asked to open, under the same rules as a URL that a credential is sent to.
fn displayable_url(json: &Json, name: &str) -> Result<String, Error> {
    let url = displayable_text(json, name)?;
    match check_url(url.split('#').next().unwrap_or_default()) {
        Ok(()) => Ok(url),
        Err(_) => Err(Error::invalid_response(format!(
            "the {name} in the server's reply does not start with https://, so no person should open it"
        ))),
    }
}

const NAME: &str = "device sign-in";

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The polling interval when the server does not name one (RFC 8628, section 3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// How much `slow_down` adds to the interval (RFC 8628, section 3.5).
const SLOW_DOWN_STEP: Duration = Duration::from_secs(5);

const MIN_INTERVAL: Duration = Duration::from_secs(1);

const MAX_INTERVAL: Duration = Duration::from_secs(300);

/// A person cannot type a code in less time.
const MIN_CODE_LIFETIME: Duration = Duration::from_secs(5);

/// The lifetime of a code when the server does not name one, although RFC 8628 requires it.
const DEFAULT_CODE_LIFETIME: Duration = Duration::from_secs(600);

const MAX_CODE_LIFETIME: Duration = Duration::from_secs(3600);

const MAX_TEXT_LENGTH: usize = 2048;

const CODE_EXPIRED: &str = "the code expired; start the sign-in again";

const NO_REFRESH_TOKEN: &str =
    "the server granted no refresh token; add the scope that makes it grant one, often offline_access";

const ERRORS: OAuthErrors = OAuthErrors { rules: &[ERROR_RULES], ..OAuthErrors::STANDARD };

const ERROR_RULES: &[ErrorRule] = &[
    ("access_denied", ErrorKind::Forbidden, "the person refused to sign in"),
    ("authorization_pending", ErrorKind::Unavailable, "the person has not signed in yet; keep waiting"),
    ("expired_token", ErrorKind::SignInRequired, CODE_EXPIRED),
    ("invalid_grant", ErrorKind::InvalidCredentials, "the code is unknown to the server; begin a new sign-in"),
];
