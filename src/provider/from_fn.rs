//! A provider made from a closure.

use std::fmt;

use crate::error::Error;
use crate::key::Identity;
use crate::provider::{Context, Grant, Profile, Provider, ServiceResponse, TokenPlacement, Verdict};
use crate::secret::Secret;

/// Makes a provider from a name and a closure that fetches a token.
///
/// A closure has no identity, so its identity is the name alone. With tokens in memory only, the identity does not
/// matter. In a shared store two such providers with the same name *share a key, and so each other's tokens*, unless
/// [`identity_part`](FromFn::identity_part) and [`secret`](FromFn::secret) name whatever the token depends on.
///
/// ```
/// use std::time::Duration;
/// use evertoken::Secret;
/// use evertoken::provider::{Grant, from_fn};
///
/// let key = Secret::from("s3cr3t");
/// let sent = key.clone();
/// let provider = from_fn("my-service", move |context| {
///     let response = context.http().get("https://service.example/token").bearer(&sent).send()?;
///     if !response.is_success() {
///         return Err(response.status_error());
///     }
///     Ok(Grant::new(response.json()?.take_secret("token")?, Duration::from_secs(600)))
/// })
/// .identity_part("account", "4711")
/// .secret(&key);
/// ```
pub fn from_fn(
    name: impl Into<String>,
    fetch: impl Fn(&Context) -> Result<Grant, Error> + Send + Sync + 'static,
) -> FromFn {
    let name = name.into();
    let identity = Identity::new(&name);
    FromFn {
        name,
        identity,
        profile: Profile::default(),
        placement: TokenPlacement::bearer(),
        verdict: None,
        fetch: Box::new(fetch),
    }
}

/// A provider made from a closure. [`from_fn`] makes it.
pub struct FromFn {
    name: String,
    identity: Identity,
    profile: Profile,
    placement: TokenPlacement,
    verdict: Option<Box<Judge>>,
    fetch: Box<Fetch>,
}

type Judge = dyn Fn(&ServiceResponse<'_>) -> Verdict + Send + Sync;

type Fetch = dyn Fn(&Context) -> Result<Grant, Error> + Send + Sync;

impl FromFn {
    /// Adds a part to the identity: an address, an id or a scope that the token depends on.
    #[must_use]
    pub fn identity_part(self, name: &'static str, value: impl Into<String>) -> FromFn {
        FromFn { identity: self.identity.part(name, value), ..self }
    }

    /// Adds the secret that the token is granted for to the identity, as a keyed hash.
    #[must_use]
    pub fn secret(self, secret: &Secret) -> FromFn {
        FromFn { identity: self.identity.secret(secret), ..self }
    }

    /// Sets how the provider treats its tokens. Default: [`Profile::default`].
    #[must_use]
    pub fn profile(self, profile: Profile) -> FromFn {
        FromFn { profile, ..self }
    }

    /// Sets where the service expects the token. Default: [`TokenPlacement::bearer`].
    #[must_use]
    pub fn placement(self, placement: TokenPlacement) -> FromFn {
        FromFn { placement, ..self }
    }

    /// Sets how a response of the service is judged, for a service that refuses a token with HTTP 200 and a code in the
    /// body. Default: [`ServiceResponse::http_verdict`], which the closure may call for all other responses.
    ///
    /// ```
    /// use std::time::Duration;
    /// use evertoken::Verdict;
    /// use evertoken::provider::{Grant, from_fn};
    ///
    /// let provider = from_fn("my-service", |_| Ok(Grant::new("token", Duration::from_secs(600))))
    ///     .verdict(|response| match response.json().and_then(|json| json.get("code")?.as_i64()) {
    ///         Some(40101) => Verdict::Rejected,
    ///         _ => response.http_verdict(),
    ///     });
    /// ```
    #[must_use]
    pub fn verdict(self, judge: impl Fn(&ServiceResponse<'_>) -> Verdict + Send + Sync + 'static) -> FromFn {
        FromFn { verdict: Some(Box::new(judge)), ..self }
    }
}

impl Provider for FromFn {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        (self.fetch)(context)
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn placement(&self) -> TokenPlacement {
        self.placement.clone()
    }

    fn verdict(&self, response: &ServiceResponse<'_>) -> Verdict {
        self.verdict.as_ref().map_or_else(|| response.http_verdict(), |judge| judge(response))
    }
}

impl fmt::Debug for FromFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").field("identity", &self.identity).finish_non_exhaustive()
    }
}
