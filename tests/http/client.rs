//! Hosts that are slow, endless, wrong or hostile, over real sockets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::{Context, Grant, Provider};
use evertoken::{Error, ErrorKind, HttpConfig, OAuth2, TokenManager, WeCom};

use crate::common::alone::test_of;
use crate::common::http_host::{Canned, answering, canned, closed_port, host, host_without_reading, reply};

const LIMIT: Duration = Duration::from_millis(300);

/// Far above any limit under test, and far below an endless wait.
const SLACK: Duration = Duration::from_secs(3);

const GRANTED: &str = r#"{"access_token":"t-1","expires_in":7200}"#;

fn context() -> Context {
    Context::new(HttpConfig::default(), Duration::from_secs(10))
}

fn wecom(url: &str) -> WeCom {
    WeCom::new("corp", "hunter2").base_url(url)
}

fn ask(host: &Canned) -> Result<Grant, Error> {
    wecom(&host.url()).fetch(&context())
}

fn ask_briefly(host: &Canned) -> (Error, Duration) {
    let start = Instant::now();
    let context = Context::new(HttpConfig::default().timeout(LIMIT), Duration::from_secs(10));
    let error = wecom(&host.url()).fetch(&context).unwrap_err();
    (error, start.elapsed())
}

fn assert_silent(error: &Error) {
    let shown = format!("{error} {error:?}");
    for hidden in ["hunter2", "corpsecret", "gettoken", "://127.0.0.1", "from-the-body"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    assert!(shown.starts_with("wecom: ") || shown.starts_with("oauth2: "), "{shown}");
}

/// Writes `part` repeatedly until the other side closes the connection.
fn drip(mut stream: TcpStream, part: &[u8], pause: Duration) {
    while stream.write_all(part).is_ok() {
        thread::sleep(pause);
    }
}

#[test]
fn a_body_that_never_ends_is_cut_at_128_kib() {
    let host = host(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"a\":\"");
        drip(stream, &[b'x'; 4096], Duration::ZERO);
    });
    let error = ask(&host).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::InvalidResponse, Some(200)));
    assert_silent(&error);
}

#[test]
fn a_body_of_128_kib_is_read_and_one_byte_more_is_not() {
    let padded = |length: usize| {
        let body = GRANTED.replace('}', r#","pad":"#);
        let pad = "x".repeat(length - body.len() - 3);
        format!("{body}\"{pad}\"}}")
    };
    assert_eq!(padded(131_072).len(), 131_072);
    assert_eq!(ask(&answering(&padded(131_072))).unwrap().token().expose(), "t-1");
    assert_eq!(ask(&answering(&padded(131_073))).unwrap_err().kind(), ErrorKind::InvalidResponse);
}

#[test]
fn a_trickling_body_ends_with_the_time_limit() {
    let host = host(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        drip(stream, b" ", LIMIT / 10);
    });
    let (error, took) = ask_briefly(&host);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(took < SLACK, "{took:?}");
    assert_silent(&error);
}

#[test]
fn trickling_headers_end_with_the_time_limit() {
    let host = host(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        drip(stream, b"x-a: b\r\n", LIMIT / 10);
    });
    let (error, took) = ask_briefly(&host);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(took < SLACK, "{took:?}");
}

#[test]
fn a_silent_host_ends_with_the_time_limit() {
    let host = host(|mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let (error, took) = ask_briefly(&host);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(took < SLACK, "{took:?}");
    assert_silent(&error);
}

#[test]
fn the_limit_of_the_context_counts_when_it_is_sooner() {
    let host = host(|mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let start = Instant::now();
    let error = wecom(&host.url()).fetch(&Context::new(HttpConfig::default(), LIMIT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() < SLACK);
}

#[test]
fn without_time_nothing_is_sent() {
    let host = answering(GRANTED);
    let error = wecom(&host.url()).fetch(&Context::new(HttpConfig::default(), Duration::ZERO)).unwrap_err();
    assert_eq!((error.kind(), host.calls()), (ErrorKind::Unavailable, 0));
    assert_silent(&error);
}

#[test]
fn a_refused_connection_is_unavailable() {
    let error = wecom(&format!("http://127.0.0.1:{}", closed_port())).fetch(&context()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert_silent(&error);
}

#[test]
fn a_connection_that_breaks_off_is_unavailable() {
    for part in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"access_token\":\"t-1\""] {
        let error = ask(&canned(part)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{part:?}: {error}");
        assert_silent(&error);
    }
}

#[test]
fn a_reply_that_is_not_http_is_a_protocol_error() {
    for noise in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "HTTP/1.1 banana\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"] {
        let error = ask(&canned(noise)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{noise:?}: {error}");
        assert_silent(&error);
    }
}

#[test]
fn headers_without_end_are_a_protocol_error() {
    let host = host(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        drip(stream, &b"x-a: 0123456789abcdef\r\n".repeat(100), Duration::ZERO);
    });
    assert_eq!(ask(&host).unwrap_err().kind(), ErrorKind::InvalidResponse);
}

#[test]
fn a_host_without_tls_receives_only_the_tls_greeting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = vec![0; 4096];
        let length = stream.read(&mut seen).unwrap();
        stream.write_all(&reply("400 Bad Request", "", "from-the-body")).unwrap();
        let _ = stream.read(&mut [0; 64]);
        String::from_utf8_lossy(&seen[..length]).into_owned()
    });
    let error = wecom(&url).fetch(&context()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!error.is_retryable() && error.to_string().contains("does not speak TLS"), "{error}");
    assert_silent(&error);
    let seen = host.join().unwrap();
    assert!(!seen.contains("hunter2") && !seen.contains("gettoken"));
}

/// A TLS server on loopback with a self-signed certificate. Returns its URL, and the certificate in PEM.
fn self_signed() -> (String, String) {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap());
    let host = host_without_reading(move |mut stream| {
        let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut stream);
        // Fails when the client does not trust the certificate.
        if stream.read(&mut [0; 4096]).is_ok() {
            let _ = stream.write_all(&reply("200 OK", "", GRANTED));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (format!("https://localhost:{}", host.port()), cert.pem())
}

#[test]
fn a_self_signed_certificate_is_a_matter_of_configuration_and_works_once_it_is_added() {
    let (url, pem) = self_signed();
    let error = wecom(&url).fetch(&context()).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Config, false), "{error}");
    let host = url.trim_start_matches("https://");
    let expected = format!(
        "wecom: the certificate of {host} is not trusted; add its root with extra_root_pem, or turn on platform-roots"
    );
    assert_eq!(error.to_string(), expected);
    let trusting = Context::new(HttpConfig::default().extra_root_pem(pem), Duration::from_secs(10));
    assert_eq!(wecom(&url).fetch(&trusting).unwrap().token().expose(), "t-1");
}

#[test]
fn a_redirect_is_not_followed_and_its_target_learns_nothing() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let target = answering(GRANTED);
        let location = format!("location: {}/from-the-body\r\n", target.url());
        let host = canned(reply(status, &location, ""));
        let get = ask(&host).unwrap_err();
        let post = OAuth2::new(host.url(), "id", "hunter2").fetch(&context()).unwrap_err();
        for error in [get, post] {
            assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{status}");
            assert_eq!(error.status(), status[..3].parse().ok());
            assert_silent(&error);
        }
        assert_eq!(target.calls(), 0, "{status}");
    }
}

#[test]
fn loopback_is_never_reached_through_a_proxy() {
    let host = answering(GRANTED);
    let http = HttpConfig::default().proxy(format!("http://user:hunter2@127.0.0.1:{}", closed_port()));
    let grant = wecom(&host.url()).fetch(&Context::new(http, Duration::from_secs(5))).unwrap();
    assert_eq!(grant.token().expose(), "t-1");
}

#[test]
fn other_hosts_are_reached_through_the_proxy_which_sees_no_secret() {
    let proxy = canned(reply("403 Forbidden", "", "from-the-body"));
    let http = HttpConfig::default().proxy(proxy.url());
    let error = wecom("https://host.invalid").fetch(&Context::new(http, Duration::from_secs(5))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_silent(&error);
    let (first, headers, body) = proxy.request();
    assert_eq!(first, "CONNECT host.invalid:443 HTTP/1.1");
    assert!(!format!("{headers:?}{body}").contains("hunter2"));
}

/// Starts this program again to run one test with these variables, because the environment of a process is fixed at its
/// start. Returns false in the process that was started so, which performs the test.
fn is_started_again(test: &str, variables: &[(&str, &str)]) -> bool {
    const STARTED: &str = "STARTED_AGAIN_FOR";
    if std::env::var(STARTED).ok().as_deref() == Some(test) {
        return false;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        again.env_remove(name).env_remove(name.to_uppercase());
    }
    let result = again.args(["--exact", test]).env(STARTED, test).envs(variables.iter().copied()).output().unwrap();
    let shown = String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success() && shown.contains("1 passed"), "{shown}");
    true
}

#[test]
fn a_socks_proxy_in_the_environment_is_refused_by_the_name_of_its_variable() {
    let this = test_of(&|| ());
    if is_started_again(this, &[("ALL_PROXY", "socks5://user:hunter2@127.0.0.1:1")]) {
        return;
    }
    let error = wecom("https://host.invalid").fetch(&context()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("the environment variable ALL_PROXY names a SOCKS proxy"), "{error}");
    assert_silent(&error);
    assert_eq!(ask(&answering(GRANTED)).unwrap().token().expose(), "t-1", "loopback needs no proxy");
}

#[test]
fn the_variable_of_the_scheme_comes_before_the_one_for_all_and_exceptions_come_first() {
    let this = test_of(&|| ());
    let proxy = canned(reply("403 Forbidden", "", "from-the-body"));
    let variables =
        [("https_proxy", &*proxy.url()), ("ALL_PROXY", "socks5://127.0.0.1:1"), ("no_proxy", "excepted.invalid")];
    if is_started_again(this, &variables) {
        assert_eq!(proxy.request().0, "CONNECT host.invalid:443 HTTP/1.1");
        return;
    }
    let error = |url| wecom(url).fetch(&context()).unwrap_err().to_string();
    let proxied = error("https://host.invalid");
    let through = std::env::var("https_proxy").unwrap().replace("http://", "through the proxy ");
    assert!(proxied.contains(&format!("the proxy refused to connect to host.invalid ({through})")), "{proxied}");
    let direct = error("https://login.excepted.invalid");
    assert!(!direct.contains("proxy") && direct.contains("login.excepted.invalid"), "{direct}");
}

#[test]
fn an_error_of_the_proxy_names_the_proxy() {
    let port = closed_port();
    let http = HttpConfig::default().proxy(format!("http://user:hunter2@127.0.0.1:{port}"));
    let error = wecom("https://host.invalid").fetch(&Context::new(http, Duration::from_secs(5))).unwrap_err();
    let expected = format!(
        "wecom: cannot connect to host.invalid (through the proxy 127.0.0.1:{port}): the connection was refused; check \
         address and port"
    );
    assert_eq!((error.to_string(), error.kind()), (expected, ErrorKind::Unavailable));
}

#[test]
fn a_credential_is_not_sent_without_https() {
    for url in ["http://host.invalid", "ftp://localhost", "host.invalid", "http://127.0.0.1@host.invalid", ""] {
        for error in [wecom(url).fetch(&context()).unwrap_err(), wecom(url).check().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            // The host is no secret; a user name before it may be one.
            assert!(!error.to_string().contains('@'), "{error}");
            assert_silent(&error);
        }
    }
}

#[test]
fn a_supplied_agent_keeps_its_name_and_gets_the_rules_of_the_library() {
    let target = answering(GRANTED);
    let location = format!("location: {}/\r\n", target.url());
    let host = canned(reply("302 Found", &location, ""));
    let agent = ureq::Agent::config_builder().user_agent("mine/1").max_redirects(5).build().new_agent();
    let error = wecom(&host.url()).fetch(&Context::new(agent, Duration::from_secs(5))).unwrap_err();
    assert_eq!((error.kind(), error.status(), target.calls()), (ErrorKind::InvalidResponse, Some(302), 0));
    assert!(host.request().1.contains(&"user-agent: mine/1".to_owned()));
}

#[test]
fn status_errors_of_a_supplied_agent_are_switched_off() {
    let host = canned(reply("400 Bad Request", "", r#"{"error":"invalid_scope"}"#));
    let agent = ureq::Agent::new_with_defaults();
    let error =
        OAuth2::new(host.url(), "id", "hunter2").fetch(&Context::new(agent, Duration::from_secs(5))).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Config, Some("invalid_scope")));
}

#[test]
fn a_connection_is_used_again() {
    let host = host(|mut stream| {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{GRANTED}", GRANTED.len());
        let mut request = [0; 4096];
        let _ = stream.write_all(answer.as_bytes());
        while stream.read(&mut request).is_ok_and(|read| read > 0) {
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let context = Context::new(HttpConfig::default(), Duration::from_secs(10));
    for _ in 0..3 {
        assert_eq!(wecom(&host.url()).fetch(&context).unwrap().token().expose(), "t-1");
    }
    assert_eq!(host.calls(), 1);
}

#[test]
fn endless_http_time_limits_are_no_panic() {
    let url = {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://127.0.0.1:{}/token", closed.local_addr().unwrap().port())
    };
    let http = HttpConfig::default;
    for http in [
        http().resolve_timeout(Duration::MAX),
        http().connect_timeout(Duration::MAX),
        http().timeout(Duration::MAX),
        http().timeout(Duration::MAX).resolve_timeout(Duration::MAX).connect_timeout(Duration::MAX),
    ] {
        let tokens = TokenManager::builder(OAuth2::new(&url, "id", "secret")).http(http).build().unwrap();
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
