//! The URLs that providers are configured with, and their checks: `base_url`, `authority`, `token_url`.

use std::fmt;
use std::net::Ipv4Addr;

use crate::error::Error;
use crate::http::{check_link_local_url, check_url};
use crate::secret::plain_url;

/// The scheme and host of a vendor, and perhaps the start of the path. A slash at the end is dropped.
///
/// `Debug` shows no user name, password or query.
#[derive(Clone)]
pub(super) struct BaseUrl(String);

impl BaseUrl {
    pub(super) fn new(url: impl Into<String>) -> BaseUrl {
        let url: String = url.into();
        BaseUrl(url.trim_end_matches('/').to_owned())
    }

    /// Returns the URL of `path`, which begins with a slash.
    pub(super) fn join(&self, path: &str) -> String {
        [&self.0, path].concat()
    }

    /// The base URL, for an identity.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks that a credential may be sent to this URL, the setting `base_url`.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.check_setting("base_url")
    }

    /// Checks that a credential may be sent to this URL, a setting of another name.
    pub(super) fn check_setting(&self, setting: &str) -> Result<(), Error> {
        if self.0.contains('?') {
            return Err(Error::config(format!("{setting} must not have a query; remove the part from `?` on")));
        }
        check_url_setting(setting, &self.0)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        plain_url(&self.0).fmt(f)
    }
}

/// Checks that a credential may be sent to `url`: HTTPS, or HTTP to this machine. `setting` is the name of the setting,
/// for the error text.
pub(super) fn check_url_setting(setting: &str, url: &str) -> Result<(), Error> {
    check_url(url).map_err(|fault| Error::config(url_fault(setting, url, fault)))
}

/// Does the same for a URL that may be a link-local address with HTTP, such as that of a metadata service.
pub(super) fn check_link_local_url_setting(setting: &str, url: &str) -> Result<(), Error> {
    check_link_local_url(url).map_err(|fault| Error::config(url_fault(setting, url, fault)))
}

/// Returns the text for a URL that was refused because of `fault`. The text says what is wrong and what to write
/// instead.
///
/// The URL may be a secret that was set in the wrong place, or contain one. So the text quotes the host, where there is
/// one, and a path of well-known words.
fn url_fault(setting: &str, url: &str, fault: &str) -> String {
    if url.trim().is_empty() {
        return format!("{setting} is empty");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return match displayable_address(url) {
            Some(address) => {
                let is_loopback = check_url(&format!("http://{url}")).is_ok();
                let scheme = if is_loopback { "http" } else { "https" };
                format!("{setting} \"{address}\" has no scheme; write {scheme}://{address}")
            }
            None => format!("{setting} has no scheme; write https:// and the host name"),
        };
    };
    let is_plain_http = scheme.eq_ignore_ascii_case("http") && check_url(&format!("https://{rest}")).is_ok();
    match displayable_address(rest).filter(|_| is_plain_http) {
        Some(address) => {
            format!(
                "{setting} \"http://{address}\" would send a credential in plain HTTP; write https://{address}{OR_ALLOW}"
            )
        }
        None => format!("{setting}: {fault}"),
    }
}

/// Returns host and path of a URL without its scheme, such as `login.example/token`, as far as an error may show them.
/// Returns `None` if the text does not begin with a host name or an IPv4 address.
fn displayable_address(text: &str) -> Option<String> {
    let address = text.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = address.split_once('/').map_or((address, None), |(host, path)| (host, Some(path)));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "0"));
    let top_level = host.rsplit('.').next().unwrap_or_default();
    // A text with dots, such as a JWT, hardly ever ends with a short word in lower case.
    let is_name = host.contains('.')
        && (2..=18).contains(&top_level.len())
        && top_level.bytes().all(|byte| byte.is_ascii_lowercase())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    let is_host = is_name || host == "localhost" || host.parse::<Ipv4Addr>().is_ok();
    if !is_host || port.parse::<u16>().is_err() || text.contains('@') {
        return None;
    }
    Some(match path {
        None => authority.to_owned(),
        Some(path) if path.split('/').all(|part| WELL_KNOWN.contains(&part)) => format!("{authority}/{path}"),
        Some(_) => format!("{authority}/.."),
    })
}

const OR_ALLOW: &str = ", or allow a host of a private network with `HttpConfig::plain_http_to`";

/// Parts of paths that are no secrets: the usual names of token endpoints.
const WELL_KNOWN: &[&str] = &[
    "",
    "api",
    "auth",
    "authorize",
    "cgi-bin",
    "connect",
    "device",
    "login",
    "oauth",
    "oauth2",
    "t",
    "token",
    "v1",
    "v2",
    "v2.0",
    "v3",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(url: &str) -> String {
        check_url_setting("token_url", url).expect_err("a URL that is refused").to_string()
    }

    #[test]
    fn a_wrong_url_is_answered_with_the_right_one() {
        for (url, text) in [
            ("", "token_url is empty"),
            (
                "login.example/token",
                "token_url \"login.example/token\" has no scheme; write https://login.example/token",
            ),
            (
                "localhost:8080/token",
                "token_url \"localhost:8080/token\" has no scheme; write http://localhost:8080/token",
            ),
            ("10.0.0.1/hunter2?k=hunter2", "token_url \"10.0.0.1/..\" has no scheme; write https://10.0.0.1/.."),
            (
                "http://login.example/token?k=hunter2",
                "token_url \"http://login.example/token\" would send a credential in plain HTTP; \
                 write https://login.example/token, or allow a host of a private network with `HttpConfig::plain_http_to`",
            ),
        ] {
            assert_eq!(fault(url), text);
        }
        assert!(fault("https://login.example/#x").starts_with("token_url: "));
        assert_eq!(fault("/token"), "token_url has no scheme; write https:// and the host name");
    }

    #[test]
    fn a_secret_in_the_place_of_a_url_is_not_quoted() {
        for secret in [
            "hunter2",
            "hunter2:hunter2@login.example",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJodW50ZXIyIn0.hunter2",
            "https://hunter2@login.example",
            "http://user:hunter2@login.example",
            "hunter2 login.example",
        ] {
            assert!(!fault(secret).contains("hunter2"), "{}", fault(secret));
        }
    }

    #[test]
    fn a_base_url_has_no_query_and_loses_its_last_slash() {
        assert_eq!(BaseUrl::new("https://host.example/").join("/a"), "https://host.example/a");
        let error = BaseUrl::new("https://host.example/?a=b").check_setting("authority").expect_err("a query");
        assert_eq!(error.to_string(), "authority must not have a query; remove the part from `?` on");
    }
}
