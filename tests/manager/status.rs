//! Status and events: what they show, and their limits.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::TryRecvError;
use evertoken::provider::{Context, Grant, Identity, Provider};
use evertoken::testing::FakeProvider;
use evertoken::{Error, ErrorKind, TokenManager, WeCom};

use crate::common::wait::*;

/// A provider that calls its manager when its name is read.
#[derive(Clone, Default)]
struct Nosy(Arc<Mutex<Option<TokenManager>>>);

impl Provider for Nosy {
    fn name(&self) -> &str {
        let tokens = self.0.lock().unwrap().take();
        if let Some(tokens) = tokens {
            tokens.warm_up();
        }
        "nosy"
    }

    fn identity(&self) -> Identity {
        Identity::new("nosy")
    }

    fn fetch(&self, _: &Context) -> Result<Grant, Error> {
        Ok(Grant::new("t-1", HOUR))
    }
}

#[test]
fn the_name_of_a_provider_may_call_its_manager_while_the_status_is_read() {
    let nosy = Nosy::default();
    let tokens = TokenManager::new(nosy.clone());
    *nosy.0.lock().unwrap() = Some(tokens.clone());
    let (sender, receiver) = crossbeam_channel::bounded(1);
    thread::spawn(move || sender.send(tokens.status().provider));
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), "nosy");
}

#[test]
fn the_status_shows_a_wrong_setting() {
    let tokens = TokenManager::new(WeCom::new("", ""));
    let (error, ago) = tokens.status().last_error.unwrap();
    assert_eq!((error.kind(), ago), (ErrorKind::Config, Duration::ZERO));
    assert!(tokens.status().to_string().contains("the corp id is empty"));
}

#[test]
fn a_manager_has_no_more_than_sixty_four_subscriptions() {
    let (tokens, _clock) = on_clock(&FakeProvider::new());
    let subscriptions: Vec<_> = (0..65).map(|_| tokens.events()).collect();
    assert_eq!(subscriptions[0].try_recv().err(), Some(TryRecvError::Disconnected));
    text(&tokens);
    subscriptions[1..].iter().for_each(wait_for_grant);
}
