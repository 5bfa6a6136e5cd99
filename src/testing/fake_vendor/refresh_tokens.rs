//! Refresh tokens: who holds which, and which were used.

use std::collections::{HashMap, HashSet};

/// A family is what descends from one sign-in.
#[derive(Default)]
pub(super) struct RefreshTokens {
    known: HashMap<String, Entry>,
    revoked: HashSet<usize>,
    families: usize,
    presented: Vec<String>,
}

struct Entry {
    owner: String,
    family: usize,
    used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefreshTokenError {
    /// Never granted, somebody else's, or revoked.
    Unknown,
    AlreadyUsed,
}

impl RefreshTokens {
    /// Accepts this one from its owner: the first of a new family.
    pub(super) fn add(&mut self, owner: &str, token: &str) {
        self.families += 1;
        let entry = Entry { owner: owner.to_owned(), family: self.families, used: false };
        self.known.insert(token.to_owned(), entry);
    }

    pub(super) fn has_owner(&self, owner: &str) -> bool {
        self.known.values().any(|entry| entry.owner == owner)
    }

    /// The first of a new family.
    pub(super) fn issue(&mut self, owner: &str) -> String {
        let token = self.next_name();
        self.add(owner, &token);
        token
    }

    /// Takes one, and returns the one that takes its place: itself, unless they rotate.
    pub(super) fn redeem(&mut self, owner: &str, token: &str, rotating: bool) -> Result<String, RefreshTokenError> {
        self.presented.push(token.to_owned());
        let next = self.next_name();
        let entry = self.known.get_mut(token).filter(|entry| entry.owner == owner).ok_or(RefreshTokenError::Unknown)?;
        if self.revoked.contains(&entry.family) {
            return Err(RefreshTokenError::Unknown);
        }
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

    /// Ends the family that this one is of.
    pub(super) fn revoke_family(&mut self, token: &str) {
        self.revoked.extend(self.known.get(token).map(|entry| entry.family));
    }

    pub(super) fn revoke_all(&mut self) {
        self.revoked.extend(1..=self.families);
    }

    pub(super) fn presented(&self) -> Vec<String> {
        self.presented.clone()
    }

    fn next_name(&self) -> String {
        let mut names = (self.known.len() + 1..).map(|number| format!("refresh-{number}"));
        names.find(|name| !self.known.contains_key(name)).expect("numbers do not run out")
    }
}
