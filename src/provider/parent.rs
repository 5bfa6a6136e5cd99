//! The parent of a provider: the source of the token that another token is derived from.

use std::fmt;
use std::sync::Arc;

use crate::token::TokenSource;

/// The source of the tokens that a derived provider sends to get its own, usually a manager.
///
/// `Debug` shows the identity of the source and nothing else.
#[derive(Clone)]
pub(super) struct Parent(Arc<dyn TokenSource>);

impl Parent {
    pub(super) fn new(source: impl TokenSource) -> Parent {
        Parent(Arc::new(source))
    }

    pub(super) fn source(&self) -> &dyn TokenSource {
        &*self.0
    }

    /// Returns the fingerprint of the parent's identity, as a part of the derived provider's identity, because a
    /// token that is derived from another parent's token is another token.
    pub(super) fn fingerprint(&self) -> String {
        self.0.identity().fingerprint()
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.identity().fmt(f)
    }
}
