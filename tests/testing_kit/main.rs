//! The fake vendors behave as documented. Clients here are plain HTTP.
#![allow(clippy::unwrap_used)]

mod dingtalk;
mod entra;
mod every_vendor;
mod feishu;
mod oauth2;
mod wechat;
mod wecom;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::{Identity, Profile, Provider};
use evertoken::testing::{FakeClock, FakeProvider, FakeVendor, VendorFault, context};
use evertoken::{Error, ErrorKind, Secret};
use serde_json::Value;

const HOUR: Duration = Duration::from_secs(3600);
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

type Reply = Result<ureq::http::Response<String>, ureq::Error>;

fn agent(wait: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(wait)).build().new_agent()
}

fn finish(reply: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let (head, mut body) = reply?.into_parts();
    Ok(ureq::http::Response::from_parts(head, body.read_to_string()?))
}

fn get(url: &str) -> Reply {
    finish(agent(LONG).get(url).call())
}

fn get_with(url: &str, headers: &[(&str, &str)]) -> Reply {
    let request = headers.iter().fold(agent(LONG).get(url), |request, (name, value)| request.header(*name, *value));
    finish(request.call())
}

fn post_json(url: &str, body: &Value) -> Reply {
    finish(agent(LONG).post(url).content_type("application/json").send(body.to_string()))
}

fn post_form(url: &str, form: &str) -> Reply {
    finish(agent(LONG).post(url).content_type("application/x-www-form-urlencoded").send(form))
}

/// Status and body.
fn status_and_body(reply: Reply) -> (u16, Value) {
    let reply = reply.unwrap();
    (reply.status().as_u16(), json(Ok(reply)))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A well-formed JWT of `client` with a meaningless signature.
const ASSERTION: &str = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                         &client_assertion=eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJjbGllbnQifQ.c2ln";

fn json(reply: Reply) -> Value {
    serde_json::from_str(reply.unwrap().body()).unwrap()
}

/// A request for a token that either vendor accepts.
fn ask_within(host: &FakeVendor, wait: Duration) -> Reply {
    if host.token_url().ends_with("/token") {
        post(&agent(wait), host, None, "grant_type=client_credentials&client_id=client&client_secret=secret")
    } else {
        finish(agent(wait).get(format!("{}?corpid=corp&corpsecret=secret", host.token_url())).call())
    }
}

fn ask(host: &FakeVendor) -> Reply {
    ask_within(host, LONG)
}

fn token(host: &FakeVendor) -> String {
    json(ask(host))["access_token"].as_str().unwrap().to_owned()
}

fn wecom_code(host: &FakeVendor, query: &str) -> i64 {
    let reply = get(&format!("{}?{query}", host.token_url())).unwrap();
    assert_eq!(reply.status(), 200);
    json(Ok(reply))["errcode"].as_i64().unwrap()
}

fn post(agent: &ureq::Agent, host: &FakeVendor, authorization: Option<&str>, form: &str) -> Reply {
    let request = agent.post(host.token_url()).content_type("application/x-www-form-urlencoded");
    let request = authorization.iter().fold(request, |request, value| request.header("Authorization", *value));
    finish(request.send(form))
}

fn oauth2_error(reply: Reply) -> (u16, String) {
    let reply = reply.unwrap();
    (reply.status().as_u16(), json(Ok(reply))["error"].as_str().unwrap().to_owned())
}

#[test]
fn wecom_returns_the_same_token_with_the_whole_lifetime_until_it_expires() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    let first = json(ask(&host));
    assert_eq!((&first["errcode"], &first["errmsg"]), (&Value::from(0), &Value::from("ok")));
    clock.advance(2 * HOUR - Duration::from_nanos(1));
    let again = json(ask(&host));
    assert_eq!(again["access_token"], first["access_token"]);
    assert_eq!(again["expires_in"], 7200);
    assert!(host.is_valid("token-1"));
    clock.advance(Duration::from_nanos(1));
    assert!(!host.is_valid("token-1"));
    assert_eq!(token(&host), "token-2");
    assert_eq!(host.granted(), ["token-1", "token-2"]);
    assert_eq!(host.calls(), 3);
}

#[test]
fn wecom_may_replace_a_token_early_and_then_both_are_valid_until_they_expire() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock).renews_within(HOUR);
    assert_eq!(token(&host), "token-1");
    clock.advance(HOUR);
    assert_eq!(token(&host), "token-1", "an hour is left, not less");
    clock.advance(Duration::from_secs(1));
    assert_eq!(token(&host), "token-2");
    assert!(host.is_valid("token-1") && host.is_valid("token-2"));
    clock.advance(HOUR);
    assert!(!host.is_valid("token-1") && host.is_valid("token-2"));
}

#[test]
fn a_fake_vendor_ignores_the_clock_of_its_client() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    token(&host);
    clock.step_forward(5 * HOUR);
    assert!(host.is_valid("token-1"));
    clock.step_back(10 * HOUR);
    assert!(host.is_valid("token-1"));
    clock.suspend(2 * HOUR);
    assert!(!host.is_valid("token-1"), "a client that sleeps does not stop time");
}

#[test]
fn scripted_tokens_come_first_with_their_own_lifetime() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock).granting("t-1", 60).granting("t-2", 120).lifetime(HOUR);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let reply = json(ask(&host));
        seen.push((reply["access_token"].as_str().unwrap().to_owned(), reply["expires_in"].as_u64().unwrap()));
        clock.advance(Duration::from_secs(seen.last().unwrap().1));
    }
    assert_eq!(seen, [("t-1".to_owned(), 60), ("t-2".to_owned(), 120), ("token-1".to_owned(), 3600)]);
}

#[test]
fn wecom_refuses_a_credential_with_its_own_codes_and_status_200() {
    let host = FakeVendor::wecom();
    assert_eq!(wecom_code(&host, "corpid=else&corpsecret=secret"), 40013);
    assert_eq!(wecom_code(&host, "corpid=corp&corpsecret=else"), 40001);
    assert_eq!(wecom_code(&host, "corpid=corp"), 41004);
    assert_eq!(wecom_code(&host, "corpsecret=secret"), 41002);
    let text = get(&format!("{}?corpid=corp&corpsecret=else", host.token_url())).unwrap().into_body();
    assert!(text.contains("hint: [") && text.contains("query?e=40001"), "{text}");
    assert!(host.granted().is_empty());
}

#[test]
fn a_credential_can_be_replaced_or_joined_by_another() {
    let host = FakeVendor::wecom().another_credential("corp", "s&2");
    assert_eq!(token(&host), "token-1");
    let other = json(get(&format!("{}?corpid=corp&corpsecret=s%262", host.token_url())));
    assert_eq!(other["access_token"], "token-2", "each has its own");
    let host = host.credential("corp", "new");
    assert_eq!(wecom_code(&host, "corpid=corp&corpsecret=secret"), 40001);
    assert_eq!(wecom_code(&host, "corpid=corp&corpsecret=new"), 0);
}

#[test]
fn wecom_judges_tokens_inside_status_200() {
    let clock = FakeClock::new();
    let host = FakeVendor::wecom().clock(&clock);
    let code = |query: &str| {
        let reply = get(&format!("{}{query}", host.api_url())).unwrap();
        assert_eq!(reply.status(), 200);
        json(Ok(reply))["errcode"].as_i64().unwrap()
    };
    token(&host);
    assert_eq!(code("?access_token=token-1"), 0);
    assert_eq!(code("?access_token=else"), 40014);
    assert_eq!(code(""), 41001);
    clock.advance(2 * HOUR);
    assert_eq!(code("?access_token=token-1"), 42001);
    token(&host);
    host.revoke("token-2");
    assert_eq!(code("?access_token=token-2"), 40014);
    assert!(!host.is_valid("token-2"));
    assert_eq!(token(&host), "token-3", "a revoked token is not given again");
    assert_eq!((host.calls(), host.api_calls()), (3, 5));
}

#[test]
fn oauth2_accepts_a_client_in_the_header_or_in_the_form_but_not_in_both() {
    let host = FakeVendor::oauth2().another_credential("my app", "s:/+%");
    let agent = agent(LONG);
    let grant = "grant_type=client_credentials&scope=a+b";
    // client:secret, and my+app:s%3A%2F%2B%25
    let reply = post(&agent, &host, Some("Basic Y2xpZW50OnNlY3JldA=="), grant).unwrap();
    assert_eq!((reply.status().as_u16(), &reply.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
    let reply = json(Ok(reply));
    assert_eq!(reply["access_token"], "token-1");
    assert_eq!((&reply["token_type"], &reply["scope"]), (&"Bearer".into(), &"a b".into()));
    assert_eq!(reply["expires_in"], 7200);
    let reply = json(post(&agent, &host, Some("Basic bXkrYXBwOnMlM0ElMkYlMkIlMjU="), grant));
    assert_eq!(reply["access_token"], "token-2");
    let in_form = format!("{grant}&client_id=my+app&client_secret=s%3A%2F%2B%25");
    assert_eq!(json(post(&agent, &host, None, &in_form))["access_token"], "token-3");
    assert!((1..=3).all(|n| host.is_valid(&format!("token-{n}"))), "they live side by side");

    let both = post(&agent, &host, Some("Basic Y2xpZW50OnNlY3JldA=="), &in_form);
    assert_eq!(oauth2_error(both), (400, "invalid_request".into()));
}

#[test]
fn oauth2_refuses_as_the_standard_says() {
    let host = FakeVendor::oauth2();
    let agent = agent(LONG);
    let basic = Some("Basic Y2xpZW50OmVsc2U=");
    let reply = post(&agent, &host, basic, "grant_type=client_credentials").unwrap();
    assert!(reply.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    assert_eq!(oauth2_error(Ok(reply)), (401, "invalid_client".into()));

    let reply = post(&agent, &host, None, "grant_type=client_credentials&client_id=client&client_secret=else");
    let reply = reply.unwrap();
    assert!(reply.headers().get("www-authenticate").is_none());
    assert_eq!(oauth2_error(Ok(reply)), (401, "invalid_client".into()));

    let right = Some("Basic Y2xpZW50OnNlY3JldA==");
    let password = post(&agent, &host, right, "grant_type=password");
    assert_eq!(oauth2_error(password), (400, "unsupported_grant_type".into()));
    assert_eq!(oauth2_error(post(&agent, &host, right, "scope=a")), (400, "invalid_request".into()));
    assert_eq!(get(&host.token_url()).unwrap().status(), 405);
    assert!(host.granted().is_empty());
}

#[test]
fn oauth2_judges_tokens_with_a_challenge() {
    let clock = FakeClock::new();
    let host = FakeVendor::oauth2().clock(&clock);
    let judge = |token: Option<&str>| {
        let request = agent(LONG).get(host.api_url());
        let request = token.iter().fold(request, |request, token| request.header("Authorization", *token));
        let reply = finish(request.call()).unwrap();
        let challenge = reply.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (reply.status().as_u16(), challenge)
    };
    let refused = || (401, Some("Bearer error=\"invalid_token\"".to_owned()));
    token(&host);
    token(&host);
    assert_eq!(judge(Some("Bearer token-1")), (200, None));
    assert_eq!(judge(Some("Bearer else")), refused());
    assert_eq!(judge(None), (401, Some("Bearer".into())));
    host.revoke("token-2");
    assert_eq!(judge(Some("Bearer token-2")), refused());
    clock.advance(2 * HOUR);
    assert_eq!(judge(Some("Bearer token-1")), refused());
}

#[test]
fn the_business_api_answers_once_as_scripted() {
    let host = FakeVendor::oauth2().api_reply(429, &[("Retry-After", "7")], "{}");
    let reply = get(&host.api_url()).unwrap();
    assert_eq!((reply.status().as_u16(), &reply.headers()["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(get(&host.api_url()).unwrap().status(), 401);
}

#[test]
fn an_outage_answers_with_a_status_a_code_or_a_page() {
    for host in [FakeVendor::wecom(), FakeVendor::oauth2()] {
        host.fail_with(VendorFault::Status(503));
        assert_eq!(ask(&host).unwrap().status(), 503);
        host.fail_with(VendorFault::Garbage);
        let reply = ask(&host).unwrap();
        assert!(reply.status() == 200 && reply.body().starts_with("<!doctype html>"));
        assert!(host.granted().is_empty());
        host.recover();
        assert_eq!(token(&host), "token-1");
    }
    let host = FakeVendor::wecom();
    host.fail_with(VendorFault::Code(60020));
    assert_eq!(json(ask(&host))["errcode"], 60020);
    let host = FakeVendor::oauth2();
    host.fail_with(VendorFault::Error("invalid_scope"));
    assert_eq!(oauth2_error(ask(&host)), (400, "invalid_scope".into()));
}

#[test]
fn a_vendor_reports_throttling_in_its_own_way() {
    let host = FakeVendor::oauth2();
    host.fail_with(VendorFault::Throttle { retry_after: Duration::from_secs(30) });
    let reply = ask(&host).unwrap();
    assert_eq!((reply.status().as_u16(), &reply.headers()["retry-after"]), (429, &"30".parse().unwrap()));
    let host = FakeVendor::wecom();
    host.fail_with(VendorFault::Throttle { retry_after: Duration::ZERO });
    let reply = ask(&host).unwrap();
    assert!(reply.status() == 200 && reply.headers().get("retry-after").is_none());
    assert_eq!(json(Ok(reply))["errcode"], 45009);
}

/// A connection on which a token has been requested.
fn send_raw(url: &str) -> TcpStream {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"GET /cgi-bin/gettoken?corpid=corp&corpsecret=secret HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream
}

/// All bytes of the reply to a request for a token, until the host closes the connection.
fn raw(url: &str) -> String {
    let mut received = String::new();
    send_raw(url).read_to_string(&mut received).unwrap();
    received
}

#[test]
fn a_drop_ends_the_connection_without_a_byte_or_a_grant() {
    let host = FakeVendor::wecom();
    host.fail_with(VendorFault::Drop);
    assert_eq!(raw(&host.url()), "");
    assert!(ask(&host).is_err());
    assert!(host.granted().is_empty());
}

#[test]
fn half_a_reply_ends_the_connection_after_a_grant() {
    let host = FakeVendor::wecom();
    host.fail_with(VendorFault::HalfReply);
    let received = raw(&host.url());
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    let told: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    assert_eq!(body.len(), told / 2, "{received}");
    assert!(ask(&host).is_err());
    assert!(host.is_valid("token-1"));
}

#[test]
fn a_trickle_keeps_sending_for_longer_than_a_client_waits() {
    let host = FakeVendor::wecom();
    host.fail_with(VendorFault::Trickle);
    assert!(matches!(ask_within(&host, SHORT), Err(ureq::Error::Timeout(_))));
    let asked = Instant::now();
    let mut stream = BufReader::new(send_raw(&host.url()));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP"));
    stream.read_exact(&mut [0; 3]).unwrap();
    assert!(asked.elapsed() >= SHORT, "three bytes of the body take 300 ms");
    assert!(host.is_valid("token-1"), "it did grant");
    drop(host);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains('}'), "the host went, and with it what it had still to send: {rest}");
}

#[test]
fn a_hang_lasts_until_recovery_and_then_replies() {
    let host = FakeVendor::wecom();
    host.fail_with(VendorFault::Hang);
    assert!(matches!(ask_within(&host, SHORT), Err(ureq::Error::Timeout(_))));
    let asking = {
        let host = host.clone();
        thread::spawn(move || token(&host))
    };
    assert!(host.wait_for_calls(2, LONG));
    assert!(host.granted().is_empty());
    host.recover();
    assert_eq!(asking.join().unwrap(), "token-1");
}

#[test]
fn dropping_the_host_ends_hangs_delays_and_idle_connections_and_frees_the_port() {
    let url = FakeVendor::wecom().url();
    assert!(get(&url).is_err(), "nobody listens");

    for slow in [true, false] {
        let host = FakeVendor::wecom();
        let address = host.token_url();
        let idle = agent(LONG);
        finish(idle.get(host.api_url()).call()).unwrap();
        let host = if slow { host.delay(HOUR) } else { host };
        host.fail_with(VendorFault::Hang);
        let (sender, receiver) = mpsc::channel();
        let asked = address.clone();
        thread::spawn(move || sender.send(get(&asked).is_err()));
        assert!(host.wait_for_calls(1, LONG));
        drop(host);
        assert!(receiver.recv_timeout(SHORT * 10).unwrap(), "it waited until the client gave up");
        assert!(finish(idle.get(&address).call()).is_err());
    }
}

#[test]
fn requests_are_answered_concurrently() {
    let host = FakeVendor::oauth2();
    host.fail_with(VendorFault::Hang);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(|| token(&host))).collect();
        assert!(host.wait_for_calls(16, LONG));
        host.recover();
        let mut tokens: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 16, "each call has its own");
    });
    assert_eq!((host.calls(), host.max_concurrent_calls()), (16, 16));
}

#[test]
fn a_delay_delays_a_reply() {
    let host = FakeVendor::wecom().delay(SHORT);
    let asked = Instant::now();
    token(&host);
    assert!(asked.elapsed() >= SHORT);
}

#[test]
fn a_connection_serves_many_requests_and_each_is_recorded() {
    let host = FakeVendor::oauth2();
    let agent = agent(LONG);
    for _ in 0..1_005 {
        finish(agent.get(format!("{}?a=%C3%A9+b", host.api_url())).header("X-Trace", "7").call()).unwrap();
    }
    post(&agent, &host, None, "grant_type=client_credentials&client_secret=hunter2").unwrap();
    let requests = host.requests();
    assert_eq!(requests.len(), 1_000);
    let (first, last) = (&requests[0], &requests[999]);
    assert_eq!((first.method(), first.path(), first.query("a").as_deref()), ("GET", "/api", Some("\u{e9} b")));
    assert_eq!((first.header("x-trace"), first.header("x-else")), (Some("7"), None));
    assert_eq!((last.method(), last.form("client_secret").as_deref()), ("POST", Some("hunter2")));
    assert!(last.body().ends_with(b"hunter2") && !format!("{last:?}").contains("hunter2"));
}

#[test]
fn waiting_for_calls_of_an_unused_host_times_out() {
    let host = FakeVendor::wecom();
    assert!(host.wait_for_calls(0, Duration::ZERO));
    assert!(!host.wait_for_calls(1, Duration::from_millis(1)));
    assert_eq!(get(&(host.url() + "/else")).unwrap().status(), 404);
}

fn fetch(provider: &FakeProvider) -> Result<(), ErrorKind> {
    provider.fetch(&context(LONG)).map(drop).map_err(|error| error.kind())
}

fn fails(kind: ErrorKind) -> Error {
    Error::new(kind, "on purpose")
}

#[test]
fn an_outage_of_a_fake_provider_lasts_until_it_ends_and_keeps_the_script() {
    let provider = FakeProvider::new().then_fail(fails(ErrorKind::InvalidCredentials));
    provider.always_fail(Some(fails(ErrorKind::Unavailable)));
    for _ in 0..3 {
        assert_eq!(fetch(&provider), Err(ErrorKind::Unavailable));
    }
    provider.always_fail(None);
    assert_eq!(fetch(&provider), Err(ErrorKind::InvalidCredentials));
    assert!(fetch(&provider).is_ok());
}

#[test]
fn a_scripted_panic_counts_as_a_finished_call() {
    let provider = FakeProvider::new().then_panic();
    assert!(catch_unwind(AssertUnwindSafe(|| fetch(&provider))).is_err());
    assert_eq!((provider.calls(), provider.finished()), (1, 1));
    assert!(fetch(&provider).is_ok());
}

#[test]
fn a_fetch_ends_when_the_test_permits_it() {
    let provider = FakeProvider::new().gated();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| fetch(&provider));
        }
        assert!(provider.wait_for_calls(3, LONG));
        assert_eq!((provider.finished(), provider.max_concurrent_calls()), (0, 3));
        provider.permit(1);
        assert!(provider.wait_for_finished(1, LONG));
        assert!(!provider.wait_for_finished(2, Duration::from_millis(20)), "one permit is for one fetch");
        provider.open();
        assert!(provider.wait_for_finished(3, LONG));
    });
    assert!(fetch(&provider).is_ok(), "there is no gate any more");
}

#[test]
fn the_outcome_of_a_gated_fetch_is_decided_at_the_gate() {
    let provider = FakeProvider::new().gated();
    let fetching = {
        let provider = provider.clone();
        thread::spawn(move || fetch(&provider))
    };
    assert!(provider.wait_for_calls(1, LONG));
    provider.clone().then_fail(fails(ErrorKind::Forbidden)).permit(1);
    assert_eq!(fetching.join().unwrap(), Err(ErrorKind::Forbidden));
}

#[test]
fn a_fake_provider_has_the_configured_properties() {
    assert_eq!(FakeProvider::new().identity(), FakeProvider::default().identity());
    let identity = Identity::new("fake").secret(&Secret::from("hunter2"));
    let mut profile = Profile::default();
    profile.new_token_ends_old = true;
    let provider = FakeProvider::new().with_identity(identity.clone()).with_profile(profile).then_grant("t-1", HOUR);
    assert_eq!(provider.identity(), identity);
    assert!(provider.profile().new_token_ends_old);
    assert_eq!(format!("{provider:?}"), "FakeProvider(calls=0, finished=0)");
}
