//! The tokens that a fake vendor has issued, and how long each is valid.
//!
//! Each [`Account`] has at most one current token, the one that was issued last. A vendor that returns its current
//! token again asks [`IssuedTokens::current`] first; a vendor that grants a new token per call goes to
//! [`IssuedTokens::issue`] directly. Earlier tokens stay valid until they expire or are revoked:
//!
//! - [`IssuedTokens::issue`] leaves the earlier tokens of the account alone (Entra, OAuth 2.0, Feishu).
//! - [`IssuedTokens::revoke_all_at`] ends them now or after an overlap (WeChat).
//! - [`IssuedTokens::restart_lifetime`] lets the current token start a whole lifetime again (DingTalk).
//!
//! All times are durations since the vendor's clock started, see [`VendorTime`](super::vendor_time::VendorTime).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

pub(super) struct IssuedTokens {
    /// The token that was issued last to each account.
    latest: HashMap<Account, IssuedToken>,
    /// Tokens that the test has named, with their lifetimes. New tokens are taken from here first.
    script: VecDeque<(String, Duration)>,
    tokens: HashMap<String, TokenRecord>,
    /// The keys of `tokens`, oldest first.
    issue_order: VecDeque<String>,
    /// The number of the last `token-N`.
    issue_count: usize,
    /// The lifetime of tokens that the script does not name.
    pub(super) lifetime: Duration,
}

/// The credential that a token was issued to, and the kind of the token. Each kind that a credential can ask for has
/// its own current token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Account {
    kind: &'static str,
    id: String,
    secret: String,
}

impl Account {
    pub(super) fn new(kind: &'static str, id: &str, secret: &str) -> Account {
        Account { kind, id: id.to_owned(), secret: secret.to_owned() }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the account of the same credential in this tenant, where the vendor issues a token for each tenant.
    pub(super) fn in_tenant(self, tenant: &str) -> Account {
        Account { id: format!("{} in {tenant}", self.id), ..self }
    }

    /// Returns the account for another kind of token of the same credential.
    pub(super) fn with_kind(self, kind: &'static str) -> Account {
        Account { kind, ..self }
    }
}

/// A token, the lifetime that it was issued with, and the part of that lifetime that remains.
#[derive(Clone)]
pub(super) struct IssuedToken {
    pub(super) token: String,
    pub(super) lifetime: Duration,
    pub(super) remaining: Duration,
}

struct TokenRecord {
    account: Account,
    expires_at: Duration,
    /// When the token stops working before it expires, because it was revoked or replaced.
    revoked_at: Option<Duration>,
}

impl TokenRecord {
    fn validity(&self, now: Duration) -> Validity {
        if self.revoked_at.is_some_and(|revoked_at| revoked_at <= now) {
            Validity::Invalid
        } else if self.expires_at <= now {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }
}

/// Whether a vendor accepts a token. Vendors report expired and invalid tokens with different codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    Valid,
    Expired,
    /// The token was never issued, is of another kind, or was revoked or replaced.
    Invalid,
}

impl IssuedTokens {
    pub(super) fn new(lifetime: Duration) -> IssuedTokens {
        IssuedTokens {
            latest: HashMap::new(),
            script: VecDeque::new(),
            tokens: HashMap::new(),
            issue_order: VecDeque::new(),
            issue_count: 0,
            lifetime,
        }
    }

    /// Adds a token to the script: the next new token, whatever its account, takes this value and lifetime.
    pub(super) fn push_scripted(&mut self, token: String, lifetime: Duration) {
        self.script.push_back((token, lifetime));
    }

    /// Returns the account's last token if it is valid and at least `min_remaining` of its lifetime remains. A value
    /// over half of the lifetime counts as half, so that a short lifetime does not make every call issue a new token.
    pub(super) fn current(&self, account: &Account, min_remaining: Duration, now: Duration) -> Option<IssuedToken> {
        let issued = self.latest.get(account)?;
        let record = self.tokens.get(&issued.token)?;
        let remaining = record.expires_at.saturating_sub(now);
        // A token with a scheduled revocation still works, but has been replaced already.
        let is_current = record.validity(now) == Validity::Valid
            && record.revoked_at.is_none()
            && remaining >= min_remaining.min(issued.lifetime / 2);
        is_current.then(|| IssuedToken { remaining, ..issued.clone() })
    }

    /// Issues a new token to the account: the next one of the script, or else `token-N`.
    pub(super) fn issue(&mut self, account: &Account, now: Duration) -> IssuedToken {
        let (token, lifetime) = self.script.pop_front().unwrap_or_else(|| {
            self.issue_count += 1;
            (format!("token-{}", self.issue_count), self.lifetime)
        });
        let issued = IssuedToken { token: token.clone(), lifetime, remaining: lifetime };
        self.latest.insert(account.clone(), issued.clone());
        let record =
            TokenRecord { account: account.clone(), expires_at: now.saturating_add(lifetime), revoked_at: None };
        if self.tokens.insert(token.clone(), record).is_none() {
            self.issue_order.push_back(token);
        }
        if self.issue_order.len() > MAX_TOKENS {
            self.issue_order.pop_front().and_then(|oldest| self.tokens.remove(&oldest));
        }
        issued
    }

    /// Restarts the token's whole lifetime at `now` and returns the token with that lifetime.
    pub(super) fn restart_lifetime(&mut self, issued: IssuedToken, now: Duration) -> IssuedToken {
        if let Some(record) = self.tokens.get_mut(&issued.token) {
            record.expires_at = now.saturating_add(issued.lifetime);
        }
        IssuedToken { remaining: issued.lifetime, ..issued }
    }

    pub(super) fn validity(&self, token: &str, now: Duration) -> Validity {
        self.tokens.get(token).map_or(Validity::Invalid, |record| record.validity(now))
    }

    /// Returns the validity of a token where only these kinds are accepted.
    pub(super) fn validity_as(&self, kinds: &[&str], token: &str, now: Duration) -> Validity {
        match self.account_of(token) {
            Some(account) if kinds.contains(&account.kind()) => self.validity(token, now),
            _ => Validity::Invalid,
        }
    }

    pub(super) fn account_of(&self, token: &str) -> Option<&Account> {
        self.tokens.get(token).map(|record| &record.account)
    }

    pub(super) fn revoke(&mut self, token: &str) {
        if let Some(record) = self.tokens.get_mut(token) {
            record.revoked_at = Some(Duration::ZERO);
        }
    }

    /// Revokes all tokens that the account has so far, at time `at`. An earlier revocation of a token stays as it is.
    pub(super) fn revoke_all_at(&mut self, account: &Account, at: Duration) {
        for record in self.tokens.values_mut().filter(|record| record.account == *account) {
            record.revoked_at = Some(record.revoked_at.map_or(at, |revoked_at| revoked_at.min(at)));
        }
    }

    /// Returns every token that was issued, oldest first.
    pub(super) fn granted(&self) -> Vec<String> {
        self.issue_order.iter().cloned().collect()
    }
}

/// Tokens beyond this number are dropped, oldest first, so that a benchmark with a new token per call needs bounded
/// memory.
const MAX_TOKENS: usize = 100_000;
