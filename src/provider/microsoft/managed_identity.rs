//! The managed identity of a machine or an app in Azure.

use std::env;
use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::http::{Http, Json, TokenRequest, TokenResponse, check_link_local_url};
use crate::key::Identity;
use crate::provider::errors::ErrorRule;
use crate::provider::microsoft::{granted_at, verdict};
use crate::provider::oauth2::OAuthErrors;
use crate::provider::settings::check_texts;
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict};
use crate::secret::{Secret, plain_url};

/// Grants the tokens of the managed identity that this machine or app has in Azure, without any secret.
///
/// On App Service and Functions, which tell where to ask in the environment (`IDENTITY_ENDPOINT`, `IDENTITY_HEADER`),
/// that is asked, else the metadata service of a virtual machine. Both answer on plain HTTP and to this machine only; no
/// proxy is used, whatever is set. Azure Arc, Service Fabric and Azure ML have other ways, which are not supported.
///
/// Machines share tokens through a store only when they have the same identity. Where each has one of its own, give
/// each a [namespace](crate::TokenManagerBuilder::namespace) of its own, or use none; a user-assigned identity is named
/// by its [client id](ManagedIdentity::client_id).
///
/// ```
/// use evertoken::provider::microsoft::ManagedIdentity;
///
/// let provider = ManagedIdentity::new("https://vault.azure.net");
/// ```
#[derive(Clone)]
pub struct ManagedIdentity {
    resource: String,
    client_id: Option<String>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    /// The metadata service of virtual machines.
    Machine {
        base_url: String,
    },
    AppService {
        endpoint: String,
        header: Secret,
    },
}

impl ManagedIdentity {
    /// A token for `resource`, the address or id of a service. `/.default` at its end, as in a scope, is left off.
    ///
    /// Reads the environment now.
    pub fn new(resource: impl Into<String>) -> ManagedIdentity {
        let told = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let source = match (told("IDENTITY_ENDPOINT"), told("IDENTITY_HEADER").map(Secret::new)) {
            (Some(endpoint), Some(header)) => Source::AppService { endpoint, header },
            _ => Source::Machine { base_url: METADATA.to_owned() },
        };
        let resource: String = resource.into();
        let resource = resource.strip_suffix("/.default").map(str::to_owned).unwrap_or(resource);
        ManagedIdentity { resource, client_id: None, source }
    }

    /// The client id of a user-assigned identity. Default: none, the identity of the machine itself, or the only one.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> ManagedIdentity {
        ManagedIdentity { client_id: Some(id.into()), ..self }
    }

    /// Asks a metadata service at another host, for a test, whatever the environment says. Plain HTTP is allowed to
    /// loopback and to link-local addresses. Default: `http://169.254.169.254`.
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
            kind @ (ErrorKind::Unavailable | ErrorKind::TimedOut) => error.recast(kind, SILENT),
            _ => error,
        })?;
        let grant = granted_at(asked_at, self.accept(&reply)?)?;
        // Long-lived ones are renewed half-way, as Microsoft's own clients do.
        let half = grant.lifetime.filter(|lifetime| lifetime.as_secs() >= LONG).map(|lifetime| lifetime / 2);
        let refresh_in = grant.refresh_in.or(half);
        Ok(grant.with_refresh_in(refresh_in))
    }

    fn accept(&self, reply: &TokenResponse) -> Result<Json, Error> {
        let secret = match &self.source {
            Source::AppService { header, .. } => Some(header),
            Source::Machine { .. } => None,
        };
        match reply.status() {
            // While it is updated, which takes up to 70 s.
            404 | 410 => Err(reply.status_error().recast(ErrorKind::Unavailable, GONE)),
            400 => ERRORS.accept(reply, secret.as_slice()).map_err(|error| match error.kind() {
                // Whatever it is, asking again does not help.
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
            Source::Machine { base_url } if base_url.contains('?') => Err("the base URL must not have a query"),
            Source::Machine { base_url: url } | Source::AppService { endpoint: url, .. } => check_link_local_url(url),
        };
        let id = self.client_id.iter().map(|id| ("client id", id.as_str()));
        check_texts(&[("resource", self.resource.as_str())].into_iter().chain(id).collect::<Vec<_>>())
            .and_then(|()| url.map_err(Error::config))
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        // Azure keeps the tokens itself, gives the same one back, and tells what is left of it.
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

const METADATA: &str = "http://169.254.169.254";

/// From this lifetime on, in seconds, a token counts as a long-lived one.
const LONG: u64 = 7200;

const SILENT: &str = "nothing answers where managed identities are asked for; is this machine in Azure?";

const GONE: &str = "the service of managed identities is being updated, or there is none on this machine";

const REFUSED: &str = "the managed identity was refused; check that one is assigned, and the resource";

const ERRORS: OAuthErrors = OAuthErrors { rules: &[ERROR_RULES], ..OAuthErrors::STANDARD };

const ERROR_RULES: &[ErrorRule] = &[
    (
        "invalid_request",
        ErrorKind::Config,
        "no managed identity is assigned here, or none with this client id, or the resource is wrong",
    ),
    ("unauthorized_client", ErrorKind::InvalidCredentials, "the managed identity may not have this token"),
];
