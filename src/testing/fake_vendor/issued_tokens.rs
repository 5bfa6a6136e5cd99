//! The tokens that a vendor has granted.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

pub(super) struct IssuedTokens {
    /// The token that each account got last.
    latest: HashMap<Account, IssuedToken>,
    script: VecDeque<(String, Duration)>,
    tokens: HashMap<String, TokenRecord>,
    issue_order: VecDeque<String>,
    issue_count: usize,
    pub(super) lifetime: Duration,
}

/// Whose token it is, and of which kind: each kind that a credential can ask for has tokens of its own.
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

    /// The same owner's, for this tenant of its.
    pub(super) fn in_tenant(self, tenant: &str) -> Account {
        Account { id: format!("{} in {tenant}", self.id), ..self }
    }

    /// Another kind of token of the same owner.
    pub(super) fn with_kind(self, kind: &'static str) -> Account {
        Account { kind, ..self }
    }
}

/// A token, the whole lifetime it was issued with, and what is left of it.
#[derive(Clone)]
pub(super) struct IssuedToken {
    pub(super) token: String,
    pub(super) lifetime: Duration,
    pub(super) remaining: Duration,
}

struct TokenRecord {
    account: Account,
    expires_at: Duration,
    /// When it dies before its end, because it was revoked or replaced.
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

/// What a vendor thinks of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    Valid,
    Expired,
    /// Never issued, of the wrong kind, revoked, or replaced.
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

    /// The next new token is this one.
    pub(super) fn push_scripted(&mut self, token: String, lifetime: Duration) {
        self.script.push_back((token, lifetime));
    }

    /// The token that the account got last, while at least `lead` is left, or half of its lifetime.
    pub(super) fn current(&self, account: &Account, min_remaining: Duration, now: Duration) -> Option<IssuedToken> {
        let issued = self.latest.get(account)?;
        let lifetime = self.tokens.get(&issued.token)?;
        let remaining = lifetime.expires_at.saturating_sub(now);
        let stays = lifetime.validity(now) == Validity::Valid
            && lifetime.revoked_at.is_none()
            && remaining >= min_remaining.min(issued.lifetime / 2);
        stays.then(|| IssuedToken { remaining, ..issued.clone() })
    }

    /// A new token for the account.
    pub(super) fn issue(&mut self, account: &Account, now: Duration) -> IssuedToken {
        let (token, lifetime) = self.script.pop_front().unwrap_or_else(|| {
            self.issue_count += 1;
            (format!("token-{}", self.issue_count), self.lifetime)
        });
        let issued = IssuedToken { token: token.clone(), lifetime, remaining: lifetime };
        self.latest.insert(account.clone(), issued.clone());
        let lifetime =
            TokenRecord { account: account.clone(), expires_at: now.saturating_add(lifetime), revoked_at: None };
        if self.tokens.insert(token.clone(), lifetime).is_none() {
            self.issue_order.push_back(token);
        }
        if self.issue_order.len() > MAX_TOKENS {
            self.issue_order.pop_front().and_then(|oldest| self.tokens.remove(&oldest));
        }
        issued
    }

    /// Gives a token that lives the whole of its lifetime once more, from now on.
    pub(super) fn restart_lifetime(&mut self, issued: IssuedToken, now: Duration) -> IssuedToken {
        if let Some(lifetime) = self.tokens.get_mut(&issued.token) {
            lifetime.expires_at = now.saturating_add(issued.lifetime);
        }
        IssuedToken { remaining: issued.lifetime, ..issued }
    }

    pub(super) fn validity(&self, token: &str, now: Duration) -> Validity {
        self.tokens.get(token).map_or(Validity::Invalid, |lifetime| lifetime.validity(now))
    }

    /// A token of another kind than these is none.
    pub(super) fn validity_as(&self, kinds: &[&str], token: &str, now: Duration) -> Validity {
        match self.account_of(token) {
            Some(account) if kinds.contains(&account.kind()) => self.validity(token, now),
            _ => Validity::Invalid,
        }
    }

    pub(super) fn account_of(&self, token: &str) -> Option<&Account> {
        self.tokens.get(token).map(|lifetime| &lifetime.account)
    }

    pub(super) fn revoke(&mut self, token: &str) {
        if let Some(lifetime) = self.tokens.get_mut(token) {
            lifetime.revoked_at = Some(Duration::ZERO);
        }
    }

    /// All that the account has die at this moment, or sooner.
    pub(super) fn revoke_all_at(&mut self, account: &Account, at: Duration) {
        for lifetime in self.tokens.values_mut().filter(|lifetime| lifetime.account == *account) {
            lifetime.revoked_at = Some(lifetime.revoked_at.map_or(at, |revoked_at| revoked_at.min(at)));
        }
    }

    pub(super) fn granted(&self) -> Vec<String> {
        self.issue_order.iter().cloned().collect()
    }
}

/// Older ones are forgotten, which bounds a benchmark that asks for a new one each time.
const MAX_TOKENS: usize = 100_000;
