//! One constructor for each vendor, with a table of the endpoints and the rules that the fake follows.

use super::FakeVendor;
use super::dingtalk::DingTalk;
use super::entra::Entra;
use super::feishu::Feishu;
use super::managed_identity::ManagedIdentity;
use super::oauth2::OAuth2;
use super::wechat::WeChat;
use super::wecom::WeCom;

/// # Starting a vendor
///
/// Each constructor starts a server on a free port and documents its endpoints, the credentials that it accepts from
/// the start, and its rules for tokens with the source of each rule. "Assumed" marks a rule on which the vendor's
/// documentation says nothing.
///
/// Each constructor panics if no port on `127.0.0.1` is free.
impl FakeVendor {
    /// Starts a fake WeCom server. Errors come with status 200 and an `errcode`.
    ///
    /// | Token endpoint | Accepts |
    /// |---|---|
    /// | `GET /cgi-bin/gettoken` | `corp`, `secret` |
    /// | `POST /cgi-bin/service/get_suite_token` | `suite`, `suite-secret` and a ticket |
    /// | `POST /cgi-bin/service/get_corp_token` | a valid suite token, `auth-corp`, `permanent-code` |
    /// | `POST /cgi-bin/service/get_provider_token` | `corp`, `provider-secret` |
    /// | `GET /cgi-bin/get_jsapi_ticket` | a valid token of an app |
    /// | `GET /cgi-bin/ticket/get?type=agent_config` | a valid token of an app |
    ///
    /// | API | Accepts |
    /// |---|---|
    /// | `/cgi-bin/message/send` | tokens of an app, own or authorized |
    /// | `/cgi-bin/service/get_pre_auth_code` | suite tokens |
    /// | `/cgi-bin/service/corpid_to_opencorpid` | provider tokens |
    ///
    /// - The token lifetime is two hours. While a token is valid, every call returns the same token
    ///   (<https://developer.work.weixin.qq.com/document/path/91039>; assumed for `get_corp_token`).
    /// - `expires_in` is the whole lifetime in every reply, also when less of it remains (observed by users of the API;
    ///   the documentation does not say so). JS tickets follow the same rules
    ///   (<https://developer.work.weixin.qq.com/document/path/96909>).
    /// - A [ticket](FakeVendor::push_ticket) is valid for 30 minutes
    ///   (<https://developer.work.weixin.qq.com/document/path/90628>).
    pub fn wecom() -> FakeVendor {
        FakeVendor::start(&WeCom)
    }

    /// Starts a fake WeChat server: Official Accounts, Mini Programs and the Open Platform. Errors come with status 200
    /// and an `errcode`.
    ///
    /// | Token endpoint | Accepts |
    /// |---|---|
    /// | `POST /cgi-bin/stable_token` | `app`, `secret` |
    /// | `GET /cgi-bin/token` | `app`, `secret` |
    /// | `GET /cgi-bin/ticket/getticket` | a valid token of the app |
    /// | `POST /cgi-bin/component/api_component_token` | `component`, `component-secret` and a ticket |
    /// | `POST /cgi-bin/component/api_authorizer_token` | a valid component token, `authorizer`, `refresh-1` |
    ///
    /// | API | Accepts |
    /// |---|---|
    /// | `/cgi-bin/user/get` | tokens of an app or an authorizer (expired: 42001, invalid: 40001) |
    /// | `/cgi-bin/component/api_create_preauthcode` | component tokens |
    ///
    /// - The token lifetime is two hours.
    /// - `stable_token` returns the same token and the remaining part of its lifetime. Less than five minutes before
    ///   the end a call returns a new token, and the old one works until it expires. Limit: 500,000 calls a day.
    /// - `stable_token` with `force_refresh` returns a new token and ends the old one at once, 20 times a day. A call
    ///   within 30 seconds of the last forced one returns the current token (this rule and the one above:
    ///   <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken.html>).
    /// - `token` returns a new token for each call. The one before works for five more minutes, or until it expires if
    ///   that is sooner. Limit: 2,000 calls a day (WeChat's pages "Get access token" and "API call limits").
    /// - `getticket` returns the same ticket while it is valid, with the whole lifetime in `expires_in` (assumed).
    /// - A [ticket](FakeVendor::push_ticket) is valid for 12 hours (WeChat Open Platform, "Verify ticket"). The
    ///   component token stays the same until ten minutes of it remain (assumed).
    /// - Each `authorizer_refresh_token` works once and brings the next one; a used one is rejected with 61023. WeChat
    ///   returns a refresh token with each reply and does not say whether the old one still works, so the fake takes
    ///   the strict case
    ///   (<https://developers.weixin.qq.com/doc/oplatform/openApi/ticket-token/api_getauthorizeraccesstoken.html>).
    pub fn wechat() -> FakeVendor {
        FakeVendor::start(&WeChat)
    }

    /// Starts a fake Feishu server. Lark has the same endpoints.
    ///
    /// | Token endpoint | Accepts |
    /// |---|---|
    /// | `POST /open-apis/auth/v3/tenant_access_token/internal` | `app`, `secret` |
    /// | `POST /open-apis/auth/v3/app_access_token/internal` | `app`, `secret` |
    /// | `POST /open-apis/auth/v3/app_access_token` | `store`, `store-secret` and a ticket |
    /// | `POST /open-apis/auth/v3/tenant_access_token` | a valid app token of a store app, `tenant` |
    /// | `POST /oauth/v3/token` | `app`, `secret`, in a header or in the form, or an assertion of `app` |
    ///
    /// Tokens of every kind are used at `/open-apis/im/v1/messages`, which rejects a token with status 400.
    ///
    /// - The token lifetime is two hours. A call returns the same token and the remaining part of its lifetime while at
    ///   least 30 minutes remain. After that a call returns a new token, and both work until they expire (Feishu's
    ///   pages "Get custom app tenant_access_token" and "Get custom app app_access_token"; assumed for
    ///   `/oauth/v3/token`).
    /// - A [ticket](FakeVendor::push_ticket) is valid for 12 hours (assumed).
    /// - `POST /open-apis/auth/v3/app_ticket/resend` is [counted](FakeVendor::ticket_resend_requests) and pushes
    ///   nothing. The test pushes the ticket with [`push_ticket`](FakeVendor::push_ticket), as the real ticket arrives
    ///   later, by an event.
    pub fn feishu() -> FakeVendor {
        FakeVendor::start(&Feishu)
    }

    /// Starts a fake DingTalk server with both APIs: the classic one, whose errors come with status 200 and an
    /// `errcode`, and the new one at `/v1.0`, whose errors have a status and a `code`.
    ///
    /// | Token endpoint | Accepts |
    /// |---|---|
    /// | `GET /gettoken` | `app`, `secret` |
    /// | `POST /v1.0/oauth2/accessToken` | `app`, `secret` |
    /// | `POST /v1.0/oauth2/corp/token` | `app`, `secret` |
    /// | `POST /v1.0/oauth2/corpAccessToken` | `suite`, `suite-secret`, `corp` and a ticket |
    /// | `POST /v1.0/oauth2/suiteAccessToken` | `suite`, `suite-secret` and a ticket |
    ///
    /// Tokens of every kind are used at all paths that begin with `/topapi/` (in the query), and at all other paths
    /// that begin with `/v1.0/` (in the header `x-acs-dingtalk-access-token`).
    ///
    /// - The token lifetime is two hours. While a token is valid, a call returns the same token and restarts its
    ///   lifetime (DingTalk's pages on `gettoken` and `accessToken`; assumed for `token` and `suiteAccessToken`).
    /// - `corpAccessToken` returns a new token for each call (DingTalk's page on `corpAccessToken`). Earlier ones work
    ///   until they expire (assumed).
    /// - A [ticket](FakeVendor::push_ticket) is valid until the next one is pushed (DingTalk's page on suite tickets).
    pub fn dingtalk() -> FakeVendor {
        FakeVendor::start(&DingTalk)
    }

    /// Starts a fake Microsoft Entra server: `POST /tenant/oauth2/v2.0/token`.
    ///
    /// The accepted credential is `client` and `secret`, in the form or in a header, or an assertion of `client`. The
    /// signature of an assertion is not verified. The tenants of the Bot Framework, `botframework.com` and
    /// `MicrosoftServices.onmicrosoft.us`, exist too.
    ///
    /// Tokens are used at `/v1.0/me`, as at Microsoft Graph, and at `/v3/conversations`, as at the Bot Connector.
    ///
    /// - Each call returns a new token, and all tokens work until they expire. Entra issues self-contained tokens with
    ///   an `exp` claim and does not withdraw them (Microsoft's page "Access tokens in the Microsoft identity
    ///   platform").
    /// - The token lifetime is one hour. Real lifetimes vary, usually between 60 and 90 minutes (same page).
    /// - Replies have a `refresh_in` field if the test sets [`refresh_in`](FakeVendor::refresh_in).
    pub fn entra() -> FakeVendor {
        FakeVendor::start(&Entra)
    }

    /// Starts a fake managed identity endpoint of Azure.
    ///
    /// | Token endpoint | Requires |
    /// |---|---|
    /// | `GET /metadata/identity/oauth2/token`, of a virtual machine | the header `Metadata: true` |
    /// | `GET /msi/token`, of App Service | the header `X-IDENTITY-HEADER: identity-header` |
    ///
    /// The identity is the machine's own, or with the parameter `client_id` the one named `client`. Tokens are used at
    /// `/v1.0/me`, as at Microsoft Graph.
    ///
    /// - All numbers in replies are strings (Microsoft's page "How to use managed identities for Azure resources on an
    ///   Azure VM to acquire an access token").
    /// - The token lifetime is 24 hours. A call returns the same token until less than half of its lifetime remains
    ///   (the platform caches tokens; the exact rule is assumed).
    pub fn managed_identity() -> FakeVendor {
        FakeVendor::start(&ManagedIdentity)
    }

    /// Starts an OAuth 2.0 authorization server (RFC 6749) and an API: `POST /token` grants tokens, and `/api` accepts
    /// them in the header `Authorization` (RFC 6750).
    ///
    /// The accepted credential is `client` and `secret`: in a header (`client_secret_basic`), in the form
    /// (`client_secret_post`), or as an assertion of `client` (`client_secret_jwt`, `private_key_jwt`). The signature
    /// of an assertion is not verified.
    ///
    /// | `grant_type` | Accepts |
    /// |---|---|
    /// | `client_credentials` | the client |
    /// | `refresh_token` | the client, with or without its secret, and `refresh-1` |
    /// | `urn:ietf:params:oauth:grant-type:jwt-bearer` | any `assertion`; a client is not needed |
    /// | `urn:ietf:params:oauth:grant-type:device_code` | the client, with or without its secret, and a device code |
    ///
    /// - The token lifetime is two hours. Each call returns a new token, and all tokens work until they expire. The
    ///   RFCs leave this to the server.
    /// - Each refresh token works once and brings the next one. A used refresh token is rejected with `invalid_grant`,
    ///   and all refresh tokens from the same sign-in are revoked (RFC 9700 section 4.14.2).
    ///   [`rotating(false)`](FakeVendor::rotating) turns rotation off.
    /// - `POST /device_authorization` starts a sign-in on a device (RFC 8628). The test [approves](FakeVendor::approve)
    ///   or [denies](FakeVendor::deny) it; after ten minutes the sign-in expires.
    /// - A device may poll every five seconds, or at the interval that [`device_interval`](FakeVendor::device_interval)
    ///   sets. A poll that comes too early is rejected with `slow_down`, and the interval grows by five seconds (RFC
    ///   8628 section 3.5). An approved sign-in brings a refresh token too.
    pub fn oauth2() -> FakeVendor {
        FakeVendor::start(&OAuth2)
    }
}
