//! What a provider keeps in a real Redis, between real processes: refresh tokens that are good once, tickets that are
//! pushed to one process and needed by all, and quotas.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evertoken::clock::Notifier;
use evertoken::provider::dingtalk::{DingTalkAuthorizedCorp, DingTalkSuite};
use evertoken::provider::wecom::WeComSuite;
use evertoken::provider::{
    Context, Grant, Identity, Profile, Provider, RenewalProfile, ServiceResponse, TokenPlacement, TokenSource,
};
use evertoken::store::{
    Cursor, Entry, Expected, Key, LeaseOutcome, LeaseOwner, PublishOutcome, Store, Subscription, SwapOutcome, Version,
};
use evertoken::testing::FakeVendor;
use evertoken::{Error, EventKind, HttpConfig, OAuth2, RedisStore, RefreshToken, Token, TokenManager, Verdict, WeChat};

use crate::common::alone::test_of;
use crate::common::process::{Process, each};
use crate::common::proxy::{Fault, Proxy};
use crate::common::redis_server::{RedisServer, until};
use crate::common::wait::*;

/// What is over within this time was not merely stumbled upon.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn eight_processes_never_use_a_refresh_token_twice_while_tokens_expire_all_the_time() {
    play(|stage| {
        let host = FakeVendor::oauth2().lifetime(SECOND);
        let mut processes = stage.sharing(8, &stage.of(Kind::RefreshToken, &host));
        processes.iter_mut().for_each(|process| process.tell("use"));
        assert!(host.wait_for_calls(15, PATIENCE));
        let reports = each(&mut processes, "enough");
        for report in &reports {
            let report: Report = serde_json::from_str(report).unwrap();
            assert!(report.calls > 100 && report.tokens >= 10, "{report:?}");
            assert_eq!(report.errors, [""; 0]);
        }
        for process in &mut processes {
            // A moment is enough for it to end.
            shows("the token is alive", |_| host.is_valid(&process.ask("ask")).then_some(()));
        }
        assert!(each_was_used_once(&host) >= 15);
    });
}

#[test]
fn a_program_that_is_started_again_and_again_never_uses_a_refresh_token_twice() {
    play(|stage| {
        let host = FakeVendor::oauth2().lifetime(SECOND);
        let share = stage.of(Kind::RefreshToken, &host);
        for batch in 0..8 {
            thread::scope(|scope| {
                for _ in 0..if batch == 7 { 2 } else { 4 } {
                    scope.spawn(|| {
                        let mut process = stage.sharing(1, &share).remove(0);
                        let token = process.ask("ask");
                        assert!(token.starts_with("token-"), "{token}");
                        process.end();
                    });
                }
            });
            until("the tokens are over", || host.granted().iter().all(|token| !host.is_valid(token)));
        }
        assert!(each_was_used_once(&host) >= 8);
    });
}

#[test]
fn processes_that_are_killed_cost_the_others_nothing() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let share = stage.of(Kind::RefreshToken, &host);
        let renewing = || {
            let mut process = stage.sharing(1, &share).remove(0);
            process.tell("renew");
            process
        };
        let mut processes: Vec<_> = (0..4).map(|_| renewing()).collect();
        assert!(host.wait_for_calls(4, PATIENCE));
        let mut killed = 0;
        while killed < 18 {
            // A random moment.
            thread::sleep(Duration::from_micros(fastrand::u64(..30_000)));
            let victim = fastrand::usize(..processes.len());
            processes[victim].stop();
            // The one that has the lease may have been answered and not have stored it: that is another test's.
            if stage.lease_holder().is_some_and(|holder| holder.ends_with(&format!("-{}", processes[victim].pid()))) {
                processes[victim].go_on();
                continue;
            }
            processes[victim].kill();
            processes[victim] = renewing();
            killed += 1;
        }
        for _ in 0..2 {
            let mut holder = stage.sharing(1, &share).remove(0);
            assert_eq!(holder.ask("stop-before-asking"), "ok");
            holder.tell("renew");
            holder.wait_until_stopped();
            let calls = host.calls();
            holder.kill();
            assert!(host.wait_for_calls(calls + 2, PATIENCE), "somebody goes on when the lease is over");
        }
        for report in each(&mut processes, "enough") {
            let report: Report = serde_json::from_str(&report).unwrap();
            assert_eq!(report.errors, [""; 0]);
            assert!(report.calls > 0);
        }
        let used = each_was_used_once(&host);
        assert!(used > 18, "killed while they were renewing");
        assert_eq!(stage.stored(), latest(&host));
    });
}

#[test]
fn a_process_that_is_killed_with_the_next_refresh_token_in_hand_costs_one_sign_in_and_no_loop() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let mut processes = stage.sharing(4, &stage.of(Kind::RefreshToken, &host));
        let mut holder = processes.remove(0);
        holder.stop_with_the_next_token("ask");
        holder.kill();
        for answer in each(&mut processes, "ask") {
            assert!(answer.starts_with("SignInRequired: ") && answer.contains("sign in again"), "{answer}");
        }
        for _ in 0..20 {
            let answers = each(&mut processes, "ask");
            assert!(answers.iter().all(|answer| answer.starts_with("SignInRequired: ")), "{answers:?}");
        }
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-1"]);
        assert_eq!(host.calls(), 2);
    });
}

#[test]
fn a_process_that_was_stopped_with_a_refresh_token_in_hand_replaces_no_newer_one() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let mut processes = stage.sharing(2, &stage.of(Kind::RefreshToken, &host));
        assert_eq!(processes[0].ask("ask"), "token-1");
        assert_eq!(stage.stored(), "refresh-2");
        let (mut other, mut holder) = (processes.remove(1), processes.remove(0));
        holder.stop_with_the_next_token("renew-once");
        assert_eq!(stage.stored(), "refresh-2");
        // Some vendors take one again for a while, for the sake of those who have not received the answer.
        let host = host.another_refresh_token("client", "refresh-2");
        assert_eq!(other.ask("fetch"), "token-3", "when the lease is over");
        assert_eq!(stage.stored(), "refresh-4");
        holder.go_on();
        let went_on = Instant::now();
        let late = holder.hear();
        assert!(["token-2", "token-3"].contains(&&*late) || is_typed(&late), "{late}");
        assert!(went_on.elapsed() < SOON);
        assert_eq!(stage.stored(), "refresh-4");
        assert_eq!(holder.ask("fetch"), "token-4");
        assert_eq!(other.ask("fetch"), "token-5");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-2", "refresh-4", "refresh-5"]);
        assert_eq!(stage.stored(), "refresh-6");
    });
}

// The lease does not keep a write from being carried out late: it is stored whatever is there, and what is there is newer.
#[test]
fn a_process_that_was_stopped_when_it_was_about_to_store_a_refresh_token_replaces_no_newer_one() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let mut processes = stage.sharing(2, &stage.of(Kind::RefreshToken, &host));
        assert_eq!(processes[0].ask("ask"), "token-1");
        let (mut other, mut holder) = (processes.remove(1), processes.remove(0));
        assert_eq!(holder.ask("stop-before-storing"), "ok");
        holder.tell("renew-once");
        holder.wait_until_stopped();
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2"]);
        // As above: a vendor that takes one again for a while.
        let host = host.another_refresh_token("client", "refresh-2");
        assert_eq!(other.ask("fetch"), "token-3", "when the lease is over");
        assert_eq!(stage.stored(), "refresh-4");
        holder.go_on();
        let late = holder.hear();
        assert!(["token-2", "token-3"].contains(&&*late) || is_typed(&late), "{late}");
        assert_eq!(other.ask("fetch"), "token-4");
        until("the store is good for it again", || holder.ask("fetch") == "token-5");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-2", "refresh-4", "refresh-5"]);
        assert_eq!(stage.stored(), "refresh-6");
    });
}

#[test]
fn what_a_process_has_that_was_stopped_for_too_long_is_stored_when_nothing_newer_is() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let mut processes = stage.sharing(2, &stage.of(Kind::RefreshToken, &host));
        let (mut other, mut holder) = (processes.remove(1), processes.remove(0));
        holder.stop_with_the_next_token("ask");
        let answer = other.ask("ask");
        assert!(answer.starts_with("SignInRequired: "), "{answer}");
        holder.go_on();
        let (went_on, late) = (Instant::now(), holder.hear());
        assert!(late == "token-1" || is_typed(&late), "{late}");
        until("it is stored", || stage.stored() == "refresh-2");
        assert!(went_on.elapsed() < SOON);
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-1"]);
        assert_eq!(host.calls(), 2);
    });
}

#[test]
fn a_refresh_token_that_came_when_redis_had_crashed_is_stored_in_the_empty_one_that_follows() {
    play(|stage| {
        stage.outlives(|server, _| server.kill(), |server, _| server.restart());
    });
}

#[test]
fn a_refresh_token_that_came_when_redis_was_out_of_reach_is_stored_when_it_is_back() {
    play(|stage| {
        stage.outlives(|_, way| way.set(Fault::Refuse), |_, way| way.set(Fault::None));
    });
}

#[test]
fn a_redis_that_was_flushed_gets_the_latest_refresh_token_from_the_process_that_has_it() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let share = stage.of(Kind::RefreshToken, &host);
        let mut one = stage.sharing(1, &share).remove(0);
        assert_eq!(one.ask("ask"), "token-1");
        stage.server.ask::<()>(&["FLUSHALL"]).unwrap();
        assert_eq!(one.ask("renew-once"), "token-2");
        assert_eq!(stage.stored(), "refresh-3");
        let mut other = stage.sharing(1, &share).remove(0);
        assert_eq!(other.ask("fetch"), "token-3");
        assert_eq!(each_was_used_once(&host), 3);
        // Nobody has it any more but the one that starts now, which has the first.
        one.end();
        other.end();
        stage.server.ask::<()>(&["FLUSHALL"]).unwrap();
        let answer = stage.sharing(1, &share).remove(0).ask("ask");
        assert!(answer.starts_with("SignInRequired: ") && answer.contains("sign in again"), "{answer}");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3", "refresh-1"]);
        assert_eq!(host.calls(), 4);
    });
}

// Their records have a lease each, and nobody has one for what they share.
#[test]
fn processes_that_ask_for_different_scopes_of_one_sign_in_never_use_its_refresh_token_twice() {
    play(|stage| {
        // Long enough for all to ask meanwhile.
        let host = FakeVendor::oauth2().delay(Duration::from_millis(300));
        let shares = ["one", "other"].map(|scope| stage.of(Kind::Scope(scope.to_owned()), &host));
        let mut processes = shares.map(|share| stage.sharing(1, &share).remove(0));
        for answer in each(&mut processes, "ask") {
            assert!(answer.starts_with("token-"), "{answer}");
        }
        assert_eq!(each_was_used_once(&host), 2);
        assert_eq!(stage.stored(), "refresh-3");
    });
}

// Nothing compares the refresh token in memory with the one in the store, which counts.
#[test]
fn a_redis_that_came_back_with_an_older_refresh_token_gets_the_latest_from_the_process_that_has_it() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let share = stage.of(Kind::RefreshToken, &host);
        let mut one = stage.sharing(1, &share).remove(0);
        assert_eq!(one.ask("ask"), "token-1");
        // What it has on its disk, and what a crash leaves of it.
        stage.server.ask::<()>(&["SAVE"]).unwrap();
        assert_eq!(one.ask("renew-once"), "token-2");
        assert_eq!(stage.stored(), "refresh-3");
        stage.server.restart();
        assert_eq!(stage.stored(), "refresh-2");
        let mut answer = String::new();
        until("the store is good for it again", || {
            answer = one.ask("renew-once");
            !answer.starts_with("Store: ")
        });
        assert_eq!(answer, "token-3");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3"]);
        assert_eq!(stage.stored(), "refresh-4");
    });
}

#[test]
fn while_redis_takes_no_writes_no_refresh_token_is_used() {
    play(|stage| {
        let ways: [[&[&str]; 2]; 2] = [
            [&["CONFIG", "SET", "min-replicas-to-write", "1"], &["CONFIG", "SET", "min-replicas-to-write", "0"]],
            // A port on which nobody listens.
            [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]],
        ];
        for [refuse, accept] in ways {
            stage.server.ask::<()>(&["FLUSHALL"]).unwrap();
            let host = FakeVendor::oauth2();
            let share = stage.of(Kind::RefreshToken, &host);
            let mut one = stage.sharing(1, &share).remove(0);
            stage.server.ask::<()>(refuse).unwrap();
            for what in ["ask", "renew-once", "ask"] {
                let answer = one.ask(what);
                assert!(answer.starts_with("Store: "), "{answer}");
            }
            assert_eq!(host.calls(), 0, "{refuse:?}");
            stage.server.ask::<()>(accept).unwrap();
            until("it heals", || one.ask("ask") == "token-1");
            stage.server.ask::<()>(refuse).unwrap();
            let mut other = stage.sharing(1, &share).remove(0);
            assert_eq!((one.ask("ask"), other.ask("ask")), ("token-1".to_owned(), "token-1".to_owned()));
            for process in [&mut one, &mut other] {
                let answer = process.ask("renew-once");
                assert!(answer.starts_with("Store: "), "{answer}");
            }
            assert_eq!(host.calls(), 1, "{refuse:?}");
            stage.server.ask::<()>(accept).unwrap();
            for process in [&mut one, &mut other] {
                until("it heals", || process.ask("renew-once").starts_with("token-"));
            }
            assert_eq!(stage.stored(), latest(&host));
            assert!(each_was_used_once(&host) >= 2);
        }
    });
}

#[test]
fn a_ticket_that_one_process_is_handed_serves_all_and_the_latest_counts() {
    play(|stage| {
        let host = FakeVendor::wecom();
        let mut processes = stage.sharing(3, &stage.of(Kind::WeComSuite, &host));
        // The first is handed in by one and used by another, and so on round the circle.
        for number in 1..=3 {
            let ticket = host.push_ticket();
            assert_eq!(processes[number % 3].ask(&format!("ticket {ticket}")), "ok");
            assert_eq!(stage.stored(), ticket);
            let left: i64 = stage.server.ask(&["PTTL", &stage.state_key()]).unwrap();
            // As long as the vendor's tickets live.
            let (least, most) = (HALF_AN_HOUR - SOON, HALF_AN_HOUR);
            assert!((least.as_millis()..=most.as_millis()).contains(&u128::try_from(left).unwrap()), "{left}");
            assert_eq!(processes[(number + 1) % 3].ask("fetch"), "token-1");
            assert_eq!(presented(&host, "suite_ticket").last(), Some(&ticket));
        }
        assert_eq!(each(&mut processes, "ask"), ["token-1"; 3]);
        assert_eq!(presented(&host, "suite_ticket"), ["ticket-1", "ticket-2", "ticket-3"]);
    });
}

#[test]
fn a_ticket_serves_the_suite_and_all_corps_that_have_installed_it() {
    play(|stage| {
        let host = FakeVendor::dingtalk().another_tenant("other-corp");
        let kinds = [Kind::DingTalkSuite, Kind::DingTalkCorp("corp".into()), Kind::DingTalkCorp("other-corp".into())];
        let mut processes: Vec<_> =
            kinds.into_iter().map(|kind| stage.sharing(1, &stage.of(kind, &host)).remove(0)).collect();
        let ticket = host.push_ticket();
        assert_eq!(processes[0].ask(&format!("ticket {ticket}")), "ok");
        assert_eq!(each(&mut processes, "ask").len(), 3);
        assert_eq!(presented(&host, "suiteTicket"), ["ticket-1"; 3]);
        // Ends the one before.
        let ticket = host.push_ticket();
        assert_eq!(processes[2].ask(&format!("ticket {ticket}")), "ok");
        for process in &mut processes {
            let answer = process.ask("renew-once");
            assert!(host.is_valid(&answer), "{answer}");
        }
        assert_eq!(presented(&host, "suiteTicket")[3..], ["ticket-2"; 3]);
        assert_eq!(stage.stored(), "ticket-2");
    });
}

#[test]
fn a_ticket_that_came_while_redis_was_out_of_reach_serves_the_others_when_it_is_back() {
    play(|stage| {
        let host = FakeVendor::wecom();
        let way = Proxy::to(stage.server.addr());
        let share = stage.of(Kind::WeComSuite, &host);
        let mut one = stage.sharing(1, &Share { redis: way.url(), ..share.clone() }).remove(0);
        let mut other = stage.sharing(1, &share).remove(0);
        way.set(Fault::Refuse);
        let ticket = host.push_ticket();
        let answer = one.ask(&format!("ticket {ticket}"));
        assert!(answer.starts_with("Store: "), "{answer}");
        assert_eq!(one.ask("ask"), "token-1", "it has the ticket");
        assert_eq!(stage.keys("*:state"), [""; 0]);
        way.set(Fault::None);
        let back = Instant::now();
        until("it is stored", || stage.keys("*:state").len() == 1);
        assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
        assert_eq!(stage.stored(), ticket);
        assert_eq!(other.ask("fetch"), "token-1");
        assert_eq!(presented(&host, "suite_ticket"), ["ticket-1"; 2]);
    });
}

#[test]
fn of_many_forced_refreshes_in_many_processes_one_is_forced_within_half_a_minute() {
    play(|stage| {
        let host = FakeVendor::wechat();
        let share = stage.of(Kind::WeChat, &host);
        let began = Instant::now();
        for _ in 0..3 {
            // New ones each time: none of them remembers having forced anything.
            stage.renew_at_once(&share, &host);
        }
        assert!(began.elapsed() < Duration::from_secs(30), "too slow to show anything");
        assert_eq!(forced(&host), 1);
        assert!(host.calls() > 3);
        let counted = stage.value(&stage.keys("*:quota")[0]);
        assert_eq!((counted["forced"].as_u64(), counted["calls"].as_u64()), (Some(1), Some(host.calls() as u64)));
    });
}

#[test]
fn what_all_processes_together_have_forced_is_twenty_a_day_at_most() {
    play(|stage| {
        let host = FakeVendor::wechat();
        let share = stage.of(Kind::WeChat, &host);
        stage.renew_at_once(&share, &host);
        assert_eq!(forced(&host), 1);
        let key = &stage.keys("*:quota")[0];
        // As if the day had gone on for an hour, and the last one was forced at its beginning.
        let rewrite = |times: u64| {
            let mut counted = stage.value(key);
            counted["forced"] = times.into();
            counted["forced_ms"] = 0.into();
            stage.server.ask::<()>(&["SET", key, &counted.to_string(), "PX", "82800000"]).unwrap();
        };
        rewrite(19);
        stage.renew_at_once(&share, &host);
        assert_eq!((forced(&host), stage.value(key)["forced"].as_u64()), (2, Some(20)));
        rewrite(20);
        let calls = host.calls();
        stage.renew_at_once(&share, &host);
        assert_eq!((forced(&host), stage.value(key)["forced"].as_u64()), (2, Some(20)));
        assert!(host.calls() > calls, "it is asked all the same");
    });
}

#[test]
fn what_belongs_together_is_in_one_slot_and_only_records_have_news() {
    let server = RedisServer::start();
    let (host, wechat, dingtalk) = (FakeVendor::oauth2(), FakeVendor::wechat(), FakeVendor::dingtalk());
    let store = RedisStore::open(&server.url()).unwrap();
    let manage = |provider: Box<dyn Provider>| TokenManager::builder(provider).store(store.clone()).build().unwrap();
    let client = || OAuth2::new(host.token_url(), "client", "secret");
    let refreshing = |client| manage(Box::new(RefreshToken::new(client, "refresh-1")));
    let (one, other) = (refreshing(client().scope("one")), refreshing(client().scope("other")));
    let stable = manage(provider_of(&Kind::WeChat, &wechat.url()));
    let corp = manage(provider_of(&Kind::DingTalkCorp("corp".to_owned()), &dingtalk.url()));
    corp.set_ticket(dingtalk.push_ticket()).unwrap();
    for tokens in [&one, &other, &stable, &corp] {
        text(tokens);
    }
    assert_eq!(each_was_used_once(&host), 2, "two scopes, one sign-in");
    let keys: BTreeSet<String> = server.ask(&["KEYS", "*"]).unwrap();
    let names: BTreeSet<_> = [&one, &other, &stable, &corp].iter().map(|tokens| tokens.key().as_str()).collect();
    let tags: BTreeSet<_> = names.iter().map(|key| tag(key)).collect();
    assert_eq!(tags.len(), 4);
    for key in &names {
        assert!(keys.contains(*key) && keys.contains(&format!("{key}:news")), "{keys:?}");
    }
    let ending = |end: &str| keys.iter().filter(|key| key.ends_with(end)).cloned().collect::<Vec<_>>();
    assert_eq!(ending(":quota"), [format!("{}:quota", stable.key())]);
    // One for the sign-in and one for the suite, neither of which is a token's.
    let states = ending(":state");
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(states.iter().all(|key| !tags.contains(tag(key))));
    assert_eq!(ending(":news").len(), 4, "{keys:?}");
    assert_eq!(keys.len(), 4 + 4 + 1 + 2, "{keys:?}");
}

#[cfg(feature = "redis-cluster")]
#[test]
fn in_a_cluster_refresh_tokens_and_tickets_are_kept_wherever_their_slots_are() {
    use evertoken::RedisConfig;
    let cluster = crate::common::cluster::RedisCluster::start();
    let stores = [(); 2].map(|()| RedisStore::new(RedisConfig::cluster(&cluster.nodes()[..2]).unwrap()).unwrap());
    // Enough for the state to be on another node than the record.
    for _ in 0..4 {
        let (host, dingtalk) = (FakeVendor::oauth2(), FakeVendor::dingtalk());
        let manage = |kind: Kind, url: String| {
            stores.clone().map(|store| TokenManager::builder(provider_of(&kind, &url)).store(store).build().unwrap())
        };
        let [one, other] = manage(Kind::RefreshToken, host.url());
        assert_eq!((text(&one).as_str(), text(&other).as_str()), ("token-1", "token-1"));
        assert_eq!((fetched(&other).as_str(), fetched(&one).as_str()), ("token-2", "token-3"));
        assert_eq!(each_was_used_once(&host), 3);
        let [one, other] = manage(Kind::DingTalkCorp("corp".to_owned()), dingtalk.url());
        one.set_ticket(dingtalk.push_ticket()).unwrap();
        assert!(dingtalk.is_valid(&text(&other)));
        assert_eq!(text(&one), text(&other));
        other.set_ticket(dingtalk.push_ticket()).unwrap();
        assert!(dingtalk.is_valid(&fetched(&one)));
        assert_eq!(presented(&dingtalk, "suiteTicket"), ["ticket-1", "ticket-2"]);
    }
}

#[test]
fn redis_is_told_refresh_tokens_and_tickets_as_values_of_their_own_keys_only() {
    let server = RedisServer::start();
    let witness = Witness::of(&server);
    let host = FakeVendor::oauth2().credential("client", "hunter2").another_refresh_token("client", "sign-in-1");
    let wecom = FakeVendor::wecom();
    let store = RedisStore::open(&server.url()).unwrap();
    let provider = RefreshToken::new(OAuth2::new(host.token_url(), "client", "hunter2"), "sign-in-1");
    let one = TokenManager::builder(provider).store(store.clone()).build().unwrap();
    let other = TokenManager::builder(provider_of(&Kind::WeComSuite, &wecom.url())).store(store).build().unwrap();
    text(&one);
    one.force_refresh().unwrap();
    one.invalidate().unwrap();
    text(&one);
    other.set_ticket(wecom.push_ticket()).unwrap();
    text(&other);
    server.ask::<()>(&["FLUSHALL"]).unwrap();
    one.force_refresh().unwrap();
    let commands = witness.commands(&server);
    let mut seen = BTreeSet::new();
    for Told { by_script, words } in &commands {
        // Where the keys end and the values begin.
        let (key, values) = match words[0].as_str() {
            "EVAL" | "EVALSHA" => (&words[3], 3 + words[2].parse::<usize>().unwrap()),
            "SET" if *by_script => (&words[1], 2),
            _ => (&words[0], words.len()),
        };
        for (place, word) in words.iter().enumerate() {
            // What is stored, as JSON; scripts have no such names.
            for secret in
                ["refresh-", "ticket-1", "sign-in-1", "hunter2", "token-"].iter().filter(|it| word.contains(**it))
            {
                let is_state = key.ends_with(":state");
                let is_right = if *secret == "token-" { key.ends_with('}') } else { is_state };
                assert!(place >= values && is_right, "{secret} in word {place} of {words:?}");
                seen.insert(*secret);
            }
        }
    }
    // What was there from the beginning is never told.
    assert_eq!(seen, BTreeSet::from(["refresh-", "ticket-1", "token-"]));
}

/// Runs a test that starts processes of its own. In one of those, does what the test says.
fn play(test: impl FnOnce(&Stage)) {
    let name = test_of(&test);
    match crate::common::process::port() {
        Some(port) => act(&port),
        None => test(&Stage { name, server: RedisServer::start() }),
    }
}

/// What the processes of a test share.
struct Stage {
    name: &'static str,
    server: RedisServer,
}

impl Stage {
    fn of(&self, kind: Kind, host: &FakeVendor) -> Share {
        Share { redis: self.server.url(), kind, url: host.url() }
    }

    /// So many processes, each of them a manager of this.
    fn sharing(&self, count: usize, share: &Share) -> Vec<Process> {
        let mut processes: Vec<_> = (0..count).map(|_| Process::start(self.name)).collect();
        let share = format!("share {}", serde_json::to_string(share).unwrap());
        assert!(each(&mut processes, &share).iter().all(|answer| answer == "ok"));
        processes
    }

    fn keys(&self, pattern: &str) -> Vec<String> {
        self.server.ask(&["KEYS", pattern]).unwrap()
    }

    /// The key of the only state.
    fn state_key(&self) -> String {
        let keys = self.keys("*:state");
        assert_eq!(keys.len(), 1, "{keys:?}");
        keys[0].clone()
    }

    fn value(&self, key: &str) -> serde_json::Value {
        serde_json::from_str(&self.server.ask::<String>(&["GET", key]).unwrap()).unwrap()
    }

    /// The only state.
    fn stored(&self) -> String {
        match &self.keys("*:state")[..] {
            [] => String::new(),
            _ => self.value(&self.state_key())["state"].as_str().unwrap().to_owned(),
        }
    }

    /// Who has the lease of the only record. A name that ends with the id of its process.
    fn lease_holder(&self) -> Option<String> {
        let leases = self.keys("*:lock");
        // It may be freed meanwhile.
        leases.first().and_then(|lease| self.server.ask(&["GET", lease]).unwrap())
    }

    /// Several new processes force a refresh at the same moment. What each gets is alive.
    fn renew_at_once(&self, share: &Share, host: &FakeVendor) {
        let mut processes = self.sharing(4, share);
        each(&mut processes, "ask");
        let answers = each(&mut processes, "renew-once");
        assert!(answers.iter().all(|answer| host.is_valid(answer)), "{answers:?}");
    }

    /// What a process gets while the store is gone is stored when it is back.
    fn outlives(&self, go: impl Fn(&RedisServer, &Proxy), come: impl Fn(&RedisServer, &Proxy)) {
        let host = FakeVendor::oauth2();
        let way = Proxy::to(self.server.addr());
        let share = Share { redis: way.url(), ..self.of(Kind::RefreshToken, &host) };
        let mut one = self.sharing(1, &share).remove(0);
        assert_eq!(one.ask("ask"), "token-1");
        one.stop_with_the_next_token("renew-once");
        assert_eq!(self.stored(), "refresh-2");
        go(&self.server, &way);
        one.go_on();
        assert_eq!(one.hear(), "token-2", "it is handed out all the same");
        assert_eq!(one.ask("unsaved"), "ok");
        for _ in 0..3 {
            let answer = one.ask("renew-once");
            assert!(answer.starts_with("Store: "), "{answer}");
            assert_eq!(one.ask("ask"), "token-2");
        }
        assert_eq!(host.calls(), 2, "nothing is fetched that could not be stored");
        come(&self.server, &way);
        let back = Instant::now();
        until("it is stored", || self.stored() == "refresh-3");
        assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
        let mut other = self.sharing(1, &share).remove(0);
        assert_eq!(other.ask("fetch"), "token-3");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3"]);
    }
}

impl Process {
    /// Has it stop when it has been told this and the provider has answered.
    fn stop_with_the_next_token(&mut self, what: &str) {
        assert_eq!(self.ask("stop-with-the-next-token"), "ok");
        self.tell(what);
        self.wait_until_stopped();
    }
}

/// A token that was not there before, in whatever process.
#[cfg(feature = "redis-cluster")]
fn fetched(tokens: &TokenManager) -> String {
    tokens.invalidate().unwrap();
    text(tokens)
}

/// Checks that no refresh token was used twice. Returns how many were used.
fn each_was_used_once(host: &FakeVendor) -> usize {
    let used = host.used_refresh_tokens();
    let once: BTreeSet<_> = used.iter().collect();
    assert_eq!(once.len(), used.len(), "{used:?}");
    used.len()
}

/// The refresh token that is good now, when none was refused.
fn latest(host: &FakeVendor) -> String {
    format!("refresh-{}", host.used_refresh_tokens().len() + 1)
}

/// What was presented under this name, oldest first.
fn presented(host: &FakeVendor, name: &str) -> Vec<String> {
    host.requests().iter().filter_map(|request| request.json(name)).collect()
}

/// How many requests were to force a refresh.
fn forced(host: &FakeVendor) -> usize {
    let wanted = |body: &[u8]| String::from_utf8_lossy(body).contains(r#""force_refresh":true"#);
    host.requests().iter().filter(|request| wanted(request.body())).count()
}

fn tag(key: &str) -> &str {
    key.split(['{', '}']).nth(1).unwrap()
}

/// Whether an answer is an error that a caller can do something about.
fn is_typed(answer: &str) -> bool {
    ["SignInRequired: ", "InvalidCredentials: ", "Store: ", "TimedOut: "].iter().any(|kind| answer.starts_with(kind))
}

/// Whose manager a process is.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Share {
    redis: String,
    kind: Kind,
    url: String,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
enum Kind {
    RefreshToken,
    /// A refresh token, for tokens of this scope.
    Scope(String),
    WeComSuite,
    DingTalkSuite,
    DingTalkCorp(String),
    WeChat,
}

fn provider_of(kind: &Kind, url: &str) -> Box<dyn Provider> {
    let client = || OAuth2::new(format!("{url}/token"), "client", "secret");
    match kind {
        Kind::RefreshToken => Box::new(RefreshToken::new(client(), "refresh-1")),
        Kind::Scope(scope) => Box::new(RefreshToken::new(client().scope(scope), "refresh-1")),
        Kind::WeComSuite => Box::new(WeComSuite::new("suite", "suite-secret").base_url(url)),
        Kind::DingTalkSuite => Box::new(DingTalkSuite::new("suite", "suite-secret").base_url(url)),
        Kind::DingTalkCorp(corp) => Box::new(DingTalkAuthorizedCorp::new("suite", "suite-secret", corp).base_url(url)),
        Kind::WeChat => Box::new(WeChat::new("app", "secret").base_url(url)),
    }
}

/// What a process has seen that asked for tokens for a while.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Report {
    calls: usize,
    /// How many different ones there were.
    tokens: usize,
    errors: Vec<String>,
}

/// What a process does: as it is told, line by line, as long as somebody tells it.
fn act(port: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let stops = Arc::new(AtomicU8::new(NEVER));
    let mut shared = None;
    while let Some(Ok(line)) = lines.next() {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if verb == "share" {
            let share: Share = serde_json::from_str(rest).unwrap();
            let inner = provider_of(&share.kind, &share.url);
            let tokens = TokenManager::builder(Stopping { inner, stops: stops.clone() })
                .store(StoppingStore { inner: RedisStore::open(&share.redis).unwrap(), stops: stops.clone() })
                .http(HttpConfig::default().timeout(FETCH))
                .store_check_interval(Duration::from_millis(200))
                .build()
                .unwrap();
            let events = tokens.events();
            shared = Some((tokens, events));
        }
        let (tokens, events) = shared.as_ref().expect("it shares");
        let said = |answer: Result<Token, Error>| match answer {
            Ok(token) => token.expose().to_owned(),
            Err(error) => format!("{:?}: {error}", error.kind()),
        };
        let answer = match verb {
            "share" => "ok".to_owned(),
            "stop-before-asking" => {
                stops.store(BEFORE, Ordering::SeqCst);
                "ok".to_owned()
            }
            "stop-before-storing" => {
                stops.store(STORING, Ordering::SeqCst);
                "ok".to_owned()
            }
            "stop-with-the-next-token" => {
                stops.store(AFTER, Ordering::SeqCst);
                "ok".to_owned()
            }
            "ask" => said(tokens.token()),
            "renew-once" => said(tokens.force_refresh()),
            "fetch" => {
                // Without the store only this process forgets it.
                drop(tokens.invalidate());
                said(tokens.token())
            }
            "use" => repeat(|| tokens.token(), || lines.next()),
            "renew" => repeat(|| tokens.force_refresh(), || lines.next()),
            "ticket" => tokens.set_ticket(rest).map_or_else(|error| said(Err(error)), |()| "ok".to_owned()),
            "unsaved" => {
                wait_for(events, |kind| matches!(kind, EventKind::RenewalSecretNotStored { .. }).then_some(()));
                "ok".to_owned()
            }
            _ => panic!("{verb}?"),
        };
        writeln!(stream, "{answer}").unwrap();
    }
}

/// Asks again and again until `wait` returns. What came of it, as a line.
fn repeat<T>(ask: impl Fn() -> Result<Token, Error> + Sync, wait: impl FnOnce() -> T) -> String {
    let (over, mut report, mut tokens) = (AtomicBool::new(false), Report::default(), BTreeSet::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                report.calls += 1;
                match ask() {
                    Ok(token) => drop(tokens.insert(token.expose().to_owned())),
                    Err(error) => report.errors.push(error.to_string()),
                }
                // A load, not a race: the test is about the renewals.
                thread::sleep(Duration::from_millis(5));
            }
        });
        wait();
        over.store(true, Ordering::SeqCst);
    });
    report.tokens = tokens.len();
    serde_json::to_string(&report).unwrap()
}

/// A provider that stops its own process before it asks, or when it has the answer in hand, if it is told to.
struct Stopping {
    inner: Box<dyn Provider>,
    stops: Arc<AtomicU8>,
}

/// A store that stops its own process when a state is to be stored, if it is told to.
#[derive(Debug)]
struct StoppingStore {
    inner: RedisStore,
    stops: Arc<AtomicU8>,
}

const NEVER: u8 = 0;
const BEFORE: u8 = 1;
const AFTER: u8 = 2;
const STORING: u8 = 3;

fn stop_if_told(stops: &AtomicU8, when: u8) {
    if stops.compare_exchange(when, NEVER, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        // SAFETY: stops this process, which the test lets go on.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
}

impl Provider for Stopping {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn fetch(&self, context: &Context) -> Result<Grant, Error> {
        stop_if_told(&self.stops, BEFORE);
        let grant = self.inner.fetch(context)?;
        stop_if_told(&self.stops, AFTER);
        Ok(grant)
    }

    fn check(&self) -> Result<(), Error> {
        self.inner.check()
    }

    fn profile(&self) -> Profile {
        self.inner.profile()
    }

    fn parent(&self) -> Option<&dyn TokenSource> {
        self.inner.parent()
    }

    fn renewal(&self) -> Option<RenewalProfile> {
        self.inner.renewal()
    }

    fn placement(&self) -> TokenPlacement {
        self.inner.placement()
    }

    fn verdict(&self, answer: &ServiceResponse<'_>) -> Verdict {
        self.inner.verdict(answer)
    }
}

impl Store for StoppingStore {
    fn read(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.inner.read(key)
    }

    fn compare_and_swap(
        &self,
        key: &Key,
        expected: Expected<'_>,
        new: Option<(&[u8], Duration)>,
    ) -> Result<SwapOutcome, Error> {
        if key.as_str().ends_with(":state") {
            stop_if_told(&self.stops, STORING);
        }
        self.inner.compare_and_swap(key, expected, new)
    }

    fn read_or_lease(
        &self,
        key: &Key,
        not: Option<&Version>,
        at_least: Duration,
        owner: &LeaseOwner,
        lease: Duration,
    ) -> Result<LeaseOutcome, Error> {
        self.inner.read_or_lease(key, not, at_least, owner, lease)
    }

    fn publish(
        &self,
        key: &Key,
        owner: &LeaseOwner,
        seen: Option<&Version>,
        bytes: &[u8],
        life: Duration,
    ) -> Result<PublishOutcome, Error> {
        self.inner.publish(key, owner, seen, bytes, life)
    }

    fn wait(&self, key: &Key, cursor: &Cursor, deadline: Instant) -> Result<(), Error> {
        self.inner.wait(key, cursor, deadline)
    }

    fn watch(&self, key: &Key, notifier: Notifier) -> Option<Subscription> {
        self.inner.watch(key, notifier)
    }

    fn logs_outages(&self) -> bool {
        self.inner.logs_outages()
    }
}

/// Reads all that a server is told, word by word.
struct Witness(BufReader<TcpStream>);

/// A command, and whether a script gave it.
struct Told {
    by_script: bool,
    words: Vec<String>,
}

impl Witness {
    fn of(server: &RedisServer) -> Witness {
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        assert_eq!(first, "+OK\r\n");
        Witness(reader)
    }

    /// All that it was told until now.
    fn commands(mut self, server: &RedisServer) -> Vec<Told> {
        server.ask::<String>(&["ECHO", "the end"]).unwrap();
        let mut commands = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0);
            let by_script = line.split(['[', ']']).nth(1).unwrap().ends_with(" lua");
            let words = words_of(&line);
            if words == ["ECHO", "the end"] {
                return commands;
            }
            commands.push(Told { by_script, words });
        }
    }
}

/// The words of a line such as `+1700000000.000000 [0 127.0.0.1:50000] "GET" "a \"key\""`.
fn words_of(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_inside) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_inside => {
                words.push(std::mem::take(&mut word));
                is_inside = false;
            }
            '"' => is_inside = true,
            '\\' if is_inside => word.extend(letters.next()),
            _ if is_inside => word.push(letter),
            _ => {}
        }
    }
    words
}

/// How long one fetch may take. A lease is as long, and two seconds.
const FETCH: Duration = Duration::from_secs(1);

const HALF_AN_HOUR: Duration = Duration::from_secs(1800);
