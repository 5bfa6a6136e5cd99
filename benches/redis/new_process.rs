//! A program starts, reads the token that another process has stored in Redis, and exits.

use std::process::Command;

use evertoken::testing::FakeVendor;
use evertoken::{OAuth2, RedisStore, TokenManager};

use crate::common::{Table, median, median_ratio, programs};
use crate::redis_server::{Monitor, RedisServer, field};

pub(crate) fn measure(server: &RedisServer) {
    let built = programs::build("start", DEPENDENCIES, &[("token", TOKEN), ("plain", PLAIN), ("idle", IDLE)]);
    let host = FakeVendor::oauth2();
    let provider = OAuth2::new(host.token_url(), "client", "secret");
    let store = RedisStore::open(&server.url()).unwrap();
    let manager = TokenManager::builder(provider).store(store).build().unwrap();
    manager.token().unwrap();
    let words = [server.url(), host.token_url(), manager.key().as_str().to_owned()];
    let run = |program: &str| programs::run(Command::new(built(program)).args(&words));

    let mut table =
        Table::new(&format!("a new process, token in Redis, from start to exit, {STARTS} interleaved starts"));
    let [token, plain, idle] = programs::interleaved(["token", "plain", "idle"], STARTS, run);
    let show = |times: &[f64]| format!("{:.0} us", median(times.to_vec()));
    let ratio = median_ratio(&token, &plain);
    table.ratio("one token() (baseline: connect and GET, redis crate)", show(&token), show(&plain), ratio, 1.25);
    table.note("fn main() {}", show(&idle));
    table.note("token() / connect and GET, both less fn main() {}", {
        let beyond = |times: &[f64]| median(times.iter().zip(&idle).map(|(time, idle)| time - idle).collect());
        format!("{:.2}", beyond(&token) / beyond(&plain))
    });

    let asked = |program: &str| {
        let connections = || -> u64 {
            let stats: String = server.ask(&["INFO", "stats"]).unwrap();
            field(&stats, "total_connections_received").unwrap().parse().unwrap()
        };
        let before = connections();
        let monitor = Monitor::of(server);
        run(program);
        let commands = monitor.commands().len();
        // Three connections are not the program's: the second `INFO`, the monitor and its mark.
        (connections() - before - 3, commands)
    };
    let (ours, theirs) = (asked("token"), asked("plain"));
    let show = |(connections, commands)| format!("{connections}, {commands}");
    table.figure("connections, commands", show(ours), Some(show(theirs)), "1, 1", ours == (1, 1));
    let fetches = host.calls() - 1;
    table.figure("fetches", fetches, None, "0", fetches == 0);
    table.end();
}

const STARTS: usize = 401;

const DEPENDENCIES: &str = r#"evertoken = { path = ROOT, features = ["redis"] }
redis = { version = "1.8", default-features = false }"#;

const TOKEN: &str = r#"use evertoken::RedisStore;
use evertoken::{Error, OAuth2, TokenManager};

fn main() -> Result<(), Error> {
    let words: Vec<_> = std::env::args().collect();
    let provider = OAuth2::new(&*words[2], "client", "secret");
    let tokens = TokenManager::builder(provider).store(RedisStore::open(&words[1])?).build()?;
    println!("{}", tokens.token()?.expose());
    Ok(())
}
"#;

const PLAIN: &str = r#"use std::time::Duration;

use redis::{Client, IntoConnectionInfo, RedisError};

fn main() -> Result<(), RedisError> {
    let words: Vec<_> = std::env::args().collect();
    let limit = Duration::from_millis(250);
    let info = words[1].as_str().into_connection_info()?;
    let quiet = info.redis_settings().clone().set_skip_set_lib_name();
    let client = Client::open(info.set_redis_settings(quiet))?;
    let mut connection = client.get_connection_with_timeout(limit)?;
    connection.set_read_timeout(Some(limit))?;
    connection.set_write_timeout(Some(limit))?;
    let text: String = redis::cmd("GET").arg(&words[3]).query(&mut connection)?;
    println!("{text}");
    Ok(())
}
"#;

const IDLE: &str = "fn main() {}\n";
