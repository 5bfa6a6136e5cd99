//! Feishu and Lark.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evertoken::provider::feishu::{FeishuAppToken, FeishuOAuth, FeishuStoreApp, FeishuTenant};
use evertoken::provider::{Provider, ServiceResponse, TokenPlacement, TokenSource};
use evertoken::testing::FakeProvider;
use evertoken::ureq::http::HeaderMap;
use evertoken::{ErrorKind, Feishu, TokenManager, Verdict};

use crate::common::http_host::{Canned, canned, host, reply};
use crate::kinds::{Body, Kind, Refusal, Source, assert_all, context, parent};

fn tenant() -> FeishuTenant {
    FeishuTenant::new(Source("a"), "tenant-1")
}

const JSON: &[&str] = &["accept: application/json", "content-type: application/json; charset=utf-8"];

const OWN_BODY: Body = Body::Exactly(r#"{"app_id":"cli","app_secret":"hunter2"}"#);

const OWN_REFUSALS: &[Refusal] = &[
    ("200 OK", r#"{"code":10014,"msg":"app secret invalid"}"#, ErrorKind::InvalidCredentials, Some("10014"), None),
    ("400 Bad Request", r#"{"code":"10014","msg":"hunter2"}"#, ErrorKind::InvalidCredentials, Some("10014"), None),
    ("200 OK", r#"{"code":10012}"#, ErrorKind::InvalidCredentials, Some("10012"), None),
    ("200 OK", r#"{"code":10015}"#, ErrorKind::InvalidCredentials, Some("10015"), None),
    ("200 OK", r#"{"code":20002}"#, ErrorKind::InvalidCredentials, Some("20002"), None),
    ("200 OK", r#"{"code":11207}"#, ErrorKind::InvalidCredentials, Some("11207"), None),
    ("200 OK", r#"{"code":11209}"#, ErrorKind::InvalidCredentials, Some("11209"), None),
    ("200 OK", r#"{"code":99991543}"#, ErrorKind::InvalidCredentials, Some("99991543"), None),
    ("200 OK", r#"{"code":99991662}"#, ErrorKind::InvalidCredentials, Some("99991662"), None),
    ("200 OK", r#"{"code":10003,"data":{},"msg":"invalid param"}"#, ErrorKind::Config, Some("10003"), None),
    ("200 OK", r#"{"code":10005}"#, ErrorKind::Config, Some("10005"), None),
    ("200 OK", r#"{"code":99991401}"#, ErrorKind::Forbidden, Some("99991401"), None),
    ("200 OK", r#"{"code":1500}"#, ErrorKind::Unavailable, Some("1500"), None),
    ("200 OK", r#"{"code":1663}"#, ErrorKind::Unavailable, Some("1663"), None),
    ("200 OK", r#"{"code":1668}"#, ErrorKind::Unavailable, Some("1668"), None),
    ("200 OK", r#"{"code":2200}"#, ErrorKind::Unavailable, Some("2200"), None),
    ("200 OK", r#"{"code":5000}"#, ErrorKind::Unavailable, Some("5000"), None),
    ("200 OK", r#"{"code":10101}"#, ErrorKind::Unavailable, Some("10101"), None),
    ("200 OK", r#"{"code":55001}"#, ErrorKind::Unavailable, Some("55001"), None),
    ("200 OK", r#"{"code":65001}"#, ErrorKind::Unavailable, Some("65001"), None),
    ("200 OK", r#"{"code":99991400}"#, ErrorKind::Throttled, Some("99991400"), Some(1)),
    ("429 Slow", r#"{"code":99991400}"#, ErrorKind::Throttled, Some("99991400"), Some(1)),
    ("200 OK", r#"{"code":1000004}"#, ErrorKind::Throttled, Some("1000004"), Some(1)),
    ("200 OK", r#"{"code":1000005}"#, ErrorKind::Throttled, Some("1000005"), Some(1)),
    ("429 Slow", r#"{"code":424242}"#, ErrorKind::Throttled, Some("424242"), None),
    ("200 OK", r#"{"code":424242}"#, ErrorKind::InvalidResponse, Some("424242"), None),
    // A token beside a code is no token, nor is one under another name.
    (
        "200 OK",
        r#"{"code":10014,"app_access_token":"t","tenant_access_token":"t"}"#,
        ErrorKind::InvalidCredentials,
        Some("10014"),
        None,
    ),
    ("200 OK", r#"{"code":0,"access_token":"t-1","expires_in":7200}"#, ErrorKind::InvalidResponse, None, None),
    ("404 Not Found", "404 page not found", ErrorKind::InvalidResponse, None, None),
];

const KINDS: &[Kind] = &[
    Kind {
        name: "feishu",
        provider: |url| Box::new(Feishu::new("cli", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(Feishu::new("cli-2", "hunter2").base_url(url)),
                Box::new(Feishu::new("cli", "hunter2-b").base_url(url)),
                Box::new(Feishu::new("cli", "hunter2")),
                Box::new(Feishu::new("cli", "hunter2").lark()),
                Box::new(FeishuAppToken::new("cli", "hunter2").base_url(url)),
                Box::new(FeishuStoreApp::new("cli", "hunter2").base_url(url)),
                Box::new(FeishuOAuth::new("cli", "hunter2").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /open-apis/auth/v3/tenant_access_token/internal HTTP/1.1",
        headers: JSON,
        body: OWN_BODY,
        granting: r#"{"code":0,"msg":"ok","tenant_access_token":"TOKEN","expire":LIFETIME}"#,
        odd_life: false,
        refusals: OWN_REFUSALS,
    },
    Kind {
        name: "feishu app token",
        provider: |url| Box::new(FeishuAppToken::new("cli", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(FeishuAppToken::new("cli-2", "hunter2").base_url(url)),
                Box::new(FeishuAppToken::new("cli", "hunter2-b").base_url(url)),
                Box::new(FeishuAppToken::new("cli", "hunter2")),
                Box::new(FeishuAppToken::new("cli", "hunter2").lark()),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /open-apis/auth/v3/app_access_token/internal HTTP/1.1",
        headers: JSON,
        body: OWN_BODY,
        granting: r#"{"app_access_token":"TOKEN","code":0,"expire":LIFETIME,"msg":"ok","tenant_access_token":"t-other"}"#,
        odd_life: false,
        refusals: OWN_REFUSALS,
    },
    Kind {
        name: "feishu oauth",
        provider: |url| Box::new(FeishuOAuth::new("cli", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(FeishuOAuth::new("cli-2", "hunter2").base_url(url)),
                Box::new(FeishuOAuth::new("cli", "hunter2-b").base_url(url)),
                Box::new(FeishuOAuth::new("cli", "hunter2")),
                Box::new(FeishuOAuth::new("cli", "hunter2").lark()),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /oauth/v3/token HTTP/1.1",
        headers: &["accept: application/json", "content-type: application/x-www-form-urlencoded"],
        body: Body::Exactly("grant_type=client_credentials&client_id=cli&client_secret=hunter2"),
        granting: r#"{"access_token":"TOKEN","expires_in":LIFETIME,"token_type":"Bearer"}"#,
        odd_life: false,
        refusals: &[
            (
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"hunter2","code":20003}"#,
                ErrorKind::InvalidCredentials,
                Some("invalid_grant"),
                None,
            ),
            (
                "400 Bad Request",
                r#"{"error":"invalid_client"}"#,
                ErrorKind::InvalidCredentials,
                Some("invalid_client"),
                None,
            ),
            (
                "200 OK",
                r#"{"error":"invalid_client","access_token":"t"}"#,
                ErrorKind::InvalidCredentials,
                Some("invalid_client"),
                None,
            ),
            // A known number counts more than the word.
            (
                "400 Bad Request",
                r#"{"error":"invalid_grant","code":"99991543"}"#,
                ErrorKind::InvalidCredentials,
                Some("99991543"),
                None,
            ),
            ("400 Bad Request", r#"{"error":"invalid_request","code":20070}"#, ErrorKind::Config, Some("20070"), None),
            (
                "400 Bad Request",
                r#"{"error":"invalid_request","code":20050}"#,
                ErrorKind::Unavailable,
                Some("20050"),
                None,
            ),
            (
                "400 Bad Request",
                r#"{"error":"invalid_request","code":20072}"#,
                ErrorKind::Unavailable,
                Some("20072"),
                None,
            ),
            ("400 Bad Request", r#"{"error":"x","code":99991400}"#, ErrorKind::Throttled, Some("99991400"), Some(1)),
            ("400 Bad Request", r#"{"error":"invalid_scope"}"#, ErrorKind::Config, Some("invalid_scope"), None),
            (
                "400 Bad Request",
                r#"{"error":"unauthorized_client"}"#,
                ErrorKind::InvalidCredentials,
                Some("unauthorized_client"),
                None,
            ),
            (
                "503 Busy",
                r#"{"error":"temporarily_unavailable"}"#,
                ErrorKind::Unavailable,
                Some("temporarily_unavailable"),
                None,
            ),
            ("429 Slow", r#"{"error":"strange","code":424242}"#, ErrorKind::Throttled, Some("strange"), None),
            ("400 Bad Request", r#"{"error":"strange"}"#, ErrorKind::InvalidResponse, Some("strange"), None),
            ("400 Bad Request", r#"{"code":424242}"#, ErrorKind::InvalidResponse, Some("424242"), None),
            ("404 Not Found", "404 page not found", ErrorKind::InvalidResponse, None, None),
        ],
    },
    Kind {
        name: "feishu store app",
        provider: |url| Box::new(FeishuStoreApp::new("cli", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(FeishuStoreApp::new("cli-2", "hunter2").base_url(url)),
                Box::new(FeishuStoreApp::new("cli", "hunter2-b").base_url(url)),
                Box::new(FeishuStoreApp::new("cli", "hunter2")),
                Box::new(FeishuStoreApp::new("cli", "hunter2").lark()),
            ]
        },
        needs_state: true,
        needs_parent: false,
        request: "POST /open-apis/auth/v3/app_access_token HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"app_id":"cli","app_secret":"hunter2","app_ticket":"hunter2-state"}"#),
        granting: r#"{"code":0,"msg":"success","app_access_token":"TOKEN","expire":LIFETIME}"#,
        odd_life: false,
        refusals: &[
            ("200 OK", r#"{"code":10014,"msg":"hunter2-state"}"#, ErrorKind::InvalidCredentials, Some("10014"), None),
            ("200 OK", r#"{"code":"10003"}"#, ErrorKind::Config, Some("10003"), None),
            ("200 OK", r#"{"code":2200}"#, ErrorKind::Unavailable, Some("2200"), None),
            ("200 OK", r#"{"code":99991400}"#, ErrorKind::Throttled, Some("99991400"), Some(1)),
            ("200 OK", r#"{"code":424242}"#, ErrorKind::InvalidResponse, Some("424242"), None),
            ("404 Not Found", "404 page not found", ErrorKind::InvalidResponse, None, None),
        ],
    },
    Kind {
        name: "feishu tenant",
        provider: |url| Box::new(tenant().base_url(url)),
        others: |url| {
            vec![
                Box::new(FeishuTenant::new(Source("a"), "tenant-2").base_url(url)),
                Box::new(FeishuTenant::new(Source("b"), "tenant-1").base_url(url)),
                Box::new(tenant()),
                Box::new(tenant().lark()),
            ]
        },
        needs_state: false,
        needs_parent: true,
        request: "POST /open-apis/auth/v3/tenant_access_token HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"app_access_token":"hunter2-parent","tenant_key":"tenant-1"}"#),
        granting: r#"{"code":0,"msg":"ok","tenant_access_token":"TOKEN","expire":LIFETIME}"#,
        odd_life: false,
        refusals: &[
            ("200 OK", r#"{"code":20014,"msg":"hunter2-parent"}"#, ErrorKind::TokenRejected, Some("20014"), None),
            ("400 Bad Request", r#"{"code":"20014"}"#, ErrorKind::TokenRejected, Some("20014"), None),
            ("400 Bad Request", r#"{"code":99991664}"#, ErrorKind::TokenRejected, Some("99991664"), None),
            ("400 Bad Request", r#"{"code":99991671}"#, ErrorKind::TokenRejected, Some("99991671"), None),
            ("200 OK", r#"{"code":10013}"#, ErrorKind::InvalidCredentials, Some("10013"), None),
            ("200 OK", r#"{"code":20009}"#, ErrorKind::InvalidCredentials, Some("20009"), None),
            ("200 OK", r#"{"code":11210}"#, ErrorKind::InvalidCredentials, Some("11210"), None),
            ("200 OK", r#"{"code":10003}"#, ErrorKind::Config, Some("10003"), None),
            ("200 OK", r#"{"code":2200}"#, ErrorKind::Unavailable, Some("2200"), None),
            ("429 Slow", r#"{"code":99991400}"#, ErrorKind::Throttled, Some("99991400"), Some(1)),
            ("200 OK", r#"{"code":424242}"#, ErrorKind::InvalidResponse, Some("424242"), None),
            ("404 Not Found", "404 page not found", ErrorKind::InvalidResponse, None, None),
        ],
    },
];

#[test]
fn every_kind_of_feishu_does_what_is_expected_of_it() {
    assert_all(KINDS);
}

/// A host that sends one reply after the other.
fn in_turn(bodies: [&'static str; 2]) -> Canned {
    let next = AtomicUsize::new(0);
    host(move |mut stream| {
        let body = bodies.get(next.fetch_add(1, Ordering::Relaxed)).expect("no more requests than replies");
        let _ = stream.write_all(&reply("200 OK", "", body));
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 64]);
    })
}

fn store_app(host: &Canned) -> FeishuStoreApp {
    FeishuStoreApp::new("cli", "hunter2").base_url(host.url())
}

fn assert_asks_for_a_ticket(request: &str) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /open-apis/auth/v3/app_ticket/resend HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json; charset=utf-8"), "{head}");
    assert_eq!(body, r#"{"app_id":"cli","app_secret":"hunter2"}"#);
}

#[test]
fn without_a_ticket_feishu_is_asked_once_to_push_one() {
    let host = canned(reply("200 OK", "", r#"{"code":0,"msg":"success"}"#));
    let error = store_app(&host).fetch(&context()).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::TicketRequired, None));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert!(error.to_string().contains("set_ticket"), "{error}");
    assert_eq!(host.calls(), 1);
    assert_asks_for_a_ticket(&host.requests()[0]);
}

#[test]
fn with_a_bad_ticket_feishu_is_asked_once_to_push_another() {
    let host = in_turn([r#"{"code":10012,"msg":"hunter2-state"}"#, r#"{"code":0,"msg":"success"}"#]);
    let error = store_app(&host).fetch(&context().with_renewal_secret(Some("hunter2-state".into()))).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::TicketRequired, Some("10012")));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("set_ticket") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(host.calls(), 2);
    assert!(host.requests()[0].starts_with("POST /open-apis/auth/v3/app_access_token HTTP/1.1\r\n"));
    assert_asks_for_a_ticket(&host.requests()[1]);
}

#[test]
fn the_reason_why_feishu_pushes_no_ticket_is_reported() {
    for (refusal, kind, code) in [
        (r#"{"code":10016,"msg":"hunter2"}"#, ErrorKind::Config, "10016"),
        (r#"{"code":10014}"#, ErrorKind::InvalidCredentials, "10014"),
        (r#"{"code":"99991400"}"#, ErrorKind::Throttled, "99991400"),
        (r#"{"code":2200}"#, ErrorKind::Unavailable, "2200"),
    ] {
        let host = canned(reply("200 OK", "", refusal));
        let missing = store_app(&host).fetch(&context()).unwrap_err();
        assert_eq!(host.calls(), 1);
        let host = in_turn([r#"{"code":10012}"#, refusal]);
        let bad = store_app(&host).fetch(&context().with_renewal_secret(Some("hunter2-state".into()))).unwrap_err();
        assert_eq!(host.calls(), 2);
        for error in [missing, bad] {
            assert_eq!((error.kind(), error.code()), (kind, Some(code)), "{error}");
            assert!(error.to_string().starts_with("feishu store app: ") && !error.to_string().contains("hunter2"));
        }
    }
}

#[test]
fn the_ticket_of_feishu_is_the_apps_whatever_its_secret() {
    let ticket = |provider: &FeishuStoreApp| provider.renewal().unwrap();
    let base = FeishuStoreApp::new("cli", "s");
    assert_eq!(ticket(&base).identity, ticket(&FeishuStoreApp::new("cli", "reset")).identity);
    assert_ne!(ticket(&base).identity, ticket(&FeishuStoreApp::new("cli-2", "s")).identity);
    assert_ne!(ticket(&base).identity, ticket(&base.clone().lark()).identity);
    assert_ne!(ticket(&base).identity, base.identity());
    // A push every hour, of which some may get lost.
    assert_eq!(ticket(&base).lifetime, Duration::from_secs(6 * 3600));
    assert!(ticket(&base).initial.is_none() && !ticket(&base).rotates);
}

#[test]
fn only_a_feishu_tenant_has_a_parent_and_only_a_store_app_a_renewal_secret() {
    assert_eq!(tenant().parent().unwrap().identity(), Source("a").identity());
    assert!(tenant().renewal().is_none() && FeishuStoreApp::new("c", "s").parent().is_none());
    assert!(Feishu::new("c", "s").parent().is_none() && Feishu::new("c", "s").renewal().is_none());
}

#[test]
fn throttling_by_feishu_is_read_from_its_own_header() {
    let host = |body| canned(reply("429 Slow", "x-ogw-ratelimit-limit: 100\r\nx-ogw-ratelimit-reset: 42\r\n", body));
    for body in [r#"{"code":99991400}"#, r#"{"code":424242}"#, "", "<html>"] {
        let error = Feishu::new("cli", "s").base_url(host(body).url()).fetch(&context()).unwrap_err();
        let found = (error.kind(), error.retry_after());
        assert_eq!(found, (ErrorKind::Throttled, Some(Duration::from_secs(42))), "{body}");
    }
}

#[test]
fn errors_of_feishu_show_the_request_id() {
    let host = canned(reply("200 OK", "x-tt-logid: 2026010203\r\n", r#"{"code":10014}"#));
    let error = Feishu::new("cli", "s").base_url(host.url()).fetch(&context()).unwrap_err();
    assert_eq!(error.request_id(), Some("2026010203"));
}

#[test]
fn feishu_oauth_shows_the_secret_in_the_body_only() {
    let host = canned(reply("200 OK", "", r#"{"access_token":"t-1","expires_in":7200}"#));
    assert_eq!(FeishuOAuth::new("c", "s&").base_url(host.url()).fetch(&context()).unwrap().token().expose(), "t-1");
    let (_, headers, body) = host.request();
    assert_eq!(body, "grant_type=client_credentials&client_id=c&client_secret=s%26");
    assert!(!headers.iter().any(|header| header.starts_with("authorization")), "{headers:?}");
}

#[test]
fn each_kind_of_feishu_asks_the_host_of_its_vendor() {
    for (provider, url) in [
        (&Feishu::new("c", "s") as &dyn Provider, "https://open.feishu.cn"),
        (&Feishu::new("c", "s").lark(), "https://open.larksuite.com"),
        (&FeishuAppToken::new("c", "s"), "https://open.feishu.cn"),
        (&FeishuAppToken::new("c", "s").lark(), "https://open.larksuite.com"),
        (&FeishuStoreApp::new("c", "s"), "https://open.feishu.cn"),
        (&FeishuStoreApp::new("c", "s").lark(), "https://open.larksuite.com"),
        (&tenant(), "https://open.feishu.cn"),
        (&tenant().lark(), "https://open.larksuite.com"),
        (&FeishuOAuth::new("c", "s"), "https://accounts.feishu.cn"),
        (&FeishuOAuth::new("c", "s").lark(), "https://accounts.larksuite.com"),
    ] {
        let shown = format!("{:?}", provider.identity());
        assert!(shown.contains(&format!("(\"url\", \"{url}\")")), "{shown}");
    }
}

fn verdict(provider: &dyn Provider, status: u16, body: &str) -> Verdict {
    provider.verdict(&ServiceResponse::new(status, &HeaderMap::new(), body.as_bytes()))
}

#[test]
fn a_refused_token_of_feishu_differs_from_a_refused_request() {
    const TENANT: [&str; 4] = ["99991663", "99991665", "99991671", "20013"];
    const APP: [&str; 3] = ["99991664", "20014", "99991671"];
    // No token, missing rights, an address, a user token, an unknown one.
    const OTHERS: [&str; 9] =
        ["99991661", "99991672", "99991676", "99991679", "99991401", "99991668", "99991677", "0", "230001"];
    for (provider, rejecting) in [
        (&Feishu::new("c", "s") as &dyn Provider, TENANT.as_slice()),
        (&tenant(), &TENANT),
        (&FeishuOAuth::new("c", "s"), &TENANT),
        (&FeishuAppToken::new("c", "s"), &APP),
        (&FeishuStoreApp::new("c", "s"), &APP),
    ] {
        for code in TENANT.into_iter().chain(APP).chain(OTHERS) {
            let expected = if rejecting.contains(&code) { Verdict::Rejected } else { Verdict::Accepted };
            for status in [200, 400] {
                for value in [code.to_owned(), format!("\"{code}\"")] {
                    let body = format!(r#"{{"code":{value},"msg":"Invalid access token","error":{{"log_id":"1"}}}}"#);
                    assert_eq!(verdict(provider, status, &body), expected, "{}: {status} {body}", provider.name());
                }
            }
        }
        assert_eq!(verdict(provider, 200, "the text 99991663 and 99991664 in a page"), Verdict::Accepted);
        assert_eq!(verdict(provider, 404, "404 page not found"), Verdict::Accepted);
        assert_eq!(verdict(provider, 401, ""), Verdict::Rejected);
        assert_eq!(provider.placement(), TokenPlacement::bearer());
    }
}

#[test]
fn throttling_by_feishu_says_how_long_to_wait() {
    let mut reset = HeaderMap::new();
    reset.insert("x-ogw-ratelimit-reset", "42".parse().unwrap());
    let wait = |seconds| Verdict::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
    for provider in [
        &Feishu::new("c", "s") as &dyn Provider,
        &tenant(),
        &FeishuOAuth::new("c", "s"),
        &FeishuAppToken::new("c", "s"),
        &FeishuStoreApp::new("c", "s"),
    ] {
        for status in [200, 400, 429] {
            for code in ["99991400", "\"99991400\"", "1000004", "1000005"] {
                let body = format!(r#"{{"code":{code}}}"#);
                assert_eq!(verdict(provider, status, &body), wait(1), "{body}");
                assert_eq!(
                    provider.verdict(&ServiceResponse::new(status, &reset, body.as_bytes())),
                    wait(42),
                    "{body}"
                );
            }
            // The monthly quota is not available again after a second.
            assert_eq!(verdict(provider, status, r#"{"code":99991403}"#), wait(3600));
            assert_eq!(provider.verdict(&ServiceResponse::new(status, &reset, br#"{"code":99991403}"#)), wait(3600));
        }
        for body in ["", "<html>", r#"{"code":230020}"#] {
            assert_eq!(verdict(provider, 429, body), wait(1), "{body}");
            assert_eq!(provider.verdict(&ServiceResponse::new(429, &reset, body.as_bytes())), wait(42), "{body}");
        }
    }
}

#[test]
fn the_profile_of_feishu_matches_its_documentation() {
    for provider in [
        &Feishu::new("c", "s") as &dyn Provider,
        &FeishuAppToken::new("c", "s"),
        &FeishuStoreApp::new("c", "s"),
        &tenant(),
    ] {
        let profile = provider.profile();
        assert_eq!(profile.default_lifetime, Duration::from_secs(7200));
        // A margin above half an hour would be useless, because the same token is granted before.
        assert_eq!(profile.earliest_refresh, Some(Duration::from_secs(1800)));
        assert_eq!(profile.refresh_ahead, Duration::from_secs(300));
        assert_eq!(profile.min_forced_interval, Duration::from_secs(10));
        assert!(profile.unchanged_token_extends && !profile.new_token_ends_old);
        assert_eq!((profile.forced_quota, profile.daily_quota), (None, None));
    }
    let oauth = FeishuOAuth::new("c", "s").profile();
    assert_eq!((oauth.default_lifetime, oauth.earliest_refresh), (Duration::from_secs(7200), None));
    assert!(!oauth.unchanged_token_extends && !oauth.new_token_ends_old);
}

#[test]
fn a_wrong_setting_of_feishu_is_named() {
    for (provider, setting) in [
        (&Feishu::new(" ", "hunter2") as &dyn Provider, "the app id is empty"),
        (&Feishu::new("c", "hunter2\n"), "the app secret has blanks"),
        (&FeishuAppToken::new("c", ""), "the app secret is empty"),
        (&FeishuStoreApp::new("", "hunter2"), "the app id is empty"),
        (&FeishuOAuth::new("c", "hunter2").base_url("https://h?hunter2"), "query"),
        (&FeishuTenant::new(Source("a"), ""), "the tenant key is empty"),
    ] {
        let error = provider.check().unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(text.starts_with(&format!("{}: ", provider.name())) && text.contains(setting), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_feishu_code_that_quotes_the_request_is_not_shown() {
    for quoted in ["s3cret", "the-ticket", "the-parent"] {
        let body = format!(r#"{{"code":"x-{quoted}","error":"x-{quoted}","request_id":"{quoted}"}}"#);
        let host = canned(reply("400 Bad Request", "", &body));
        let context = context().with_renewal_secret(Some("the-ticket".into())).with_parent(Some(parent("the-parent")));
        let sent: [(&dyn Provider, &[&str]); 5] = [
            (&Feishu::new("c", "s3cret").base_url(host.url()), &["s3cret"]),
            (&FeishuAppToken::new("c", "s3cret").base_url(host.url()), &["s3cret"]),
            (&FeishuOAuth::new("c", "s3cret").base_url(host.url()), &["s3cret"]),
            (&FeishuStoreApp::new("c", "s3cret").base_url(host.url()), &["s3cret", "the-ticket"]),
            (&tenant().base_url(host.url()), &["the-parent"]),
        ];
        for (provider, sent) in sent {
            let error = provider.fetch(&context).unwrap_err();
            let found = [error.code().is_some(), error.request_id().is_some()];
            assert_eq!(found, [!sent.contains(&quoted); 2], "{}: {quoted}", provider.name());
        }
    }
    // Asked to push another one, Feishu has the ticket too.
    let host = in_turn([r#"{"code":10012}"#, r#"{"code":"x-the-ticket"}"#]);
    let error = store_app(&host).fetch(&context().with_renewal_secret(Some("the-ticket".into()))).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidResponse, None));
}

#[test]
fn feishu_is_asked_for_a_ticket_once_and_a_ticket_ends_the_wait() {
    let host = in_turn([r#"{"code":0,"msg":"success"}"#, r#"{"code":0,"app_access_token":"a-1","expire":7200}"#]);
    let tokens = TokenManager::new(store_app(&host));
    for _ in 0..3 {
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::TicketRequired);
    }
    assert_eq!(host.calls(), 1);
    assert_asks_for_a_ticket(&host.requests()[0]);
    tokens.set_ticket("the-ticket").unwrap();
    assert_eq!(tokens.token().unwrap().expose(), "a-1");
    assert!(host.requests()[1].ends_with(r#"{"app_id":"cli","app_secret":"hunter2","app_ticket":"the-ticket"}"#));
}

#[test]
fn a_tenant_of_feishu_gets_another_app_token_when_its_own_is_refused() {
    let host = in_turn([r#"{"code":20014}"#, r#"{"code":0,"tenant_access_token":"t-1","expire":7200}"#]);
    let app = FakeProvider::new();
    let tenant = FeishuTenant::new(TokenManager::new(app.clone()), "tenant-1").base_url(host.url());
    assert_eq!(TokenManager::new(tenant).token().unwrap().expose(), "t-1");
    assert_eq!((app.calls(), host.calls()), (2, 2));
    for (request, token) in host.requests().iter().zip(["token-1", "token-2"]) {
        assert!(
            request.ends_with(&format!(r#"{{"app_access_token":"{token}","tenant_key":"tenant-1"}}"#)),
            "{request}"
        );
    }
}
