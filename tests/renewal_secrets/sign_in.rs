//! A person signs in, on this device or on another one.

use std::time::Instant;

use evertoken::testing::FakeVendor;
use evertoken::{DeviceSignIn, MemoryStore, OAuth2, RefreshToken, TokenManager};

use crate::common::http_host::answering;
use crate::common::wait::*;

/// A program may wait in many pieces that are shorter than the poll interval.
#[test]
fn many_short_waits_complete_a_sign_in() {
    let host = FakeVendor::oauth2().device_interval(SECOND);
    let client = OAuth2::public(host.token_url(), "client");
    let mut prompt = DeviceSignIn::new(host.url() + "/device_authorization", client).begin().unwrap();
    host.approve(prompt.user_code());
    let asked = Instant::now();
    let mut signed_in = None;
    while signed_in.is_none() && asked.elapsed() < SECOND * 4 {
        signed_in = prompt.wait_for(SECOND / 4).unwrap();
    }
    assert!(signed_in.is_some(), "it was asked {} times", host.calls_to("/token"));
}

/// Characters that turn the direction of text are no control characters for `char::is_control`.
#[test]
fn a_user_code_with_text_direction_characters_is_refused() {
    for user_code in ["AB\\u202eDC", "A\\u2066B", "A\\u200bB"] {
        let body = format!(
            r#"{{"device_code":"d","user_code":"{user_code}","verification_uri":"https://h/","expires_in":60}}"#
        );
        let host = answering(&body).url();
        let client = OAuth2::public(host.clone() + "/token", "client");
        let begun = DeviceSignIn::new(host + "/device", client).begin();
        assert!(begun.is_err(), "{user_code}: shown as {:?}", begun.unwrap().user_code());
    }
}

/// A poll that is in flight when the wait ends may exceed it by one exchange.
#[test]
fn a_wait_for_a_sign_in_is_at_most_one_exchange_longer_than_it_says() {
    let body = r#"{"device_code":"d","user_code":"A","verification_uri":"https://h/","expires_in":60,"interval":1}"#;
    let host = answering(body).url();
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let token_url = format!("http://127.0.0.1:{}/token", hanging.local_addr().unwrap().port());
    let client = OAuth2::public(token_url, "client");
    let mut prompt = DeviceSignIn::new(host + "/device", client).begin().unwrap();
    let asked = Instant::now();
    assert!(prompt.wait_for(SECOND * 3 / 2).unwrap().is_none());
    let took = asked.elapsed();
    assert!(took < SECOND * 10, "{took:?} in place of 6.5 s");
}

/// Under a custom key the record has no identity, and the new sign-in starts with number 0, below the number of the
/// last sign-in. The new refresh token must not count as used.
#[test]
fn a_second_sign_in_under_a_custom_key_brings_a_token() {
    let host = FakeVendor::oauth2().another_refresh_token("client", "refresh-of-the-second-sign-in");
    let store = MemoryStore::new();
    let manager = |first: &str| {
        let provider = RefreshToken::new(OAuth2::public(host.token_url(), "client"), first);
        TokenManager::builder(provider).store(store.clone()).key("token-of-user-42").build().unwrap()
    };
    let before = manager("refresh-1");
    before.token().unwrap();
    drop(before);
    let after = manager("refresh-of-the-second-sign-in");
    // The token of the first sign-in, which the service refuses.
    after.reject(&after.token().unwrap()).unwrap();
    let got = after.token();
    assert!(got.is_ok(), "{}; used: {:?}", got.unwrap_err(), host.used_refresh_tokens());
}

/// The person has refused; later calls must not ask the server again.
#[test]
fn a_finished_sign_in_does_not_ask_the_server_again() {
    let host = FakeVendor::oauth2().device_interval(SECOND);
    let client = OAuth2::public(host.token_url(), "client");
    let mut prompt = DeviceSignIn::new(host.url() + "/device_authorization", client).begin().unwrap();
    host.deny(prompt.user_code());
    let first = prompt.wait_for(SECOND * 3).unwrap_err();
    let asked = host.calls_to("/token");
    for _ in 0..5 {
        let _ = prompt.wait_for(SECOND / 10);
    }
    assert_eq!(host.calls_to("/token"), asked, "{first}");
}
