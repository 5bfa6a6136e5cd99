//! A program with two kinds of cryptography in `rustls`, and with cookies in `ureq`.
#![cfg(all(test, target_os = "linux"))]

#[allow(dead_code, reason = "the main package uses more of it")]
#[path = "../common/http_host.rs"]
mod http_host;
#[allow(dead_code, reason = "the main package uses more of it")]
#[path = "../common/redis_server.rs"]
mod redis_server;

use evertoken::testing::FakeProvider;
use evertoken::{OAuth2, RedisConfig, RedisStore, TokenManager};
use http_host::{canned, reply};
use redis_server::{RedisServer, until};

#[test]
fn tls_does_not_panic_where_rustls_cannot_tell_which_cryptography_to_use() {
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    // What a library meets that leaves the choice to rustls.
    assert!(std::panic::catch_unwind(rustls::ClientConfig::builder).is_err());
    let (server, certificates) = RedisServer::tls();
    let provider = FakeProvider::new();
    let manager = || {
        let config = RedisConfig::from_url(&server.url()).unwrap().root_certificates(&certificates.ca_pem);
        TokenManager::builder(provider.clone()).store(RedisStore::new(config).unwrap()).build().unwrap()
    };
    let tokens = manager();
    assert_eq!(tokens.token().unwrap().expose(), "token-1");
    until("the change is recorded", || server.ask::<usize>(&["EXISTS", tokens.key().as_str()]).unwrap() == 1);
    assert_eq!(manager().token().unwrap().expose(), "token-1");
    assert_eq!(provider.calls(), 1);
}

#[test]
fn cookies_of_one_credential_never_travel_with_another() {
    let granted = r#"{"access_token":"t","expires_in":3600}"#;
    let host = canned(reply("200 OK", "set-cookie: session=of-the-first; path=/\r\n", granted));
    // An agent of `ureq` keeps the cookie in this program, as the test assumes.
    let agent = ureq::Agent::new_with_defaults();
    for _ in 0..2 {
        agent.get(host.url()).call().unwrap();
    }
    assert!(host.requests()[1].contains("session=of-the-first"), "{}", host.requests()[1]);
    for client in ["first", "second"] {
        let provider = OAuth2::new(format!("{}/token", host.url()), client, "secret");
        assert_eq!(TokenManager::new(provider).token().unwrap().expose(), "t");
    }
    let requests = host.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests[2..].iter().all(|request| !request.contains("cookie")), "{requests:?}");
}
