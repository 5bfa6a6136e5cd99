//! What a derived provider is built on.

use std::fmt;
use std::sync::Arc;

use crate::token::TokenSource;

/// The source of the tokens that a derived provider asks with. It shows whose tokens they are, and nothing else.
#[derive(Clone)]
pub(super) struct Parent(Arc<dyn TokenSource>);

impl Parent {
    pub(super) fn new(source: impl TokenSource) -> Parent {
        Parent(Arc::new(source))
    }

    pub(super) fn source(&self) -> &dyn TokenSource {
        &*self.0
    }

    /// What goes into an identity: all that the parent's own identity is made of.
    pub(super) fn fingerprint(&self) -> String {
        self.0.identity().fingerprint()
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.identity().fmt(f)
    }
}
