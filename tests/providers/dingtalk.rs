//! DingTalk.

use std::time::Duration;

use evertoken::provider::dingtalk::{DingTalkAuthorizedCorp, DingTalkClassic, DingTalkSuite, DingTalkUnified};
use evertoken::provider::{Provider, ServiceResponse, TokenPlacement};
use evertoken::ureq::http::HeaderMap;
use evertoken::{DingTalk, Error, ErrorKind, Verdict};

use crate::common::http_host::{answering, canned, reply};
use crate::kinds::{Body, Kind, Refusal, assert_all, context};

const JSON: &[&str] = &["accept: application/json", "content-type: application/json"];

/// Refusals of any kind of token, in either shape, whatever the status.
const REFUSALS: &[Refusal] = &[
    (
        "400 Bad Request",
        r#"{"code":"invalidClientIdOrSecret","message":"hunter2"}"#,
        ErrorKind::InvalidCredentials,
        Some("invalidClientIdOrSecret"),
        None,
    ),
    (
        "200 OK",
        r#"{"code":"invalidClientIdOrSecret"}"#,
        ErrorKind::InvalidCredentials,
        Some("invalidClientIdOrSecret"),
        None,
    ),
    ("400 Bad Request", r#"{"code":"invalid.client"}"#, ErrorKind::InvalidCredentials, Some("invalid.client"), None),
    (
        "401 Unauthorized",
        r#"{"code":"unauthorized.client"}"#,
        ErrorKind::InvalidCredentials,
        Some("unauthorized.client"),
        None,
    ),
    ("401 Unauthorized", r#"{"code":"authFailed"}"#, ErrorKind::InvalidCredentials, Some("authFailed"), None),
    ("400 Bad Request", r#"{"code":"Missingbody"}"#, ErrorKind::Config, Some("Missingbody"), None),
    (
        "400 Bad Request",
        r#"{"code":"unsupported.grant.type"}"#,
        ErrorKind::Config,
        Some("unsupported.grant.type"),
        None,
    ),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.IpNotInWhiteList"}"#,
        ErrorKind::Forbidden,
        Some("Forbidden.AccessDenied.IpNotInWhiteList"),
        None,
    ),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.AccessTokenPermissionDenied"}"#,
        ErrorKind::Forbidden,
        Some("Forbidden.AccessDenied.AccessTokenPermissionDenied"),
        None,
    ),
    ("400 Bad Request", r#"{"code":"apiPermissionDenied"}"#, ErrorKind::Forbidden, Some("apiPermissionDenied"), None),
    ("403 Forbidden", "{}", ErrorKind::Forbidden, None, None),
    ("403 Forbidden", "", ErrorKind::Forbidden, None, None),
    ("500 Oops", r#"{"code":"server.error"}"#, ErrorKind::Unavailable, Some("server.error"), None),
    ("500 Oops", r#"{"code":"unknownError","message":"hunter2"}"#, ErrorKind::Unavailable, Some("unknownError"), None),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.QpsLimitForApi"}"#,
        ErrorKind::Throttled,
        Some("Forbidden.AccessDenied.QpsLimitForApi"),
        Some(2),
    ),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"}"#,
        ErrorKind::Throttled,
        Some("Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"),
        Some(2),
    ),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.QpmLimitForApi"}"#,
        ErrorKind::Throttled,
        Some("Forbidden.AccessDenied.QpmLimitForApi"),
        Some(60),
    ),
    ("400 Bad Request", r#"{"code":"qps.exceed.limit"}"#, ErrorKind::Throttled, Some("qps.exceed.limit"), Some(2)),
    ("400 Bad Request", r#"{"code":"request.overlimit"}"#, ErrorKind::Throttled, Some("request.overlimit"), Some(2)),
    ("429 Slow", r#"{"code":"new.one"}"#, ErrorKind::Throttled, Some("new.one"), None),
    ("400 Bad Request", r#"{"code":"new.one"}"#, ErrorKind::InvalidResponse, Some("new.one"), None),
    // Shapes of the old host.
    ("200 OK", r#"{"errcode":40096,"errmsg":"hunter2"}"#, ErrorKind::InvalidCredentials, Some("40096"), None),
    ("200 OK", r#"{"errcode":"40089"}"#, ErrorKind::InvalidCredentials, Some("40089"), None),
    ("200 OK", r#"{"errcode":40001}"#, ErrorKind::InvalidCredentials, Some("40001"), None),
    ("200 OK", r#"{"errcode":900103}"#, ErrorKind::InvalidCredentials, Some("900103"), None),
    ("200 OK", r#"{"errcode":40088}"#, ErrorKind::InvalidCredentials, Some("40088"), None),
    ("200 OK", r#"{"errcode":52010}"#, ErrorKind::InvalidCredentials, Some("52010"), None),
    ("200 OK", r#"{"errcode":33001}"#, ErrorKind::InvalidCredentials, Some("33001"), None),
    ("200 OK", r#"{"errcode":40035,"errmsg":"corpid or appkey"}"#, ErrorKind::Config, Some("40035"), None),
    ("200 OK", r#"{"errcode":22}"#, ErrorKind::Config, Some("22"), None),
    ("200 OK", r#"{"errcode":404,"errmsg":"请求的URI地址不存在"}"#, ErrorKind::Config, Some("404"), None),
    ("200 OK", r#"{"errcode":60020}"#, ErrorKind::Forbidden, Some("60020"), None),
    ("200 OK", r#"{"errcode":60011}"#, ErrorKind::Forbidden, Some("60011"), None),
    ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
    ("200 OK", r#"{"errcode":90002}"#, ErrorKind::Throttled, Some("90002"), Some(1)),
    ("200 OK", r#"{"errcode":90018}"#, ErrorKind::Throttled, Some("90018"), Some(2)),
    ("200 OK", r#"{"errcode":424242}"#, ErrorKind::InvalidResponse, Some("424242"), None),
    (
        "200 OK",
        r#"{"errcode":88,"sub_code":"40001","sub_msg":"hunter2"}"#,
        ErrorKind::InvalidCredentials,
        Some("40001"),
        None,
    ),
    ("200 OK", r#"{"errcode":88,"sub_code":"90018"}"#, ErrorKind::Throttled, Some("90018"), Some(2)),
    ("200 OK", r#"{"errcode":88}"#, ErrorKind::InvalidResponse, Some("88"), None),
    // A token beside a code is no token.
    (
        "200 OK",
        r#"{"errcode":40096,"access_token":"t","accessToken":"t"}"#,
        ErrorKind::InvalidCredentials,
        Some("40096"),
        None,
    ),
    ("200 OK", r#"{"errcode":0}"#, ErrorKind::InvalidResponse, None, None),
    // A ban has no code.
    (
        "200 OK",
        r#"{"status":1111,"wait":5,"source":"x5","punish":"deny","uuid":"hunter2"}"#,
        ErrorKind::Throttled,
        None,
        Some(300),
    ),
    ("403 Forbidden", r#"{"punish":"deny"}"#, ErrorKind::Throttled, None, Some(300)),
];

const KINDS: &[Kind] = &[
    Kind {
        name: "dingtalk",
        provider: |url| Box::new(DingTalk::new("key", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(DingTalk::new("key-2", "hunter2").base_url(url)),
                Box::new(DingTalk::new("key", "hunter2-b").base_url(url)),
                Box::new(DingTalk::new("key", "hunter2")),
                Box::new(DingTalkClassic::new("key", "hunter2").base_url(url)),
                Box::new(DingTalkUnified::new("corp", "key", "hunter2").base_url(url)),
                Box::new(DingTalkSuite::new("key", "hunter2").base_url(url)),
                Box::new(DingTalkAuthorizedCorp::new("key", "hunter2", "corp").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /v1.0/oauth2/accessToken HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"appKey":"key","appSecret":"hunter2"}"#),
        granting: r#"{"accessToken":"TOKEN","expireIn":LIFETIME}"#,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "dingtalk classic",
        provider: |url| Box::new(DingTalkClassic::new("key", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(DingTalkClassic::new("key-2", "hunter2").base_url(url)),
                Box::new(DingTalkClassic::new("key", "hunter2-b").base_url(url)),
                Box::new(DingTalkClassic::new("key", "hunter2")),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "GET /gettoken?appkey=key&appsecret=hunter2 HTTP/1.1",
        headers: &["accept: application/json"],
        body: Body::Exactly(""),
        granting: r#"{"errcode":0,"access_token":"TOKEN","errmsg":"ok","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "dingtalk unified",
        provider: |url| Box::new(DingTalkUnified::new("ding/1", "key", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(DingTalkUnified::new("ding/2", "key", "hunter2").base_url(url)),
                Box::new(DingTalkUnified::new("ding/1", "key-2", "hunter2").base_url(url)),
                Box::new(DingTalkUnified::new("key", "ding/1", "hunter2").base_url(url)),
                Box::new(DingTalkUnified::new("ding/1", "key", "hunter2-b").base_url(url)),
                Box::new(DingTalkUnified::new("ding/1", "key", "hunter2")),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /v1.0/oauth2/ding%2F1/token HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"client_id":"key","client_secret":"hunter2","grant_type":"client_credentials"}"#),
        granting: r#"{"access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: REFUSALS,
    },
    Kind {
        name: "dingtalk suite",
        provider: |url| Box::new(DingTalkSuite::new("key", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(DingTalkSuite::new("key-2", "hunter2").base_url(url)),
                Box::new(DingTalkSuite::new("key", "hunter2-b").base_url(url)),
                Box::new(DingTalkSuite::new("key", "hunter2")),
            ]
        },
        needs_state: true,
        needs_parent: false,
        request: "POST /v1.0/oauth2/suiteAccessToken HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"suiteKey":"key","suiteSecret":"hunter2","suiteTicket":"hunter2-state"}"#),
        granting: r#"{"accessToken":"TOKEN","expireIn":LIFETIME}"#,
        odd_life: false,
        refusals: TICKET_REFUSALS,
    },
    Kind {
        name: "dingtalk authorized corp",
        provider: |url| Box::new(DingTalkAuthorizedCorp::new("key", "hunter2", "corp").base_url(url)),
        others: |url| {
            vec![
                Box::new(DingTalkAuthorizedCorp::new("key-2", "hunter2", "corp").base_url(url)),
                Box::new(DingTalkAuthorizedCorp::new("key", "hunter2-b", "corp").base_url(url)),
                Box::new(DingTalkAuthorizedCorp::new("key", "hunter2", "corp-2").base_url(url)),
                Box::new(DingTalkAuthorizedCorp::new("key", "hunter2", "corp")),
            ]
        },
        needs_state: true,
        needs_parent: false,
        request: "POST /v1.0/oauth2/corpAccessToken HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(
            r#"{"suiteKey":"key","suiteSecret":"hunter2","authCorpId":"corp","suiteTicket":"hunter2-state"}"#,
        ),
        granting: r#"{"accessToken":"TOKEN","expireIn":LIFETIME}"#,
        odd_life: false,
        refusals: TICKET_REFUSALS,
    },
];

const TICKET_REFUSALS: &[Refusal] = &[
    (
        "400 Bad Request",
        r#"{"code":"invalidSuiteTicket","message":"hunter2-state"}"#,
        ErrorKind::TicketRequired,
        Some("invalidSuiteTicket"),
        None,
    ),
    (
        "400 Bad Request",
        r#"{"code":"invalidSuiteKey","message":"hunter2"}"#,
        ErrorKind::InvalidCredentials,
        Some("invalidSuiteKey"),
        None,
    ),
    ("500 Oops", r#"{"code":"unknownError"}"#, ErrorKind::Unavailable, Some("unknownError"), None),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.QpsLimitForSuitekeyAndOrgAndApi"}"#,
        ErrorKind::Throttled,
        Some("Forbidden.AccessDenied.QpsLimitForSuitekeyAndOrgAndApi"),
        Some(2),
    ),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.QpmLimitForSuitekeyAndOrgAndApi"}"#,
        ErrorKind::Throttled,
        Some("Forbidden.AccessDenied.QpmLimitForSuitekeyAndOrgAndApi"),
        Some(60),
    ),
    (
        "403 Forbidden",
        r#"{"code":"Forbidden.AccessDenied.IpNotInWhiteList"}"#,
        ErrorKind::Forbidden,
        Some("Forbidden.AccessDenied.IpNotInWhiteList"),
        None,
    ),
    ("400 Bad Request", r#"{"code":"Missingbody"}"#, ErrorKind::Config, Some("Missingbody"), None),
    ("200 OK", r#"{"errcode":404,"errmsg":"请求的URI地址不存在"}"#, ErrorKind::Config, Some("404"), None),
    ("400 Bad Request", r#"{"code":"new.one"}"#, ErrorKind::InvalidResponse, Some("new.one"), None),
    ("200 OK", r#"{"punish":"deny"}"#, ErrorKind::Throttled, None, Some(300)),
];

#[test]
fn every_kind_of_dingtalk_does_what_is_expected_of_it() {
    assert_all(KINDS);
}

fn kinds() -> [Box<dyn Provider>; 5] {
    [
        Box::new(DingTalk::new("k", "s")),
        Box::new(DingTalkClassic::new("k", "s")),
        Box::new(DingTalkUnified::new("c", "k", "s")),
        Box::new(DingTalkSuite::new("k", "s")),
        Box::new(DingTalkAuthorizedCorp::new("k", "s", "c")),
    ]
}

fn refusal(reply: &[u8]) -> Error {
    let host = canned(reply);
    DingTalk::new("key", "hunter2").base_url(host.url()).fetch(&context()).unwrap_err()
}

#[test]
fn without_a_ticket_dingtalk_is_not_asked() {
    let host = answering(r#"{"accessToken":"t-1","expireIn":7200}"#);
    for provider in [
        &DingTalkSuite::new("k", "hunter2").base_url(host.url()) as &dyn Provider,
        &DingTalkAuthorizedCorp::new("k", "hunter2", "c").base_url(host.url()),
    ] {
        let error = provider.fetch(&context()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::TicketRequired, None));
        assert!(error.to_string().starts_with(&format!("{}: ", provider.name())), "{error}");
        assert!(error.to_string().contains("set_ticket"), "{error}");
        assert_eq!(host.calls(), 0);
    }
    let error =
        DingTalkSuite::new("k", "hunter2").base_url(host.url()).fetch(&context().with_renewal_secret(Some("t".into())));
    assert!(error.is_ok() && host.calls() == 1, "with one it is");
}

#[test]
fn all_corps_of_a_dingtalk_suite_share_its_ticket_and_other_suites_do_not() {
    let suite = DingTalkSuite::new("suite", "s").renewal().unwrap();
    let corp = |key, secret, corp| DingTalkAuthorizedCorp::new(key, secret, corp);
    let same = [
        corp("suite", "s", "corp-1").renewal(),
        corp("suite", "s", "corp-2").renewal(),
        // Tickets are pushed to the suite; a ticket from before a reset of the secret is still valid.
        corp("suite", "reset", "corp-1").renewal(),
        DingTalkSuite::new("suite", "reset").renewal(),
    ];
    for state in same {
        assert_eq!(state.unwrap().identity, suite.identity);
    }
    let other = [
        corp("suite-2", "s", "corp-1").renewal(),
        DingTalkSuite::new("suite-2", "s").renewal(),
        DingTalkSuite::new("suite", "s").base_url("https://host.example").renewal(),
    ];
    for state in other {
        assert_ne!(state.unwrap().identity, suite.identity);
    }
    assert_ne!(suite.identity, DingTalkSuite::new("suite", "s").identity());
    // A push every five hours, of which one may be late.
    assert_eq!(suite.lifetime, Duration::from_secs(12 * 3600));
    assert!(suite.initial.is_none() && !suite.rotates);
    for provider in &kinds()[..3] {
        assert!(provider.renewal().is_none() && provider.parent().is_none(), "{}", provider.name());
    }
}

#[test]
fn a_page_of_dingtalk_is_a_ban_unless_its_status_says_otherwise() {
    let page = |status, kind| reply(status, &format!("content-type: {kind}\r\n"), "<html>punish</html>");
    for status in ["200 OK", "403 Forbidden", "405 Not Allowed", "429 Slow"] {
        for kind in ["text/html", "text/html; charset=utf-8", "Text/HTML"] {
            let error = refusal(&page(status, kind));
            let found = (error.kind(), error.retry_after(), error.status());
            let wait = Some(Duration::from_secs(300));
            assert_eq!(found, (ErrorKind::Throttled, wait, status[..3].parse().ok()), "{status} {kind}");
        }
    }
    for (status, kind) in [
        ("401 Unauthorized", ErrorKind::InvalidCredentials),
        ("404 Not Found", ErrorKind::InvalidResponse),
        ("502 Bad Gateway", ErrorKind::Unavailable),
    ] {
        assert_eq!(refusal(&page(status, "text/html")).kind(), kind, "{status}");
    }
    assert_eq!(refusal(&page("200 OK", "text/plain")).kind(), ErrorKind::InvalidResponse);
}

#[test]
fn an_internal_error_of_dingtalk_advises_to_check_the_corp_id() {
    let error = refusal(&reply("500 Oops", "", r#"{"code":"unknownError","message":"hunter2"}"#));
    assert!(error.is_retryable() && error.to_string().contains("corp id"), "{error}");
}

#[test]
fn errors_of_dingtalk_show_the_request_id_and_the_client_address() {
    let denied = r#"{"code":"invalidClientIdOrSecret","requestid":"30EE8654-1","message":"ip=1.2.3.4"}"#;
    let error = refusal(&reply("400 Bad Request", "", denied));
    assert_eq!(error.request_id(), Some("30EE8654-1"));
    assert!(!error.to_string().contains("1.2.3.4"), "{error}");
    let untrusted =
        r#"{"code":"Forbidden.AccessDenied.IpNotInWhiteList","message":"不在白名单,request ip=1.2.3.4 appKey(key)"}"#;
    let error = refusal(&reply("403 Forbidden", "", untrusted));
    assert!(error.to_string().contains("the vendor sees this machine as 1.2.3.4"), "{error}");
    let old = r#"{"errcode":60020,"errmsg":"访问ip不在白名单之中,request ip=1.2.3.4","request_id":"r-1"}"#;
    let error = refusal(&reply("200 OK", "", old));
    assert!(error.to_string().contains("the vendor sees this machine as 1.2.3.4"), "{error}");
    assert_eq!(error.request_id(), Some("r-1"));
}

#[test]
fn a_refused_token_of_dingtalk_differs_from_a_refused_request() {
    for provider in kinds() {
        let name = provider.name();
        let verdict =
            |status, body: &str| provider.verdict(&ServiceResponse::new(status, &HeaderMap::new(), body.as_bytes()));
        for body in [
            r#"{"errcode":40014}"#,
            r#"{"errcode":"40014"}"#,
            r#"{"errcode":42001}"#,
            r#"{"errcode":40001}"#,
            r#"{"errcode":88,"sub_code":"40014","sub_msg":"x"}"#,
            r#"{"errcode":88,"sub_code":40014}"#,
            r#"{"errcode":"88","sub_code":"42001"}"#,
            r#"{"errcode":88,"sub_code":"40001"}"#,
            r#"{"code":"InvalidAuthentication","requestid":"30EE8654","message":"x"}"#,
        ] {
            for status in [200, 400, 401, 403] {
                assert_eq!(verdict(status, body), Verdict::Rejected, "{name}: {status} {body}");
            }
        }
        for body in [
            r#"{"errcode":0}"#,
            r#"{"errcode":0,"sub_code":"40014"}"#,
            r#"{"errcode":41001}"#,
            r#"{"errcode":60011}"#,
            r#"{"errcode":60020}"#,
            r#"{"errcode":88}"#,
            r#"{"errcode":88,"sub_code":"60011"}"#,
            r#"{"errcode":88,"sub_code":"40000","sub_msg":"access_token is blank"}"#,
            r#"{"code":"AuthenticationFailed.MissingParameter"}"#,
            r#"{"code":"Forbidden.AccessDenied.AccessTokenPermissionDenied"}"#,
            r#"{"code":"Forbidden.AccessDenied.IpNotInWhiteList"}"#,
            r#"{"code":"apiPermissionDenied"}"#,
            r#"{"code":"unknownError"}"#,
            r#"{"result":"the text 40014 and InvalidAuthentication"}"#,
        ] {
            for status in [200, 400, 403, 500] {
                assert_eq!(verdict(status, body), Verdict::Accepted, "{name}: {status} {body}");
            }
        }
        assert_eq!(verdict(401, ""), Verdict::Rejected, "{name}");
        assert_eq!(verdict(403, ""), Verdict::Accepted, "{name}");
    }
}

#[test]
fn throttling_by_dingtalk_says_how_long_to_wait() {
    let wait = |seconds| Verdict::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
    let mut page = HeaderMap::new();
    page.insert("content-type", "text/html;charset=utf-8".parse().unwrap());
    for provider in kinds() {
        let name = provider.name();
        let verdict =
            |status, body: &str| provider.verdict(&ServiceResponse::new(status, &HeaderMap::new(), body.as_bytes()));
        for code in (90001..=90014).chain([90017, 90018, 90019]) {
            let expected = wait(if code == 90002 { 1 } else { 2 });
            assert_eq!(verdict(200, &format!(r#"{{"errcode":{code}}}"#)), expected, "{name}: {code}");
            assert_eq!(verdict(200, &format!(r#"{{"errcode":88,"sub_code":"{code}"}}"#)), expected, "{name}: {code}");
        }
        // Codes close to the others with another meaning.
        assert_eq!(verdict(200, r#"{"errcode":900103}"#), Verdict::Accepted, "{name}");
        for (code, seconds) in [
            ("Forbidden.AccessDenied.QpsLimitForApi", 2),
            ("Forbidden.AccessDenied.QpsLimitForAppkeyAndApi", 2),
            ("Forbidden.AccessDenied.QpmLimitForSuitekeyAndOrgAndApi", 60),
            ("qps.exceed.limit", 2),
            ("request.overlimit", 2),
            ("oaplus.query.limit", 2),
        ] {
            for status in [200, 400, 403, 429] {
                assert_eq!(verdict(status, &format!(r#"{{"code":"{code}"}}"#)), wait(seconds), "{name}: {code}");
            }
        }
        for code in [660026, 410100] {
            assert_eq!(verdict(200, &format!(r#"{{"errcode":{code}}}"#)), wait(60), "{name}: {code}");
        }
        for status in [200, 403] {
            assert_eq!(verdict(status, r#"{"status":1111,"wait":5,"punish":"deny"}"#), wait(300), "{name}");
            assert_eq!(provider.verdict(&ServiceResponse::new(status, &page, b"<html>")), wait(300), "{name}");
        }
        // An HTML page of a gateway does not come from the vendor.
        assert_eq!(provider.verdict(&ServiceResponse::new(502, &page, b"<html>")), Verdict::Accepted, "{name}");
        assert_eq!(provider.verdict(&ServiceResponse::new(401, &page, b"<html>")), Verdict::Rejected, "{name}");
        assert_eq!(verdict(200, r#"{"punish":"none"}"#), Verdict::Accepted, "{name}");
    }
}

#[test]
fn the_tokens_of_dingtalk_travel_where_the_host_looks_for_them() {
    for provider in kinds() {
        let expected = match provider.name() {
            "dingtalk classic" => TokenPlacement::query("access_token"),
            _ => TokenPlacement::header("x-acs-dingtalk-access-token"),
        };
        assert_eq!(provider.placement(), expected, "{}", provider.name());
        let host = if provider.name() == "dingtalk classic" { "oapi" } else { "api" };
        let shown = format!("{:?}", provider.identity());
        assert!(shown.contains(&format!("(\"url\", \"https://{host}.dingtalk.com\")")), "{shown}");
    }
}

#[test]
fn the_profile_of_dingtalk_matches_its_documentation() {
    // The name, whether the same token returns with a longer lifetime, whether a new one may invalidate the old one.
    let expected = [
        ("dingtalk", true, false),
        ("dingtalk classic", true, false),
        ("dingtalk unified", false, false),
        ("dingtalk suite", false, true),
        ("dingtalk authorized corp", false, true),
    ];
    for (provider, (name, extends, ends)) in kinds().iter().zip(expected) {
        let profile = provider.profile();
        assert_eq!(provider.name(), name);
        assert_eq!((profile.unchanged_token_extends, profile.new_token_ends_old), (extends, ends), "{name}");
        assert_eq!(profile.default_lifetime, Duration::from_secs(7200), "{name}");
        assert_eq!((profile.refresh_ahead, profile.earliest_refresh), (Duration::from_secs(300), None), "{name}");
        assert_eq!(profile.min_forced_interval, Duration::from_secs(if extends { 10 } else { 0 }), "{name}");
        assert_eq!((profile.forced_quota, profile.daily_quota), (None, None), "{name}");
    }
}

#[test]
fn a_wrong_setting_of_dingtalk_is_named() {
    for (provider, setting) in [
        (&DingTalk::new(" ", "hunter2") as &dyn Provider, "the app key is empty"),
        (&DingTalk::new("k", "hunter2\n"), "the app secret has blanks"),
        (&DingTalkClassic::new("k", ""), "the app secret is empty"),
        (&DingTalkUnified::new("", "k", "hunter2"), "the corp id is empty"),
        (&DingTalkUnified::new("c", "", "hunter2"), "the client id is empty"),
        (&DingTalkUnified::new("c", "k", ""), "the client secret is empty"),
        (&DingTalkSuite::new("", "hunter2"), "the suite key is empty"),
        (&DingTalkSuite::new("k", "hunter2").base_url("https://h?hunter2"), "query"),
        (&DingTalkAuthorizedCorp::new("k", "", "c"), "the suite secret is empty"),
        (&DingTalkAuthorizedCorp::new("k", "hunter2", ""), "the authorized corp's id is empty"),
    ] {
        let error = provider.check().unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(text.starts_with(&format!("{}: ", provider.name())) && text.contains(setting), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_dingtalk_code_that_quotes_the_request_is_not_shown() {
    for quoted in ["s3cret", "the-ticket"] {
        let body = format!(r#"{{"code":"x-{quoted}","requestid":"{quoted}"}}"#);
        let host = canned(reply("400 Bad Request", "", &body));
        let context = context().with_renewal_secret(Some("the-ticket".into()));
        let sent: [(&dyn Provider, &[&str]); 5] = [
            (&DingTalk::new("k", "s3cret").base_url(host.url()), &["s3cret"]),
            (&DingTalkClassic::new("k", "s3cret").base_url(host.url()), &["s3cret"]),
            (&DingTalkUnified::new("c", "k", "s3cret").base_url(host.url()), &["s3cret"]),
            (&DingTalkSuite::new("k", "s3cret").base_url(host.url()), &["s3cret", "the-ticket"]),
            (&DingTalkAuthorizedCorp::new("k", "s3cret", "c").base_url(host.url()), &["s3cret", "the-ticket"]),
        ];
        for (provider, sent) in sent {
            let error = provider.fetch(&context).unwrap_err();
            let found = [error.code().is_some(), error.request_id().is_some()];
            assert_eq!(found, [!sent.contains(&quoted); 2], "{}: {quoted}", provider.name());
        }
    }
}
