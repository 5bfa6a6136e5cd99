//! Failures of `ureq`, in words of this crate.
//!
//! The texts of `ureq` quote addresses with their parameters, and parameters can be secrets. The texts here name the host
//! and port only.

use ureq::Timeout;

use crate::error::{Error, ErrorKind};

/// Describes why a request to `host` got no response.
pub(crate) fn error_of(cause: &ureq::Error, host: &str) -> Error {
    use ErrorKind::{Config, InvalidResponse, Unavailable};
    use ureq::Error as Cause;
    let (kind, text) = match cause {
        Cause::Timeout(Timeout::Resolve) => {
            (Unavailable, format!("looking up the name {host} took too long; check the network and the name server"))
        }
        Cause::Timeout(Timeout::Connect) => {
            (Unavailable, format!("connecting to {host} took too long; check the network and the proxy"))
        }
        Cause::Timeout(_) => {
            (Unavailable, format!("{host} did not answer in time; try again later, or raise HttpConfig::timeout"))
        }
        Cause::Io(cause) => return error_of_io(cause, host),
        Cause::Rustls(cause) => return error_of_tls(cause, host),
        Cause::HostNotFound => {
            (Unavailable, format!("cannot connect to {host}: the name is unknown; check the address"))
        }
        Cause::ConnectionFailed => (Unavailable, format!("cannot connect to {host}; check address, port and network")),
        Cause::ConnectProxyFailed(_) => {
            (Unavailable, format!("the proxy refused to connect to {host}; check the rules of the proxy"))
        }
        Cause::Tls(_) | Cause::TlsRequired | Cause::Pem(_) => {
            (Config, format!("{host} cannot be reached over TLS; check the address"))
        }
        Cause::InvalidProxyUrl => (Config, "the proxy's URL is not valid; write http://host:port".to_owned()),
        Cause::BadUri(_) | Cause::RequireHttpsOnly(_) => {
            (Config, format!("the URL of {host} must start with https://, because a credential is sent there"))
        }
        Cause::Http(_) => (Config, format!("the request to {host} is not valid HTTP; check its parameters")),
        Cause::TooManyRedirects | Cause::RedirectFailed => {
            (InvalidResponse, format!("{host} answered with a redirect, which is not followed; check the address"))
        }
        Cause::LargeResponseHeader(..) => {
            (InvalidResponse, format!("{host} sent headers that are too large; check the address"))
        }
        _ => (InvalidResponse, format!("{host} sent a response that is not valid HTTP; check address and port")),
    };
    Error::new(kind, text)
}

fn error_of_io(cause: &std::io::Error, host: &str) -> Error {
    use std::io::ErrorKind::*;
    // Errors of rustls arrive inside an `InvalidData` when they come up while the stream is read or written.
    if let Some(tls) = cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return error_of_tls(tls, host);
    }
    let text = match cause.kind() {
        TimedOut | WouldBlock => {
            format!("{host} did not answer in time; try again later, or raise HttpConfig::timeout")
        }
        ConnectionRefused => {
            format!("cannot connect to {host}: the connection was refused; check address and port")
        }
        HostUnreachable | NetworkUnreachable | NetworkDown => {
            format!("cannot connect to {host}: there is no route; check the network")
        }
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
            format!("the connection to {host} broke off before the response was complete; try again later")
        }
        InvalidData => {
            return Error::invalid_response(format!(
                "{host} sent a response that is not valid HTTP; check address and port"
            ));
        }
        // A failed look-up of the name has no kind of its own.
        _ => format!("cannot connect to {host}: the name is unknown, or the network is down; check both"),
    };
    Error::new(ErrorKind::Unavailable, text)
}

/// A retry cannot help against what the certificate or the kind of server causes, so these are `Config`.
fn error_of_tls(cause: &rustls::Error, host: &str) -> Error {
    use rustls::CertificateError as Bad;
    use rustls::Error as Cause;
    let text = match cause {
        Cause::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            format!("the certificate of {host} has expired; renew it there, or set the clock of this machine")
        }
        Cause::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            format!("the certificate of {host} is not valid yet; check this machine's clock")
        }
        Cause::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            format!("the certificate of {host} is for another name; check the address")
        }
        Cause::InvalidCertificate(_) | Cause::NoCertificatesPresented => format!(
            "the certificate of {host} is not trusted; add its root with extra_root_pem, or turn on platform-roots"
        ),
        Cause::InvalidMessage(_) | Cause::InappropriateMessage { .. } => {
            format!("{host} does not speak TLS; check the port, or write http:// if that is meant")
        }
        Cause::PeerIncompatible(_) => format!("{host} and this program have no version of TLS in common"),
        _ => {
            let text = format!("the TLS connection to {host} failed");
            return Error::new(ErrorKind::Unavailable, text);
        }
    };
    Error::config(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_ureq_are_never_repeated_and_the_host_is_named() {
        let secret = "https://host/?secret=hunter2";
        for (cause, kind) in [
            (ureq::Error::BadUri(secret.into()), ErrorKind::Config),
            (ureq::Error::RequireHttpsOnly(secret.into()), ErrorKind::Config),
            (ureq::Error::ConnectProxyFailed(secret.into()), ErrorKind::Unavailable),
            (ureq::Error::Io(std::io::Error::other(secret)), ErrorKind::Unavailable),
            (ureq::Error::Timeout(Timeout::Resolve), ErrorKind::Unavailable),
            (ureq::Error::HostNotFound, ErrorKind::Unavailable),
            (ureq::Error::BodyStalled, ErrorKind::InvalidResponse),
        ] {
            let error = error_of(&cause, "login.example:8443");
            assert_eq!(error.kind(), kind);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
            assert!(error.to_string().contains("login.example:8443"), "{error}");
        }
    }

    #[test]
    fn an_untrusted_certificate_is_a_matter_of_configuration() {
        use rustls::{CertificateError, InvalidMessage};
        for (cause, word) in [
            (CertificateError::UnknownIssuer.into(), "is not trusted"),
            (CertificateError::Expired.into(), "has expired"),
            (CertificateError::NotValidForName.into(), "is for another name"),
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), "does not speak TLS"),
        ] {
            let inside = std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::clone(&cause));
            for error in [ureq::Error::Rustls(cause), ureq::Error::Io(inside)] {
                let error = error_of(&error, "host");
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.to_string().contains(word) && !error.is_retryable(), "{error}");
            }
        }
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::InternalError);
        assert_eq!(error_of(&ureq::Error::Rustls(alert), "host").kind(), ErrorKind::Unavailable);
    }
}
