//! `TokenManager::js_signature`: signs a page for the JavaScript API of a vendor.

use std::time::SystemTime;

use crate::error::Error;
use crate::manager::TokenManager;
use crate::provider::{JsSignature, TokenPlacement, nonce, signed_part};

impl TokenManager {
    /// Signs the page at `url` with the current `jsapi_ticket`, so that the page can call the vendor's JavaScript API.
    ///
    /// For managers of [`WeComJsTicket`](crate::provider::wecom::WeComJsTicket) and
    /// [`WeChatJsTicket`](crate::provider::wechat::WeChatJsTicket). `url` is the address of the page as the browser
    /// shows it, including the query; the part after a `#` is not signed. Blocks as [`token`](TokenManager::token)
    /// does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use evertoken::{TokenManager, provider};
    /// # use evertoken::provider::{Grant, TokenPlacement};
    /// # let granting = |_: &_| Ok(Grant::new("ticket-1", Duration::from_secs(7200)));
    /// # let tickets = TokenManager::new(provider::from_fn("demo", granting).placement(TokenPlacement::NotSent));
    /// let signed = tickets.js_signature("https://shop.example/cart?id=1#top")?;
    /// assert_eq!(signed.signature.len(), 40);
    /// # Ok::<(), evertoken::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when `url` is not a complete address, or when the provider grants access tokens instead of
    /// tickets. Otherwise the errors of [`token`](TokenManager::token).
    pub fn js_signature(&self, url: &str) -> Result<JsSignature, Error> {
        if self.placement()? != TokenPlacement::NotSent {
            return Err(Error::config("this provider grants access tokens, and only JavaScript tickets sign pages"));
        }
        let url = signed_part(url)?;
        let ticket = self.token()?;
        let since_1970 = self.keeper().now().wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(JsSignature::sign(ticket.secret(), url, nonce(), since_1970.as_secs()))
    }
}
