//! Providers that need a renewal secret: a refresh token, which a server replaces at each use, or a ticket.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use evertoken::provider::{Context, Grant, Identity, RenewalProfile};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind};

use super::wait::HOUR;

/// A server that accepts each refresh token once, and grants `refresh-<n>` and `token-<n>` for the n-th request.
#[derive(Clone, Default)]
pub(crate) struct RotatingServer(Arc<Mutex<(Vec<String>, BTreeSet<String>)>>);

impl RotatingServer {
    /// The refresh tokens of all requests, in order.
    pub(crate) fn presented(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    pub(crate) fn used_twice(&self) -> bool {
        let shown = self.presented();
        shown.iter().collect::<BTreeSet<_>>().len() != shown.len()
    }

    /// Records that another program has used this refresh token.
    pub(crate) fn record_use(&self, token: &str) {
        let mut server = self.0.lock().unwrap();
        server.0.push(token.to_owned());
        server.1.insert(token.to_owned());
    }

    pub(crate) fn grant(&self, context: &Context) -> Result<Grant, Error> {
        let mut server = self.0.lock().unwrap();
        let shown = context.renewal_secret().unwrap().expose().to_owned();
        server.0.push(shown.clone());
        let calls = server.0.len();
        if !server.1.insert(shown) {
            return Err(Error::new(ErrorKind::InvalidCredentials, "this refresh token was used before"));
        }
        Ok(Grant::new(format!("token-{calls}"), 2 * HOUR).with_renewal_secret(format!("refresh-{calls}")))
    }

    /// As [`grant`](RotatingServer::grant), but accepts a used refresh token again, as some servers do for a while.
    pub(crate) fn grant_within_grace(&self, context: &Context) -> Result<Grant, Error> {
        let mut server = self.0.lock().unwrap();
        server.0.push(context.renewal_secret().unwrap().expose().to_owned());
        let calls = server.0.len();
        Ok(Grant::new(format!("token-{calls}"), 2 * HOUR).with_renewal_secret(format!("refresh-{calls}")))
    }
}

/// A profile whose initial refresh token is `refresh-0`.
pub(crate) fn rotating_profile() -> RenewalProfile {
    RenewalProfile::refresh_token(Identity::new("app"), "refresh-0")
}

/// A provider that runs `step` at each of its first twenty fetches.
pub(crate) fn repeating(
    keeps: RenewalProfile,
    step: impl Fn(&Context) -> Result<Grant, Error> + Clone + Send + 'static,
) -> FakeProvider {
    (0..20).fold(FakeProvider::new().with_renewal(keeps), |provider, _| provider.then(step.clone()))
}

/// A provider that fetches from this server.
pub(crate) fn rotating_provider(server: &RotatingServer) -> FakeProvider {
    let server = server.clone();
    repeating(rotating_profile(), move |context| server.grant(context))
}

/// A provider that needs a ticket and quotes it in its tokens: `<ticket>-<n>` at its n-th fetch, from 0.
pub(crate) fn needing_tickets(fetches: usize) -> FakeProvider {
    let keeps = RenewalProfile::ticket(Identity::new("suite"), HOUR / 2);
    (0..fetches).fold(FakeProvider::new().with_renewal(keeps), |provider, at| {
        provider.then(move |context| match context.renewal_secret() {
            Some(ticket) => Ok(Grant::new(format!("{}-{at}", ticket.expose()), 2 * HOUR)),
            None => Err(Error::new(ErrorKind::TicketRequired, "there is no ticket")),
        })
    })
}
