//! Claims challenges: what a service demands of the next token, and how the demand reaches the next fetch.
//!
//! # Theory of operation
//!
//! Continuous access evaluation lets a service of Microsoft refuse a token before it expires, for example after the app
//! was disabled or its network has changed. The service answers HTTP 401 with a challenge:
//!
//! ```text
//! WWW-Authenticate: Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsi...fX19"
//! ```
//!
//! `claims` is a JSON object in base64. The next token is good enough only if its request repeats the object in the
//! parameter `claims`. The verdict about the response keeps the object, and the next fetch sends it. A fetch that is
//! answered removes the object, whether Entra granted a token or refused: with claims that Entra does not take, every
//! later fetch would be refused as well. A fetch without an answer leaves the object for the next one.
//!
//! The object stays in this process. When another process fetches first, its token lacks the claims, and the service
//! challenges again.

use std::fmt;
use std::sync::Mutex;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::error::{Error, ErrorKind};
use crate::lock::lock;
use crate::provider::ServiceResponse;

/// The claims that a service has demanded and no fetch has sent yet.
#[derive(Default)]
pub(super) struct DemandedClaims(Mutex<Option<String>>);

impl DemandedClaims {
    /// Keeps the claims of a challenge for the next fetch. A later challenge replaces an earlier one.
    pub(super) fn remember(&self, response: &ServiceResponse<'_>) {
        if let Some(claims) = challenged_claims(response) {
            *lock(&self.0) = Some(claims);
        }
    }

    /// Calls `fetch` with the demanded claims, and removes them when Entra has answered.
    pub(super) fn send<T>(&self, fetch: impl FnOnce(Option<&str>) -> Result<T, Error>) -> Result<T, Error> {
        let claims = lock(&self.0).clone();
        let result = fetch(claims.as_deref());
        let answered = match &result {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Throttled),
        };
        let mut kept = lock(&self.0);
        // A challenge that came during the fetch is about an older token, and its claims have not been sent.
        if answered && *kept == claims {
            *kept = None;
        }
        result
    }
}

/// A clone of a provider may fetch tokens for another service, which has demanded nothing.
impl Clone for DemandedClaims {
    fn clone(&self) -> DemandedClaims {
        DemandedClaims::default()
    }
}

impl fmt::Debug for DemandedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if lock(&self.0).is_some() { "DemandedClaims(some)" } else { "DemandedClaims(none)" })
    }
}

/// Returns the claims that a response demands, as JSON.
fn challenged_claims(response: &ServiceResponse<'_>) -> Option<String> {
    if response.status() != 401 {
        return None;
    }
    let values = response.headers().get_all("www-authenticate").iter();
    let mut challenges = values.filter_map(|value| value.to_str().ok());
    let encoded = challenges.find(|challenge| challenge.contains("insufficient_claims")).and_then(claims_parameter)?;
    if encoded.len() > MAX_ENCODED {
        return None;
    }
    // Services send either alphabet, with and without padding.
    let encoded = encoded.replace('-', "+").replace('_', "/");
    let claims = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&claims).is_ok();
    is_object.then_some(claims)
}

/// Returns the value of the parameter `claims` of a challenge.
fn claims_parameter(challenge: &str) -> Option<&str> {
    let mut rest = challenge;
    loop {
        let (before, after) = rest.split_once("claims")?;
        rest = after;
        let is_start = before.is_empty() || before.ends_with([',', ' ', '\t']);
        if let Some(value) = after.trim_start().strip_prefix('=').filter(|_| is_start) {
            let value = value.trim_start();
            return match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => value.split([',', ' ', '\t']).next(),
            };
        }
    }
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Challenges have a few hundred characters.
const MAX_ENCODED: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeaderMap;

    fn claims_of(status: u16, challenges: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append("www-authenticate", challenge.parse().expect("a header"));
        }
        challenged_claims(&ServiceResponse::new(status, &headers, b""))
    }

    #[test]
    fn the_claims_of_a_challenge_are_read_in_each_form_that_services_use() {
        for challenge in [
            r#"Bearer realm="", error="insufficient_claims", claims="eyJhIjoiPz8_In0=""#,
            r#"Bearer claims="eyJhIjoiPz8/In0", error="insufficient_claims""#,
            r#"Bearer error=insufficient_claims,claims=eyJhIjoiPz8_In0="#,
            r#"Bearer error="insufficient_claims", claims = "eyJhIjoiPz8_In0=", realm="claims""#,
            r#"Bearer error="insufficient_claims", no_claims="e30=", claims="eyJhIjoiPz8_In0=""#,
        ] {
            assert_eq!(claims_of(401, &["Negotiate", challenge]).as_deref(), Some(r#"{"a":"???"}"#), "{challenge}");
            assert_eq!(claims_of(403, &[challenge]), None);
        }
    }

    #[test]
    fn a_challenge_without_readable_claims_demands_none() {
        for challenge in [
            r#"Bearer error="insufficient_claims""#,
            r#"Bearer error="insufficient_claims", claims="*""#,
            r#"Bearer error="insufficient_claims", claims="W10=""#,
            r#"Bearer error="insufficient_claims", claims="/w==""#,
            r#"Bearer error="insufficient_claims", claims="""#,
            r#"Bearer error="invalid_token", claims="e30=""#,
            &format!(r#"Bearer error="insufficient_claims", claims="{}""#, "A".repeat(MAX_ENCODED + 1)),
            "",
        ] {
            assert_eq!(claims_of(401, &[challenge]), None, "{challenge}");
        }
    }
}
