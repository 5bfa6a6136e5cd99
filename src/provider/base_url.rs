//! The URLs that providers are configured with, and their checks: `base_url`, `authority`, `token_url`.

use std::fmt;

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

/// Returns the text for a URL that was refused because of `fault`: what is wrong and what to write instead.
///
/// The URL may be a secret that was set in the wrong place, so it is quoted only where it looks like a URL, and without
/// user name, password and query.
fn url_fault(setting: &str, url: &str, fault: &str) -> String {
    if url.trim().is_empty() {
        return format!("{setting} is empty");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return match host_and_path(url) {
            Some(address) => {
                let http = format!("http://{address}");
                let right = if check_url(&http).is_ok() { http } else { format!("https://{address}") };
                format!("{setting} \"{address}\" has no scheme; write {right}")
            }
            None => format!("{setting} has no scheme; write https:// and the host name"),
        };
    };
    if scheme.eq_ignore_ascii_case("http") && check_url(&format!("https://{rest}")).is_ok() {
        let (shown, right) = (plain_url(url), plain_url(&format!("https://{rest}")));
        return format!("{setting} \"{shown}\" would send a credential in plain HTTP; write {right}");
    }
    format!("{setting}: {fault}")
}

/// Returns host and path of a text that looks like a URL without its scheme, such as `login.example/token`.
fn host_and_path(text: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b':' | b'/');
    let address = text.split(['?', '#']).next().unwrap_or_default();
    let (host, port) = match address.split('/').next().unwrap_or_default() {
        host if host.contains(':') => host.split_once(':')?,
        host => (host, "0"),
    };
    let top_level = host.rsplit('.').next().unwrap_or_default();
    let is_name = host.contains('.')
        && (2..=18).contains(&top_level.len())
        && top_level.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_host = host == "localhost" || is_name || host.parse::<std::net::Ipv4Addr>().is_ok();
    let has_port = port.parse::<u16>().is_ok();
    (is_host && has_port && !text.contains('@') && address.bytes().all(plain)).then_some(address)
}

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
            ("localhost:8080/t", "token_url \"localhost:8080/t\" has no scheme; write http://localhost:8080/t"),
            ("10.0.0.1/t?k=hunter2", "token_url \"10.0.0.1/t\" has no scheme; write https://10.0.0.1/t"),
            (
                "http://login.example/token?k=hunter2",
                "token_url \"http://login.example/token\" would send a credential in plain HTTP; \
                 write https://login.example/token",
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
