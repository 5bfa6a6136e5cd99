//! `send`, `call` and the middleware: what a service receives, how its response affects the token, and what the caller
//! gets.

use std::collections::VecDeque;
use std::error::Error as _;
use std::io::{self, Cursor, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use evertoken::provider::{Context, Grant, Identity, Provider, ServiceResponse, TokenPlacement};
use evertoken::testing::{FakeProvider, FakeVendor};
use evertoken::ureq::http::HeaderMap;
use evertoken::{CallError, Error, ErrorKind, OAuth2, RequestBody, TokenManager, Verdict, WeCom, provider};
use ureq::http::{Request, Response};
use ureq::middleware::MiddlewareNext;
use ureq::{Agent, Body, Proxy, SendBody};

use crate::common::http_host::{Canned, canned, closed_port, host, reply};
use crate::common::stores::FaultyStore;

const HOUR: Duration = Duration::from_secs(3600);

fn wecom(host: &FakeVendor) -> TokenManager {
    TokenManager::new(WeCom::new("corp", "secret").base_url(host.url()))
}

fn oauth2(host: &FakeVendor) -> TokenManager {
    TokenManager::new(OAuth2::new(host.token_url(), "client", "secret"))
}

/// A manager whose first token is `secret-token-1`, with this placement.
fn carrying(placement: TokenPlacement) -> TokenManager {
    let granted = Mutex::new(0);
    TokenManager::new(
        provider::from_fn("demo", move |_| {
            let mut granted = granted.lock().unwrap();
            *granted += 1;
            Ok(Grant::new(format!("secret-token-{granted}"), HOUR))
        })
        .placement(placement),
    )
}

fn agent() -> Agent {
    Agent::new_with_defaults()
}

fn get(url: impl AsRef<str>) -> Request<()> {
    Request::get(url.as_ref()).body(()).unwrap()
}

fn post<B>(url: impl AsRef<str>, body: B) -> Request<B> {
    Request::post(url.as_ref()).body(body).unwrap()
}

fn text(response: Response<Body>) -> String {
    response.into_body().read_to_string().unwrap()
}

/// The bodies that the vendor's business API received.
fn bodies(host: &FakeVendor) -> Vec<Vec<u8>> {
    let used = host.api_url();
    let used = host.requests().into_iter().filter(move |request| used.ends_with(request.path()));
    used.map(|request| request.body().to_vec()).collect()
}

/// A host that sends these replies, one for each request, and the last one to all later requests.
fn replying(replies: impl IntoIterator<Item = Vec<u8>>) -> Canned {
    let replies = Mutex::new(replies.into_iter().collect::<VecDeque<_>>());
    host(move |mut stream| {
        let reply = {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 { replies.pop_front().unwrap() } else { replies[0].clone() }
        };
        let _ = stream.write_all(&reply);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0; 64]);
    })
}

fn redirect_to(host: &Canned) -> Canned {
    canned(reply("302 Found", &format!("location: {}/elsewhere\r\n", host.url()), ""))
}

fn json(body: &str) -> Vec<u8> {
    reply("200 OK", "content-type: application/json\r\n", body)
}

fn ours(error: ureq::Error) -> Error {
    match error {
        ureq::Error::Other(error) => *error.downcast().unwrap(),
        other => panic!("{other:?}"),
    }
}

// ---- send: what the service sees ------------------------------------------------------------------------------------

#[test]
fn the_token_goes_into_the_query_beside_what_is_there() {
    let host = FakeVendor::wecom().granting("t/1+2=", 7200);
    let url = host.api_url() + "?debug=1&access_token=old&text=a%20b%26c&access%5Ftoken";
    let response = wecom(&host).send(&agent(), post(url, "{}")).unwrap();
    assert!(text(response).contains("\"ok\""));
    let request = host.requests().pop().unwrap();
    assert_eq!(request.query("access_token").unwrap(), "t/1+2=");
    assert_eq!((request.query("debug").unwrap(), request.query("text").unwrap()), ("1".into(), "a b&c".into()));
}

#[test]
fn the_token_goes_into_a_header_in_place_of_what_is_there() {
    let service = canned(reply("200 OK", "", ""));
    let request = Request::get(service.url()).header("Authorization", "Basic old").body(()).unwrap();
    carrying(TokenPlacement::bearer()).send(&agent(), request).unwrap();
    let (_, headers, _) = service.request();
    let found: Vec<_> = headers.iter().filter(|line| line.starts_with("authorization")).collect();
    assert_eq!(found, ["authorization: Bearer secret-token-1"]);

    let service = canned(reply("200 OK", "", ""));
    carrying(TokenPlacement::header("x-acs-dingtalk-access-token")).send(&agent(), get(service.url())).unwrap();
    assert!(service.request().1.contains(&"x-acs-dingtalk-access-token: secret-token-1".to_owned()));
}

#[test]
fn every_kind_of_body_arrives() {
    let host = FakeVendor::oauth2();
    let (tokens, agent, url) = (oauth2(&host), agent(), host.api_url());
    tokens.send(&agent, post(&url, ())).unwrap();
    tokens.send(&agent, post(&url, vec![1, 2])).unwrap();
    tokens.send(&agent, post(&url, String::from("text"))).unwrap();
    tokens.send(&agent, post(&url, "str")).unwrap();
    tokens.send(&agent, post(&url, [3, 4].as_slice())).unwrap();
    tokens.send(&agent, post(&url, b"bytes")).unwrap();
    let stream = Request::post(&url).header("content-length", "6");
    tokens.send(&agent, stream.body(RequestBody::reader(Cursor::new("stream"))).unwrap()).unwrap();
    let expected: [&[u8]; 7] = [b"", &[1, 2], b"text", b"str", &[3, 4], b"bytes", b"stream"];
    assert_eq!(bodies(&host), expected);
}

#[test]
fn a_token_is_not_sent_over_plain_http_except_to_loopback() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    let agent_with_middleware = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
    for url in ["http://service.example/x", "http://127.0.0.1.example/", "http://10.0.0.1/", "ftp://localhost/", "/x"] {
        assert_eq!(tokens.send(&agent(), get(url)).unwrap_err().kind(), ErrorKind::Config, "{url}");
        let error = agent_with_middleware.run(get(url)).unwrap_err();
        assert_eq!(ours(error).kind(), ErrorKind::Config, "{url}");
    }
    assert_eq!(provider.calls(), 0, "it is refused before a token is asked for");
}

#[test]
fn plain_http_to_loopback_uses_no_proxy() {
    let proxy = Proxy::new(&format!("http://127.0.0.1:{}", closed_port())).unwrap();
    let tokens = carrying(TokenPlacement::bearer());
    let service = canned(reply("200 OK", "", ""));
    let through = Agent::config_builder().proxy(Some(proxy.clone())).build().new_agent();
    tokens.send(&through, get(service.url())).unwrap();
    let through = Agent::config_builder().proxy(Some(proxy)).middleware(tokens.middleware()).build().new_agent();
    through.get(service.url()).call().unwrap();
    assert_eq!(service.calls(), 2);
}

#[test]
fn a_token_in_a_custom_header_or_in_the_query_follows_no_redirect() {
    for carry in [TokenPlacement::header("x-api-key"), TokenPlacement::query("key")] {
        let tokens = carrying(carry);
        let elsewhere = canned(reply("200 OK", "", "elsewhere"));
        let service = redirect_to(&elsewhere);
        assert_eq!(tokens.send(&agent(), get(service.url())).unwrap().status(), 302);
        let through = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
        assert_eq!(through.get(service.url()).call().unwrap().status(), 302);
        assert_eq!((service.calls(), elsewhere.calls()), (2, 0));
    }
}

#[test]
fn a_token_in_authorization_stays_behind_when_a_redirect_is_followed() {
    let elsewhere = canned(reply("401 Unauthorized", "", "elsewhere"));
    let service = redirect_to(&elsewhere);
    let tokens = carrying(TokenPlacement::bearer());
    let same_host = ureq::config::RedirectAuthHeaders::SameHost;
    let agent = || Agent::config_builder().redirect_auth_headers(same_host).http_status_as_error(false);
    let response = tokens.send(&agent().build().new_agent(), get(service.url())).unwrap();
    assert_eq!((response.status().as_u16(), text(response).as_str()), (401, "elsewhere"));
    let through = agent().middleware(tokens.middleware().http_status_as_error(false)).build().new_agent();
    assert_eq!(through.get(service.url()).call().unwrap().status(), 401);

    assert_eq!(elsewhere.calls(), 2);
    assert!(elsewhere.requests().iter().all(|request| !request.contains("secret-token")));
    assert_eq!(
        tokens.token().unwrap().expose(),
        "secret-token-1",
        "the token was not shown there, so it was not refused"
    );
}

// ---- send: what an answer does --------------------------------------------------------------------------------------

#[test]
fn a_refusal_by_status_costs_one_fetch_and_the_request_is_repeated() {
    let host = FakeVendor::oauth2();
    let tokens = oauth2(&host);
    host.revoke(tokens.token().unwrap().expose());
    let response = tokens.send(&agent(), post(host.api_url(), "{\"n\":1}")).unwrap();
    assert_eq!(text(response), "{\"ok\":true}");
    assert_eq!((host.calls(), host.api_calls()), (2, 2));
    assert_eq!(bodies(&host), [b"{\"n\":1}", b"{\"n\":1}"]);
}

#[test]
fn a_refusal_by_a_code_inside_http_200_costs_one_fetch_and_the_request_is_repeated() {
    let host = FakeVendor::wecom();
    let tokens = wecom(&host);
    host.revoke(tokens.token().unwrap().expose());
    let response = tokens.send(&agent(), post(host.api_url(), "{\"n\":1}")).unwrap();
    assert!(text(response).contains("\"errcode\":0"));
    assert_eq!((host.calls(), host.api_calls()), (2, 2));
    assert_eq!(bodies(&host), [b"{\"n\":1}", b"{\"n\":1}"]);
}

#[test]
fn a_second_refusal_is_returned_with_the_vendors_code() {
    let refusal = r#"{"errcode":40014,"errmsg":"invalid access_token"}"#;
    let host = FakeVendor::wecom().api_reply(200, &[], refusal).api_reply(200, &[], refusal);
    let error = wecom(&host).send(&agent(), get(host.api_url())).unwrap_err();
    assert_eq!((error.kind(), error.code(), error.status()), (ErrorKind::TokenRejected, Some("40014"), Some(200)));
    assert_eq!(host.api_calls(), 2);

    let host = FakeVendor::oauth2().api_reply(401, &[], "").api_reply(401, &[], "");
    let tokens = oauth2(&host);
    let error = tokens.send(&agent(), get(host.api_url())).unwrap_err();
    assert_eq!((error.kind(), error.code(), error.status()), (ErrorKind::TokenRejected, None, Some(401)));
    assert_eq!((host.calls(), host.api_calls()), (2, 2));
    assert_eq!(tokens.token().unwrap().expose(), host.granted()[1], "the second token is not rejected");
}

#[test]
fn a_throttled_request_is_not_sent_again() {
    let host = FakeVendor::wecom().api_reply(200, &[], r#"{"errcode":45009,"errmsg":"limit"}"#);
    let tokens = wecom(&host);
    let error = tokens.send(&agent(), get(host.api_url())).unwrap_err();
    assert_eq!((error.kind(), error.code(), error.status()), (ErrorKind::Throttled, Some("45009"), Some(200)));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!((host.calls(), host.api_calls()), (1, 1));

    let host = FakeVendor::oauth2().api_reply(429, &[("Retry-After", "7")], "");
    let tokens = oauth2(&host);
    let error = tokens.send(&agent(), get(host.api_url())).unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(7))));
    assert_eq!((host.calls(), host.api_calls()), (1, 1));
}

#[test]
fn a_missing_right_does_not_cost_the_token() {
    let host = FakeVendor::oauth2().api_reply(403, &[], r#"{"error":"insufficient_scope"}"#);
    let tokens = oauth2(&host);
    let response = tokens.send(&agent(), get(host.api_url())).unwrap();
    assert_eq!((response.status().as_u16(), text(response).as_str()), (403, r#"{"error":"insufficient_scope"}"#));
    tokens.send(&agent(), get(host.api_url())).unwrap();
    assert_eq!((host.calls(), host.api_calls()), (1, 2));

    let host = FakeVendor::wecom().api_reply(200, &[], r#"{"errcode":48002}"#);
    let tokens = wecom(&host);
    assert_eq!(text(tokens.send(&agent(), get(host.api_url())).unwrap()), r#"{"errcode":48002}"#);
    tokens.send(&agent(), get(host.api_url())).unwrap();
    assert_eq!((host.calls(), host.api_calls()), (1, 2));
}

#[test]
fn a_stream_is_sent_once_and_the_refused_token_is_gone() {
    let host = FakeVendor::oauth2();
    let tokens = oauth2(&host);
    host.revoke(tokens.token().unwrap().expose());
    let stream = || {
        let request = Request::post(host.api_url()).header("content-length", "6");
        request.body(RequestBody::reader(Cursor::new("stream"))).unwrap()
    };
    let error = tokens.send(&agent(), stream()).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::TokenRejected, Some(401)));
    assert!(error.to_string().contains("stream"), "{error}");
    assert_eq!((host.calls(), host.api_calls()), (1, 1));

    tokens.send(&agent(), stream()).unwrap();
    assert_eq!((host.calls(), host.api_calls()), (2, 2));
}

#[test]
fn a_body_stream_that_fails_is_an_error_of_the_caller() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("secret-token-1"))
        }
    }
    let service = canned(reply("200 OK", "", ""));
    let request = post(service.url(), RequestBody::reader(Broken));
    let error = carrying(TokenPlacement::bearer()).send(&agent(), request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("body"), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret-token"));
}

#[test]
fn a_body_of_more_than_64_kib_is_returned_whole_and_not_searched() {
    let host = FakeVendor::wecom();
    let tokens = wecom(&host);
    let long = format!(r#"{{"errcode":40014,"data":"{}"}}"#, "x".repeat(100_000));
    let without_length = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{long}");
    for service in [canned(json(&long)), canned(without_length)] {
        let response = tokens.send(&agent(), get(service.url())).unwrap();
        assert_eq!(response.body().mime_type(), Some("application/json"));
        assert_eq!(text(response), long);
        assert_eq!(service.calls(), 1);
    }
    assert_eq!(host.calls(), 1);
}

#[test]
fn a_body_that_was_searched_for_codes_is_returned_unchanged() {
    let tokens = carrying(TokenPlacement::bearer());
    let headers = "content-type: text/plain; charset=utf-8\r\nx-more: 1\r\n";
    let service = canned(reply("200 OK", headers, "{\"a\": \u{4e2d}}"));
    let response = tokens.send(&agent(), get(service.url())).unwrap();
    assert_eq!(response.headers()["x-more"], "1");
    assert_eq!((response.body().mime_type(), response.body().content_length()), (Some("text/plain"), Some(10)));
    assert_eq!(text(response), "{\"a\": \u{4e2d}}");
}

#[test]
fn a_body_that_is_neither_json_nor_text_is_not_searched_for_codes() {
    let host = FakeVendor::wecom();
    let service = canned(reply("200 OK", "content-type: application/octet-stream\r\n", r#"{"errcode":40014}"#));
    let response = wecom(&host).send(&agent(), get(service.url())).unwrap();
    assert_eq!(text(response), r#"{"errcode":40014}"#);
    assert_eq!((service.calls(), host.calls()), (1, 1));
}

#[test]
fn an_answer_without_a_content_type_is_searched_for_codes() {
    let host = FakeVendor::wecom();
    let tokens = wecom(&host);
    let refusal = reply("200 OK", "", r#"{"errcode":"42001"}"#);
    let service = replying([refusal, reply("200 OK", "", r#"{"errcode":0}"#)]);
    assert_eq!(text(tokens.send(&agent(), get(service.url())).unwrap()), r#"{"errcode":0}"#);
    assert_eq!((service.calls(), host.calls()), (2, 2));
}

#[test]
fn a_stream_of_text_is_returned_before_it_ends() {
    for kind in ["text/plain", "text/event-stream"] {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let service = host(move |mut stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\none\n");
            let in_time = released.lock().unwrap().recv_timeout(Duration::from_secs(10)).is_ok();
            let _ = stream.write_all(if in_time { b"two\n" } else { b"too late\n" });
        });
        let response = carrying(TokenPlacement::bearer()).send(&agent(), get(service.url())).unwrap();
        let mut reader = response.into_body().into_reader();
        let mut first = [0; 4];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"one\n");
        release.send(()).unwrap();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "two\n");
    }
}

#[test]
fn the_agents_own_settings_stay() {
    let service = host(|mut stream| {
        // The host never replies; the caller's time limit ends the request.
        let _ = stream.read(&mut [0; 64]);
    });
    let agent = Agent::config_builder().timeout_global(Some(Duration::from_millis(50))).build().new_agent();
    let error = carrying(TokenPlacement::bearer()).send(&agent, get(service.url())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);

    let agent = self::agent();
    let request = agent.configure_request(get(service.url())).timeout_global(Some(Duration::from_millis(50))).build();
    assert_eq!(carrying(TokenPlacement::bearer()).send(&agent, request).unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn without_a_token_nothing_is_sent() {
    let provider = FakeProvider::new().then_fail(Error::new(ErrorKind::InvalidCredentials, "on purpose"));
    let service = canned(reply("200 OK", "", ""));
    let error = TokenManager::new(provider).send(&agent(), get(service.url())).unwrap_err();
    assert_eq!((error.kind(), service.calls()), (ErrorKind::InvalidCredentials, 0));
}

// ---- secrets --------------------------------------------------------------------------------------------------------

#[test]
fn no_error_shows_the_token() {
    let refused = format!("http://127.0.0.1:{}/", closed_port());
    let echo = |status: &str, headers: &str| canned(reply(status, headers, "secret-token-1"));
    let hosts = [
        canned("garbage secret-token-1\r\n\r\n"),
        canned(""),
        canned("HTTP/1.1 200 OK\r\ncontent-length: 99\r\ncontent-type: text/plain\r\n\r\nsecret-token-1"),
        echo("302 Found", "location: http://secret-token-1\u{1}\r\n"),
        echo("302 Found", "location: http://secret-token-1:x/?secret-token-1\r\n"),
        echo("401 Unauthorized", ""),
        echo("429 Too Many", "retry-after: 1\r\n"),
        canned(reply("401 Unauthorized", "content-type: application/json\r\n", r#"{"code":"secret-token-1"}"#)),
        canned(reply("401 Unauthorized", "content-type: application/json\r\n", r#"{"code":"secret-token-2"}"#)),
    ];
    let urls = hosts.iter().map(|host| host.url() + "/?a=1").chain([refused, "/x".into(), "http://h.example".into()]);
    let mut errors = 0;
    for (url, carry) in
        urls.flat_map(|url| [(url.clone(), TokenPlacement::bearer()), (url, TokenPlacement::query("key"))])
    {
        for https_only in [false, true] {
            let tokens = carrying(carry.clone());
            let config = || Agent::config_builder().https_only(https_only);
            let agent = config().build().new_agent();
            if let Err(error) = tokens.send(&agent, get(&url)) {
                errors += 1;
                assert!(!format!("{error} {error:?}").contains("secret-token"), "{error:?}");
            }
            let agent = config().middleware(tokens.middleware()).build().new_agent();
            if let Err(error) = agent.run(get(&url)) {
                errors += 1;
                assert!(!format!("{error} {error:?}").contains("secret-token"), "{error:?}");
            }
        }
    }
    assert!(errors > 50, "{errors}");
}

#[test]
fn a_header_with_the_token_hides_it_from_other_middleware() {
    let shown = Arc::new(Mutex::new(String::new()));
    let seen = shown.clone();
    let look = move |request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
        *seen.lock().unwrap() = format!("{:?}", request.headers());
        next.handle(request)
    };
    let service = canned(reply("200 OK", "", ""));
    let agent = Agent::config_builder().middleware(carrying(TokenPlacement::bearer()).middleware()).middleware(look);
    agent.build().new_agent().get(service.url()).call().unwrap();
    let shown = shown.lock().unwrap();
    assert!(shown.contains("authorization") && !shown.contains("secret-token"), "{shown}");
}

#[test]
fn debug_output_hides_bodies_and_middleware() {
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        RequestBody::from("hunter2"),
        RequestBody::reader(Cursor::new("hunter2")),
        RequestBody::from(()),
        carrying(TokenPlacement::bearer()).middleware()
    );
    assert!(!shown.contains("hunter2") && !shown.contains("secret-token"), "{shown}");
    assert!(shown.starts_with("RequestBody(7 bytes) RequestBody(stream) RequestBody(nothing)"), "{shown}");
}

// ---- the middleware -------------------------------------------------------------------------------------------------

#[test]
fn the_middleware_adds_the_token() {
    let host = FakeVendor::oauth2();
    let agent = Agent::config_builder().middleware(oauth2(&host).middleware()).build().new_agent();
    assert_eq!(text(agent.get(host.api_url()).call().unwrap()), "{\"ok\":true}");
    agent.post(host.api_url()).send("body").unwrap();
    assert_eq!((host.calls(), host.api_calls()), (1, 2), "it holds its manager");

    let host = FakeVendor::wecom();
    let agent = Agent::config_builder().middleware(wecom(&host).middleware()).build().new_agent();
    assert!(text(agent.get(host.api_url()).query("a", "1").call().unwrap()).contains("\"ok\""));
    assert_eq!(host.requests().pop().unwrap().query("a").as_deref(), Some("1"));
}

#[test]
fn the_middleware_rejects_a_token_that_a_status_refuses() {
    for as_error in [true, false] {
        let host = FakeVendor::oauth2();
        let tokens = oauth2(&host);
        let middleware = tokens.middleware().http_status_as_error(as_error);
        let agent = Agent::config_builder().middleware(middleware).build().new_agent();
        host.revoke(tokens.token().unwrap().expose());
        match agent.get(host.api_url()).call() {
            Ok(response) => assert_eq!((response.status().as_u16(), as_error), (401, false)),
            Err(error) => assert!(matches!(error, ureq::Error::StatusCode(401)) && as_error, "{error:?}"),
        }
        assert_eq!(host.api_calls(), 1, "it repeats nothing");
        agent.get(host.api_url()).call().unwrap();
        assert_eq!((host.calls(), host.api_calls()), (2, 2));
    }
}

#[test]
fn the_middleware_rejects_a_token_that_a_code_refuses() {
    let host = FakeVendor::wecom();
    let tokens = wecom(&host);
    let agent = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
    host.revoke(tokens.token().unwrap().expose());
    assert!(text(agent.get(host.api_url()).call().unwrap()).contains("40014"), "the answer passes as it is");
    assert!(text(agent.get(host.api_url()).call().unwrap()).contains("\"ok\""));
    assert_eq!((host.calls(), host.api_calls()), (2, 2));
}

#[test]
fn the_middleware_keeps_the_token_when_only_a_right_is_missing() {
    let host = FakeVendor::oauth2().api_reply(403, &[], "").api_reply(429, &[], "");
    let agent = Agent::config_builder().middleware(oauth2(&host).middleware()).build().new_agent();
    assert!(matches!(agent.get(host.api_url()).call(), Err(ureq::Error::StatusCode(403))));
    assert!(matches!(agent.get(host.api_url()).call(), Err(ureq::Error::StatusCode(429))));
    agent.get(host.api_url()).call().unwrap();
    assert_eq!(host.calls(), 1);
}

#[test]
fn the_middleware_reports_why_there_is_no_token() {
    let provider = FakeProvider::new().then_fail(Error::new(ErrorKind::InvalidCredentials, "on purpose"));
    let tokens = TokenManager::new(provider);
    let service = canned(reply("200 OK", "", ""));
    let agent = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
    assert_eq!(ours(agent.get(service.url()).call().unwrap_err()).kind(), ErrorKind::InvalidCredentials);
    let sent = carrying(TokenPlacement::bearer()).send(&agent, get(service.url()));
    assert_eq!(
        sent.unwrap_err().kind(),
        ErrorKind::InvalidCredentials,
        "out of `send` too, when its agent has the middleware"
    );
    assert_eq!(service.calls(), 0);
}

#[test]
fn send_and_middleware_together_send_one_token() {
    let host = FakeVendor::wecom();
    let tokens = wecom(&host);
    let agent = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
    host.revoke(tokens.token().unwrap().expose());
    assert!(text(tokens.send(&agent, post(host.api_url(), "{}")).unwrap()).contains("\"ok\""));
    assert_eq!((host.calls(), host.api_calls()), (2, 2));
}

// ---- call and verdict -----------------------------------------------------------------------------------------------

#[test]
fn a_call_is_made_once_more_with_another_token() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    let mut seen = Vec::new();
    let answer = tokens.call(|token| {
        seen.push(token.expose().to_owned());
        if seen.len() == 1 { Err(CallError::Rejected) } else { Ok::<_, CallError<io::Error>>(seen.len()) }
    });
    assert_eq!(answer.unwrap(), 2);
    assert_eq!((seen, provider.calls()), (vec!["token-1".to_owned(), "token-2".to_owned()], 2));
}

#[test]
fn a_call_is_made_at_most_twice() {
    let provider = FakeProvider::new();
    let tokens = TokenManager::new(provider.clone());
    let mut calls = 0;
    let answer = tokens.call(|_| -> Result<(), CallError<io::Error>> {
        calls += 1;
        Err(CallError::Rejected)
    });
    assert!(matches!(answer, Err(CallError::Rejected)));
    assert_eq!((calls, provider.calls()), (2, 2));
    assert_eq!(tokens.token().unwrap().expose(), "token-2", "the second token is not rejected");
}

#[test]
fn a_call_is_made_once_more_although_the_rejection_cannot_be_stored() {
    let store = FaultyStore::default();
    store.set_broken(true);
    let tokens = TokenManager::builder(FakeProvider::new()).store(store).build().unwrap();
    let mut seen = Vec::new();
    let answer = tokens.call(|token| {
        seen.push(token.expose().to_owned());
        if seen.len() == 1 { Err(CallError::Rejected) } else { Ok::<_, CallError<io::Error>>(()) }
    });
    answer.unwrap();
    assert_eq!(seen, ["token-1", "token-2"]);
}

#[test]
fn an_error_of_a_closure_is_returned_at_once() {
    let tokens = TokenManager::new(FakeProvider::new());
    let mut calls = 0;
    let answer = tokens.call(|_| {
        calls += 1;
        let number: u32 = "x".parse()?;
        Ok::<_, CallError<std::num::ParseIntError>>(number)
    });
    assert!(matches!(answer, Err(CallError::Failed(_))));
    assert_eq!(calls, 1);
}

#[test]
fn a_call_without_a_token_says_why() {
    let denied = || Error::new(ErrorKind::InvalidCredentials, "on purpose");
    let tokens = TokenManager::new(FakeProvider::new().then_fail(denied()));
    let answer = tokens.call(|_| Ok::<(), CallError<io::Error>>(()));
    assert!(matches!(answer, Err(CallError::Token(error)) if error.kind() == ErrorKind::InvalidCredentials));

    let tokens = TokenManager::new(FakeProvider::new().then_grant("t-1", HOUR).then_fail(denied()));
    let mut calls = 0;
    let answer = tokens.call(|_| -> Result<(), CallError<io::Error>> {
        calls += 1;
        Err(CallError::Rejected)
    });
    assert!(matches!(answer, Err(CallError::Token(_))));
    assert_eq!(calls, 1);
}

#[test]
fn a_closure_that_panics_leaves_the_manager_usable() {
    let tokens = Arc::new(TokenManager::new(FakeProvider::new()));
    let calling = tokens.clone();
    let panicked = std::thread::spawn(move || {
        let _ = calling.call(|_| -> Result<(), CallError<io::Error>> { panic!("on purpose") });
    });
    assert!(panicked.join().is_err());
    assert_eq!(tokens.call(|token| Ok::<_, CallError<io::Error>>(token.expose().len())).unwrap(), 7);
}

#[test]
fn a_call_error_quotes_its_cause_and_returns_it_as_source() {
    let failed = CallError::Failed(io::Error::other("the reason"));
    assert_eq!(
        (failed.to_string(), failed.source().unwrap().to_string()),
        ("the call failed: the reason".into(), "the reason".into())
    );
    let token = CallError::<io::Error>::Token(Error::new(ErrorKind::InvalidCredentials, "refused"));
    assert_eq!(
        (token.to_string(), token.source().unwrap().to_string()),
        ("there is no token to call with: refused".into(), "refused".into())
    );
    let rejected = CallError::<io::Error>::Rejected;
    assert!(rejected.to_string().starts_with("the service rejected two tokens") && rejected.source().is_none());
}

#[test]
fn the_provider_decides_the_verdict() {
    let headers = HeaderMap::new();
    let tokens = TokenManager::new(WeCom::new("corp", "secret"));
    assert_eq!(tokens.verdict(200, &headers, br#"{"errcode":42001}"#), Verdict::Rejected);
    assert_eq!(tokens.verdict(200, &headers, br#"{"errcode":48002}"#), Verdict::Accepted);
    assert_eq!(tokens.verdict(200, &headers, b"42001"), Verdict::Accepted);
}

struct Panicking {
    carry: bool,
}

impl Provider for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }

    fn identity(&self) -> Identity {
        Identity::new("panicking")
    }

    fn fetch(&self, _: &Context) -> Result<Grant, Error> {
        Ok(Grant::new("secret-token-1", HOUR))
    }

    fn placement(&self) -> TokenPlacement {
        assert!(!self.carry, "on purpose");
        TokenPlacement::bearer()
    }

    fn verdict(&self, _: &ServiceResponse<'_>) -> Verdict {
        panic!("on purpose")
    }
}

#[test]
fn a_provider_that_panics_over_an_answer_leaves_the_verdict_to_http() {
    let tokens = TokenManager::new(Panicking { carry: false });
    assert_eq!(tokens.verdict(401, &HeaderMap::new(), b""), Verdict::Rejected);
    assert_eq!(tokens.verdict(200, &HeaderMap::new(), b""), Verdict::Accepted);
    let service = canned(json("{}"));
    assert_eq!(text(tokens.send(&agent(), get(service.url())).unwrap()), "{}");
    let error = TokenManager::new(Panicking { carry: true }).send(&agent(), get(service.url())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
}
