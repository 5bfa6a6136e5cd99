//! The kinds of tokens that can be configured: fields of each kind, and the provider that the kind makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::Error;
use crate::provider::Provider;
use crate::provider::config::setting::{Claim, Seconds, SecretFrom, Url, Urls};
use crate::provider::config::{Parents, ProviderConfig};
use crate::provider::dingtalk::{DingTalk, DingTalkAuthorizedCorp, DingTalkClassic, DingTalkSuite, DingTalkUnified};
use crate::provider::feishu::{Feishu, FeishuAppToken, FeishuOAuth, FeishuStoreApp, FeishuTenant};
use crate::provider::microsoft::{BotFramework, Certificate, Cloud, Entra, ManagedIdentity};
use crate::provider::oauth2::{ClientAuth, GoogleServiceAccount, JwtBearer, OAuth2, RefreshToken, SigningKey};
use crate::provider::wechat::{WeChat, WeChatAuthorizer, WeChatClassic, WeChatComponent, WeChatJsTicket};
use crate::provider::wecom::{WeCom, WeComAuthorizedCorp, WeComJsTicket, WeComServiceProvider, WeComSuite};
use crate::secret::Secret;
use crate::token::TokenSource;

/// A kind of token, selected by the field `provider`, and the fields of the kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "provider", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Kind {
    Wecom {
        corp_id: String,
        secret: SecretFrom,
        base_url: Option<Url>,
    },
    WecomServiceProvider {
        corp_id: String,
        secret: SecretFrom,
        base_url: Option<Url>,
    },
    WecomSuite {
        suite_id: String,
        secret: SecretFrom,
        ticket: Option<SecretFrom>,
        base_url: Option<Url>,
    },
    WecomAuthorizedCorp {
        corp_id: String,
        permanent_code: SecretFrom,
        parent: Parent,
        base_url: Option<Url>,
    },
    WecomJsTicket {
        kind: WecomTicket,
        parent: Parent,
        base_url: Option<Url>,
    },

    Wechat {
        app_id: String,
        secret: SecretFrom,
        base_url: Option<Url>,
    },
    WechatClassic {
        app_id: String,
        secret: SecretFrom,
        base_url: Option<Url>,
    },
    WechatComponent {
        app_id: String,
        secret: SecretFrom,
        ticket: Option<SecretFrom>,
        base_url: Option<Url>,
    },
    WechatAuthorizer {
        app_id: String,
        refresh_token: SecretFrom,
        parent: Parent,
        base_url: Option<Url>,
    },
    WechatJsTicket {
        kind: Option<WechatTicket>,
        parent: Parent,
        base_url: Option<Url>,
    },

    Feishu(FeishuFields),
    FeishuAppToken(FeishuFields),
    #[serde(rename = "feishu-oauth")]
    FeishuOAuth(FeishuFields),
    FeishuStoreApp {
        app_id: String,
        secret: SecretFrom,
        ticket: Option<SecretFrom>,
        region: Option<Region>,
        base_url: Option<Url>,
    },
    FeishuTenant {
        tenant_key: String,
        parent: Parent,
        base_url: Option<Url>,
    },

    Dingtalk {
        app_key: String,
        secret: SecretFrom,
        base_url: Option<Url>,
    },
    DingtalkClassic {
        app_key: String,
        secret: SecretFrom,
        base_url: Option<Url>,
    },
    DingtalkUnified {
        corp_id: String,
        client_id: String,
        secret: SecretFrom,
        base_url: Option<Url>,
    },
    DingtalkSuite {
        suite_key: String,
        secret: SecretFrom,
        ticket: Option<SecretFrom>,
        base_url: Option<Url>,
    },
    DingtalkAuthorizedCorp {
        suite_key: String,
        secret: SecretFrom,
        corp_id: String,
        ticket: Option<SecretFrom>,
        base_url: Option<Url>,
    },

    Entra {
        tenant: String,
        client_id: String,
        secret: SecretFrom,
        scope: Option<String>,
        cloud: Option<Cloud>,
        authority: Option<Url>,
    },
    EntraCertificate {
        tenant: String,
        client_id: String,
        certificate: SecretFrom,
        key: SecretFrom,
        scope: Option<String>,
        cloud: Option<Cloud>,
        authority: Option<Url>,
    },
    EntraFederated {
        tenant: String,
        client_id: String,
        assertion: SecretFrom,
        scope: Option<String>,
        cloud: Option<Cloud>,
        authority: Option<Url>,
    },
    BotFramework {
        app_id: String,
        secret: SecretFrom,
        tenant: Option<String>,
        cloud: Option<Cloud>,
        authority: Option<Url>,
    },
    ManagedIdentity {
        resource: String,
        client_id: Option<String>,
        base_url: Option<Url>,
    },

    Oauth2(Box<OAuth2Fields>),
    RefreshToken(Box<RefreshTokenFields>),
    JwtBearer(Box<JwtBearerFields>),
    Google {
        credentials: SecretFrom,
        scope: String,
        subject: Option<String>,
        token_url: Option<Url>,
    },
}

pub(super) type Parent = Box<ProviderConfig>;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeishuFields {
    app_id: String,
    secret: SecretFrom,
    region: Option<Region>,
    base_url: Option<Url>,
}

/// The fields of a client of an OAuth 2.0 server, and further fields. A macro, because `serde` cannot refuse unknown
/// fields of a struct that is flattened into another.
macro_rules! client_fields {
    ($name:ident { $($more:ident: $kind:ty),* }) => {
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            token_url: Url,
            client_id: String,
            secret: Option<SecretFrom>,
            auth: Option<ClientAuth>,
            key: Option<SecretFrom>,
            key_id: Option<String>,
            algorithm: Option<Algorithm>,
            assertion_audience: Option<Url>,
            scope: Option<String>,
            audience: Option<Url>,
            #[serde(default)]
            resource: Urls,
            #[serde(default)]
            params: BTreeMap<String, SecretFrom>,
            default_lifetime: Option<Seconds>,
            $($more: $kind,)*
        }

        impl $name {
            fn client(&self) -> Result<OAuth2, Error> {
                let client = self.with_authentication()?;
                let client = with(client, &self.assertion_audience, OAuth2::assertion_audience);
                let client = with(client, &self.scope, OAuth2::scope);
                let client = with(client, &self.audience, OAuth2::audience);
                let client = self.resource.0.iter().fold(client, |client, url| client.resource(url));
                let client =
                    with(client, &self.default_lifetime, |client, lifetime| client.default_lifetime(lifetime.0));
                self.params.iter().try_fold(client, |client, (name, value)| {
                    Ok(client.param(name, value.read_parameter(&format!("params.{name}"))?))
                })
            }

            fn with_authentication(&self) -> Result<OAuth2, Error> {
                let Some(key) = &self.key else {
                    if self.key_id.is_some() || self.algorithm.is_some() {
                        return Err(Error::config("key_id and algorithm belong to a key, and no key is set; set `key`"));
                    }
                    let auth = self.auth.unwrap_or_default();
                    return match &self.secret {
                        None if auth == ClientAuth::None => Ok(OAuth2::public(&self.token_url, &self.client_id)),
                        None => Err(Error::config(NO_AUTHENTICATION)),
                        Some(secret) => {
                            Ok(OAuth2::new(&self.token_url, &self.client_id, secret.read("secret")?).auth(auth))
                        }
                    };
                };
                if self.secret.is_some() || self.auth.is_some_and(|auth| auth != ClientAuth::PrivateKeyJwt) {
                    return Err(Error::config(KEY_EXCLUDES_SECRET));
                }
                let key = signing_key(key, &self.key_id, self.algorithm)?;
                Ok(OAuth2::private_key_jwt(&self.token_url, &self.client_id, key))
            }
        }
    };
}

client_fields!(OAuth2Fields { grant_type: Option<String> });
client_fields!(RefreshTokenFields { refresh_token: SecretFrom });

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtBearerFields {
    token_url: Url,
    key: SecretFrom,
    key_id: Option<String>,
    algorithm: Option<Algorithm>,
    issuer: String,
    subject: Option<String>,
    audience: Option<Url>,
    scope: Option<String>,
    #[serde(default)]
    claims: BTreeMap<String, Claim>,
    #[serde(default)]
    params: BTreeMap<String, SecretFrom>,
    default_lifetime: Option<Seconds>,
}

impl JwtBearerFields {
    fn provider(&self) -> Result<JwtBearer, Error> {
        let key = signing_key(&self.key, &self.key_id, self.algorithm)?;
        let provider = JwtBearer::new(&self.token_url, key).issuer(&self.issuer);
        let provider = with(provider, &self.subject, JwtBearer::subject);
        let provider = with(provider, &self.audience, JwtBearer::audience);
        let provider = with(provider, &self.scope, JwtBearer::scope);
        let provider =
            with(provider, &self.default_lifetime, |provider, lifetime| provider.default_lifetime(lifetime.0));
        let provider = self.claims.iter().fold(provider, |provider, (name, value)| provider.claim(name, value));
        self.params.iter().try_fold(provider, |provider, (name, value)| {
            Ok(provider.param(name, value.read_parameter(&format!("params.{name}"))?))
        })
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WecomTicket {
    Corp,
    Agent,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WechatTicket {
    Jsapi,
    Card,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Region {
    Feishu,
    Lark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Algorithm {
    Rs256,
    Ps256,
    Es256,
}

impl Kind {
    /// Reads the secrets and builds the provider.
    pub(super) fn provider(&self, parents: Parents<'_>) -> Result<Box<dyn Provider>, Error> {
        match self {
            Kind::Wecom { corp_id, secret, base_url } => {
                boxed(with(WeCom::new(corp_id, secret.read("secret")?), base_url, WeCom::base_url))
            }
            Kind::WecomServiceProvider { corp_id, secret, base_url } => {
                let provider = WeComServiceProvider::new(corp_id, secret.read("secret")?);
                boxed(with(provider, base_url, WeComServiceProvider::base_url))
            }
            Kind::WecomSuite { suite_id, secret, base_url, .. } => {
                boxed(with(WeComSuite::new(suite_id, secret.read("secret")?), base_url, WeComSuite::base_url))
            }
            Kind::WecomAuthorizedCorp { corp_id, permanent_code, parent, base_url } => {
                let suite = parent.source(&["wecom-suite"], parents)?;
                let provider = WeComAuthorizedCorp::new(suite, corp_id, permanent_code.read("permanent_code")?);
                boxed(with(provider, &parent.url_or(base_url), WeComAuthorizedCorp::base_url))
            }
            Kind::WecomJsTicket { kind, parent, base_url } => {
                let tokens = parent.source(&["wecom", "wecom-authorized-corp"], parents)?;
                let provider = match kind {
                    WecomTicket::Corp => WeComJsTicket::corp(tokens),
                    WecomTicket::Agent => WeComJsTicket::agent(tokens),
                };
                boxed(with(provider, &parent.url_or(base_url), WeComJsTicket::base_url))
            }

            Kind::Wechat { app_id, secret, base_url } => {
                boxed(with(WeChat::new(app_id, secret.read("secret")?), base_url, WeChat::base_url))
            }
            Kind::WechatClassic { app_id, secret, base_url } => {
                boxed(with(WeChatClassic::new(app_id, secret.read("secret")?), base_url, WeChatClassic::base_url))
            }
            Kind::WechatComponent { app_id, secret, base_url, .. } => {
                boxed(with(WeChatComponent::new(app_id, secret.read("secret")?), base_url, WeChatComponent::base_url))
            }
            Kind::WechatAuthorizer { app_id, refresh_token, parent, base_url } => {
                let component = parent.source(&["wechat-component"], parents)?;
                let refresh_token = refresh_token.read("refresh_token")?;
                let provider = WeChatAuthorizer::new(component, parent.app_id(), app_id, refresh_token);
                boxed(with(provider, &parent.url_or(base_url), WeChatAuthorizer::base_url))
            }
            Kind::WechatJsTicket { kind, parent, base_url } => {
                let tokens = parent.source(&["wechat", "wechat-classic", "wechat-authorizer"], parents)?;
                let provider = match kind {
                    Some(WechatTicket::Jsapi) | None => WeChatJsTicket::new(tokens),
                    Some(WechatTicket::Card) => WeChatJsTicket::card(tokens),
                };
                boxed(with(provider, &parent.url_or(base_url), WeChatJsTicket::base_url))
            }

            Kind::Feishu(app) => {
                let provider = Feishu::new(&app.app_id, app.secret.read("secret")?);
                let provider = with(provider, &lark(app.region), |app, ()| app.lark());
                boxed(with(provider, &app.base_url, Feishu::base_url))
            }
            Kind::FeishuAppToken(app) => {
                let provider = FeishuAppToken::new(&app.app_id, app.secret.read("secret")?);
                let provider = with(provider, &lark(app.region), |app, ()| app.lark());
                boxed(with(provider, &app.base_url, FeishuAppToken::base_url))
            }
            Kind::FeishuOAuth(app) => {
                let provider = FeishuOAuth::new(&app.app_id, app.secret.read("secret")?);
                let provider = with(provider, &lark(app.region), |app, ()| app.lark());
                boxed(with(provider, &app.base_url, FeishuOAuth::base_url))
            }
            Kind::FeishuStoreApp { app_id, secret, region, base_url, .. } => {
                let provider = FeishuStoreApp::new(app_id, secret.read("secret")?);
                let provider = with(provider, &lark(*region), |app, ()| app.lark());
                boxed(with(provider, base_url, FeishuStoreApp::base_url))
            }
            Kind::FeishuTenant { tenant_key, parent, base_url } => {
                let provider = FeishuTenant::new(parent.source(&["feishu-store-app"], parents)?, tenant_key);
                let provider = with(provider, &lark(parent.region()), |app, ()| app.lark());
                boxed(with(provider, &parent.url_or(base_url), FeishuTenant::base_url))
            }

            Kind::Dingtalk { app_key, secret, base_url } => {
                boxed(with(DingTalk::new(app_key, secret.read("secret")?), base_url, DingTalk::base_url))
            }
            Kind::DingtalkClassic { app_key, secret, base_url } => {
                boxed(with(DingTalkClassic::new(app_key, secret.read("secret")?), base_url, DingTalkClassic::base_url))
            }
            Kind::DingtalkUnified { corp_id, client_id, secret, base_url } => {
                let provider = DingTalkUnified::new(corp_id, client_id, secret.read("secret")?);
                boxed(with(provider, base_url, DingTalkUnified::base_url))
            }
            Kind::DingtalkSuite { suite_key, secret, base_url, .. } => {
                boxed(with(DingTalkSuite::new(suite_key, secret.read("secret")?), base_url, DingTalkSuite::base_url))
            }
            Kind::DingtalkAuthorizedCorp { suite_key, secret, corp_id, base_url, .. } => {
                let provider = DingTalkAuthorizedCorp::new(suite_key, secret.read("secret")?, corp_id);
                boxed(with(provider, base_url, DingTalkAuthorizedCorp::base_url))
            }

            Kind::Entra { tenant, client_id, secret, scope, cloud, authority } => {
                entra(Entra::new(tenant, client_id, secret.read("secret")?), scope, *cloud, authority)
            }
            Kind::EntraCertificate { tenant, client_id, certificate, key, scope, cloud, authority } => {
                let certificate = Certificate::from_pem(certificate.read_document("certificate")?.expose());
                let certificate = certificate.map_err(|error| error.of("certificate"))?;
                // Entra prescribes PS256 and identifies the key by its certificate, so neither is a setting.
                let key = signing_key(key, &None, None)?;
                entra(Entra::certificate(tenant, client_id, certificate, key), scope, *cloud, authority)
            }
            Kind::EntraFederated { tenant, client_id, assertion, scope, cloud, authority } => {
                // Read on each fetch: the file of an assertion is replaced before the assertion expires.
                let assertion = assertion.clone();
                let provider = Entra::federated(tenant, client_id, move || assertion.read("assertion"));
                entra(provider, scope, *cloud, authority)
            }
            Kind::BotFramework { app_id, secret, tenant, cloud, authority } => {
                let provider = BotFramework::new(app_id, secret.read("secret")?);
                let provider = match cloud {
                    Some(Cloud::Public) | None => provider,
                    Some(Cloud::UsGovernment) => provider.us_government(),
                    Some(Cloud::China) => {
                        return Err(Error::config(
                            "cloud: Bot Framework does not exist in china; use public or us-government",
                        ));
                    }
                };
                boxed(with(with(provider, tenant, BotFramework::tenant), authority, BotFramework::authority))
            }
            Kind::ManagedIdentity { resource, client_id, base_url } => {
                let provider = with(ManagedIdentity::new(resource), client_id, ManagedIdentity::client_id);
                boxed(with(provider, base_url, ManagedIdentity::base_url))
            }

            Kind::Oauth2(fields) => boxed(with(fields.client()?, &fields.grant_type, OAuth2::grant_type)),
            Kind::RefreshToken(fields) => {
                boxed(RefreshToken::new(fields.client()?, fields.refresh_token.read("refresh_token")?))
            }
            Kind::JwtBearer(fields) => boxed(fields.provider()?),
            Kind::Google { credentials, scope, subject, token_url } => {
                let provider = GoogleServiceAccount::from_json(credentials.read_document("credentials")?)?.scope(scope);
                let provider = with(provider, subject, GoogleServiceAccount::subject);
                boxed(with(provider, token_url, GoogleServiceAccount::token_url))
            }
        }
    }

    /// Reads the ticket, for a kind that needs one.
    pub(super) fn ticket(&self) -> Result<Option<Secret>, Error> {
        match self {
            Kind::WecomSuite { ticket, .. }
            | Kind::WechatComponent { ticket, .. }
            | Kind::FeishuStoreApp { ticket, .. }
            | Kind::DingtalkSuite { ticket, .. }
            | Kind::DingtalkAuthorizedCorp { ticket, .. } => {
                ticket.as_ref().map(|ticket| ticket.read("ticket")).transpose()
            }
            _ => Ok(None),
        }
    }

    /// Returns the name of a kind that can be a parent.
    fn name(&self) -> &'static str {
        match self {
            Kind::Wecom { .. } => "wecom",
            Kind::WecomSuite { .. } => "wecom-suite",
            Kind::WecomAuthorizedCorp { .. } => "wecom-authorized-corp",
            Kind::Wechat { .. } => "wechat",
            Kind::WechatClassic { .. } => "wechat-classic",
            Kind::WechatComponent { .. } => "wechat-component",
            Kind::WechatAuthorizer { .. } => "wechat-authorizer",
            Kind::FeishuStoreApp { .. } => "feishu-store-app",
            _ => "another",
        }
    }

    fn base_url(&self) -> Option<Url> {
        match self {
            Kind::Wecom { base_url, .. }
            | Kind::WecomSuite { base_url, .. }
            | Kind::Wechat { base_url, .. }
            | Kind::WechatClassic { base_url, .. }
            | Kind::WechatComponent { base_url, .. }
            | Kind::FeishuStoreApp { base_url, .. } => base_url.clone(),
            Kind::WecomAuthorizedCorp { base_url, parent, .. } | Kind::WechatAuthorizer { base_url, parent, .. } => {
                parent.url_or(base_url)
            }
            _ => None,
        }
    }
}

/// Access to the configuration of a parent, for a derived kind.
impl ProviderConfig {
    /// Returns the source of the parent's tokens. Only the `expected` kinds can be the parent, which bounds the number
    /// of nested parents, too.
    fn source(&self, expected: &[&str], parents: Parents<'_>) -> Result<Arc<dyn TokenSource>, Error> {
        if !expected.contains(&self.kind.name()) {
            return Err(Error::config(format!("parent: the provider must be {}", expected.join(" or "))));
        }
        parents(self)
    }

    /// Returns the base URL of the derived kind, or else of its parent: the parent's token must not be sent to another
    /// host unless the configuration says so.
    fn url_or(&self, own: &Option<Url>) -> Option<Url> {
        own.clone().or_else(|| self.kind.base_url())
    }

    fn region(&self) -> Option<Region> {
        match &self.kind {
            Kind::FeishuStoreApp { region, .. } => *region,
            _ => None,
        }
    }

    fn app_id(&self) -> &str {
        match &self.kind {
            Kind::WechatComponent { app_id, .. } => app_id,
            _ => "",
        }
    }
}

/// Applies an optional setting to a provider.
fn with<'a, P, T>(provider: P, setting: &'a Option<T>, set: impl FnOnce(P, &'a T) -> P) -> P {
    match setting {
        Some(setting) => set(provider, setting),
        None => provider,
    }
}

fn boxed(provider: impl Provider) -> Result<Box<dyn Provider>, Error> {
    Ok(Box::new(provider))
}

fn lark(region: Option<Region>) -> Option<()> {
    (region == Some(Region::Lark)).then_some(())
}

fn entra(
    provider: Entra,
    scope: &Option<String>,
    cloud: Option<Cloud>,
    authority: &Option<Url>,
) -> Result<Box<dyn Provider>, Error> {
    let provider = with(with(provider, scope, Entra::scope), &cloud, |app, cloud| app.cloud(*cloud));
    boxed(with(provider, authority, Entra::authority))
}

fn signing_key(key: &SecretFrom, key_id: &Option<String>, algorithm: Option<Algorithm>) -> Result<SigningKey, Error> {
    let key = SigningKey::from_pem(key.read_document("key")?).map_err(|error| error.of("key"))?;
    let key = if algorithm == Some(Algorithm::Ps256) { key.pss() } else { key };
    let expected = algorithm.map(|algorithm| match algorithm {
        Algorithm::Rs256 => "RS256",
        Algorithm::Ps256 => "PS256",
        Algorithm::Es256 => "ES256",
    });
    if expected.is_some_and(|expected| expected != key.algorithm()) {
        return Err(Error::config(format!(
            "algorithm: this key signs with {}; set that algorithm or none",
            key.algorithm()
        )));
    }
    Ok(with(key, key_id, SigningKey::key_id))
}

const KEY_EXCLUDES_SECRET: &str = "a client with a `key` authenticates with private-key-jwt; remove `secret`, and \
                                   `auth` unless it is private-key-jwt";

const NO_AUTHENTICATION: &str = "set `secret` or `key`; for a public client, which has neither, set `auth` to `none`";
