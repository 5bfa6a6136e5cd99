//! Puts the token where the provider's service expects it: into a header or the query.

use percent_encoding::percent_decode_str;
use ureq::http::uri::PathAndQuery;
use ureq::http::{HeaderName, HeaderValue, Uri, request};
use zeroize::Zeroizing;

use crate::error::{Error, catch_panic};
use crate::http::query_encoded;
use crate::manager::TokenManager;
use crate::provider::TokenPlacement;
use crate::token::Token;

impl TokenManager {
    pub(super) fn placement(&self) -> Result<TokenPlacement, Error> {
        catch_panic(|| Ok(self.keeper().provider.placement()))
    }
}

/// Adds the token to the request where the provider's service expects it.
pub(super) fn attach_token(head: &mut request::Parts, placement: &TokenPlacement, token: &Token) -> Result<(), Error> {
    match placement {
        TokenPlacement::Header { name, scheme } => {
            let fault =
                || Error::config("the provider's placement(..) names a header or scheme that HTTP does not allow");
            let name = HeaderName::try_from(&**name).map_err(|_| fault())?;
            let before = scheme.as_ref().map(|scheme| format!("{scheme} ")).unwrap_or_default();
            let text = Zeroizing::new([&before, token.expose()].concat());
            let mut value = HeaderValue::from_str(&text).map_err(|_| fault())?;
            value.set_sensitive(true);
            head.headers.insert(name, value);
        }
        TokenPlacement::Query { name } => head.uri = with_parameter(&head.uri, name, token.expose())?,
        TokenPlacement::NotSent => {
            return Err(Error::config("the tickets of this provider sign pages and are not sent with requests"));
        }
    }
    Ok(())
}

/// Returns `uri` with this query parameter, which replaces parameters of the same name. The rest is unchanged.
fn with_parameter(uri: &Uri, name: &str, value: &str) -> Result<Uri, Error> {
    let other = |pair: &&str| {
        let known = pair.split_once('=').map_or(*pair, |(known, _)| known);
        !pair.is_empty() && !percent_decode_str(known).eq(name.bytes())
    };
    let mut query =
        Zeroizing::new(uri.query().unwrap_or_default().split('&').filter(other).collect::<Vec<_>>().join("&"));
    if !query.is_empty() {
        query.push('&');
    }
    let address = Zeroizing::new([uri.path(), "?", &query, &query_encoded(name), "=", &query_encoded(value)].concat());
    let fault = |_| Error::config("the URL is too long for a token in its query");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(address.as_str()).map_err(fault)?);
    Uri::from_parts(parts)
        .map_err(|_| Error::config("the token cannot be added to the query of the URL; check the URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_parameter_is_added_or_replaced_and_the_rest_is_unchanged() {
        for (before, after) in [
            ("https://h", "https://h/?to%20ken=a%2Fb%2B"),
            ("https://h/p?", "https://h/p?to%20ken=a%2Fb%2B"),
            ("https://h:8/p?a=%20&b", "https://h:8/p?a=%20&b&to%20ken=a%2Fb%2B"),
            ("https://h/?to%20ken=x&a=1&t%6F%20ken&to=2", "https://h/?a=1&to=2&to%20ken=a%2Fb%2B"),
        ] {
            let uri = with_parameter(&before.parse().expect("a URL"), "to ken", "a/b+").expect("room for it");
            assert_eq!(uri.to_string(), after);
        }
    }
}
