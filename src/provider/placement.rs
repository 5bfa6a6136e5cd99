//! Where a token goes in a request.

use std::borrow::Cow;

/// Where a token goes in a request to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenPlacement {
    /// In a header, after an authentication scheme such as `Bearer` if there is one.
    Header {
        /// The header's name.
        name: Cow<'static, str>,
        /// The authentication scheme before the token, without the blank between both.
        scheme: Option<Cow<'static, str>>,
    },
    /// In the query, as the value of a parameter.
    Query {
        /// The parameter's name.
        name: Cow<'static, str>,
    },
    /// Not in a request. A ticket that signs pages (`jsapi_ticket`) is used by this program only.
    NotSent,
}

impl TokenPlacement {
    /// `Authorization: Bearer <token>`
    pub fn bearer() -> TokenPlacement {
        TokenPlacement::Header { name: "authorization".into(), scheme: Some("Bearer".into()) }
    }

    /// `<name>: <token>`
    pub fn header(name: impl Into<Cow<'static, str>>) -> TokenPlacement {
        TokenPlacement::Header { name: name.into(), scheme: None }
    }

    /// `?<name>=<token>`
    pub fn query(name: impl Into<Cow<'static, str>>) -> TokenPlacement {
        TokenPlacement::Query { name: name.into() }
    }
}
