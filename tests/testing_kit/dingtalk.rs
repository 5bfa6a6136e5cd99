//! DingTalk: the old family of replies and the new one.

use evertoken::testing::{FakeClock, FakeVendor};
use serde_json::{Value, json};

use super::{HOUR, get, get_with, json, post_form, post_json, seconds, status_and_body};

fn old(host: &FakeVendor) -> Value {
    json(get(&format!("{}?appkey=app&appsecret=secret", host.token_url())))
}

fn new(host: &FakeVendor, call: &str, body: &Value) -> (u16, Value) {
    status_and_body(post_json(&format!("{}/v1.0/oauth2/{call}", host.url()), body))
}

fn suite(ticket: &str) -> Value {
    json!({ "suiteKey": "suite", "suiteSecret": "suite-secret", "suiteTicket": ticket, "authCorpId": "corp" })
}

fn code((status, body): (u16, Value)) -> (u16, String) {
    (status, body["code"].as_str().unwrap().to_owned())
}

#[test]
fn the_same_token_is_granted_again_with_a_whole_lifetime_from_then_on() {
    let clock = FakeClock::new();
    let host = FakeVendor::dingtalk().clock(&clock);
    let first = json!({ "errcode": 0, "errmsg": "ok", "access_token": "token-1", "expires_in": 7200 });
    assert_eq!(old(&host), first);
    clock.advance(seconds(7199));
    assert_eq!(old(&host), first);
    clock.advance(seconds(7199));
    assert!(host.is_valid("token-1"));
    clock.advance(seconds(1));
    assert!(!host.is_valid("token-1"));
    assert_eq!(old(&host)["access_token"], "token-2");
}

#[test]
fn each_call_has_tokens_of_its_own() {
    let clock = FakeClock::new();
    let host = FakeVendor::dingtalk().clock(&clock).another_tenant("corp-2");
    old(&host);
    let app = json!({ "appKey": "app", "appSecret": "secret" });
    let granted = (200, json!({ "accessToken": "token-2", "expireIn": 7200 }));
    assert_eq!(new(&host, "accessToken", &app), granted);
    let client = json!({ "client_id": "app", "client_secret": "secret", "grant_type": "client_credentials" });
    assert_eq!(new(&host, "corp/token", &client), (200, json!({ "access_token": "token-3", "expires_in": 7200 })));
    assert_eq!(new(&host, "corp-2/token", &client).1["access_token"], "token-4");
    clock.advance(HOUR);
    assert_eq!(new(&host, "accessToken", &app), granted);
    clock.advance(HOUR);
    assert!(host.is_valid("token-2") && !host.is_valid("token-3"));
    assert_eq!(host.calls_to("/v1.0/oauth2/corp/token"), 1);
}

#[test]
fn a_suite_needs_the_latest_ticket() {
    let host = FakeVendor::dingtalk();
    assert_eq!(code(new(&host, "suiteAccessToken", &suite("ticket-1"))), (400, "invalidSuiteTicket".into()));
    let first = host.push_ticket();
    let granted = (200, json!({ "accessToken": "token-1", "expireIn": 7200 }));
    assert_eq!(new(&host, "suiteAccessToken", &suite(&first)), granted);
    let second = host.push_ticket();
    assert_eq!(code(new(&host, "suiteAccessToken", &suite(&first))), (400, "invalidSuiteTicket".into()));
    assert_eq!(code(new(&host, "corpAccessToken", &suite(&first))), (400, "invalidSuiteTicket".into()));
    assert_eq!(new(&host, "suiteAccessToken", &suite(&second)), granted);
}

#[test]
fn a_corp_token_is_a_new_one_each_time() {
    let host = FakeVendor::dingtalk();
    let ticket = host.push_ticket();
    assert_eq!(new(&host, "corpAccessToken", &suite(&ticket)).1["accessToken"], "token-1");
    assert_eq!(new(&host, "corpAccessToken", &suite(&ticket)).1["accessToken"], "token-2");
    assert!(host.is_valid("token-1") && host.is_valid("token-2"));
    let mut elsewhere = suite(&ticket);
    elsewhere["authCorpId"] = "else".into();
    assert_eq!(code(new(&host, "corpAccessToken", &elsewhere)), (500, "unknownError".into()));
}

#[test]
fn each_family_refuses_a_credential_in_its_own_way() {
    let host = FakeVendor::dingtalk();
    let (status, body) = status_and_body(get(&format!("{}?appkey=app&appsecret=else", host.token_url())));
    assert_eq!((status, &body["errcode"]), (200, &40096.into()));
    assert_eq!(json(get(&host.token_url()))["errcode"], 40035);
    assert_eq!(json(post_json(&host.token_url(), &json!({ "appkey": "app" })))["errcode"], 40035);

    let wrong = json!({ "appKey": "app", "appSecret": "else" });
    assert_eq!(code(new(&host, "accessToken", &wrong)), (400, "invalidClientIdOrSecret".into()));
    let form = post_form(&format!("{}/v1.0/oauth2/accessToken", host.url()), "appKey=app&appSecret=secret");
    assert_eq!(code(status_and_body(form)), (400, "Missingbody".into()));
    let client = json!({ "client_id": "app", "client_secret": "secret", "grant_type": "else" });
    assert_eq!(code(new(&host, "corp/token", &client)), (400, "unsupported.grant.type".into()));
    assert_eq!(code(new(&host, "else/token", &client)), (500, "unknownError".into()));
    let stranger = json!({ "suiteKey": "else", "suiteSecret": "suite-secret" });
    assert_eq!(code(new(&host, "suiteAccessToken", &stranger)), (400, "invalidSuiteKey".into()));
    assert!(host.granted().is_empty());
}

#[test]
fn the_old_api_takes_a_token_in_the_query_and_wraps_its_codes() {
    let clock = FakeClock::new();
    let host = FakeVendor::dingtalk().clock(&clock);
    old(&host);
    let used = |query: &str| {
        let (status, body) = status_and_body(get(&format!("{}{query}", host.api_url())));
        assert_eq!(status, 200);
        (body["errcode"].as_i64().unwrap(), body["sub_code"].as_str().map(str::to_owned))
    };
    assert_eq!(used("?access_token=token-1"), (0, None));
    assert_eq!(used("?access_token=else"), (88, Some("40014".into())));
    assert_eq!(used(""), (88, Some("40000".into())));
    clock.advance(2 * HOUR);
    assert_eq!(used("?access_token=token-1"), (88, Some("42001".into())));
    assert_eq!(host.api_calls(), 4);
}

#[test]
fn the_new_api_takes_a_token_in_its_header_only() {
    let host = FakeVendor::dingtalk();
    old(&host);
    let url = format!("{}/v1.0/contact/users/me?access_token=token-1", host.url());
    let header = "x-acs-dingtalk-access-token";
    assert_eq!(get_with(&url, &[(header, "token-1")]).unwrap().status(), 200);
    assert_eq!(code(status_and_body(get_with(&url, &[(header, "else")]))), (400, "InvalidAuthentication".into()));
    let missing = (400, "AuthenticationFailed.MissingParameter".to_owned());
    assert_eq!(code(status_and_body(get_with(&url, &[("Authorization", "Bearer token-1")]))), missing);
    assert_eq!((host.calls(), host.api_calls()), (1, 3));
}
