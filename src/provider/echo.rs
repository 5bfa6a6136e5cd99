//! Finds a secret that a response quotes, in any encoding.
//!
//! The vendor's error code and request id are shown, and a vendor or a gateway chooses them. Some gateways echo what was
//! sent: the secret itself, the value of an `Authorization: Basic` header, a part of the form. A text counts as an echo
//! when it contains the secret
//!
//! - as it is, in any letter case,
//! - in the encoding of a form or of a query,
//! - in hexadecimal,
//! - in base64 or base64url, alone or inside a longer text such as `id:secret`. Base64 encodes three bytes together, so
//!   a secret has three encodings, which depend on the number of bytes before it. The characters at the ends, which
//!   depend on the neighbours of the secret, are left out,
//!
//! or when the text contains a long part of one of these.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::http::{form_encoded, query_encoded};
use crate::secret::{Secret, hex};

/// Returns true if `text` quotes one of the secrets, or is too long to be shown.
pub(super) fn quotes_secret(text: &str, secrets: &[&Secret]) -> bool {
    if text.len() > MAX_TEXT_LENGTH {
        return true;
    }
    let folded = Zeroizing::new(normalized(text));
    secrets.iter().map(|secret| secret.expose()).filter(|secret| !secret.trim().is_empty()).any(|secret| {
        let is_long = secret.len() >= MIN_ENCODED_LENGTH;
        text.contains(secret) || is_long && encodings(secret).iter().any(|encoding| shares_text(&folded, encoding))
    })
}

/// Returns the encodings of a secret, in lower case and in the alphabet of base64.
fn encodings(secret: &str) -> Vec<Zeroizing<String>> {
    let form = form_encoded(secret);
    let plain = [secret, &form, &query_encoded(secret)].map(normalized);
    let based = [secret, &form].into_iter().flat_map(|text| (0..3).map(move |before| base64_inside(text, before)));
    let based = based.flatten().map(|text| normalized(&text));
    let all = plain.into_iter().chain(based).chain([hex(secret.as_bytes())]);
    all.map(Zeroizing::new).collect()
}

/// Returns the characters of base64 that depend on `secret` alone, when `before` more bytes than a multiple of three
/// stand before it. Returns `None` if there are too few to tell the secret by.
fn base64_inside(secret: &str, before: usize) -> Option<Zeroizing<String>> {
    let bytes = Zeroizing::new([&vec![0; before], secret.as_bytes()].concat());
    let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(bytes.as_slice()));
    let start = [0, 2, 3][before];
    let end = encoded.len() - usize::from(bytes.len() % 3 != 0);
    let inside = encoded.get(start..end).filter(|inside| inside.len() >= MIN_BASE64_LENGTH)?;
    Some(Zeroizing::new(inside.to_owned()))
}

/// Returns true if `text` contains all of `encoding`, or a long part of it.
fn shares_text(text: &str, encoding: &str) -> bool {
    if text.contains(encoding) {
        return true;
    }
    let mut parts = text.as_bytes().windows(LONG_PART);
    parts.any(|part| encoding.as_bytes().windows(LONG_PART).any(|other| part == other))
}

/// Returns a text in lower case, with the two characters in which base64url differs in the form of base64.
fn normalized(text: &str) -> String {
    text.to_lowercase().replace('-', "+").replace('_', "/")
}

/// An error keeps no longer code and no longer request id.
const MAX_TEXT_LENGTH: usize = 256;

/// A part of a secret of this length is an echo. Words and numbers of error codes that a secret has by chance are
/// shorter.
const LONG_PART: usize = 16;

/// A shorter secret is looked for as it is only: in another letter case most codes would contain it.
const MIN_ENCODED_LENGTH: usize = 4;

const MIN_BASE64_LENGTH: usize = 4;

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn quotes(text: &str, secret: &str) -> bool {
        quotes_secret(text, &[&Secret::from(secret)])
    }

    #[test]
    fn a_secret_is_found_in_any_encoding() {
        for secret in ["hunter2", "hunter2?~\u{ff}>", "p\u{fc}ss w+rd/", "0123456789abcdef0123456789abcdef"] {
            let form = form_encoded(secret);
            for inner in [secret, &*form] {
                for before in ["", "i:", "id:", "id4:", "client-id:"] {
                    let pair = format!("{before}{inner}");
                    for text in [STANDARD.encode(&pair), URL_SAFE_NO_PAD.encode(&pair), pair.to_uppercase(), pair] {
                        assert!(quotes(&text, secret), "{text}");
                        assert!(quotes(&format!("E17-{text}"), secret), "{text}");
                    }
                }
            }
            assert!(quotes(&hex(secret.as_bytes()).to_uppercase(), secret));
        }
    }

    #[test]
    fn a_long_part_of_a_secret_is_an_echo_and_a_short_one_is_none() {
        let secret = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJpZCJ9.c2lnbmF0dXJl";
        assert!(quotes(&secret[..40], secret) && quotes(&secret[20..50], secret));
        for code in ["invalid_client", "40001", "AADSTS7000215", "c2ln", ""] {
            assert!(!quotes(code, secret) && !quotes(code, " "), "{code}");
        }
        assert!(quotes("E-s-17", "s") && !quotes("AADSTS7000215", "s"), "a short secret");
        assert!(quotes(&"x".repeat(300), secret), "a text that is too long");
    }
}
