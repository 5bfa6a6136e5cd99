//! Every kind of token from end to end: the manager, the fake vendor, and a service that receives the token.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evertoken::provider::Provider;
use evertoken::provider::dingtalk::{DingTalkAuthorizedCorp, DingTalkClassic, DingTalkSuite, DingTalkUnified};
use evertoken::provider::feishu::{FeishuAppToken, FeishuOAuth, FeishuStoreApp, FeishuTenant};
use evertoken::provider::microsoft::{BotFramework, ManagedIdentity};
use evertoken::provider::oauth2::{JwtBearer, SigningKey};
use evertoken::provider::wechat::{WeChatAuthorizer, WeChatClassic, WeChatComponent, WeChatJsTicket};
use evertoken::provider::wecom::{WeComAuthorizedCorp, WeComJsTicket, WeComServiceProvider, WeComSuite};
use evertoken::testing::{FakeClock, FakeVendor, VendorFault};
use evertoken::{
    CallError, DeviceSignIn, DingTalk, Entra, Error, ErrorKind, Feishu, MemoryStore, OAuth2, RefreshToken,
    TokenManager, TokenState, Verdict, WeChat, WeCom,
};
use ureq::Agent;
use ureq::http::Request;

use crate::common::logs::{logged, record_logs};
use crate::common::wait::{HOUR, PATIENCE, SECOND, eventually};

/// A kind of token of a vendor.
struct Kind {
    name: &'static str,
    host: fn() -> FakeVendor,
    /// A manager, and the managers of its parents.
    tokens: fn(&Vendor) -> TokenManager,
    /// The path of the API that accepts the token. `None`: the kind signs pages.
    business: Option<&'static str>,
    /// A manager with a wrong secret.
    wrong: fn(&Vendor) -> TokenManager,
}

/// A fake vendor, and the clock that it shares with the managers.
struct Vendor {
    host: FakeVendor,
    clock: FakeClock,
    managers: RefCell<Vec<TokenManager>>,
    /// The managers that accept the tickets of the vendor.
    ticketed: RefCell<Vec<TokenManager>>,
}

impl Vendor {
    fn new(host: FakeVendor) -> Vendor {
        let clock = FakeClock::new();
        Vendor { host: host.clock(&clock), clock, managers: RefCell::default(), ticketed: RefCell::default() }
    }

    fn of(kind: &Kind) -> Vendor {
        Vendor::new((kind.host)())
    }

    /// Pushes the next ticket to all managers that accept one.
    fn push(&self) {
        for tokens in &*self.ticketed.borrow() {
            tokens.set_ticket(self.host.push_ticket()).unwrap();
        }
    }

    fn url(&self) -> String {
        self.host.url()
    }

    fn manage(&self, provider: impl Provider) -> TokenManager {
        let tokens = TokenManager::builder(provider).clock(self.clock.clone()).build().unwrap();
        self.managers.borrow_mut().push(tokens.clone());
        tokens
    }

    /// Waits until no background fetch is in flight: a fetch during a jump of the clock looks as slow as the jump is
    /// long.
    fn settle(&self) {
        for tokens in &*self.managers.borrow() {
            eventually("the due token is refreshed, or the manager waits", || {
                let status = tokens.status();
                let is_due = status.refresh_in == Some(Duration::ZERO) && status.retry_in.is_none();
                !status.fetching && (!is_due || status.state == TokenState::Expired)
            });
        }
    }

    /// A manager with the ticket that its vendor has pushed.
    fn with_ticket(&self, provider: impl Provider) -> TokenManager {
        let tokens = self.manage(provider);
        self.ticketed.borrow_mut().push(tokens.clone());
        self.push();
        tokens
    }

    fn wecom(&self) -> TokenManager {
        self.manage(WeCom::new("corp", "secret").base_url(self.url()))
    }

    fn suite(&self) -> TokenManager {
        self.with_ticket(WeComSuite::new("suite", "suite-secret").base_url(self.url()))
    }

    fn wechat(&self) -> TokenManager {
        self.manage(WeChat::new("app", "secret").base_url(self.url()))
    }

    fn component(&self) -> TokenManager {
        self.with_ticket(WeChatComponent::new("component", "component-secret").base_url(self.url()))
    }

    fn store_app(&self) -> TokenManager {
        self.with_ticket(FeishuStoreApp::new("store", "store-secret").base_url(self.url()))
    }

    fn entra(&self, secret: &str) -> TokenManager {
        self.manage(Entra::new("tenant", "client", secret).authority(self.url()))
    }

    fn send(&self, tokens: &TokenManager, path: &str) -> Result<u16, Error> {
        let agent = Agent::new_with_defaults();
        let request = Request::get(self.url() + path).body(()).unwrap();
        let mut response = tokens.send(&agent, request)?;
        let body = response.body_mut().read_to_string().unwrap();
        let refused = ["\"errcode\":4", "\"errcode\":88", "Invalid", "9999"].iter().any(|code| body.contains(code));
        Ok(if refused { 400 } else { response.status().as_u16() })
    }
}

const KINDS: &[Kind] = &[
    Kind {
        name: "wecom",
        host: FakeVendor::wecom,
        tokens: Vendor::wecom,
        business: Some("/cgi-bin/message/send"),
        wrong: |vendor| vendor.manage(WeCom::new("corp", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wecom suite",
        host: FakeVendor::wecom,
        tokens: Vendor::suite,
        business: Some("/cgi-bin/service/get_pre_auth_code"),
        wrong: |vendor| vendor.with_ticket(WeComSuite::new("suite", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wecom authorized corp",
        host: FakeVendor::wecom,
        tokens: |vendor| {
            let corp = WeComAuthorizedCorp::new(vendor.suite(), "auth-corp", "permanent-code");
            vendor.manage(corp.base_url(vendor.url()))
        },
        business: Some("/cgi-bin/message/send"),
        wrong: |vendor| {
            let corp = WeComAuthorizedCorp::new(vendor.suite(), "auth-corp", "wrong");
            vendor.manage(corp.base_url(vendor.url()))
        },
    },
    Kind {
        name: "wecom service provider",
        host: FakeVendor::wecom,
        tokens: |vendor| vendor.manage(WeComServiceProvider::new("corp", "provider-secret").base_url(vendor.url())),
        business: Some("/cgi-bin/service/corpid_to_opencorpid"),
        wrong: |vendor| vendor.manage(WeComServiceProvider::new("corp", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wecom js ticket of a corp",
        host: FakeVendor::wecom,
        tokens: |vendor| vendor.manage(WeComJsTicket::corp(vendor.wecom()).base_url(vendor.url())),
        business: None,
        wrong: |vendor| vendor.manage(WeCom::new("corp", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wecom js ticket of an app",
        host: FakeVendor::wecom,
        tokens: |vendor| vendor.manage(WeComJsTicket::agent(vendor.wecom()).base_url(vendor.url())),
        business: None,
        wrong: |vendor| vendor.manage(WeCom::new("corp", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wechat",
        host: FakeVendor::wechat,
        tokens: Vendor::wechat,
        business: Some("/cgi-bin/user/get"),
        wrong: |vendor| vendor.manage(WeChat::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wechat classic",
        host: FakeVendor::wechat,
        tokens: |vendor| vendor.manage(WeChatClassic::new("app", "secret").base_url(vendor.url())),
        business: Some("/cgi-bin/user/get"),
        wrong: |vendor| vendor.manage(WeChatClassic::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wechat js ticket",
        host: FakeVendor::wechat,
        tokens: |vendor| vendor.manage(WeChatJsTicket::new(vendor.wechat()).base_url(vendor.url())),
        business: None,
        wrong: |vendor| vendor.manage(WeChat::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wechat js ticket for cards",
        host: FakeVendor::wechat,
        tokens: |vendor| vendor.manage(WeChatJsTicket::card(vendor.wechat()).base_url(vendor.url())),
        business: None,
        wrong: |vendor| vendor.manage(WeChat::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wechat component",
        host: FakeVendor::wechat,
        tokens: Vendor::component,
        business: Some("/cgi-bin/component/api_create_preauthcode"),
        wrong: |vendor| vendor.with_ticket(WeChatComponent::new("component", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "wechat authorizer",
        host: FakeVendor::wechat,
        tokens: |vendor| {
            let account = WeChatAuthorizer::new(vendor.component(), "component", "authorizer", "refresh-1");
            vendor.manage(account.base_url(vendor.url()))
        },
        business: Some("/cgi-bin/user/get"),
        wrong: |vendor| {
            let account = WeChatAuthorizer::new(vendor.component(), "component", "authorizer", "wrong");
            vendor.manage(account.base_url(vendor.url()))
        },
    },
    Kind {
        name: "feishu",
        host: FakeVendor::feishu,
        tokens: |vendor| vendor.manage(Feishu::new("app", "secret").base_url(vendor.url())),
        business: Some("/open-apis/im/v1/messages"),
        wrong: |vendor| vendor.manage(Feishu::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "feishu app token",
        host: FakeVendor::feishu,
        tokens: |vendor| vendor.manage(FeishuAppToken::new("app", "secret").base_url(vendor.url())),
        business: Some("/open-apis/im/v1/messages"),
        wrong: |vendor| vendor.manage(FeishuAppToken::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "feishu store app",
        host: FakeVendor::feishu,
        tokens: Vendor::store_app,
        business: Some("/open-apis/im/v1/messages"),
        wrong: |vendor| vendor.with_ticket(FeishuStoreApp::new("store", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "feishu tenant",
        host: FakeVendor::feishu,
        tokens: |vendor| vendor.manage(FeishuTenant::new(vendor.store_app(), "tenant").base_url(vendor.url())),
        business: Some("/open-apis/im/v1/messages"),
        wrong: |vendor| vendor.manage(FeishuTenant::new(vendor.store_app(), "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "feishu oauth",
        host: FakeVendor::feishu,
        tokens: |vendor| vendor.manage(FeishuOAuth::new("app", "secret").base_url(vendor.url())),
        business: Some("/open-apis/im/v1/messages"),
        wrong: |vendor| vendor.manage(FeishuOAuth::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "dingtalk",
        host: FakeVendor::dingtalk,
        tokens: |vendor| vendor.manage(DingTalk::new("app", "secret").base_url(vendor.url())),
        business: Some("/v1.0/contact/users/me"),
        wrong: |vendor| vendor.manage(DingTalk::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "dingtalk classic",
        host: FakeVendor::dingtalk,
        tokens: |vendor| vendor.manage(DingTalkClassic::new("app", "secret").base_url(vendor.url())),
        business: Some("/topapi/v2/user/get"),
        wrong: |vendor| vendor.manage(DingTalkClassic::new("app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "dingtalk unified",
        host: FakeVendor::dingtalk,
        tokens: |vendor| vendor.manage(DingTalkUnified::new("corp", "app", "secret").base_url(vendor.url())),
        business: Some("/v1.0/contact/users/me"),
        wrong: |vendor| vendor.manage(DingTalkUnified::new("corp", "app", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "dingtalk suite",
        host: FakeVendor::dingtalk,
        tokens: |vendor| vendor.with_ticket(DingTalkSuite::new("suite", "suite-secret").base_url(vendor.url())),
        business: Some("/v1.0/contact/users/me"),
        wrong: |vendor| vendor.with_ticket(DingTalkSuite::new("suite", "wrong").base_url(vendor.url())),
    },
    Kind {
        name: "dingtalk authorized corp",
        host: FakeVendor::dingtalk,
        tokens: |vendor| {
            let corp = DingTalkAuthorizedCorp::new("suite", "suite-secret", "corp");
            vendor.with_ticket(corp.base_url(vendor.url()))
        },
        business: Some("/v1.0/contact/users/me"),
        wrong: |vendor| {
            vendor.with_ticket(DingTalkAuthorizedCorp::new("suite", "wrong", "corp").base_url(vendor.url()))
        },
    },
    Kind {
        name: "entra",
        host: FakeVendor::entra,
        tokens: |vendor| vendor.entra("secret"),
        business: Some("/v1.0/me"),
        wrong: |vendor| vendor.entra("wrong"),
    },
    Kind {
        name: "entra by federation",
        host: FakeVendor::entra,
        tokens: |vendor| vendor.manage(federated("client").authority(vendor.url())),
        business: Some("/v1.0/me"),
        wrong: |vendor| vendor.manage(federated("wrong").authority(vendor.url())),
    },
    Kind {
        name: "bot framework",
        host: FakeVendor::entra,
        tokens: |vendor| vendor.manage(BotFramework::new("client", "secret").authority(vendor.url())),
        business: Some("/v3/conversations"),
        wrong: |vendor| vendor.manage(BotFramework::new("client", "wrong").authority(vendor.url())),
    },
    Kind {
        name: "managed identity",
        host: FakeVendor::managed_identity,
        tokens: |vendor| vendor.manage(ManagedIdentity::new("https://graph.microsoft.com").base_url(vendor.url())),
        business: Some("/v1.0/me"),
        wrong: |vendor| {
            let identity = ManagedIdentity::new("https://graph.microsoft.com").client_id("wrong");
            vendor.manage(identity.base_url(vendor.url()))
        },
    },
    Kind {
        name: "oauth2",
        host: FakeVendor::oauth2,
        tokens: |vendor| vendor.manage(OAuth2::new(vendor.host.token_url(), "client", "secret")),
        business: Some("/api"),
        wrong: |vendor| vendor.manage(OAuth2::new(vendor.host.token_url(), "client", "wrong")),
    },
    Kind {
        name: "oauth2 by a key",
        host: FakeVendor::oauth2,
        tokens: |vendor| vendor.manage(OAuth2::private_key_jwt(vendor.host.token_url(), "client", key())),
        business: Some("/api"),
        wrong: |vendor| vendor.manage(OAuth2::private_key_jwt(vendor.host.token_url(), "wrong", key())),
    },
    Kind {
        name: "jwt bearer",
        host: FakeVendor::oauth2,
        tokens: |vendor| vendor.manage(JwtBearer::new(vendor.host.token_url(), key()).issuer("client")),
        business: Some("/api"),
        wrong: |vendor| {
            let provider = JwtBearer::new(vendor.host.token_url(), key()).issuer("client");
            vendor.manage(provider.param("client_id", "wrong"))
        },
    },
    Kind {
        name: "refresh token",
        host: FakeVendor::oauth2,
        tokens: |vendor| {
            let client = OAuth2::public(vendor.host.token_url(), "client");
            vendor.manage(RefreshToken::new(client, "refresh-1"))
        },
        business: Some("/api"),
        wrong: |vendor| {
            let client = OAuth2::public(vendor.host.token_url(), "client");
            vendor.manage(RefreshToken::new(client, "wrong"))
        },
    },
];

fn federated(client: &str) -> Entra {
    // The claims are `{"sub":"client"}`; the signature is not checked.
    Entra::federated("tenant", client, || Ok("eyJhbGciOiJub25lIn0.eyJzdWIiOiJjbGllbnQifQ.c2ln".into()))
}

fn key() -> SigningKey {
    SigningKey::from_pem(include_str!("keys/rsa_2048.pem")).unwrap()
}

#[test]
fn a_token_is_sent_where_its_vendor_wants_it_and_replaced_when_it_is_refused() {
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        let tokens = (kind.tokens)(&vendor);
        let Some(path) = kind.business else { continue };
        assert_eq!(vendor.send(&tokens, path).unwrap(), 200, "{}", kind.name);
        let first = tokens.token().unwrap();
        vendor.host.revoke(first.expose());
        assert_eq!(vendor.send(&tokens, path).unwrap(), 200, "{}: revoked", kind.name);
        assert_ne!(tokens.token().unwrap().expose(), first.expose(), "{}", kind.name);
        assert_eq!(tokens.metrics().rejections, 1, "{}", kind.name);
    }
}

#[test]
fn the_middleware_sends_it_too_and_the_request_after_a_refusal_has_another_token() {
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        let tokens = (kind.tokens)(&vendor);
        let Some(path) = kind.business else { continue };
        let config = Agent::config_builder().middleware(tokens.middleware().http_status_as_error(false));
        let agent = config.build().new_agent();
        let ask = || agent.get(vendor.url() + path).call().unwrap().into_body().read_to_string().unwrap();
        let well = ask();
        let first = tokens.token().unwrap();
        vendor.host.revoke(first.expose());
        assert_ne!(ask(), well, "{}: the refusal reaches the caller", kind.name);
        assert_eq!(ask(), well, "{}", kind.name);
        assert_ne!(tokens.token().unwrap().expose(), first.expose(), "{}", kind.name);
    }
}

#[test]
fn a_call_with_a_refused_token_is_repeated_with_another() {
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        let tokens = (kind.tokens)(&vendor);
        let Some(path) = kind.business else { continue };
        vendor.host.revoke(tokens.token().unwrap().expose());
        let agent = Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut calls = 0;
        let called = tokens.call(|token| -> Result<(), CallError<ureq::Error>> {
            calls += 1;
            let request = agent.get(vendor.url() + path);
            // In all placements at once: each service reads the one of its vendor.
            let request = request
                .query("access_token", token.expose())
                .query("suite_access_token", token.expose())
                .query("provider_access_token", token.expose())
                .query("component_access_token", token.expose())
                .header("x-acs-dingtalk-access-token", token.expose())
                .header("authorization", token.bearer());
            let mut response = request.call()?;
            let body = response.body_mut().read_to_vec()?;
            match tokens.verdict(response.status().as_u16(), response.headers(), &body) {
                Verdict::Rejected => Err(CallError::Rejected),
                _ => Ok(()),
            }
        });
        assert!(called.is_ok() && calls == 2, "{}: {calls} calls, {called:?}", kind.name);
    }
}

#[test]
fn promise_2_no_expired_token_of_any_vendor_is_returned_in_two_days() {
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        let tokens = (kind.tokens)(&vendor);
        let mut granted = BTreeSet::new();
        for step in 0..2 * 24 * 4 {
            vendor.push();
            let token = tokens.token().unwrap_or_else(|error| panic!("{} after {step} steps: {error}", kind.name));
            assert!(vendor.host.is_valid(token.expose()), "{} after {step} steps of 15 minutes", kind.name);
            granted.insert(token.expose().to_owned());
            vendor.settle();
            vendor.clock.advance(HOUR / 4);
        }
        assert!(granted.len() > 1 || kind.name.starts_with("dingtalk"), "{}: {}", kind.name, granted.len());
    }
}

#[test]
fn a_wrong_secret_costs_one_call_per_cooldown_and_is_named() {
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        let tokens = (kind.wrong)(&vendor);
        for _ in 0..20 {
            let error = tokens.token().unwrap_err();
            use ErrorKind::{Config, Forbidden, InvalidCredentials, SignInRequired};
            let fits = matches!(error.kind(), InvalidCredentials | SignInRequired | Forbidden | Config);
            assert!(fits && error.code().is_some(), "{}: {error:?}", kind.name);
            assert!(!error.is_retryable() && error.retry_after().is_some(), "{}: {error:?}", kind.name);
        }
        // The token of the parent may have been requested before.
        assert!(vendor.host.calls() <= 2, "{}: {} calls", kind.name, vendor.host.calls());
    }
}

#[test]
fn throttling_causes_a_cooldown() {
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        let tokens = (kind.tokens)(&vendor);
        vendor.host.fail_with(VendorFault::Throttle { retry_after: SECOND * 90 });
        let error = tokens.token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled, "{}: {error:?}", kind.name);
        let calls = vendor.host.calls();
        assert_eq!(tokens.token().unwrap_err().kind(), ErrorKind::Throttled, "{}", kind.name);
        assert_eq!(vendor.host.calls(), calls, "{}", kind.name);
        vendor.host.recover();
        vendor.clock.advance(HOUR / 2);
        vendor.push();
        let token = tokens.token().unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        assert!(vendor.host.is_valid(token.expose()), "{}", kind.name);
    }
}

#[test]
fn throttling_without_a_time_causes_growing_cooldowns() {
    let vendor = Vendor::new(FakeVendor::wecom());
    let tokens = vendor.wecom();
    vendor.host.fail_with(VendorFault::Throttle { retry_after: Duration::ZERO });
    for seconds in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        let error = tokens.token().unwrap_err();
        assert_eq!(error.retry_after().map(|wait| wait.as_secs()), Some(seconds));
        vendor.clock.advance(SECOND * seconds as u32);
    }
    assert_eq!(vendor.host.calls(), 8);
}

#[test]
fn every_vendor_recovers_from_garbage_and_outages() {
    for kind in KINDS {
        for (outage, fits) in [
            (VendorFault::Garbage, &[ErrorKind::InvalidResponse, ErrorKind::Throttled][..]),
            (VendorFault::Drop, &[ErrorKind::Unavailable, ErrorKind::InvalidResponse]),
            (VendorFault::HalfReply, &[ErrorKind::Unavailable, ErrorKind::InvalidResponse]),
            (VendorFault::Status(503), &[ErrorKind::Unavailable]),
        ] {
            let vendor = Vendor::of(kind);
            let tokens = (kind.tokens)(&vendor);
            vendor.host.fail_with(outage);
            let error = tokens.token().unwrap_err();
            assert!(fits.contains(&error.kind()), "{}: {outage:?}: {error:?}", kind.name);
            assert!(error.is_retryable(), "{}: {outage:?}: {error:?}", kind.name);
        }
    }
}

#[test]
fn pages_are_signed_with_tickets_only() {
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        let tokens = (kind.tokens)(&vendor);
        let signed = tokens.js_signature("https://shop.example/?a=1#top");
        if kind.business.is_some() {
            assert_eq!(signed.unwrap_err().kind(), ErrorKind::Config, "{}", kind.name);
            continue;
        }
        assert_eq!(signed.unwrap().signature.len(), 40, "{}", kind.name);
        let request = Request::get(vendor.url() + "/any").body(()).unwrap();
        let error = tokens.send(&Agent::new_with_defaults(), request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{}: a ticket goes nowhere", kind.name);
    }
}

#[test]
fn no_refresh_token_is_used_twice_and_a_used_one_advises_to_sign_in_again() {
    let vendor = Vendor::new(FakeVendor::oauth2());
    let store = MemoryStore::with_clock(vendor.clock.clone());
    let manager = || {
        let client = OAuth2::public(vendor.host.token_url(), "client");
        let builder = TokenManager::builder(RefreshToken::new(client, "refresh-1")).store(store.clone());
        builder.clock(vendor.clock.clone()).build().unwrap()
    };
    for _ in 0..10 {
        // A command-line program starts, asks once and ends.
        let token = manager().token().unwrap();
        assert!(vendor.host.is_valid(token.expose()));
        vendor.clock.advance(HOUR * 2);
    }
    let used = vendor.host.used_refresh_tokens();
    let each: BTreeSet<_> = used.iter().collect();
    assert_eq!((used.len(), each.len()), (10, 10), "{used:?}");

    // A program with a store of its own uses the first refresh token, which ends the whole sign-in.
    let lonely = vendor.manage(RefreshToken::new(OAuth2::public(vendor.host.token_url(), "client"), "refresh-1"));
    let error = lonely.token().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::SignInRequired, Some("invalid_grant")));
    assert!(error.to_string().contains("sign in again"), "{error}");
    assert_eq!(manager().token().unwrap_err().kind(), ErrorKind::SignInRequired);
}

#[test]
fn a_person_signs_in_on_another_device() {
    let host = FakeVendor::oauth2().device_interval(SECOND);
    let client = OAuth2::public(host.token_url(), "client");
    let sign_in = DeviceSignIn::new(host.url() + "/device_authorization", client);
    let mut prompt = sign_in.begin().unwrap();
    assert!(prompt.verification_uri().starts_with("http"), "{prompt:?}");
    let shown = format!("{prompt:?}");
    assert!(!shown.contains(prompt.user_code()), "{shown}");
    assert!(prompt.wait_for(Duration::ZERO).unwrap().is_none());
    assert!(prompt.wait_for(SECOND * 2).unwrap().is_none(), "the code is not entered yet");
    host.approve(prompt.user_code());
    let tokens = TokenManager::new(prompt.wait().unwrap());
    assert!(host.is_valid(tokens.token().unwrap().expose()));

    let prompt = sign_in.begin().unwrap();
    host.deny(prompt.user_code());
    assert_eq!(prompt.wait().unwrap_err().kind(), ErrorKind::Forbidden);
}

#[test]
fn a_sign_in_survives_network_failures() {
    let host = FakeVendor::oauth2().device_interval(SECOND);
    let client = OAuth2::public(host.token_url(), "client");
    let sign_in = DeviceSignIn::new(host.url() + "/device_authorization", client);
    let prompt = sign_in.begin().unwrap();
    host.approve(prompt.user_code());
    host.fail_with(VendorFault::Drop);
    let calls = host.calls();
    let mending = host.clone();
    let mend = std::thread::spawn(move || {
        assert!(mending.wait_for_calls(calls + 1, PATIENCE));
        mending.recover();
    });
    assert!(prompt.wait().is_ok());
    mend.join().unwrap();
}

#[test]
fn a_sign_in_with_unsafe_text_or_address_is_refused() {
    for body in [
        r#"{}"#,
        r#"{"device_code":"d","verification_uri":"https://h/"}"#,
        r#"{"device_code":"d","user_code":"A\u001b[2J","verification_uri":"https://h/"}"#,
        r#"{"device_code":"d","user_code":"A-B","verification_uri":"javascript:x"}"#,
        r#"{"device_code":"d","user_code":"A-B","verification_uri":"http://elsewhere.example/"}"#,
        r#"{"user_code":"A-B","verification_uri":"https://h/"}"#,
    ] {
        let host = crate::common::http_host::answering(body);
        let sign_in = DeviceSignIn::new(host.url(), OAuth2::public(host.url(), "client"));
        assert_eq!(sign_in.begin().unwrap_err().kind(), ErrorKind::InvalidResponse, "{body}");
    }
    for url in ["http://elsewhere.example/device", "ftp://h", ""] {
        let sign_in = DeviceSignIn::new(url, OAuth2::public("https://h/token", "client"));
        assert_eq!(sign_in.begin().unwrap_err().kind(), ErrorKind::Config, "{url}");
    }
}

#[test]
fn a_component_keeps_its_accounts_over_days_of_tickets() {
    let vendor = Vendor::new(FakeVendor::wechat());
    let component = vendor.component();
    let account = WeChatAuthorizer::new(component.clone(), "component", "authorizer", "refresh-1");
    let account = vendor.manage(account.base_url(vendor.url()));
    for _ in 0..48 {
        vendor.push();
        assert!(vendor.host.is_valid(account.token().unwrap().expose()));
        vendor.clock.advance(HOUR);
    }
    let used = vendor.host.used_refresh_tokens();
    let each: BTreeSet<_> = used.iter().collect();
    assert!(used.len() > 20 && each.len() == used.len(), "{used:?}");
}

#[test]
fn wechats_stable_token_is_forced_away_by_one_call_when_it_was_rejected() {
    let vendor = Vendor::new(FakeVendor::wechat());
    let tokens = vendor.wechat();
    let leaked = tokens.token().unwrap();
    tokens.reject(&leaked).unwrap();
    let other = tokens.token().unwrap();
    assert_ne!(other.expose(), leaked.expose());
    assert!(vendor.host.is_valid(other.expose()) && !vendor.host.is_valid(leaked.expose()));
    let quota = tokens.status().quota.unwrap();
    assert_eq!((quota.calls, quota.forced, quota.forced_limit), (3, 1, Some(20)));
    // Within 30 seconds the vendor does not force a new one: the token is used again.
    tokens.reject(&other).unwrap();
    assert_eq!(tokens.token().unwrap().expose(), other.expose());
    assert_eq!(tokens.metrics().reinstated_tokens, 1);
}

#[test]
fn classic_wechat_stays_within_its_day_and_keeps_a_reserve() {
    let vendor = Vendor::new(FakeVendor::wechat().lifetime(SECOND * 30));
    let tokens = vendor.manage(WeChatClassic::new("app", "secret").base_url(vendor.url()));
    let mut refused = 0;
    for _ in 0..2880 {
        refused += usize::from(tokens.token().is_err());
        vendor.clock.advance(SECOND * 30);
    }
    assert!(refused > 0);
    assert_eq!(vendor.host.calls(), 1800, "the reserve is not touched");
}

#[test]
fn processes_of_one_wechat_app_share_the_classic_token_and_do_not_invalidate_it() {
    let vendor = Vendor::new(FakeVendor::wechat());
    let store = MemoryStore::with_clock(vendor.clock.clone());
    let process = || {
        let provider = WeChatClassic::new("app", "secret").base_url(vendor.url());
        let builder = TokenManager::builder(provider).store(store.clone()).clock(vendor.clock.clone());
        let tokens = builder.build().unwrap();
        vendor.managers.borrow_mut().push(tokens.clone());
        tokens
    };
    let processes = [process(), process()];
    let mut granted = BTreeSet::new();
    for step in 0..24 * 4 {
        for tokens in &processes {
            let token = tokens.token().unwrap();
            assert!(vendor.host.is_valid(token.expose()), "after {step} steps of 15 minutes");
            granted.insert(token.expose().to_owned());
        }
        vendor.settle();
        vendor.clock.advance(HOUR / 4);
    }
    // Without sharing, each process would need twice as many, and would invalidate those of the other.
    assert!((12..=16).contains(&vendor.host.calls()), "{} calls", vendor.host.calls());
    assert!(granted.len() >= 12, "{}", granted.len());
}

#[test]
fn a_ticket_of_another_app_is_refused_as_stale() {
    let mut tried = 0;
    for kind in KINDS {
        let vendor = Vendor::of(kind);
        (kind.tokens)(&vendor);
        let Some(tokens) = vendor.ticketed.borrow().first().cloned() else { continue };
        tokens.set_ticket("ticket-of-another-app").unwrap();
        let error = tokens.token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TicketRequired, "{}: {error}", kind.name);
        assert!(error.code().is_some(), "{}: {error}", kind.name);
        for wanted in ["of another", "`set_ticket`"] {
            assert!(error.to_string().contains(wanted), "{}: {error}", kind.name);
        }
        assert!(!format!("{error:?}").contains("ticket-of-another"), "{}: {error:?}", kind.name);
        // The next ticket ends the failure at once.
        vendor.push();
        assert!(vendor.host.is_valid(tokens.token().unwrap().expose()), "{}", kind.name);
        tried += 1;
    }
    assert!(tried >= 5, "{tried} kinds have a ticket");
}

#[test]
fn no_log_shows_a_token_or_the_query_of_an_address() {
    record_logs();
    for kind in KINDS {
        let (vendor, other) = (Vendor::of(kind), Vendor::of(kind));
        let tokens = (kind.tokens)(&vendor);
        let first = tokens.token().unwrap();
        tokens.reject(&first).unwrap();
        let second = tokens.token().unwrap();
        vendor.host.fail_with(VendorFault::Drop);
        tokens.invalidate().unwrap();
        tokens.token().unwrap_err();
        (kind.wrong)(&other).token().unwrap_err();
        let logged = logged();
        for wanted in [first.expose(), second.expose(), "token=", "secret=", "ticket="] {
            assert!(!logged.contains(wanted), "{}: {wanted} in {logged}", kind.name);
        }
        let named = format!("evertoken {}", tokens.status().provider);
        assert!(logged.contains(&named), "{}: it is recorded: {logged}", kind.name);
    }
}

#[test]
fn a_parent_exists_as_long_as_its_children() {
    let vendor = Vendor::new(FakeVendor::wecom());
    let app = Arc::new(vendor.wecom());
    let tickets = TokenManager::new(WeComJsTicket::corp(app.clone()).base_url(vendor.url()));
    tickets.token().unwrap();
    assert_eq!(Arc::strong_count(&app), 2);
    assert!(tickets.shutdown(PATIENCE));
    drop(tickets);
    eventually("the parent is dropped", || Arc::strong_count(&app) == 1);
}
