//! The keys of these tests, and assertions that are checked with the public keys.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use evertoken::provider::microsoft::Certificate;
use evertoken::provider::oauth2::SigningKey;
use ring::rand::SystemRandom;
use ring::signature::{self, KeyPair as _, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

pub(crate) const RSA: &str = include_str!("keys/rsa_2048.pem");
pub(crate) const RSA_OTHER: &str = include_str!("keys/rsa_other.pem");
pub(crate) const RSA_SMALL: &str = include_str!("keys/rsa_1024.pem");

/// The start of a `FakeClock`: the first of January 2026.
pub(crate) const START: u64 = 1_767_225_600;

static EC: LazyLock<rcgen::KeyPair> = LazyLock::new(|| rcgen::KeyPair::generate().unwrap());

pub(crate) fn rsa() -> SigningKey {
    SigningKey::from_pem(RSA).unwrap()
}

pub(crate) fn rsa_other() -> SigningKey {
    SigningKey::from_pem(RSA_OTHER).unwrap()
}

/// A new key in each run, and the same one within it.
pub(crate) fn ec() -> SigningKey {
    SigningKey::from_pem(ec_pem()).unwrap()
}

pub(crate) fn ec_pem() -> String {
    EC.serialize_pem()
}

/// The RSA key in its older form.
pub(crate) fn rsa_pkcs1() -> String {
    let der = PrivatePkcs8KeyDer::from_pem_slice(RSA.as_bytes()).unwrap();
    // For 2048 bits, the header around the inner key has 26 bytes.
    let inner = STANDARD.encode(&der.secret_pkcs8_der()[26..]);
    format!("-----BEGIN RSA PRIVATE KEY-----\n{inner}\n-----END RSA PRIVATE KEY-----\n")
}

/// A certificate for the key of this PEM text.
pub(crate) fn certificate_pem(key: &str) -> String {
    let key = rcgen::KeyPair::from_pem(key).unwrap();
    rcgen::CertificateParams::new(vec!["app.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

pub(crate) fn certificate() -> Certificate {
    Certificate::from_pem(certificate_pem(RSA)).unwrap()
}

/// An assertion, taken apart.
pub(crate) struct Assertion {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Assertion {
    /// The assertion in this field of a form, and the form with `ASSERTION` in its place.
    pub(crate) fn in_form(body: &str, field: &str) -> (Assertion, String) {
        let field = format!("{field}=");
        let text = body.split('&').find_map(|pair| pair.strip_prefix(&field)).unwrap();
        (Assertion::read(text), body.replace(text, "ASSERTION"))
    }

    fn read(text: &str) -> Assertion {
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let json = |part: &str| serde_json::from_slice(&decoded(part)).unwrap();
        Assertion {
            header: json(header),
            claims: json(claims),
            signed: signed.to_owned(),
            signature: decoded(signature),
        }
    }

    pub(crate) fn assert_signed_by_rsa(&self) {
        let algorithm: &dyn VerificationAlgorithm = match self.header["alg"].as_str() {
            Some("RS256") => &signature::RSA_PKCS1_2048_8192_SHA256,
            Some("PS256") => &signature::RSA_PSS_2048_8192_SHA256,
            other => panic!("{other:?}"),
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(RSA.as_bytes()).unwrap();
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
        let public = UnparsedPublicKey::new(algorithm, pair.public_key().as_ref());
        public.verify(self.signed.as_bytes(), &self.signature).unwrap();
    }

    pub(crate) fn assert_signed_by_ec(&self) {
        assert_eq!(self.header["alg"], "ES256");
        let pem = ec_pem();
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair =
            signature::EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der(), &SystemRandom::new()).unwrap();
        let public = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
        public.verify(self.signed.as_bytes(), &self.signature).unwrap();
    }

    pub(crate) fn assert_signed_with(&self, secret: &str) {
        assert_eq!(self.header["alg"], "HS256");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        ring::hmac::verify(&key, self.signed.as_bytes(), &self.signature).unwrap();
    }

    /// The unique id, 128 bits in hexadecimal.
    pub(crate) fn jti(&self) -> &str {
        let jti = self.claims["jti"].as_str().unwrap();
        assert!(jti.len() == 32 && jti.bytes().all(|byte| byte.is_ascii_hexdigit()), "{jti}");
        jti
    }

    /// The names of all claims, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.claims.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort();
        names
    }
}
