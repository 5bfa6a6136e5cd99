//! Providers out of a configuration, so that a program needs no code for each vendor.

mod environment;
mod kind;
mod setting;

use std::sync::Arc;

use serde::Deserialize;

use crate::error::Error;
use crate::provider::Provider;
use crate::provider::config::kind::Kind;
use crate::secret::Secret;
use crate::token::TokenSource;

pub use environment::from_env;

/// A provider as a configuration describes it: JSON, TOML, YAML, whatever `serde` reads, or the environment with
/// [`from_env`]. [`TokenManager::from_config`](crate::TokenManager::from_config) makes a manager of it.
///
/// ```
/// use evertoken::provider::ProviderConfig;
///
/// let config: ProviderConfig = serde_json::from_str(
///     r#"{"provider": "wecom", "corp_id": "ww1234567890abcdef", "secret": {"file": "/run/secrets/wecom"}}"#,
/// )?;
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Kinds
///
/// `provider` names the kind of token. A field in brackets may be left out; a field that is not listed is refused.
///
/// | `provider` | fields |
/// |---|---|
/// | `wecom` | `corp_id`, *`secret`*, \[`base_url`\] |
/// | `wecom-service-provider` | `corp_id`, *`secret`*, \[`base_url`\] |
/// | `wecom-suite` | `suite_id`, *`secret`*, \[*`ticket`*\], \[`base_url`\] |
/// | `wecom-authorized-corp` | `corp_id`, *`permanent_code`*, `parent`: a `wecom-suite`, \[`base_url`\] |
/// | `wecom-js-ticket` | `kind`: `corp` or `agent`, `parent`: a `wecom` or `wecom-authorized-corp`, \[`base_url`\] |
/// | `wechat` | `app_id`, *`secret`*, \[`base_url`\] |
/// | `wechat-classic` | `app_id`, *`secret`*, \[`base_url`\] |
/// | `wechat-component` | `app_id`, *`secret`*, \[*`ticket`*\], \[`base_url`\] |
/// | `wechat-authorizer` | `app_id`, *`refresh_token`*, `parent`: a `wechat-component`, \[`base_url`\] |
/// | `wechat-js-ticket` | \[`kind`: `jsapi` or `card`\], `parent`: a `wechat`, `wechat-classic` or `wechat-authorizer`, \[`base_url`\] |
/// | `feishu` | `app_id`, *`secret`*, \[`region`\], \[`base_url`\] |
/// | `feishu-app-token` | `app_id`, *`secret`*, \[`region`\], \[`base_url`\] |
/// | `feishu-oauth` | `app_id`, *`secret`*, \[`region`\], \[`base_url`\] |
/// | `feishu-store-app` | `app_id`, *`secret`*, \[*`ticket`*\], \[`region`\], \[`base_url`\] |
/// | `feishu-tenant` | `tenant_key`, `parent`: a `feishu-store-app`, \[`base_url`\] |
/// | `dingtalk` | `app_key`, *`secret`*, \[`base_url`\] |
/// | `dingtalk-classic` | `app_key`, *`secret`*, \[`base_url`\] |
/// | `dingtalk-unified` | `corp_id`, `client_id`, *`secret`*, \[`base_url`\] |
/// | `dingtalk-suite` | `suite_key`, *`secret`*, \[*`ticket`*\], \[`base_url`\] |
/// | `dingtalk-authorized-corp` | `suite_key`, *`secret`*, `corp_id`, \[*`ticket`*\], \[`base_url`\] |
/// | `entra` | `tenant`, `client_id`, *`secret`*, \[`scope`\], \[`cloud`\], \[`authority`\] |
/// | `entra-certificate` | `tenant`, `client_id`, *`certificate`*, *`key`*, \[`scope`\], \[`cloud`\], \[`authority`\] |
/// | `entra-federated` | `tenant`, `client_id`, *`assertion`*, \[`scope`\], \[`cloud`\], \[`authority`\] |
/// | `bot-framework` | `app_id`, *`secret`*, \[`tenant`\], \[`cloud`\], \[`authority`\] |
/// | `managed-identity` | `resource`, \[`client_id`\], \[`base_url`\] |
/// | `oauth2` | those of a client, below |
/// | `refresh-token` | *`refresh_token`*, and those of a client |
/// | `jwt-bearer` | `token_url`, *`key`*, `issuer`, \[`key_id`\], \[`algorithm`\], \[`subject`\], \[`audience`\], \[`scope`\], \[`claims`\], \[`params`\], \[`default_lifetime`\] |
/// | `google` | *`credentials`* (the JSON of the account), `scope`, \[`subject`\], \[`token_url`\] |
///
/// - A client has `token_url`, `client_id`, \[*`secret`*\], \[`auth`\], \[*`key`*\], \[`key_id`\], \[`algorithm`\],
///   \[`assertion_audience`\], \[`scope`\], \[`audience`\], \[`resource`\], \[`params`\] and \[`default_lifetime`\].
/// - `auth` is `basic`, `basic-raw`, `post`, `client-secret-jwt` or `none` ([`ClientAuth`](crate::provider::oauth2::ClientAuth)), which
///   is said where there is no `secret`. With a `key` it is `private-key-jwt` and need not be said.
/// - A `key` is a private key in PEM, a `certificate` too. `algorithm` is `rs256`, `ps256` or `es256`, where the key's
///   own choice will not do.
/// - `region` is `feishu` (default) or `lark`; `cloud` is `public` (default), `us-government` or `china`.
/// - `resource` of a client may be a list; `params` is an object of secrets, `claims` one of texts; `default_lifetime` is
///   in seconds.
///
/// # Secrets
///
/// What is *slanted* above is a secret, and a secret is never written down in a configuration: it is `{"env": "NAME"}`
/// or `{"file": "path"}`. Anything else is refused, and not quoted. It is read when the manager is built; an
/// `assertion` on each fetch, because it is short-lived. A file has up to 64 KiB of UTF-8, and one line break at its
/// end is cut off. (Some parsers, that of TOML among them, show the line of the text that they refuse: that is not in
/// our hands.)
///
/// # Parents and tickets
///
/// A kind that is granted for another token has `parent`: the whole configuration of that one. Where it says no
/// `base_url` of its own it asks where its parent asks. A `ticket` is handed in once, as by
/// [`set_ticket`](crate::TokenManager::set_ticket), when the manager is built; it counts as the latest, so leave it out
/// where a callback hands tickets in through a shared store.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct ProviderConfig(Kind);

/// Gives the source of the tokens of a parent.
pub(crate) type Parents<'a> = &'a dyn Fn(&ProviderConfig) -> Result<Arc<dyn TokenSource>, Error>;

impl ProviderConfig {
    /// The provider itself. Reads its secrets.
    pub(crate) fn provider(&self, parents: Parents<'_>) -> Result<Box<dyn Provider>, Error> {
        self.0.provider(parents)
    }

    /// The ticket that the configuration names.
    pub(crate) fn ticket(&self) -> Result<Option<Secret>, Error> {
        self.0.ticket()
    }
}
