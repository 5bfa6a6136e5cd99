//! OAuth 2.0: client credentials, assertions, Google.

use std::fs;
use std::time::Duration;

use evertoken::provider::Provider;
use evertoken::provider::oauth2::{ClientAuth, JwtBearer, SigningKey};
use evertoken::testing::FakeClock;
use evertoken::{DeviceSignIn, ErrorKind, GoogleServiceAccount, OAuth2, RefreshToken, TokenManager};
use serde_json::json;

use crate::assertions::{
    Assertion, RSA, RSA_OTHER, RSA_SMALL, START, certificate_pem, ec, ec_pem, rsa, rsa_other, rsa_pkcs1,
};
use crate::common::http_host::{answering, canned, reply};
use crate::kinds::{Body, Kind, Refusal, assert_all, context};

const GRANTED: &str = r#"{"access_token":"t-1","expires_in":3600}"#;

const GRANTING: &str = r#"{"access_token":"TOKEN","token_type":"Bearer","expires_in":LIFETIME}"#;

const FORM: &[&str] = &["accept: application/json", "content-type: application/x-www-form-urlencoded"];

const BASIC: &[&str] = &[
    "accept: application/json",
    "content-type: application/x-www-form-urlencoded",
    // base64 of "id:hunter2"
    "authorization: Basic aWQ6aHVudGVyMg==",
];

const REFUSALS: &[Refusal] = &[
    ("401 Unauthorized", r#"{"error":"invalid_client"}"#, ErrorKind::InvalidCredentials, Some("invalid_client"), None),
    ("400 Bad Request", r#"{"error":"invalid_grant"}"#, ErrorKind::InvalidCredentials, Some("invalid_grant"), None),
    ("200 OK", r#"{"error":"invalid_scope"}"#, ErrorKind::Config, Some("invalid_scope"), None),
    (
        "400 Bad Request",
        r#"{"error":"unauthorized_client"}"#,
        ErrorKind::InvalidCredentials,
        Some("unauthorized_client"),
        None,
    ),
    ("400 Bad Request", r#"{"error":"slow_down"}"#, ErrorKind::Throttled, Some("slow_down"), Some(5)),
    ("429 Slow", "", ErrorKind::Throttled, None, Some(5)),
    ("400 Bad Request", r#"{"error":"server_error"}"#, ErrorKind::Unavailable, Some("server_error"), None),
    ("408 Late", "{}", ErrorKind::Unavailable, None, None),
];

const KINDS: &[Kind] = &[
    Kind {
        name: "oauth2",
        provider: |url| Box::new(OAuth2::new(format!("{url}/token"), "id", "hunter2").scope("a b")),
        others: |url| {
            let new = || OAuth2::new(format!("{url}/token"), "id", "hunter2");
            vec![
                Box::new(new()),
                Box::new(new().scope("a")),
                Box::new(new().scope("a b").audience("x")),
                Box::new(OAuth2::new(format!("{url}/token"), "id-2", "hunter2").scope("a b")),
                Box::new(OAuth2::new(format!("{url}/token"), "id", "hunter2-b").scope("a b")),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /token HTTP/1.1",
        headers: BASIC,
        body: Body::Exactly("grant_type=client_credentials&scope=a+b"),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "oauth2",
        provider: |url| Box::new(OAuth2::new(format!("{url}/token"), "id", "hunter2").auth(ClientAuth::Post)),
        others: |url| vec![Box::new(OAuth2::new(format!("{url}/token"), "id", "hunter2-b").auth(ClientAuth::Post))],
        needs_state: false,
        needs_parent: false,
        request: "POST /token HTTP/1.1",
        headers: FORM,
        body: Body::Exactly("grant_type=client_credentials&client_id=id&client_secret=hunter2"),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "oauth2",
        provider: |url| Box::new(secret_jwt(url, "hunter2")),
        others: |url| vec![Box::new(secret_jwt(url, "hunter2-b")), Box::new(secret_jwt(url, "hunter2").scope("a"))],
        needs_state: false,
        needs_parent: false,
        request: "POST /token HTTP/1.1",
        headers: FORM,
        body: Body::Checked(|body| {
            let assertion = client_assertion(body);
            assertion.assert_signed_with("hunter2");
            assert_eq!(assertion.header, json!({"alg": "HS256", "typ": "JWT"}));
            assert!(!body.contains("hunter2"));
        }),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "oauth2",
        provider: |url| Box::new(OAuth2::private_key_jwt(format!("{url}/token"), "id", rsa().key_id("k-1"))),
        others: |url| {
            let with = |key| OAuth2::private_key_jwt(format!("{url}/token"), "id", key);
            vec![
                Box::new(with(rsa_other())),
                Box::new(with(ec())),
                Box::new(with(rsa()).scope("a")),
                Box::new(OAuth2::private_key_jwt(format!("{url}/token"), "id-2", rsa())),
                Box::new(OAuth2::new(format!("{url}/token"), "id", "hunter2")),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /token HTTP/1.1",
        headers: FORM,
        body: Body::Checked(|body| {
            let assertion = client_assertion(body);
            assertion.assert_signed_by_rsa();
            assert_eq!(assertion.header, json!({"alg": "RS256", "typ": "JWT", "kid": "k-1"}));
        }),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "jwt-bearer",
        provider: |url| Box::new(bearer(url, rsa()).param("client_secret", "hunter2")),
        others: |url| {
            let new = || bearer(url, rsa()).param("client_secret", "hunter2");
            vec![
                Box::new(bearer(url, rsa())),
                Box::new(bearer(url, ec()).param("client_secret", "hunter2")),
                Box::new(bearer(url, rsa()).param("client_secret", "hunter2-b")),
                Box::new(new().issuer("another")),
                Box::new(new().subject("another")),
                Box::new(new().audience("another")),
                Box::new(new().scope("another")),
                Box::new(new().claim("a", "1")),
                Box::new(new().claim("a", "2")),
                Box::new(new().claim("b", "1")),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /token HTTP/1.1",
        headers: FORM,
        body: Body::Checked(|body| {
            let (assertion, form) = Assertion::in_form(body, "assertion");
            let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
            assert_eq!(form, format!("{grant}&assertion=ASSERTION&client_secret=hunter2"));
            assertion.assert_signed_by_rsa();
            assert_eq!(assertion.names(), ["aud", "exp", "iat", "iss", "jti", "sub"]);
            assert_eq!((&assertion.claims["iss"], &assertion.claims["sub"]), (&json!("issuer"), &json!("issuer")));
            assert!(assertion.claims["aud"].as_str().unwrap().ends_with("/token"));
        }),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "google",
        provider: |url| Box::new(google(url)),
        others: |url| {
            vec![
                Box::new(google(url).scope("another")),
                Box::new(google(url).subject("person@domain.example")),
                Box::new(of_json(url, &account("b@project.example", RSA))),
                Box::new(of_json(url, &account("a@project.example", RSA_OTHER))),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /token HTTP/1.1",
        headers: FORM,
        body: Body::Checked(|body| {
            let (assertion, form) = Assertion::in_form(body, "assertion");
            let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
            assert_eq!(form, format!("{grant}&assertion=ASSERTION"));
            assertion.assert_signed_by_rsa();
            assert_eq!(assertion.header, json!({"alg": "RS256", "typ": "JWT", "kid": "k-1"}));
            assert_eq!(assertion.names(), ["aud", "exp", "iat", "iss", "scope"]);
        }),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
];

fn secret_jwt(url: &str, secret: &str) -> OAuth2 {
    OAuth2::new(format!("{url}/token"), "id", secret).auth(ClientAuth::ClientSecretJwt)
}

fn bearer(url: &str, key: SigningKey) -> JwtBearer {
    JwtBearer::new(format!("{url}/token"), key).issuer("issuer")
}

/// The JSON file of a service account.
fn account(email: &str, key: &str) -> String {
    json!({
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "k-1",
        "private_key": key,
        "client_email": email,
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}

fn of_json(url: &str, json: &str) -> GoogleServiceAccount {
    GoogleServiceAccount::from_json(json).unwrap().scope("s1 s2").token_url(format!("{url}/token"))
}

fn google(url: &str) -> GoogleServiceAccount {
    of_json(url, &account("a@project.example", RSA))
}

/// The assertion of the client `id` in a form without further fields.
fn client_assertion(body: &str) -> Assertion {
    let (assertion, form) = Assertion::in_form(body, "client_assertion");
    assert_eq!(
        form,
        "grant_type=client_credentials&client_id=id\
         &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
         &client_assertion=ASSERTION"
    );
    assert_eq!(assertion.names(), ["aud", "exp", "iat", "iss", "jti", "nbf", "sub"]);
    assert_eq!((&assertion.claims["iss"], &assertion.claims["sub"]), (&json!("id"), &json!("id")));
    assertion
}

/// The assertions of two fetches, a hundred seconds apart by a clock that starts at `START`.
fn two_assertions(provider: impl Provider, requests: impl Fn() -> Vec<String>, field: &str) -> [Assertion; 2] {
    let clock = FakeClock::new();
    let manager = TokenManager::builder(provider).clock(clock.clone()).build().unwrap();
    manager.token().unwrap();
    clock.advance(Duration::from_secs(100));
    manager.invalidate().unwrap();
    manager.token().unwrap();
    let requests = requests();
    assert_eq!(requests.len(), 2);
    [0, 1].map(|at| {
        let (_, body) = requests[at].split_once("\r\n\r\n").unwrap();
        Assertion::in_form(body, field).0
    })
}

#[test]
fn every_kind_of_oauth2_does_what_is_expected_of_it() {
    assert_all(KINDS);
}

#[test]
fn a_client_assertion_is_new_for_each_request_and_good_for_five_minutes() {
    let host = answering(GRANTED);
    let url = format!("{}/token", host.url());
    let made = two_assertions(OAuth2::private_key_jwt(&url, "id", ec()), || host.requests(), "client_assertion");
    for (assertion, now) in made.iter().zip([START, START + 100]) {
        assertion.assert_signed_by_ec();
        assert_eq!(assertion.claims["aud"], url.as_str());
        assert_eq!(assertion.claims["iat"], now - 10);
        assert_eq!(assertion.claims["nbf"], now - 10);
        assert_eq!(assertion.claims["exp"], now + 300);
    }
    assert_ne!(made[0].jti(), made[1].jti());
}

#[test]
fn a_bearer_assertion_is_new_for_each_request_and_has_the_configured_claims() {
    let host = answering(GRANTED);
    let provider = bearer(&host.url(), rsa().pss().key_id("k-2"))
        .subject("person")
        .audience("https://login.example")
        .claim("scope", "impersonation");
    let made = two_assertions(provider, || host.requests(), "assertion");
    for (assertion, now) in made.iter().zip([START, START + 100]) {
        assertion.assert_signed_by_rsa();
        assert_eq!(assertion.header, json!({"alg": "PS256", "typ": "JWT", "kid": "k-2"}));
        assert_eq!(
            assertion.claims,
            json!({
                "iss": "issuer", "sub": "person", "aud": "https://login.example", "scope": "impersonation",
                "jti": assertion.jti(), "iat": now - 10, "exp": now + 300,
            })
        );
    }
    assert_ne!(made[0].jti(), made[1].jti());
}

#[test]
fn google_gets_the_claims_that_it_wants() {
    let host = answering(GRANTED);
    let provider = google(&host.url()).subject("person@domain.example");
    let made = two_assertions(provider, || host.requests(), "assertion");
    for (assertion, now) in made.iter().zip([START, START + 100]) {
        assertion.assert_signed_by_rsa();
        assert_eq!(
            assertion.claims,
            json!({
                "iss": "a@project.example", "sub": "person@domain.example", "scope": "s1 s2",
                "aud": "https://oauth2.googleapis.com/token", "iat": now - 10, "exp": now + 3590,
            })
        );
    }
}

#[test]
fn an_assertion_has_the_configured_audience() {
    let host = answering(GRANTED);
    let provider = OAuth2::private_key_jwt(host.url(), "id", rsa().pss()).assertion_audience("https://issuer.example");
    let _ = provider.fetch(&context()).unwrap();
    let (assertion, _) = Assertion::in_form(&host.request().2, "client_assertion");
    assert_eq!(
        (&assertion.claims["aud"], &assertion.header["alg"]),
        (&json!("https://issuer.example"), &json!("PS256"))
    );
    assertion.assert_signed_by_rsa();
}

#[test]
fn a_query_of_the_token_url_is_in_no_assertion() {
    let host = answering(GRANTED);
    let url = format!("{}/token?key=hunter2", host.url());
    let _ = OAuth2::private_key_jwt(&url, "id", rsa()).fetch(&context()).unwrap();
    let _ = JwtBearer::new(&url, rsa()).issuer("issuer").fetch(&context()).unwrap();
    for (request, field) in host.requests().iter().zip(["client_assertion", "assertion"]) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /token?key=hunter2 "), "{head}");
        assert_eq!(Assertion::in_form(body, field).0.claims["aud"], format!("{}/token", host.url()));
    }
    assert_eq!(host.calls(), 2);
}

#[test]
fn a_scope_of_a_bearer_assertion_goes_beside_it() {
    let host = answering(GRANTED);
    let _ = bearer(&host.url(), rsa()).scope("a b").param("client_id", "c").fetch(&context()).unwrap();
    let (assertion, form) = Assertion::in_form(&host.request().2, "assertion");
    assert!(form.ends_with("&assertion=ASSERTION&scope=a+b&client_id=c"), "{form}");
    assert_eq!(assertion.claims.get("scope"), None);
}

#[test]
fn a_refused_assertion_advises_to_check_the_clock() {
    let host = canned(reply("400 Bad Request", "", r#"{"error":"invalid_grant","error_description":"hunter2"}"#));
    for error in [
        google(&host.url()).fetch(&context()).unwrap_err(),
        bearer(&host.url(), rsa()).fetch(&context()).unwrap_err(),
        OAuth2::private_key_jwt(host.url(), "id", rsa()).fetch(&context()).unwrap_err(),
        secret_jwt(&host.url(), "secret").fetch(&context()).unwrap_err(),
    ] {
        assert_eq!(
            (error.kind(), error.code(), error.status()),
            (ErrorKind::InvalidCredentials, Some("invalid_grant"), Some(400))
        );
        let text = error.to_string();
        assert!(text.contains("this machine's clock") && text.contains("fresh one"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let error = OAuth2::new(host.url(), "id", "secret").fetch(&context()).unwrap_err();
    assert!(!error.to_string().contains("clock"), "there is no assertion: {error}");
}

#[test]
fn a_key_is_read_in_both_forms_and_from_a_file_with_other_entries() {
    let host = answering(GRANTED);
    let mixed = format!("{}\n{RSA}", certificate_pem(RSA));
    for pem in [RSA.to_owned(), rsa_pkcs1(), mixed, RSA.replace('\n', "\r\n")] {
        let provider = bearer(&host.url(), SigningKey::from_pem(pem).unwrap());
        let _ = provider.fetch(&context()).unwrap();
    }
    assert_eq!(host.calls(), 4);
    for request in host.requests() {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        Assertion::in_form(body, "assertion").0.assert_signed_by_rsa();
    }
}

#[test]
fn the_error_for_an_unusable_key_names_its_fault() {
    let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    let generated = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
    let p384 = generated(&rcgen::PKCS_ECDSA_P384_SHA384).serialize_pem();
    let ed25519 = generated(&rcgen::PKCS_ED25519).serialize_pem();
    let public = generated(&rcgen::PKCS_ECDSA_P256_SHA256).public_key_pem();
    let proc_type = block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,hunter2\n\naHVudGVyMg==");
    for (pem, wanted) in [
        (String::new(), "not readable PEM"),
        ("hunter2".to_owned(), "not readable PEM"),
        (RSA[..600].to_owned(), "not readable PEM"),
        (RSA.replace('\n', r"\n"), "line breaks"),
        (block("PRIVATE KEY", "*hunter2*"), "not readable PEM"),
        (block("PRIVATE KEY", "aHVudGVyMg=="), "cannot be read"),
        (block("RSA PRIVATE KEY", "aHVudGVyMg=="), "cannot be read"),
        (block("ENCRYPTED PRIVATE KEY", "aHVudGVyMg=="), "encrypted"),
        (proc_type, "encrypted"),
        (block("EC PRIVATE KEY", "aHVudGVyMg=="), "PKCS#8"),
        (block("CERTIFICATE REQUEST", "aHVudGVyMg=="), "no private key"),
        (certificate_pem(RSA), "this is a certificate"),
        (public, "this is a public key"),
        (p384, "P-256"),
        (ed25519, "P-256"),
        (RSA_SMALL.to_owned(), "too small"),
    ] {
        let error = SigningKey::from_pem(pem.as_str()).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            shown.contains(wanted) && !shown.contains("hunter2") && !shown.contains("aHVudGVyMg"),
            "{wanted}: {shown}"
        );
    }
}

#[test]
fn an_unreadable_key_file_is_named_and_a_key_given_as_its_path_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let garbled = folder.path().join("garbled");
    fs::write(&garbled, [0xff, 0xfe]).unwrap();
    let good = folder.path().join("key.pem");
    fs::write(&good, RSA).unwrap();
    assert!(SigningKey::from_pem_file(&good).is_ok());
    for error in [
        SigningKey::from_pem_file(RSA).unwrap_err(),
        SigningKey::from_pem_file(RSA.replace('\n', "")).unwrap_err(),
        GoogleServiceAccount::from_file(account("a@project.example", RSA)).unwrap_err(),
        GoogleServiceAccount::from_file(&good).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().len() < 200 && !error.to_string().contains(&RSA[40..60]), "{error}");
    }
    for (error, text) in [
        (SigningKey::from_pem_file(&missing), format!("the private key file {missing:?} does not exist")),
        (SigningKey::from_pem_file(&garbled), format!("the private key file {garbled:?} is not UTF-8")),
        (SigningKey::from_pem_file(folder.path()), "the private key file ".to_owned()),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().starts_with(&text), "{error}");
    }
    let error = GoogleServiceAccount::from_file(&missing).unwrap_err().to_string();
    assert_eq!(error, format!("google: the service account file {missing:?} does not exist"));
    let json = folder.path().join("account.json");
    fs::write(&json, account("a@project.example", RSA)).unwrap();
    assert!(GoogleServiceAccount::from_file(&json).unwrap().scope("s").check().is_ok());
}

#[test]
fn a_json_that_is_no_service_account_is_an_error() {
    let with = |edit: fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut json: serde_json::Value = serde_json::from_str(&account("hunter2@x", RSA)).unwrap();
        edit(json.as_object_mut().unwrap());
        json.to_string()
    };
    for (json, wanted) in [
        ("hunter2".to_owned(), "not the JSON"),
        (r#"{"private_key":["hunter2"]}"#.to_owned(), "not the JSON"),
        ("{}".to_owned(), "client_email"),
        (with(|json| drop(json.remove("client_email"))), "client_email"),
        (with(|json| drop(json.remove("private_key"))), "private_key"),
        (with(|json| drop(json.insert("private_key".into(), "hunter2".into()))), "PEM"),
        (with(|json| drop(json.insert("private_key".into(), ec_pem().into()))), "RSA"),
        (with(|json| drop(json.insert("type".into(), "authorized_user".into()))), "person"),
        (with(|json| drop(json.insert("type".into(), "external_account".into()))), "service account"),
    ] {
        let error = GoogleServiceAccount::from_json(json).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            shown.starts_with("google: ") && shown.contains(wanted) && !shown.contains("hunter2"),
            "{wanted}: {shown}"
        );
    }
}

#[test]
fn a_missing_field_of_an_assertion_is_an_error_before_anything_is_sent() {
    let https = "https://host.example";
    let google = GoogleServiceAccount::from_json(account("a@project.example", RSA)).unwrap();
    for (provider, setting) in [
        (&google as &dyn Provider, "scope"),
        (&JwtBearer::new(https, rsa()), "issuer"),
        (&JwtBearer::new(https, rsa()).issuer("i").claim("exp", "1"), "exp"),
        (&JwtBearer::new(https, rsa()).issuer("i").default_lifetime(Duration::ZERO), "default lifetime"),
        (&OAuth2::new(https, "id", "s").auth(ClientAuth::PrivateKeyJwt), "key"),
        (&OAuth2::new(https, "id", "").auth(ClientAuth::ClientSecretJwt), "client secret"),
        (&OAuth2::private_key_jwt(https, "", rsa()), "client id"),
        (&OAuth2::private_key_jwt(https, "id", rsa()).auth(ClientAuth::Post), "client secret"),
    ] {
        let error = provider.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(setting), "{error}");
    }
}

#[test]
fn no_key_is_shown() {
    let key = rsa().key_id("k-1");
    let shown = format!(
        "{key:?} {:?} {:?} {:?}",
        OAuth2::private_key_jwt("https://host.example", "id", key.clone()),
        bearer("https://host.example", key.clone()),
        google("https://host.example"),
    );
    assert!(shown.contains("RS256") && shown.contains("k-1"), "{shown}");
    for line in RSA.lines().filter(|line| line.len() == 64) {
        assert!(!shown.contains(line), "{shown}");
    }
    assert!(shown.len() < 2000, "{shown}");
}

const REFRESH: &[Kind] = &[Kind {
    name: "refresh token",
    provider: |url| Box::new(RefreshToken::new(OAuth2::public(url, "id"), "hunter2-first")),
    others: |url| {
        vec![
            Box::new(RefreshToken::new(OAuth2::public(url, "id-2"), "hunter2-first")),
            Box::new(RefreshToken::new(OAuth2::public(url, "id"), "hunter2-second")),
            Box::new(RefreshToken::new(OAuth2::public(url, "id").scope("a"), "hunter2-first")),
            Box::new(RefreshToken::new(OAuth2::new(url, "id", "hunter2"), "hunter2-first")),
        ]
    },
    needs_state: true,
    needs_parent: false,
    request: "POST / HTTP/1.1",
    headers: &["accept: application/json", "content-type: application/x-www-form-urlencoded"],
    body: Body::Exactly("grant_type=refresh_token&refresh_token=hunter2-state&client_id=id"),
    granting: r#"{"access_token":"TOKEN","token_type":"Bearer","expires_in":LIFETIME,"refresh_token":"next"}"#,
    odd_life: false,
    refusals: &[
        ("400 Bad Request", r#"{"error":"invalid_grant"}"#, ErrorKind::SignInRequired, Some("invalid_grant"), None),
        ("200 OK", r#"{"error":"bad_refresh_token"}"#, ErrorKind::SignInRequired, Some("bad_refresh_token"), None),
        (
            "400 Bad Request",
            r#"{"error":"interaction_required"}"#,
            ErrorKind::SignInRequired,
            Some("interaction_required"),
            None,
        ),
        ("200 OK", r#"{"error":"invalid_client"}"#, ErrorKind::InvalidCredentials, Some("invalid_client"), None),
        ("400 Bad Request", r#"{"error":"invalid_scope"}"#, ErrorKind::Config, Some("invalid_scope"), None),
        ("429 Too Many Requests", r#"{"error":"slow_down"}"#, ErrorKind::Throttled, Some("slow_down"), Some(5)),
        ("503 Busy", r#"{"error":"server_error"}"#, ErrorKind::Unavailable, Some("server_error"), None),
        ("400 Bad Request", r#"{"error":"hunter2-state"}"#, ErrorKind::InvalidCredentials, None, None),
    ],
}];

#[test]
fn a_refresh_token_is_a_kind_like_any_other() {
    assert_all(REFRESH);
}

#[test]
fn a_returned_refresh_token_is_the_next_renewal_secret() {
    for (more, next) in [
        ("", None),
        (r#","refresh_token":"""#, None),
        (r#","refresh_token":null"#, None),
        (r#","refresh_token":"next""#, Some("next")),
    ] {
        let host = answering(&format!(r#"{{"access_token":"t-1","expires_in":60{more}}}"#));
        let provider = RefreshToken::new(OAuth2::public(host.url(), "id"), "first");
        let grant = provider.fetch(&context().with_renewal_secret(Some("latest".into()))).unwrap();
        assert_eq!(grant.renewal_secret().map(|state| state.expose()), next, "{more}");
    }
}

#[test]
fn a_new_scope_or_client_secret_does_not_lose_the_latest_refresh_token() {
    let state = |client: OAuth2, first: &str| RefreshToken::new(client, first).renewal().unwrap().identity;
    let client = || OAuth2::new("https://host.example", "id", "secret");
    let same = state(client(), "first");
    assert_eq!(same, state(client().scope("more"), "first"));
    assert_eq!(same, state(OAuth2::new("https://host.example", "id", "another"), "first"));
    assert_ne!(same, state(client(), "signed in again"));
}

#[test]
fn a_sign_in_on_another_device_asks_as_the_standard_says() {
    // One reply that serves both requests.
    let host = answering(
        r#"{"device_code":"hunter2-d","user_code":"A-B","verification_uri":"https://h.example/","interval":1,
            "access_token":"t-1","refresh_token":"hunter2-r","expires_in":600}"#,
    );
    let client = OAuth2::public(format!("{}/token", host.url()), "id").scope("offline_access a");
    let prompt = DeviceSignIn::new(host.url() + "/device", client).begin().unwrap();
    assert!(!format!("{prompt:?}").contains("hunter2"), "{prompt:?}");
    let signed_in = prompt.wait().unwrap();
    assert!(!format!("{signed_in:?}").contains("hunter2"), "{signed_in:?}");
    assert_eq!(signed_in.initial_refresh_token().expose(), "hunter2-r");
    let expected = [
        ("POST /device HTTP/1.1", "scope=offline_access+a&client_id=id"),
        (
            "POST /token HTTP/1.1",
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=hunter2-d\
             &scope=offline_access+a&client_id=id",
        ),
    ];
    assert_eq!(host.calls(), 2);
    for (request, (first, form)) in host.requests().iter().zip(expected) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!((head.lines().next(), body), (Some(first), form));
        assert!(FORM.iter().all(|header| head.to_ascii_lowercase().contains(header)), "{head}");
        assert!(!head.to_ascii_lowercase().contains("authorization:"), "{head}");
    }
}
