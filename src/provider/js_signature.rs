//! The signature with which a web page opens a vendor's JavaScript interface (JS-SDK).

use ring::digest;
use serde::Serialize;

use crate::error::Error;
use crate::secret::{Secret, hex};

/// The signature that a page passes to `wx.config` or `wx.agentConfig` (JS-SDK), beside the id of the app.
///
/// [`TokenManager::js_signature`](crate::TokenManager::js_signature) makes it from a `jsapi_ticket`. The signature
/// serializes as `{"nonceStr":"..","timestamp":..,"signature":".."}` and contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JsSignature {
    /// The random text of this signature (`nonceStr`, `noncestr`).
    pub nonce_str: String,
    /// The time of the signature, in seconds since 1970.
    pub timestamp: u64,
    /// The SHA-1 of ticket, nonce, timestamp and URL: 40 hexadecimal digits.
    pub signature: String,
}

impl JsSignature {
    /// Signs the page at `url` with `ticket`.
    pub(crate) fn sign(ticket: &Secret, url: &str, nonce_str: String, timestamp: u64) -> JsSignature {
        // The vendors prescribe SHA-1. The signature only admits a page to the vendor's own scripts.
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        let seconds = timestamp.to_string();
        for (name, value) in
            [("jsapi_ticket=", ticket.expose()), ("&noncestr=", &nonce_str), ("&timestamp=", &seconds), ("&url=", url)]
        {
            hash.update(name.as_bytes());
            hash.update(value.as_bytes());
        }
        JsSignature { signature: hex(hash.finish().as_ref()), nonce_str, timestamp }
    }
}

/// Returns a nonce of 16 letters and digits. The page shows it to every visitor, so it need not be hard to guess.
pub(crate) fn nonce() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(16).collect()
}

/// Returns the part of a page's URL that is signed: everything before the fragment.
pub(crate) fn signed_part(url: &str) -> Result<&str, Error> {
    let part = url.split_once('#').map_or(url, |(part, _)| part);
    let after = part.strip_prefix("https://").or_else(|| part.strip_prefix("http://"));
    match after.filter(|rest| !rest.is_empty()) {
        Some(_) => Ok(part),
        None => Err(Error::config(
            "the page's URL must be complete, as a browser shows it, and begin with http:// or https://",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_equals_that_of_the_vendors_example() {
        let ticket =
            Secret::from("sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg");
        let signed = JsSignature::sign(
            &ticket,
            "http://mp.weixin.qq.com?params=value",
            "Wm3WZYTPz0wzccnW".to_owned(),
            1_414_587_457,
        );
        assert_eq!(signed.signature, "0f9de62fce790f9a083d5c99e95740ceb90c27ed");
        assert_eq!((signed.nonce_str.as_str(), signed.timestamp), ("Wm3WZYTPz0wzccnW", 1_414_587_457));
    }

    #[test]
    fn the_url_is_signed_unchanged_up_to_its_fragment() {
        for (url, part) in [
            ("https://h/p?a=%20&b#/route?x", "https://h/p?a=%20&b"),
            ("http://h", "http://h"),
            ("https://h/#", "https://h/"),
        ] {
            assert_eq!(signed_part(url).ok(), Some(part));
        }
        for bad in ["", "#x", "/p?a=b", "h/p", "https://", "https://#x"] {
            assert!(signed_part(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_nonce_has_sixteen_letters_and_digits_and_is_new_each_time() {
        let [one, other] = [nonce(), nonce()];
        assert!(one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{one}");
        assert_ne!(one, other);
    }
}
