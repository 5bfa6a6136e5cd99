//! WeCom (企业微信): the access token of a corp's app.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::http::{Http, Reply, check_url, code};
use crate::key::Identity;
use crate::provider::{Answer, Carry, Context, Grant, Profile, Provider, Verdict, granted, with_code};
use crate::secret::{Secret, plain_url};

/// Grants the access token of one app of one corp (`/cgi-bin/gettoken`).
///
/// Every app has a secret of its own, and so a token of its own. Asked again within a token's life, WeCom gives the
/// same one back and says `7200` whatever is left of it, so its end stays where it was first seen.
///
/// For an app that others develop for a corp (代开发), the permanent code takes the place of the secret.
///
/// ```
/// use evertoken::WeCom;
///
/// let provider = WeCom::new("ww1234567890abcdef", "app-secret");
/// assert!(!format!("{provider:?}").contains("app-secret"));
/// ```
#[derive(Clone)]
pub struct WeCom {
    corp_id: String,
    secret: Secret,
    base_url: String,
}

impl WeCom {
    /// The app of `corp_id` that `secret` belongs to.
    pub fn new(corp_id: impl Into<String>, secret: impl Into<Secret>) -> WeCom {
        WeCom { corp_id: corp_id.into(), secret: secret.into(), base_url: PUBLIC.to_owned() }
    }

    /// Asks another host, for a private deployment or a test. Default: `https://qyapi.weixin.qq.com`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> WeCom {
        let url: String = url.into();
        WeCom { base_url: url.trim_end_matches('/').to_owned(), ..self }
    }

    fn ask(&self, http: &Http) -> Result<Grant, Error> {
        let reply = http
            .get(&format!("{}/cgi-bin/gettoken", self.base_url))
            .query("corpid", &self.corp_id)
            .query("corpsecret", self.secret.expose())
            .send()?;
        self.judge(&reply)
    }

    fn judge(&self, reply: &Reply) -> Result<Grant, Error> {
        let json = reply.json();
        // A refusal usually comes with HTTP 200; with another status the code still says more.
        if let Some(code) = json.as_ref().ok().and_then(|json| json.code("errcode")).filter(|code| code != "0") {
            return Err(with_code(refusal(&code), code, [&self.secret].into_iter()));
        }
        if !reply.is_success() {
            return Err(reply.refusal());
        }
        granted(json?)
    }
}

impl Provider for WeCom {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        Identity::new(NAME).part("url", &self.base_url).part("corp", &self.corp_id).secret(&self.secret)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.ask(context.http()).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        let fault = if self.corp_id.trim().is_empty() {
            Err("the corp id is empty")
        } else if self.secret.is_blank() {
            Err("the app secret is empty")
        } else if [&self.corp_id, self.secret.expose()].iter().any(|text| text.trim() != *text) {
            // Read from a file, a line break comes along, and WeCom only says that the secret is wrong.
            Err("the corp id or the app secret has blanks or line breaks around it")
        } else if self.base_url.contains('?') {
            Err("the base URL must not have a query")
        } else {
            check_url(&self.base_url)
        };
        fault.map_err(|text| Error::config(text).of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile {
            default_life: Duration::from_secs(7200),
            forced_spacing: Duration::from_secs(10),
            ..Profile::default()
        }
    }

    fn carry(&self) -> Carry {
        Carry::query("access_token")
    }

    fn verdict(&self, answer: &Answer<'_>) -> Verdict {
        let found = answer.json().and_then(|json| code(json.get("errcode")?)).filter(|code| code != "0");
        match found.as_deref() {
            None => answer.http_verdict(),
            Some("40001" | "40014" | "42001") => Verdict::Rejected,
            Some(code) => {
                throttle(code).map_or(Verdict::Accepted, |wait| Verdict::Throttled { retry_after: Some(wait) })
            }
        }
    }
}

impl fmt::Debug for WeCom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeCom")
            .field("corp_id", &self.corp_id)
            .field("secret", &self.secret)
            .field("base_url", &plain_url(&self.base_url))
            .finish()
    }
}

/// What a code of the token endpoint means.
fn refusal(code: &str) -> Error {
    let row = CODES.iter().find(|(known, ..)| *known == code);
    let (kind, advice) = row.map_or(UNKNOWN, |(_, kind, advice)| (*kind, *advice));
    let error = Error::new(kind, advice);
    match throttle(code) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// How long to wait after a code that says "too much".
fn throttle(code: &str) -> Option<Duration> {
    match code {
        "45009" => Some(Duration::from_secs(60)),
        "45033" => Some(Duration::from_secs(1)),
        _ => None,
    }
}

const NAME: &str = "wecom";

const PUBLIC: &str = "https://qyapi.weixin.qq.com";

/// A code that is new to us may be anything, so it is asked again, with growing pauses.
const UNKNOWN: (ErrorKind, &str) = (ErrorKind::Protocol, "the token was refused with a code that is not known here");

const UNTRUSTED: &str = "this machine's address is not a trusted IP of the app; adding it takes a minute to act";

/// The codes of the token endpoint, as far as they say what to do.
const CODES: &[(&str, ErrorKind, &str)] = &[
    ("-1", ErrorKind::Unavailable, "the system is busy"),
    ("40001", ErrorKind::Denied, "the app secret is wrong or was reset, or the app is disabled"),
    ("40013", ErrorKind::Denied, "the corp id is wrong"),
    ("40084", ErrorKind::Denied, "the permanent code is wrong, or the corp has withdrawn it"),
    ("40091", ErrorKind::Denied, "the app secret is wrong, or belongs to another corp"),
    ("41002", ErrorKind::Config, "the corp id is missing"),
    ("41004", ErrorKind::Config, "the app secret is missing"),
    ("41024", ErrorKind::Config, "the app secret is missing"),
    ("45009", ErrorKind::Throttled, "there were too many calls"),
    ("45031", ErrorKind::Denied, "the app secret is too weak and must be reset"),
    ("45033", ErrorKind::Throttled, "there were too many calls at once"),
    ("48002", ErrorKind::NotAllowed, "the app may not call this interface"),
    ("50003", ErrorKind::Denied, "the app is disabled"),
    ("60020", ErrorKind::NotAllowed, UNTRUSTED),
    ("301042", ErrorKind::NotAllowed, UNTRUSTED),
];
