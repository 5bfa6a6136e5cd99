//! Signed assertions (JWT, RFC 7519): private keys, certificates, claims, and the signing.
//!
//! A signed assertion proves who a client is (`private_key_jwt`, `client_secret_jwt`: RFC 7523, section 2.2) or is the
//! grant itself (JWT bearer: RFC 7523, section 2.1). The algorithm follows from the key: RS256 or PS256 for RSA, ES256
//! for P-256, HS256 for a shared secret (RFC 7518). Each request gets an assertion of its own, because servers accept
//! an assertion once.
//!
//! Private keys are read from PEM and checked at once, so that a wrong file is an error when the program starts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use ring::{digest, hmac};
use rustls_pki_types::pem::{SectionKind, SliceIter};
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};
use crate::provider::settings::read_file;
use crate::secret::{Secret, hex};

/// A private key that signs assertions (`private_key_jwt`, JWT bearer): RSA of 2048 to 4096 bits, or EC on the curve
/// P-256.
///
/// An RSA key signs with RS256, or with PS256 after [`pss`](SigningKey::pss). An EC key signs with ES256. `Debug` does
/// not show the key. The PEM text is wiped from memory when its last [`Secret`] is dropped.
///
/// ```no_run
/// use evertoken::OAuth2;
/// use evertoken::provider::oauth2::SigningKey;
///
/// let key = SigningKey::from_pem_file("client.pem")?.key_id("2026-01");
/// let provider = OAuth2::private_key_jwt("https://login.example/token", "client-id", key);
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Pair>,
    pss: bool,
    key_id: Option<String>,
    /// The SHA-256 of the key, for identities.
    fingerprint: Secret,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl SigningKey {
    /// Reads the first private key in a PEM text: `PRIVATE KEY` (PKCS#8), or `RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], with the cause: an encrypted key, a certificate or public key instead of a private key,
    /// another curve, a size that is not supported, no PEM.
    pub fn from_pem(pem: impl Into<Secret>) -> Result<SigningKey, Error> {
        let pem = pem.into();
        let mut found = None;
        for section in sections(pem.expose()) {
            let (kind, der) = section.map_err(|()| no_key(pem.expose(), found))?;
            let der = Zeroizing::new(der);
            match kind {
                SectionKind::PrivateKey => return SigningKey::new(pkcs8(&der)?, &der),
                SectionKind::RsaPrivateKey => {
                    return SigningKey::new(Pair::Rsa(RsaKeyPair::from_der(&der).map_err(rejected)?), &der);
                }
                other => found = found.or(Some(other)),
            }
        }
        Err(no_key(pem.expose(), found))
    }

    /// Reads the first private key in a PEM file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the file cannot be read, and the errors of [`SigningKey::from_pem`].
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<SigningKey, Error> {
        SigningKey::from_pem(read_file(path.as_ref(), "the private key file")?)
    }

    /// Sets the id under which the server knows the key. Each assertion names it as `kid`.
    #[must_use]
    pub fn key_id(self, id: impl Into<String>) -> SigningKey {
        SigningKey { key_id: Some(id.into()), ..self }
    }

    /// Signs with PS256 instead of RS256, which some servers require of an RSA key. An EC key is not affected.
    #[must_use]
    pub fn pss(self) -> SigningKey {
        SigningKey { pss: true, ..self }
    }

    fn new(pair: Pair, der: &[u8]) -> Result<SigningKey, Error> {
        let fingerprint = Secret::new(hex(digest::digest(&digest::SHA256, der).as_ref()));
        Ok(SigningKey { pair: Arc::new(pair), pss: false, key_id: None, fingerprint })
    }

    /// Returns the fingerprint of the key, which stands for the key in an identity.
    pub(super) fn fingerprint(&self) -> &Secret {
        &self.fingerprint
    }

    pub(super) fn is_rsa(&self) -> bool {
        matches!(*self.pair, Pair::Rsa(_))
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match *self.pair {
            Pair::Rsa(_) if self.pss => "PS256",
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
        }
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, Error> {
        let random = SystemRandom::new();
        let signed = match &*self.pair {
            Pair::Rsa(pair) => {
                let encoding: &dyn RsaEncoding = if self.pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, text, &mut signature).map(|()| signature)
            }
            Pair::P256(pair) => pair.sign(&random, text).map(|signature| signature.as_ref().to_vec()),
        };
        signed.map_err(|_| Error::new(ErrorKind::Unavailable, "signing the assertion failed; check the private key"))
    }

    fn public_key(&self) -> &[u8] {
        match &*self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::P256(pair) => pair.public_key().as_ref(),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// The certificate under which a server knows a [`SigningKey`].
///
/// ```no_run
/// use evertoken::Entra;
/// use evertoken::provider::microsoft::Certificate;
/// use evertoken::provider::oauth2::SigningKey;
///
/// let (certificate, key) = (Certificate::from_pem_file("app.crt")?, SigningKey::from_pem_file("app.key")?);
/// let provider = Entra::certificate("contoso.onmicrosoft.com", "client-id", certificate, key);
/// # Ok::<(), evertoken::Error>(())
/// ```
#[derive(Clone)]
pub struct Certificate {
    der: Arc<[u8]>,
}

impl Certificate {
    /// Reads the first certificate in a PEM text.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the text has no certificate, or the certificate cannot be read.
    pub fn from_pem(pem: impl AsRef<str>) -> Result<Certificate, Error> {
        for section in sections(pem.as_ref()) {
            let Ok((kind, der)) = section else { break };
            let der = Zeroizing::new(der);
            if kind == SectionKind::Certificate && !der.is_empty() {
                return Ok(Certificate { der: der.as_slice().into() });
            }
        }
        Err(Error::config("the PEM text has no readable certificate (-----BEGIN CERTIFICATE-----)"))
    }

    /// Reads the first certificate in a PEM file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the file cannot be read, and the errors of [`Certificate::from_pem`].
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Certificate, Error> {
        Certificate::from_pem(read_file(path.as_ref(), "the certificate file")?.expose())
    }

    /// Returns the SHA-256 of the certificate in base64url, as the header field `x5t#S256` has it.
    pub(super) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &self.der))
    }

    /// Returns true if the certificate was made for this key.
    pub(super) fn is_for(&self, key: &SigningKey) -> bool {
        // DER has one encoding for a public key, so the certificate contains exactly these bytes.
        let public = key.public_key();
        self.der.windows(public.len()).any(|part| part == public)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("sha256", &self.thumbprint()).finish()
    }
}

/// The key that signs an assertion.
#[derive(Clone, Copy)]
pub(super) enum Signer<'a> {
    /// A private key (RS256, PS256, ES256).
    Key(&'a SigningKey),
    /// A secret that the server knows as well (HS256).
    Shared(&'a Secret),
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    thumbprint: Option<&'a str>,
}

/// The claims of an assertion.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    pub(super) iss: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<&'a str>,
    pub(super) aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<String>,
    #[serde(flatten)]
    pub(super) times: Times,
    #[serde(flatten)]
    pub(super) more: Map<String, Value>,
}

/// The time claims of an assertion (`iat`, `nbf`, `exp`), in seconds since 1970.
#[derive(Serialize)]
pub(super) struct Times {
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    exp: u64,
}

impl Times {
    /// Makes the time claims of an assertion that expires `lifetime` after its issue. The issue is dated [`SKEW`]
    /// before `now`, because the server's clock may be behind the clock of this machine.
    pub(super) fn new(now: SystemTime, lifetime: Duration) -> Result<Times, Error> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_err(|_| Error::config("this machine's clock shows a time before 1970; set it"))?.as_secs();
        let iat = now.saturating_sub(SKEW.as_secs());
        Ok(Times { iat, nbf: None, exp: iat + lifetime.as_secs() })
    }

    /// Adds the claim `nbf`, with the time of issue.
    pub(super) fn not_before(self) -> Times {
        Times { nbf: Some(self.iat), ..self }
    }
}

/// Makes and signs an assertion: header, claims and signature in base64url, joined by dots. `thumbprint` names the
/// certificate of the key.
pub(super) fn sign(signer: Signer<'_>, thumbprint: Option<&str>, claims: &Claims<'_>) -> Result<Secret, Error> {
    let (alg, kid) = match signer {
        Signer::Key(key) => (key.algorithm(), key.key_id.as_deref()),
        Signer::Shared(_) => ("HS256", None),
    };
    let mut text = encoded(&Header { alg, typ: "JWT", kid, thumbprint })?;
    text.push('.');
    text.push_str(&encoded(claims)?);
    let signature = match signer {
        Signer::Key(key) => key.sign(text.as_bytes())?,
        Signer::Shared(secret) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
            hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
        }
    };
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(Secret::new(std::mem::take(&mut *text)))
}

fn encoded(part: &impl Serialize) -> Result<Zeroizing<String>, Error> {
    let json =
        serde_json::to_vec(part).map_err(|_| Error::config("the claims of the assertion cannot be written as JSON"))?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(json)))
}

fn sections(pem: &str) -> impl Iterator<Item = Result<(SectionKind, Vec<u8>), ()>> {
    SliceIter::<(SectionKind, Vec<u8>)>::new(pem.as_bytes()).map(|section| section.map_err(drop))
}

fn pkcs8(der: &[u8]) -> Result<Pair, Error> {
    let rsa = match RsaKeyPair::from_pkcs8(der) {
        Ok(pair) => return Ok(Pair::Rsa(pair)),
        Err(cause) => cause,
    };
    match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()) {
        Ok(pair) => Ok(Pair::P256(pair)),
        Err(_) => Err(rejected(rsa)),
    }
}

/// Returns the error for a key that `ring` rejected. `ring` reports the reason as a string, not as an enum.
fn rejected(cause: ring::error::KeyRejected) -> Error {
    Error::config(match cause.to_string().as_str() {
        "TooSmall" => "the RSA key is too small; use one of 2048 to 4096 bits",
        "TooLarge" => "the RSA key is too large; use one of 2048 to 4096 bits",
        "PrivateModulusLenNotMultipleOf512Bits" => "the size of the RSA key is not supported; use 2048 bits",
        "WrongAlgorithm" => "the private key is neither an RSA key nor an EC key on the curve P-256",
        _ => "the private key cannot be read; it is damaged or of an unsupported kind",
    })
}

/// Returns the error for a PEM text without a readable private key. `found` is the first section of the text.
fn no_key(pem: &str, found: Option<SectionKind>) -> Error {
    Error::config(match found {
        // The label of an encrypted PKCS#8 key says so, or a header line below the label of a PKCS#1 key.
        _ if pem.contains("ENCRYPTED") => {
            "the private key is encrypted; decrypt it first (openssl pkey -in .. -out ..)"
        }
        _ if pem.contains(r"-----\n") => "the PEM text has the characters \\n instead of line breaks; replace them",
        Some(SectionKind::Certificate) => "this is a certificate; pass the private key that belongs to it",
        Some(SectionKind::PublicKey) => "this is a public key; pass the private key",
        Some(SectionKind::EcPrivateKey) => {
            "an EC key must be in PKCS#8 form; convert it (openssl pkcs8 -topk8 -nocrypt -in .. -out ..)"
        }
        Some(_) => "the PEM text has no private key",
        None => "the private key is not readable PEM; the text begins with -----BEGIN PRIVATE KEY-----",
    })
}

/// How far before now an assertion dates its issue.
const SKEW: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn claims_at(now: SystemTime) -> Result<Value, Error> {
        Ok(serde_json::to_value(Times::new(now, Duration::from_secs(310))?.not_before()).expect("numbers"))
    }

    #[test]
    fn an_assertion_is_dated_ten_seconds_back_and_never_before_1970() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let times = |seconds| claims_at(at(seconds)).expect("a time after 1970");
        assert_eq!(times(1000), serde_json::json!({"iat": 990, "nbf": 990, "exp": 1300}));
        assert_eq!(times(3), serde_json::json!({"iat": 0, "nbf": 0, "exp": 310}));
        let error = claims_at(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).expect_err("a wrong clock");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("clock"), "{error}");
    }
}
