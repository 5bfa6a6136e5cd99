//! What `ureq` reports, in words of this crate: the texts of `ureq` quote addresses, and with them secrets.

use ureq::Timeout;

use crate::error::{Error, ErrorKind};

/// Our own words for what `ureq` says: its texts quote addresses, and with them secrets.
pub(crate) fn error_of(cause: &ureq::Error) -> Error {
    use ErrorKind::{Config, InvalidResponse, TimedOut, Unavailable};
    use ureq::Error as Cause;
    let (kind, text) = match cause {
        Cause::Timeout(Timeout::Resolve) => (TimedOut, "looking up the host took too long"),
        Cause::Timeout(Timeout::Connect) => (TimedOut, "connecting to the host took too long"),
        Cause::Timeout(_) => (TimedOut, "the host took too long to answer"),
        Cause::Io(cause) => return error_of_io(cause.kind()),
        Cause::HostNotFound => (Unavailable, "the host cannot be found"),
        Cause::ConnectionFailed => (Unavailable, "no connection to the host could be made"),
        Cause::ConnectProxyFailed(_) => (Unavailable, "the proxy does not let us through"),
        Cause::Tls(_) | Cause::Rustls(_) | Cause::TlsRequired | Cause::Pem(_) => (Unavailable, NO_TLS),
        Cause::InvalidProxyUrl => (Config, "the proxy's URL cannot be read"),
        Cause::BadUri(_) | Cause::RequireHttpsOnly(_) => (Config, "the URL is not one that a credential is sent to"),
        Cause::Http(_) => (Config, "the request is not one that HTTP allows"),
        Cause::TooManyRedirects | Cause::RedirectFailed => {
            (InvalidResponse, "the reply is a redirect that is not followed")
        }
        Cause::LargeResponseHeader(..) => (InvalidResponse, "the head of the reply is too large"),
        _ => (InvalidResponse, "the reply is not proper HTTP"),
    };
    Error::new(kind, text)
}

fn error_of_io(kind: std::io::ErrorKind) -> Error {
    use std::io::ErrorKind::*;
    let (kind, text) = match kind {
        TimedOut | WouldBlock => (ErrorKind::TimedOut, "the host took too long to answer"),
        ConnectionRefused => (ErrorKind::Unavailable, "the host refuses connections"),
        HostUnreachable | NetworkUnreachable | NetworkDown => {
            (ErrorKind::Unavailable, "there is no way through the network to the host")
        }
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
            (ErrorKind::Unavailable, "the connection to the host broke off")
        }
        // What `rustls` finds wrong arrives as this.
        InvalidData => (ErrorKind::Unavailable, NO_TLS),
        _ => (ErrorKind::Unavailable, "the host cannot be reached, or its name not be found"),
    };
    Error::new(kind, text)
}

const NO_TLS: &str = "no trusted TLS connection to the host could be made";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ureq_says_is_not_repeated() {
        let secret = "https://host/?secret=hunter2";
        for (cause, kind) in [
            (ureq::Error::BadUri(secret.into()), ErrorKind::Config),
            (ureq::Error::RequireHttpsOnly(secret.into()), ErrorKind::Config),
            (ureq::Error::ConnectProxyFailed(secret.into()), ErrorKind::Unavailable),
            (ureq::Error::Io(std::io::Error::other(secret)), ErrorKind::Unavailable),
            (ureq::Error::Timeout(Timeout::Resolve), ErrorKind::TimedOut),
            (ureq::Error::HostNotFound, ErrorKind::Unavailable),
            (ureq::Error::BodyStalled, ErrorKind::InvalidResponse),
        ] {
            let error = error_of(&cause);
            assert_eq!(error.kind(), kind);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
