//! OAuth 2.0: refresh tokens, devices and assertions.

use evertoken::testing::{FakeClock, FakeVendor, VendorFault};
use evertoken::{OAuth2, TokenManager};
use serde_json::{Value, json};

use super::{ASSERTION, post_form, seconds, status_and_body};

fn ask(host: &FakeVendor, form: &str) -> (u16, Value) {
    status_and_body(post_form(&host.token_url(), form))
}

fn error((status, body): (u16, Value)) -> (u16, String) {
    (status, body["error"].as_str().unwrap().to_owned())
}

fn refresh(host: &FakeVendor, token: &str) -> (u16, Value) {
    ask(host, &format!("grant_type=refresh_token&client_id=client&refresh_token={token}"))
}

fn refused() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

#[test]
fn a_refresh_token_works_once_and_brings_the_next() {
    let host = FakeVendor::oauth2();
    let expected = json!({
        "access_token": "token-1", "token_type": "Bearer", "expires_in": 7200, "refresh_token": "refresh-2",
    });
    assert_eq!(refresh(&host, "refresh-1"), (200, expected));
    let with_secret = "grant_type=refresh_token&client_id=client&client_secret=secret&refresh_token=refresh-2";
    assert_eq!(ask(&host, with_secret).1["refresh_token"], "refresh-3");
    assert_eq!(refresh(&host, "refresh-3").1["refresh_token"], "refresh-4");
    assert!(host.is_valid("token-1"));
    assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3"]);
}

#[test]
fn reuse_of_a_refresh_token_ends_its_whole_sign_in() {
    let host = FakeVendor::oauth2().another_refresh_token("client", "other");
    let heir = refresh(&host, "refresh-1").1["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(error(refresh(&host, "refresh-1")), refused());
    assert_eq!(error(refresh(&host, &heir)), refused());
    assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-1", &heir]);
    assert_eq!(refresh(&host, "other").0, 200, "another sign-in goes on");
    assert!(host.is_valid("token-1"), "what it brought lives on");
}

#[test]
fn a_refresh_token_of_another_client_or_a_revoked_one_is_refused() {
    let host = FakeVendor::oauth2().another_credential("client-2", "secret");
    let theirs = "grant_type=refresh_token&client_id=client-2&refresh_token=refresh-1";
    assert_eq!(error(ask(&host, theirs)), refused());
    assert_eq!(error(refresh(&host, "else")), refused());
    assert_eq!(error(refresh(&host, "")), (400, "invalid_request".into()));
    let stranger = "grant_type=refresh_token&client_id=else&refresh_token=refresh-1";
    assert_eq!(error(ask(&host, stranger)), (401, "invalid_client".into()));
    let next = refresh(&host, "refresh-1").1["refresh_token"].as_str().unwrap().to_owned();
    host.revoke_refresh_tokens();
    assert_eq!(error(refresh(&host, &next)), refused());
    assert_eq!(host.granted(), ["token-1"]);
}

#[test]
fn refresh_tokens_stay_where_they_do_not_rotate() {
    let host = FakeVendor::oauth2().rotating(false);
    for _ in 0..2 {
        let (status, body) = refresh(&host, "refresh-1");
        assert_eq!((status, &body["refresh_token"]), (200, &Value::Null));
    }
    assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-1"]);
}

#[test]
fn a_refresh_whose_reply_is_lost_has_used_its_token() {
    let host = FakeVendor::oauth2();
    host.fail_with(VendorFault::HalfReply);
    let form = "grant_type=refresh_token&client_id=client&refresh_token=refresh-1";
    assert!(post_form(&host.token_url(), form).is_err());
    host.recover();
    assert_eq!(error(refresh(&host, "refresh-1")), refused());
}

#[test]
fn an_assertion_takes_the_place_of_a_secret() {
    let host = FakeVendor::oauth2();
    let form = format!("grant_type=client_credentials&{ASSERTION}");
    assert_eq!(ask(&host, &form).1["access_token"], "token-1");
    assert_eq!(ask(&host, &format!("{form}&client_id=client")).1["access_token"], "token-2");
    assert_eq!(error(ask(&host, &format!("{form}&client_id=else"))), (401, "invalid_client".into()));
    let torn = form.replace(".c2ln", "");
    assert_eq!(error(ask(&host, &torn)), (401, "invalid_client".into()));
    let without_algorithm = form.replace("eyJhbGciOiJQUzI1NiJ9", "e30");
    assert_eq!(error(ask(&host, &without_algorithm)), (401, "invalid_client".into()));
    let both = format!("{form}&client_id=client&client_secret=secret");
    assert_eq!(error(ask(&host, &both)), (400, "invalid_request".into()));
    let unproved = "grant_type=client_credentials&client_id=client";
    assert_eq!(error(ask(&host, unproved)), (401, "invalid_client".into()));
}

#[test]
fn an_assertion_is_a_grant_of_its_own() {
    let host = FakeVendor::oauth2();
    let form = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c&scope=s";
    let (status, body) = ask(&host, form);
    assert_eq!((status, &body["access_token"], &body["scope"]), (200, &"token-1".into(), &"s".into()));
    assert_eq!(host.requests()[0].form("assertion").unwrap(), "a.b.c");
    assert_eq!(error(ask(&host, &form.replace("a.b.c", ""))), (400, "invalid_request".into()));
    assert_eq!(error(ask(&host, &format!("{form}&client_id=else"))), (401, "invalid_client".into()));
}

/// A device that has asked for a code, and the code that it shows.
fn begin(host: &FakeVendor) -> (String, String) {
    let url = format!("{}/device_authorization", host.url());
    let (status, body) = status_and_body(post_form(&url, "client_id=client&scope=read"));
    assert_eq!((status, &body["expires_in"]), (200, &600.into()));
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let (page, code) = (text("verification_uri"), text("user_code"));
    assert_eq!(page, format!("{}/device", host.url()));
    assert_eq!(text("verification_uri_complete"), format!("{page}?user_code={code}"));
    (text("device_code"), code)
}

fn poll(host: &FakeVendor, device_code: &str) -> (u16, Value) {
    ask(host, &format!("grant_type={DEVICE_CODE}&client_id=client&device_code={device_code}"))
}

const DEVICE_CODE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

fn says(word: &str) -> (u16, String) {
    (400, word.to_owned())
}

#[test]
fn a_device_waits_until_the_person_has_approved() {
    let clock = FakeClock::new();
    let host = FakeVendor::oauth2().clock(&clock).another_credential("client-2", "secret");
    let (device, user) = begin(&host);
    let (other, _) = begin(&host);
    let theirs = format!("grant_type={DEVICE_CODE}&client_id=client-2&device_code={device}");
    assert_eq!(error(ask(&host, &theirs)), says("invalid_grant"));
    assert_eq!(error(poll(&host, &device)), says("authorization_pending"));
    clock.advance(seconds(5));
    host.approve(&user);
    let (status, body) = poll(&host, &device);
    assert_eq!((status, &body["access_token"], &body["scope"]), (200, &"token-1".into(), &"read".into()));
    let refresh_token = body["refresh_token"].as_str().unwrap();
    assert_eq!(refresh(&host, refresh_token).0, 200);
    assert_eq!(error(poll(&host, &device)), says("invalid_grant"), "it is good once");
    assert_eq!(error(poll(&host, &other)), says("authorization_pending"));
    assert_eq!(host.calls_to("/device_authorization"), 2);
    assert_eq!(host.calls(), 6, "to begin is not to ask for a token");
}

#[test]
fn a_device_that_polls_too_fast_is_slowed_down_for_good() {
    let clock = FakeClock::new();
    let host = FakeVendor::oauth2().clock(&clock);
    let (device, user) = begin(&host);
    assert_eq!(error(poll(&host, &device)), says("authorization_pending"));
    clock.advance(seconds(4));
    host.approve(&user);
    assert_eq!(error(poll(&host, &device)), says("slow_down"));
    clock.advance(seconds(9));
    assert_eq!(error(poll(&host, &device)), says("slow_down"), "it is ten seconds now");
    clock.advance(seconds(15));
    assert_eq!(poll(&host, &device).0, 200);
}

#[test]
fn a_device_learns_of_a_denial_and_of_an_expired_code() {
    let clock = FakeClock::new();
    let host = FakeVendor::oauth2().clock(&clock).device_interval(seconds(1));
    let (denied, user) = begin(&host);
    let (late, _) = begin(&host);
    host.deny(&user);
    assert_eq!(error(poll(&host, &denied)), says("access_denied"));
    assert_eq!(error(poll(&host, &late)), says("authorization_pending"));
    clock.advance(seconds(1));
    assert_eq!(error(poll(&host, &late)), says("authorization_pending"));
    clock.advance(seconds(599));
    assert_eq!(error(poll(&host, &late)), says("expired_token"));
    assert_eq!(error(poll(&host, "else")), says("invalid_grant"));
    let anonymous = status_and_body(post_form(&format!("{}/device_authorization", host.url()), "scope=read"));
    assert_eq!(error(anonymous), (401, "invalid_client".into()));
    assert!(host.granted().is_empty());
}

#[test]
#[should_panic(expected = "no device shows CODE-9999")]
fn a_code_that_no_device_shows_cannot_be_approved() {
    FakeVendor::oauth2().approve("CODE-9999");
}

#[test]
fn a_manager_takes_tokens_from_the_fake_vendor() {
    let host = FakeVendor::oauth2();
    let tokens = TokenManager::new(OAuth2::new(host.token_url(), "client", "secret"));
    assert_eq!(tokens.token().unwrap().expose(), "token-1");
    assert!(host.used_refresh_tokens().is_empty());
}
