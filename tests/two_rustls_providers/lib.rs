//! A program with two kinds of cryptography in it.
#![cfg(all(test, target_os = "linux"))]

#[path = "../common/redis.rs"]
mod redis_server;

use evertoken::{RedisConfig, RedisStore, TokenManager};
use evertoken::testing::FakeProvider;
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
    until("it is recorded", || server.ask::<usize>(&["EXISTS", tokens.key().as_str()]).unwrap() == 1);
    assert_eq!(manager().token().unwrap().expose(), "token-1");
    assert_eq!(provider.calls(), 1);
}
