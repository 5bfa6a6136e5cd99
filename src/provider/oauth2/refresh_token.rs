//! The grant for a refresh token (RFC 6749, section 6): tokens of a person who has signed in.

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::errors::ErrorRule;
use crate::provider::oauth2::{OAuth2, OAuthErrors};
use crate::provider::settings::check_texts;
use crate::provider::{Context, Grant, Profile, Provider, RenewalProfile, parse_grant_with_renewal_secret};
use crate::secret::Secret;

/// Grants tokens of a person who has signed in, for the refresh token that this brought.
///
/// Many servers replace the refresh token each time it is used, and take it for stolen when it is used twice: then all
/// that came of it ends, and the person has to sign in again. So it is used by one process alone, the one that has the
/// lease, and each new one is stored before the access token that came with it is handed out. **Processes that share a
/// refresh token must share a [`Store`](crate::store::Store)**, and while that cannot be used nothing is fetched. Without a
/// store the latest refresh token is gone when the program ends.
///
/// The program brings the first refresh token, for example from [`DeviceSignIn`](crate::DeviceSignIn), and brings the
/// same one each time it starts: what came of it is found in the store. A person who signs in again gets another first
/// one, which starts anew.
///
/// ```
/// use evertoken::{OAuth2, RefreshToken};
///
/// let client = OAuth2::public("https://login.example/oauth2/token", "client-id");
/// let provider = RefreshToken::new(client, "first-refresh-token");
/// assert!(!format!("{provider:?}").contains("first-refresh-token"));
/// ```
#[derive(Clone, Debug)]
pub struct RefreshToken {
    client: OAuth2,
    initial_refresh_token: Secret,
}

impl RefreshToken {
    /// Asks as `client`: its token endpoint, how it shows who it is, its scope and further parameters. `first` is the
    /// refresh token that the sign-in brought.
    pub fn new(client: OAuth2, initial_refresh_token: impl Into<Secret>) -> RefreshToken {
        RefreshToken { client, initial_refresh_token: initial_refresh_token.into() }
    }

    /// The refresh token that it began with, for the program to keep and to bring again.
    pub fn initial_refresh_token(&self) -> &Secret {
        &self.initial_refresh_token
    }

    fn request_grant(&self, context: &Context) -> Result<Grant, Error> {
        let latest = context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::InvalidCredentials, SIGN_IN))?;
        let grant = [("grant_type", "refresh_token"), ("refresh_token", latest.expose())];
        let json = self.client.exchange(context, &grant, &[latest], &ERRORS)?;
        parse_grant_with_renewal_secret(json, "access_token", "expires_in", "refresh_token")
    }
}

impl Provider for RefreshToken {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> Identity {
        self.client.add_to_identity(Identity::new(NAME)).secret(&self.initial_refresh_token)
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        self.request_grant(context).map_err(|error| error.of(NAME))
    }

    fn check(&self) -> Result<(), Error> {
        check_texts(&[("refresh token", self.initial_refresh_token.expose())])
            .and_then(|()| self.client.check_settings())
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        self.client.profile()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        // Without scope and secret: when they change, the refresh token that counts must not be lost with them.
        let identity = self.client.add_client_to_identity(Identity::new(NAME)).secret(&self.initial_refresh_token);
        Some(RenewalProfile::refresh_token(identity, &self.initial_refresh_token))
    }
}

const NAME: &str = "refresh token";

const ERRORS: OAuthErrors = OAuthErrors { rules: &[ERROR_RULES], ..OAuthErrors::STANDARD };

const ERROR_RULES: &[ErrorRule] = &[("invalid_grant", ErrorKind::InvalidCredentials, SIGN_IN)];

const SIGN_IN: &str = "the refresh token is over, was revoked or was used before; sign in again";
