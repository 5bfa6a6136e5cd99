//! The refresh tokens that a fake vendor accepts.
//!
//! The refresh tokens that descend from one sign-in form a family. With rotation, each use of a refresh token marks the
//! token as used and adds its successor to the family. A used token that comes again means that two clients have copies
//! of one token, so an authorization server revokes the whole family (RFC 9700 section 4.14.2).

use std::collections::{HashMap, HashSet};

#[derive(Default)]
pub(super) struct RefreshTokens {
    known: HashMap<String, Entry>,
    /// Families whose tokens are rejected.
    revoked: HashSet<usize>,
    /// The number of families, which is also the number of the last one.
    families: usize,
    /// Every token that a client sent, accepted or not, oldest first.
    presented: Vec<String>,
}

struct Entry {
    owner: String,
    family: usize,
    used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefreshTokenError {
    /// The token was never issued, belongs to another owner, or was revoked.
    Unknown,
    AlreadyUsed,
}

impl RefreshTokens {
    /// Accepts this token from `owner`, as the first of a new family.
    pub(super) fn add(&mut self, owner: &str, token: &str) {
        self.families += 1;
        let entry = Entry { owner: owner.to_owned(), family: self.families, used: false };
        self.known.insert(token.to_owned(), entry);
    }

    pub(super) fn has_owner(&self, owner: &str) -> bool {
        self.known.values().any(|entry| entry.owner == owner)
    }

    /// Issues the first token of a new family.
    pub(super) fn issue(&mut self, owner: &str) -> String {
        let token = self.next_name();
        self.add(owner, &token);
        token
    }

    /// Uses a token, and returns the token for the next use: a new one with rotation, otherwise the same one.
    pub(super) fn redeem(&mut self, owner: &str, token: &str, rotating: bool) -> Result<String, RefreshTokenError> {
        self.presented.push(token.to_owned());
        let next = self.next_name();
        let entry = self.known.get_mut(token).filter(|entry| entry.owner == owner).ok_or(RefreshTokenError::Unknown)?;
        if self.revoked.contains(&entry.family) {
            return Err(RefreshTokenError::Unknown);
        }
        // Checked after the family: a revoked token is unknown, used or not.
        if entry.used {
            return Err(RefreshTokenError::AlreadyUsed);
        }
        if !rotating {
            return Ok(token.to_owned());
        }
        entry.used = true;
        let successor = Entry { owner: owner.to_owned(), family: entry.family, used: false };
        self.known.insert(next.clone(), successor);
        Ok(next)
    }

    /// Revokes the family of this token.
    pub(super) fn revoke_family(&mut self, token: &str) {
        self.revoked.extend(self.known.get(token).map(|entry| entry.family));
    }

    pub(super) fn revoke_all(&mut self) {
        self.revoked.extend(1..=self.families);
    }

    pub(super) fn presented(&self) -> Vec<String> {
        self.presented.clone()
    }

    /// Returns an unused name, also if the test has named tokens `refresh-N` itself.
    fn next_name(&self) -> String {
        let mut names = (self.known.len() + 1..).map(|number| format!("refresh-{number}"));
        names.find(|name| !self.known.contains_key(name)).expect("numbers do not run out")
    }
}
