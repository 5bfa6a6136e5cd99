//! Closures as providers.

use evertoken::provider::Grant;
use evertoken::{ErrorKind, TokenManager};

use crate::common::wait::*;

#[test]
fn a_closure_is_a_provider() {
    let provider = evertoken::provider::from_fn("mine", |_| Ok(Grant::new("from a closure", SECOND)));
    let error = TokenManager::new(provider).token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse, "a blank is no part of a token");
    let provider = evertoken::provider::from_fn("mine", |_| Ok(Grant::new("closure", None)));
    let token = TokenManager::new(provider).token().unwrap();
    assert!(token.remaining() > 290 * SECOND && token.remaining() <= 300 * SECOND);
}
