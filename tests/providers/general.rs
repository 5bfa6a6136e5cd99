use std::time::Duration;

use evertoken::provider::oauth2::ClientAuth;
use evertoken::provider::{Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, from_fn};
use evertoken::ureq::http::HeaderMap;
use evertoken::{Error, ErrorKind, HttpConfig, OAuth2, Secret, Verdict, WeCom};

use crate::common::http_host::{Canned, answering, canned, reply};

const SECRET: &str = "a b+&%:\u{fc}";

const GRANTED: &str = r#"{"access_token":"t-1","expires_in":7200}"#;

fn context() -> Context {
    Context::new(HttpConfig::default(), Duration::from_secs(10))
}

fn wecom(host: &Canned) -> WeCom {
    WeCom::new("corp", "hunter2").base_url(host.url())
}

fn oauth2(host: &Canned) -> OAuth2 {
    OAuth2::new(host.url(), "id", "hunter2")
}

/// Calls both providers, and asserts that their errors show no secret.
fn ask_both(reply: &[u8]) -> [Result<Grant, Error>; 2] {
    let host = canned(reply);
    let answers = [wecom(&host).fetch(&context()), oauth2(&host).fetch(&context())];
    for (answer, name) in answers.iter().zip(["wecom: ", "oauth2: "]) {
        if let Err(error) = answer {
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with(name), "{shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("://"), "{shown}");
        }
    }
    answers
}

fn assert_granted(body: &str, token: &str, life: Option<u64>) {
    for grant in ask_both(&reply("200 OK", "", body)) {
        let grant = grant.unwrap_or_else(|error| panic!("{body}: {error}"));
        assert_eq!((grant.token().expose(), grant.lifetime().map(|life| life.as_secs())), (token, life), "{body}");
    }
}

fn assert_refused(reply: &[u8], kind: ErrorKind) {
    for answer in ask_both(reply) {
        let error = answer.expect_err(&String::from_utf8_lossy(reply));
        assert_eq!(error.kind(), kind, "{}: {error}", String::from_utf8_lossy(reply));
    }
}

#[test]
fn a_lifetime_may_be_a_number_or_a_text() {
    for (value, seconds) in [
        ("7200", 7200),
        ("7200.0", 7200),
        ("59.9", 59),
        ("\"7200\"", 7200),
        ("\" 7200 \"", 7200),
        ("\"7200.0\"", 7200),
        ("1e20", 2_592_000),
        ("1180591620717411303424", 2_592_000),
        ("9223372036854775808", 2_592_000),
        ("\"99999999999999999999\"", 2_592_000),
    ] {
        assert_granted(&format!(r#"{{"access_token":"t-1","expires_in":{value}}}"#), "t-1", Some(seconds));
    }
}

#[test]
fn a_missing_lifetime_is_taken_from_the_profile() {
    assert_granted(r#"{"access_token":"t-1"}"#, "t-1", None);
    assert_granted(r#"{"access_token":"t-1","expires_in":null}"#, "t-1", None);
    assert_eq!(WeCom::new("c", "s").profile().default_lifetime, Duration::from_secs(7200));
    assert_eq!(OAuth2::new("https://h", "c", "s").profile().default_lifetime, Duration::from_secs(300));
    let provider = OAuth2::new("https://h", "c", "s").default_lifetime(Duration::from_secs(60));
    assert_eq!(provider.profile().default_lifetime, Duration::from_secs(60));
}

#[test]
fn a_lifetime_of_zero_or_no_number_is_refused() {
    for value in
        ["0", "-1", "-7200", "0.9", "\"0\"", "\"-5\"", "\"NaN\"", "\"inf\"", "\"soon\"", "\"\"", "true", "{}", "[7200]"]
    {
        let body = format!(r#"{{"access_token":"t-1","expires_in":{value}}}"#);
        assert_refused(&reply("200 OK", "", &body), ErrorKind::InvalidResponse);
    }
    assert_refused(&reply("200 OK", "", r#"{"access_token":"t-1","expires_in":1e999}"#), ErrorKind::InvalidResponse);
}

#[test]
fn a_token_that_cannot_be_sent_is_refused() {
    let long = "x".repeat(64 * 1024 + 1);
    for token in ["", "  ", "a b", r"a\r\nx-evil: 1", r"a\u0000", r"\u00e9", r"a\u007f", &long] {
        let body = format!(r#"{{"access_token":"{token}","expires_in":7200}}"#);
        assert_refused(&reply("200 OK", "", &body), ErrorKind::InvalidResponse);
    }
    for value in ["null", "1", "true", "{}", r#"["t-1"]"#] {
        let body = format!(r#"{{"access_token":{value},"expires_in":7200}}"#);
        assert_refused(&reply("200 OK", "", &body), ErrorKind::InvalidResponse);
    }
    assert_granted(&GRANTED.replace("t-1", &long[1..]), &long[1..], Some(7200));
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    let deep = format!(r#"{{"access_token":"t-1","deep":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for body in [
        "",
        "null",
        "7200",
        r#""t-1""#,
        r#"["t-1",7200]"#,
        "<html><body>hello</body></html>",
        "access_token=t-1&expires_in=7200",
        &format!("\u{feff}{GRANTED}"),
        &format!("{GRANTED} trailing"),
        &format!("{GRANTED}{GRANTED}"),
        &GRANTED[..20],
        &deep,
        "{}",
        "{\"access_token\":\"t\u{1}\"}",
    ] {
        assert_refused(&reply("200 OK", "", body), ErrorKind::InvalidResponse);
    }
    assert_refused(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{\xff", ErrorKind::InvalidResponse);
    assert_refused(b"HTTP/1.1 204 No Content\r\n\r\n", ErrorKind::InvalidResponse);
    assert_refused(&reply("206 Partial Content", "", &GRANTED[..20]), ErrorKind::InvalidResponse);
}

#[test]
fn unknown_fields_are_ignored_and_the_last_of_two_equal_fields_counts() {
    assert_granted(r#"{"warning_msg":"old TLS","access_token":"t-1","expires_in":60,"x":[{}]}"#, "t-1", Some(60));
    assert_granted(r#"{"access_token":"t-0","access_token":"t-1","expires_in":60}"#, "t-1", Some(60));
}

#[test]
fn a_status_counts_when_the_body_has_no_code() {
    for (status, kind) in [
        ("401 Unauthorized", ErrorKind::InvalidCredentials),
        ("403 Forbidden", ErrorKind::Forbidden),
        ("404 Not Found", ErrorKind::InvalidResponse),
        ("408 Request Timeout", ErrorKind::Unavailable),
        ("429 Too Many Requests", ErrorKind::Throttled),
        ("500 Internal Server Error", ErrorKind::Unavailable),
        ("502 Bad Gateway", ErrorKind::Unavailable),
        ("503 Service Unavailable", ErrorKind::Unavailable),
    ] {
        for body in ["", "<html>", "{}", GRANTED] {
            assert_refused(&reply(status, "", body), kind);
        }
        for answer in ask_both(&reply(status, "retry-after: 7\r\n", "")) {
            let error = answer.unwrap_err();
            assert_eq!((error.status(), error.retry_after()), (status[..3].parse().ok(), Some(Duration::from_secs(7))));
        }
    }
}

#[test]
fn wecom_asks_by_get_with_everything_encoded() {
    let host = answering(GRANTED);
    let _ = WeCom::new(SECRET, SECRET).base_url(host.url() + "/").fetch(&context()).unwrap();
    let (first, headers, body) = host.request();
    let encoded = "a%20b%2B%26%25%3A%C3%BC";
    assert_eq!(first, format!("GET /cgi-bin/gettoken?corpid={encoded}&corpsecret={encoded} HTTP/1.1"));
    let agent = format!("user-agent: evertoken/{}", env!("CARGO_PKG_VERSION"));
    let address = format!("host: {}", &host.url()["http://".len()..]);
    assert_eq!(headers, ["accept-encoding: identity", "accept: application/json", address.as_str(), agent.as_str()]);
    assert_eq!(body, "");
}

#[test]
fn wecoms_codes_are_understood_as_numbers_and_as_texts() {
    for (code, kind, wait) in [
        ("-1", ErrorKind::Unavailable, None),
        ("40001", ErrorKind::InvalidCredentials, None),
        ("40013", ErrorKind::InvalidCredentials, None),
        ("40091", ErrorKind::InvalidCredentials, None),
        ("41002", ErrorKind::Config, None),
        ("41004", ErrorKind::Config, None),
        ("45009", ErrorKind::Throttled, Some(60)),
        ("45031", ErrorKind::InvalidCredentials, None),
        ("45033", ErrorKind::Throttled, Some(1)),
        ("50003", ErrorKind::InvalidCredentials, None),
        ("60020", ErrorKind::Forbidden, None),
        ("301042", ErrorKind::Forbidden, None),
        ("99999", ErrorKind::InvalidResponse, None),
    ] {
        for value in [code.to_owned(), format!("\"{code}\""), format!("{code}.0")] {
            // A token beside a code is no token.
            let body = format!(r#"{{"errcode":{value},"errmsg":"hunter2, from ip: 1.2.3.4","access_token":"t-1"}}"#);
            for status in ["200 OK", "400 Bad Request", "500 Oops"] {
                let error = wecom(&canned(reply(status, "", &body))).fetch(&context()).unwrap_err();
                let found = (error.kind(), error.code(), error.retry_after().map(|wait| wait.as_secs()));
                assert_eq!(found, (kind, Some(code), wait), "{body}");
                let shown = format!("{error} {error:?}");
                assert!(shown.starts_with("wecom: ") && !shown.contains("hunter2"), "{shown}");
                // A person who edits the list of trusted addresses needs this one; other errors do not show it.
                assert_eq!(shown.contains("1.2.3.4"), kind == ErrorKind::Forbidden, "{shown}");
            }
        }
    }
}

#[test]
fn wecom_grants_with_a_code_of_zero_and_without_one() {
    for code in ["", r#""errcode":0,"#, r#""errcode":"0","#, r#""errcode":null,"#] {
        let host = answering(&format!(r#"{{{code}"errmsg":"ok","access_token":"t-1","expires_in":7200}}"#));
        assert_eq!(wecom(&host).fetch(&context()).unwrap().token().expose(), "t-1", "{code}");
    }
}

#[test]
fn a_refused_token_of_wecom_differs_from_a_refused_request() {
    let provider = WeCom::new("c", "s");
    let verdict =
        |status, body: &str| provider.verdict(&ServiceResponse::new(status, &HeaderMap::new(), body.as_bytes()));
    for code in ["40001", "40014", "42001", "\"42001\""] {
        assert_eq!(verdict(200, &format!(r#"{{"errcode":{code}}}"#)), Verdict::Rejected, "{code}");
    }
    for code in ["0", "\"0\"", "41001", "48002", "60020", "-1", "null", "\"x\""] {
        assert_eq!(verdict(200, &format!(r#"{{"errcode":{code}}}"#)), Verdict::Accepted, "{code}");
    }
    let wait = |seconds| Verdict::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
    assert_eq!(verdict(200, r#"{"errcode":45009}"#), wait(60));
    assert_eq!(verdict(200, r#"{"errcode":45033}"#), wait(1));
    assert_eq!(verdict(200, "the text 42001 in a page"), Verdict::Accepted);
    assert_eq!(verdict(401, "<html>"), Verdict::Rejected);
    assert_eq!(provider.placement(), TokenPlacement::query("access_token"));
}

#[test]
fn a_refused_token_is_noticed_whatever_letters_are_in_the_text_for_people() {
    let provider = WeCom::new("c", "s");
    for text in [&b"a\x01b\nc\td"[..], b"\x00\x1f\x7f", b"\xb2\xbb\xba\xcf\xb7\xa8"] {
        let body = [br#"{"errcode":40014,"errmsg":""#, text, br#""}"#].concat();
        let verdict = provider.verdict(&ServiceResponse::new(200, &HeaderMap::new(), &body));
        assert_eq!(verdict, Verdict::Rejected, "{text:?}");
    }
}

#[test]
fn each_of_several_challenges_is_read() {
    let provider = OAuth2::new("https://host.example/token", "id", "hunter2");
    for (status, challenge, expected) in [
        (401, r#"Bearer error="invalid_token""#, Verdict::Rejected),
        (401, r#"Bearer error="insufficient_scope""#, Verdict::Accepted),
        (400, r#"Bearer error="invalid_token""#, Verdict::Rejected),
        (403, r#"Bearer error="invalid_token""#, Verdict::Rejected),
        (403, r#"Bearer error="insufficient_scope""#, Verdict::Accepted),
    ] {
        for challenges in [&[challenge][..], &["Negotiate", challenge], &[challenge, "Negotiate"]] {
            let mut headers = HeaderMap::new();
            for challenge in challenges {
                headers.append("www-authenticate", challenge.parse().unwrap());
            }
            assert_eq!(
                provider.verdict(&ServiceResponse::new(status, &headers, b"")),
                expected,
                "{status} {challenges:?}"
            );
        }
    }
}

#[test]
fn oauth2_authenticates_the_client_as_configured() {
    let form = "a+b%2B%26%25%3A%C3%BC";
    for (auth, header, fields) in [
        // base64 of "a+b%2B%26%25%3A%C3%BC:a+b%2B%26%25%3A%C3%BC"
        (ClientAuth::Basic, Some("YStiJTJCJTI2JTI1JTNBJUMzJUJDOmErYiUyQiUyNiUyNSUzQSVDMyVCQw=="), String::new()),
        // base64 of "a b+&%:ü:a b+&%:ü"
        (ClientAuth::BasicRaw, Some("YSBiKyYlOsO8OmEgYismJTrDvA=="), String::new()),
        (ClientAuth::Post, None, format!("&client_id={form}&client_secret={form}")),
        (ClientAuth::None, None, format!("&client_id={form}")),
    ] {
        let host = answering(GRANTED);
        let _ = OAuth2::new(host.url() + "/token?p=q", SECRET, SECRET).auth(auth).fetch(&context()).unwrap();
        let (first, headers, body) = host.request();
        assert_eq!(first, "POST /token?p=q HTTP/1.1");
        assert_eq!(body, format!("grant_type=client_credentials{fields}"));
        let found = headers.iter().find_map(|line| line.strip_prefix("authorization: Basic "));
        assert_eq!(found, header, "{auth:?}");
        assert!(headers.contains(&"content-type: application/x-www-form-urlencoded".to_owned()));
        assert!(headers.contains(&"accept: application/json".to_owned()));
    }
}

#[test]
fn oauth2_sends_the_configured_parameters() {
    let host = answering(GRANTED);
    let provider = oauth2(&host).scope("a b").audience("https://x/").resource("r1").resource("r2").param("k&", "v=1");
    let _ = provider.fetch(&context()).unwrap();
    assert_eq!(
        host.request().2,
        "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fx%2F&resource=r1&resource=r2&k%26=v%3D1"
    );
}

#[test]
fn codes_of_oauth2_count_whatever_the_status() {
    for (code, kind) in [
        ("invalid_client", ErrorKind::InvalidCredentials),
        ("unauthorized_client", ErrorKind::InvalidCredentials),
        ("invalid_grant", ErrorKind::InvalidCredentials),
        ("invalid_scope", ErrorKind::Config),
        ("invalid_request", ErrorKind::Config),
        ("unsupported_grant_type", ErrorKind::Config),
        ("invalid_resource", ErrorKind::Config),
        ("invalid_target", ErrorKind::Config),
        ("access_denied", ErrorKind::Forbidden),
        ("temporarily_unavailable", ErrorKind::Unavailable),
        ("server_error", ErrorKind::Unavailable),
        ("internal_failure", ErrorKind::Unavailable),
        ("slow_down", ErrorKind::Throttled),
    ] {
        let body = format!(r#"{{"error":"{code}","error_description":"hunter2","access_token":"t-1"}}"#);
        for status in ["200 OK", "400 Bad Request", "401 Unauthorized", "503 Busy"] {
            let error = oauth2(&canned(reply(status, "", &body))).fetch(&context()).unwrap_err();
            assert_eq!((error.kind(), error.code()), (kind, Some(code)), "{status}");
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with("oauth2: ") && !shown.contains("hunter2"), "{shown}");
        }
        let error = oauth2(&canned(reply("429 Slow", "", &body))).fetch(&context()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Throttled, Some(code)));
    }
}

#[test]
fn unknown_codes_of_oauth2_leave_the_kind_to_the_status() {
    for (status, kind) in [
        ("200 OK", ErrorKind::InvalidResponse),
        ("400 Bad Request", ErrorKind::InvalidCredentials),
        ("401 Unauthorized", ErrorKind::InvalidCredentials),
        ("500 Oops", ErrorKind::Unavailable),
    ] {
        let error = oauth2(&canned(reply(status, "", r#"{"error":"E17","access_token":"t"}"#))).fetch(&context());
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.code()), (kind, Some("E17")), "{status}");
    }
}

#[test]
fn oauth2_waits_as_the_server_asks_or_five_seconds() {
    let wait = |headers, body| {
        let error = oauth2(&canned(reply("429 Slow", headers, body))).fetch(&context()).unwrap_err();
        error.retry_after().unwrap().as_secs()
    };
    assert_eq!([wait("retry-after: 90\r\n", ""), wait("", ""), wait("retry-after: soon\r\n", "{}")], [90, 5, 5]);
    assert_eq!(wait("", r#"{"error":"slow_down"}"#), 5);
}

#[test]
fn a_code_that_is_the_secret_is_not_shown() {
    for code in ["hunter2", "x-hunter2-y", "assertion-1"] {
        let host = canned(reply("400 Bad Request", "", &format!(r#"{{"error":"{code}","errcode":"{code}"}}"#)));
        let errors = [
            oauth2(&host).param("assertion", "assertion-1").fetch(&context()).unwrap_err(),
            wecom(&host).fetch(&context()).unwrap_err(),
        ];
        for error in &errors[..if code == "assertion-1" { 1 } else { 2 }] {
            assert_eq!(error.code(), None);
            assert!(!format!("{error} {error:?}").contains(code));
        }
    }
}

#[test]
fn a_code_that_is_the_secret_in_another_encoding_is_not_told() {
    // The value of the header `Authorization: Basic`, a part of it, and the secret alone.
    for code in
        ["aWQ6aHVudGVyMg", "OmhvcnNlLWh1bnRlcjI", "aHVudGVyMg", "68756e74657232", "HUNTER2", "Basic.aWQ6aHVudGVyMg"]
    {
        let body = format!(r#"{{"error":"{code}","errcode":"{code}","request_id":"{code}"}}"#);
        let host = canned(reply("400 Bad Request", "", &body));
        for error in [oauth2(&host).fetch(&context()).unwrap_err(), wecom(&host).fetch(&context()).unwrap_err()] {
            assert_eq!((error.code(), error.request_id()), (None, None), "{code}");
            assert!(!format!("{error} {error:?}").contains(code));
        }
    }
    let host = canned(reply("400 Bad Request", "", r#"{"error":"YmFuYW5hNw","request_id":"r-1"}"#));
    let error = oauth2(&host).fetch(&context()).unwrap_err();
    assert_eq!((error.code(), error.request_id()), (Some("YmFuYW5hNw"), Some("r-1")));
}

#[test]
fn no_provider_shows_a_secret() {
    let url = "https://host.example/token?key=hunter2";
    let oauth2 = OAuth2::new(url, "the-id", "hunter2").param("assertion", "hunter2");
    let wecom = WeCom::new("the-id", "hunter2");
    let own = from_fn("own", |_| Ok(Grant::new("hunter2", Duration::from_secs(1))))
        .identity_part("id", "the-id")
        .secret(&Secret::from("hunter2"));
    let identities = [oauth2.identity(), wecom.identity(), own.identity()];
    let grant = own.fetch(&context()).unwrap();
    for shown in [
        format!("{oauth2:?}"),
        format!("{oauth2:#?}"),
        format!("{wecom:?}"),
        format!("{own:?}"),
        format!("{identities:?}"),
    ] {
        assert!(!shown.contains("hunter2") && shown.contains("the-id"), "{shown}");
    }
    assert!(!format!("{grant:?} {:?}", context()).contains("hunter2"));
}

#[test]
fn a_wrong_setting_is_named_and_not_quoted() {
    let https = "https://host.example";
    for (provider, setting) in [
        (&WeCom::new(" ", "hunter2") as &dyn Provider, "corp id"),
        (&WeCom::new("c", ""), "app secret"),
        (&WeCom::new("c", " \n"), "app secret"),
        (&WeCom::new("c", "hunter2\n"), "line breaks"),
        (&WeCom::new("c", "s").base_url("http://host.example"), "write https://host.example"),
        (&WeCom::new("c", "s").base_url("https://hunter2.example?a=b"), "query"),
        (&OAuth2::new(https, "", "hunter2"), "client id"),
        (&OAuth2::new(https, "c", " "), "client secret"),
        (
            &OAuth2::new("http://host.example/token?k=hunter2", "c", "s"),
            "token_url \"http://host.example/token\" would send a ",
        ),
        (&OAuth2::new("host.example/token?k=hunter2", "c", "s"), "has no scheme; write https://host.example/token"),
        (&OAuth2::new("hunter2", "c", "s"), "token_url has no scheme; write https://"),
        (&OAuth2::new(https, "c", "s").default_lifetime(Duration::ZERO), "default lifetime"),
    ] {
        let error = provider.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains(setting) && !text.contains("hunter2"), "{text}");
        assert!(text.starts_with(provider.name()), "{text}");
    }
    assert!(WeCom::new("c", "s").check().is_ok());
    assert!(OAuth2::new("https://h/token?p=q", "c", "").auth(ClientAuth::None).check().is_ok());
}

#[test]
fn an_identity_covers_all_that_a_token_depends_on() {
    let base = || OAuth2::new("https://h/token", "c", "s");
    let same = [
        (base().auth(ClientAuth::Post), base()),
        (base().param("a", "1").param("b", "2"), base().param("b", "2").param("a", "1")),
        (base().resource("x").resource("y"), base().resource("y").resource("x")),
    ];
    for (one, other) in same {
        assert_eq!(one.identity(), other.identity());
    }
    let different = [
        base(),
        OAuth2::new("https://i/token", "c", "s"),
        OAuth2::new("https://h/token?p=q", "c", "s"),
        OAuth2::new("https://h/token", "d", "s"),
        OAuth2::new("https://h/token", "c", "t"),
        base().scope("a"),
        base().audience("a"),
        base().resource("a"),
        base().param("a", "1"),
        base().param("a", "2"),
        base().param("b", "1"),
    ];
    let identities: Vec<_> = different.iter().map(Provider::identity).collect();
    for (index, one) in identities.iter().enumerate() {
        assert!(identities[index + 1..].iter().all(|other| one != other), "{:?}", different[index]);
    }
    assert_ne!(WeCom::new("a", "s").identity(), WeCom::new("b", "s").identity());
    assert_ne!(WeCom::new("a", "s").identity(), WeCom::new("a", "t").identity());
    assert_ne!(WeCom::new("a", "s").identity(), WeCom::new("a", "s").base_url("https://h").identity());
    assert_eq!(
        WeCom::new("a", "s").base_url("https://h/").identity(),
        WeCom::new("a", "s").base_url("https://h").identity()
    );
}

#[test]
fn a_closure_is_a_provider() {
    let host = answering(r#"{"token":"t-9"}"#);
    let url = host.url();
    let mut profile = Profile::default();
    profile.default_lifetime = Duration::from_secs(9);
    let provider = from_fn("own", move |context| {
        let reply = context.http().post_json(&url, &["a"]).query("q", "1 2").bearer(&Secret::from("b-1")).send()?;
        Ok(Grant::new(reply.json()?.take_secret("token").unwrap(), None))
    })
    .profile(profile)
    .placement(TokenPlacement::header("x-token"));
    assert_eq!(provider.fetch(&context()).unwrap().token().expose(), "t-9");
    assert_eq!((provider.name(), Provider::placement(&provider)), ("own", TokenPlacement::header("x-token")));
    assert_eq!(Provider::profile(&provider).default_lifetime, Duration::from_secs(9));
    let (first, headers, body) = host.request();
    assert_eq!((first.as_str(), body.as_str()), ("POST /?q=1%202 HTTP/1.1", r#"["a"]"#));
    assert!(headers.contains(&"authorization: Bearer b-1".to_owned()));
    assert!(headers.contains(&"content-type: application/json".to_owned()));
}

#[test]
fn closures_differ_by_the_parts_added_to_their_identity() {
    let own = || from_fn("own", |_| Ok(Grant::new("t", None)));
    assert_eq!(own().identity(), own().identity());
    assert_ne!(own().identity(), own().identity_part("a", "1").identity());
    assert_ne!(own().identity(), own().secret(&Secret::from("s")).identity());
}

#[test]
fn a_request_that_http_does_not_allow_is_a_wrong_setting() {
    let host = answering(GRANTED);
    let url = host.url();
    let provider = from_fn("own", move |context| {
        context.http().get(&url).header("x-key", "hunter2\r\nx-evil: 1").send()?;
        Ok(Grant::new("t", None))
    });
    let error = provider.fetch(&context()).unwrap_err();
    assert_eq!((error.kind(), host.calls()), (ErrorKind::Config, 0));
    assert!(!format!("{error:?}").contains("hunter2"));
}
