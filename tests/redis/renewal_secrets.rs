//! Renewal secrets in a real Redis, shared by real processes: refresh tokens for one use, tickets that are pushed to
//! one process and needed by all, and quotas.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::Provider;
use evertoken::testing::FakeVendor;
use evertoken::{OAuth2, RedisStore, RefreshToken, TokenManager};

use crate::common::process::each;
use crate::common::proxy::{Fault, Proxy};
use crate::common::redis_server::{RedisServer, until};
use crate::common::wait::*;
use crate::renewal_secret_processes::*;

#[test]
fn eight_processes_never_use_a_refresh_token_twice_while_tokens_expire_all_the_time() {
    play(|stage| {
        let host = FakeVendor::oauth2().lifetime(SECOND);
        let mut processes = stage.sharing(8, &stage.of(Kind::RefreshToken, &host));
        processes.iter_mut().for_each(|process| process.send_line("use"));
        assert!(host.wait_for_calls(15, PATIENCE));
        let reports = each(&mut processes, "enough");
        for report in &reports {
            let report: Report = serde_json::from_str(report).unwrap();
            assert!(report.calls > 100 && report.tokens >= 10, "{report:?}");
            assert_eq!(report.errors, [""; 0]);
        }
        for process in &mut processes {
            // The token may expire in this moment.
            shows("the token is valid", |_| host.is_valid(&process.ask("ask")).then_some(()));
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
            until("the tokens have expired", || host.granted().iter().all(|token| !host.is_valid(token)));
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
            process.send_line("renew");
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
            // The lease holder may have received a refresh token without storing it, which another test covers.
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
            holder.send_line("renew");
            holder.wait_until_stopped();
            let calls = host.calls();
            holder.kill();
            assert!(host.wait_for_calls(calls + 2, PATIENCE), "another process fetches when the lease expires");
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
        // Some vendors accept a used refresh token again for a while, in case the reply was lost.
        let host = host.another_refresh_token("client", "refresh-2");
        assert_eq!(other.ask("fetch"), "token-3", "when the lease is over");
        assert_eq!(stage.stored(), "refresh-4");
        holder.go_on();
        let went_on = Instant::now();
        let late = holder.read_line();
        assert!(["token-2", "token-3"].contains(&&*late) || is_typed(&late), "{late}");
        assert!(went_on.elapsed() < SOON);
        assert_eq!(stage.stored(), "refresh-4");
        assert_eq!(holder.ask("fetch"), "token-4");
        assert_eq!(other.ask("fetch"), "token-5");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-2", "refresh-4", "refresh-5"]);
        assert_eq!(stage.stored(), "refresh-6");
    });
}

// The lease does not prevent a late write: the write takes effect whatever is recorded, and the newer record must stay.
#[test]
fn a_process_that_was_stopped_when_it_was_about_to_store_a_refresh_token_replaces_no_newer_one() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let mut processes = stage.sharing(2, &stage.of(Kind::RefreshToken, &host));
        assert_eq!(processes[0].ask("ask"), "token-1");
        let (mut other, mut holder) = (processes.remove(1), processes.remove(0));
        assert_eq!(holder.ask("stop-before-storing"), "ok");
        holder.send_line("renew-once");
        holder.wait_until_stopped();
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2"]);
        // As above: a vendor that accepts a used refresh token for a while.
        let host = host.another_refresh_token("client", "refresh-2");
        assert_eq!(other.ask("fetch"), "token-3", "when the lease is over");
        assert_eq!(stage.stored(), "refresh-4");
        holder.go_on();
        let late = holder.read_line();
        assert!(["token-2", "token-3"].contains(&&*late) || is_typed(&late), "{late}");
        assert_eq!(other.ask("fetch"), "token-4");
        until("the store works again", || holder.ask("fetch") == "token-5");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-2", "refresh-4", "refresh-5"]);
        assert_eq!(stage.stored(), "refresh-6");
    });
}

#[test]
fn the_refresh_token_of_a_stopped_process_is_stored_unless_there_is_a_newer_one() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let mut processes = stage.sharing(2, &stage.of(Kind::RefreshToken, &host));
        let (mut other, mut holder) = (processes.remove(1), processes.remove(0));
        holder.stop_with_the_next_token("ask");
        let answer = other.ask("ask");
        assert!(answer.starts_with("SignInRequired: "), "{answer}");
        holder.go_on();
        let (went_on, late) = (Instant::now(), holder.read_line());
        assert!(late == "token-1" || is_typed(&late), "{late}");
        until("the renewal secret is stored", || stage.stored() == "refresh-2");
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
        // No process has the latest one; the process that starts now has the first.
        one.end();
        other.end();
        stage.server.ask::<()>(&["FLUSHALL"]).unwrap();
        let answer = stage.sharing(1, &share).remove(0).ask("ask");
        assert!(answer.starts_with("SignInRequired: ") && answer.contains("sign in again"), "{answer}");
        assert_eq!(host.used_refresh_tokens(), ["refresh-1", "refresh-2", "refresh-3", "refresh-1"]);
        assert_eq!(host.calls(), 4);
    });
}

// Their records have a lease each, and no lease covers the refresh token that they share.
#[test]
fn processes_that_ask_for_different_scopes_of_one_sign_in_never_use_its_refresh_token_twice() {
    play(|stage| {
        // Long enough for all processes to ask meanwhile.
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

// A restored store has an older refresh token than the memory of the process.
#[test]
fn a_redis_that_came_back_with_an_older_refresh_token_gets_the_latest_from_the_process_that_has_it() {
    play(|stage| {
        let host = FakeVendor::oauth2();
        let share = stage.of(Kind::RefreshToken, &host);
        let mut one = stage.sharing(1, &share).remove(0);
        assert_eq!(one.ask("ask"), "token-1");
        // The state of the disk, to which a crash returns.
        stage.server.ask::<()>(&["SAVE"]).unwrap();
        assert_eq!(one.ask("renew-once"), "token-2");
        assert_eq!(stage.stored(), "refresh-3");
        stage.server.restart();
        assert_eq!(stage.stored(), "refresh-2");
        let mut answer = String::new();
        until("the store works again", || {
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
            // A port without a listener.
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
            until("the cluster is healthy", || one.ask("ask") == "token-1");
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
                until("the cluster is healthy", || process.ask("renew-once").starts_with("token-"));
            }
            assert_eq!(stage.stored(), latest(&host));
            assert!(each_was_used_once(&host) >= 2);
        }
    });
}

#[test]
fn a_ticket_of_one_process_serves_all_and_the_latest_is_used() {
    play(|stage| {
        let host = FakeVendor::wecom();
        let mut processes = stage.sharing(3, &stage.of(Kind::WeComSuite, &host));
        // Each ticket is set in one process and used by another, in turn.
        for number in 1..=3 {
            let ticket = host.push_ticket();
            assert_eq!(processes[number % 3].ask(&format!("ticket {ticket}")), "ok");
            assert_eq!(stage.stored(), ticket);
            let left: i64 = stage.server.ask(&["PTTL", &stage.state_key()]).unwrap();
            // The lifetime of the vendor's tickets.
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
        // Invalidates the ticket before.
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
        until("the renewal secret is stored", || stage.keys("*:state").len() == 1);
        assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
        assert_eq!(stage.stored(), ticket);
        assert_eq!(other.ask("fetch"), "token-1");
        assert_eq!(presented(&host, "suite_ticket"), ["ticket-1"; 2]);
    });
}

#[test]
fn many_processes_force_one_refresh_within_half_a_minute() {
    play(|stage| {
        let host = FakeVendor::wechat();
        let share = stage.of(Kind::WeChat, &host);
        let began = Instant::now();
        for _ in 0..3 {
            // New processes each time, none of which remembers a forced refresh.
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
fn all_processes_together_force_twenty_refreshes_a_day_at_most() {
    play(|stage| {
        let host = FakeVendor::wechat();
        let share = stage.of(Kind::WeChat, &host);
        stage.renew_at_once(&share, &host);
        assert_eq!(forced(&host), 1);
        let key = &stage.keys("*:quota")[0];
        // As if an hour had passed in the day, with the last forced refresh at its beginning.
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
fn the_keys_of_a_credential_share_a_slot_and_only_records_have_a_stream() {
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
    // One for the sign-in and one for the suite, and none for a token.
    let states = ending(":state");
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(states.iter().all(|key| !tags.contains(tag(key))));
    assert_eq!(ending(":news").len(), 4, "{keys:?}");
    assert_eq!(keys.len(), 4 + 4 + 1 + 2, "{keys:?}");
}

#[cfg(feature = "redis-cluster")]
#[test]
fn refresh_tokens_and_tickets_work_in_all_slots_of_a_cluster() {
    use evertoken::RedisConfig;
    let cluster = crate::common::cluster::RedisCluster::start();
    let stores = [(); 2].map(|()| RedisStore::new(RedisConfig::cluster(&cluster.nodes()[..2]).unwrap()).unwrap());
    // Enough records for a renewal secret to be on another node than its record.
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
fn redis_receives_refresh_tokens_and_tickets_as_values_of_their_own_keys_only() {
    let server = RedisServer::start();
    let witness = CommandLog::of(&server);
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
    for ReceivedCommand { by_script, words } in &commands {
        // The index at which the keys end and the values begin.
        let (key, values) = match words[0].as_str() {
            "EVAL" | "EVALSHA" => (&words[3], 3 + words[2].parse::<usize>().unwrap()),
            "SET" if *by_script => (&words[1], 2),
            _ => (&words[0], words.len()),
        };
        for (place, word) in words.iter().enumerate() {
            // Stored renewal secrets, as JSON; scripts contain no such names.
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
    // The initial refresh token is never sent.
    assert_eq!(seen, BTreeSet::from(["refresh-", "ticket-1", "token-"]));
}
