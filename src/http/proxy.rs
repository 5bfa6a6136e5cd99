//! Which proxy a request goes through, when the environment decides.
//!
//! The variables are read as curl reads them (curl's manual page, "ENVIRONMENT"; `CURLOPT_NOPROXY`):
//!
//! 1. `NO_PROXY` comes first. A host that it lists is reached directly.
//! 2. The variable for the scheme of the URL: `https_proxy`, `HTTPS_PROXY`; for plain HTTP `http_proxy`, and `HTTP_PROXY`
//!    outside CGI programs. In a CGI program a client sets `HTTP_PROXY` with a header `Proxy:`.
//! 3. `all_proxy`, `ALL_PROXY`.
//!
//! Lower case comes before upper case. A variable that is set and empty means "no proxy" and ends the search. A value that
//! is not a usable proxy is an error that names the variable: a user who sets a proxy wants requests to leave from there.

use std::env::{self, VarError};
use std::net::IpAddr;

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use crate::error::Error;

/// Returns the proxy that the environment names for requests to `uri`.
pub(super) fn from_environment(uri: &Uri) -> Result<Option<Proxy>, Error> {
    proxy_for(uri, |name| match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(unusable(name, "is not UTF-8")),
    })
}

/// Parses the URL of a proxy that a program names in its settings.
pub(super) fn from_setting(url: &str) -> Result<Proxy, Error> {
    parse(url).map_err(|problem| Error::config(format!("the proxy's URL {problem}; write http://host:port")))
}

/// Returns the proxy of an agent of the user's own, unless it is a SOCKS proxy from the environment.
///
/// `ureq` without its feature `socks-proxy` would log the proxy and connect directly. The user wants requests to leave
/// from the proxy, and so do providers with a list of trusted addresses.
pub(super) fn of_custom_agent(proxy: &Proxy) -> Result<Proxy, Error> {
    if proxy.is_from_env() && is_socks(proxy) {
        return Err(Error::config(format!("the environment {SOCKS}; set http://host:port, or unset it")));
    }
    Ok(proxy.clone())
}

/// Returns host and port of a proxy, for error texts. User name and password are left out.
pub(super) fn name_of(proxy: &Proxy) -> String {
    format!("{}:{}", proxy.host(), proxy.port())
}

type Variable<'a> = &'a dyn Fn(&str) -> Result<Option<String>, Error>;

fn proxy_for(uri: &Uri, variable: impl Fn(&str) -> Result<Option<String>, Error>) -> Result<Option<Proxy>, Error> {
    let Some(host) = uri.host() else { return Ok(None) };
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let (_, exceptions) = first_set(&["no_proxy", "NO_PROXY"], &variable)?.unwrap_or_default();
    if exceptions.split([',', ' ', '\t']).any(|entry| covers(entry, host, port)) {
        return Ok(None);
    }
    let of_the_scheme: &[&str] = match uri.scheme_str() {
        Some("http") if variable("REQUEST_METHOD")?.is_some() => &["http_proxy"],
        Some("http") => &["http_proxy", "HTTP_PROXY"],
        _ => &["https_proxy", "HTTPS_PROXY"],
    };
    let found = match first_set(of_the_scheme, &variable)? {
        Some(found) => Some(found),
        None => first_set(&["all_proxy", "ALL_PROXY"], &variable)?,
    };
    match found {
        Some((name, url)) if !url.trim().is_empty() => {
            parse(url.trim()).map(Some).map_err(|problem| unusable(name, problem))
        }
        _ => Ok(None),
    }
}

/// Returns name and value of the first of these variables that is set, be it to nothing.
fn first_set<'n>(names: &[&'n str], variable: Variable<'_>) -> Result<Option<(&'n str, String)>, Error> {
    for name in names {
        if let Some(value) = variable(name)? {
            return Ok(Some((name, value)));
        }
    }
    Ok(None)
}

fn parse(url: &str) -> Result<Proxy, &'static str> {
    let proxy = Proxy::new(url).map_err(|_| "is not valid")?;
    if is_socks(&proxy) { Err(SOCKS) } else { Ok(proxy) }
}

fn is_socks(proxy: &Proxy) -> bool {
    !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https)
}

const SOCKS: &str = "names a SOCKS proxy, which is not supported";

fn unusable(name: &str, problem: &str) -> Error {
    Error::config(format!("the environment variable {name} {problem}; set http://host:port, or unset it"))
}

/// Whether an entry of `NO_PROXY` covers a host and port.
///
/// An entry is `*`, a host name that covers its subdomains too (with or without a dot before it), an IP address, a network
/// in CIDR notation, or a name or address followed by `:port`.
fn covers(entry: &str, host: &str, port: u16) -> bool {
    let (name, wanted_port) = split_port(entry);
    if name.is_empty() || wanted_port.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if name == "*" {
        return true;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return match name.split_once('/') {
            Some((network, bits)) => is_inside(address, network, bits),
            None => name.parse() == Ok(address),
        };
    }
    let (name, host) = (name.trim_matches('.').to_ascii_lowercase(), host.trim_end_matches('.').to_ascii_lowercase());
    !name.is_empty() && host.strip_suffix(&name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Splits `name:port`. IPv6 addresses stand in brackets, or have more than one colon.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some((address, rest)) = entry.strip_prefix('[').and_then(|entry| entry.split_once(']')) {
        return (address, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.split_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
        _ => (entry, None),
    }
}

fn is_inside(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (u128::from(u32::from(address)), u32::from(network).into(), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.into(), u128::from(network), 128),
        _ => return false,
    };
    // A network of zero bits covers every address; a shift by the whole width would overflow.
    bits <= width && (bits == 0 || (address ^ network) >> (width - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn chosen(url: &str, environment: &[(&str, &str)]) -> Result<Option<String>, Error> {
        let uri: Uri = url.parse().expect("a URL");
        let variable = |name: &str| Ok(environment.iter().find(|(key, _)| *key == name).map(|(_, v)| v.to_string()));
        Ok(proxy_for(&uri, variable)?.as_ref().map(name_of))
    }

    #[test]
    fn variables_are_read_in_the_order_of_curl() {
        let url = "https://login.example/token";
        for (environment, expected) in [
            (&[][..], None),
            (&[("HTTPS_PROXY", "http://upper:1")], Some("upper:1")),
            (&[("https_proxy", "http://lower:1"), ("HTTPS_PROXY", "http://upper:1")], Some("lower:1")),
            (&[("ALL_PROXY", "http://all:1")], Some("all:1")),
            (&[("all_proxy", "http://lower:1"), ("ALL_PROXY", "http://upper:1")], Some("lower:1")),
            (&[("https_proxy", "http://specific:1"), ("all_proxy", "socks5://all:1")], Some("specific:1")),
            (&[("http_proxy", "http://of-another-scheme:1")], None),
            (&[("https_proxy", "host:3128")], Some("host:3128")),
            (&[("https_proxy", "http://host")], Some("host:80")),
            (&[("https_proxy", ""), ("all_proxy", "http://all:1")], None),
            (&[("https_proxy", "http://user:hunter2@host:1")], Some("host:1")),
        ] {
            assert_eq!(chosen(url, environment).expect("usable").as_deref(), expected, "{environment:?}");
        }
    }

    #[test]
    fn a_cgi_program_takes_no_proxy_from_its_client() {
        let plain = "http://login.example/token";
        let upper = ("HTTP_PROXY", "http://upper:1");
        assert_eq!(chosen(plain, &[upper]).expect("usable").as_deref(), Some("upper:1"));
        assert_eq!(chosen(plain, &[upper, ("REQUEST_METHOD", "GET")]).expect("usable"), None);
    }

    #[test]
    fn a_value_that_is_no_usable_proxy_is_refused_by_the_name_of_its_variable() {
        for (name, value, problem) in [
            ("https_proxy", "socks5://user:hunter2@host:1", "names a SOCKS proxy, which is not supported"),
            ("ALL_PROXY", "socks4://host:1", "names a SOCKS proxy, which is not supported"),
            ("HTTPS_PROXY", "http://user:hunter2@ho st", "is not valid"),
        ] {
            let error = chosen("https://login.example", &[(name, value)]).expect_err(value);
            assert_eq!(error.kind(), ErrorKind::Config);
            let expected = format!("the environment variable {name} {problem}; set http://host:port, or unset it");
            assert_eq!(error.to_string(), expected);
        }
        // An exception comes before the value is looked at.
        assert_eq!(chosen("https://a.b", &[("https_proxy", "socks5://host"), ("no_proxy", "b")]).expect("none"), None);
    }

    /// From curl's manual page, the documentation of `CURLOPT_NOPROXY`, and its tests of `Curl_check_noproxy`.
    #[test]
    fn no_proxy_covers_what_curl_says() {
        for (list, url, is_covered) in [
            ("*", "https://any.example", true),
            ("local.com", "https://local.com", true),
            ("local.com", "https://www.local.com", true),
            ("local.com", "https://notlocal.com", false),
            ("local.com", "https://local.com.evil.example", false),
            (".local.com", "https://www.local.com", true),
            (".local.com", "https://local.com", true),
            ("local.com.", "https://local.com", true),
            ("local.com", "https://LOCAL.com.", true),
            ("vm", "https://login.vm", true),
            ("a.example, b.example", "https://b.example", true),
            ("a.example b.example", "https://b.example", true),
            ("", "https://a.example", false),
            (",,", "https://a.example", false),
            (".", "https://a.example", false),
            ("192.168.0.1", "https://192.168.0.1", true),
            ("192.168.0.1", "https://192.168.0.10", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("192.168.0.0/16", "https://192.168.255.1", true),
            ("0.0.0.0/0", "https://8.8.8.8", true),
            ("10.0.0.0/33", "https://10.0.0.1", false),
            ("10.0.0.0/8", "https://host.example", false),
            ("fd00::/8", "https://[fd12::1]", true),
            ("fd00::/8", "https://[fe80::1]", false),
            ("[::2]", "https://[::2]:8443", true),
            ("::2", "https://[::2]", true),
            ("login.example:8443", "https://login.example:8443", true),
            ("login.example:8443", "https://login.example", false),
            ("login.example:443", "https://login.example", true),
            ("[fd00::1]:8443", "https://[fd00::1]:8443", true),
            ("*:8443", "https://login.example:8443", true),
        ] {
            let environment = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", list)];
            let proxy = chosen(url, &environment).expect("usable");
            assert_eq!(proxy.is_none(), is_covered, "{list} {url}");
        }
    }
}
