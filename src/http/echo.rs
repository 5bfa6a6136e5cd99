//! Texts of a response that an error may quote: short, printable, and without a credential that was sent.
//!
//! Error codes and request ids are shown, and a vendor, a service or a gateway chooses them. Some gateways echo what was
//! sent: the secret itself, the value of an `Authorization: Basic` header, a part of the form or of the query. A text
//! counts as an echo when it contains the secret
//!
//! - as it is, in any letter case,
//! - percent-encoded in any way, or in the encoding of a form,
//! - in hexadecimal,
//! - in base64 or base64url, alone or inside a longer text such as `id:secret`. Base64 encodes three bytes together, so
//!   a secret has three encodings, which depend on the number of bytes before it. The characters at the ends, which
//!   depend on the neighbours of the secret, are left out,
//!
//! or when the text contains a long part of one of these.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::url::{form_encoded, query_encoded};
use crate::secret::hex;

/// Returns true when an error may quote `text`, such as a vendor's code, after `secrets` were sent.
pub(crate) fn is_quotable<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> bool {
    let printable = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if !printable || text.len() > MAX_QUOTED {
        return false;
    }
    let decoded = Zeroizing::new(percent_decode_str(text).decode_utf8_lossy().into_owned());
    let texts = [text, &decoded].map(|text| Zeroizing::new(normalized(text)));
    !secrets.into_iter().filter(|secret| !secret.trim().is_empty()).any(|secret| {
        let is_long = secret.len() >= MIN_ENCODED;
        let is_echo = |encoding: &Zeroizing<String>| texts.iter().any(|text| shares_text(text, encoding));
        text.contains(secret) || is_long && encodings(secret).iter().any(is_echo)
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

/// Codes and request ids of vendors have less than a hundred characters.
const MAX_QUOTED: usize = 128;

/// A part of a secret of this length is an echo. Words and numbers of error codes that a secret has by chance are
/// shorter.
const LONG_PART: usize = 16;

/// A shorter secret is looked for as it is only: in another letter case most codes would contain it.
const MIN_ENCODED: usize = 4;

const MIN_BASE64_LENGTH: usize = 4;

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn quotes(text: &str, secret: &str) -> bool {
        !is_quotable(text, [secret])
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

    #[test]
    fn a_code_or_an_id_may_be_quoted() {
        for text in ["40014", "invalid_token", "AADSTS7000215", "0d5f1f2a-6c1c-4f3c-9a52-3c8f0d8b1a00", "a b"] {
            assert!(is_quotable(text, ["hunter2hunter2", "s", ""]), "{text}");
        }
    }

    #[test]
    fn a_text_with_a_secret_in_any_encoding_may_not_be_quoted() {
        let secret = "hunter2+/=~x";
        let basic = STANDARD.encode(format!("client:{secret}"));
        let shifted = [STANDARD.encode(format!("c:{secret}")), STANDARD.encode(format!("cl:{secret}"))];
        let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
        let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for text in
            [secret, "hunter2%2B%2F%3D~x", "hunter2%2b%2f%3d~x", &basic, &shifted[0], &shifted[1], &hex, &percent]
        {
            for text in [text.to_owned(), format!("code {text}."), text.to_ascii_uppercase()] {
                assert!(!is_quotable(&text, ["other", secret]), "{text}");
            }
        }
        assert!(!is_quotable(&URL_SAFE_NO_PAD.encode(secret), [secret]));
        assert!(!is_quotable("a:s", ["s"]), "however short the secret is");
    }

    #[test]
    fn a_part_of_a_secret_may_not_be_quoted() {
        let secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl";
        assert!(!is_quotable(&secret[..20], [secret]));
        assert!(!is_quotable(&format!("bad {}...", &secret[8..30]), [secret]));
    }

    #[test]
    fn long_texts_and_texts_with_control_characters_are_not_quoted() {
        for text in ["a\r\nb", "a\u{1b}[31m", "\u{4e2d}", &"x".repeat(MAX_QUOTED + 1)] {
            assert!(!is_quotable(text, []), "{text:?}");
        }
    }
}
