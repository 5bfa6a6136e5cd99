//! Providers from a configuration file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evertoken::provider::dingtalk::{DingTalkAuthorizedCorp, DingTalkClassic, DingTalkSuite, DingTalkUnified};
use evertoken::provider::feishu::{FeishuAppToken, FeishuOAuth, FeishuStoreApp, FeishuTenant};
use evertoken::provider::microsoft::{BotFramework, Certificate, Cloud, ManagedIdentity};
use evertoken::provider::oauth2::{JwtBearer, SigningKey};
use evertoken::provider::wechat::{WeChatAuthorizer, WeChatClassic, WeChatComponent, WeChatJsTicket};
use evertoken::provider::wecom::{WeComAuthorizedCorp, WeComJsTicket, WeComServiceProvider, WeComSuite};
use evertoken::provider::{Provider, ProviderConfig, TokenSource};
use evertoken::{
    DingTalk, Entra, Error, ErrorKind, Feishu, GoogleServiceAccount, MemoryStore, OAuth2, RefreshToken, Secret,
    TokenManager, TokenPool, WeChat, WeCom,
};

use crate::common::http_host::{Canned, answering};
use crate::common::stores::FaultyStore;

const RSA: &str = include_str!("keys/rsa_2048.pem");

/// A folder with a file for each secret, in the build folder, because a static value is never dropped.
pub(crate) static FILES: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("configuration");
    fs::create_dir_all(&folder).unwrap();
    let key = rcgen::KeyPair::from_pem(RSA).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["app.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    for (name, text) in [
        ("secret", "hunter2\n"),
        ("windows", "hunter2\r\n"),
        ("bare", "hunter2"),
        ("bom", "\u{feff}hunter2\r\n"),
        ("tab", "hun\tter2\n"),
        ("two_lines", "hunter2\n\n"),
        ("empty", "\n"),
        ("ticket", "hunter2-ticket\n"),
        ("key", RSA),
        ("certificate", &certificate.pem()),
        ("credentials", &credentials()),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    fs::write(folder.join("latin1"), b"hunter2\xe9").unwrap();
    fs::write(folder.join("full"), "x".repeat(64 * 1024)).unwrap();
    fs::write(folder.join("large"), "x".repeat(64 * 1024 + 1)).unwrap();
    folder
});

fn credentials() -> String {
    serde_json::json!({"type": "service_account", "client_email": "a@b.example", "private_key": RSA}).to_string()
}

pub(crate) fn file(name: &str) -> PathBuf {
    FILES.join(name)
}

/// Replaces `SECRET` and the like with the path of the file.
pub(crate) fn filled(json: &str) -> String {
    ["secret", "ticket", "key", "certificate", "credentials"].into_iter().fold(json.to_owned(), |json, name| {
        let place = serde_json::json!({"file": file(name)}).to_string();
        json.replace(&format!(" {}", name.to_uppercase()), &format!(" {place}"))
    })
}

fn read(json: &str) -> Result<ProviderConfig, serde_json::Error> {
    serde_json::from_str(&filled(json))
}

fn built(json: &str) -> Result<TokenManager, Error> {
    let config = read(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    TokenManager::from_config(&config, |builder| builder)
}

fn fault(json: &str) -> String {
    let error = built(json).expect_err(json);
    assert_eq!(error.kind(), ErrorKind::Config, "{json}: {error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{json}: {error:?}");
    error.to_string()
}

fn key() -> SigningKey {
    SigningKey::from_pem(RSA).unwrap()
}

fn certificate() -> Certificate {
    Certificate::from_pem_file(file("certificate")).unwrap()
}

/// A manager to derive from.
fn of(provider: impl Provider) -> TokenManager {
    TokenManager::new(provider)
}

/// A configuration of every kind, and the same provider built in code.
pub(crate) fn every_kind() -> Vec<(&'static str, Box<dyn Provider>)> {
    const URL: &str = "https://host.example/";
    let suite = || of(WeComSuite::new("s", "hunter2"));
    let component = || of(WeChatComponent::new("wxc", "hunter2"));
    let client = || OAuth2::new("https://h.example/t", "c", "hunter2");
    vec![
        (r#"{"provider": "wecom", "corp_id": "c", "secret": SECRET}"#, Box::new(WeCom::new("c", "hunter2"))),
        (
            r#"{"provider": "wecom", "corp_id": "c", "secret": SECRET, "base_url": "https://host.example/"}"#,
            Box::new(WeCom::new("c", "hunter2").base_url(URL)),
        ),
        (
            r#"{"provider": "wecom-service-provider", "corp_id": "c", "secret": SECRET, "base_url": null}"#,
            Box::new(WeComServiceProvider::new("c", "hunter2")),
        ),
        (
            r#"{"provider": "wecom-suite", "suite_id": "s", "secret": SECRET, "ticket": TICKET}"#,
            Box::new(WeComSuite::new("s", "hunter2")),
        ),
        (
            r#"{"provider": "wecom-authorized-corp", "corp_id": "c", "permanent_code": SECRET,
                "parent": {"provider": "wecom-suite", "suite_id": "s", "secret": SECRET}}"#,
            Box::new(WeComAuthorizedCorp::new(suite(), "c", "hunter2")),
        ),
        (
            r#"{"provider": "wecom-js-ticket", "kind": "corp",
                "parent": {"provider": "wecom", "corp_id": "c", "secret": SECRET}}"#,
            Box::new(WeComJsTicket::corp(of(WeCom::new("c", "hunter2")))),
        ),
        (
            r#"{"provider": "wecom-js-ticket", "kind": "agent", "base_url": "https://host.example/",
                "parent": {"provider": "wecom-authorized-corp", "corp_id": "c", "permanent_code": SECRET,
                    "parent": {"provider": "wecom-suite", "suite_id": "s", "secret": SECRET}}}"#,
            Box::new(WeComJsTicket::agent(of(WeComAuthorizedCorp::new(suite(), "c", "hunter2"))).base_url(URL)),
        ),
        (r#"{"provider": "wechat", "app_id": "wx", "secret": SECRET}"#, Box::new(WeChat::new("wx", "hunter2"))),
        (
            r#"{"provider": "wechat-classic", "app_id": "wx", "secret": SECRET, "base_url": "https://host.example"}"#,
            Box::new(WeChatClassic::new("wx", "hunter2").base_url(URL)),
        ),
        (
            r#"{"provider": "wechat-component", "app_id": "wx", "secret": SECRET, "ticket": TICKET}"#,
            Box::new(WeChatComponent::new("wx", "hunter2")),
        ),
        (
            r#"{"provider": "wechat-authorizer", "app_id": "wxa", "refresh_token": SECRET,
                "parent": {"provider": "wechat-component", "app_id": "wxc", "secret": SECRET, "ticket": TICKET}}"#,
            Box::new(WeChatAuthorizer::new(component(), "wxc", "wxa", "hunter2")),
        ),
        (
            r#"{"provider": "wechat-js-ticket", "parent": {"provider": "wechat", "app_id": "wx", "secret": SECRET}}"#,
            Box::new(WeChatJsTicket::new(of(WeChat::new("wx", "hunter2")))),
        ),
        (
            r#"{"provider": "wechat-js-ticket", "kind": "card",
                "parent": {"provider": "wechat-classic", "app_id": "wx", "secret": SECRET}}"#,
            Box::new(WeChatJsTicket::card(of(WeChatClassic::new("wx", "hunter2")))),
        ),
        (r#"{"provider": "feishu", "app_id": "a", "secret": SECRET}"#, Box::new(Feishu::new("a", "hunter2"))),
        (
            r#"{"provider": "feishu", "app_id": "a", "secret": SECRET, "region": "lark"}"#,
            Box::new(Feishu::new("a", "hunter2").lark()),
        ),
        (
            r#"{"provider": "feishu-app-token", "app_id": "a", "secret": SECRET, "region": "feishu"}"#,
            Box::new(FeishuAppToken::new("a", "hunter2")),
        ),
        (
            r#"{"provider": "feishu-oauth", "app_id": "a", "secret": SECRET, "region": "lark"}"#,
            Box::new(FeishuOAuth::new("a", "hunter2").lark()),
        ),
        (
            r#"{"provider": "feishu-store-app", "app_id": "a", "secret": SECRET, "region": "lark", "ticket": TICKET}"#,
            Box::new(FeishuStoreApp::new("a", "hunter2").lark()),
        ),
        (
            r#"{"provider": "feishu-tenant", "tenant_key": "t",
                "parent": {"provider": "feishu-store-app", "app_id": "a", "secret": SECRET, "region": "lark"}}"#,
            Box::new(FeishuTenant::new(of(FeishuStoreApp::new("a", "hunter2").lark()), "t").lark()),
        ),
        (r#"{"provider": "dingtalk", "app_key": "k", "secret": SECRET}"#, Box::new(DingTalk::new("k", "hunter2"))),
        (
            r#"{"provider": "dingtalk-classic", "app_key": "k", "secret": SECRET}"#,
            Box::new(DingTalkClassic::new("k", "hunter2")),
        ),
        (
            r#"{"provider": "dingtalk-unified", "corp_id": "c", "client_id": "i", "secret": SECRET}"#,
            Box::new(DingTalkUnified::new("c", "i", "hunter2")),
        ),
        (
            r#"{"provider": "dingtalk-suite", "suite_key": "k", "secret": SECRET, "ticket": TICKET}"#,
            Box::new(DingTalkSuite::new("k", "hunter2")),
        ),
        (
            r#"{"provider": "dingtalk-authorized-corp", "suite_key": "k", "secret": SECRET, "corp_id": "c",
                "ticket": TICKET, "base_url": "https://host.example"}"#,
            Box::new(DingTalkAuthorizedCorp::new("k", "hunter2", "c").base_url(URL)),
        ),
        (
            r#"{"provider": "entra", "tenant": "t.example", "client_id": "c", "secret": SECRET}"#,
            Box::new(Entra::new("t.example", "c", "hunter2")),
        ),
        (
            r#"{"provider": "entra", "tenant": "t.example", "client_id": "c", "secret": SECRET,
                "cloud": "us-government", "authority": "https://host.example", "scope": "api://o/.default"}"#,
            Box::new(
                Entra::new("t.example", "c", "hunter2")
                    .cloud(Cloud::UsGovernment)
                    .authority(URL)
                    .scope("api://o/.default"),
            ),
        ),
        (
            r#"{"provider": "entra-certificate", "tenant": "t.example", "client_id": "c", "cloud": "china",
                "certificate": CERTIFICATE, "key": KEY}"#,
            Box::new(Entra::certificate("t.example", "c", certificate(), key()).cloud(Cloud::China)),
        ),
        (
            r#"{"provider": "entra-federated", "tenant": "t.example", "client_id": "c", "assertion": SECRET}"#,
            Box::new(Entra::federated("t.example", "c", || Ok(Secret::from("")))),
        ),
        (
            r#"{"provider": "bot-framework", "app_id": "a", "secret": SECRET}"#,
            Box::new(BotFramework::new("a", "hunter2")),
        ),
        (
            r#"{"provider": "bot-framework", "app_id": "a", "secret": SECRET, "tenant": "t.example",
                "cloud": "us-government", "authority": "https://host.example"}"#,
            Box::new(BotFramework::new("a", "hunter2").tenant("t.example").us_government().authority(URL)),
        ),
        (
            r#"{"provider": "managed-identity", "resource": "https://r.example", "client_id": "c",
                "base_url": "https://host.example"}"#,
            Box::new(ManagedIdentity::new("https://r.example").client_id("c").base_url(URL)),
        ),
        (
            r#"{"provider": "oauth2", "token_url": "https://h.example/t", "client_id": "c", "secret": SECRET,
                "grant_type": "account_credentials"}"#,
            Box::new(client().grant_type("account_credentials")),
        ),
        (
            r#"{"provider": "oauth2", "token_url": "https://h.example/t", "client_id": "c", "secret": SECRET}"#,
            Box::new(client()),
        ),
        (
            r#"{"provider": "oauth2", "token_url": "https://h.example/t?x=1", "client_id": "c", "key": KEY,
                "key_id": "k", "algorithm": "ps256", "auth": "private-key-jwt", "scope": "s", "audience": "a",
                "resource": ["r1", "r2"], "params": {"p": SECRET}}"#,
            Box::new(
                OAuth2::private_key_jwt("https://h.example/t?x=1", "c", key())
                    .scope("s")
                    .audience("a")
                    .resource("r1")
                    .resource("r2")
                    .param("p", "hunter2"),
            ),
        ),
        (
            r#"{"provider": "oauth2", "token_url": "https://h.example/t", "client_id": "c", "auth": "none",
                "resource": "r1 r2"}"#,
            Box::new(OAuth2::public("https://h.example/t", "c").resource("r1").resource("r2")),
        ),
        (
            r#"{"provider": "refresh-token", "token_url": "https://h.example/t", "client_id": "c", "secret": SECRET,
                "scope": "s", "refresh_token": SECRET}"#,
            Box::new(RefreshToken::new(client().scope("s"), "hunter2")),
        ),
        (
            r#"{"provider": "jwt-bearer", "token_url": "https://h.example/t", "key": KEY, "issuer": "i",
                "subject": "s", "audience": "a", "scope": "o", "claims": {"n": "v"}, "params": {"p": SECRET}}"#,
            Box::new(
                JwtBearer::new("https://h.example/t", key())
                    .issuer("i")
                    .subject("s")
                    .audience("a")
                    .scope("o")
                    .claim("n", "v")
                    .param("p", "hunter2"),
            ),
        ),
        (
            r#"{"provider": "google", "credentials": CREDENTIALS, "scope": "s", "subject": "p",
                "token_url": "https://h.example/t"}"#,
            Box::new(
                GoogleServiceAccount::from_json(credentials())
                    .unwrap()
                    .scope("s")
                    .subject("p")
                    .token_url("https://h.example/t"),
            ),
        ),
    ]
}

/// The known kinds, as the error for an unknown one lists them.
fn known() -> BTreeSet<String> {
    in_backticks(&read(r#"{"provider": "another"}"#).unwrap_err().to_string())
}

/// The words in backticks in an error.
fn in_backticks(refusal: &str) -> BTreeSet<String> {
    let list = refusal.split_once("expected").unwrap().1;
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn provider_of(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(&filled(json)).unwrap()["provider"].as_str().unwrap().to_owned()
}

#[test]
fn every_configured_kind_equals_the_provider_built_in_code() {
    for (json, by_hand) in every_kind() {
        let tokens = built(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(tokens.identity(), by_hand.identity(), "{json}");
        assert!(by_hand.check().is_ok(), "{json}");
    }
    let tried: BTreeSet<_> = every_kind().iter().map(|(json, _)| provider_of(json)).collect();
    assert_eq!(tried, known(), "each kind has its row");
    assert_eq!(tried.len(), 29);
}

#[test]
fn the_documentation_lists_every_kind_and_every_field() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provider/config/mod.rs")).unwrap();
    for kind in known() {
        let row = text.lines().find(|line| line.starts_with(&format!("/// | `{kind}` |"))).expect(&kind);
        // The fields of a client are listed below the table.
        let row = if row.contains("a client") { &text } else { row };
        let refusal = read(&format!(r#"{{"provider": "{kind}", "another": 1}}"#)).unwrap_err().to_string();
        for field in in_backticks(&refusal) {
            assert!(row.contains(&format!("`{field}`")), "{kind}: {field}");
        }
    }
}

#[test]
fn an_unknown_field_and_a_missing_one_are_refused() {
    for (json, _) in every_kind() {
        let error = read(&json.replacen('{', r#"{"secert": "x", "#, 1)).unwrap_err().to_string();
        assert!(error.contains("unknown field `secert`"), "{json}: {error}");
    }
    let error = read(r#"{"provider": "wecom", "corp_id": "c"}"#).unwrap_err().to_string();
    assert!(error.contains("missing field `secret`, which `wecom` requires"), "{error}");
    let error = read(r#"{"corp_id": "c", "secret": SECRET}"#).unwrap_err().to_string();
    assert!(error.contains("`provider`"), "{error}");
}

#[test]
fn a_misspelled_name_in_a_configuration_is_answered_with_the_nearest_known_one() {
    for (json, wanted) in [
        (
            r#"{"provider": "wecon", "corp_id": "c", "secret": SECRET}"#,
            "unknown provider `wecon`; did you mean `wecom`?",
        ),
        (r#"{"provider": "WeChat_Classic"}"#, "unknown provider `WeChat_Classic`; did you mean `wechat-classic`?"),
        (r#"{"provider": "wecom", "corpid": "c"}"#, "unknown field `corpid`; did you mean `corp_id`?"),
        (r#"{"provider": "wecom", "colour": "c"}"#, "unknown field `colour`, expected one of `corp_id`, `secret`, "),
        (
            r#"{"provider": "feishu", "app_id": "a", "secret": SECRET, "region": "larc"}"#,
            "unknown region `larc`; did you mean `lark`?",
        ),
        (
            r#"{"provider": "feishu", "app_id": "a", "secret": SECRET, "region": "hunter2"}"#,
            "unknown region, expected one of `feishu`, `lark`",
        ),
        (
            r#"{"provider": "wecom-js-ticket", "kind": "corp", "parent": {"provider": "wecm"}}"#,
            "unknown provider `wecm`; did you mean `wecom`?",
        ),
        (r#"{"provider": "wecom", "corp_id": 48274827, "secret": SECRET}"#, "`corp_id` is wrong; expected a string"),
        (r#"{"provider": "wecom", "corp_id": "c", "corp_id": "d"}"#, "duplicate field `corp_id`"),
        (r#"{"corp_id": "c"}"#, "missing field `provider`, which names the kind of token, such as `wecom`"),
        ("48274827", "expected"),
    ] {
        let error = read(json).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(error.to_string().contains(wanted), "{json}: {error}");
        assert!(!shown.contains("hunter2") && !shown.contains("48274827"), "{json}: {shown}");
    }
}

#[test]
fn a_secret_that_is_written_down_is_refused_and_not_quoted() {
    // In the place of each secret of each kind.
    let mut places = 0;
    for (json, _) in every_kind() {
        for mark in [" SECRET", " TICKET", " KEY", " CERTIFICATE", " CREDENTIALS"] {
            for (at, _) in json.match_indices(mark) {
                for pasted in [
                    r#""hunter2""#,
                    r#"{"env": "hunter2-key"}"#,
                    r#"{"env": "EVERTOKEN", "hunter2": "hunter2"}"#,
                    r#"{"hunter2": "hunter2"}"#,
                    r#"{"env": {"hunter2": 1}}"#,
                    r#"["hunter2"]"#,
                    "48274827",
                    "48274827.5",
                    "-48274827",
                ] {
                    let json = format!("{}{pasted}{}", &json[..at], &json[at + mark.len()..]);
                    let error = read(&json).unwrap_err();
                    let shown = format!("{error} {error:?}");
                    assert!(shown.contains("a configuration must not contain a secret"), "{json}: {shown}");
                    assert!(!shown.contains("hunter2") && !shown.contains("48274827"), "{shown}");
                }
                places += 1;
            }
        }
    }
    assert!(places > 40, "{places}");
}

#[test]
fn a_configuration_shows_neither_secrets_nor_the_query_of_an_address() {
    let config = read(
        r#"{"provider": "oauth2", "token_url": "https://user:hunter2@h.example/t?k=hunter2", "client_id": "c",
            "secret": SECRET, "resource": "https://hunter2@r.example"}"#,
    );
    let signer = read(
        r#"{"provider": "jwt-bearer", "token_url": "https://h.example/t", "key": KEY, "issuer": "i",
            "claims": {"n": "hunter2"}}"#,
    );
    let shown = format!("{:?} {:?}", config.unwrap(), signer.unwrap());
    assert!(!shown.contains("hunter2") && shown.contains("h.example/t"), "{shown}");
}

#[test]
fn the_byte_order_mark_and_one_line_break_of_a_file_are_cut_off() {
    let json = r#"{"provider": "wecom", "corp_id": "c", "secret": SECRET}"#;
    let with = |name: &str| json.replace(" SECRET", &serde_json::json!({"file": file(name)}).to_string());
    let by_hand = WeCom::new("c", "hunter2").identity();
    for name in ["secret", "windows", "bare", "bom"] {
        assert_eq!(built(&with(name)).unwrap().identity(), by_hand, "{name}");
    }
    assert!(built(&with("full")).is_ok());
    for (name, wanted) in [
        ("missing", "does not exist"),
        ("large", "is larger than 64 KiB"),
        ("latin1", "is not UTF-8"),
        ("empty", "is empty"),
        ("two_lines", "has blanks or line breaks around it"),
        ("tab", "contains a control character"),
        ("", "cannot be read"),
    ] {
        let error = fault(&with(name));
        let path = format!("{:?}", file(name));
        assert!(error.starts_with("secret: the file ") && error.contains(&path) && error.contains(wanted), "{error}");
    }
    let error = fault(r#"{"provider": "wecom", "corp_id": "c", "secret": {"env": "EVERTOKEN_TEST_NOT_SET"}}"#);
    assert_eq!(error, "secret: the environment variable EVERTOKEN_TEST_NOT_SET is not set or is empty");
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    let client = |more: &str| {
        format!(r#"{{"provider": "oauth2", "token_url": "https://h.example/t", "client_id": "c", {more}}}"#)
    };
    for (json, wanted) in [
        (
            client(r#""scope": "s""#),
            "set `secret` or `key`; for a public client, which has neither, set `auth` to `none`",
        ),
        (client(r#""secret": SECRET, "key": KEY"#), "remove `secret`"),
        (client(r#""key": KEY, "auth": "post""#), "unless it is private-key-jwt"),
        (client(r#""secret": SECRET, "key_id": "k""#), "no key is set"),
        (client(r#""secret": SECRET, "auth": "private-key-jwt""#), "no key to sign with"),
        (client(r#""key": KEY, "algorithm": "es256""#), "algorithm: this key signs with RS256"),
        (client(r#""secret": SECRET, "default_lifetime": 0"#), "default lifetime of zero"),
        (client(r#""key": SECRET"#), "key: the private key is not readable PEM"),
        (r#"{"provider": "bot-framework", "app_id": "a", "secret": SECRET, "cloud": "china"}"#.to_owned(), "cloud: "),
    ] {
        let error = fault(&json);
        assert!(error.contains(wanted), "{json}: {error}");
    }
    for wrong in [r#""default_lifetime": "soon""#, r#""default_lifetime": -1"#, r#""auth": "some""#, r#""resource": 1"#]
    {
        assert!(read(&client(&format!(r#""secret": SECRET, {wrong}"#))).is_err(), "{wrong}");
    }
}

#[test]
fn a_parent_must_be_of_a_kind_that_fits() {
    let wecom = r#"{"provider": "wecom", "corp_id": "c", "secret": SECRET}"#;
    let wechat = r#"{"provider": "wechat", "app_id": "c", "secret": SECRET}"#;
    for (json, wanted) in [
        (
            r#"{"provider": "wecom-authorized-corp", "corp_id": "c", "permanent_code": SECRET, "parent": WECOM}"#,
            "wecom-suite",
        ),
        (r#"{"provider": "wecom-js-ticket", "kind": "corp", "parent": WECHAT}"#, "wecom or wecom-authorized-corp"),
        (
            r#"{"provider": "wechat-authorizer", "app_id": "a", "refresh_token": SECRET, "parent": WECHAT}"#,
            "wechat-component",
        ),
        (r#"{"provider": "wechat-js-ticket", "parent": WECOM}"#, "wechat or wechat-classic or wechat-authorizer"),
        (r#"{"provider": "feishu-tenant", "tenant_key": "t", "parent": WECOM}"#, "feishu-store-app"),
    ] {
        let error = fault(&json.replace("WECOM", wecom).replace("WECHAT", wechat));
        assert_eq!(error, format!("parent: the provider must be {wanted}"));
    }
    // However long the chain is, it never has more than three managers.
    let mut json = wecom.to_owned();
    for _ in 0..20 {
        json = format!(r#"{{"provider": "wecom-js-ticket", "kind": "corp", "parent": {json}}}"#);
    }
    assert!(fault(&json).contains("the provider must be"));
}

#[test]
fn each_word_for_the_proof_of_a_client_sends_it_as_it_says() {
    for (auth, headers, body) in [
        ("basic", "authorization: Basic Yzpzb21lKzE=", "grant_type=client_credentials"),
        ("basic-raw", "authorization: Basic Yzpzb21lIDE=", "grant_type=client_credentials"),
        ("post", "", "grant_type=client_credentials&client_id=c&client_secret=some+1"),
        ("none", "", "grant_type=client_credentials&client_id=c"),
        ("client-secret-jwt", "", "grant_type=client_credentials&client_id=c&client_assertion_type="),
    ] {
        let host = answering(r#"{"access_token": "t-1"}"#);
        let secret = tempfile::NamedTempFile::new().unwrap();
        fs::write(secret.path(), "some 1\n").unwrap();
        let config = serde_json::json!({"provider": "oauth2", "token_url": host.url(), "client_id": "c", "auth": auth,
            "secret": {"file": secret.path()}, "default_lifetime": "900", "assertion_audience": "https://a.example"});
        let tokens = built(&config.to_string()).unwrap();
        assert!(tokens.token().unwrap().remaining() > Duration::from_secs(800), "the life that was set");
        let (_, sent, text) = host.request();
        let found: Vec<_> = sent.iter().filter(|header| header.starts_with("authorization")).collect();
        assert_eq!(found.first().map_or("", |header| header), headers, "{auth}");
        assert!(text == body || (auth == "client-secret-jwt" && text.starts_with(body)), "{auth}: {text}");
    }
}

/// One body with the replies of all vendors of derived tokens.
const EVERYTHING: &str = r#"{"errcode": 0, "code": 0, "suite_access_token": "t-suite", "access_token": "t-corp",
    "component_access_token": "t-component", "authorizer_access_token": "t-authorizer",
    "authorizer_refresh_token": "hunter2-next", "ticket": "t-js", "app_access_token": "t-app",
    "tenant_access_token": "t-tenant", "expires_in": 7200, "expire": 7200}"#;

fn at(host: &Canned, json: &str) -> String {
    json.replace("URL", &host.url())
}

#[test]
fn parents_in_a_row_are_built_set_up_and_asked_at_the_host_of_the_first() {
    let host = answering(EVERYTHING);
    let json = r#"{"provider": "wecom-js-ticket", "kind": "corp",
        "parent": {"provider": "wecom-authorized-corp", "corp_id": "c", "permanent_code": SECRET,
            "parent": {"provider": "wecom-suite", "suite_id": "s", "secret": SECRET, "ticket": TICKET,
                "base_url": "URL"}}}"#;
    let (set_up, store) = (AtomicUsize::new(0), MemoryStore::new());
    let tokens = TokenManager::from_config(&read(&at(&host, json)).unwrap(), |builder| {
        set_up.fetch_add(1, Ordering::Relaxed);
        builder.store(store.clone())
    });
    assert_eq!(tokens.unwrap().token().unwrap().expose(), "t-js");
    assert_eq!(set_up.load(Ordering::Relaxed), 3);
    let requests = host.requests();
    let bodies: Vec<_> = requests.iter().map(|request| request.split_once("\r\n\r\n").unwrap()).collect();
    assert_eq!(bodies.len(), 3, "{requests:?}");
    assert!(bodies[0].1.contains(r#""suite_ticket":"hunter2-ticket""#), "{}", bodies[0].1);
    assert!(bodies[1].0.contains("suite_access_token=t-suite"), "{}", bodies[1].0);
    assert!(bodies[2].0.starts_with("GET /cgi-bin/get_jsapi_ticket?access_token=t-corp "), "{}", bodies[2].0);
}

#[test]
fn an_authorizer_and_a_tenant_are_granted_for_the_token_of_their_parent() {
    for (json, text, paths) in [
        (
            r#"{"provider": "wechat-authorizer", "app_id": "wxa", "refresh_token": SECRET,
                "parent": {"provider": "wechat-component", "app_id": "wxc", "secret": SECRET, "ticket": TICKET,
                    "base_url": "URL"}}"#,
            "t-authorizer",
            ["api_component_token", "api_authorizer_token"],
        ),
        (
            r#"{"provider": "feishu-tenant", "tenant_key": "t",
                "parent": {"provider": "feishu-store-app", "app_id": "a", "secret": SECRET, "ticket": TICKET,
                    "base_url": "URL"}}"#,
            "t-tenant",
            ["app_access_token", "tenant_access_token"],
        ),
    ] {
        let host = answering(EVERYTHING);
        assert_eq!(built(&at(&host, json)).unwrap().token().unwrap().expose(), text);
        let requests = host.requests();
        assert_eq!(requests.len(), 2);
        assert!(requests[0].contains("hunter2-ticket"), "the ticket was handed in");
        for (request, path) in requests.iter().zip(paths) {
            assert!(request.lines().next().unwrap().contains(path), "{request}");
        }
    }
}

#[test]
fn a_ticket_is_used_although_the_store_is_broken() {
    let host = answering(EVERYTHING);
    let json = r#"{"provider": "wecom-suite", "suite_id": "s", "secret": SECRET, "ticket": TICKET, "base_url": "URL"}"#;
    let store = FaultyStore::default();
    store.set_broken(true);
    let tokens = TokenManager::from_config(&read(&at(&host, json)).unwrap(), |builder| builder.store(store.clone()));
    assert_eq!(tokens.unwrap().token().unwrap().expose(), "t-suite");
}

#[test]
fn one_key_is_not_given_to_a_parent_and_its_child() {
    let config =
        read(r#"{"provider": "wechat-js-ticket", "parent": {"provider": "wechat", "app_id": "wx", "secret": SECRET}}"#);
    let error = TokenManager::from_config(&config.unwrap(), |builder| builder.key("mine")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let config = read(r#"{"provider": "wechat", "app_id": "wx", "secret": SECRET}"#).unwrap();
    assert!(TokenManager::from_config(&config, |builder| builder.key("mine")).is_ok());
}

#[test]
fn a_federated_assertion_is_read_again_for_each_fetch() {
    let host = answering(r#"{"access_token": "t-1", "expires_in": 3599}"#);
    let assertion = tempfile::NamedTempFile::new().unwrap();
    let config = serde_json::json!({"provider": "entra-federated", "tenant": "t.example", "client_id": "c",
        "assertion": {"file": assertion.path()}, "authority": host.url()});
    let tokens = built(&config.to_string()).unwrap();
    for text in ["first", "second"] {
        fs::write(assertion.path(), format!("{text}\n")).unwrap();
        tokens.invalidate().unwrap();
        tokens.token().unwrap();
        let last = host.requests().pop().unwrap();
        assert!(last.ends_with(&format!("client_assertion={text}")), "{last}");
    }
    fs::remove_file(assertion.path()).unwrap();
    tokens.invalidate().unwrap();
    let error = tokens.token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().starts_with("entra: assertion: the file "), "{error}");
}

#[test]
fn a_key_signs_as_the_configuration_says() {
    for (more, header) in [
        (r#""key_id": "k-1""#, r#"{"alg":"RS256","typ":"JWT","kid":"k-1"}"#),
        (r#""algorithm": "rs256""#, r#"{"alg":"RS256","typ":"JWT"}"#),
        (r#""algorithm": "ps256", "key_id": "k-2""#, r#"{"alg":"PS256","typ":"JWT","kid":"k-2"}"#),
    ] {
        for (json, field) in [
            (r#"{"provider": "jwt-bearer", "token_url": "URL", "key": KEY, "issuer": "i", MORE}"#, "assertion="),
            (r#"{"provider": "oauth2", "token_url": "URL", "key": KEY, "client_id": "c", MORE}"#, "client_assertion="),
        ] {
            let host = answering(r#"{"access_token": "t-1", "expires_in": 300}"#);
            built(&at(&host, json).replace("MORE", more)).unwrap().token().unwrap();
            let (_, _, body) = host.request();
            let assertion = body.split('&').find_map(|pair| pair.strip_prefix(field)).unwrap();
            let found = URL_SAFE_NO_PAD.decode(assertion.split('.').next().unwrap()).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), header, "{json}");
        }
    }
}

#[test]
fn a_configuration_is_the_provider_that_it_describes() {
    for (json, by_hand) in every_kind() {
        let store = MemoryStore::new();
        let config = read(json).unwrap();
        let config =
            config.parents(move |parent| TokenManager::from_config(parent, |builder| builder.store(store.clone())));
        assert_eq!(config.identity(), by_hand.identity(), "{json}");
        assert_eq!(config.name(), by_hand.name());
        assert_eq!(config.placement(), by_hand.placement());
        assert_eq!(config.parent().is_some(), by_hand.parent().is_some());
        assert_eq!(config.renewal().is_some(), by_hand.renewal().is_some());
        assert_eq!(config.check().is_ok(), by_hand.check().is_ok(), "{json}");
    }
}

#[test]
fn a_pool_has_a_manager_for_each_configuration() {
    let host = answering(r#"{"errcode":0,"access_token":"t-1","ticket":"j-1","expires_in":7200}"#);
    let tenant = |corp: &str| {
        let json = r#"{"provider": "wecom", "corp_id": "CORP", "secret": SECRET, "base_url": "URL"}"#;
        read(&json.replace("CORP", corp).replace("URL", &host.url())).unwrap()
    };
    let pool = TokenPool::new();
    for corp in ["corp-1", "corp-2", "corp-1"] {
        let tokens = pool.manager(corp, || tenant(corp)).unwrap();
        assert_eq!(tokens.token().unwrap().expose(), "t-1");
    }
    assert_eq!((pool.len(), host.calls()), (2, 2));
    // A secret that cannot be read is the pool's error, and no manager is kept.
    let config = read(r#"{"provider": "wecom", "corp_id": "c", "secret": {"file": "/missing/file"}}"#).unwrap();
    let error = pool.manager("corp-3", || config).unwrap_err();
    assert_eq!(error.to_string(), "secret: the file \"/missing/file\" does not exist");
    assert_eq!(pool.len(), 2);
    // A ticket that is derived from a token has that of its parent.
    let json = r#"{"provider": "wecom-js-ticket", "kind": "corp", "base_url": "URL", "parent": PARENT}"#;
    let parent = r#"{"provider": "wecom", "corp_id": "c", "secret": SECRET, "base_url": "URL"}"#;
    let config = read(&json.replace("PARENT", parent).replace("URL", &host.url())).unwrap();
    let error = pool.manager("corp-4", || config.clone()).unwrap_err();
    assert!(error.to_string().contains("the parent needs a manager of its own"), "{error}");
    let config = config.parents(|parent| TokenManager::from_config(parent, |builder| builder));
    let tickets = pool.manager("corp-4", || config).unwrap();
    assert_eq!(tickets.token().unwrap().expose(), "j-1");
}

#[test]
fn the_ticket_of_a_configuration_reaches_the_fetch_of_a_pool() {
    let host = answering(r#"{"errcode":0,"suite_access_token":"t-1","expires_in":7200}"#);
    let json = r#"{"provider": "wecom-suite", "suite_id": "s", "secret": SECRET, "ticket": TICKET, "base_url": "URL"}"#;
    let config = read(&json.replace("URL", &host.url())).unwrap();
    let pool = TokenPool::new();
    let tokens = pool.manager("suite", || config).unwrap();
    assert_eq!(tokens.token().unwrap().expose(), "t-1");
    assert!(host.requests()[0].contains("hunter2-ticket"));
}
