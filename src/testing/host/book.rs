//! What a vendor knows about its credentials and tokens.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

pub(super) struct Book {
    /// Each credential, and the token it got last.
    accounts: HashMap<(String, String), Option<Issued>>,
    script: VecDeque<Issued>,
    tokens: HashMap<String, Life>,
    order: VecDeque<String>,
    issued: usize,
    pub(super) life: Duration,
    pub(super) renews_within: Duration,
}

/// A token, and the whole life it was issued with.
#[derive(Clone)]
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) life: Duration,
}

struct Life {
    end: Duration,
    revoked: bool,
}

/// What the vendor thinks of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    Alive,
    Ended,
    /// Never issued, or revoked.
    Invalid,
}

impl Book {
    pub(super) fn new(id: &str, secret: &str) -> Book {
        let mut book = Book {
            accounts: HashMap::new(),
            script: VecDeque::new(),
            tokens: HashMap::new(),
            order: VecDeque::new(),
            issued: 0,
            life: Duration::from_secs(7200),
            renews_within: Duration::ZERO,
        };
        book.open_account(id, secret);
        book
    }

    pub(super) fn open_account(&mut self, id: &str, secret: &str) {
        self.accounts.entry((id.to_owned(), secret.to_owned())).or_default();
    }

    pub(super) fn close_other_accounts(&mut self, id: &str, secret: &str) {
        self.accounts.retain(|(known_id, known_secret), _| known_id == id && known_secret == secret);
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.accounts.keys().any(|(known, _)| known == id)
    }

    pub(super) fn accepts(&self, id: &str, secret: &str) -> bool {
        self.accounts.contains_key(&(id.to_owned(), secret.to_owned()))
    }

    /// The next new token is this one.
    pub(super) fn script(&mut self, token: String, life: Duration) {
        self.script.push_back(Issued { token, life });
    }

    /// The token that the credential got last, unless it is over or about to be.
    pub(super) fn current(&self, id: &str, secret: &str, now: Duration) -> Option<Issued> {
        let issued = self.accounts.get(&(id.to_owned(), secret.to_owned()))?.clone()?;
        let life = self.tokens.get(&issued.token)?;
        let stays = !life.revoked && life.end > now && life.end - now >= self.renews_within;
        stays.then_some(issued)
    }

    /// A new token for the credential.
    pub(super) fn issue(&mut self, id: &str, secret: &str, now: Duration) -> Issued {
        let issued = self.script.pop_front().unwrap_or_else(|| {
            self.issued += 1;
            Issued { token: format!("token-{}", self.issued), life: self.life }
        });
        self.accounts.insert((id.to_owned(), secret.to_owned()), Some(issued.clone()));
        let life = Life { end: now.saturating_add(issued.life), revoked: false };
        if self.tokens.insert(issued.token.clone(), life).is_none() {
            self.order.push_back(issued.token.clone());
        }
        if self.order.len() > MOST_TOKENS {
            self.order.pop_front().and_then(|oldest| self.tokens.remove(&oldest));
        }
        issued
    }

    pub(super) fn judge(&self, token: &str, now: Duration) -> Judgement {
        match self.tokens.get(token) {
            Some(life) if !life.revoked && now < life.end => Judgement::Alive,
            Some(life) if !life.revoked => Judgement::Ended,
            _ => Judgement::Invalid,
        }
    }

    pub(super) fn revoke(&mut self, token: &str) {
        if let Some(life) = self.tokens.get_mut(token) {
            life.revoked = true;
        }
    }

    pub(super) fn granted(&self) -> Vec<String> {
        self.order.iter().cloned().collect()
    }
}

/// Older ones are forgotten, which bounds a benchmark that asks for a new one each time.
const MOST_TOKENS: usize = 100_000;
