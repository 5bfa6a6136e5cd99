//! Managed identities of Azure: tokens of a machine or an app, without a secret.
//!
//! Azure offers a local endpoint that grants tokens to whatever runs there:
//!
//! | Where | Endpoint | Header |
//! |---|---|---|
//! | virtual machine, scale set, AKS node | IMDS: `169.254.169.254/metadata/identity/oauth2/token` | `Metadata: true` |
//! | App Service, Functions, Container Apps | `IDENTITY_ENDPOINT` | `X-IDENTITY-HEADER` (`IDENTITY_HEADER`) |
//!
//! Both answer in plain HTTP and to this machine only, so the URL may be a link-local one and no proxy is used.

use std::env;
use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::http::{Http, Json, TokenRequest, TokenResponse};
use crate::key::Identity;
use crate::provider::base_url::check_link_local_url_setting;
use crate::provider::errors::ErrorRule;
use crate::provider::microsoft::{granted_at, verdict};
use crate::provider::oauth2::OAuthErrors;
use crate::provider::settings::{check_line, check_texts};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict};
use crate::secret::{Secret, plain_url};

/// Fetches tokens of the managed identity that this machine or app has in Azure, without any secret.
///
/// On App Service, Functions and Container Apps, which set `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`, the provider asks
/// that endpoint; otherwise it asks the metadata service of virtual machines (IMDS, `169.254.169.254`). Both use plain
/// HTTP within the machine, and no proxy is used. Azure Arc, Service Fabric and Azure ML are not supported.
///
/// Machines may share tokens through a store only if they have the same identity. Where each machine has an identity of
/// its own, give each a [namespace](crate::TokenManagerBuilder::namespace) of its own or use no shared store. Name a
/// user-assigned identity by its [`client_id`](ManagedIdentity::client_id).
///
/// ```
/// use evertoken::provider::microsoft::ManagedIdentity;
///
/// let provider = ManagedIdentity::new("https://vault.azure.net");
/// ```
#[doc(alias = "IMDS")]
#[doc(alias = "MSI")]
#[derive(Clone)]
pub struct ManagedIdentity {
    resource: String,
    client_id: Option<String>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    /// The metadata service of virtual machines (IMDS).
    Machine { base_url: String },
    /// The endpoint of App Service, Functions and Container Apps.
    AppService { endpoint: String, header: Secret },
}

impl ManagedIdentity {
    /// Makes a provider of tokens for `resource`, the URI or id of an API. `/.default` at the end, as in a scope, is
    /// cut off.
    ///
    /// Reads `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` now.
    pub fn new(resource: impl Into<String>) -> ManagedIdentity {
        let variable = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let source = match (variable("IDENTITY_ENDPOINT"), variable("IDENTITY_HEADER").map(Secret::new)) {
            (Some(endpoint), Some(header)) => Source::AppService { endpoint, header },
            _ => Source::Machine { base_url: IMDS.to_owned() },
        };
        let resource: String = resource.into();
        let resource = resource.strip_suffix("/.default").map(str::to_owned).unwrap_or(resource);
        ManagedIdentity { resource, client_id: None, source }
    }

    /// Sets the `client_id` of a user-assigned identity. Default: none, which selects the system-assigned identity, or
    /// the only user-assigned one.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> ManagedIdentity {
        ManagedIdentity { client_id: Some(id.into()), ..self }
    }

    /// Uses a metadata service at another host, for a test, and ignores the environment. Plain HTTP is allowed to
    /// loopback and link-local addresses. Default: `http://169.254.169.254`.
    #[must_use]
    pub fn base_url(self, url: impl Into<String>) -> ManagedIdentity {
        let url: String = url.into();
        ManagedIdentity { source: Source::Machine { base_url: url.trim_end_matches('/').to_owned() }, ..self }
    }

    fn request(&self, http: &Http) -> TokenRequest {
        let request = match &self.source {
            Source::Machine { base_url } => http
                .get(&format!("{base_url}/metadata/identity/oauth2/token"))
                .header("metadata", "true")
                .query("api-version", "2018-02-01"),
            Source::AppService { endpoint, header } => {
                http.get(endpoint).header("x-identity-header", header.expose()).query("api-version", "2019-08-01")
            }
        };
        let request = request.link_local().query("resource", &self.resource);
        match &self.client_id {
            Some(id) => request.query("client_id", id),
            None => request,
        }
    }

    fn request_grant(&self, context: &Context) -> Result<Grant, Error> {
        let asked_at = context.now();
        let reply = self.request(context.http()).send().map_err(|error| match error.kind() {
            ErrorKind::Unavailable => error.recast(ErrorKind::Unavailable, NO_ANSWER),
            _ => error,
        })?;
        let grant = granted_at(asked_at, self.accept(&reply)?)?;
        // Microsoft's own clients refresh long-lived tokens at half of their lifetime.
        let half = grant.lifetime.filter(|lifetime| lifetime.as_secs() >= LONG_LIVED).map(|lifetime| lifetime / 2);
        let refresh_in = grant.refresh_in.or(half);
        Ok(grant.with_refresh_in(refresh_in))
    }

    fn accept(&self, reply: &TokenResponse) -> Result<Json, Error> {
        let secret = match &self.source {
            Source::AppService { header, .. } => Some(header),
            Source::Machine { .. } => None,
        };
        match reply.status() {
            // IMDS answers so while it is updated, which takes up to 70 s.
            404 | 410 => Err(reply.status_error().recast(ErrorKind::Unavailable, UPDATING)),
            400 => ERRORS.accept(reply, secret.as_slice()).map_err(|error| match error.kind() {
                // A retry does not help, whatever the cause is.
                ErrorKind::InvalidResponse => error.recast(ErrorKind::InvalidCredentials, REFUSED),
                _ => error,
            }),
            _ => ERRORS.accept(reply, secret.as_slice()),
        }
    }
}

impl Provider for ManagedIdentity {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        let identity = Identity::new(NAME).part("resource", &self.resource);
        let identity = match &self.client_id {
            Some(id) => identity.part("client", id),
            None => identity,
        };
        match &self.source {
            Source::Machine { base_url } => identity.part("url", base_url),
            Source::AppService { endpoint, header } => identity.part("url", endpoint).secret(header),
        }
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_grant(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        let url = match &self.source {
            Source::Machine { base_url } if base_url.contains('?') => {
                Err(Error::config("base_url must not have a query; remove the part from `?` on"))
            }
            Source::Machine { base_url } => check_link_local_url_setting("base_url", base_url),
            Source::AppService { endpoint, .. } => check_link_local_url_setting("IDENTITY_ENDPOINT", endpoint),
        };
        let header = match &self.source {
            Source::AppService { header, .. } => check_line("IDENTITY_HEADER", header.expose()),
            Source::Machine { .. } => Ok(()),
        };
        let id = self.client_id.iter().map(|id| ("client id", id.as_str()));
        check_texts(&[("resource", self.resource.as_str())].into_iter().chain(id).collect::<Vec<_>>())
            .and(header)
            .and(url)
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        // Azure caches tokens and returns the same one again, with the true remaining lifetime.
        Profile { unchanged_token_extends: true, ..Profile::default() }
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, url) = match &self.source {
            Source::Machine { base_url } => ("machine", base_url),
            Source::AppService { endpoint, .. } => ("app service", endpoint),
        };
        f.debug_struct("ManagedIdentity")
            .field("resource", &self.resource)
            .field("client_id", &self.client_id)
            .field("source", &source)
            .field("url", &plain_url(url))
            .finish()
    }
}

const NAME: &str = "managed-identity";

const IMDS: &str = "http://169.254.169.254";

/// The lifetime in seconds from which on a token counts as long-lived.
const LONG_LIVED: u64 = 7200;

const NO_ANSWER: &str =
    "the endpoint of managed identities does not answer; check that this machine or app runs in Azure";

const UPDATING: &str = "the endpoint of managed identities is being updated, or this machine has none; try again in a \
                        minute, or check that this machine runs in Azure";

const REFUSED: &str = "the endpoint refused the managed identity; check that one is assigned, and the resource";

const ERRORS: OAuthErrors = OAuthErrors { rules: &[ERROR_RULES], unknown_refusal: REFUSED, ..OAuthErrors::STANDARD };

const ERROR_RULES: &[ErrorRule] = &[
    (
        "invalid_request",
        ErrorKind::Config,
        "no managed identity is assigned here, or none with this client id, or the resource is wrong; check all three",
    ),
    (
        "unauthorized_client",
        ErrorKind::InvalidCredentials,
        "the managed identity may not have a token for this resource; assign it a role",
    ),
];
