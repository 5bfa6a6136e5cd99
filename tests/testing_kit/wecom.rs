//! WeCom: suites, providers and JS tickets.

use evertoken::testing::{FakeClock, FakeVendor};
use evertoken::{TokenManager, WeCom};
use serde_json::{Value, json};

use super::{HOUR, get, json, post_json, seconds};

fn suite(host: &FakeVendor, ticket: &str) -> Value {
    let body = json!({ "suite_id": "suite", "suite_secret": "suite-secret", "suite_ticket": ticket });
    json(post_json(&format!("{}/cgi-bin/service/get_suite_token", host.url()), &body))
}

fn corp(host: &FakeVendor, suite_token: &str) -> Value {
    let body = json!({ "auth_corpid": "auth-corp", "permanent_code": "permanent-code" });
    let path = format!("{}/cgi-bin/service/get_corp_token?suite_access_token={suite_token}", host.url());
    json(post_json(&path, &body))
}

fn code(url: &str) -> Value {
    json(get(url))["errcode"].clone()
}

#[test]
fn a_suite_needs_a_ticket_which_is_good_for_half_an_hour() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    assert_eq!(suite(&host, "")["errcode"], 41023);
    assert_eq!(suite(&host, "ticket-1")["errcode"], 40085, "none was pushed yet");
    let first = host.push_ticket();
    let granted = suite(&host, &first);
    assert_eq!(granted, json!({ "suite_access_token": "token-1", "expires_in": 7200 }));
    clock.advance(seconds(600));
    let second = host.push_ticket();
    assert_ne!(first, second);
    assert_eq!(suite(&host, &first)["suite_access_token"], "token-1", "the next one does not end it");
    clock.advance(seconds(1200));
    assert_eq!(suite(&host, &first)["errcode"], 40085);
    assert_eq!(suite(&host, &second), granted, "the same token, and its whole life");
    clock.advance(seconds(5400));
    assert_eq!(suite(&host, &host.push_ticket())["suite_access_token"], "token-2");
}

#[test]
fn a_suite_is_refused_with_codes_of_its_own() {
    let host = FakeVendor::wecom();
    let ticket = host.push_ticket();
    let url = format!("{}/cgi-bin/service/get_suite_token", host.url());
    let refused = |id: &str, secret: &str| {
        let body = json!({ "suite_id": id, "suite_secret": secret, "suite_ticket": ticket });
        json(post_json(&url, &body))["errcode"].clone()
    };
    assert_eq!(refused("", "suite-secret"), 41021);
    assert_eq!(refused("else", "suite-secret"), 40083);
    assert_eq!(refused("suite", "else"), 40080);
    assert_eq!(refused("corp", "secret"), 40083, "an app is no suite");
    assert_eq!(code(&url), 43002);
    let host = host.another_credential_at("/cgi-bin/service/get_suite_token", "suite-2", "s-2");
    assert_eq!(refused("suite-2", "s-2"), Value::Null);
    assert_eq!(host.granted(), ["token-1"]);
    assert_eq!(suite(&host, &ticket)["suite_access_token"], "token-2", "each has its own");
}

#[test]
fn a_corp_token_is_granted_for_a_valid_suite_token() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    suite(&host, &host.push_ticket());
    assert_eq!(corp(&host, "")["errcode"], 41022);
    assert_eq!(corp(&host, "else")["errcode"], 40082);
    let granted = corp(&host, "token-1");
    assert_eq!(granted, json!({ "access_token": "token-2", "expires_in": 7200 }));
    assert_eq!(corp(&host, "token-2")["errcode"], 40082, "this is no suite token");
    let wrong = json!({ "auth_corpid": "auth-corp", "permanent_code": "else" });
    let url = format!("{}/cgi-bin/service/get_corp_token?suite_access_token=token-1", host.url());
    assert_eq!(json(post_json(&url, &wrong))["errcode"], 40084);
    assert_eq!(code(&format!("{}?access_token=token-2", host.api_url())), 0);
    assert_eq!(code(&format!("{}?access_token=token-1", host.api_url())), 40014);
    let suites =
        |token: &str| code(&format!("{}/cgi-bin/service/get_pre_auth_code?suite_access_token={token}", host.url()));
    assert_eq!((suites("token-1"), suites("else")), (0.into(), 40082.into()));
    clock.advance(2 * HOUR);
    assert_eq!(suites("token-1"), 42009);
    assert_eq!(corp(&host, "token-1")["errcode"], 42009);
    suite(&host, &host.push_ticket());
    host.revoke("token-3");
    assert_eq!(corp(&host, "token-3")["errcode"], 40082);
}

#[test]
fn a_provider_has_tokens_of_its_own() {
    let host = FakeVendor::wecom();
    let ask = |corp: &str, secret: &str| {
        let body = json!({ "corpid": corp, "provider_secret": secret });
        json(post_json(&format!("{}/cgi-bin/service/get_provider_token", host.url()), &body))
    };
    assert_eq!(ask("corp", "provider-secret"), json!({ "provider_access_token": "token-1", "expires_in": 7200 }));
    assert_eq!(ask("corp", "provider-secret")["provider_access_token"], "token-1");
    assert_eq!((&ask("else", "x")["errcode"], &ask("corp", "secret")["errcode"]), (&40013.into(), &40001.into()));
    let used = |token: &str| {
        code(&format!("{}/cgi-bin/service/corpid_to_opencorpid?provider_access_token={token}", host.url()))
    };
    assert_eq!((used("token-1"), used("else")), (0.into(), 40082.into()));
    assert_eq!(code(&format!("{}?access_token=token-1", host.api_url())), 40014);
}

#[test]
fn a_js_ticket_is_granted_for_a_valid_token() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    let ask = |path: &str| json(get(&(host.url() + path)));
    assert_eq!(ask("/cgi-bin/get_jsapi_ticket")["errcode"], 41001);
    assert_eq!(ask("/cgi-bin/get_jsapi_ticket?access_token=else")["errcode"], 40014);
    ask("/cgi-bin/gettoken?corpid=corp&corpsecret=secret");
    let corps = ask("/cgi-bin/get_jsapi_ticket?access_token=token-1");
    assert_eq!(corps, json!({ "errcode": 0, "errmsg": "ok", "ticket": "token-2", "expires_in": 7200 }));
    assert_eq!(ask("/cgi-bin/ticket/get?access_token=token-1")["errcode"], 40058);
    let app = "/cgi-bin/ticket/get?access_token=token-1&type=agent_config";
    assert_eq!(ask(app)["ticket"], "token-3");
    clock.advance(HOUR);
    assert_eq!(ask(app)["ticket"], "token-3");
    assert_eq!(ask("/cgi-bin/get_jsapi_ticket?access_token=token-1"), corps, "its whole life each time");
    clock.advance(HOUR);
    assert_eq!(ask(app)["errcode"], 42001);
    assert_eq!(host.calls_to("/cgi-bin/ticket/get"), 4);
    assert_eq!(host.calls(), 9);
}

#[test]
fn calls_of_one_kind_are_counted_apart() {
    let host = FakeVendor::wecom();
    let tokens = TokenManager::new(WeCom::new("corp", "secret").base_url(host.url()));
    tokens.token().unwrap();
    suite(&host, "");
    suite(&host, "");
    assert_eq!(host.calls_to("/cgi-bin/gettoken"), 1);
    assert_eq!(host.calls_to("/cgi-bin/service/get_suite_token"), 2);
    assert_eq!((host.calls(), host.calls_to("/else")), (3, 0));
}
