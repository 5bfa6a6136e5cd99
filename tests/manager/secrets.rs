//! Promise 8: no printable output of the library shows a secret.

use evertoken::provider::{Context, Grant, Identity, Profile, Provider, ServiceResponse, TokenPlacement};
use evertoken::store::{Entry, Expected, Store};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor, VendorFault};
use evertoken::ureq::http::HeaderMap;
use evertoken::{Error, ErrorKind, HttpConfig, MemoryStore, OAuth2, Secret, TokenManager, TokenPool, WeCom};

use crate::common::logs::{logged, record_logs};
use crate::common::wait::*;

/// Markers of secrets.
const SECRET: &str = "s3cr3t-of-the-app";

const TOKEN: &str = "t0ken-in-clear-text";

/// Panics if the text contains a secret, or a part of one that would help an attacker.
fn assert_clean(shown: &str) {
    for secret in [SECRET, TOKEN, "s3cr3t", "t0ken", "czNjcjN0"] {
        assert!(!shown.contains(secret), "{secret} in: {shown}");
    }
}

/// The `{:?}` and `{:#?}` output of all arguments.
macro_rules! shown {
    ($($value:expr),* $(,)?) => { [$(format!("{:?} {:#?}", $value, $value)),*].join("\n") };
}

#[test]
fn promise_8_no_public_type_shows_a_secret() {
    record_logs();
    let host = FakeVendor::wecom().credential("corp", SECRET).granting(TOKEN, 7200);
    let wecom = WeCom::new("corp", SECRET).base_url(host.url());
    let oauth2 = OAuth2::new(host.token_url(), "client", SECRET).param("client_secret_again", SECRET);
    let identity = wecom.identity();
    let context = Context::new(HttpConfig::default().proxy(format!("http://user:{SECRET}@127.0.0.1:1")), SECOND);
    let grant = Grant::new(TOKEN, HOUR);
    let request = context.http().get(&host.url()).query("corpsecret", SECRET).bearer(&SECRET.into());
    let builder = TokenManager::builder(wecom.clone());
    let shown_builder = shown!(builder);
    let tokens = builder.store(MemoryStore::new()).build().unwrap();
    let token = tokens.token().unwrap();
    assert_eq!(token.expose(), TOKEN);
    let headers = HeaderMap::new();
    let shown = [
        shown!(Secret::from(SECRET), token, wecom, oauth2, identity, context, grant, request),
        shown_builder,
        shown!(tokens, tokens.status(), tokens.metrics(), tokens.key(), tokens.events()),
        shown!(
            Entry::new(TOKEN.as_bytes().to_vec(), HOUR),
            TokenPool::<u8>::new(),
            TokenPlacement::bearer(),
            Profile::default()
        ),
        shown!(host, host.requests()),
        shown!(Error::new(ErrorKind::InvalidCredentials, "x").with_code(format!("{SECRET} {TOKEN}"))),
        format!("{} {} {}", tokens.status(), tokens.metrics(), tokens.key()),
        shown!(ServiceResponse::new(200, &headers, TOKEN.as_bytes()).status()),
        token.fingerprint().to_owned(),
    ];
    shown.iter().for_each(|shown| assert_clean(shown));
}

#[test]
fn promise_8_no_error_shows_a_secret_whatever_the_vendor_does() {
    record_logs();
    for outage in [
        VendorFault::Status(500),
        VendorFault::Drop,
        VendorFault::Garbage,
        VendorFault::HalfReply,
        VendorFault::Code(40001),
    ] {
        let host = FakeVendor::wecom().credential("corp", SECRET).granting(TOKEN, 7200);
        host.fail_with(outage);
        let error = TokenManager::new(WeCom::new("corp", SECRET).base_url(host.url())).token().unwrap_err();
        assert_clean(&format!("{error} {error:?} {:?}", std::error::Error::source(&error)));
    }
    for url in ["https://nowhere.invalid", "http://not-loopback.example", "::bad::", "https://127.0.0.1:1"] {
        let tokens = TokenManager::new(WeCom::new("corp", SECRET).base_url(format!("{url}/{SECRET}")));
        let error = tokens.token_within(3 * SECOND).unwrap_err();
        assert_clean(&format!("{error} {error:?}"));
    }
}

#[test]
fn promise_8_no_event_and_no_log_shows_a_secret() {
    record_logs();
    let clock = FakeClock::new();
    let provider = FakeProvider::new()
        .then_grant(TOKEN, HOUR)
        .then_unchanged()
        .then_fail(Error::new(ErrorKind::InvalidCredentials, "no"));
    let tokens = builder(&provider, &clock).store(MemoryStore::new()).log_metrics_every(SECOND).build().unwrap();
    let events = tokens.events();
    let token = tokens.token().unwrap();
    tokens.reject(&token).unwrap();
    tokens.token().unwrap();
    tokens.force_refresh().unwrap_err();
    tokens.invalidate().unwrap();
    tokens.token().unwrap();
    let events_shown: Vec<_> = events.try_iter().map(|event| format!("{event:?} {}", event.kind)).collect();
    assert!(events_shown.len() >= 5, "{events_shown:?}");
    events_shown.iter().for_each(|events_shown| assert_clean(events_shown));
    let logged = logged();
    assert!(logged.contains("evertoken fake"), "the log is recorded: {logged}");
    assert_clean(&logged);
}

#[test]
fn promise_8_a_panic_of_a_provider_is_not_quoted() {
    let provider = FakeProvider::new().then(|_| panic!("{}", SECRET));
    let error = TokenManager::new(provider).token().unwrap_err();
    assert_clean(&format!("{error} {error:?}"));
}

#[test]
fn promise_8_the_key_in_a_store_holds_no_secret() {
    let store = MemoryStore::new();
    let provider = WeCom::new("corp", SECRET);
    let tokens = TokenManager::builder(provider).store(store.clone()).build().unwrap();
    assert_clean(tokens.key().as_str());
    assert!(matches!(
        store.compare_and_swap(tokens.key(), Expected::Absent, None),
        Ok(evertoken::store::SwapOutcome::Done(None))
    ));
}

#[test]
fn the_metrics_are_logged_as_often_as_configured() {
    record_logs();
    let provider = FakeProvider::new().with_identity(Identity::new("reporting"));
    let clock = FakeClock::new();
    let tokens = builder(&provider, &clock).log_metrics_every(60 * SECOND).build().unwrap();
    tokens.token().unwrap();
    let reports = || {
        let logged = logged();
        let mine = logged.lines().filter(|line| line.contains(tokens.key().as_str()));
        mine.filter(|line| line.contains("token performance report")).count()
    };
    for count in 1..=3 {
        clock.advance(60 * SECOND);
        eventually("a report is logged", || reports() >= count);
    }
    assert_eq!(reports(), 3);
}

#[test]
fn neither_oauth2_nor_wecom_shows_the_password_or_query_of_its_url() {
    let url = "https://user:hunter2@host/t?key=hunter2#hunter2";
    let oauth2 = OAuth2::new(url, "id", "secret").resource(url).audience(url);
    let wecom = WeCom::new("corp", "secret").base_url(url);
    let shown = format!("{oauth2:?} {wecom:?} {:?} {:?}", oauth2.identity(), wecom.identity());
    assert!(!shown.contains("hunter2") && shown.contains("https://host/t"), "{shown}");
}
