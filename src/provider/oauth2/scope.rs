//! The warning about a token that has less scope than was asked for.
//!
//! A server may grant less than the client asks for, and then names what it granted (`scope`, RFC 6749, section 3.3).
//! Nobody notices until a service answers 403 to a token that looks fine. Without `scope` in the response the server
//! granted what was asked for.

use std::sync::{Arc, Mutex};

use crate::http::Json;
use crate::lock::lock;

/// Warns about missing scopes of one client, once until other ones are missing. Clones share what was warned about.
#[derive(Clone, Default)]
pub(super) struct ScopeWarning(Arc<Mutex<String>>);

impl ScopeWarning {
    /// Logs a warning when the response names a scope that lacks some of `asked`. The warning quotes what was asked
    /// for, never the response.
    pub(super) fn check(&self, provider: &str, asked: &str, json: &Json) {
        let missing = json.text("scope").map(|granted| missing(asked, granted)).unwrap_or_default();
        let mut warned = lock(&self.0);
        if *warned == missing {
            return;
        }
        if !missing.is_empty() {
            log::warn!(
                target: "evertoken",
                "{provider}: the server granted a token without the scope {missing:?}, which was asked for; allow the \
                 scope at the server, or correct `scope`"
            );
        }
        *warned = missing;
    }
}

/// Returns the asked scopes that are not among the granted ones, separated by blanks.
fn missing(asked: &str, granted: &str) -> String {
    // The standard separates scopes by blanks; GitHub and Slack use commas.
    let granted: Vec<_> = words(granted).collect();
    let has = |scope: &str| granted.iter().any(|known| *known == scope || last_part(known) == last_part(scope));
    words(asked).filter(|scope| !is_never_named(scope) && !has(scope)).collect::<Vec<_>>().join(" ")
}

fn words(scope: &str) -> impl Iterator<Item = &str> {
    scope.split(|letter: char| letter.is_whitespace() || letter == ',').filter(|word| !word.is_empty())
}

/// Returns the part of a scope after its API: Entra grants `https://graph.microsoft.com/User.Read` as `User.Read`.
fn last_part(scope: &str) -> &str {
    if scope.contains("://") { scope.rsplit('/').next().unwrap_or(scope) } else { scope }
}

/// Returns true for a scope that servers grant without naming it: those of OpenID Connect, and Entra's name for all
/// rights that the app has.
fn is_never_named(scope: &str) -> bool {
    matches!(scope, "openid" | "profile" | "email" | "address" | "phone" | "offline_access")
        || scope.ends_with("/.default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granted_scope_is_compared_word_by_word() {
        for (asked, granted, lacks) in [
            ("a b", "b a", ""),
            ("a b", "a", "b"),
            ("a b c", "", "a b c"),
            ("a,b", "b,c", "a"),
            ("repo read:user", "read:user,repo", ""),
            ("openid offline_access a", "a", ""),
            ("https://graph.microsoft.com/User.Read", "User.Read profile", ""),
            ("https://graph.microsoft.com/.default", "User.Read", ""),
            ("https://api.example/a", "https://api.example/b", "https://api.example/a"),
            ("", "a", ""),
        ] {
            assert_eq!(missing(asked, granted), lacks, "{asked} / {granted}");
        }
    }
}
