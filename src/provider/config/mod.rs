//! Providers from a configuration file or from the environment, so that a program needs no code for each vendor.
//!
//! `kind.rs` lists the kinds of tokens with their fields and builds the providers. `setting.rs` has the types of
//! fields, such as the place of a secret. `value.rs` reads any format and describes wrong fields, `suggest.rs` finds
//! the name that a misspelled one was meant to be, and `environment.rs` maps environment variables to fields.

mod environment;
mod kind;
mod setting;
mod suggest;
mod value;

use std::fmt;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::error::Error;
use crate::key::Identity;
use crate::provider::config::kind::Kind;
use crate::provider::config::value::ConfigValue;
use crate::provider::{Context, Grant, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, Verdict};
use crate::secret::Secret;
use crate::token::TokenSource;

pub use environment::from_env;

/// A provider as a configuration describes it, in JSON, TOML, YAML or any other self-describing format of `serde`.
///
/// [`from_env`] reads the same from environment variables.
/// [`TokenManager::from_config`](crate::TokenManager::from_config) makes a manager from the configuration.
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
/// `provider` names the kind of token. A field in brackets is optional. A field that is not listed is an error, and the
/// error suggests the nearest known name.
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
/// | `oauth2` | those of a client, below, \[`grant_type`\] |
/// | `refresh-token` | *`refresh_token`*, and those of a client |
/// | `jwt-bearer` | `token_url`, *`key`*, `issuer`, \[`key_id`\], \[`algorithm`\], \[`subject`\], \[`audience`\], \[`scope`\], \[`claims`\], \[`params`\], \[`default_lifetime`\] |
/// | `google` | *`credentials`* (the JSON of the account), `scope`, \[`subject`\], \[`token_url`\] |
///
/// - A client has `token_url`, `client_id`, \[*`secret`*\], \[`auth`\], \[*`key`*\], \[`key_id`\], \[`algorithm`\],
///   \[`assertion_audience`\], \[`scope`\], \[`audience`\], \[`resource`\], \[`params`\] and \[`default_lifetime`\].
/// - `auth` is `basic` (default), `basic-raw`, `post`, `client-secret-jwt` or `none`, as in
///   [`ClientAuth`](crate::provider::oauth2::ClientAuth). A public client, which has no `secret`, sets `none`. With a
///   `key`, `auth` is `private-key-jwt` and may be left out.
/// - A `key` is a private key in PEM, and a `certificate` is a certificate in PEM. `algorithm` is `rs256`, `ps256` or
///   `es256`; the default follows from the key.
/// - `region` is `feishu` (default) or `lark`. `cloud` is `public` (default), `us-government` or `china`.
/// - `resource` of a client may be a list. `params` is an object of secrets, `claims` an object of texts.
///   `default_lifetime` is in seconds.
///
/// # Secrets
///
/// The *slanted* fields are secrets. A configuration never contains a secret but its place: `{"env": "NAME"}` or
/// `{"file": "path"}`. Anything else is an error that does not quote the value. (Some parsers, such as that of TOML,
/// show the line of the text that they refuse.) A secret is read when the manager is built; an `assertion` is read on
/// each fetch, because it is short-lived. A file has up to 64 KiB of UTF-8; a byte-order mark at its start and one line
/// break at its end are cut off. What remains of a secret of one line must have neither blanks around it nor control
/// characters in it, and neither must a variable. A `key`, `certificate` or `credentials` may have several lines.
///
/// # Parents and tickets
///
/// A kind whose token is derived from another token has a `parent`: the whole configuration of the other kind. Without
/// a `base_url` of its own it uses that of its parent.
///
/// A `ticket` is handed in once, when the manager is built, as by [`set_ticket`](crate::TokenManager::set_ticket). This
/// ticket counts as the latest one, so leave the field out where a callback hands tickets in through a shared store.
///
/// # As a provider
///
/// A configuration is a [`Provider`] itself, so that a [`TokenPool`](crate::TokenPool) can have tenants from
/// configurations. The secrets are read once, at the first use. A `ticket` counts until another one is recorded. A
/// `parent` needs a manager of its own, which only the program can make with the right store: give it with
/// [`parents`](ProviderConfig::parents).
///
/// ```
/// use evertoken::TokenPool;
/// use evertoken::provider::ProviderConfig;
///
/// # let text = r#"{"provider": "wecom", "corp_id": "ww1234567890abcdef", "secret": {"env": "PATH"}}"#;
/// let config: ProviderConfig = serde_json::from_str(text)?;
/// let pool = TokenPool::new();
/// let tokens = pool.manager(&"tenant-1", || config.clone())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ProviderConfig {
    kind: Kind,
    parents: Option<Arc<ParentSource>>,
    built: OnceCell<Result<Box<dyn Provider>, Error>>,
}

type ParentSource = dyn Fn(&ProviderConfig) -> Result<Arc<dyn TokenSource>, Error> + Send + Sync;

impl<'de> Deserialize<'de> for ProviderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ProviderConfig, D::Error> {
        let value = ConfigValue::deserialize(deserializer)?;
        if !matches!(value, ConfigValue::Fields(_)) {
            return Err(D::Error::custom("expected an object with the field `provider`"));
        }
        // A copy, because the error needs the fields that the first one is taken apart into.
        match Kind::deserialize(value.clone()) {
            Ok(kind) => Ok(ProviderConfig::from(kind)),
            Err(error) => Err(D::Error::custom(error.describe(&value))),
        }
    }
}

/// Returns the source of the tokens of a parent.
pub(crate) type Parents<'a> = &'a dyn Fn(&ProviderConfig) -> Result<Arc<dyn TokenSource>, Error>;

impl ProviderConfig {
    /// Sets where the tokens of a `parent` come from, when this configuration is used as a [`Provider`]. `source` gets the
    /// configuration of the parent and returns its manager.
    ///
    /// [`TokenManager::from_config`](crate::TokenManager::from_config) makes the managers of parents itself and ignores
    /// this setting.
    ///
    /// ```
    /// use evertoken::{MemoryStore, TokenManager, TokenPool};
    /// use evertoken::provider::ProviderConfig;
    ///
    /// # let text = r#"{"provider": "wecom-js-ticket", "kind": "corp", "parent":
    /// #     {"provider": "wecom", "corp_id": "ww1234567890abcdef", "secret": {"env": "PATH"}}}"#;
    /// let config: ProviderConfig = serde_json::from_str(text)?;
    /// let store = MemoryStore::new();
    /// let of_parents = store.clone();
    /// let config = config.parents(move |parent| {
    ///     TokenManager::from_config(parent, |builder| builder.store(of_parents.clone()))
    /// });
    /// let pool = TokenPool::with_settings(move |builder| builder.store(store.clone()));
    /// let tickets = pool.manager(&"tenant-1", || config.clone())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn parents<S: TokenSource>(
        self,
        source: impl Fn(&ProviderConfig) -> Result<S, Error> + Send + Sync + 'static,
    ) -> ProviderConfig {
        let source = move |parent: &ProviderConfig| Ok(Arc::new(source(parent)?) as Arc<dyn TokenSource>);
        ProviderConfig { parents: Some(Arc::new(source)), ..ProviderConfig::from(self.kind) }
    }

    /// Reads the secrets and builds the provider.
    pub(crate) fn provider(&self, parents: Parents<'_>) -> Result<Box<dyn Provider>, Error> {
        self.kind.provider(parents)
    }

    /// Reads the ticket that the configuration names.
    pub(crate) fn ticket(&self) -> Result<Option<Secret>, Error> {
        self.kind.ticket()
    }

    /// Returns the provider, which the first call builds.
    fn built(&self) -> Result<&dyn Provider, Error> {
        let build = || match &self.parents {
            Some(source) => self.provider(&|parent| source(parent)),
            None => self.provider(&|_| Err(Error::config(NO_PARENTS))),
        };
        self.built.get_or_init(build).as_deref().map_err(Error::clone)
    }
}

impl From<Kind> for ProviderConfig {
    fn from(kind: Kind) -> ProviderConfig {
        ProviderConfig { kind, parents: None, built: OnceCell::new() }
    }
}

/// A clone reads the secrets anew, so that a manager that is built later has the secrets of that time.
impl Clone for ProviderConfig {
    fn clone(&self) -> ProviderConfig {
        ProviderConfig { parents: self.parents.clone(), ..ProviderConfig::from(self.kind.clone()) }
    }
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProviderConfig").field(&self.kind).finish()
    }
}

/// Every method is that of the provider that the configuration describes. [`check`](Provider::check) and
/// [`fetch`](Provider::fetch) return the error of a configuration that describes none, and no other method is used then.
impl Provider for ProviderConfig {
    fn name(&self) -> &str {
        self.built().map_or(NAME, |provider| provider.name())
    }

    fn identity(&self) -> Identity {
        self.built().map_or_else(|_| Identity::new(NAME), |provider| provider.identity())
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.built()?.fetch(context)
    }

    fn check(&self) -> Result<(), Error> {
        self.ticket()?;
        self.built()?.check()
    }

    fn profile(&self) -> Profile {
        self.built().map_or_else(|_| Profile::default(), |provider| provider.profile())
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        self.built().ok()?.parent()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        let profile = self.built().ok()?.renewal()?;
        let ticket = self.ticket().ok().flatten();
        Some(RenewalProfile { initial: ticket.or(profile.initial), ..profile })
    }

    fn placement(&self) -> TokenPlacement {
        self.built().map_or_else(|_| TokenPlacement::bearer(), |provider| provider.placement())
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        self.built().map_or_else(|_| response.http_verdict(), |provider| provider.verdict(response))
    }
}

const NAME: &str = "configuration";

const NO_PARENTS: &str = "the parent needs a manager of its own; build this one with `TokenManager::from_config`, or set \
                          `ProviderConfig::parents`";
