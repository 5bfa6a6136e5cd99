//! Records that this version cannot read, records of other credentials, and keys that a program chooses.

use evertoken::provider::Identity;
use evertoken::store::{Expected, Store};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind};

use crate::common::wait::*;
use crate::group::Group;

#[test]
fn a_record_that_cannot_be_read_is_replaced() {
    for bad in [&b"garbage"[..], b"{}", b"[1]", b"", b"{\"v\":99}", &[b'x'; 100_000]] {
        let group = Group::new();
        let tokens = group.manager();
        group.store.inner.compare_and_swap(tokens.key(), Expected::Any, Some((bad, HOUR))).unwrap();
        assert_eq!(text(&tokens), "token-1");
        assert_eq!((text(&group.manager()), group.provider.calls()), ("token-1".to_owned(), 1));
    }
}

#[test]
fn an_unknown_recorded_failure_leaves_the_recorded_token_in_use() {
    for failure in [
        r#"{"kind":"Denied","exact_kind":"OfALaterVersion","message":"x","code":null,"status":null,"retry_ms":1,"count":1}"#,
        r#"{"kind":"OfALaterVersion","message":"x","code":null,"status":null,"retry_ms":1,"count":1}"#,
        r#"{"kind":{"of":"a later version"}}"#,
        "[]",
    ] {
        let group = Group::new();
        assert_eq!(text(&group.manager()), "token-1");
        let entry = group.record().unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(entry.bytes()).unwrap();
        record["failure"] = serde_json::from_str(failure).unwrap();
        let bytes = record.to_string().into_bytes();
        let key = group.manager().key().clone();
        group.store.inner.compare_and_swap(&key, Expected::Any, Some((&bytes, entry.remaining()))).unwrap();
        assert_eq!(text(&group.manager()), "token-1", "{failure}");
        assert_eq!(group.provider.calls(), 1, "{failure}");
    }
}

#[test]
fn a_recorded_failure_keeps_the_words_of_the_first_version() {
    for (kind, word) in [
        (ErrorKind::Config, "Config"),
        (ErrorKind::InvalidCredentials, "Denied"),
        (ErrorKind::Forbidden, "NotAllowed"),
        (ErrorKind::Throttled, "Throttled"),
        (ErrorKind::TicketRequired, "TicketStale"),
        (ErrorKind::Unavailable, "Unavailable"),
        (ErrorKind::InvalidResponse, "Protocol"),
        (ErrorKind::Panicked, "Panicked"),
        (ErrorKind::SignInRequired, "Denied"),
    ] {
        let group = Group::new();
        group.provider.always_fail(Some(Error::new(kind, "this is a test")));
        let error = group.manager().token().unwrap_err();
        assert_eq!(error.kind(), kind);
        let record: serde_json::Value = serde_json::from_slice(group.record().unwrap().bytes()).unwrap();
        assert_eq!(record["failure"]["kind"], word);
        // Another manager reads the same kind from the record.
        assert_eq!(group.manager().token().unwrap_err().kind(), kind);
        assert_eq!(group.provider.calls(), 1, "{word}");
    }
}

#[test]
fn a_record_of_another_credential_under_the_same_key_is_not_used() {
    let group = Group::new();
    let stranger = FakeProvider::new().then_grant("a-strangers", HOUR).with_identity(Identity::new("stranger"));
    let theirs = builder(&stranger, &group.clock).store(group.store.clone()).build().unwrap();
    text(&theirs);
    let recorded = group.store.inner.read(theirs.key()).unwrap().unwrap();
    let ours = group.manager();
    group.store.inner.compare_and_swap(ours.key(), Expected::Any, Some((recorded.bytes(), HOUR))).unwrap();
    assert_eq!(text(&ours), "token-1");
}

#[test]
fn two_secrets_of_one_application_are_never_mixed() {
    let group = Group::new();
    let with_secret = |secret: &str, token: &str| {
        let identity = Identity::new("fake").part("app", "one").secret(&secret.into());
        let provider = FakeProvider::new().with_identity(identity).then_grant(token, HOUR);
        builder(&provider, &group.clock).store(group.store.clone()).build().unwrap()
    };
    let (old, new) = (with_secret("old", "t-old"), with_secret("new", "t-new"));
    assert_eq!((text(&old), text(&new)), ("t-old".to_owned(), "t-new".to_owned()));
}

#[test]
fn a_custom_key_is_used_unchanged() {
    let group = Group::new();
    let tokens =
        builder(&group.provider, &group.clock).store(group.store.clone()).key("wx:token:corp").build().unwrap();
    text(&tokens);
    let recorded = group.store.inner.read(tokens.key()).unwrap().unwrap();
    assert_eq!(tokens.key().as_str(), "wx:token:corp");
    let record: serde_json::Value = serde_json::from_slice(recorded.bytes()).unwrap();
    assert_eq!(record["access_token"], "token-1");
    assert!(record["expires_at"].as_u64().unwrap() > 1_700_000_000);
}
