//! The behaviour that the fake hosts of all vendors share, each with the replies of its vendor.

use evertoken::testing::{FakeClock, FakeVendor, VendorFault};
use serde_json::{Value, json};

use super::{HOUR, Reply, get, get_with, post_form, post_json, seconds, status_and_body};

/// A vendor, and a valid request for its first kind of token.
struct Row {
    name: &'static str,
    host: fn() -> FakeVendor,
    ask: fn(&str) -> Reply,
    /// The JSON pointer of the token in the reply.
    token: &'static str,
    /// The reply to `VendorFault::Throttle`: the status, and the JSON pointer of the code, if there is one.
    throttled: (u16, &'static str, fn() -> Value),
    /// The place of the time to wait.
    wait: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        name: "wecom",
        host: FakeVendor::wecom,
        ask: |url| get(&format!("{url}?corpid=corp&corpsecret=secret")),
        token: "access_token",
        throttled: (200, "errcode", || 45009.into()),
        wait: "retry-after",
    },
    Row {
        name: "wechat",
        host: FakeVendor::wechat,
        ask: |url| post_json(url, &json!({ "grant_type": "client_credential", "appid": "app", "secret": "secret" })),
        token: "access_token",
        throttled: (200, "errcode", || 45009.into()),
        wait: "retry-after",
    },
    Row {
        name: "feishu",
        host: FakeVendor::feishu,
        ask: |url| post_json(url, &json!({ "app_id": "app", "app_secret": "secret" })),
        token: "tenant_access_token",
        throttled: (429, "code", || 99991400.into()),
        wait: "x-ogw-ratelimit-reset",
    },
    Row {
        name: "dingtalk",
        host: FakeVendor::dingtalk,
        ask: |url| get(&format!("{url}?appkey=app&appsecret=secret")),
        token: "access_token",
        throttled: (200, "errcode", || 90018.into()),
        wait: "retry-after",
    },
    Row {
        name: "entra",
        host: FakeVendor::entra,
        ask: |url| {
            let form = "grant_type=client_credentials&client_id=client&client_secret=secret&scope=api%2F.default";
            post_form(url, form)
        },
        token: "access_token",
        throttled: (429, "error", || "temporarily_unavailable".into()),
        wait: "retry-after",
    },
    Row {
        name: "managed identity",
        host: FakeVendor::managed_identity,
        ask: |url| get_with(&format!("{url}?api-version=2018-02-01&resource=r"), &[("Metadata", "true")]),
        token: "access_token",
        throttled: (429, "error", || "too_many_requests".into()),
        wait: "retry-after",
    },
    Row {
        name: "oauth2",
        host: FakeVendor::oauth2,
        ask: |url| post_form(url, "grant_type=client_credentials&client_id=client&client_secret=secret"),
        token: "access_token",
        throttled: (429, "error", || "slow_down".into()),
        wait: "retry-after",
    },
];

impl Row {
    fn ask(&self, host: &FakeVendor) -> Reply {
        (self.ask)(&host.token_url())
    }

    fn throttled(&self) -> (u16, Value) {
        (self.throttled.0, (self.throttled.2)())
    }

    fn said(&self, reply: Reply) -> (u16, Value) {
        let (status, body) = status_and_body(reply);
        (status, body[self.throttled.1].clone())
    }
}

#[test]
fn a_valid_request_brings_the_scripted_token_which_expires_by_the_fake_clock() {
    for row in ROWS {
        let clock = FakeClock::new();
        let host = (row.host)().clock(&clock).granting("t-1", 60).lifetime(HOUR);
        let (status, body) = status_and_body(row.ask(&host));
        assert_eq!((status, &body[row.token]), (200, &"t-1".into()), "{}", row.name);
        assert!(host.is_valid("t-1"), "{}", row.name);
        clock.advance(seconds(60));
        assert!(!host.is_valid("t-1"), "{}", row.name);
        assert_eq!(status_and_body(row.ask(&host)).1[row.token], "token-1", "{}", row.name);
        assert_eq!(host.granted(), ["t-1", "token-1"], "{}", row.name);
    }
}

#[test]
fn every_vendor_reports_throttling_in_its_own_way() {
    for row in ROWS {
        let host = (row.host)();
        host.fail_with(VendorFault::Throttle { retry_after: seconds(30) });
        let reply = row.ask(&host).unwrap();
        assert_eq!(reply.headers()[row.wait], "30", "{}", row.name);
        assert_eq!(row.said(Ok(reply)), row.throttled(), "{}", row.name);
        host.fail_with(VendorFault::Throttle { retry_after: seconds(0) });
        assert!(row.ask(&host).unwrap().headers().get(row.wait).is_none(), "{}", row.name);
        assert!(host.granted().is_empty(), "{}", row.name);
    }
}

#[test]
fn a_quota_is_for_a_day_and_for_each_path() {
    for row in ROWS {
        let clock = FakeClock::new();
        let host = (row.host)().clock(&clock).daily_quota(2);
        assert!(status_and_body(row.ask(&host)).1[row.token].is_string(), "{}", row.name);
        clock.advance(23 * HOUR);
        assert!(status_and_body(row.ask(&host)).1[row.token].is_string(), "{}", row.name);
        assert_eq!(row.said(row.ask(&host)), row.throttled(), "{}", row.name);
        clock.advance(HOUR);
        assert!(status_and_body(row.ask(&host)).1[row.token].is_string(), "{}: the day is over", row.name);
    }
    let host = FakeVendor::wechat().daily_quota(0);
    let classic = format!("{}/cgi-bin/token", host.url());
    assert_eq!(status_and_body(get(&classic)).1["errcode"], 45009);
}

#[test]
fn every_vendor_reports_an_outage_with_a_code_in_its_own_way() {
    for (host, outage, expected) in [
        (FakeVendor::wechat(), VendorFault::Code(40164), (200, "errcode", json!(40164))),
        (FakeVendor::feishu(), VendorFault::Code(10014), (200, "code", json!(10014))),
        (FakeVendor::dingtalk(), VendorFault::Code(60020), (200, "errcode", json!(60020))),
        (FakeVendor::managed_identity(), VendorFault::Error("identity_gone"), (400, "error", json!("identity_gone"))),
    ] {
        host.fail_with(outage);
        let (status, body) = status_and_body(get(&host.token_url()));
        assert_eq!((status, &body[expected.1]), (expected.0, &expected.2), "{host:?}");
    }
    let host = FakeVendor::dingtalk();
    let url = format!("{}/v1.0/oauth2/accessToken", host.url());
    for (code, status) in [("invalidSuiteTicket", 400), ("Forbidden.AccessDenied.IpNotInWhiteList", 403)] {
        host.fail_with(VendorFault::Error(code));
        let (found, body) = status_and_body(post_json(&url, &json!({})));
        assert_eq!((found, &body["code"]), (status, &code.into()));
    }
    host.fail_with(VendorFault::Throttle { retry_after: seconds(0) });
    assert_eq!(status_and_body(post_json(&url, &json!({}))).1["code"], "Forbidden.AccessDenied.QpsLimitForApi");
    let host = FakeVendor::feishu();
    let url = format!("{}/oauth/v3/token", host.url());
    host.fail_with(VendorFault::Code(20072));
    assert_eq!(status_and_body(post_form(&url, "")).1["code"], 20072);
    host.fail_with(VendorFault::Error("invalid_scope"));
    assert_eq!(status_and_body(post_form(&url, "")).1["error"], "invalid_scope");
}

#[test]
fn an_outage_is_one_of_all_paths_that_grant_and_of_none_that_use_tokens() {
    let host = FakeVendor::feishu();
    host.fail_with(VendorFault::Status(503));
    for path in ["app_access_token/internal", "tenant_access_token", "app_ticket/resend"] {
        let url = format!("{}/open-apis/auth/v3/{path}", host.url());
        assert_eq!(post_json(&url, &json!({})).unwrap().status(), 503, "{path}");
    }
    assert_eq!(host.ticket_resend_requests(), 0);
    assert_eq!(get(&host.api_url()).unwrap().status(), 400);
}

#[test]
#[should_panic(expected = "this vendor pushes no tickets")]
fn a_vendor_without_tickets_pushes_none() {
    FakeVendor::oauth2().push_ticket();
}

#[test]
#[should_panic(expected = "this vendor has no tenants")]
fn a_fake_vendor_without_tenants_has_none() {
    drop(FakeVendor::wecom().another_tenant("corp"));
}

#[test]
#[should_panic(expected = "this vendor has no token endpoint at /cgi-bin/message/send")]
fn a_credential_is_for_a_path_that_grants_tokens() {
    drop(FakeVendor::wecom().another_credential_at("/cgi-bin/message/send", "corp", "secret"));
}
