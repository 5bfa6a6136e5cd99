//! What responses of services do: streams, redirects, broken connections, codes that repeat the token.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use evertoken::provider::{Grant, TokenPlacement};
use evertoken::testing::FakeVendor;
use evertoken::{ErrorKind, RequestBody, TokenManager, WeCom, provider};
use ureq::Agent;
use ureq::http::Request;

use crate::common::http_host::{Canned, canned, host, reply};

const HOUR: Duration = Duration::from_secs(3600);

const TOKEN: &str = "secret-token-1";

/// A manager whose tokens are `secret-token-1`, `secret-token-2` and so on.
fn tokens() -> TokenManager {
    let granted = AtomicUsize::new(0);
    TokenManager::new(
        provider::from_fn("demo", move |_| {
            let number = granted.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(Grant::new(format!("secret-token-{number}"), HOUR))
        })
        .placement(TokenPlacement::bearer()),
    )
}

fn wecom(host: &FakeVendor) -> TokenManager {
    TokenManager::new(WeCom::new("corp", "secret").base_url(host.url()))
}

fn agent() -> Agent {
    Agent::new_with_defaults()
}

fn agent_with_limit() -> Agent {
    Agent::config_builder().timeout_global(Some(Duration::from_millis(100))).build().new_agent()
}

fn get(host: &Canned) -> Request<()> {
    Request::get(host.url()).body(()).unwrap()
}

fn post(host: &Canned) -> Request<&'static str> {
    Request::post(host.url()).body("order-1").unwrap()
}

fn redirect_to(host: &Canned) -> Canned {
    canned(reply("302 Found", &format!("location: {}/elsewhere\r\n", host.url()), ""))
}

fn wait_until_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
}

// ---- streams --------------------------------------------------------------------------------------------------------

const CLOSING: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";

/// A host that sends `first`, waits for the release, and sends `rest`.
fn releasing(first: String, rest: &'static str) -> (Canned, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let service = host(move |mut stream| {
        let _ = stream.write_all(first.as_bytes());
        let in_time = released.lock().unwrap().recv_timeout(Duration::from_secs(10)).is_ok();
        let _ = stream.write_all(if in_time { rest.as_bytes() } else { b"too late" });
    });
    (service, release)
}

#[test]
fn a_stream_of_json_is_handed_out_after_its_first_object() {
    for (first, expected) in [
        ("{\"n\":1}", "{\"n\":1}\n{\"n\":2}"),
        (" \n{\"text\":\"}\\\"{\",\"list\":[{}]}", " \n{\"text\":\"}\\\"{\",\"list\":[{}]}\n{\"n\":2}"),
        ("{\"errcode\":0}\n{\"errcode\":40", "{\"errcode\":0}\n{\"errcode\":40\n{\"n\":2}"),
        ("[{\"n\":1}", "[{\"n\":1}\n{\"n\":2}"),
        ("data: {\"n\":1}", "data: {\"n\":1}\n{\"n\":2}"),
    ] {
        let chunk = format!("{CHUNKED}{:x}\r\n{first}\r\n", first.len());
        let chunked = releasing(chunk, "8\r\n\n{\"n\":2}\r\n0\r\n\r\n");
        for (service, release) in [releasing(format!("{CLOSING}{first}"), "\n{\"n\":2}"), chunked] {
            let response = tokens().send(&agent(), get(&service)).unwrap();
            release.send(()).unwrap();
            assert_eq!(response.into_body().read_to_string().unwrap(), expected);
        }
    }
}

#[test]
fn a_code_is_noticed_before_the_response_ends() {
    for head in [CLOSING.to_owned(), format!("{CHUNKED}11\r\n")] {
        let vendor = FakeVendor::wecom();
        let calls = AtomicUsize::new(0);
        let service = host(move |mut stream| {
            let code = if calls.fetch_add(1, Ordering::Relaxed) == 0 { "42001" } else { "    0" };
            let _ = write!(stream, "{head}{{\"errcode\":{code}}}");
            wait_until_closed(&mut stream);
        });
        let mut body = wecom(&vendor).send(&agent(), get(&service)).unwrap().into_body().into_reader();
        let mut object = [0; 17];
        body.read_exact(&mut object).unwrap();
        assert_eq!(&object, b"{\"errcode\":    0}");
        assert_eq!((service.calls(), vendor.calls()), (2, 2));
    }
}

#[test]
fn an_object_of_more_than_64_kib_in_a_stream_is_passed_on() {
    let long = format!(r#"{{"errcode":42001,"data":"{}"}}"#, "x".repeat(70_000));
    let vendor = FakeVendor::wecom();
    let service = canned(format!("{CLOSING}{long}"));
    let response = wecom(&vendor).send(&agent(), get(&service)).unwrap();
    assert_eq!(response.into_body().read_to_string().unwrap(), long);
    assert_eq!((service.calls(), vendor.calls()), (1, 1));
}

// ---- whose refusal it is --------------------------------------------------------------------------------------------

#[test]
fn a_refusal_by_another_host_after_a_redirect_is_no_rejection() {
    let refusals = [
        reply("401 Unauthorized", "www-authenticate: Bearer error=\"invalid_token\"\r\n", ""),
        reply("403 Forbidden", "www-authenticate: Bearer error=\"invalid_token\"\r\n", ""),
        reply("429 Too Many Requests", "retry-after: 7\r\n", ""),
    ];
    for refusal in refusals {
        let elsewhere = canned(refusal);
        let service = redirect_to(&elsewhere);
        let tokens = tokens();
        let status = tokens.send(&agent(), get(&service)).unwrap().status().as_u16();
        for as_error in [true, false] {
            let middleware = tokens.middleware().http_status_as_error(as_error);
            let agent = Agent::config_builder().middleware(middleware).build().new_agent();
            match agent.get(service.url()).call() {
                Ok(response) => assert_eq!((response.status().as_u16(), as_error), (status, false)),
                Err(error) => assert!(matches!(error, ureq::Error::StatusCode(code) if code == status && as_error)),
            }
        }
        assert_eq!((service.calls(), elsewhere.calls()), (3, 3));
        assert_eq!(tokens.token().unwrap().expose(), TOKEN, "{status}: the host has not seen the token");
    }
}

#[test]
fn the_middleware_reads_headers_and_body_before_it_makes_a_status_an_error() {
    let challenge = "www-authenticate: Bearer error=\"insufficient_scope\"\r\n";
    let service = canned(reply("401 Unauthorized", challenge, ""));
    let tokens = tokens();
    let agent = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
    assert!(matches!(agent.get(service.url()).call(), Err(ureq::Error::StatusCode(401))));
    assert_eq!(tokens.token().unwrap().expose(), TOKEN, "only a right is missing");

    let vendor = FakeVendor::wecom();
    let tokens = wecom(&vendor);
    let service = canned(reply("400 Bad Request", "content-type: application/json\r\n", r#"{"errcode":"40014"}"#));
    let agent = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
    assert!(matches!(agent.get(service.url()).call(), Err(ureq::Error::StatusCode(400))));
    tokens.token().unwrap();
    assert_eq!(vendor.calls(), 2, "the code refused the first token");
}

#[test]
fn send_gets_every_response_from_an_agent_with_middleware() {
    let tokens = tokens();
    let other = self::tokens();
    let config = Agent::config_builder().middleware(other.middleware()).middleware(tokens.middleware());
    let agent = config.build().new_agent();
    let service = canned(reply("404 Not Found", "", "none"));
    let response = tokens.send(&agent, get(&service)).unwrap();
    assert_eq!((response.status().as_u16(), response.into_body().read_to_string().unwrap().as_str()), (404, "none"));
    assert!(matches!(agent.get(service.url()).call(), Err(ureq::Error::StatusCode(404))));
}

// ---- unknown outcomes -----------------------------------------------------------------------------------------------

#[test]
fn a_post_is_sent_once_when_its_connection_breaks() {
    for part in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"ok\":",
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 99\r\n\r\n{\"ok\":",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 99\r\n\r\n",
    ] {
        let service = canned(part);
        let tokens = tokens();
        let error = tokens.send(&agent(), post(&service)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{part:?}: {error}");
        let through = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
        through.post(service.url()).send("order-2").unwrap_err();
        let sent = service.requests();
        let orders: Vec<_> = sent.iter().map(|request| request.rsplit("\r\n").next().unwrap()).collect();
        assert_eq!(orders, ["order-1", "order-2"], "{part:?}");
        assert_eq!(tokens.token().unwrap().expose(), TOKEN, "nothing is known about the token");
    }
}

#[test]
fn a_post_is_sent_once_when_no_response_comes_in_time() {
    for part in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 401 Unauthorized\r\ncontent-length: 99\r\n\r\n{"] {
        let service = host(move |mut stream| {
            let _ = stream.write_all(part.as_bytes());
            wait_until_closed(&mut stream);
        });
        let error = tokens().send(&agent_with_limit(), post(&service)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{part:?}: {error}");
        assert_eq!(service.calls(), 1, "{part:?}");
    }
}

#[test]
fn a_post_is_sent_once_when_a_connection_that_was_used_before_breaks() {
    let orders = Arc::new(Mutex::new(Vec::new()));
    let seen = orders.clone();
    let service = host(move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"order-1") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            request.push(byte[0]);
        }
        seen.lock().unwrap().push(request.ends_with(b"order-1"));
    });
    let (tokens, agent) = (tokens(), agent());
    assert_eq!(tokens.send(&agent, get(&service)).unwrap().into_body().read_to_string().unwrap(), "{}");
    let error = tokens.send(&agent, post(&service)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!((service.calls(), orders.lock().unwrap().as_slice()), (1, [true].as_slice()));
}

#[test]
fn a_refused_post_is_sent_again_only_if_its_body_can_be() {
    let refusal = || canned(reply("401 Unauthorized", "", ""));
    let service = refusal();
    let error = tokens().send(&agent(), post(&service)).unwrap_err();
    assert_eq!((error.kind(), service.calls()), (ErrorKind::TokenRejected, 2));
    let service = refusal();
    let stream = RequestBody::reader("order-1".as_bytes());
    let request = Request::post(service.url()).header("content-length", "7").body(stream).unwrap();
    let error = tokens().send(&agent(), request).unwrap_err();
    assert_eq!((error.kind(), service.calls()), (ErrorKind::TokenRejected, 1));
}

// ---- codes ----------------------------------------------------------------------------------------------------------

#[test]
fn a_code_that_repeats_the_token_in_any_encoding_is_not_quoted() {
    let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = TOKEN.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for code in [
        TOKEN.to_owned(),
        format!("Bearer {TOKEN}"),
        TOKEN.to_ascii_uppercase(),
        STANDARD.encode(TOKEN),
        STANDARD.encode(format!("Bearer {TOKEN}")),
        STANDARD.encode(format!("x:{TOKEN}")),
        URL_SAFE_NO_PAD.encode(format!("{{\"token\":\"{TOKEN}\"}}")),
        hex,
        percent,
        "line one\nline two".to_owned(),
        "x".repeat(1000),
    ] {
        let body = serde_json::json!({ "code": code, "message": TOKEN }).to_string();
        let service = canned(reply("429 Too Many Requests", "content-type: application/json\r\n", &body));
        let error = tokens().send(&agent(), get(&service)).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Throttled, None), "{code}");
        assert!(!format!("{error} {error:?}").contains(&code), "{error:?}");
    }
}

#[test]
fn a_code_is_found_beside_unknown_fields_and_fields_of_another_type() {
    for body in [
        r#"{"code":"bad_thing","unknown":{"a":[1,{}]},"message":null}"#,
        r#"{"errcode":{"not":"a code"},"code":"bad_thing"}"#,
        r#"{"errcode":null,"code":true,"error":"bad_thing"}"#,
        r#"{"error":{"code":"bad_thing","details":[]},"code":[1]}"#,
        "{\"code\":\"bad_thing\",\"message\":\"a\u{1}\nb\"}",
    ] {
        let service = canned(reply("429 Too Many Requests", "content-type: application/json\r\n", body));
        let error = tokens().send(&agent(), get(&service)).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Throttled, Some("bad_thing")), "{body}");
    }
    let vendor = FakeVendor::wecom();
    let tokens = wecom(&vendor);
    for body in [r#"{"errcode":"40014"}"#, r#"{"errcode":40014.0}"#, r#"{"more":[],"errmsg":7,"errcode":40014}"#] {
        let service = canned(reply("200 OK", "content-type: text/html\r\n", body));
        let error = tokens.send(&agent(), get(&service)).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::TokenRejected, Some("40014")), "{body}");
    }
    for body in
        ["<html>40014</html>", r#"[{"errcode":40014}]"#, r#"{"errcode":true}"#, r#"{"errcode":[40014]}"#, "40014"]
    {
        let service = canned(reply("200 OK", "content-type: text/html\r\n", body));
        let response = tokens.send(&agent(), get(&service)).unwrap();
        assert_eq!(response.into_body().read_to_string().unwrap(), body);
    }
}
