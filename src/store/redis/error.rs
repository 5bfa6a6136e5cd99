//! The errors of Redis operations, and their consequences for the connection and for the breaker.
//!
//! The `redis` crate's errors are sorted into a [`RedisErrorKind`] by the error code of the server's reply, or by the
//! crate's own kind when the server did not reply. The crate's error texts are never passed on, because they may quote
//! values and arguments. Each text here names the server by its address and says what to do.

use std::io;
use std::sync::Arc;

#[cfg(any(feature = "redis-sentinel", feature = "redis-cluster"))]
use super::address::Address;
use super::address::Endpoint;
use crate::error::{Error, ErrorKind};

/// Why an operation, or an attempt to connect, failed.
#[derive(Debug)]
pub(super) struct RedisError {
    pub(super) error: Error,
    pub(super) kind: RedisErrorKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RedisErrorKind {
    /// The connection broke, or the server did not reply in time. The server may have run the command all the same.
    Lost,
    /// No connection could be opened.
    Unreachable,
    /// The server does not have the script that was called by its hash.
    NoScript,
    /// The server is a replica, or has become one, and refuses writes.
    ReadOnly,
    /// The key is on another node of a cluster. Contains the address of the node if the server named it.
    Moved(Option<String>),
    /// The server refuses until a setting changes: a password, an ACL rule, TLS.
    Refused,
    /// The server forbids its user the keys of the command, until its ACL changes.
    ForbiddenKey,
    /// Too few replicas have confirmed a write. The server has performed it, and answers other commands.
    Unreplicated,
    /// The server answers reads and refuses writes: its memory is full, or it cannot save its data.
    Full,
    /// The server answered with an error that may pass.
    Busy,
    /// The server lacks a command.
    UnknownCommand,
    /// This key cannot be used on this server. Other keys can.
    WrongKey,
}

/// A reply that parses as the Redis protocol, but is not what the command or the script returns.
#[derive(Debug)]
pub(super) struct MalformedReply;

impl RedisError {
    pub(super) fn new(kind: RedisErrorKind, message: String) -> RedisError {
        let mut error = RedisError { error: Error::new(ErrorKind::Store, message), kind };
        if error.needs_new_settings() || error.kind == RedisErrorKind::WrongKey {
            error.error = Error::config(error.error.message().to_owned());
        }
        error
    }

    pub(super) fn timed_out(endpoint: &Endpoint) -> RedisError {
        RedisError::new(RedisErrorKind::Lost, format!("{endpoint} did not answer in time"))
    }

    pub(super) fn connect_timed_out(endpoint: &Endpoint) -> RedisError {
        let message = format!("{endpoint} could not be reached in time; check the address and the network");
        RedisError::new(RedisErrorKind::Unreachable, message)
    }

    pub(super) fn malformed_reply(endpoint: &Endpoint) -> RedisError {
        RedisError::new(RedisErrorKind::Lost, malformed_reply(endpoint))
    }

    /// Returns whether the connection must be closed. A later reply on it might belong to this command; only a complete
    /// error reply of the server leaves the connection usable. A read-only server is left, because the new connection
    /// leads to the new master. After a refusal the server may have closed the connection.
    pub(super) fn breaks_connection(&self) -> bool {
        use RedisErrorKind::*;
        matches!(self.kind, Lost | Unreachable | ReadOnly | Refused)
    }

    /// The error of a write that `confirmed` replicas have confirmed in time, fewer than the settings ask for.
    pub(super) fn unreplicated(endpoint: &Endpoint, confirmed: i64, needed: u32) -> RedisError {
        let text = format!(
            "{endpoint}: {confirmed} of {needed} replicas confirmed the write in time; check the replicas, or change \
             RedisConfig::wait_for_replicas"
        );
        RedisError::new(RedisErrorKind::Unreplicated, text)
    }

    /// Returns whether the server said something about itself, so that the error says more than that of a silent one.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn is_answer(&self) -> bool {
        self.error.code().is_some() || self.error.message().contains("serves no slots")
    }

    /// Returns whether the error says nothing about the server: other operations may succeed.
    pub(super) fn concerns_one_operation(&self) -> bool {
        matches!(self.kind, RedisErrorKind::WrongKey | RedisErrorKind::Unreplicated)
    }

    /// Returns whether the same call may succeed at once on a new connection.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self.kind, RedisErrorKind::Lost | RedisErrorKind::ReadOnly)
    }

    /// Returns whether the server may still answer reads. A successful read then does not prove that the failure is
    /// over.
    pub(super) fn affects_only_writes(&self) -> bool {
        matches!(self.kind, RedisErrorKind::ReadOnly | RedisErrorKind::Full)
    }

    /// Returns whether the failure lasts until a person changes a setting. The breaker then opens at once and for its
    /// longest time.
    pub(super) fn needs_new_settings(&self) -> bool {
        use RedisErrorKind::*;
        matches!(self.kind, Refused | ForbiddenKey | Moved(_) | UnknownCommand)
    }

    /// Reinterprets an error reply to a command that sets up a connection. A plain `ERR` without a meaning of its own is
    /// a lasting refusal there, such as a database that does not exist, and `hint` says which setting to check.
    pub(super) fn during_setup(self, endpoint: &Endpoint, hint: &str) -> RedisError {
        match self.error.code() {
            Some("ERR") if self.kind == RedisErrorKind::Busy || self.kind == RedisErrorKind::UnknownCommand => {
                let refused = RedisError::new(RedisErrorKind::Refused, format!("{endpoint} {hint}"));
                RedisError { error: refused.error.with_code("ERR"), ..refused }
            }
            _ => self,
        }
    }

    /// Adds to a failure of the master which sentinel named this server, because that may be out of date.
    #[cfg(feature = "redis-sentinel")]
    pub(super) fn of_master(self, sentinel: &Endpoint, service: &str) -> RedisError {
        if self.kind != RedisErrorKind::Unreachable {
            return self;
        }
        let (text, code) = (self.error.message(), self.error.code());
        let end = if text.ends_with('?') { " The" } else { "; the" };
        let text =
            format!("{text}{end} {sentinel} names it as the master of \"{service}\"; a failover may be going on");
        let error = RedisError::new(self.kind, text);
        RedisError { error: code.iter().fold(error.error, |error, &code| error.with_code(code)), ..error }
    }

    /// Reinterprets the reply of a server that does not know the command of a sentinel.
    #[cfg(feature = "redis-sentinel")]
    pub(super) fn of_plain_server(self, address: &Address) -> RedisError {
        let endpoint = Endpoint::Server(address.clone());
        let text = format!(
            "{endpoint} is a server, not a sentinel; give RedisConfig::sentinels the addresses of the sentinels, often \
             port 26379, or use RedisConfig::from_url"
        );
        let error = RedisError::new(RedisErrorKind::Refused, text);
        RedisError { error: error.error.with_code("ERR"), ..error }
    }

    /// The error of a node that belongs to no cluster yet.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn no_slots(address: &Address) -> RedisError {
        let endpoint = Endpoint::Server(address.clone());
        let text =
            format!("{endpoint} is a node of a cluster that serves no slots; create the cluster, or assign its slots");
        RedisError::new(RedisErrorKind::Unreachable, text)
    }

    /// The error of a server that speaks plain Redis where the settings ask for TLS.
    #[cfg(feature = "redis-tls")]
    pub(super) fn server_without_tls(endpoint: &Endpoint) -> RedisError {
        RedisError::new(RedisErrorKind::Refused, no_tls(endpoint))
    }

    /// The error of a server that speaks TLS where the settings do not ask for it.
    #[cfg(feature = "redis-tls")]
    pub(super) fn server_with_tls(endpoint: &Endpoint) -> RedisError {
        let text = format!("{endpoint} expects TLS; use rediss:// instead of redis://");
        RedisError::new(RedisErrorKind::Refused, text)
    }

    /// Reinterprets the error of a server that closes a new connection without a reply to the first command. A server
    /// that sent what is no reply has been named already.
    pub(super) fn closed_at_once(self, endpoint: &Endpoint) -> RedisError {
        if self.error.message() == malformed_reply(endpoint) {
            return self;
        }
        let text = format!(
            "{endpoint} closes the connection without an answer; it may expect TLS (rediss://, with the feature \
             redis-tls), or be a load balancer without a server behind it"
        );
        RedisError::new(RedisErrorKind::Lost, text)
    }

    /// Reinterprets a redirection that came through the cluster client of the `redis` crate. The client follows
    /// redirections itself, so the error means that it gave up after too many.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn of_cluster_client(self, endpoint: &Endpoint) -> RedisError {
        match self.kind {
            RedisErrorKind::Moved(_) => {
                let text = format!("{endpoint} redirected a command too often; it may be moving keys between nodes");
                RedisError::new(RedisErrorKind::Lost, text)
            }
            _ => self,
        }
    }

    /// Sorts an error of the `redis` crate. `connecting` says that the error occurred before the connection was open.
    pub(super) fn from_driver(error: &redis::RedisError, endpoint: &Endpoint, connecting: bool) -> RedisError {
        use redis::ErrorKind as DriverErrorKind;
        let code = hidden_code(error).or(error.code()).unwrap_or_default();
        let known = known_code(code, error, endpoint).or_else(|| known_text(code, error, endpoint));
        let (kind, text) = known.unwrap_or_else(|| match error.kind() {
            DriverErrorKind::AuthenticationFailed => (RedisErrorKind::Refused, wrong_password(endpoint)),
            // Includes errors about TLS settings and about addresses that this platform does not support.
            DriverErrorKind::InvalidClientConfig => {
                (RedisErrorKind::Refused, format!("the settings for {endpoint} cannot be used; check RedisConfig"))
            }
            // A code that is not in the list. The error shows the code, and never the text after it.
            DriverErrorKind::Server(_) | DriverErrorKind::Extension => {
                (RedisErrorKind::Busy, format!("{endpoint} answered a command with an error"))
            }
            DriverErrorKind::Parse => (RedisErrorKind::Lost, malformed_reply(endpoint)),
            DriverErrorKind::ClusterConnectionNotFound if !connecting => {
                let text =
                    format!("{endpoint} has no reachable node for this key; check that its nodes are in cluster mode");
                (RedisErrorKind::Lost, text)
            }
            _ => transport_failure(error, endpoint, connecting),
        });
        let mut failure = RedisError::new(kind, text);
        if !code.is_empty() {
            failure.error = failure.error.with_code(code);
        }
        failure
    }
}

/// Sorts an error reply by its code. `None` for a code that has no meaning of its own here.
fn known_code(code: &str, error: &redis::RedisError, endpoint: &Endpoint) -> Option<(RedisErrorKind, String)> {
    Some(match code {
        "NOAUTH" => {
            let setting = endpoint.password_setting();
            (RedisErrorKind::Refused, format!("{endpoint} requires a password; set one with {setting}"))
        }
        "WRONGPASS" => (RedisErrorKind::Refused, wrong_password(endpoint)),
        // The text tells a forbidden key from a forbidden command.
        "NOPERM" if error.detail().is_some_and(|text| text.contains("keys")) => {
            let text = format!(
                "{endpoint} forbids its user the keys of the store; allow them in the user's ACL, such as ~evertoken:*"
            );
            (RedisErrorKind::ForbiddenKey, text)
        }
        "NOPERM" => {
            let text = format!("{endpoint} forbids its user a command that the store needs; extend the user's ACL");
            (RedisErrorKind::Refused, text)
        }
        "NOSCRIPT" => (
            RedisErrorKind::NoScript,
            format!("{endpoint} does not know a script that was just sent; check for a proxy without EVALSHA"),
        ),
        "READONLY" => {
            let text = format!("{endpoint} is a replica, which takes no writes; use the address of the master");
            (RedisErrorKind::ReadOnly, text)
        }
        "MOVED" | "ASK" => {
            let node = error.redirect_node().map(|(address, _)| address.to_owned());
            let text =
                format!("{endpoint} is part of a cluster; use RedisConfig::cluster, with the feature redis-cluster");
            (RedisErrorKind::Moved(node), text)
        }
        "CROSSSLOT" => {
            let text = "a key of your own needs a {part} in braces in a redis cluster, so that the keys of a \
                        credential are on one node";
            (RedisErrorKind::WrongKey, text.to_owned())
        }
        "LOADING" => (RedisErrorKind::Busy, format!("{endpoint} is still loading its data")),
        "BUSY" => {
            (RedisErrorKind::Busy, format!("{endpoint} is busy with a script that runs for too long; end the script"))
        }
        "CLUSTERDOWN" => {
            let text = format!(
                "{endpoint} is part of a cluster that is down: a slot is not assigned, or a master has failed; check \
                 CLUSTER INFO there"
            );
            (RedisErrorKind::Busy, text)
        }
        "MASTERDOWN" => {
            let text = format!("{endpoint} is a replica without its master; use the address of the master");
            (RedisErrorKind::ReadOnly, text)
        }
        "DENIED" => {
            let text = format!(
                "{endpoint} is in protected mode and serves only its own host; set a password there and with {}",
                endpoint.password_setting()
            );
            (RedisErrorKind::Refused, text)
        }
        "NOREPLICAS" => {
            let text = format!(
                "{endpoint} takes no writes because too few replicas follow it; check the replicas, and its \
                 min-replicas-to-write"
            );
            (RedisErrorKind::Full, text)
        }
        "OOM" => (RedisErrorKind::Full, format!("{endpoint} is out of memory; raise its maxmemory")),
        "MISCONF" => {
            let text =
                format!("{endpoint} takes no writes because it cannot save its data; check its disk and its log");
            (RedisErrorKind::Full, text)
        }
        _ => return None,
    })
}

/// Sorts an error reply with the code `ERR`, which says everything in its text. `None` for a text that has no meaning of
/// its own here.
fn known_text(code: &str, error: &redis::RedisError, endpoint: &Endpoint) -> Option<(RedisErrorKind, String)> {
    let text = error.detail().filter(|_| code == "ERR")?;
    let says = |words: &str| text.contains(words);
    Some(if says("max number of clients") {
        // The server closes the connection.
        let text = format!(
            "{endpoint} has reached its limit of clients; raise its maxclients or close connections that are not in use"
        );
        (RedisErrorKind::Unreachable, text)
    } else if says("cluster support disabled") {
        let text = format!("{endpoint} is a single server, not a node of a cluster; use RedisConfig::from_url");
        (RedisErrorKind::Refused, text)
    } else if says("in cluster mode") {
        let text = format!(
            "{endpoint} is part of a cluster, which has only database 0; use RedisConfig::cluster without \
             RedisConfig::database"
        );
        (RedisErrorKind::Refused, text)
    } else if says("unknown command") {
        let text = format!(
            "{endpoint} lacks a command that the store needs; a sentinel, a proxy and a server before Redis 5 do, and \
             a server can rename commands; for a sentinel use RedisConfig::sentinels"
        );
        (RedisErrorKind::UnknownCommand, text)
    } else {
        return None;
    })
}

fn wrong_password(endpoint: &Endpoint) -> String {
    let setting = endpoint.password_setting();
    let (what, user) =
        if endpoint.has_users() { ("user or the password", "RedisConfig::user and ") } else { ("password", "") };
    format!("{endpoint} rejected the {what}; check {user}{setting}")
}

fn malformed_reply(endpoint: &Endpoint) -> String {
    format!("{endpoint} sent a reply that is not Redis; check address and port")
}

/// Sorts an error of the socket or of TLS: the server did not reply.
fn transport_failure(error: &redis::RedisError, endpoint: &Endpoint, connecting: bool) -> (RedisErrorKind, String) {
    let cause = io_error(error);
    match cause.map(io::Error::kind) {
        // Only TLS reports invalid data: the two sides do not agree on TLS, or a certificate is not accepted.
        Some(io::ErrorKind::InvalidData) => (RedisErrorKind::Refused, tls_text(cause, endpoint)),
        Some(io::ErrorKind::NotFound) if error.is_connection_refusal() => {
            (RedisErrorKind::Unreachable, format!("{endpoint}: there is no such socket; is the server running there?"))
        }
        _ if error.is_connection_refusal() => {
            (RedisErrorKind::Unreachable, format!("{endpoint} refused the connection; is the server running there?"))
        }
        _ if connecting => {
            (RedisErrorKind::Unreachable, format!("{endpoint} cannot be reached; check the address and the network"))
        }
        _ if error.is_timeout() => (RedisErrorKind::Lost, format!("{endpoint} did not answer in time")),
        _ => (RedisErrorKind::Lost, format!("the connection to {endpoint} broke; check the server and the network")),
    }
}

/// Returns the code that an error should have, where the server hides it behind `ERR` or behind words of its own:
///
/// - Servers before version 7 put words before the code of an error that a script raised.
/// - Version 7.0 reports a missing right inside a script as `ERR The user executing the script can't ..`.
/// - A server with a password closes the connection of a client that has not authenticated and sends more than ten words
///   or a long one, with `ERR Protocol error: unauthenticated ..` instead of `NOAUTH`.
fn hidden_code(error: &redis::RedisError) -> Option<&'static str> {
    let codes = ["READONLY", "OOM", "MISCONF", "NOPERM", "LOADING", "NOREPLICAS", "MASTERDOWN"];
    let is_hidden = error.code().is_some_and(|code| code == "ERR" || code.starts_with('@'));
    let detail = error.detail().filter(|_| is_hidden)?;
    if detail.starts_with("Protocol error: unauthenticated") {
        return Some("NOAUTH");
    }
    if detail.starts_with("The user executing the script can't") {
        return Some("NOPERM");
    }
    codes.into_iter().find(|code| detail.contains(&format!("-{code} ")))
}

fn io_error(error: &redis::RedisError) -> Option<&io::Error> {
    let source = std::error::Error::source(error)?.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    source.downcast_ref::<io::Error>()
}

/// Says why TLS failed, and what to do.
#[cfg(feature = "redis-tls")]
fn tls_text(cause: Option<&io::Error>, endpoint: &Endpoint) -> String {
    use rustls::{CertificateError, Error as TlsError};
    match cause.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            format!("the certificate of {endpoint} has expired; renew it, or set this machine's clock")
        }
        Some(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => format!("the certificate of {endpoint} is for another host name; connect by a name that it contains"),
        Some(TlsError::InvalidCertificate(_)) => {
            format!("the certificate of {endpoint} is not trusted; add its root with RedisConfig::root_certificates")
        }
        Some(TlsError::InvalidMessage(_)) => no_tls(endpoint),
        Some(TlsError::AlertReceived(_)) => {
            format!("{endpoint} rejected the TLS connection; it may require RedisConfig::client_certificate")
        }
        _ => format!("TLS with {endpoint} failed; check the TLS settings of both sides"),
    }
}

/// Returns whether the server answered the start of a TLS connection with TLS, whatever it said.
#[cfg(feature = "redis-tls")]
pub(super) fn is_tls_answer(error: &redis::RedisError) -> bool {
    use rustls::Error as TlsError;
    let inner = io_error(error).and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<TlsError>());
    matches!(inner, Some(TlsError::InvalidCertificate(_) | TlsError::AlertReceived(_)))
}

#[cfg(feature = "redis-tls")]
fn no_tls(endpoint: &Endpoint) -> String {
    format!("{endpoint} does not speak TLS; turn TLS on there, or use redis:// instead of rediss://")
}

#[cfg(not(feature = "redis-tls"))]
fn tls_text(_: Option<&io::Error>, endpoint: &Endpoint) -> String {
    format!("the connection to {endpoint} carried invalid data")
}
