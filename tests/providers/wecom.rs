//! WeCom.

use std::time::Duration;

use evertoken::provider::wecom::{WeComAuthorizedCorp, WeComJsTicket, WeComServiceProvider, WeComSuite};
use evertoken::provider::{Provider, TokenPlacement};
use evertoken::{ErrorKind, Verdict, WeCom};

use crate::common::http_host::{answering, canned, reply};
use crate::kinds::{Body, Kind, Refusal, Source, assert_all, assert_judges, context, parent, verdict};

const JSON: &[&str] = &["accept: application/json", "content-type: application/json"];

const GET: &[&str] = &["accept: application/json"];

const KINDS: &[Kind] = &[
    Kind {
        name: "wecom",
        provider: |url| Box::new(WeCom::new("corp", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(WeCom::new("corp-2", "hunter2").base_url(url)),
                Box::new(WeCom::new("corp", "hunter2-b").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "GET /cgi-bin/gettoken?corpid=corp&corpsecret=hunter2 HTTP/1.1",
        headers: GET,
        body: Body::Exactly(""),
        granting: r#"{"errcode":0,"errmsg":"ok","access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: &[
            (
                "200 OK",
                r#"{"errcode":40001,"errmsg":"invalid credential"}"#,
                ErrorKind::InvalidCredentials,
                Some("40001"),
                None,
            ),
            ("200 OK", r#"{"errcode":"40013"}"#, ErrorKind::InvalidCredentials, Some("40013"), None),
            ("200 OK", r#"{"errcode":45009}"#, ErrorKind::Throttled, Some("45009"), Some(60)),
            ("200 OK", r#"{"errcode":60020}"#, ErrorKind::Forbidden, Some("60020"), None),
            ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
            ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
        ],
    },
    Kind {
        name: "wecom suite",
        provider: |url| Box::new(WeComSuite::new("suite", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(WeComSuite::new("suite-2", "hunter2").base_url(url)),
                Box::new(WeComSuite::new("suite", "hunter2-b").base_url(url)),
            ]
        },
        needs_state: true,
        needs_parent: false,
        request: "POST /cgi-bin/service/get_suite_token HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"suite_id":"suite","suite_secret":"hunter2","suite_ticket":"hunter2-state"}"#),
        granting: r#"{"suite_access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: &[
            ("200 OK", r#"{"errcode":40085,"errmsg":"hunter2-state"}"#, ErrorKind::TicketRequired, Some("40085"), None),
            ("200 OK", r#"{"errcode":"41023"}"#, ErrorKind::TicketRequired, Some("41023"), None),
            ("200 OK", r#"{"errcode":40080}"#, ErrorKind::InvalidCredentials, Some("40080"), None),
            ("200 OK", r#"{"errcode":40083}"#, ErrorKind::InvalidCredentials, Some("40083"), None),
            ("200 OK", r#"{"errcode":41021}"#, ErrorKind::InvalidCredentials, Some("41021"), None),
            ("200 OK", r#"{"errcode":40001}"#, ErrorKind::InvalidCredentials, Some("40001"), None),
            ("200 OK", r#"{"errcode":41004}"#, ErrorKind::Config, Some("41004"), None),
            ("200 OK", r#"{"errcode":45009}"#, ErrorKind::Throttled, Some("45009"), Some(60)),
            ("200 OK", r#"{"errcode":60020}"#, ErrorKind::Forbidden, Some("60020"), None),
            ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
            ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
            // The code quotes the request.
            ("200 OK", r#"{"errcode":"hunter2-state"}"#, ErrorKind::InvalidResponse, None, None),
        ],
    },
    Kind {
        name: "wecom authorized corp",
        provider: |url| Box::new(WeComAuthorizedCorp::new(Source("suite"), "corp", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(WeComAuthorizedCorp::new(Source("suite-2"), "corp", "hunter2").base_url(url)),
                Box::new(WeComAuthorizedCorp::new(Source("suite"), "corp-2", "hunter2").base_url(url)),
                Box::new(WeComAuthorizedCorp::new(Source("suite"), "corp", "hunter2-b").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: true,
        request: "POST /cgi-bin/service/get_corp_token?suite_access_token=hunter2-parent HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"auth_corpid":"corp","permanent_code":"hunter2"}"#),
        granting: r#"{"access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: &[
            ("200 OK", r#"{"errcode":40082}"#, ErrorKind::TokenRejected, Some("40082"), None),
            ("200 OK", r#"{"errcode":"42009"}"#, ErrorKind::TokenRejected, Some("42009"), None),
            ("200 OK", r#"{"errcode":41022}"#, ErrorKind::TokenRejected, Some("41022"), None),
            ("200 OK", r#"{"errcode":40084}"#, ErrorKind::InvalidCredentials, Some("40084"), None),
            ("200 OK", r#"{"errcode":40013}"#, ErrorKind::InvalidCredentials, Some("40013"), None),
            ("200 OK", r#"{"errcode":45033}"#, ErrorKind::Throttled, Some("45033"), Some(1)),
            ("200 OK", r#"{"errcode":301042}"#, ErrorKind::Forbidden, Some("301042"), None),
            ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
            ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
            ("200 OK", r#"{"errcode":"hunter2-parent"}"#, ErrorKind::InvalidResponse, None, None),
        ],
    },
    Kind {
        name: "wecom service provider",
        provider: |url| Box::new(WeComServiceProvider::new("corp", "hunter2").base_url(url)),
        others: |url| {
            vec![
                Box::new(WeComServiceProvider::new("corp-2", "hunter2").base_url(url)),
                Box::new(WeComServiceProvider::new("corp", "hunter2-b").base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: false,
        request: "POST /cgi-bin/service/get_provider_token HTTP/1.1",
        headers: JSON,
        body: Body::Exactly(r#"{"corpid":"corp","provider_secret":"hunter2"}"#),
        granting: r#"{"provider_access_token":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: &[
            ("200 OK", r#"{"errcode":40001}"#, ErrorKind::InvalidCredentials, Some("40001"), None),
            ("200 OK", r#"{"errcode":"40013"}"#, ErrorKind::InvalidCredentials, Some("40013"), None),
            ("200 OK", r#"{"errcode":40091}"#, ErrorKind::InvalidCredentials, Some("40091"), None),
            ("200 OK", r#"{"errcode":41004}"#, ErrorKind::Config, Some("41004"), None),
            ("200 OK", r#"{"errcode":45009}"#, ErrorKind::Throttled, Some("45009"), Some(60)),
            ("200 OK", r#"{"errcode":60020}"#, ErrorKind::Forbidden, Some("60020"), None),
            ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
            ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
        ],
    },
    Kind {
        name: "wecom js ticket",
        provider: |url| Box::new(WeComJsTicket::corp(Source("app")).base_url(url)),
        others: |url| {
            vec![
                Box::new(WeComJsTicket::corp(Source("app-2")).base_url(url)),
                Box::new(WeComJsTicket::agent(Source("app")).base_url(url)),
            ]
        },
        needs_state: false,
        needs_parent: true,
        request: "GET /cgi-bin/get_jsapi_ticket?access_token=hunter2-parent HTTP/1.1",
        headers: GET,
        body: Body::Exactly(""),
        granting: r#"{"errcode":0,"errmsg":"ok","ticket":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: TICKET_REFUSALS,
    },
    Kind {
        name: "wecom js ticket",
        provider: |url| Box::new(WeComJsTicket::agent(Source("app")).base_url(url)),
        others: |url| vec![Box::new(WeComJsTicket::agent(Source("app-2")).base_url(url))],
        needs_state: false,
        needs_parent: true,
        request: "GET /cgi-bin/ticket/get?access_token=hunter2-parent&type=agent_config HTTP/1.1",
        headers: GET,
        body: Body::Exactly(""),
        granting: r#"{"errcode":0,"errmsg":"ok","ticket":"TOKEN","expires_in":LIFETIME}"#,
        odd_life: false,
        refusals: TICKET_REFUSALS,
    },
];

const TICKET_REFUSALS: &[Refusal] = &[
    ("200 OK", r#"{"errcode":40001}"#, ErrorKind::TokenRejected, Some("40001"), None),
    ("200 OK", r#"{"errcode":"40014"}"#, ErrorKind::TokenRejected, Some("40014"), None),
    ("200 OK", r#"{"errcode":42001}"#, ErrorKind::TokenRejected, Some("42001"), None),
    ("200 OK", r#"{"errcode":45009}"#, ErrorKind::Throttled, Some("45009"), Some(60)),
    ("200 OK", r#"{"errcode":48002}"#, ErrorKind::Forbidden, Some("48002"), None),
    ("200 OK", r#"{"errcode":60020}"#, ErrorKind::Forbidden, Some("60020"), None),
    ("200 OK", r#"{"errcode":50003}"#, ErrorKind::InvalidCredentials, Some("50003"), None),
    ("200 OK", r#"{"errcode":-1}"#, ErrorKind::Unavailable, Some("-1"), None),
    ("200 OK", r#"{"errcode":99999}"#, ErrorKind::InvalidResponse, Some("99999"), None),
    ("200 OK", r#"{"errcode":"hunter2-parent"}"#, ErrorKind::InvalidResponse, None, None),
];

#[test]
fn every_kind_of_wecom_does_what_is_expected_of_it() {
    assert_all(KINDS);
}

#[test]
fn each_token_of_wecom_is_refused_by_codes_of_its_own() {
    let not_of_a_corp = ["40082", "42009", "41001", "48002", "60020"];
    let (app, corp) = (WeCom::new("c", "s"), WeComAuthorizedCorp::new(Source("suite"), "c", "s"));
    for provider in [&app as &dyn Provider, &corp] {
        assert_judges(provider, &["40001", "40014", "42001"], &not_of_a_corp);
        assert_eq!(provider.placement(), TokenPlacement::query("access_token"));
    }
    let suite = WeComSuite::new("s", "s");
    assert_judges(&suite, &["40082", "42009"], &["40084", "40085", "40001", "42001", "60020"]);
    assert_eq!(suite.placement(), TokenPlacement::query("suite_access_token"));
    let service_provider = WeComServiceProvider::new("c", "s");
    assert_judges(&service_provider, &["40082"], &["40084", "42009", "60020"]);
    assert_eq!(service_provider.placement(), TokenPlacement::query("provider_access_token"));
    for provider in [&app as &dyn Provider, &corp, &suite, &service_provider] {
        for (code, seconds) in [("45009", 60), ("45033", 1)] {
            let throttled = Verdict::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
            assert_eq!(verdict(provider, code), [throttled.clone(), throttled], "{}: {code}", provider.name());
        }
    }
}

#[test]
fn a_wecom_ticket_is_not_sent_and_no_service_response_refers_to_it() {
    for provider in [WeComJsTicket::corp(Source("app")), WeComJsTicket::agent(Source("app"))] {
        assert_eq!(provider.placement(), TokenPlacement::NotSent);
        for code in ["40001", "40014", "42001", "40093", "42012", "91040", "45009"] {
            assert_eq!(verdict(&provider, code), [Verdict::Accepted, Verdict::Accepted], "{code}");
        }
    }
}

#[test]
fn a_wecom_token_lasts_two_hours_and_an_unchanged_one_no_longer() {
    let kinds: [&dyn Provider; 5] = [
        &WeCom::new("c", "s"),
        &WeComSuite::new("c", "s"),
        &WeComAuthorizedCorp::new(Source("suite"), "c", "s"),
        &WeComServiceProvider::new("c", "s"),
        &WeComJsTicket::corp(Source("app")),
    ];
    for provider in kinds {
        let profile = provider.profile();
        let found = (
            profile.default_lifetime.as_secs(),
            profile.refresh_ahead.as_secs(),
            profile.min_forced_interval.as_secs(),
        );
        assert_eq!(found, (7200, 300, 10), "{}", provider.name());
        assert!(!profile.unchanged_token_extends && !profile.new_token_ends_old, "{}", provider.name());
        assert_eq!((profile.earliest_refresh, profile.forced_quota), (None, None), "{}", provider.name());
        assert_eq!(profile.daily_quota, None, "{}", provider.name());
    }
}

#[test]
fn a_wecom_ticket_is_fetched_again_halfway_through_its_lifetime() {
    // Whatever its age, the lifetime is reported as 7200 s.
    for (body, halfway) in [
        (r#"{"errcode":0,"ticket":"t-1","expires_in":7200}"#, 3600),
        (r#"{"ticket":"t-1","expires_in":"600"}"#, 300),
        (r#"{"ticket":"t-1"}"#, 3600),
    ] {
        for provider in [WeComJsTicket::corp(Source("app")), WeComJsTicket::agent(Source("app"))] {
            let host = answering(body);
            let grant = provider.base_url(host.url()).fetch(&context().with_parent(Some(parent("p")))).unwrap();
            assert_eq!(grant.refresh_in(), Some(Duration::from_secs(halfway)), "{body}");
        }
    }
}

#[test]
fn a_suite_without_a_ticket_returns_advice_and_sends_nothing() {
    let host = answering(r#"{"suite_access_token":"t-1","expires_in":7200}"#);
    let error = WeComSuite::new("suite", "hunter2").base_url(host.url()).fetch(&context()).unwrap_err();
    assert_eq!((error.kind(), host.calls()), (ErrorKind::TicketRequired, 0));
    assert!(error.to_string().contains("`set_ticket`") && error.to_string().starts_with("wecom suite: "), "{error}");
}

#[test]
fn a_suite_ticket_is_the_apps_and_good_for_half_an_hour() {
    let state = |provider: WeComSuite| provider.renewal().unwrap();
    let one = state(WeComSuite::new("suite", "hunter2"));
    assert_eq!((one.lifetime, one.initial.is_none(), one.rotates), (Duration::from_secs(30 * 60), true, false));
    // A reset of the secret keeps the ticket.
    assert_eq!(one.identity, state(WeComSuite::new("suite", "hunter2-b")).identity);
    assert_ne!(one.identity, state(WeComSuite::new("suite-2", "hunter2")).identity);
    assert_ne!(one.identity, state(WeComSuite::new("suite", "hunter2").base_url("https://h.example")).identity);
}

#[test]
fn derived_wecom_tokens_name_their_parent() {
    let kinds: [&dyn Provider; 3] = [
        &WeComAuthorizedCorp::new(Source("the-parent"), "c", "s"),
        &WeComJsTicket::corp(Source("the-parent")),
        &WeComJsTicket::agent(Source("the-parent")),
    ];
    for provider in kinds {
        let shown = format!("{:?}", provider.parent().unwrap().identity());
        assert!(shown.contains("the-parent") && provider.renewal().is_none(), "{shown}");
    }
}

#[test]
fn the_advice_of_wecom_is_about_the_endpoint_that_was_asked() {
    let refused =
        reply("200 OK", "", r#"{"errcode":40001,"errmsg":"invalid credential, hint: [15977_48_ab], from ip"}"#);
    let host = canned(refused);
    let suite = WeComSuite::new("s", "x").base_url(host.url()).fetch(&context().with_renewal_secret(Some("t".into())));
    let provider = WeComServiceProvider::new("c", "x").base_url(host.url()).fetch(&context());
    let ticket =
        WeComJsTicket::corp(Source("app")).base_url(host.url()).fetch(&context().with_parent(Some(parent("p"))));
    for (answer, about) in [(suite, "suite secret"), (provider, "provider secret"), (ticket, "access token")] {
        let error = answer.unwrap_err();
        assert!(error.to_string().contains(about), "{error}");
        assert_eq!(error.request_id(), Some("15977_48_ab"));
    }
}

#[test]
fn a_setting_of_wecom_that_is_empty_is_named() {
    let kinds: [(&dyn Provider, &str); 6] = [
        (&WeComSuite::new("", "s"), "suite id"),
        (&WeComSuite::new("s", "hunter2\n"), "suite secret"),
        (&WeComAuthorizedCorp::new(Source("suite"), " ", "s"), "corp id"),
        (&WeComAuthorizedCorp::new(Source("suite"), "c", ""), "permanent code"),
        (&WeComServiceProvider::new("", "s"), "corp id"),
        (&WeComServiceProvider::new("c", " hunter2"), "provider secret"),
    ];
    for (provider, setting) in kinds {
        let error = provider.check().unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        assert!(text.contains(setting) && text.starts_with(provider.name()) && !text.contains("hunter2"), "{text}");
    }
}
