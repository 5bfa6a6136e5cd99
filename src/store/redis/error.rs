//! The errors of Redis operations, and their consequences for the connection and for the breaker.
//!
//! The `redis` crate's errors are sorted into a [`RedisErrorKind`] by the error code of the server's reply, or by the
//! crate's own kind when the server did not reply. The crate's error texts are never passed on, because they may quote
//! values and arguments. Each text here names the server by its address and says what to do.

use std::io;
use std::sync::Arc;

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
    /// The server answers reads and refuses writes: its memory is full, or it cannot save its data.
    Full,
    /// The server answered with an error that may pass.
    Busy,
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
    /// leads to the new master.
    pub(super) fn breaks_connection(&self) -> bool {
        matches!(self.kind, RedisErrorKind::Lost | RedisErrorKind::Unreachable | RedisErrorKind::ReadOnly)
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
        matches!(self.kind, RedisErrorKind::Refused | RedisErrorKind::Moved(_))
    }

    /// Reinterprets an error reply to a command that sets up a connection. A plain `ERR` is a lasting refusal there,
    /// such as a database that does not exist, and `hint` says which setting to check.
    pub(super) fn during_setup(self, endpoint: &Endpoint, hint: &str) -> RedisError {
        match self.error.code() {
            Some("ERR") => {
                let refused = RedisError::new(RedisErrorKind::Refused, format!("{endpoint} {hint}"));
                RedisError { error: refused.error.with_code("ERR"), ..refused }
            }
            _ => self,
        }
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
        let code = code_in_script_error(error).or(error.code()).unwrap_or_default();
        let known = known_code(code, error, endpoint);
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
        "NOPERM" => {
            let text =
                format!("{endpoint} forbids its user a command or key that the store needs; extend the user's ACL");
            (RedisErrorKind::Refused, text)
        }
        "NOSCRIPT" => (RedisErrorKind::NoScript, format!("{endpoint} does not know a script that was just sent")),
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
        "DENIED" => {
            let text = format!("{endpoint} is in protected mode and serves only its own host; set a password there");
            (RedisErrorKind::Busy, text)
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

fn wrong_password(endpoint: &Endpoint) -> String {
    let setting = endpoint.password_setting();
    format!("{endpoint} rejected the user or the password; check RedisConfig::user and {setting}")
}

fn malformed_reply(endpoint: &Endpoint) -> String {
    format!("{endpoint} sent a reply that makes no sense; is another service listening there?")
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
        _ => (RedisErrorKind::Lost, format!("the connection to {endpoint} broke")),
    }
}

/// Returns the code of an error that a script raised. Servers before version 7 put words of their own before it.
fn code_in_script_error(error: &redis::RedisError) -> Option<&'static str> {
    let codes = ["READONLY", "OOM", "MISCONF", "NOPERM", "LOADING"];
    let is_hidden = error.code().is_some_and(|code| code == "ERR" || code.starts_with('@'));
    let detail = error.detail().filter(|_| is_hidden)?;
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
        Some(TlsError::InvalidMessage(_)) => {
            format!("{endpoint} does not speak TLS; turn TLS on there, or use redis:// instead of rediss://")
        }
        Some(TlsError::AlertReceived(_)) => {
            format!("{endpoint} rejected the TLS connection; it may require RedisConfig::client_certificate")
        }
        _ => format!("TLS with {endpoint} failed; check the TLS settings of both sides"),
    }
}

#[cfg(not(feature = "redis-tls"))]
fn tls_text(_: Option<&io::Error>, endpoint: &Endpoint) -> String {
    format!("the connection to {endpoint} carried invalid data")
}
