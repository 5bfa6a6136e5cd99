//! The requirements for every kind of token: one row for each kind, and the tests that all rows pass.

use std::fmt::Debug;
use std::time::Duration;

use evertoken::provider::{Context, Grant, Identity, Provider, ServiceResponse, TokenSource, from_fn};
use evertoken::ureq::http::HeaderMap;
use evertoken::{Error, ErrorKind, HttpConfig, Token, TokenManager, Verdict};

use crate::common::http_host::{Canned, canned, reply};

/// One kind of token. Every secret of its credential contains `hunter2`, as do its renewal secret and its parent's
/// token.
pub(crate) struct Kind {
    /// The provider's name, with which its errors begin.
    pub(crate) name: &'static str,
    /// The provider, with the host at this address (`http://127.0.0.1:<port>`).
    pub(crate) provider: fn(&str) -> Box<dyn Shown>,
    /// The same provider with one input changed, each of which has another identity.
    pub(crate) others: fn(&str) -> Vec<Box<dyn Shown>>,
    /// Whether the fetch gets the renewal secret `hunter2-state`.
    pub(crate) needs_state: bool,
    /// Whether the fetch gets the parent token `hunter2-parent`.
    pub(crate) needs_parent: bool,
    /// The first line of the request.
    pub(crate) request: &'static str,
    /// Headers that the request must have, names in lower case.
    pub(crate) headers: &'static [&'static str],
    /// The expected body.
    pub(crate) body: Body,
    /// The body of a successful reply: `TOKEN` and `LIFETIME` (a JSON value) are replaced.
    pub(crate) granting: &'static str,
    /// Whether `LIFETIME` is not in seconds from now, as where the reply has an expiry: then unusual lifetimes are not
    /// tested.
    pub(crate) odd_life: bool,
    pub(crate) refusals: &'static [Refusal],
}

/// A provider with debug output.
pub(crate) trait Shown: Provider + Debug {}

impl<P: Provider + Debug> Shown for P {}

/// The expected body of a request.
#[allow(dead_code)]
pub(crate) enum Body {
    /// This text, or for JSON: these bytes.
    Exactly(&'static str),
    /// A function that panics when the body is wrong, for signed bodies.
    Checked(fn(&str)),
}

/// A refusal: the status line, the body, and the expected kind, code and seconds to wait.
pub(crate) type Refusal = (&'static str, &'static str, ErrorKind, Option<&'static str>, Option<u64>);

impl Kind {
    fn context(&self) -> Context {
        let parent = self.needs_parent.then(|| parent("hunter2-parent"));
        let state = self.needs_state.then(|| "hunter2-state".into());
        context().with_parent(parent).with_renewal_secret(state)
    }

    fn ask(&self, host: &Canned) -> Result<Grant, Error> {
        let answer = (self.provider)(&host.url()).fetch(&self.context());
        if let Err(error) = &answer {
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with(&format!("{}: ", self.name)), "{}: {shown}", self.name);
            assert!(!shown.contains("hunter2") && !shown.contains("://"), "{}: {shown}", self.name);
        }
        answer.and_then(taken)
    }

    fn granting(&self, token: &str, life: &str) -> String {
        self.granting.replace("TOKEN", token).replace("LIFETIME", life)
    }

    fn assert_refused(&self, reply: &[u8], kind: ErrorKind) {
        let text = String::from_utf8_lossy(reply).into_owned();
        let error = self.ask(&canned(reply)).expect_err(&text);
        assert_eq!(error.kind(), kind, "{}: {text}: {error}", self.name);
    }
}

/// A grant as a manager accepts it: one with a renewal secret is passed on whatever is wrong with its token.
fn taken(grant: Grant) -> Result<Grant, Error> {
    if grant.renewal_secret().is_some() {
        let (token, life) = (grant.token().clone(), grant.lifetime());
        TokenManager::new(from_fn("taken", move |_| Ok(Grant::new(token.clone(), life)))).token()?;
    }
    Ok(grant)
}

pub(crate) fn context() -> Context {
    Context::new(HttpConfig::default(), Duration::from_secs(10))
}

/// A token with this text.
pub(crate) fn parent(text: &'static str) -> Token {
    let grant = move |_: &Context| Ok(Grant::new(text, Duration::from_secs(7200)));
    TokenManager::new(from_fn("parent", grant)).token().unwrap()
}

/// The parent of a derived provider where only its name matters: the test passes the token to the fetch.
pub(crate) struct Source(pub(crate) &'static str);

impl TokenSource for Source {
    fn identity(&self) -> Identity {
        Identity::new("source").part("name", self.0)
    }

    fn token_within(&self, _: Duration) -> Result<Token, Error> {
        Ok(parent("hunter2-parent"))
    }

    fn reject(&self, _: &Token) -> Result<(), Error> {
        Ok(())
    }
}

/// The verdict of the provider on a service response with this `errcode`, as a number and as a text.
pub(crate) fn verdict(provider: &dyn Provider, code: &str) -> [Verdict; 2] {
    [code.to_owned(), format!("\"{code}\"")].map(|code| {
        let body = format!(r#"{{"errcode":{code},"errmsg":"access_token 42001 40001 40082"}}"#);
        provider.verdict(&ServiceResponse::new(200, &HeaderMap::new(), body.as_bytes()))
    })
}

/// Asserts that the `rejecting` codes reject the provider's token, and none of the `others` do.
pub(crate) fn assert_judges(provider: &dyn Provider, rejecting: &[&str], others: &[&str]) {
    let name = provider.name();
    assert!(!rejecting.is_empty() && !others.is_empty(), "{name}");
    for code in rejecting {
        assert_eq!(verdict(provider, code), [Verdict::Rejected, Verdict::Rejected], "{name}: {code}");
    }
    for code in others.iter().chain(&["0", "-1"]) {
        assert_eq!(verdict(provider, code), [Verdict::Accepted, Verdict::Accepted], "{name}: {code}");
    }
}

/// Runs all tests of every kind.
pub(crate) fn assert_all(kinds: &[Kind]) {
    for kind in kinds {
        asks_exactly(kind);
        takes_lifetimes_as_numbers_and_as_texts(kind);
        refuses_what_makes_no_sense(kind);
        the_status_counts_when_the_body_has_no_code(kind);
        understands_its_vendors_refusals(kind);
        is_another_when_any_input_differs(kind);
        hides_its_secrets(kind);
        says_what_is_missing(kind);
    }
}

fn asks_exactly(kind: &Kind) {
    let host = canned(reply("200 OK", "", &kind.granting("t-1", "7200")));
    let grant = kind.ask(&host).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
    assert_eq!(grant.token().expose(), "t-1", "{}", kind.name);
    let (first, headers, body) = host.request();
    assert_eq!(first, kind.request, "{}", kind.name);
    let agent = format!("user-agent: evertoken/{}", env!("CARGO_PKG_VERSION"));
    for header in kind.headers.iter().copied().chain(["accept-encoding: identity", &agent]) {
        assert!(headers.iter().any(|sent| sent == header), "{}: no {header} in {headers:?}", kind.name);
    }
    match kind.body {
        Body::Exactly(text) => assert_eq!(body, text, "{}", kind.name),
        Body::Checked(check) => check(&body),
    }
}

fn takes_lifetimes_as_numbers_and_as_texts(kind: &Kind) {
    if kind.odd_life {
        return;
    }
    for (value, seconds) in [("7200", 7200), ("\"7200\"", 7200), ("7200.0", 7200), ("1e20", 2_592_000)] {
        let host = canned(reply("200 OK", "", &kind.granting("t-1", value)));
        let grant = kind.ask(&host).unwrap_or_else(|error| panic!("{}: {value}: {error}", kind.name));
        assert_eq!(grant.lifetime(), Some(Duration::from_secs(seconds)), "{}: {value}", kind.name);
    }
    for value in ["0", "-1", "\"0\"", "\"soon\"", "true", "{}"] {
        kind.assert_refused(&reply("200 OK", "", &kind.granting("t-1", value)), ErrorKind::InvalidResponse);
    }
    let missing = kind.granting("t-1", "null");
    assert_eq!(kind.ask(&canned(reply("200 OK", "", &missing))).unwrap().lifetime(), None, "{}", kind.name);
}

fn refuses_what_makes_no_sense(kind: &Kind) {
    for body in ["", "null", "[]", "<html><body>Sign in</body></html>", "{}", &kind.granting("t-1", "7200")[..20]] {
        kind.assert_refused(&reply("200 OK", "", body), ErrorKind::InvalidResponse);
    }
    for token in ["", "  ", "a b", r"a\r\nx-evil: 1", r"\u00e9"] {
        kind.assert_refused(&reply("200 OK", "", &kind.granting(token, "7200")), ErrorKind::InvalidResponse);
    }
    kind.assert_refused(&reply("302 Found", "location: http://127.0.0.1:1/\r\n", ""), ErrorKind::InvalidResponse);
}

fn the_status_counts_when_the_body_has_no_code(kind: &Kind) {
    for (status, expected) in [
        ("429 Too Many Requests", ErrorKind::Throttled),
        ("500 Internal Server Error", ErrorKind::Unavailable),
        ("503 Service Unavailable", ErrorKind::Unavailable),
    ] {
        for body in ["", "<html>", "{}"] {
            kind.assert_refused(&reply(status, "", body), expected);
        }
    }
}

fn understands_its_vendors_refusals(kind: &Kind) {
    for (status, body, expected, code, wait) in kind.refusals {
        let error = kind.ask(&canned(reply(status, "", body))).expect_err(body);
        let found = (error.kind(), error.code(), error.retry_after().map(|wait| wait.as_secs()));
        assert_eq!(found, (*expected, *code, *wait), "{}: {status} {body}: {error}", kind.name);
    }
}

fn is_another_when_any_input_differs(kind: &Kind) {
    let url = "https://host.example";
    let same = [(kind.provider)(url), (kind.provider)(url)];
    assert_eq!(same[0].identity(), same[1].identity(), "{}", kind.name);
    let others = (kind.others)(url);
    assert!(!others.is_empty(), "{}", kind.name);
    let mut all: Vec<_> = others.iter().map(|other| other.identity()).collect();
    all.extend([same[0].identity(), (kind.provider)("https://other.example").identity()]);
    for (at, one) in all.iter().enumerate() {
        for another in &all[at + 1..] {
            assert_ne!(one, another, "{}", kind.name);
        }
    }
}

fn hides_its_secrets(kind: &Kind) {
    let provider = (kind.provider)("https://user:hunter2@host.example");
    let shown = format!("{provider:?} {:?} {:?}", provider.identity(), provider.renewal());
    assert!(!shown.contains("hunter2"), "{}: {shown}", kind.name);
    assert_eq!(provider.check().unwrap_err().kind(), ErrorKind::Config, "{}", kind.name);
    let provider = (kind.provider)("https://host.example");
    assert_eq!(provider.check().err().map(|error| error.to_string()), None, "{}", kind.name);
    let provider = (kind.provider)("http://host.example");
    assert_eq!(provider.check().unwrap_err().kind(), ErrorKind::Config, "{}: plain HTTP", kind.name);
}

fn says_what_is_missing(kind: &Kind) {
    let host = canned(reply("200 OK", "", &kind.granting("t-1", "7200")));
    if kind.needs_state {
        let parent = kind.needs_parent.then(|| parent("hunter2-parent"));
        let error = (kind.provider)(&host.url()).fetch(&context().with_parent(parent)).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::TicketRequired | ErrorKind::SignInRequired),
            "{}: {error}",
            kind.name
        );
    }
    if kind.needs_parent {
        let error = (kind.provider)(&host.url()).fetch(&context().with_renewal_secret(Some("s".into()))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{}: {error}", kind.name);
    }
}
