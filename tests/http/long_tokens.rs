//! Tokens of up to 64 KiB, from the token endpoint through each store to the service.

use std::time::Duration;

use evertoken::provider::{Context, Grant, Provider, TokenPlacement};
use evertoken::store::Store;
use evertoken::{ErrorKind, FileStore, HttpConfig, MemoryStore, OAuth2, TokenManager, provider};
use ureq::Agent;
use ureq::http::Request;

use crate::common::http_host::{answering, canned, reply};

const LONGEST: usize = 64 * 1024;

fn longest() -> String {
    // Characters that JSON and base64 escape or encode are no longer than the text itself.
    "eyJhbGciOi_-.~+/".repeat(LONGEST / 16)
}

fn tokens(text: String, placement: TokenPlacement) -> TokenManager {
    let grant = move |_: &Context| Ok(Grant::new(text.clone(), Duration::from_secs(3600)));
    TokenManager::new(provider::from_fn("demo", grant).placement(placement))
}

#[test]
fn a_token_of_64_kib_is_granted_and_one_byte_more_is_not() {
    let fetch = |token: &str| {
        let host = answering(&granting(token));
        let context = Context::new(HttpConfig::default(), Duration::from_secs(10));
        OAuth2::new(host.url(), "client", "secret").fetch(&context)
    };
    assert_eq!(fetch(&longest()).unwrap().token().expose(), longest());
    let error = fetch(&(longest() + "x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(error.to_string().contains("a token of more than 64 KiB"), "{error}");
}

#[test]
fn a_token_of_64_kib_arrives_in_a_header_and_is_too_long_for_a_query() {
    let service = canned(reply("200 OK", "", ""));
    let request = || Request::get(service.url()).body(()).unwrap();
    let agent = Agent::new_with_defaults();
    tokens(longest(), TokenPlacement::bearer()).send(&agent, request()).unwrap();
    assert!(service.request().1.contains(&format!("authorization: Bearer {}", longest())));
    let error = tokens(longest(), TokenPlacement::query("token")).send(&agent, request()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("the URL is too long for a token in its query"), "{error}");
}

#[test]
fn a_header_that_is_too_long_is_the_services_to_refuse() {
    let service = canned(reply("431 Request Header Fields Too Large", "", ""));
    let tokens = tokens(longest(), TokenPlacement::bearer());
    let response = tokens.send(&Agent::new_with_defaults(), Request::get(service.url()).body(()).unwrap()).unwrap();
    assert_eq!(response.status(), 431);
}

/// Two managers on one store: the second one has the token of the first.
fn assert_shared(store: impl Store + Clone) {
    let host = answering(&granting(&longest()));
    for _ in 0..2 {
        let provider = OAuth2::new(host.url(), "client", "secret");
        let tokens = TokenManager::builder(provider).store(store.clone()).build().unwrap();
        assert_eq!(tokens.token().unwrap().expose(), longest());
    }
    assert_eq!(host.calls(), 1);
}

fn granting(token: &str) -> String {
    format!(r#"{{"access_token":"{token}","expires_in":7200,"token_type":"Bearer"}}"#)
}

#[test]
fn a_token_of_64_kib_is_shared_through_memory_and_files() {
    assert_shared(MemoryStore::new());
    let folder = tempfile::tempdir().unwrap();
    assert_shared(FileStore::at(folder.path().join("files")));
}

#[cfg(feature = "encryption")]
#[test]
fn a_token_of_64_kib_is_shared_through_encrypted_files() {
    use evertoken::{EncryptedStore, EncryptionKey};

    let folder = tempfile::tempdir().unwrap();
    let files = FileStore::at(folder.path().join("files"));
    assert_shared(EncryptedStore::new(files, EncryptionKey::new(std::array::from_fn(|index| index as u8)).unwrap()));
}
