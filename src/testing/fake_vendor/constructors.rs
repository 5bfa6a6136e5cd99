//! One constructor for each vendor.

use super::FakeVendor;
use super::dingtalk::DingTalk;
use super::entra::Entra;
use super::feishu::Feishu;
use super::managed_identity::ManagedIdentity;
use super::oauth2::OAuth2;
use super::wechat::WeChat;
use super::wecom::WeCom;

/// Starting. Each of these panics when no port can be had.
impl FakeVendor {
    /// WeCom. Errors come with status 200 and an `errcode`.
    ///
    /// | Grants | Accepts |
    /// |---|---|
    /// | `GET /cgi-bin/gettoken` | `corp`, `secret` |
    /// | `POST /cgi-bin/service/get_suite_token` | `suite`, `suite-secret` and a ticket |
    /// | `POST /cgi-bin/service/get_corp_token` | a live suite token, `auth-corp`, `permanent-code` |
    /// | `POST /cgi-bin/service/get_provider_token` | `corp`, `provider-secret` |
    /// | `GET /cgi-bin/get_jsapi_ticket` | a live token of an app |
    /// | `GET /cgi-bin/ticket/get?type=agent_config` | a live token of an app |
    ///
    /// As long as a token or a JS ticket lifetimes, it is given again to whoever asks, and `expires_in` tells its whole
    /// lifetime each time. A [ticket](FakeVendor::push_ticket) is good for 30 minutes.
    ///
    /// Tokens are used at `/cgi-bin/message/send`, those of a suite at `/cgi-bin/service/get_pre_auth_code`, those of a
    /// provider at `/cgi-bin/service/corpid_to_opencorpid`.
    pub fn wecom() -> FakeVendor {
        FakeVendor::start(&WeCom)
    }

    /// WeChat Official Accounts, Mini Programs and the Open Platform. Errors come with status 200 and an `errcode`.
    ///
    /// | Grants | Accepts |
    /// |---|---|
    /// | `POST /cgi-bin/stable_token` | `app`, `secret` |
    /// | `GET /cgi-bin/token` | `app`, `secret` |
    /// | `GET /cgi-bin/ticket/getticket` | a live token of the app |
    /// | `POST /cgi-bin/component/api_component_token` | `component`, `component-secret` and a ticket |
    /// | `POST /cgi-bin/component/api_authorizer_token` | a live component token, `authorizer`, `refresh-1` |
    ///
    /// - `stable_token` gives the same token and what is left of its lifetime, and a new one when that is less than
    ///   five minutes; then the old one lives to its end. `force_refresh` brings a new one and ends the old at once,
    ///   but not within 30 seconds of the last one, and 20 times a day.
    /// - `token` gives a new token each time, 2,000 a day; the one before dies after five minutes, or at its end.
    /// - A [ticket](FakeVendor::push_ticket) is good for 12 hours. The component token stays the same until ten
    ///   minutes of it are left.
    /// - Each `authorizer_refresh_token` is good once and brings the next one; used again it is refused with 61023.
    ///
    /// Tokens are used at `/cgi-bin/user/get`, which refuses what has ended with 42001 and all else with 40001; those
    /// of a component at `/cgi-bin/component/api_create_preauthcode`.
    pub fn wechat() -> FakeVendor {
        FakeVendor::start(&WeChat)
    }

    /// Feishu, and Lark, which is the same.
    ///
    /// | Grants | Accepts |
    /// |---|---|
    /// | `POST /open-apis/auth/v3/tenant_access_token/internal` | `app`, `secret` |
    /// | `POST /open-apis/auth/v3/app_access_token/internal` | `app`, `secret` |
    /// | `POST /open-apis/auth/v3/app_access_token` | `store`, `store-secret` and a ticket |
    /// | `POST /open-apis/auth/v3/tenant_access_token` | a live app token of a store app, `tenant` |
    /// | `POST /oauth/v3/token` | `app`, `secret`, in a header or in the form, or an assertion of `app` |
    ///
    /// A token is given again, with what is left of its lifetime, until that is less than 30 minutes; then a new one is
    /// granted and both live to their end.
    ///
    /// A [ticket](FakeVendor::push_ticket) is good for 12 hours. `POST /open-apis/auth/v3/app_ticket/resend` pushes
    /// nothing by itself: it is [counted](FakeVendor::ticket_resend_requests), and the test pushes the ticket when it
    /// likes.
    ///
    /// Tokens are used at `/open-apis/im/v1/messages`, which refuses them with status 400.
    pub fn feishu() -> FakeVendor {
        FakeVendor::start(&Feishu)
    }

    /// DingTalk: the old API, whose errors come with status 200 and an `errcode`, and the new one at `/v1.0`, whose
    /// errors have a status and a `code`.
    ///
    /// | Grants | Accepts |
    /// |---|---|
    /// | `GET /gettoken` | `app`, `secret` |
    /// | `POST /v1.0/oauth2/accessToken` | `app`, `secret` |
    /// | `POST /v1.0/oauth2/corp/token` | `app`, `secret` |
    /// | `POST /v1.0/oauth2/corpAccessToken` | `suite`, `suite-secret`, `corp` and a ticket |
    /// | `POST /v1.0/oauth2/suiteAccessToken` | `suite`, `suite-secret` and a ticket |
    ///
    /// A token is given again as long as it lifetimes, and lives its whole lifetime from then on. Only
    /// `corpAccessToken` grants a new one each time, and all of these live to their end. A
    /// [ticket](FakeVendor::push_ticket) is good until the next one is pushed.
    ///
    /// Tokens of any kind are used at all paths that begin with `/topapi/` (in the query), and at all others that begin
    /// with `/v1.0/` (in the header `x-acs-dingtalk-access-token`).
    pub fn dingtalk() -> FakeVendor {
        FakeVendor::start(&DingTalk)
    }

    /// Microsoft Entra: `POST /tenant/oauth2/v2.0/token`. The right credential is `client` and `secret`, in the form or
    /// in a header, or an assertion of `client`, whose signature is not looked at. The tenants of the Bot Framework,
    /// `botframework.com` and `MicrosoftServices.onmicrosoft.us`, are there too.
    ///
    /// Every call brings a new token, which lives an hour; all live to their end. With
    /// [`refresh_in`](FakeVendor::refresh_in) they come with that field.
    ///
    /// Tokens are used at `/v1.0/me`, as of Graph, and at `/v3/conversations`, as of the Bot Connector.
    pub fn entra() -> FakeVendor {
        FakeVendor::start(&Entra)
    }

    /// The managed identity of a machine at Azure: `GET /metadata/identity/oauth2/token` with the header
    /// `Metadata: true`, or `GET /msi/token` with `X-IDENTITY-HEADER: identity-header`, as of App Service. It is the
    /// machine's own identity, or with `client_id` the one named `client`.
    ///
    /// A token lives a day and is given again until less than half of that is left. All numbers are strings. Tokens are
    /// used at `/v1.0/me`, as of Graph.
    pub fn managed_identity() -> FakeVendor {
        FakeVendor::start(&ManagedIdentity)
    }

    /// OAuth 2.0: `POST /token`, and `/api` to use a token. The right credential is `client` and `secret`, in a header
    /// (`client_secret_basic`), in the form (`client_secret_post`), or with an assertion of `client`, whose signature
    /// is not looked at (`client_secret_jwt`, `private_key_jwt`). Every call brings a new token; all live to their end.
    ///
    /// | `grant_type` | Accepts |
    /// |---|---|
    /// | `client_credentials` | the client |
    /// | `refresh_token` | the client, with or without its secret, and `refresh-1` |
    /// | `urn:ietf:params:oauth:grant-type:jwt-bearer` | any `assertion`; a client is not needed |
    /// | `urn:ietf:params:oauth:grant-type:device_code` | the client, with or without its secret, and a device code |
    ///
    /// - Each refresh token is good once and brings the next one. One that was used before is refused with
    ///   `invalid_grant`, and all that descend from the same sign-in with it.
    /// - `POST /device_authorization` begins a sign-in. It takes ten minutes at most, until it is
    ///   [approved](FakeVendor::approve) or [denied](FakeVendor::deny). It is to be polled every five seconds,
    ///   [unless told otherwise](FakeVendor::device_interval); who polls faster is told to `slow_down`, and has to
    ///   wait five seconds more from then on. It brings a refresh token too.
    pub fn oauth2() -> FakeVendor {
        FakeVendor::start(&OAuth2)
    }
}
