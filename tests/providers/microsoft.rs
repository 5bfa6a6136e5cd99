//! Microsoft: Entra ID, Bot Framework, managed identities.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evertoken::provider::microsoft::{BotFramework, Certificate, Cloud, ManagedIdentity};
use evertoken::provider::{Context, Provider, ServiceResponse};
use evertoken::testing::FakeClock;
use evertoken::ureq::http::HeaderMap;
use evertoken::{Entra, Error, ErrorKind, HttpConfig, Secret, TokenManager, Verdict};
use serde_json::json;

use crate::assertions::{Assertion, RSA, RSA_OTHER, START, certificate, certificate_pem, ec, ec_pem, rsa, rsa_other};
use crate::common::http_host::{answering, canned, closed_port, reply};
use crate::kinds::{Body, Kind, Refusal, assert_all, context};

const GRANTED: &str = r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"t-1"}"#;

const GRANTING: &str = r#"{"token_type":"Bearer","expires_in":LIFETIME,"ext_expires_in":3599,"access_token":"TOKEN"}"#;

const FORM: &[&str] = &["accept: application/json", "content-type: application/x-www-form-urlencoded"];

const REFUSALS: &[Refusal] = &[
    (
        "401 Unauthorized",
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: hunter2","error_codes":[7000215]}"#,
        ErrorKind::InvalidCredentials,
        Some("AADSTS7000215"),
        None,
    ),
    (
        "401 Unauthorized",
        r#"{"error":"invalid_client","error_codes":["7000222"]}"#,
        ErrorKind::InvalidCredentials,
        Some("AADSTS7000222"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"error":"unauthorized_client","error_codes":[700016]}"#,
        ErrorKind::InvalidCredentials,
        Some("AADSTS700016"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"error":"invalid_scope","error_codes":[70011]}"#,
        ErrorKind::Config,
        Some("AADSTS70011"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"error":"invalid_request","error_codes":[90002]}"#,
        ErrorKind::Config,
        Some("AADSTS90002"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"error":"invalid_grant","error_codes":[53003]}"#,
        ErrorKind::Forbidden,
        Some("AADSTS53003"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"error":"invalid_resource","error_codes":[500011]}"#,
        ErrorKind::Config,
        Some("AADSTS500011"),
        None,
    ),
    // An unknown number leaves the kind to the word.
    (
        "400 Bad Request",
        r#"{"error":"invalid_client","error_codes":[1]}"#,
        ErrorKind::InvalidCredentials,
        Some("AADSTS1"),
        None,
    ),
    ("400 Bad Request", r#"{"error":"invalid_grant"}"#, ErrorKind::InvalidCredentials, Some("invalid_grant"), None),
    // A text that is no number is not shown as one.
    (
        "400 Bad Request",
        r#"{"error":"invalid_grant","error_codes":["hunter2"]}"#,
        ErrorKind::InvalidCredentials,
        Some("invalid_grant"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"error":"temporarily_unavailable","error_codes":[90033]}"#,
        ErrorKind::Unavailable,
        Some("AADSTS90033"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"error":"invalid_request","error_codes":[50196]}"#,
        ErrorKind::Throttled,
        Some("AADSTS50196"),
        Some(60),
    ),
    (
        "429 Slow",
        r#"{"error":"invalid_request","error_codes":[90055]}"#,
        ErrorKind::Throttled,
        Some("AADSTS90055"),
        Some(60),
    ),
    ("429 Slow", "", ErrorKind::Throttled, None, Some(60)),
];

const KINDS: &[Kind] = &[
    Kind {
        name: "entra",
        provider: |url| Box::new(entra(url, "hunter2")),
        others: |url| {
            vec![
                Box::new(entra(url, "hunter2-b")),
                Box::new(entra(url, "hunter2").scope("api://orders/.default")),
                Box::new(entra(url, "hunter2").cloud(Cloud::China)),
                Box::new(Entra::new("fabrikam.example", "app", "hunter2").authority(url)),
                Box::new(Entra::new("contoso.example", "app-2", "hunter2").authority(url)),
                Box::new(with_certificate(url)),
                Box::new(federated(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /contoso.example/oauth2/v2.0/token HTTP/1.1",
        headers: FORM,
        body: Body::Exactly(
            "grant_type=client_credentials&client_id=app&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default\
             &client_secret=hunter2",
        ),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "entra",
        provider: |url| Box::new(with_certificate(url)),
        others: |url| {
            let other = Certificate::from_pem(certificate_pem(RSA_OTHER)).unwrap();
            vec![
                Box::new(Entra::certificate("contoso.example", "app", other, rsa_other()).authority(url)),
                Box::new(Entra::certificate("contoso.example", "app-2", certificate(), rsa()).authority(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /contoso.example/oauth2/v2.0/token HTTP/1.1",
        headers: FORM,
        body: Body::Checked(|body| {
            let (assertion, form) = Assertion::in_form(body, "client_assertion");
            assert_eq!(
                form,
                "grant_type=client_credentials&client_id=app&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default\
                 &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                 &client_assertion=ASSERTION"
            );
            assertion.assert_signed_by_rsa();
            assert_eq!(assertion.header, json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint()}));
            assert_eq!(assertion.names(), ["aud", "exp", "iat", "iss", "jti", "nbf", "sub"]);
        }),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "entra",
        provider: |url| Box::new(federated(url)),
        others: |url| {
            vec![Box::new(Entra::federated("contoso.example", "app-2", || Ok(Secret::from("x"))).authority(url))]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /contoso.example/oauth2/v2.0/token HTTP/1.1",
        headers: FORM,
        body: Body::Exactly(
            "grant_type=client_credentials&client_id=app&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
             &client_assertion=hunter2-federated",
        ),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "bot-framework",
        provider: |url| Box::new(BotFramework::new("app", "hunter2").authority(url)),
        others: |url| {
            let new = || BotFramework::new("app", "hunter2").authority(url);
            vec![
                Box::new(new().tenant("contoso.example")),
                Box::new(new().us_government()),
                Box::new(BotFramework::new("app-2", "hunter2").authority(url)),
                Box::new(BotFramework::new("app", "hunter2-b").authority(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /botframework.com/oauth2/v2.0/token HTTP/1.1",
        headers: FORM,
        body: Body::Exactly(
            "grant_type=client_credentials&client_id=app&scope=https%3A%2F%2Fapi.botframework.com%2F.default\
             &client_secret=hunter2",
        ),
        granting: GRANTING,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "managed-identity",
        provider: |url| Box::new(ManagedIdentity::new("https://vault.example/.default").base_url(url)),
        others: |url| {
            let new = || ManagedIdentity::new("https://vault.example").base_url(url);
            vec![
                Box::new(new().client_id("id")),
                Box::new(new().client_id("id-2")),
                Box::new(ManagedIdentity::new("https://other.example").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.example HTTP/1.1",
        headers: &["accept: application/json", "metadata: true"],
        body: Body::Exactly(""),
        granting: r#"{"access_token":"TOKEN","expires_in":LIFETIME,"resource":"x","token_type":"Bearer","client_id":"y"}"#,
        odd_life: false,
        refusals: &[
            (
                "400 Bad Request",
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                ErrorKind::Config,
                Some("invalid_request"),
                None,
            ),
            ("400 Bad Request", r#"{"error":"invalid_resource"}"#, ErrorKind::Config, Some("invalid_resource"), None),
            (
                "400 Bad Request",
                r#"{"error":"bad_request_102"}"#,
                ErrorKind::InvalidCredentials,
                Some("bad_request_102"),
                None,
            ),
            ("400 Bad Request", "", ErrorKind::InvalidCredentials, None, None),
            ("404 Not Found", r#"{"error":"not_found"}"#, ErrorKind::Unavailable, None, None),
            ("410 Gone", "", ErrorKind::Unavailable, None, None),
            ("429 Slow", "", ErrorKind::Throttled, None, Some(5)),
            ("500 Oops", r#"{"error":"unknown"}"#, ErrorKind::Unavailable, Some("unknown"), None),
        ],
    },
];

fn entra(url: &str, secret: &str) -> Entra {
    Entra::new("contoso.example", "app", secret).authority(url)
}

fn with_certificate(url: &str) -> Entra {
    Entra::certificate("contoso.example", "app", certificate(), rsa()).authority(url)
}

fn federated(url: &str) -> Entra {
    Entra::federated("contoso.example", "app", || Ok(Secret::from("hunter2-federated\n"))).authority(url)
}

/// The SHA-256 of the certificate, computed from its PEM text.
fn thumbprint() -> String {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let pem = certificate_pem(RSA);
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &STANDARD.decode(body).unwrap()))
}

fn verdict(provider: &dyn Provider, status: u16, challenge: &str, body: &str) -> Verdict {
    let mut headers = HeaderMap::new();
    headers.insert("www-authenticate", challenge.parse().unwrap());
    provider.verdict(&ServiceResponse::new(status, &headers, body.as_bytes()))
}

#[test]
fn every_kind_of_microsoft_does_what_is_expected_of_it() {
    assert_all(KINDS);
}

#[test]
fn an_assertion_for_entra_is_new_for_each_request_and_has_the_token_url_as_audience() {
    let host = answering(GRANTED);
    let clock = FakeClock::new();
    let manager = TokenManager::builder(with_certificate(&host.url())).clock(clock.clone()).build().unwrap();
    manager.token().unwrap();
    clock.advance(Duration::from_secs(1000));
    manager.invalidate().unwrap();
    manager.token().unwrap();
    let requests = host.requests();
    assert_eq!(requests.len(), 2);
    let made = [0, 1].map(|at| {
        let (_, body) = requests[at].split_once("\r\n\r\n").unwrap();
        Assertion::in_form(body, "client_assertion").0
    });
    for (assertion, now) in made.iter().zip([START, START + 1000]) {
        assertion.assert_signed_by_rsa();
        assert_eq!(
            assertion.claims,
            json!({
                "iss": "app", "sub": "app",
                "aud": "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token",
                "jti": assertion.jti(), "iat": now - 10, "nbf": now - 10, "exp": now + 300,
            })
        );
    }
    assert_ne!(made[0].jti(), made[1].jti());
}

#[test]
fn each_cloud_has_its_hosts() {
    for (cloud, authority, graph) in [
        (Cloud::Public, "https://login.microsoftonline.com", "https://graph.microsoft.com/.default"),
        (Cloud::UsGovernment, "https://login.microsoftonline.us", "https://graph.microsoft.us/.default"),
        (Cloud::China, "https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn/.default"),
    ] {
        let provider = || Entra::new("contoso.example", "app", "s").cloud(cloud);
        let found = provider().authority(authority).scope(graph);
        assert_eq!(provider().identity(), found.identity(), "{cloud:?}");
        assert!(provider().check().is_ok());
    }
    assert_eq!(
        BotFramework::new("app", "s").us_government().identity(),
        BotFramework::new("app", "s")
            .authority("https://login.microsoftonline.us")
            .us_government()
            .tenant("MicrosoftServices.onmicrosoft.us")
            .identity()
    );
}

#[test]
fn a_bot_of_the_government_or_of_one_tenant_asks_elsewhere() {
    let ask = |provider: fn(BotFramework) -> BotFramework| {
        let host = answering(GRANTED);
        let provider = provider(BotFramework::new("app", "hunter2").authority(host.url()));
        let _ = provider.fetch(&context()).unwrap();
        let (first, _, body) = host.request();
        (first, body)
    };
    let (first, body) = ask(BotFramework::us_government);
    assert_eq!(first, "POST /MicrosoftServices.onmicrosoft.us/oauth2/v2.0/token HTTP/1.1");
    assert!(body.contains("scope=https%3A%2F%2Fapi.botframework.us%2F.default"), "{body}");
    let (first, body) = ask(|bot| bot.tenant("contoso.example"));
    assert_eq!(first, "POST /contoso.example/oauth2/v2.0/token HTTP/1.1");
    assert!(body.contains("scope=https%3A%2F%2Fapi.botframework.com%2F.default"), "{body}");
}

#[test]
fn errors_advise_what_a_person_can_do() {
    let advice = |provider: &dyn Fn(&str) -> Box<dyn Provider>, word: &str, number: u32| {
        let body = format!(
            r#"{{"error":"{word}","error_description":"AADSTS{number}: not to be shown","error_codes":[{number}],
                "trace_id":"trace-1","correlation_id":"c-1"}}"#
        );
        let host = canned(reply("400 Bad Request", "", &body));
        let error = provider(&host.url()).fetch(&context()).unwrap_err();
        assert_eq!((error.request_id(), error.status()), (Some("trace-1"), Some(400)));
        assert_eq!(error.code(), Some(format!("AADSTS{number}").as_str()));
        let text = error.to_string();
        assert!(!text.contains("not to be shown"), "{text}");
        text
    };
    let app: &dyn Fn(&str) -> Box<dyn Provider> = &|url| Box::new(entra(url, "s"));
    for (word, number, wanted) in [
        ("invalid_client", 7000215, "use the secret's value, not its id"),
        ("invalid_client", 7000222, "has expired"),
        ("invalid_client", 700027, "certificate is registered for the app and has not expired"),
        ("invalid_client", 700027, "clock"),
        ("invalid_client", 700024, "clock"),
        ("invalid_request", 700213, "federated credential"),
        ("unauthorized_client", 700016, "tenant"),
        ("invalid_request", 90002, "tenant does not exist"),
        ("invalid_scope", 1002012, "/.default"),
        ("invalid_grant", 53003, "policy"),
    ] {
        let text = advice(app, word, number);
        assert!(text.contains(wanted), "{number}: {text}");
    }
    let bot = |url: &str| BotFramework::new("app", "s").authority(url);
    let text = advice(&|url| Box::new(bot(url)), "unauthorized_client", 700016);
    assert!(text.contains("set `tenant` for a single-tenant bot"), "{text}");
    let text = advice(&|url| Box::new(bot(url).tenant("contoso.example")), "unauthorized_client", 700016);
    assert!(!text.contains("single-tenant"), "{text}");
}

#[test]
fn entra_is_asked_again_when_it_says() {
    let host = canned(reply("429 Slow", "retry-after: 17\r\n", "{}"));
    let error = entra(&host.url(), "s").fetch(&context()).unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(17))));
}

#[test]
fn a_refresh_time_is_kept_and_an_invalid_one_is_ignored() {
    for (wish, seconds) in [
        ("43200", Some(43_200)),
        ("\"43200\"", Some(43_200)),
        ("0", None),
        ("-1", None),
        ("\"soon\"", None),
        ("null", None),
    ] {
        let host = answering(&format!(r#"{{"access_token":"t-1","expires_in":"86399","refresh_in":{wish}}}"#));
        let grant = entra(&host.url(), "s").fetch(&context()).unwrap();
        assert_eq!(grant.refresh_in().map(|time| time.as_secs()), seconds, "{wish}");
        assert_eq!(grant.lifetime(), Some(Duration::from_secs(86_399)));
    }
}

#[test]
fn the_federated_assertion_is_asked_for_at_each_fetch() {
    let host = answering(GRANTED);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let provider = Entra::federated("contoso.example", "app", move || {
        Ok(Secret::from(format!("a-{}", count.fetch_add(1, Ordering::SeqCst))))
    });
    let manager = TokenManager::new(provider.authority(host.url()));
    manager.token().unwrap();
    manager.invalidate().unwrap();
    manager.token().unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    for (request, assertion) in host.requests().iter().zip(["a-0", "a-1"]) {
        assert!(request.ends_with(&format!("&client_assertion={assertion}")), "{request}");
    }
}

#[test]
fn a_federated_assertion_that_fails_fails_the_fetch_and_nothing_is_sent() {
    let host = answering(GRANTED);
    let with = |assertion: fn() -> Result<Secret, Error>| {
        Entra::federated("contoso.example", "app", assertion).authority(host.url())
    };
    let failing = with(|| Err(Error::new(ErrorKind::Unavailable, "the issuer is away")));
    let error = failing.fetch(&context()).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, "entra: the issuer is away"));
    let error = with(|| Ok(Secret::from(" \n"))).fetch(&context()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let error = TokenManager::new(with(|| panic!("on purpose"))).token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(host.calls(), 0);
}

#[test]
fn a_wrong_setting_is_an_error_before_anything_is_sent() {
    let new = |tenant: &str| Entra::new(tenant, "app", "hunter2");
    let pair = |pem: &str| Certificate::from_pem(certificate_pem(pem)).unwrap();
    for (provider, setting) in [
        (&new("common") as &dyn Provider, "one directory"),
        (&new("Organizations"), "one directory"),
        (&new("consumers"), "one directory"),
        (&new(""), "tenant"),
        (&new("{tenant}"), "tenant"),
        (&new("a/b"), "tenant"),
        (&Entra::new("t", "", "hunter2"), "client id"),
        (&Entra::new("t", "app", " "), "client secret"),
        (&Entra::new("t", "app", "hunter2\n"), "line breaks"),
        (&new("t").scope("https://graph.microsoft.com/User.Read"), "/.default"),
        (&new("t").scope("https://a/.default https://b/.default"), "/.default"),
        (&Entra::certificate("t", "app", pair(RSA_OTHER), rsa()), "does not belong"),
        (&Entra::certificate("t", "app", pair(&ec_pem()), ec()), "RSA"),
        (&BotFramework::new("", "hunter2"), "app id"),
        (&BotFramework::new("app", ""), "app secret"),
        (&BotFramework::new("app", "hunter2").tenant("common"), "one directory"),
        (&ManagedIdentity::new(" "), "resource"),
        (&ManagedIdentity::new("r").client_id(""), "client id"),
        (&ManagedIdentity::new("r").base_url("http://169.254.169.254?a=b"), "query"),
    ] {
        let error = provider.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains(setting) && !text.contains("hunter2"), "{setting}: {text}");
        assert!(text.starts_with(provider.name()), "{text}");
    }
    assert!(Entra::certificate("t", "app", pair(RSA), rsa()).check().is_ok());
}

#[test]
fn an_unreadable_certificate_is_an_error() {
    for pem in ["", "hunter2", RSA, "-----BEGIN CERTIFICATE-----\n*hunter2*\n-----END CERTIFICATE-----\n"] {
        let error = Certificate::from_pem(pem).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    let both = format!("{RSA}{}", certificate_pem(RSA));
    assert_eq!(format!("{:?}", Certificate::from_pem(both).unwrap()), format!("{:?}", certificate()));
    assert_eq!(Certificate::from_pem_file("/nowhere/hunter2").unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn a_refused_token_of_graph_differs_from_a_missing_right() {
    let entra = Entra::new("t", "app", "s");
    let bot = BotFramework::new("app", "s");
    let identity = ManagedIdentity::new("r");
    let refused = r#"{"error":{"code":"InvalidAuthenticationToken","message":"Access token has expired."}}"#;
    for provider in [&entra as &dyn Provider, &bot, &identity] {
        assert_eq!(verdict(provider, 401, r#"Bearer realm="""#, refused), Verdict::Rejected);
        assert_eq!(verdict(provider, 401, "", ""), Verdict::Rejected);
        let claims = r#"Bearer realm="", error="insufficient_claims", claims="e30=""#;
        assert_eq!(verdict(provider, 401, claims, refused), Verdict::Rejected);
        let rights = r#"Bearer realm="", error="insufficient_scope""#;
        assert_eq!(verdict(provider, 401, rights, refused), Verdict::Accepted);
        assert_eq!(verdict(provider, 403, r#"Bearer error="invalid_token""#, refused), Verdict::Accepted);
        assert_eq!(verdict(provider, 200, "", refused), Verdict::Accepted);
        assert_eq!(verdict(provider, 429, "", ""), Verdict::Throttled { retry_after: None });
    }
}

#[test]
fn a_managed_identity_sends_its_configured_name() {
    let host = answering(GRANTED);
    let _ = ManagedIdentity::new("r").base_url(host.url() + "/").client_id("c d").fetch(&context()).unwrap();
    let first = host.request().0;
    assert_eq!(first, "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=r&client_id=c%20d HTTP/1.1");
}

#[test]
fn the_error_of_a_machine_outside_azure_asks_whether_it_runs_there() {
    let url = format!("http://127.0.0.1:{}", closed_port());
    let error = ManagedIdentity::new("r").base_url(url).fetch(&context()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("runs in Azure"), "{error}");
}

#[test]
fn an_expiry_in_place_of_a_lifetime_counts_from_now() {
    let ask = |end: &str| {
        let host = answering(&format!(r#"{{"access_token":"t-1","expires_on":{end},"not_before":"1"}}"#));
        let manager = TokenManager::builder(ManagedIdentity::new("r").base_url(host.url())).clock(FakeClock::new());
        manager.build().unwrap().token().map(|token| token.remaining().as_secs())
    };
    for end in [format!("{}", START + 3600), format!("\"{}\"", START + 3600), format!("{}.0", START + 3600)] {
        let left = ask(&end).unwrap();
        assert!((3500..=3600).contains(&left), "{end}: {left}");
    }
    for (end, wanted) in [
        (START.to_string(), "this machine's clock"),
        ((START - 60).to_string(), "this machine's clock"),
        ("0".to_owned(), "this machine's clock"),
        ("\"-5\"".to_owned(), "this machine's clock"),
        ("\"soon\"".to_owned(), "is not a number"),
        ("\"1/1/2026 12:00:00 AM +00:00\"".to_owned(), "is not a number"),
    ] {
        let error = ask(&end).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{end}");
        assert!(error.to_string().contains(wanted), "{end}: {error}");
    }
    assert!(ask("99999999999999").unwrap() <= 30 * 86_400);
}

#[test]
fn a_long_lifetime_is_refreshed_halfway_and_a_lifetime_takes_precedence_over_an_expiry() {
    for (life, refresh_in) in [("\"86400\"", Some(43_200)), ("7200", Some(3600)), ("\"7199\"", None)] {
        let host = answering(&format!(r#"{{"access_token":"t-1","expires_in":{life},"expires_on":"1"}}"#));
        let grant = ManagedIdentity::new("r").base_url(host.url()).fetch(&context()).unwrap();
        assert_eq!(grant.refresh_in().map(|time| time.as_secs()), refresh_in, "{life}");
    }
}

#[test]
fn a_managed_identity_is_never_asked_through_a_proxy() {
    let proxy = canned(reply("403 Forbidden", "", ""));
    let context = || Context::new(HttpConfig::default().proxy(proxy.url()), Duration::from_secs(5));
    let url = "https://host.invalid";
    let error = ManagedIdentity::new("r").base_url(url).fetch(&context()).unwrap_err();
    assert_eq!((error.status(), proxy.calls()), (None, 0), "{error}");
    let _ = entra(url, "s").fetch(&context()).unwrap_err();
    assert_eq!(proxy.calls(), 1, "others are asked through it");
}

#[test]
fn plain_http_is_for_link_local_addresses_only() {
    let at = |url: &str| ManagedIdentity::new("r").base_url(url).check();
    assert!(ManagedIdentity::new("r").check().is_ok());
    assert!(at("http://169.254.169.254/").is_ok() && at("https://host.example").is_ok());
    for bad in ["http://host.example", "http://10.0.0.1", "http://169.254.169.254.evil.example"] {
        assert_eq!(at(bad).unwrap_err().kind(), ErrorKind::Config, "{bad}");
        let error = ManagedIdentity::new("r").base_url(bad).fetch(&context()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
    }
    let error = Entra::new("t", "app", "s").authority("http://169.254.169.254").check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "elsewhere a credential would be sent");
}

#[test]
fn on_app_service_the_environment_says_where_to_ask() {
    // The environment of a process is fixed at its start, so this test starts itself once more.
    if std::env::var("IDENTITY_HEADER").is_ok() {
        let provider = ManagedIdentity::new("https://vault.example").client_id("id");
        let shown = format!("{provider:?} {:?}", provider.identity());
        assert!(!shown.contains("hunter2") && shown.contains("app service"), "{shown}");
        assert!(provider.check().is_ok());
        assert_eq!(provider.fetch(&context()).unwrap().token().expose(), "t-1");
        return;
    }
    let host = answering(r#"{"access_token":"t-1","expires_on":"9999999999","token_type":"Bearer"}"#);
    let mut again = Command::new(std::env::current_exe().unwrap());
    let again = again.args(["--exact", "microsoft::on_app_service_the_environment_says_where_to_ask"]);
    let endpoint = format!("{}/MSI/token/", host.url());
    let result = again.env("IDENTITY_ENDPOINT", endpoint).env("IDENTITY_HEADER", "hunter2").output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stdout));
    let (first, headers, _) = host.request();
    let query = "api-version=2019-08-01&resource=https%3A%2F%2Fvault.example&client_id=id";
    assert_eq!(first, format!("GET /MSI/token/?{query} HTTP/1.1"));
    assert!(headers.contains(&"x-identity-header: hunter2".to_owned()), "{headers:?}");
}
