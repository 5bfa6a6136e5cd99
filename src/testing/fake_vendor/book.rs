//! The tokens that a vendor has granted.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

pub(super) struct Book {
    /// The token that each account got last.
    latest: HashMap<Account, Issued>,
    script: VecDeque<(String, Duration)>,
    tokens: HashMap<String, Lifetime>,
    order: VecDeque<String>,
    issued: usize,
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
    pub(super) fn within(self, tenant: &str) -> Account {
        Account { id: format!("{} in {tenant}", self.id), ..self }
    }

    /// Another kind of token of the same owner.
    pub(super) fn with_kind(self, kind: &'static str) -> Account {
        Account { kind, ..self }
    }
}

/// A token, the whole lifetime it was issued with, and what is left of it.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) lifetime: Duration,
    pub(super) left: Duration,
}

struct Lifetime {
    account: Account,
    end: Duration,
    /// When it dies before its end, because it was revoked or replaced.
    cut: Option<Duration>,
}

impl Lifetime {
    fn judge(&self, now: Duration) -> Judgement {
        if self.cut.is_some_and(|cut| cut <= now) {
            Judgement::Invalid
        } else if self.end <= now {
            Judgement::Ended
        } else {
            Judgement::Alive
        }
    }
}

/// What a vendor thinks of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    Alive,
    Ended,
    /// Never issued, of the wrong kind, revoked, or replaced.
    Invalid,
}

impl Book {
    pub(super) fn new(lifetime: Duration) -> Book {
        Book {
            latest: HashMap::new(),
            script: VecDeque::new(),
            tokens: HashMap::new(),
            order: VecDeque::new(),
            issued: 0,
            lifetime,
        }
    }

    /// The next new token is this one.
    pub(super) fn script(&mut self, token: String, lifetime: Duration) {
        self.script.push_back((token, lifetime));
    }

    /// The token that the account got last, while at least `lead` is left, or half of its lifetime.
    pub(super) fn current(&self, account: &Account, lead: Duration, now: Duration) -> Option<Issued> {
        let issued = self.latest.get(account)?;
        let lifetime = self.tokens.get(&issued.token)?;
        let left = lifetime.end.saturating_sub(now);
        let stays =
            lifetime.judge(now) == Judgement::Alive && lifetime.cut.is_none() && left >= lead.min(issued.lifetime / 2);
        stays.then(|| Issued { left, ..issued.clone() })
    }

    /// A new token for the account.
    pub(super) fn issue(&mut self, account: &Account, now: Duration) -> Issued {
        let (token, lifetime) = self.script.pop_front().unwrap_or_else(|| {
            self.issued += 1;
            (format!("token-{}", self.issued), self.lifetime)
        });
        let issued = Issued { token: token.clone(), lifetime, left: lifetime };
        self.latest.insert(account.clone(), issued.clone());
        let lifetime = Lifetime { account: account.clone(), end: now.saturating_add(lifetime), cut: None };
        if self.tokens.insert(token.clone(), lifetime).is_none() {
            self.order.push_back(token);
        }
        if self.order.len() > MOST_TOKENS {
            self.order.pop_front().and_then(|oldest| self.tokens.remove(&oldest));
        }
        issued
    }

    /// Gives a token that lives the whole of its lifetime once more, from now on.
    pub(super) fn extend(&mut self, issued: Issued, now: Duration) -> Issued {
        if let Some(lifetime) = self.tokens.get_mut(&issued.token) {
            lifetime.end = now.saturating_add(issued.lifetime);
        }
        Issued { left: issued.lifetime, ..issued }
    }

    pub(super) fn judge(&self, token: &str, now: Duration) -> Judgement {
        self.tokens.get(token).map_or(Judgement::Invalid, |lifetime| lifetime.judge(now))
    }

    /// A token of another kind than these is none.
    pub(super) fn judge_as(&self, kinds: &[&str], token: &str, now: Duration) -> Judgement {
        match self.owner(token) {
            Some(account) if kinds.contains(&account.kind()) => self.judge(token, now),
            _ => Judgement::Invalid,
        }
    }

    pub(super) fn owner(&self, token: &str) -> Option<&Account> {
        self.tokens.get(token).map(|lifetime| &lifetime.account)
    }

    pub(super) fn revoke(&mut self, token: &str) {
        if let Some(lifetime) = self.tokens.get_mut(token) {
            lifetime.cut = Some(Duration::ZERO);
        }
    }

    /// All that the account has die at this moment, or sooner.
    pub(super) fn cut(&mut self, account: &Account, at: Duration) {
        for lifetime in self.tokens.values_mut().filter(|lifetime| lifetime.account == *account) {
            lifetime.cut = Some(lifetime.cut.map_or(at, |cut| cut.min(at)));
        }
    }

    pub(super) fn granted(&self) -> Vec<String> {
        self.order.iter().cloned().collect()
    }
}

/// Older ones are forgotten, which bounds a benchmark that asks for a new one each time.
const MOST_TOKENS: usize = 100_000;
