//! Feishu: own apps, store apps, and OAuth.

use evertoken::testing::{FakeClock, FakeVendor};
use serde_json::{Value, json};

use super::{ASSERTION, HOUR, get, get_with, json, post_form, post_json, seconds, status_and_body};

const AUTH: &str = "/open-apis/auth/v3";

fn ask(host: &FakeVendor, path: &str, body: &Value) -> Value {
    let (status, body) = status_and_body(post_json(&(host.url() + AUTH + path), body));
    assert_eq!(status, 200);
    body
}

fn own(host: &FakeVendor, kind: &str) -> Value {
    ask(host, &format!("/{kind}/internal"), &json!({ "app_id": "app", "app_secret": "secret" }))
}

fn store(host: &FakeVendor, ticket: &str) -> Value {
    let body = json!({ "app_id": "store", "app_secret": "store-secret", "app_ticket": ticket });
    ask(host, "/app_access_token", &body)
}

fn used(host: &FakeVendor, token: &str) -> (u16, Value) {
    let (status, body) = status_and_body(get_with(&host.api_url(), &[("Authorization", &format!("Bearer {token}"))]));
    (status, body["code"].clone())
}

#[test]
fn a_tenant_token_is_replaced_with_thirty_minutes_left_and_then_both_are_valid() {
    let clock = FakeClock::new();
    let host = FakeVendor::feishu().clock(&clock);
    let first = json!({ "code": 0, "msg": "ok", "tenant_access_token": "token-1", "expire": 7200 });
    assert_eq!(own(&host, "tenant_access_token"), first);
    clock.advance(seconds(5400));
    let same = own(&host, "tenant_access_token");
    assert_eq!((&same["tenant_access_token"], &same["expire"]), (&"token-1".into(), &1800.into()));
    clock.advance(seconds(1));
    let next = own(&host, "tenant_access_token");
    assert_eq!((&next["tenant_access_token"], &next["expire"]), (&"token-2".into(), &7200.into()));
    assert_eq!((used(&host, "token-1"), used(&host, "token-2")), ((200, 0.into()), (200, 0.into())));
}

#[test]
fn an_app_token_comes_with_the_tenant_token() {
    let host = FakeVendor::feishu();
    let granted = own(&host, "app_access_token");
    let pair = (&granted["app_access_token"], &granted["tenant_access_token"]);
    assert_eq!(pair, (&"token-1".into(), &"token-2".into()));
    assert_eq!(own(&host, "tenant_access_token")["tenant_access_token"], "token-2");
    assert_eq!(own(&host, "app_access_token")["app_access_token"], "token-1");
}

#[test]
fn tokens_are_refused_with_status_400_and_a_code_for_their_kind() {
    let clock = FakeClock::new();
    let host = FakeVendor::feishu().clock(&clock);
    own(&host, "app_access_token");
    assert_eq!((used(&host, "token-1"), used(&host, "token-2")), ((200, 0.into()), (200, 0.into())));
    host.revoke("token-2");
    assert_eq!(used(&host, "token-2"), (400, 99991663.into()));
    assert_eq!(used(&host, "else"), (400, 99991663.into()));
    clock.advance(2 * HOUR);
    assert_eq!(used(&host, "token-1"), (400, 99991664.into()));
    let (status, body) = status_and_body(get_with(&host.api_url(), &[("Authorization", "token-1")]));
    assert_eq!((status, &body["code"]), (400, &99991661.into()), "`Bearer` is missing");
}

#[test]
fn an_app_is_refused_inside_status_200() {
    let host = FakeVendor::feishu();
    let refused = |body: Value| ask(&host, "/tenant_access_token/internal", &body)["code"].clone();
    assert_eq!(refused(json!({ "app_id": "app", "app_secret": "else" })), 10014);
    assert_eq!(refused(json!({ "app_id": "else", "app_secret": "secret" })), 10014);
    assert_eq!(refused(json!({ "app_id": "store", "app_secret": "store-secret" })), 10014);
    assert_eq!(refused(json!({ "app_id": "app" })), 10003);
    let reply = get(&host.token_url()).unwrap();
    assert_eq!((reply.status().as_u16(), reply.body().as_str()), (404, "404 page not found"));
}

#[test]
fn a_store_app_needs_a_ticket_and_may_ask_for_it() {
    let clock = FakeClock::new();
    let host = FakeVendor::feishu().clock(&clock);
    assert_eq!(store(&host, "ticket-1")["code"], 10012);
    let resend = |id: &str, secret: &str| {
        ask(&host, "/app_ticket/resend", &json!({ "app_id": id, "app_secret": secret }))["code"].clone()
    };
    assert_eq!(resend("store", "store-secret"), 0);
    assert_eq!(resend("app", "secret"), 10016, "it is no store app");
    assert_eq!(resend("store", "else"), 10014);
    assert_eq!((host.ticket_resend_requests(), host.calls_to("/open-apis/auth/v3/app_ticket/resend")), (1, 3));
    let first = host.push_ticket();
    assert_eq!(store(&host, &first)["app_access_token"], "token-1");
    let second = host.push_ticket();
    assert_eq!(store(&host, &first)["app_access_token"], "token-1", "the next ticket does not end it");
    clock.advance(12 * HOUR);
    assert_eq!(store(&host, &second)["code"], 10012);
    assert_eq!(host.calls(), 4, "to ask for a ticket is not to ask for a token");
}

#[test]
fn a_store_app_has_a_token_for_each_tenant() {
    let clock = FakeClock::new();
    let host = FakeVendor::feishu().clock(&clock).another_tenant("tenant-2");
    store(&host, &host.push_ticket());
    let tenant = |token: &str, tenant: &str| {
        ask(&host, "/tenant_access_token", &json!({ "app_access_token": token, "tenant_key": tenant }))
    };
    assert_eq!(tenant("token-1", "tenant")["tenant_access_token"], "token-2");
    assert_eq!(tenant("token-1", "tenant-2")["tenant_access_token"], "token-3");
    assert_eq!(tenant("token-1", "tenant")["tenant_access_token"], "token-2");
    assert_eq!(tenant("token-1", "else")["code"], 20009);
    assert_eq!(tenant("token-2", "tenant")["code"], 20014);
    clock.advance(2 * HOUR);
    assert_eq!(tenant("token-1", "tenant")["code"], 20014);
}

#[test]
fn oauth_takes_a_client_in_one_way_and_refuses_with_status_400() {
    let host = FakeVendor::feishu();
    let url = format!("{}/oauth/v3/token", host.url());
    let form = "grant_type=client_credentials&client_id=app&client_secret=secret";
    let expected = json!({ "code": 0, "access_token": "token-1", "token_type": "Bearer", "expires_in": 7200 });
    assert_eq!(status_and_body(post_form(&url, form)), (200, expected));
    let basic = |form: &str| {
        let request = super::agent(super::LONG).post(&url).content_type("application/x-www-form-urlencoded");
        status_and_body(super::finish(request.header("Authorization", "Basic YXBwOnNlY3JldA==").send(form)))
    };
    assert_eq!(basic("grant_type=client_credentials").1["access_token"], "token-1");
    let (status, body) = basic(form);
    assert_eq!((status, &body["error"], &body["code"]), (400, &"invalid_request".into(), &20070.into()));
    let (status, body) =
        status_and_body(post_form(&url, "grant_type=client_credentials&client_id=app&client_secret=else"));
    assert_eq!((status, &body["error"]), (400, &"invalid_client".into()));
    assert_eq!(status_and_body(post_form(&url, &format!("{form}&{ASSERTION}"))).1["code"], 20070);
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
    let asserted = |id: &str| status_and_body(post_form(&url, &format!("{grant}&client_id={id}&{ASSERTION}")));
    assert_eq!(asserted("app").1["access_token"], "token-2");
    assert_eq!(asserted("else").1["error"], "invalid_client");
    assert_eq!(used(&host, "token-1"), (200, 0.into()));
    assert_eq!(json(post_json(&url, &json!({})))["error"], "invalid_request");
}
