//! Microsoft: Entra, Graph, the Bot Framework, and managed identity.

use evertoken::testing::{FakeClock, FakeVendor, VendorFault};
use serde_json::Value;

use super::{ASSERTION, HOUR, LONG, agent, finish, get_with, post_form, seconds, status_and_body};

const SCOPE: &str = "grant_type=client_credentials&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default";

fn ask(host: &FakeVendor, form: &str) -> (u16, Value) {
    status_and_body(post_form(&host.token_url(), form))
}

fn with_secret(host: &FakeVendor) -> (u16, Value) {
    ask(host, &format!("{SCOPE}&client_id=client&client_secret=secret"))
}

fn refusal((status, body): (u16, Value)) -> (u16, String, i64) {
    let number = body["error_codes"][0].as_i64().unwrap();
    assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{number}: ")), "{body}");
    assert!(body["trace_id"].is_string() && body["correlation_id"].is_string() && body["timestamp"].is_string());
    (status, body["error"].as_str().unwrap().to_owned(), number)
}

#[test]
fn every_call_brings_a_new_token_for_an_hour() {
    let clock = FakeClock::new();
    let host = FakeVendor::entra().clock(&clock);
    let (status, body) = with_secret(&host);
    assert_eq!((status, &body["access_token"], &body["token_type"]), (200, &"token-1".into(), &"Bearer".into()));
    assert_eq!((&body["expires_in"], &body["ext_expires_in"]), (&3600.into(), &3600.into()));
    assert_eq!(body["refresh_in"], Value::Null);
    let request = agent(LONG).post(host.token_url()).content_type("application/x-www-form-urlencoded");
    let in_header = finish(request.header("Authorization", "Basic Y2xpZW50OnNlY3JldA==").send(SCOPE));
    assert_eq!(status_and_body(in_header).1["access_token"], "token-2");
    assert!(host.is_valid("token-1"));
    clock.advance(HOUR);
    assert!(!host.is_valid("token-2"));
    let host = host.lifetime(24 * HOUR).refresh_in(12 * HOUR);
    let body = with_secret(&host).1;
    assert_eq!((&body["expires_in"], &body["refresh_in"]), (&86_400.into(), &43_200.into()));
}

#[test]
fn a_well_formed_assertion_is_accepted_and_recorded() {
    let host = FakeVendor::entra();
    let form = format!("{SCOPE}&client_id=client&{ASSERTION}");
    assert_eq!(ask(&host, &form).1["access_token"], "token-1");
    let sent = host.requests()[0].form("client_assertion").unwrap();
    assert_eq!(sent.split('.').count(), 3);
    let (status, error, _) = refusal(ask(&host, &form.replace(&sent, "a.b.c")));
    assert_eq!((status, error.as_str()), (401, "invalid_client"));
    let both = format!("{form}&client_secret=secret");
    assert_eq!(ask(&host, &both).0, 400);
}

#[test]
fn it_refuses_with_a_word_and_a_number() {
    let host = FakeVendor::entra();
    let client = "&client_id=client&client_secret=secret";
    let refused = |form: &str| refusal(ask(&host, form));
    assert_eq!(
        refused(&format!("{SCOPE}&client_id=client&client_secret=else")),
        (401, "invalid_client".into(), 7000215),
    );
    assert_eq!(refused(&format!("{SCOPE}&client_id=client")), (401, "invalid_client".into(), 7000218));
    assert_eq!(
        refused(&format!("{SCOPE}&client_id=else&client_secret=secret")),
        (400, "unauthorized_client".into(), 700016),
    );
    assert_eq!(refused(&format!("grant_type=client_credentials{client}")), (400, "invalid_scope".into(), 70011),);
    assert_eq!(
        refused(&format!("grant_type=client_credentials&scope=User.Read{client}")),
        (400, "invalid_scope".into(), 1002012),
    );
    assert_eq!(refused(&format!("grant_type=password{client}")), (400, "unsupported_grant_type".into(), 70003));
    assert!(host.granted().is_empty());
}

#[test]
fn a_tenant_is_in_the_path() {
    let host = FakeVendor::entra().another_tenant("contoso.example");
    let form = format!("{SCOPE}&client_id=client&client_secret=secret");
    let ask = |tenant: &str| status_and_body(post_form(&format!("{}/{tenant}/oauth2/v2.0/token", host.url()), &form));
    for tenant in ["tenant", "contoso.example", "botframework.com", "MicrosoftServices.onmicrosoft.us"] {
        assert_eq!(ask(tenant).0, 200, "{tenant}");
    }
    assert_eq!(refusal(ask("else")), (400, "invalid_request".into(), 90002));
    assert_eq!(host.calls_to("/botframework.com/oauth2/v2.0/token"), 1);
}

#[test]
fn an_outage_has_the_status_that_goes_with_its_code() {
    let host = FakeVendor::entra();
    host.fail_with(VendorFault::Throttle { retry_after: seconds(60) });
    let reply = post_form(&host.token_url(), "").unwrap();
    assert_eq!((reply.status().as_u16(), &reply.headers()["retry-after"]), (429, &"60".parse().unwrap()));
    for (code, status, error) in
        [(7000222, 401, "invalid_client"), (90033, 503, "temporarily_unavailable"), (53003, 400, "invalid_grant")]
    {
        host.fail_with(VendorFault::Code(code));
        assert_eq!(refusal(with_secret(&host)), (status, error.into(), code));
    }
    host.fail_with(VendorFault::Error("invalid_resource"));
    let (status, body) = with_secret(&host);
    assert_eq!((status, &body["error"]), (400, &"invalid_resource".into()));
}

#[test]
fn graph_and_the_bot_connector_refuse_a_token_with_401() {
    let clock = FakeClock::new();
    let host = FakeVendor::entra().clock(&clock);
    with_secret(&host);
    let bot = format!("{}/v3/conversations", host.url());
    let used = |url: &str, token: &str| get_with(url, &[("Authorization", &format!("Bearer {token}"))]);
    assert_eq!(used(&host.api_url(), "token-1").unwrap().status(), 200);
    assert_eq!(used(&bot, "token-1").unwrap().status(), 200);
    let reply = used(&host.api_url(), "else").unwrap();
    assert!(reply.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer realm=\"\""));
    let (status, body) = status_and_body(Ok(reply));
    assert_eq!((status, &body["error"]["code"]), (401, &"InvalidAuthenticationToken".into()));
    clock.advance(HOUR);
    let (status, body) = status_and_body(used(&host.api_url(), "token-1"));
    assert!(status == 401 && body["error"]["message"].as_str().unwrap().contains("has expired"));
    let (status, body) = status_and_body(used(&bot, "token-1"));
    assert_eq!((status, &body["message"]), (401, &"Authorization has been denied for this request.".into()));
    assert_eq!(status_and_body(get_with(&host.api_url(), &[])).0, 401);
}

const MACHINE: &str = "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";

#[test]
fn a_machine_returns_the_same_token_for_half_its_lifetime_and_numbers_as_strings() {
    let clock = FakeClock::new();
    let host = FakeVendor::managed_identity().clock(&clock);
    let ask = |more: &str| {
        status_and_body(get_with(&format!("{}{MACHINE}{more}", host.token_url()), &[("Metadata", "true")]))
    };
    let (status, body) = ask("");
    assert_eq!((status, &body["access_token"], &body["expires_in"]), (200, &"token-1".into(), &"86400".into()));
    assert_eq!(body["resource"], "https://vault.azure.net");
    // The first of January 2026, and a day.
    assert_eq!((&body["not_before"], &body["expires_on"]), (&"1767225600".into(), &"1767312000".into()));
    clock.advance(12 * HOUR);
    let same = ask("").1;
    assert_eq!((&same["access_token"], &same["expires_in"]), (&"token-1".into(), &"43200".into()));
    assert_eq!(same["expires_on"], "1767312000");
    clock.advance(seconds(1));
    assert_eq!(ask("").1["access_token"], "token-2");
    assert!(host.is_valid("token-1"));
    assert_eq!(ask("&client_id=client").1["access_token"], "token-3", "another identity");
    assert_eq!(ask("&client_id=else").0, 400);
    let used = get_with(&host.api_url(), &[("Authorization", "Bearer token-3")]).unwrap();
    assert_eq!(used.status(), 200);
}

#[test]
fn a_machine_answers_only_requests_with_the_metadata_header() {
    let host = FakeVendor::managed_identity();
    let ask = |query: &str, headers: &[(&str, &str)]| {
        status_and_body(get_with(&format!("{}{query}", host.token_url()), headers))
    };
    let (status, body) = ask(MACHINE, &[]);
    assert_eq!((status, &body["error"]), (400, &"invalid_request".into()));
    assert_eq!(ask("?api-version=2018-02-01", &[("Metadata", "true")]).0, 400);
    assert_eq!(ask("?resource=r", &[("Metadata", "true")]).0, 400);
    assert!(host.granted().is_empty());
    host.fail_with(VendorFault::Throttle { retry_after: seconds(0) });
    assert_eq!(ask(MACHINE, &[("Metadata", "true")]).0, 429);
}

#[test]
fn an_app_service_reports_only_the_time_of_expiry() {
    let host = FakeVendor::managed_identity();
    let url = format!("{}/msi/token{MACHINE}", host.url());
    let (status, body) = status_and_body(get_with(&url, &[("X-IDENTITY-HEADER", "identity-header")]));
    assert_eq!((status, &body["access_token"], &body["expires_in"]), (200, &"token-1".into(), &Value::Null));
    assert!(body["expires_on"].as_str().unwrap().parse::<u64>().unwrap() > 1_767_225_600);
    assert_eq!(status_and_body(get_with(&url, &[("Metadata", "true")])).0, 401);
}
