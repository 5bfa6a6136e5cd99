//! Microsoft Entra ID: an app's own token, for Graph or any other service.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::Error;
use crate::key::Identity;
use crate::provider::base_url::BaseUrl;
use crate::provider::jwt::{Certificate, Signer, SigningKey};
use crate::provider::microsoft::{ENTRA, check_tenant, exchange, token_url, verdict};
use crate::provider::oauth2::{ASSERTION_TYPE, client_assertion};
use crate::provider::settings::check_texts;
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, Verdict};
use crate::secret::Secret;

/// Grants an app's own tokens at Microsoft Entra ID (formerly Azure AD): client credentials, version 2.
///
/// For Microsoft Graph, unless another [scope](Entra::scope) is set. A new token does not end the old one. Where Entra
/// says when to renew a long-lived token (`refresh_in`), that is kept to.
///
/// The code of an error is Entra's number, as in `AADSTS7000215`, its request id the trace id.
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
#[derive(Clone, Debug)]
pub struct Entra {
    tenant: String,
    client_id: String,
    proof: ClientProof,
    scope: Option<String>,
    cloud: Cloud,
    authority: Option<BaseUrl>,
}

#[derive(Clone)]
enum ClientProof {
    Secret(Secret),
    Certificate(Certificate, SigningKey),
    Federated(Arc<dyn Fn() -> Result<Secret, Error> + Send + Sync>),
}

/// Which of Microsoft's clouds a tenant is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cloud {
    /// The one that everybody uses.
    #[default]
    Public,
    /// Azure Government of the United States.
    UsGovernment,
    /// Azure China, run by 21Vianet.
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
    /// An app that has a client secret. `tenant` is the id or a domain of one directory; `common` and its like have no
    /// tokens for apps.
    ///
    /// The *value* of the secret is wanted, which the portal shows once, and not its id.
    pub fn new(tenant: impl Into<String>, client_id: impl Into<String>, client_secret: impl Into<Secret>) -> Entra {
        Entra::with(tenant.into(), client_id.into(), ClientProof::Secret(client_secret.into()))
    }

    /// An app that has a certificate. `key` is its private key, an RSA one. Each request has an assertion of its own,
    /// signed by PS256 and good for five minutes.
    pub fn certificate(
        tenant: impl Into<String>,
        client_id: impl Into<String>,
        certificate: Certificate,
        key: SigningKey,
    ) -> Entra {
        Entra::with(tenant.into(), client_id.into(), ClientProof::Certificate(certificate, key.pss()))
    }

    /// An app that trusts another issuer (workload identity federation). `assertion` gives the token of that issuer. It
    /// is asked on each fetch, because such tokens are short-lived: read the file, ask the service, anew each time. It
    /// may block and fail; its error is the fetch's.
    ///
    /// Closures cannot be told apart, so all that are given for one app share its tokens.
    ///
    /// ```
    /// use evertoken::{Entra, Error, ErrorKind, Secret};
    ///
    /// let provider = Entra::federated("contoso.onmicrosoft.com", "client-id", || {
    ///     let token = std::fs::read_to_string("/var/run/secrets/azure/tokens/azure-identity-token");
    ///     token.map(Secret::from).map_err(|_| Error::new(ErrorKind::Config, "the file of the token cannot be read"))
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
        Entra { tenant, client_id, proof, scope: None, cloud: Cloud::default(), authority: None }
    }

    /// What the token is for: the id of one service with `/.default` after it. Default: Microsoft Graph of the cloud.
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> Entra {
        Entra { scope: Some(scope.into()), ..self }
    }

    /// Which cloud the tenant is in. Default: [`Cloud::Public`].
    #[must_use]
    pub fn cloud(self, cloud: Cloud) -> Entra {
        Entra { cloud, ..self }
    }

    /// Asks another host than the cloud's, for a gateway of your own or a test.
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

    fn request_grant(&self, context: &Context) -> Result<Grant, Error> {
        let url = token_url(&self.authority_url(), &self.tenant);
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("scope", self.effective_scope()),
        ];
        let proof = self.client_proof(&url, context)?;
        match self.proof {
            ClientProof::Secret(_) => form.push(("client_secret", proof.expose())),
            _ => form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", proof.expose())]),
        }
        exchange(context, &url, &form, &ENTRA, &[&proof])
    }

    /// What is sent to show who the app is.
    fn client_proof(&self, url: &str, context: &Context) -> Result<Secret, Error> {
        match &self.proof {
            ClientProof::Secret(secret) => Ok(secret.clone()),
            ClientProof::Certificate(certificate, key) => {
                let thumbprint = certificate.thumbprint();
                client_assertion(Signer::Key(key), Some(&thumbprint), &self.client_id, url, context.now())
            }
            ClientProof::Federated(assertion) => match assertion()? {
                blank if blank.is_blank() => Err(Error::config("the federated assertion is empty")),
                // Out of a file it may come with a line break.
                told => Ok(Secret::from(told.expose().trim())),
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
            // A closure cannot be told from another one.
            ClientProof::Federated(_) => identity.part("proof", "federated"),
        }
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_grant(context).map_err(|error| error.of(NAME))
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
            self.authority_url().check()
        };
        check().map_err(|error: Error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        Profile::default()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        verdict(response)
    }
}

impl ClientProof {
    fn check(&self) -> Result<(), Error> {
        match self {
            ClientProof::Secret(secret) => check_texts(&[("client secret", secret.expose())]),
            ClientProof::Certificate(_, key) if !key.is_rsa() => {
                Err(Error::config("the certificate must have an RSA key; Entra takes no other"))
            }
            ClientProof::Certificate(certificate, key) if !certificate.is_for(key) => {
                Err(Error::config("the private key does not belong to the certificate"))
            }
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
        return Err(Error::config("the scope must be one service with /.default after it"));
    }
    Ok(())
}

const NAME: &str = "entra";
