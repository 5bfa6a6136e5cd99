//! Microsoft Entra ID: an app's own token (client credentials) for Graph or any other API.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::Error;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::jwt::{Certificate, Signer, SigningKey};
use crate::provider::microsoft::claims::DemandedClaims;
use crate::provider::microsoft::{ENTRA, check_tenant, exchange, token_url, verdict};
use crate::provider::oauth2::{ASSERTION_TYPE, client_assertion};
use crate::provider::settings::{check_texts, file_text};
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict};
use crate::secret::Secret;

/// Fetches an app's own tokens at Microsoft Entra ID (formerly Azure AD): client credentials at
/// `/{tenant}/oauth2/v2.0/token`.
///
/// The app authenticates with a client secret ([`Entra::new`]), a certificate (`client_assertion`,
/// [`Entra::certificate`]) or a token of another issuer (workload identity federation, [`Entra::federated`]). The token
/// is for Microsoft Graph unless another [`scope`](Entra::scope) is set, such as `api://orders/.default`. A new token
/// does not invalidate the previous one. The time that Entra names for the refresh of a long-lived token (`refresh_in`)
/// is respected.
///
/// # Claims challenges
///
/// A service can refuse a token before it expires (continuous access evaluation): HTTP 401 with `insufficient_claims`
/// and the claims that it demands. The token is rejected, and the next fetch of this process sends the demanded claims
/// to Entra, once. [`send`](crate::TokenManager::send) and [`middleware`](crate::TokenManager::middleware) see to this;
/// with [`call`](crate::TokenManager::call), pass the response's headers to [`verdict`](crate::TokenManager::verdict).
///
/// # Errors
///
/// [`Error::code`](crate::Error::code) is Entra's own number, such as `AADSTS7000215` for a wrong client secret, and
/// [`Error::request_id`](crate::Error::request_id) the `trace_id`.
///
/// ```
/// use evertoken::Entra;
/// use evertoken::provider::microsoft::Cloud;
///
/// let graph = Entra::new("contoso.onmicrosoft.com", "client-id", "client-secret");
/// let own = Entra::new("contoso.onmicrosoft.com", "client-id", "client-secret").scope("api://orders/.default");
/// let government = Entra::new("contoso.onmicrosoft.us", "client-id", "client-secret").cloud(Cloud::UsGovernment);
/// assert!(!format!("{graph:?}").contains("client-secret"));
/// ```
#[doc(alias = "Azure AD")]
#[doc(alias = "client_credentials")]
#[derive(Clone, Debug)]
pub struct Entra {
    tenant: String,
    client_id: String,
    proof: ClientProof,
    scope: Option<String>,
    cloud: Cloud,
    authority: Option<BaseUrl>,
    demanded: DemandedClaims,
}

/// How the app proves its identity.
#[derive(Clone)]
enum ClientProof {
    Secret(Secret),
    Certificate(Certificate, SigningKey),
    Federated(Arc<dyn Fn() -> Result<Secret, Error> + Send + Sync>),
}

/// The Microsoft cloud that a tenant is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cloud {
    /// The global cloud (`login.microsoftonline.com`).
    #[default]
    Public,
    /// Azure Government of the United States (`login.microsoftonline.us`).
    UsGovernment,
    /// Azure China, operated by 21Vianet (`login.partner.microsoftonline.cn`).
    China,
}

impl Cloud {
    fn authority(self) -> &'static str {
        match self {
            Cloud::Public => "https://login.microsoftonline.com",
            Cloud::UsGovernment => "https://login.microsoftonline.us",
            Cloud::China => "https://login.partner.microsoftonline.cn",
        }
    }

    fn graph(self) -> &'static str {
        match self {
            Cloud::Public => "https://graph.microsoft.com/.default",
            Cloud::UsGovernment => "https://graph.microsoft.us/.default",
            Cloud::China => "https://microsoftgraph.chinacloudapi.cn/.default",
        }
    }
}

impl Entra {
    /// Makes a provider for an app with a client secret. `tenant` is the id or a domain of one directory; `common`,
    /// `organizations` and `consumers` grant no tokens to apps.
    ///
    /// `client_secret` is the *value* of the secret, which the portal shows once, not the secret's id.
    pub fn new(tenant: impl Into<String>, client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Entra {
        Entra::with(tenant.into(), client_id.into(), ClientProof::Secret(client_secret.into()))
    }

    /// Makes a provider for an app with a certificate. `key` is the certificate's private key, which must be an RSA
    /// key. Each request has a `client_assertion` of its own, signed with PS256 and valid for five minutes.
    pub fn certificate(
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        certificate: Certificate,
        key: SigningKey,
    ) -> Entra {
        Entra::with(tenant.into(), client_id.into(), ClientProof::Certificate(certificate, key.pss()))
    }

    /// Makes a provider for an app that trusts another issuer (workload identity federation, federated credentials).
    /// `assertion` returns a token of that issuer, such as the Kubernetes service account token in
    /// `AZURE_FEDERATED_TOKEN_FILE`.
    ///
    /// The closure runs on each fetch, because such tokens are short-lived: read the file again each time. The closure
    /// may block and fail, and its error is the error of the fetch. Closures cannot be compared, so all federated
    /// providers of one app share a token.
    ///
    /// ```
    /// use evertoken::{Entra, Error, ErrorKind, Secret};
    ///
    /// let provider = Entra::federated("contoso.onmicrosoft.com", "client-id", || {
    ///     let token = std::fs::read_to_string("/var/run/secrets/azure/tokens/azure-identity-token");
    ///     token.map(Secret::from).map_err(|_| Error::new(ErrorKind::Config, "the token file cannot be read"))
    /// });
    /// ```
    pub fn federated(
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        assertion: impl Fn() -> Result<Secret, Error> + Send + Sync + 'static,
    ) -> Entra {
        Entra::with(tenant.into(), client_id.into(), ClientProof::Federated(Arc::new(assertion)))
    }

    fn with(tenant: String, client_id: String, proof: ClientProof) -> Entra {
        Entra {
            tenant,
            client_id,
            proof,
            scope: None,
            cloud: Cloud::default(),
            authority: None,
            demanded: DemandedClaims::default(),
        }
    }

    /// Sets the API that the token is for: the application id URI of one API, followed by `/.default`. Default:
    /// Microsoft Graph of the [`cloud`](Entra::cloud).
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> Entra {
        Entra { scope: Some(scope.into()), ..self }
    }

    /// Sets the cloud that the tenant is in. Default: [`Cloud::Public`].
    #[must_use]
    pub fn cloud(self, cloud: Cloud) -> Entra {
        Entra { cloud, ..self }
    }

    /// Sends requests to another host than the cloud's, for a gateway or a test. The audience (`aud`) of the assertion
    /// that [`Entra::certificate`] signs stays the cloud's own URL.
    #[must_use]
    pub fn authority(self, url: impl Into<String>) -> Entra {
        Entra { authority: Some(BaseUrl::new(url)), ..self }
    }

    fn authority_url(&self) -> BaseUrl {
        self.authority.clone().unwrap_or_else(|| BaseUrl::new(self.cloud.authority()))
    }

    fn effective_scope(&self) -> &str {
        self.scope.as_deref().unwrap_or(self.cloud.graph())
    }

    fn request_grant(&self, context: &Context, claims: Option<&str>) -> Result<Grant, Error> {
        let url = token_url(&self.authority_url(), &self.tenant);
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("scope", self.effective_scope()),
        ];
        let proof = self.client_proof(context)?;
        match self.proof {
            ClientProof::Secret(_) => form.push(("client_secret", proof.expose())),
            _ => form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", proof.expose())]),
        }
        form.extend(claims.map(|claims| ("claims", claims)));
        exchange(context, &url, &form, &ENTRA, &[&proof])
    }

    /// Returns the secret or the assertion that proves the app's identity.
    fn client_proof(&self, context: &Context) -> Result<Secret, Error> {
        match &self.proof {
            ClientProof::Secret(secret) => Ok(secret.clone()),
            ClientProof::Certificate(certificate, key) => {
                let thumbprint = certificate.thumbprint();
                // Entra expects its own URL as the audience, also when a gateway passes the request on.
                let audience = token_url(&BaseUrl::new(self.cloud.authority()), &self.tenant);
                client_assertion(Signer::Key(key), Some(&thumbprint), &self.client_id, &audience, context.now())
            }
            ClientProof::Federated(assertion) => match assertion()? {
                blank if blank.is_blank() => {
                    Err(Error::config("the federated assertion is empty; check the closure or the file that it reads"))
                }
                // The closure often returns the text of a file.
                assertion => {
                    let text = file_text(assertion.expose());
                    check_texts(&[("federated assertion", text)]).map(|()| Secret::from(text))
                }
            },
        }
    }
}

impl Provider for Entra {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        let identity = Identity::new(NAME)
            .part("url", self.authority_url().as_str())
            .part("tenant", self.tenant.to_ascii_lowercase())
            .part("client", &self.client_id)
            .part("scope", self.effective_scope());
        match &self.proof {
            ClientProof::Secret(secret) => identity.secret(secret),
            ClientProof::Certificate(certificate, key) => {
                identity.part("certificate", certificate.thumbprint()).secret(key.fingerprint())
            }
            // Closures cannot be compared.
            ClientProof::Federated(_) => identity.part("proof", "federated"),
        }
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.demanded.send(|claims| self.request_grant(context, claims)).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        let check = || {
            check_texts(&[
                ("tenant", &self.tenant),
                ("client id", &self.client_id),
                ("scope", self.effective_scope()),
            ])?;
            check_tenant(&self.tenant)?;
            check_scope(self.effective_scope())?;
            self.proof.check()?;
            self.authority_url().check_setting("authority")
        };
        check().map_err(|error: Error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile::default()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        self.demanded.remember(response);
        verdict(response)
    }
}

impl ClientProof {
    fn check(&self) -> Result<(), Error> {
        match self {
            ClientProof::Secret(secret) => check_texts(&[("client secret", secret.expose())]),
            ClientProof::Certificate(_, key) if !key.is_rsa() => {
                Err(Error::config("the certificate must have an RSA key; Entra accepts no other"))
            }
            ClientProof::Certificate(certificate, key) if !certificate.is_for(key) => Err(Error::config(
                "the private key does not belong to the certificate; pass the key that the certificate was made for",
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for ClientProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientProof::Secret(secret) => secret.fmt(f),
            ClientProof::Certificate(certificate, _) => certificate.fmt(f),
            ClientProof::Federated(_) => f.write_str("Federated"),
        }
    }
}

fn check_scope(scope: &str) -> Result<(), Error> {
    if !scope.ends_with("/.default") || scope.contains(char::is_whitespace) {
        return Err(Error::config(
            "the scope must be the URI of one API followed by /.default, such as https://graph.microsoft.com/.default",
        ));
    }
    Ok(())
}

const NAME: &str = "entra";
