//! The refresh token grant (RFC 6749, section 6): access tokens of a person who signed in.
//!
//! Many servers rotate refresh tokens: each use returns a new refresh token, and a second use of the old one counts as
//! theft and ends the sign-in. The manager therefore lets one fetch at a time use the refresh token, across all
//! processes that share a store, and stores the new refresh token before callers get the access token. This file only
//! sends the latest refresh token ([`Context::renewal_secret`]) and returns the new one in the grant.

use crate::error::{Error, ErrorKind};
use crate::key::Identity;
use crate::provider::errors::ErrorRule;
use crate::provider::oauth2::{OAuth2, OAuthErrors};
use crate::provider::settings::check_texts;
use crate::provider::{Context, Grant, Profile, Provider, RenewalProfile, parse_grant_with_renewal_secret};
use crate::secret::Secret;

/// Fetches access tokens of a person who signed in (`grant_type=refresh_token`, RFC 6749, section 6).
///
/// Many servers rotate refresh tokens: each use returns a new refresh token, and a second use of an old one ends the
/// sign-in. So one process at a time uses the refresh token, the holder of the lease, and the new refresh token is
/// stored before callers get the access token. **Processes that share a refresh token must share a
/// [`Store`](crate::store::Store).** While the store cannot be used, nothing is fetched. Without a store the latest
/// refresh token is lost when the program ends.
///
/// The program brings the first refresh token, for example from [`DeviceSignIn`](crate::DeviceSignIn), and brings the
/// same one at each start: the initial refresh token determines the key under which the latest one is stored. After a new sign-in
/// bring the new refresh token, which starts a new record.
///
/// A refresh token that the server refuses (`invalid_grant`: expired, revoked or used before) is the error
/// [`ErrorKind::SignInRequired`]: let the person sign in again. A wrong `client_id` or `client_secret`
/// (`invalid_client`) stays [`ErrorKind::InvalidCredentials`].
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
    /// Makes a provider from a client (token endpoint, authentication, scope, further parameters) and the refresh token
    /// that the sign-in returned.
    pub fn new(client: OAuth2, initial_refresh_token: impl Into<Secret>) -> RefreshToken {
        RefreshToken { client, initial_refresh_token: initial_refresh_token.into() }
    }

    /// Returns the first refresh token, for the program to keep and to bring at its next start.
    pub fn initial_refresh_token(&self) -> &Secret {
        &self.initial_refresh_token
    }

    fn request_grant(&self, context: &Context) -> Result<Grant, Error> {
        let latest = context.renewal_secret().ok_or_else(|| Error::new(ErrorKind::SignInRequired, NO_REFRESH_TOKEN))?;
        let grant = [("grant_type", "refresh_token"), ("refresh_token", latest.expose())];
        let json = self.client.exchange(context, &grant, &[latest], &ERRORS)?;
        // A server that does not rotate refresh tokens sends none back; then the manager keeps the one that was used.
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
            .and_then(|()| self.client.check_settings_for(&[("refresh_token", "pass it to `RefreshToken::new(..)`")]))
            .map_err(|error| error.of(NAME))
    }

    fn profile(&self) -> Profile {
        self.client.profile()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        // Without scope and client secret: the latest refresh token must survive a change of either.
        let identity = self.client.add_client_to_identity(Identity::new(NAME)).secret(&self.initial_refresh_token);
        Some(RenewalProfile::refresh_token(identity, &self.initial_refresh_token))
    }
}

const NAME: &str = "refresh token";

const ERRORS: OAuthErrors = OAuthErrors { rules: &[ERROR_RULES], ..OAuthErrors::STANDARD };

/// The errors that only a new sign-in solves: `invalid_grant` of RFC 6749, the words of OpenID Connect and Entra for a
/// person who has to act, and what GitHub (`bad_refresh_token`), Slack (`invalid_refresh_token`, `token_revoked`,
/// `account_inactive`), Baidu (`expired_token`) and others say instead of `invalid_grant`, some of them with HTTP 200. A
/// wrong client stays [`ErrorKind::InvalidCredentials`] under the standard's rules.
const ERROR_RULES: &[ErrorRule] = &[
    ("account_inactive", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("account_selection_required", ErrorKind::SignInRequired, PERSON_MUST_ACT),
    ("bad_refresh_token", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("consent_required", ErrorKind::SignInRequired, PERSON_MUST_ACT),
    ("expired_token", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("interaction_required", ErrorKind::SignInRequired, PERSON_MUST_ACT),
    ("invalid_grant", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("invalid_refresh_token", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("invalid_token", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("login_required", ErrorKind::SignInRequired, PERSON_MUST_ACT),
    ("refresh_token_expired", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("token_expired", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
    ("token_revoked", ErrorKind::SignInRequired, REFUSED_REFRESH_TOKEN),
];

const REFUSED_REFRESH_TOKEN: &str = "the refresh token expired, was revoked or was used before; sign in again, and \
                                     build the provider with the new refresh token";

const PERSON_MUST_ACT: &str = "the server wants the person to confirm the sign-in or a right; sign in again, and build \
                               the provider with the new refresh token";

const NO_REFRESH_TOKEN: &str =
    "there is no refresh token; sign in again, and build the provider with the new refresh token";
