//! The signature with which a page opens a vendor's JavaScript interface.

use ring::digest;
use serde::Serialize;

use crate::error::Error;
use crate::secret::{Secret, hex};

/// What a page hands to the configuration of a vendor's JavaScript interface (`wx.config`, `wx.agentConfig`), beside
/// the id of the app. Made by [`TokenManager::js_signature`](crate::TokenManager::js_signature).
///
/// It serialises as `{"nonceStr":"..","timestamp":..,"signature":".."}`, and there is nothing secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JsSignature {
    /// A text that was made up for this signature.
    pub nonce_str: String,
    /// When it was signed, in seconds since 1970.
    pub timestamp: u64,
    /// The signature: 40 hexadecimal digits.
    pub signature: String,
}

impl JsSignature {
    /// Signs the page at `url` with `ticket`.
    pub(crate) fn sign(ticket: &Secret, url: &str, nonce_str: String, timestamp: u64) -> JsSignature {
        // The vendors chose SHA-1. What it protects is a page's call of their own scripts.
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

/// A text that no other signature has. It is shown to everybody, so it need not be hard to guess.
pub(crate) fn nonce() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(16).collect()
}

/// The part of a page's address that is signed: all of it up to the fragment.
pub(crate) fn signed_part(url: &str) -> Result<&str, Error> {
    let part = url.split_once('#').map_or(url, |(part, _)| part);
    let after = part.strip_prefix("https://").or_else(|| part.strip_prefix("http://"));
    match after.filter(|rest| !rest.is_empty()) {
        Some(_) => Ok(part),
        None => Err(Error::config("the page's URL must be the whole one that a browser shows, from http on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_signed_as_the_vendors_example_is() {
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
    fn the_fragment_is_not_signed_and_all_before_it_is_as_it_stands() {
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
    fn a_nonce_is_sixteen_letters_and_digits_and_new_each_time() {
        let [one, other] = [nonce(), nonce()];
        assert!(one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{one}");
        assert_ne!(one, other);
    }
}
