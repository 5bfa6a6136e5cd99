//! Texts of a response that an error may quote: short, printable, and without a credential that was sent.
//!
//! A service or a gateway may repeat what it was sent, as it is or encoded: the value of HTTP Basic is base64, a query is
//! percent-encoded, a dump may be hexadecimal. It may also cut the text off. So each of these forms counts, and so does
//! a part of it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// Returns true when an error may quote `text`, such as a vendor's code, after `secrets` were sent.
pub(crate) fn is_quotable<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> bool {
    let printable = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    printable && text.len() <= MAX_QUOTED && !secrets.into_iter().any(|secret| repeats(text, secret))
}

/// Returns true when `text` contains `secret`, one of its encoded forms, or a longer part of one.
fn repeats(text: &str, secret: &str) -> bool {
    if secret.trim().is_empty() {
        return false;
    }
    if secret.len() < MIN_ENCODED {
        return text.contains(secret);
    }
    // Hexadecimal digits have letters of either case, so the case is ignored.
    let decoded = percent_decode_str(text).decode_utf8_lossy().to_ascii_lowercase();
    let texts = [Zeroizing::new(text.to_ascii_lowercase()), Zeroizing::new(decoded)];
    encoded_forms(secret).iter().any(|form| {
        let form = Zeroizing::new(form.to_ascii_lowercase());
        texts.iter().any(|text| text.contains(&**form) || parts(text).any(|part| form.contains(part)))
    })
}

/// Returns the forms in which a service may repeat `secret`.
fn encoded_forms(secret: &str) -> Vec<Zeroizing<String>> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![Zeroizing::new(secret.to_owned()), Zeroizing::new(hex)];
    // Base64 encodes three bytes at a time, so the characters depend on how many bytes stand before the secret.
    for before in 0..3 {
        let padded = Zeroizing::new([&[0; 2][..before], secret.as_bytes()].concat());
        // Only these characters are made of bits of the secret alone.
        let own = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            forms.push(Zeroizing::new(Zeroizing::new(engine.encode(&*padded))[own.clone()].to_owned()));
        }
    }
    forms
}

/// Returns the parts of `text` that are in a secret only if the text repeats the secret.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    (0..).map_while(|start| text.get(start..start + MIN_PART))
}

/// Codes and request ids of vendors have less than a hundred characters.
const MAX_QUOTED: usize = 128;

/// The length from which on a part of a secret is a secret.
const MIN_PART: usize = 16;

/// Encoded forms of shorter secrets would be found in texts by accident.
const MIN_ENCODED: usize = 6;

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

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
