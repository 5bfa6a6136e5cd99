//! WeChat: the stable token and the classic one, tickets, components and authorizers.

use evertoken::testing::{FakeClock, FakeVendor};
use serde_json::{Value, json};

use super::{HOUR, LONG, agent, finish, get, json, post_json, seconds};

fn stable(host: &FakeVendor, force: bool) -> Value {
    let body = json!({
        "grant_type": "client_credential", "appid": "app", "secret": "secret", "force_refresh": force,
    });
    json(post_json(&host.token_url(), &body))
}

fn classic(host: &FakeVendor) -> Value {
    json(get(&format!("{}/cgi-bin/token?grant_type=client_credential&appid=app&secret=secret", host.url())))
}

fn component(host: &FakeVendor, ticket: &str) -> Value {
    let body = json!({
        "component_appid": "component", "component_appsecret": "component-secret", "component_verify_ticket": ticket,
    });
    json(post_json(&format!("{}/cgi-bin/component/api_component_token", host.url()), &body))
}

fn authorizer(host: &FakeVendor, query: &str, refresh_token: &str) -> Value {
    let body = json!({
        "component_appid": "component", "authorizer_appid": "authorizer", "authorizer_refresh_token": refresh_token,
    });
    json(post_json(&format!("{}/cgi-bin/component/api_authorizer_token?{query}", host.url()), &body))
}

fn used(host: &FakeVendor, token: &str) -> Value {
    json(get(&format!("{}?access_token={token}", host.api_url())))["errcode"].clone()
}

#[test]
fn the_stable_token_stays_until_five_minutes_are_left() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    assert_eq!(stable(&host, false), json!({ "access_token": "token-1", "expires_in": 7200 }));
    clock.advance(seconds(6900));
    assert_eq!(stable(&host, false), json!({ "access_token": "token-1", "expires_in": 300 }));
    clock.advance(seconds(1));
    assert_eq!(stable(&host, false), json!({ "access_token": "token-2", "expires_in": 7200 }));
    assert!(host.is_valid("token-1"), "it lives to its end");
    clock.advance(seconds(299));
    assert_eq!((used(&host, "token-1"), used(&host, "token-2")), (42001.into(), 0.into()));
}

#[test]
fn a_forced_refresh_ends_the_old_token_but_not_within_thirty_seconds_of_the_last() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    stable(&host, false);
    assert_eq!(stable(&host, true)["access_token"], "token-2");
    assert_eq!((used(&host, "token-1"), used(&host, "token-2")), (40001.into(), 0.into()));
    clock.advance(seconds(29));
    assert_eq!(stable(&host, true), json!({ "access_token": "token-2", "expires_in": 7171 }));
    assert_eq!(stable(&host, false)["access_token"], "token-2");
    clock.advance(seconds(1));
    assert_eq!(stable(&host, true)["access_token"], "token-3");
}

#[test]
fn a_refresh_is_forced_twenty_times_a_day() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    for _ in 0..20 {
        assert_eq!(stable(&host, true)["errcode"], Value::Null);
        clock.advance(seconds(30));
    }
    assert_eq!(stable(&host, true)["errcode"], 45009);
    assert_eq!(stable(&host, false)["access_token"], "token-20", "to ask without force is allowed");
    clock.advance(24 * HOUR);
    assert_eq!(stable(&host, true)["access_token"], "token-21");
}

#[test]
fn a_classic_token_ends_the_one_before_after_five_minutes() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    assert_eq!(classic(&host), json!({ "access_token": "token-1", "expires_in": 7200 }));
    assert_eq!(classic(&host)["access_token"], "token-2");
    clock.advance(seconds(299));
    assert!(host.is_valid("token-1"));
    assert_eq!(classic(&host)["access_token"], "token-3");
    clock.advance(seconds(1));
    assert_eq!(used(&host, "token-1"), 40001, "a third one does not give it five minutes more");
    assert_eq!((used(&host, "token-2"), used(&host, "token-3")), (0.into(), 0.into()));
    clock.advance(2 * HOUR);
    assert_eq!((used(&host, "token-2"), used(&host, "token-3")), (40001.into(), 42001.into()));
}

#[test]
fn the_stable_token_and_the_classic_one_do_not_disturb_each_other() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    stable(&host, false);
    classic(&host);
    classic(&host);
    stable(&host, true);
    clock.advance(seconds(300));
    assert_eq!((used(&host, "token-3"), used(&host, "token-4")), (0.into(), 0.into()));
    assert_eq!(stable(&host, false)["access_token"], "token-4");
}

#[test]
fn classic_tokens_are_counted_and_two_thousand_are_enough_for_a_day() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    let agent = agent(LONG);
    let url = format!("{}/cgi-bin/token?grant_type=client_credential&appid=app&secret=secret", host.url());
    for _ in 0..2_000 {
        assert_eq!(json(finish(agent.get(&url).call()))["errcode"], Value::Null);
    }
    assert_eq!(classic(&host)["errcode"], 45009);
    assert_eq!(stable(&host, false)["errcode"], Value::Null);
    clock.advance(24 * HOUR);
    assert_eq!(classic(&host)["errcode"], Value::Null);
}

#[test]
fn an_app_is_refused_with_the_code_for_what_is_wrong() {
    let host = FakeVendor::wechat();
    let refused = |body: Value| json(post_json(&host.token_url(), &body))["errcode"].clone();
    let grant = "client_credential";
    assert_eq!(refused(json!({ "grant_type": "client_credentials", "appid": "app", "secret": "secret" })), 40002);
    assert_eq!(refused(json!({ "grant_type": grant, "appid": "else", "secret": "secret" })), 40013);
    assert_eq!(refused(json!({ "grant_type": grant, "appid": "app", "secret": "else" })), 40125);
    assert_eq!(refused(json!({ "grant_type": grant, "secret": "secret" })), 41002);
    assert_eq!(refused(json!({ "grant_type": grant, "appid": "app" })), 41004);
    assert_eq!(json(get(&host.token_url()))["errcode"], 43002);
    let query = "grant_type=client_credential&appid=app&secret=else";
    assert_eq!(json(get(&format!("{}/cgi-bin/token?{query}", host.url())))["errcode"], 40125);
    assert!(host.granted().is_empty());
}

#[test]
fn a_js_ticket_needs_a_valid_token_of_the_app() {
    let host = FakeVendor::wechat();
    let ask = |query: &str| json(get(&format!("{}/cgi-bin/ticket/getticket?{query}", host.url())));
    assert_eq!(ask("type=jsapi")["errcode"], 41001);
    assert_eq!(ask("type=jsapi&access_token=else")["errcode"], 40001);
    stable(&host, false);
    let granted = ask("type=jsapi&access_token=token-1");
    assert_eq!(granted, json!({ "errcode": 0, "errmsg": "ok", "ticket": "token-2", "expires_in": 7200 }));
    assert_eq!(ask("type=jsapi&access_token=token-1"), granted);
    assert_eq!(ask("type=wx_card&access_token=token-1")["ticket"], "token-3");
    assert_eq!(ask("type=else&access_token=token-1")["errcode"], 40097);
}

#[test]
fn a_component_needs_a_ticket_which_is_good_for_twelve_hours() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    assert_eq!(component(&host, "ticket-1")["errcode"], 61006);
    let ticket = host.push_ticket();
    assert_eq!(component(&host, &ticket), json!({ "component_access_token": "token-1", "expires_in": 7200 }));
    clock.advance(seconds(6600));
    assert_eq!(component(&host, &ticket), json!({ "component_access_token": "token-1", "expires_in": 600 }));
    clock.advance(seconds(1));
    assert_eq!(component(&host, &ticket)["component_access_token"], "token-2");
    clock.advance(12 * HOUR);
    assert_eq!(component(&host, &ticket)["errcode"], 61005);
    assert_eq!(component(&host, &host.push_ticket())["component_access_token"], "token-3");
}

#[test]
fn an_authorizer_token_brings_the_next_refresh_token_and_ends_the_old() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    component(&host, &host.push_ticket());
    let query = "component_access_token=token-1";
    let granted = authorizer(&host, query, "refresh-1");
    let expected = json!({
        "authorizer_access_token": "token-2", "expires_in": 7200, "authorizer_refresh_token": "refresh-2",
    });
    assert_eq!(granted, expected);
    let again = authorizer(&host, query, "refresh-1");
    assert_eq!(again["errcode"], 61023);
    assert!(again["errmsg"].as_str().unwrap().contains("refresh_token is invalid"));
    assert_eq!(authorizer(&host, "access_token=token-1", "refresh-2")["authorizer_refresh_token"], "refresh-3");
    assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-1", "refresh-2"]);
    assert_eq!((used(&host, "token-2"), used(&host, "token-3")), (0.into(), 0.into()));
    host.revoke_refresh_tokens();
    assert_eq!(authorizer(&host, query, "refresh-3")["errcode"], 61023);
}

#[test]
fn a_component_that_does_not_rotate_refresh_tokens_gives_the_same_back() {
    let host = FakeVendor::wechat().rotating(false).another_refresh_token("authorizer", "r");
    component(&host, &host.push_ticket());
    for _ in 0..2 {
        let granted = authorizer(&host, "component_access_token=token-1", "r");
        assert_eq!(granted["authorizer_refresh_token"], "r");
    }
}

#[test]
fn an_authorizer_token_needs_a_valid_component_token() {
    let clock = FakeClock::new();
    let host = FakeVendor::wechat().clock(&clock);
    let used = |token: &str| {
        let url = format!("{}/cgi-bin/component/api_create_preauthcode", host.url());
        json(get(&format!("{url}?component_access_token={token}")))["errcode"].clone()
    };
    component(&host, &host.push_ticket());
    stable(&host, false);
    assert_eq!(authorizer(&host, "", "refresh-1")["errcode"], 41001);
    assert_eq!(authorizer(&host, "component_access_token=token-2", "refresh-1")["errcode"], 40001);
    assert_eq!((used("token-1"), used("token-2")), (0.into(), 40001.into()));
    clock.advance(2 * HOUR);
    assert_eq!(authorizer(&host, "component_access_token=token-1", "refresh-1")["errcode"], 42001);
    assert_eq!(used("token-1"), 42001);
    assert!(host.used_refresh_tokens().is_empty(), "it was not looked at");
}
