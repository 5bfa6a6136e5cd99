//! How a token travels with a request.

use std::borrow::Cow;

/// How a token travels with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenPlacement {
    /// In a header, after a scheme (`Bearer`) when there is one.
    Header {
        /// The header's name.
        name: Cow<'static, str>,
        /// What stands before the token, without the blank.
        scheme: Option<Cow<'static, str>>,
    },
    /// As a parameter of the query.
    Query {
        /// The parameter's name.
        name: Cow<'static, str>,
    },
    /// Not with requests: a ticket that signs pages stays at home.
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
