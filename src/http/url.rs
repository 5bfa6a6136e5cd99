//! URLs: which ones a credential may be sent to, and how parameters are encoded.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;
use zeroize::Zeroizing;

/// Encodes `text` for a form: everything but letters, digits and `-._~`, and a blank as `+`.
pub(crate) fn form_encoded(text: &str) -> Zeroizing<String> {
    let parts = utf8_percent_encode(text, ENCODED).map(|part| if part == "%20" { "+" } else { part });
    Zeroizing::new(parts.collect())
}

/// Encodes `text` as a query parameter: everything but letters, digits and `-._~`.
pub(crate) fn query_encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(utf8_percent_encode(text, ENCODED).collect())
}

/// Checks a URL that a credential is sent to: HTTPS, or plain HTTP to loopback or to a host that the
/// [`PlainHttpHosts`] of the surrounding check allow. The error says what is wrong.
pub(crate) fn check_url(url: &str) -> Result<(), &'static str> {
    let allowed = CHECKED_WITH.with_borrow(PlainHttpHosts::clone);
    parse_url(url, |host| is_loopback(host) || allowed.contains(host)).map(drop)
}

/// As [`check_url`], and plain HTTP to a link-local address is allowed too.
pub(crate) fn check_link_local_url(url: &str) -> Result<(), &'static str> {
    parse_url(url, is_link_local).map(drop)
}

/// Parses a URL and checks it. `allows_http` says to which hosts plain HTTP may be used.
pub(super) fn parse_url(url: &str, allows_http: impl Fn(&str) -> bool) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "the URL is not valid")?;
    // The parser drops everything after a `#`, also a path that is appended later.
    if url.contains('#') {
        return Err("the URL must not have a fragment");
    }
    check_uri_for(&uri, allows_http)?;
    Ok(uri)
}

/// As [`check_url`], for a URL that is parsed already.
pub(crate) fn check_uri(uri: &Uri) -> Result<(), &'static str> {
    check_uri_for(uri, is_loopback)
}

fn check_uri_for(uri: &Uri, allows_http: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    let authority = uri.authority().ok_or("the URL must start with https:// and a host name")?;
    if authority.as_str().contains('@') {
        return Err("the URL must not contain a user name or a password");
    }
    if authority.as_str() != authority.host() && authority.port_u16().is_none() {
        return Err("the port in the URL is not a number up to 65535");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if allows_http(authority.host()) => Ok(()),
        _ => Err("the URL must start with https://, because a credential is sent there"),
    }
}

/// Returns host and port of a URL, for error texts. Neither is a secret.
pub(crate) fn host_of(uri: &Uri) -> String {
    // A user name before an `@` is never part of it.
    uri.authority().map_or_else(String::new, |authority| match authority.port_u16() {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    })
}

/// The hosts to which a program allows credentials in plain HTTP, in lower case and without brackets.
#[derive(Clone, Debug, Default)]
pub(super) struct PlainHttpHosts(Vec<String>);

impl PlainHttpHosts {
    pub(super) fn add(&mut self, host: &str) {
        self.0.push(bare(host).to_ascii_lowercase());
    }

    pub(super) fn contains(&self, host: &str) -> bool {
        self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare(host)))
    }

    /// Returns true if each host is a name or an address, without scheme, port and path.
    pub(super) fn are_hosts(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = |host: &String| !host.is_empty() && host.bytes().all(is_plain);
        self.0.iter().all(|host| is_name(host) || host.parse::<Ipv6Addr>().is_ok())
    }

    /// Runs `check`, whose calls of [`check_url`] on this thread then allow plain HTTP to these hosts.
    ///
    /// A provider checks its URLs without knowing the HTTP configuration that its manager will use, so the manager
    /// brings the hosts in this way.
    pub(super) fn during<T>(&self, check: impl FnOnce() -> T) -> T {
        let _restored = Restored(CHECKED_WITH.replace(self.clone()));
        check()
    }
}

/// Sets the hosts of the check that surrounds this one again, even after a panic.
struct Restored(PlainHttpHosts);

impl Drop for Restored {
    fn drop(&mut self) {
        CHECKED_WITH.set(std::mem::take(&mut self.0));
    }
}

thread_local! {
    /// The hosts that the check in progress on this thread allows.
    static CHECKED_WITH: RefCell<PlainHttpHosts> = RefCell::default();
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || bare(host).parse().is_ok_and(|address: Ipv6Addr| address.is_loopback())
}

pub(super) fn is_link_local(host: &str) -> bool {
    is_loopback(host) || host.parse().is_ok_and(|address: Ipv4Addr| address.is_link_local())
}

/// Everything but the characters that are the same encoded and plain anywhere in a URL (RFC 3986 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_https_and_loopback_only() {
        for good in [
            "https://host",
            "https://host:8443/a/b?c=d",
            "http://localhost:1/x",
            "http://LOCALHOST",
            "http://127.9.9.9",
            "http://[::1]:80/",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "host",
            "/path",
            "http://host",
            "http://localhost.evil.example",
            "http://127.0.0.1@evil.example/",
            "http://128.0.0.1",
            "http://[::2]/",
            "ftp://localhost",
            "https://user:word@host",
            "https://host:99999",
            "https://host#fragment",
            "https://ho st",
            "https://host\r\n",
        ] {
            assert!(check_url(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn plain_http_goes_to_an_allowed_host_only_and_only_while_it_is_checked() {
        let mut hosts = PlainHttpHosts::default();
        ["Vault", "10.0.0.7", "[fd00::1]"].iter().for_each(|host| hosts.add(host));
        assert!(hosts.are_hosts());
        for url in ["http://vault:8200/t", "http://VAULT", "http://10.0.0.7:80", "http://[fd00::1]:80/"] {
            assert!(hosts.during(|| check_url(url)).is_ok() && check_url(url).is_err(), "{url}");
        }
        for url in ["http://vault.evil.example", "http://vault@evil.example", "ftp://vault", "http://10.0.0.70"] {
            assert!(hosts.during(|| check_url(url)).is_err(), "{url}");
        }
        for wrong in ["", "http://vault", "vault:80", "vault/t", "*", "va ult", "a@b"] {
            let mut hosts = PlainHttpHosts::default();
            hosts.add(wrong);
            assert!(!hosts.are_hosts(), "{wrong}");
        }
        let panicked = std::panic::catch_unwind(|| hosts.during(|| panic!("on purpose")));
        assert!(panicked.is_err() && check_url("http://vault").is_err());
    }

    #[test]
    fn a_form_encodes_all_but_the_plain_characters() {
        assert_eq!(*form_encoded("a b+&%:\u{fc}"), "a+b%2B%26%25%3A%C3%BC");
        assert_eq!(*form_encoded("-._~*"), "-._~%2A");
    }
}
