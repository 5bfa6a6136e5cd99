//! Addresses of Redis servers, and the name that error texts give to a server or to a group of servers.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Address {
    /// Returns whether connecting needs name resolution, which no socket timeout bounds.
    pub(super) fn needs_resolution(&self) -> bool {
        matches!(self, Address::Tcp(host, _) if host.parse::<IpAddr>().is_err())
    }

    /// Parses `host:port`. An IPv6 address stands in brackets.
    #[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
    pub(super) fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'%');
        let fits = !host.is_empty() && host.bytes().all(plain);
        fits.then_some(Address::Tcp(host.to_owned(), port.parse().ok()?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The server, or the group of servers, that an error is about. `Display` shows its addresses, and never a user or a
/// password.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Server(Address),
    #[cfg(feature = "redis-sentinel")]
    Sentinel(Address),
    #[cfg(feature = "redis-sentinel")]
    Sentinels(Vec<Address>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<Address>),
}

impl Endpoint {
    /// Returns the setting that holds the password for this endpoint, for error texts.
    pub(super) fn password_setting(&self) -> &'static str {
        match self {
            #[cfg(feature = "redis-sentinel")]
            Endpoint::Sentinel(_) | Endpoint::Sentinels(_) => "RedisConfig::sentinel_password",
            _ => "RedisConfig::password",
        }
    }

    /// Returns the address, if this is one server or one sentinel.
    pub(super) fn address(&self) -> Option<&Address> {
        match self {
            Endpoint::Server(address) => Some(address),
            #[cfg(feature = "redis-sentinel")]
            Endpoint::Sentinel(address) => Some(address),
            #[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
            _ => None,
        }
    }

    /// Returns whether the store sends a user with the password. Sentinels get the password alone.
    pub(super) fn has_users(&self) -> bool {
        match self {
            #[cfg(feature = "redis-sentinel")]
            Endpoint::Sentinel(_) | Endpoint::Sentinels(_) => false,
            _ => true,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Server(address) => write!(f, "redis at {address}"),
            #[cfg(feature = "redis-sentinel")]
            Endpoint::Sentinel(address) => write!(f, "redis sentinel at {address}"),
            #[cfg(feature = "redis-sentinel")]
            Endpoint::Sentinels(nodes) => write!(f, "redis with sentinels at {}", list(nodes)),
            #[cfg(feature = "redis-cluster")]
            Endpoint::Cluster(nodes) => write!(f, "redis cluster at {}", list(nodes)),
        }
    }
}

/// Returns the first few addresses, so that an error text about a large cluster stays short.
#[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
fn list(nodes: &[Address]) -> String {
    let mut text = nodes.iter().take(MAX_LISTED).map(Address::to_string).collect::<Vec<_>>().join(", ");
    if nodes.len() > MAX_LISTED {
        text += &format!(" and {} more", nodes.len() - MAX_LISTED);
    }
    text
}

#[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
const MAX_LISTED: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_by_its_address() {
        let name = |address| Endpoint::Server(address).to_string();
        assert_eq!(name(Address::Tcp("cache.internal".to_owned(), 6379)), "redis at cache.internal:6379");
        assert_eq!(name(Address::Tcp("::1".to_owned(), 6380)), "redis at [::1]:6380");
        assert_eq!(name(Address::Unix("/run/redis.sock".into())), "redis at /run/redis.sock");
    }

    #[cfg(feature = "redis-cluster")]
    #[test]
    fn the_name_of_a_large_cluster_is_short() {
        let nodes = |count: u16| (1..=count).map(|port| Address::Tcp("h".to_owned(), port)).collect();
        assert_eq!(Endpoint::Cluster(nodes(3)).to_string(), "redis cluster at h:1, h:2, h:3");
        assert_eq!(Endpoint::Cluster(nodes(9)).to_string(), "redis cluster at h:1, h:2, h:3 and 6 more");
    }
}
