//! A shared Redis: its costs, and an outage: `cargo bench --features redis --bench redis`
//!
//! Starts a `redis-server` of its own, and ends it.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod cut_off;
mod held;
mod new_process;
mod once;
mod plain;
#[path = "../../tests/common/redis_server.rs"]
mod redis_server;
mod renewal;

use std::env;

use common::{cores, processor};
use redis_server::{RedisServer, field};

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [word, way, redis, host, round] = arguments.as_slice()
        && word == crowd::MEMBER
    {
        return crowd::be_a_member(way, redis, host, round);
    }
    if !common::asked_to_measure() {
        return;
    }
    let server = RedisServer::start();
    let info: String = server.ask(&["INFO", "server"]).unwrap();
    let version = field(&info, "redis_version").unwrap_or_default();
    println!("cargo bench --features redis --bench redis");
    println!("{} cores, {}, {}, Redis {version} on 127.0.0.1", cores(), processor(), env::consts::OS);
    // First, because its first round measures a server that does not know our scripts yet.
    crowd::measure(&server);
    held::measure(&server);
    new_process::measure(&server);
    renewal::measure(&server);
    once::measure(&server);
    cut_off::measure_with_token(&server);
    cut_off::measure_without_token(&server);
}
