//! A provider out of a closure.

use std::fmt;

use crate::error::Error;
use crate::key::Identity;
use crate::provider::{Context, Grant, Profile, Provider, TokenPlacement};
use crate::secret::Secret;

/// Makes a provider out of a closure.
///
/// A closure has no identity of its own. As long as tokens are held in memory only, that does not matter. In a shared
/// store two such providers of the same name *share a key, and so each other's tokens*, unless
/// [`identity_part`](FromFn::identity_part) and [`secret`](FromFn::secret) tell them apart.
///
/// ```
/// use std::time::Duration;
/// use evertoken::Secret;
/// use evertoken::provider::{Grant, from_fn};
///
/// let key = Secret::from("s3cr3t");
/// let shown = key.clone();
/// let provider = from_fn("my-service", move |context| {
///     let reply = context.http().get("https://service.example/token").bearer(&shown).send()?;
///     if !reply.is_success() {
///         return Err(reply.status_error());
///     }
///     Ok(Grant::new(reply.json()?.take_secret("token")?, Duration::from_secs(600)))
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
    FromFn { name, identity, profile: Profile::default(), placement: TokenPlacement::bearer(), fetch: Box::new(fetch) }
}

/// A provider out of a closure; see [`from_fn`].
pub struct FromFn {
    name: String,
    identity: Identity,
    profile: Profile,
    placement: TokenPlacement,
    fetch: Box<Fetch>,
}

type Fetch = dyn Fn(&Context) -> Result<Grant, Error> + Send + Sync;

impl FromFn {
    /// Adds to the identity what the token depends on: an address, an id, a scope.
    #[must_use]
    pub fn identity_part(self, name: &'static str, value: impl Into<String>) -> FromFn {
        FromFn { identity: self.identity.part(name, value), ..self }
    }

    /// Adds to the identity the secret that the token is granted for, as a keyed hash of it.
    #[must_use]
    pub fn secret(self, secret: &Secret) -> FromFn {
        FromFn { identity: self.identity.secret(secret), ..self }
    }

    /// How the provider treats its tokens. Default: [`Profile::default`].
    #[must_use]
    pub fn profile(self, profile: Profile) -> FromFn {
        FromFn { profile, ..self }
    }

    /// Where the service wants the token. Default: [`TokenPlacement::bearer`].
    #[must_use]
    pub fn placement(self, placement: TokenPlacement) -> FromFn {
        FromFn { placement, ..self }
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
}

impl fmt::Debug for FromFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").field("identity", &self.identity).finish_non_exhaustive()
    }
}
