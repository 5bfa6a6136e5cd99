//! URLs: which ones a credential may be sent to, and how parameters are encoded.

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

/// Checks a URL that a credential is sent to: HTTPS, or plain HTTP to loopback. The error says what is wrong.
pub(crate) fn check_url(url: &str) -> Result<(), &'static str> {
    parse_url(url, is_loopback).map(drop)
}

/// As [`check_url`], and plain HTTP to a link-local address is allowed too.
pub(crate) fn check_link_local_url(url: &str) -> Result<(), &'static str> {
    parse_url(url, is_link_local).map(drop)
}

/// Parses a URL and checks it. `allows_http` says to which hosts plain HTTP may be used.
pub(super) fn parse_url(url: &str, allows_http: fn(&str) -> bool) -> Result<Uri, &'static str> {
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

fn check_uri_for(uri: &Uri, allows_http: fn(&str) -> bool) -> Result<(), &'static str> {
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

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || bare.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback())
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
    fn a_form_encodes_all_but_the_plain_characters() {
        assert_eq!(*form_encoded("a b+&%:\u{fc}"), "a+b%2B%26%25%3A%C3%BC");
        assert_eq!(*form_encoded("-._~*"), "-._~%2A");
    }
}
