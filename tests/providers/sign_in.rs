//! A person's sign-in: dead refresh tokens, and the device authorization grant.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evertoken::provider::Provider;
use evertoken::provider::oauth2::ClientAuth;
use evertoken::{DeviceSignIn, Error, ErrorKind, OAuth2, RefreshToken, TokenManager};

use crate::common::http_host::{Canned, answering, canned, host, reply};
use crate::kinds::context;

fn refused(status: &str, body: &str) -> Error {
    let host = canned(reply(status, "", body));
    let provider = RefreshToken::new(OAuth2::public(host.url(), "id"), "first");
    provider.fetch(&context().with_renewal_secret(Some("latest".into()))).unwrap_err()
}

#[test]
fn a_dead_refresh_token_asks_for_a_new_sign_in_whatever_word_and_status_the_server_has_for_it() {
    for word in [
        "invalid_grant",
        "bad_refresh_token",
        "invalid_refresh_token",
        "token_expired",
        "token_revoked",
        "expired_token",
        "refresh_token_expired",
        "invalid_token",
        "account_inactive",
        "interaction_required",
        "login_required",
        "consent_required",
        "account_selection_required",
    ] {
        for status in ["200 OK", "400 Bad Request", "401 Unauthorized", "403 Forbidden"] {
            let error = refused(status, &format!(r#"{{"ok":false,"error":"{word}"}}"#));
            assert_eq!((error.kind(), error.code()), (ErrorKind::SignInRequired, Some(word)), "{status}");
            assert!(!error.is_retryable() && error.to_string().contains("sign in again"), "{error}");
        }
    }
}

#[test]
fn an_unknown_refusal_with_http_400_or_401_is_not_tried_again_at_once() {
    // Huawei's refusals are numbers.
    for body in [r#"{"error":"E17"}"#, r#"{"error":1101,"sub_error":12304}"#] {
        for status in ["400 Bad Request", "401 Unauthorized"] {
            let error = refused(status, body);
            assert_eq!(error.kind(), ErrorKind::InvalidCredentials, "{status}");
            assert!(error.code().is_some() && !error.is_retryable(), "{error}");
        }
        assert_eq!(refused("500 Oops", body).kind(), ErrorKind::Unavailable);
    }
    let host = canned(reply("400 Bad Request", "", r#"{"error":"E17"}"#));
    let tokens = TokenManager::new(RefreshToken::new(OAuth2::public(host.url(), "id"), "first"));
    for _ in 0..3 {
        let error = tokens.token().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidCredentials, Some("E17")));
    }
    assert_eq!(host.calls(), 1, "the cooldown");
}

const PROMPT: &str = r#"{"device_code":"d","user_code":"A-B","verification_uri":"https://h.example/","interval":1,
                         "expires_in":600}"#;

fn form(host: &Canned, call: usize) -> String {
    host.requests()[call].split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn the_device_request_always_names_the_client() {
    let basic = |url: String| OAuth2::new(url, "the-id", "s");
    for client in [
        basic as fn(String) -> OAuth2,
        |url| OAuth2::new(url, "the-id", "s").auth(ClientAuth::BasicRaw),
        |url| OAuth2::new(url, "the-id", "s").auth(ClientAuth::Post),
        |url| OAuth2::new(url, "the-id", "s").auth(ClientAuth::ClientSecretJwt),
        |url| OAuth2::new(url, "the-id", "s").param("client_id", "the-id"),
        |url| OAuth2::public(url, "the-id"),
    ] {
        let host = answering(PROMPT);
        DeviceSignIn::new(host.url() + "/device", client(host.url())).begin().unwrap();
        let form = form(&host, 0);
        assert_eq!(form.matches("client_id=the-id").count(), 1, "{form}");
    }
}

#[test]
fn a_device_code_that_the_server_says_expired_asks_for_a_new_sign_in() {
    let calls = AtomicUsize::new(0);
    let host = host(move |mut stream| {
        let bytes = match calls.fetch_add(1, Ordering::SeqCst) {
            0 => reply("200 OK", "", PROMPT),
            _ => reply("400 Bad Request", "", r#"{"error":"expired_token"}"#),
        };
        stream.write_all(&bytes).unwrap();
    });
    let prompt = DeviceSignIn::new(host.url() + "/device", OAuth2::public(host.url(), "id")).begin().unwrap();
    assert_expired(prompt.wait().unwrap_err());
    assert_eq!(host.calls(), 2);
}

#[test]
fn a_device_code_whose_time_has_passed_asks_for_a_new_sign_in() {
    let host = answering(&PROMPT.replace("600", "1").replace("\"interval\":1", "\"interval\":300"));
    let mut prompt = DeviceSignIn::new(host.url() + "/device", OAuth2::public(host.url(), "id")).begin().unwrap();
    // The caller's own wait ends first, which is no error.
    assert!(prompt.wait_for(Duration::ZERO).unwrap().is_none());
    assert_expired(prompt.wait().unwrap_err());
    assert_eq!(host.calls(), 1);
}

fn assert_expired(error: Error) {
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(error.to_string().starts_with("device sign-in: the code expired; start the sign-in again"), "{error}");
    assert!(!error.is_retryable());
}
