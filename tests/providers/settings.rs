//! What a program, a file or a variable may set, and what the checks refuse before anything is sent.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use evertoken::provider::dingtalk::{DingTalkAuthorizedCorp, DingTalkClassic, DingTalkSuite, DingTalkUnified};
use evertoken::provider::feishu::{FeishuAppToken, FeishuOAuth, FeishuStoreApp};
use evertoken::provider::microsoft::{BotFramework, Certificate, Cloud};
use evertoken::provider::oauth2::{ClientAuth, JwtBearer, SigningKey};
use evertoken::provider::wechat::{WeChatClassic, WeChatComponent};
use evertoken::provider::wecom::{WeComServiceProvider, WeComSuite};
use evertoken::provider::{Grant, Provider, ServiceResponse, from_fn};
use evertoken::ureq::http::HeaderMap;
use evertoken::{
    DeviceSignIn, DingTalk, Entra, ErrorKind, Feishu, GoogleServiceAccount, HttpConfig, OAuth2, RefreshToken, Secret,
    TokenManager, Verdict, WeChat, WeCom,
};

use crate::assertions::{Assertion, RSA, certificate, certificate_pem, rsa};
use crate::common::http_host::answering;
use crate::common::logs::{logged, record_logs};
use crate::kinds::context;

const URL: &str = "https://host.example/token";

const GRANTED: &str = r#"{"access_token":"t-1","expires_in":3600}"#;

/// Every provider with a secret of one line, built with this secret.
fn with_secret(secret: &str) -> Vec<Box<dyn Provider>> {
    let client = || OAuth2::new(URL, "id", secret);
    vec![
        Box::new(WeCom::new("id", secret)),
        Box::new(WeComServiceProvider::new("id", secret)),
        Box::new(WeComSuite::new("id", secret)),
        Box::new(WeChat::new("id", secret)),
        Box::new(WeChatClassic::new("id", secret)),
        Box::new(WeChatComponent::new("id", secret)),
        Box::new(Feishu::new("id", secret)),
        Box::new(FeishuAppToken::new("id", secret)),
        Box::new(FeishuOAuth::new("id", secret)),
        Box::new(FeishuStoreApp::new("id", secret)),
        Box::new(DingTalk::new("id", secret)),
        Box::new(DingTalkClassic::new("id", secret)),
        Box::new(DingTalkUnified::new("corp", "id", secret)),
        Box::new(DingTalkSuite::new("id", secret)),
        Box::new(DingTalkAuthorizedCorp::new("id", secret, "corp")),
        Box::new(Entra::new("contoso.example", "id", secret)),
        Box::new(BotFramework::new("id", secret)),
        Box::new(client()),
        Box::new(client().auth(ClientAuth::BasicRaw)),
        Box::new(client().auth(ClientAuth::Post)),
        Box::new(client().auth(ClientAuth::ClientSecretJwt)),
        Box::new(RefreshToken::new(OAuth2::public(URL, "id"), secret)),
        Box::new(RefreshToken::new(client(), "refresh-token")),
        Box::new(OAuth2::public(URL, "id").param("api_key", secret)),
        Box::new(JwtBearer::new(URL, rsa()).issuer("i").param("api_key", secret)),
    ]
}

#[test]
fn every_provider_refuses_blanks_around_a_secret_and_control_characters_in_it() {
    for provider in with_secret("hun ter2") {
        provider.check().unwrap();
    }
    for secret in [
        " hunter2",
        "hunter2 ",
        "hunter2\n",
        "hunter2\r\n",
        "\u{feff}hunter2",
        "hunter2\u{200b}",
        "\u{a0}hunter2",
        "hun\nter2",
        "hun\tter2",
        "hun\0ter2",
        "hun\u{7f}ter2",
    ] {
        for provider in with_secret(secret) {
            let error = provider.check().expect_err(provider.name());
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(text.contains("blanks or line breaks") || text.contains("control character"), "{text}");
            assert!(!text.contains("hun"), "{text}");
        }
    }
}

#[test]
fn the_ids_and_scopes_of_every_oauth2_client_have_no_line_breaks() {
    for (provider, setting) in [
        (Box::new(OAuth2::new(URL, "id\n", "s")) as Box<dyn Provider>, "client id"),
        (Box::new(OAuth2::new(URL, "i\nd", "s")), "client id"),
        (Box::new(OAuth2::new(URL, "id", "s").scope("a\n")), "scope"),
        (Box::new(OAuth2::new(URL, "id", "s").audience(" a")), "audience"),
        (Box::new(OAuth2::new(URL, "id", "s").resource("a\r\n")), "resource"),
        (Box::new(JwtBearer::new(URL, rsa()).issuer("i").subject("s\n")), "subject"),
        (Box::new(JwtBearer::new(URL, rsa()).issuer("i").scope("s\n")), "scope"),
        (Box::new(Entra::new("contoso.example", "id\n", "s")), "client id"),
    ] {
        let error = provider.check().expect_err(setting).to_string();
        assert!(error.contains(setting), "{error}");
    }
}

#[test]
fn a_parameter_may_be_a_document_of_several_lines() {
    for document in ["{\n  \"id_token\": null\n}\n", "[\n1\n]", RSA] {
        OAuth2::new(URL, "id", "s").param("claims", document).check().unwrap();
    }
}

/// Writes a file for a test, in a folder that the build owns.
fn file(name: &str, text: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("provider_settings");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_of_documents_may_begin_with_a_byte_order_mark_and_end_with_line_breaks() {
    let pem = file("bom.pem", &format!("\u{feff}{RSA}\n\n"));
    let certificate = file("bom.crt", &format!("\u{feff}{}", certificate_pem(RSA)));
    let json = serde_json::json!({"type": "service_account", "client_email": "a@b", "private_key": RSA}).to_string();
    SigningKey::from_pem_file(pem).unwrap();
    Certificate::from_pem_file(certificate).unwrap();
    GoogleServiceAccount::from_file(file("bom.json", &format!("\u{feff}{json}\r\n"))).unwrap();
    GoogleServiceAccount::from_json(format!("\u{feff}{json}\n")).unwrap();
}

#[test]
fn a_federated_assertion_loses_the_byte_order_mark_and_the_line_break_of_its_file() {
    let host = answering(GRANTED);
    let federated = |text: &'static str| {
        Entra::federated("contoso.example", "app", move || Ok(Secret::from(text))).authority(host.url())
    };
    let grant = federated("\u{feff}the.asser.tion\r\n").fetch(&context()).unwrap();
    assert_eq!(grant.token().expose(), "t-1");
    let (_, _, body) = host.request();
    assert!(body.ends_with("&client_assertion=the.asser.tion"), "{body}");
    let error = federated("the.asser.tion\n\n").fetch(&context()).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Config, "entra: the federated assertion has blanks or line breaks around it; remove them")
    );
    assert_eq!(host.calls(), 1);
}

#[test]
fn a_wrong_secret_is_the_error_of_the_manager_before_any_request() {
    let error = TokenManager::builder(OAuth2::new(URL, "id", "hunter2\n")).build().unwrap_err();
    assert_eq!(error.to_string(), "oauth2: the client secret has blanks or line breaks around it; remove them");
}

#[test]
fn a_parameter_that_the_provider_sets_itself_is_refused_with_the_name_of_its_setting() {
    let client = || OAuth2::new(URL, "id", "s");
    let bearer = || JwtBearer::new(URL, rsa()).issuer("i");
    for (provider, text) in [
        (Box::new(client().param("grant_type", "x")) as Box<dyn Provider>, "grant_type itself; use `grant_type(..)`"),
        (Box::new(client().param("scope", "x")), "scope itself; use `scope(..)`"),
        (Box::new(client().param("audience", "x")), "audience itself; use `audience(..)`"),
        (Box::new(client().param("resource", "x")), "resource itself; use `resource(..)`"),
        (Box::new(client().param("client_secret", "x")), "client_secret itself; pass it to `OAuth2::new(..)`"),
        (Box::new(client().param("client_assertion", "x")), "client_assertion itself; use `private_key_jwt(..)`"),
        (Box::new(client().param("client_assertion_type", "x")), "client_assertion_type itself; "),
        (Box::new(client().auth(ClientAuth::Post).param("client_id", "x")), "client_id itself; pass it to "),
        (Box::new(RefreshToken::new(client().param("refresh_token", "x"), "r")), "refresh_token itself; pass it to "),
        (Box::new(RefreshToken::new(client().param("grant_type", "x"), "r")), "grant_type itself; "),
        (Box::new(RefreshToken::new(client().grant_type("x"), "r")), "remove `grant_type`"),
        (Box::new(bearer().param("grant_type", "x")), "grant_type itself; remove it"),
        (Box::new(bearer().param("assertion", "x")), "assertion itself; remove it"),
        (Box::new(bearer().param("scope", "x")), "scope itself; use `scope(..)`"),
        (Box::new(client().param("", "x")), "a parameter has no name"),
        (Box::new(client().grant_type("")), "the grant type is empty"),
    ] {
        let error = provider.check().expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(text), "{error}");
    }
    for (client, text) in
        [(client().param("device_code", "x"), "device_code itself"), (client().grant_type("x"), "remove `grant_type`")]
    {
        let error = DeviceSignIn::new("https://host.example/device", client).begin().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    // A client that authenticates in a header does not send its id as a parameter, and some servers want both.
    client().param("client_id", "id").param("account_id", "x").check().unwrap();
    bearer().param("client_id", "id").check().unwrap();
}

#[test]
fn a_client_may_have_a_grant_type_of_its_server() {
    let host = answering(GRANTED);
    let provider = OAuth2::new(host.url(), "id", "s").grant_type("account_credentials").param("account_id", "a");
    provider.check().unwrap();
    provider.fetch(&context()).map(drop).unwrap();
    assert_eq!(host.request().2, "grant_type=account_credentials&account_id=a");
    assert_ne!(provider.identity(), OAuth2::new(host.url(), "id", "s").param("account_id", "a").identity());
}

#[test]
fn entra_signs_for_the_clouds_own_url_whatever_gateway_passes_the_request_on() {
    for (cloud, own) in [
        (Cloud::Public, "https://login.microsoftonline.com"),
        (Cloud::UsGovernment, "https://login.microsoftonline.us"),
        (Cloud::China, "https://login.partner.microsoftonline.cn"),
    ] {
        let host = answering(GRANTED);
        let provider = Entra::certificate("contoso.example", "app", certificate(), rsa()).cloud(cloud);
        provider.authority(host.url()).fetch(&context()).map(drop).unwrap();
        let (_, _, body) = host.request();
        let (assertion, _) = Assertion::in_form(&body, "client_assertion");
        assert_eq!(assertion.claims["aud"], format!("{own}/contoso.example/oauth2/v2.0/token"));
    }
}

#[test]
fn a_scope_that_the_server_left_out_is_one_warning_and_the_token_is_used() {
    record_logs();
    let host = answering(r#"{"access_token":"t-1","expires_in":60,"scope":"orders.read hunter2"}"#);
    let client = OAuth2::new(host.url(), "id", "s").scope("orders.read orders.write openid");
    let bearer = JwtBearer::new(host.url(), rsa()).issuer("i").scope("orders.read ledger.write");
    for _ in 0..3 {
        assert_eq!(client.clone().fetch(&context()).unwrap().token().expose(), "t-1");
        assert_eq!(bearer.clone().fetch(&context()).unwrap().token().expose(), "t-1");
    }
    let logged = logged();
    for scope in ["orders.write", "ledger.write"] {
        assert_eq!(logged.matches(&format!("without the scope {scope:?}")).count(), 1, "{logged}");
    }
    assert!(!logged.contains("hunter2"), "{logged}");
}

#[test]
fn a_closure_can_say_which_responses_refuse_the_token() {
    let closure = || from_fn("own", |_| Ok(Grant::new("t-1", Duration::from_secs(60))));
    let judged = closure().verdict(|response| match response.body() {
        b"40101" => Verdict::Rejected,
        _ => response.http_verdict(),
    });
    let headers = HeaderMap::new();
    let of = |provider: &dyn Provider, status, body| provider.verdict(&ServiceResponse::new(status, &headers, body));
    assert_eq!(of(&judged, 200, b"40101"), Verdict::Rejected);
    assert_eq!(of(&closure(), 200, b"40101"), Verdict::Accepted);
    for provider in [judged, closure()] {
        assert_eq!(of(&provider, 200, b"1"), Verdict::Accepted);
        assert_eq!(of(&provider, 401, b"1"), Verdict::Rejected);
    }
}

/// On Unix this address reaches the machine itself, and is none of its loopback addresses.
#[cfg(unix)]
const NOT_LOOPBACK: &str = "0.0.0.0";

#[cfg(unix)]
#[test]
fn plain_http_to_a_host_that_the_program_names_is_sent_and_to_any_other_refused_early() {
    let host = answering(GRANTED);
    let url = format!("http://{NOT_LOOPBACK}:{}", host.port());
    let provider = || OAuth2::new(&url, "id", "s");
    for http in [HttpConfig::default(), HttpConfig::default().plain_http_to("keycloak")] {
        let error = TokenManager::builder(provider()).http(http).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("would send a credential in plain HTTP"), "{error}");
        assert!(error.to_string().contains("plain_http_to"), "{error}");
    }
    // No proxy sees what is sent in plain HTTP.
    let http = HttpConfig::default().proxy("http://proxy.invalid:3128").plain_http_to(NOT_LOOPBACK);
    let tokens = TokenManager::builder(provider()).http(http.clone()).build().unwrap();
    assert_eq!(tokens.token().unwrap().expose(), "t-1");
    assert_eq!(host.calls(), 1);
    let wecom = WeCom::new("c", "s").base_url(&url);
    assert!(TokenManager::builder(wecom).http(http.clone()).build().is_ok());
    // A sign-in has its own HTTP configuration.
    let sign_in = DeviceSignIn::new(format!("{url}/device"), provider());
    assert!(sign_in.begin().unwrap_err().to_string().contains("plain HTTP"));
    sign_in.http(http).begin().unwrap_err();
    assert_eq!(host.calls(), 2);
    // The setting of one manager is none of another's.
    assert!(TokenManager::builder(provider()).build().is_err());
}

#[test]
fn a_host_of_plain_http_is_a_name_or_an_address() {
    for wrong in ["http://keycloak", "keycloak:8080", "keycloak/token", ""] {
        let http = HttpConfig::default().plain_http_to(wrong);
        let error = TokenManager::builder(WeCom::new("c", "s")).http(http).build().unwrap_err();
        assert!(error.to_string().contains("plain_http_to"), "{error}");
    }
}
