//! WeChat.

use std::time::Duration;

use evertoken::provider::wechat::{WeChatAuthorizer, WeChatClassic, WeChatComponent, WeChatJsTicket};
use evertoken::provider::wecom::WeComJsTicket;
use evertoken::provider::{Context, Grant, Provider, TokenPlacement, from_fn};
use evertoken::testing::FakeClock;
use evertoken::{Error, ErrorKind, TokenManager, Verdict, WeChat};

use crate::common::http_host::{answering, canned, reply};
use crate::kinds::{Body, Kind, Refusal, Source, assert_all, assert_judges, context, parent, verdict};

const JSON: &[&str] = &["accept: application/json", "content-type: application/json"];

const GET: &[&str] = &["accept: application/json"];

const KINDS: &[Kind] = &[
    Kind {
        name: "wechat",
        provider: |url| Box::new(WeChat::new("app", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(WeChat::new("app-2", "hunter2").base_url(url)),
                Box::new(WeChat::new("app", "hunter2-b").base_url(url)),
                // Two independent tokens.
                Box::new(WeChatClassic::new("app", "hunter2").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /cgi-bin/stable_token HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(
            r#"{"grant_type":"client_credential","appid":"app","secret":"hunter2","force_refresh":false}"#,
        ),
        granting: r#"{"access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: APP_REFUSALS,
    },
    Kind {
        name: "wechat classic",
        provider: |url| Box::new(WeChatClassic::new("app", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(WeChatClassic::new("app-2", "hunter2").base_url(url)),
                Box::new(WeChatClassic::new("app", "hunter2-b").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "GET /cgi-bin/token?grant_type=client_credential&appid=app&secret=hunter2 HTTP/1.1",
        headers: GET,
        body: Body::Exactly(""),
        granting: r#"{"access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: APP_REFUSALS,
    },
    Kind {
        name: "wechat component",
        provider: |url| Box::new(WeChatComponent::new("component", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(WeChatComponent::new("component-2", "hunter2").base_url(url)),
                Box::new(WeChatComponent::new("component", "hunter2-b").base_url(url)),
            ]
        },
        needs_state: true,
        needs_parent: false,
        request: "POST /cgi-bin/component/api_component_token HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(
            r#"{"component_appid":"component","component_appsecret":"hunter2","component_verify_ticket":"hunter2-state"}"#,
        ),
        granting: r#"{"component_access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: &[
            ("200 OK", r#"{"errcode":61005,"errmsg":"hunter2-state"}"#, ErrorKind::TicketRequired, Some("61005"), None),
            ("200 OK", r#"{"errcode":"61006"}"#, ErrorKind::TicketRequired, Some("61006"), None),
            ("200 OK", r#"{"errcode":61011}"#, ErrorKind::InvalidCredentials, Some("61011"), None),
            ("200 OK", r#"{"errcode":40125}"#, ErrorKind::InvalidCredentials, Some("40125"), None),
            ("200 OK", r#"{"errcode":40001}"#, ErrorKind::InvalidCredentials, Some("40001"), None),
            ("200 OK", r#"{"errcode":41004}"#, ErrorKind::Config, Some("41004"), None),
            ("200 OK", r#"{"errcode":47001}"#, ErrorKind::Config, Some("47001"), None),
            ("200 OK", r#"{"errcode":48001}"#, ErrorKind::Forbidden, Some("48001"), None),
            ("200 OK", r#"{"errcode":61004}"#, ErrorKind::Forbidden, Some("61004"), None),
            ("200 OK", r#"{"errcode":45009}"#, ErrorKind::Throttled, Some("45009"), Some(600)),
            ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
            ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
            // The code quotes the request.
            ("200 OK", r#"{"errcode":"hunter2-state"}"#, ErrorKind::InvalidResponse, None, None),
        ],
    },
    Kind {
        name: "wechat authorizer",
        provider: |url| Box::new(authorizer("component", "app", "account", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(authorizer("component-2", "app", "account", "hunter2").base_url(url)),
                Box::new(authorizer("component", "app-2", "account", "hunter2").base_url(url)),
                Box::new(authorizer("component", "app", "account-2", "hunter2").base_url(url)),
                Box::new(authorizer("component", "app", "account", "hunter2-b").base_url(url)),
            ]
        },
        needs_state: true,
        needs_parent: true,
        request: "POST /cgi-bin/component/api_authorizer_token?component_access_token=hunter2-parent HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(
            r#"{"component_appid":"app","authorizer_appid":"account","authorizer_refresh_token":"hunter2-state"}"#,
        ),
        granting: r#"{"authorizer_access_token":"TOKEN","expires_in":LIFETIME,"authorizer_refresh_token":"hunter2-next"}"#,
        odd_life: false,
        refusals: &[
            ("200 OK", r#"{"errcode":40001}"#, ErrorKind::TokenRejected, Some("40001"), None),
            ("200 OK", r#"{"errcode":"40014"}"#, ErrorKind::TokenRejected, Some("40014"), None),
            ("200 OK", r#"{"errcode":42001}"#, ErrorKind::TokenRejected, Some("42001"), None),
            ("200 OK", r#"{"errcode":40013}"#, ErrorKind::InvalidCredentials, Some("40013"), None),
            ("200 OK", r#"{"errcode":61003}"#, ErrorKind::SignInRequired, Some("61003"), None),
            ("200 OK", r#"{"errcode":61023}"#, ErrorKind::SignInRequired, Some("61023"), None),
            ("200 OK", r#"{"errcode":61007}"#, ErrorKind::Forbidden, Some("61007"), None),
            ("200 OK", r#"{"errcode":61024}"#, ErrorKind::Forbidden, Some("61024"), None),
            ("200 OK", r#"{"errcode":61004}"#, ErrorKind::Forbidden, Some("61004"), None),
            ("200 OK", r#"{"errcode":45011}"#, ErrorKind::Throttled, Some("45011"), Some(60)),
            ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
            ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
            ("200 OK", r#"{"errcode":"hunter2-parent"}"#, ErrorKind::InvalidResponse, None, None),
            ("200 OK", r#"{"errcode":"hunter2-state"}"#, ErrorKind::InvalidResponse, None, None),
        ],
    },
    Kind {
        name: "wechat js ticket",
        provider: |url| Box::new(WeChatJsTicket::new(Source("app")).base_url(url)),
        others: |url| {
            vec![
                Box::new(WeChatJsTicket::new(Source("app-2")).base_url(url)),
                Box::new(WeChatJsTicket::card(Source("app")).base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: true,
        request: "GET /cgi-bin/ticket/getticket?access_token=hunter2-parent&type=jsapi HTTP/1.1",
        headers: GET,
        body: Body::Exactly(""),
        granting: r#"{"errcode":0,"errmsg":"ok","ticket":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: TICKET_REFUSALS,
    },
    Kind {
        name: "wechat js ticket",
        provider: |url| Box::new(WeChatJsTicket::card(Source("app")).base_url(url)),
        others: |url| vec![Box::new(WeChatJsTicket::card(Source("app-2")).base_url(url))],
        needs_state: false,
        needs_parent: true,
        request: "GET /cgi-bin/ticket/getticket?access_token=hunter2-parent&type=wx_card HTTP/1.1",
        headers: GET,
        body: Body::Exactly(""),
        granting: r#"{"errcode":0,"errmsg":"ok","ticket":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: TICKET_REFUSALS,
    },
];

const APP_REFUSALS: &[Refusal] = &[
    (
        "200 OK",
        r#"{"errcode":40001,"errmsg":"invalid credential hunter2"}"#,
        ErrorKind::InvalidCredentials,
        Some("40001"),
        None,
    ),
    ("200 OK", r#"{"errcode":"40013","errmsg":"invalid appid"}"#, ErrorKind::InvalidCredentials, Some("40013"), None),
    ("200 OK", r#"{"errcode":40125}"#, ErrorKind::InvalidCredentials, Some("40125"), None),
    ("200 OK", r#"{"errcode":40243}"#, ErrorKind::InvalidCredentials, Some("40243"), None),
    ("200 OK", r#"{"errcode":50004}"#, ErrorKind::InvalidCredentials, Some("50004"), None),
    ("200 OK", r#"{"errcode":50007}"#, ErrorKind::InvalidCredentials, Some("50007"), None),
    ("200 OK", r#"{"errcode":40002}"#, ErrorKind::Config, Some("40002"), None),
    ("200 OK", r#"{"errcode":41002}"#, ErrorKind::Config, Some("41002"), None),
    ("200 OK", r#"{"errcode":41004}"#, ErrorKind::Config, Some("41004"), None),
    ("200 OK", r#"{"errcode":43002}"#, ErrorKind::Config, Some("43002"), None),
    ("200 OK", r#"{"errcode":40164}"#, ErrorKind::Forbidden, Some("40164"), None),
    ("200 OK", r#"{"errcode":45035}"#, ErrorKind::Forbidden, Some("45035"), None),
    ("200 OK", r#"{"errcode":48004}"#, ErrorKind::Forbidden, Some("48004"), None),
    ("200 OK", r#"{"errcode":61024}"#, ErrorKind::Forbidden, Some("61024"), None),
    ("200 OK", r#"{"errcode":89501}"#, ErrorKind::Forbidden, Some("89501"), None),
    ("200 OK", r#"{"errcode":89503}"#, ErrorKind::Forbidden, Some("89503"), None),
    ("200 OK", r#"{"errcode":89506}"#, ErrorKind::Forbidden, Some("89506"), Some(86_400)),
    ("200 OK", r#"{"errcode":"89507"}"#, ErrorKind::Forbidden, Some("89507"), Some(3600)),
    ("200 OK", r#"{"errcode":45009}"#, ErrorKind::Throttled, Some("45009"), Some(600)),
    ("200 OK", r#"{"errcode":"45011"}"#, ErrorKind::Throttled, Some("45011"), Some(60)),
    ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
    ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
];

const TICKET_REFUSALS: &[Refusal] = &[
    ("200 OK", r#"{"errcode":40001}"#, ErrorKind::TokenRejected, Some("40001"), None),
    ("200 OK", r#"{"errcode":"40014"}"#, ErrorKind::TokenRejected, Some("40014"), None),
    ("200 OK", r#"{"errcode":42001}"#, ErrorKind::TokenRejected, Some("42001"), None),
    ("200 OK", r#"{"errcode":42007}"#, ErrorKind::TokenRejected, Some("42007"), None),
    ("200 OK", r#"{"errcode":45009}"#, ErrorKind::Throttled, Some("45009"), Some(600)),
    ("200 OK", r#"{"errcode":48001}"#, ErrorKind::Forbidden, Some("48001"), None),
    ("200 OK", r#"{"errcode":40164}"#, ErrorKind::Forbidden, Some("40164"), None),
    ("200 OK", r#"{"errcode":50007}"#, ErrorKind::InvalidCredentials, Some("50007"), None),
    ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
    ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
    ("200 OK", r#"{"errcode":"hunter2-parent"}"#, ErrorKind::InvalidResponse, None, None),
];

fn authorizer(parent: &'static str, component: &str, account: &str, refresh_token: &str) -> WeChatAuthorizer {
    WeChatAuthorizer::new(Source(parent), component, account, refresh_token)
}

#[test]
fn every_kind_of_wechat_does_what_is_expected_of_it() {
    assert_all(KINDS);
}

#[test]
fn each_token_of_wechat_is_refused_by_codes_of_its_own() {
    let (stable, classic) = (WeChat::new("a", "s"), WeChatClassic::new("a", "s"));
    let account = authorizer("c", "c", "a", "r");
    for provider in [&stable as &dyn Provider, &classic, &account] {
        let others = ["41001", "48001", "40125", "61007", "61023", "89506", "89507"];
        assert_judges(provider, &["40001", "40014", "42001", "42007"], &others);
        assert_eq!(provider.placement(), TokenPlacement::query("access_token"));
    }
    let component = WeChatComponent::new("c", "s");
    assert_judges(&component, &["40001", "40014", "42001"], &["61007", "61005", "42007", "48001"]);
    assert_eq!(component.placement(), TokenPlacement::query("component_access_token"));
    for provider in [&stable as &dyn Provider, &classic, &account, &component] {
        for (code, seconds) in [("45009", 600), ("45011", 60)] {
            let throttled = Verdict::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
            assert_eq!(verdict(provider, code), [throttled.clone(), throttled], "{}: {code}", provider.name());
        }
    }
}

#[test]
fn a_wechat_ticket_is_not_sent_and_no_service_response_refers_to_it() {
    for provider in [WeChatJsTicket::new(Source("app")), WeChatJsTicket::card(Source("app"))] {
        assert_eq!(provider.placement(), TokenPlacement::NotSent);
        for code in ["40001", "40014", "42001", "42007", "45009"] {
            assert_eq!(verdict(&provider, code), [Verdict::Accepted, Verdict::Accepted], "{code}");
        }
    }
}

#[test]
fn a_stable_token_has_its_remaining_lifetime_and_can_be_forced_twenty_times_a_day() {
    let profile = WeChat::new("a", "s").profile();
    assert_eq!((profile.default_lifetime.as_secs(), profile.refresh_ahead.as_secs()), (7200, 300));
    assert_eq!(profile.earliest_refresh, Some(Duration::from_secs(300)));
    assert!(profile.unchanged_token_extends && !profile.new_token_ends_old);
    assert_eq!((profile.forced_quota, profile.min_forced_interval.as_secs()), (Some(20), 30));
    assert_eq!(profile.daily_quota, None);
}

#[test]
fn a_new_classic_token_ends_the_old_one_and_two_thousand_a_day_are_granted() {
    let profile = WeChatClassic::new("a", "s").profile();
    assert_eq!((profile.default_lifetime.as_secs(), profile.refresh_ahead.as_secs()), (7200, 300));
    assert!(profile.new_token_ends_old && !profile.unchanged_token_extends);
    assert_eq!((profile.overlap.as_secs(), profile.earliest_refresh, profile.forced_quota), (300, None, None));
    assert_eq!(profile.daily_quota.map(|quota| (quota.calls, quota.reserve)), Some((2000, 200)));
}

#[test]
fn a_token_that_may_end_the_one_before_is_treated_as_if_it_did() {
    // WeChat advises to refresh a component's token after an hour and fifty minutes.
    let kinds: [(&dyn Provider, u64); 4] = [
        (&WeChatComponent::new("c", "s"), 600),
        (&authorizer("c", "c", "a", "r"), 300),
        (&WeChatJsTicket::new(Source("app")), 300),
        (&WeChatJsTicket::card(Source("app")), 300),
    ];
    for (provider, ahead) in kinds {
        let profile = provider.profile();
        let found = (profile.default_lifetime.as_secs(), profile.refresh_ahead.as_secs());
        assert_eq!(found, (7200, ahead), "{}", provider.name());
        assert!(profile.new_token_ends_old && !profile.unchanged_token_extends, "{}", provider.name());
    }
}

#[test]
fn a_stable_token_is_forced_only_when_the_manager_asks_for_it() {
    for forced in [false, true] {
        let host = answering(r#"{"access_token":"t-1","expires_in":7200}"#);
        let provider = WeChat::new("app", "hunter2").base_url(host.url());
        let _ = provider.fetch(&context().with_forced(forced)).unwrap();
        let expected = format!(
            r#"{{"grant_type":"client_credential","appid":"app","secret":"hunter2","force_refresh":{forced}}}"#
        );
        assert_eq!(host.request().2, expected);
    }
}

#[test]
fn a_stable_token_with_as_little_left_as_its_margin_is_used() {
    // The platform replaces the token at 300 s, so no reply reports less.
    let host = answering(r#"{"access_token":"t-1","expires_in":300}"#);
    let tokens = TokenManager::new(WeChat::new("app", "hunter2").base_url(host.url()));
    for _ in 0..3 {
        let token = tokens.token().unwrap();
        assert_eq!(token.expose(), "t-1");
        assert!(token.remaining() > Duration::from_secs(200) && token.remaining() <= Duration::from_secs(300));
    }
    assert_eq!(host.calls(), 1);
}

#[test]
fn a_code_of_the_token_endpoint_says_what_to_do() {
    for (body, words) in [
        (
            r#"{"errcode":40164,"errmsg":"invalid ip 101.45.43.1 ipv6 ::ffff:101.45.43.1, not in whitelist rid: 654d-f3"}"#,
            ["whitelist", "101.45.43.1", "request 654d-f3"],
        ),
        (r#"{"errcode":40243}"#, ["frozen", "unfreeze", "ten minutes"]),
        (r#"{"errcode":45009,"errmsg":"api freq out of limit"}"#, ["used up", "next day", "quota"]),
        (r#"{"errcode":89503}"#, ["administrator", "confirm", "89503"]),
        (r#"{"errcode":89506}"#, ["administrator", "twice", "24 hours"]),
        (r#"{"errcode":89507}"#, ["administrator", "refused", "an hour"]),
    ] {
        let host = answering(body);
        let error = WeChat::new("app", "hunter2").base_url(host.url()).fetch(&context()).unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn the_same_code_is_the_secret_at_one_endpoint_and_the_token_at_another() {
    let body = r#"{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest rid: 65-a"}"#;
    let host = canned(reply("200 OK", "", body));
    let derived = || context().with_parent(Some(parent("hunter2-parent"))).with_renewal_secret(Some("r".into()));
    let kinds: [(Result<Grant, Error>, ErrorKind, &str); 5] = [
        (WeChat::new("a", "s").base_url(host.url()).fetch(&context()), ErrorKind::InvalidCredentials, "AppSecret"),
        (
            WeChatClassic::new("a", "s").base_url(host.url()).fetch(&context()),
            ErrorKind::InvalidCredentials,
            "AppSecret",
        ),
        (
            WeChatComponent::new("a", "s").base_url(host.url()).fetch(&derived()),
            ErrorKind::InvalidCredentials,
            "AppSecret",
        ),
        (
            authorizer("c", "c", "a", "r").base_url(host.url()).fetch(&derived()),
            ErrorKind::TokenRejected,
            "component_access_token",
        ),
        (
            WeChatJsTicket::new(Source("a")).base_url(host.url()).fetch(&derived()),
            ErrorKind::TokenRejected,
            "access token",
        ),
    ];
    for (answer, kind, about) in kinds {
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.request_id()), (kind, Some("65-a")), "{error}");
        assert!(error.to_string().contains(about), "{error}");
    }
    // For a service the code is about the token.
    assert_eq!(verdict(&WeChat::new("a", "s"), "40001")[0], Verdict::Rejected);
}

#[test]
fn a_component_without_a_ticket_returns_advice_and_sends_nothing() {
    let host = answering(r#"{"component_access_token":"t-1","expires_in":7200}"#);
    let error = WeChatComponent::new("app", "hunter2").base_url(host.url()).fetch(&context()).unwrap_err();
    assert_eq!((error.kind(), host.calls()), (ErrorKind::TicketRequired, 0));
    assert!(error.to_string().contains("`set_ticket`"), "{error}");
}

#[test]
fn a_verify_ticket_is_the_components_and_good_for_twelve_hours() {
    let state = |provider: WeChatComponent| provider.renewal().unwrap();
    let one = state(WeChatComponent::new("app", "hunter2"));
    assert_eq!((one.lifetime, one.initial.is_none(), one.rotates), (Duration::from_secs(12 * 3600), true, false));
    // A reset of the secret keeps the ticket.
    assert_eq!(one.identity, state(WeChatComponent::new("app", "hunter2-b")).identity);
    assert_ne!(one.identity, state(WeChatComponent::new("app-2", "hunter2")).identity);
    assert_ne!(one.identity, state(WeChatComponent::new("app", "hunter2").base_url("https://h.example")).identity);
}

#[test]
fn an_account_that_was_granted_another_refresh_token_brings_it_back() {
    for (field, next) in [
        (r#","authorizer_refresh_token":"refresh-2""#, Some("refresh-2")),
        (r#","authorizer_refresh_token":"refresh-1""#, Some("refresh-1")),
        (r#","authorizer_refresh_token":"""#, None),
        (r#","authorizer_refresh_token":null"#, None),
        ("", None),
    ] {
        let host = answering(&format!(r#"{{"authorizer_access_token":"t-1","expires_in":7200{field}}}"#));
        let context =
            context().with_parent(Some(parent("hunter2-parent"))).with_renewal_secret(Some("refresh-1".into()));
        let grant = authorizer("c", "c", "a", "refresh-0").base_url(host.url()).fetch(&context).unwrap();
        assert_eq!(grant.token().expose(), "t-1");
        assert_eq!(grant.renewal_secret().map(|state| state.expose()), next, "{field}");
        // The latest refresh token is sent, not the one that the program began with.
        assert!(host.request().2.contains(r#""authorizer_refresh_token":"refresh-1""#));
    }
}

#[test]
fn an_account_without_a_refresh_token_must_be_authorized_again_and_nothing_is_sent() {
    let host = answering(r#"{"authorizer_access_token":"t-1","expires_in":7200}"#);
    let provider = authorizer("c", "c", "a", "refresh-1").base_url(host.url());
    let error = provider.fetch(&context().with_parent(Some(parent("p")))).unwrap_err();
    assert_eq!((error.kind(), host.calls()), (ErrorKind::SignInRequired, 0));
    assert!(error.to_string().contains("authorize again"), "{error}");
}

#[test]
fn a_refresh_token_is_kept_while_its_authorization_is_the_same() {
    let state = |provider: WeChatAuthorizer| provider.renewal().unwrap();
    let one = state(authorizer("c", "app", "account", "refresh-1"));
    assert!(one.rotates && one.lifetime > Duration::from_secs(365 * 86_400));
    assert_eq!(one.initial.as_ref().map(|first| first.expose()), Some("refresh-1"));
    // A component whose secret was reset is another parent; its authorizations stay.
    assert_eq!(one.identity, state(authorizer("c-2", "app", "account", "refresh-1")).identity);
    // A refresh token of a new authorization is not hidden by earlier ones.
    assert_ne!(one.identity, state(authorizer("c", "app", "account", "refresh-2")).identity);
    assert_ne!(one.identity, state(authorizer("c", "app", "account-2", "refresh-1")).identity);
    assert_ne!(one.identity, state(authorizer("c", "app-2", "account", "refresh-1")).identity);
}

#[test]
fn derived_wechat_tokens_name_their_parent() {
    let kinds: [&dyn Provider; 3] = [
        &authorizer("the-parent", "c", "a", "r"),
        &WeChatJsTicket::new(Source("the-parent")),
        &WeChatJsTicket::card(Source("the-parent")),
    ];
    for provider in kinds {
        let shown = format!("{:?}", provider.parent().unwrap().identity());
        assert!(shown.contains("the-parent"), "{shown}");
    }
}

#[test]
fn a_setting_of_wechat_that_is_empty_is_named() {
    let kinds: [(&dyn Provider, &str); 9] = [
        (&WeChat::new("", "s"), "appid"),
        (&WeChat::new("a", "hunter2\n"), "appsecret"),
        (&WeChatClassic::new(" ", "s"), "appid"),
        (&WeChatClassic::new("a", ""), "appsecret"),
        (&WeChatComponent::new("", "s"), "component's appid"),
        (&WeChatComponent::new("c", ""), "component's appsecret"),
        (&authorizer("c", "", "a", "r"), "component's appid"),
        (&authorizer("c", "c", "", "r"), "account's appid"),
        (&authorizer("c", "c", "a", "hunter2\n"), "refresh token"),
    ];
    for (provider, setting) in kinds {
        let error = provider.check().unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(text.contains(setting) && text.starts_with(provider.name()) && !text.contains("hunter2"), "{text}");
    }
}

/// A manager with this ticket.
fn tickets(ticket: &'static str, clock: &FakeClock) -> TokenManager {
    let granting = move |_: &Context| Ok(Grant::new(ticket, Duration::from_secs(7200)));
    TokenManager::builder(from_fn("tickets", granting).placement(TokenPlacement::NotSent))
        .clock(clock.clone())
        .build()
        .unwrap()
}

#[test]
fn a_page_is_signed_with_the_ticket_by_the_managers_clock() {
    let clock = FakeClock::new();
    let tokens = tickets("ticket-1", &clock);
    let url = "https://shop.example/cart?id=%E4%B8%AD&b=1";
    let one = tokens.js_signature(&format!("{url}#!/top?x")).unwrap();
    let base = format!("jsapi_ticket=ticket-1&noncestr={}&timestamp={}&url={url}", one.nonce_str, one.timestamp);
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, base.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(one.signature, hex);
    clock.advance(Duration::from_secs(90));
    let other = tokens.js_signature(url).unwrap();
    assert_eq!(other.timestamp, one.timestamp + 90);
    assert_ne!(other.nonce_str, one.nonce_str);
}

#[test]
fn a_signature_is_handed_to_a_page_as_json_without_the_ticket() {
    let signed = tickets("hunter2", &FakeClock::new()).js_signature("https://shop.example/").unwrap();
    let json = serde_json::to_value(&signed).unwrap();
    assert_eq!(json["nonceStr"], signed.nonce_str.as_str());
    assert_eq!(json["timestamp"], signed.timestamp);
    assert_eq!(json["signature"], signed.signature.as_str());
    assert_eq!(json.as_object().unwrap().len(), 3);
    assert!(!format!("{json} {signed:?}").contains("hunter2"));
}

#[test]
fn only_tickets_sign_pages_and_only_whole_addresses_are_signed() {
    let host = answering(r#"{"access_token":"t-1","expires_in":7200}"#);
    let tokens = TokenManager::new(WeChat::new("app", "hunter2").base_url(host.url()));
    let error = tokens.js_signature("https://shop.example/").unwrap_err();
    assert_eq!((error.kind(), host.calls()), (ErrorKind::Config, 0));
    for url in ["", "/cart", "shop.example/cart", "#top"] {
        let error = tickets("ticket-1", &FakeClock::new()).js_signature(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
}

#[test]
fn the_tickets_of_wecom_and_wechat_have_different_identities() {
    let [wechat, wecom] = [
        WeChatJsTicket::new(Source("app")).base_url("https://h.example").identity(),
        WeComJsTicket::corp(Source("app")).base_url("https://h.example").identity(),
    ];
    assert_ne!(wechat, wecom);
}
