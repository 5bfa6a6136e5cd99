//! Claims challenges: a service of Microsoft refuses a token and demands claims for the next one.

use std::io::Write;
use std::net::Shutdown;
use std::sync::Mutex;

use evertoken::provider::Provider;
use evertoken::provider::microsoft::ManagedIdentity;
use evertoken::{Entra, ErrorKind, TokenManager};
use ureq::Agent;
use ureq::http::Request;

use crate::common::http_host::{Canned, canned, host, reply};
use crate::kinds::context;

/// `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
const CLAIMS: &str = "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjA0MTA2NjUxIn19fQ==";

const SENT: &str = "&claims=%7B%22access_token%22%3A%7B%22nbf%22%3A%7B%22essential%22%3Atrue%2C%22value%22%3A%22\
                    1604106651%22%7D%7D%7D";

fn challenge() -> Vec<u8> {
    let header = format!("www-authenticate: Bearer realm=\"\", error=\"insufficient_claims\", claims=\"{CLAIMS}\"\r\n");
    reply("401 Unauthorized", &header, "")
}

/// A host that gives these replies in turn, and the last one for ever.
fn replying(replies: impl IntoIterator<Item = Vec<u8>>) -> Canned {
    let mut replies = replies.into_iter().collect::<Vec<_>>();
    replies.reverse();
    let replies = Mutex::new(replies);
    host(move |mut stream| {
        let reply = {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 { replies.pop().unwrap() } else { replies[0].clone() }
        };
        let _ = stream.write_all(&reply);
        let _ = stream.shutdown(Shutdown::Write);
    })
}

fn granted(token: &str) -> Vec<u8> {
    reply("200 OK", "", &format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"{token}"}}"#))
}

fn entra(host: &Canned) -> Entra {
    Entra::new("tenant", "app", "secret").authority(host.url())
}

/// Which of the requests at `host` sent the claims.
fn sent_claims(host: &Canned) -> Vec<bool> {
    host.requests().iter().map(|request| request.ends_with(SENT) || request.contains(&format!("{SENT}&"))).collect()
}

fn get(service: &Canned) -> Request<()> {
    Request::get(service.url()).body(()).unwrap()
}

fn is_refused(provider: &dyn Provider) -> bool {
    use evertoken::Verdict;
    use evertoken::provider::ServiceResponse;
    use evertoken::ureq::http::HeaderMap;

    let mut headers = HeaderMap::new();
    let value = format!(r#"Bearer error="insufficient_claims", claims="{CLAIMS}""#);
    headers.insert("www-authenticate", value.parse().unwrap());
    provider.verdict(&ServiceResponse::new(401, &headers, b"")) == Verdict::Rejected
}

#[test]
fn the_claims_of_a_challenge_are_sent_with_the_next_fetch_and_only_that() {
    let vendor = replying([granted("t-1"), granted("t-2"), granted("t-3")]);
    let service = replying([challenge(), reply("200 OK", "", "fine"), reply("401 Unauthorized", "", "")]);
    let tokens = TokenManager::new(entra(&vendor));
    let response = tokens.send(&Agent::new_with_defaults(), get(&service)).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!((tokens.token().unwrap().expose(), sent_claims(&vendor)), ("t-2", vec![false, true]));
    tokens.reject(&tokens.token().unwrap()).unwrap();
    assert_eq!((tokens.token().unwrap().expose(), sent_claims(&vendor)), ("t-3", vec![false, true, false]));
}

#[test]
fn the_middleware_hands_a_challenge_on_as_well() {
    let vendor = replying([granted("t-1"), granted("t-2")]);
    let service = canned(challenge());
    let tokens = TokenManager::new(entra(&vendor));
    let agent = Agent::config_builder().middleware(tokens.middleware()).build().new_agent();
    assert!(matches!(agent.get(service.url()).call(), Err(ureq::Error::StatusCode(401))));
    assert_eq!((tokens.token().unwrap().expose(), sent_claims(&vendor)), ("t-2", vec![false, true]));
}

#[test]
fn a_fetch_without_an_answer_keeps_the_claims_and_a_refused_one_does_not() {
    let refusal = || reply("400 Bad Request", "", r#"{"error":"invalid_request","error_codes":[9000411]}"#);
    let vendor = replying([reply("503 Busy", "", ""), refusal(), granted("t-1")]);
    let provider = entra(&vendor);
    assert!(is_refused(&provider));
    assert_eq!(provider.fetch(&context()).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_ne!(provider.fetch(&context()).unwrap_err().kind(), ErrorKind::Unavailable);
    let _ = provider.fetch(&context()).unwrap();
    assert_eq!(sent_claims(&vendor), [true, true, false]);
}

#[test]
fn a_clone_for_another_api_does_not_send_the_claims() {
    let vendor = canned(granted("t-1"));
    let provider = entra(&vendor);
    assert!(is_refused(&provider));
    let _ = provider.clone().scope("api://orders/.default").fetch(&context()).unwrap();
    let _ = provider.fetch(&context()).unwrap();
    assert_eq!(sent_claims(&vendor), [false, true]);
}

#[test]
fn a_managed_identity_fetches_again_after_a_challenge() {
    let vendor = replying([granted("t-1"), granted("t-2")]);
    let service = replying([challenge(), reply("200 OK", "", "fine")]);
    let tokens = TokenManager::new(ManagedIdentity::new("https://graph.microsoft.com").base_url(vendor.url()));
    assert_eq!(tokens.send(&Agent::new_with_defaults(), get(&service)).unwrap().status(), 200);
    assert_eq!((tokens.token().unwrap().expose(), vendor.calls()), ("t-2", 2));
    assert!(vendor.requests().iter().all(|request| !request.contains("claims")));
}
