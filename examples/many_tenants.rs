//! A thousand tenants in one program: `cargo run --example many_tenants`
//!
//! 32 threads get tokens of random tenants for 2 s. With `--features redis` and `-- --redis URL`, all processes of this
//! example share the tokens, so that a second process fetches none. A pool works without Redis too; the two functions
//! `redis_store` are the only difference.
//!
//! The service is invented: a fetch takes 10 ms, and tokens are valid for 10 minutes.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use evertoken::provider::{Grant, Provider};
use evertoken::store::Store;
use evertoken::{Error, ErrorKind, Secret, TokenPool, provider};
use pico_args::Arguments;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("many_tenants: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let store = store_from_arguments()?;
    let place = if store.is_some() { "shared with other processes through Redis" } else { "kept in memory" };
    println!("{TENANTS} tenants, tokens {place}; {THREADS} threads for {} s", DURATION.as_secs());

    // One store for all tenants, and so one connection.
    let pool = TokenPool::with_settings(move |settings| match &store {
        Some(store) => settings.store(store.clone()),
        None => settings,
    });
    let before = memory();
    let callers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| ask_at_random(&pool))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });

    let calls: u64 = callers.iter().map(|caller| caller.calls).sum();
    let slowest = callers.iter().map(|caller| caller.slowest).max().unwrap_or_default();
    let failure = callers.into_iter().find_map(|caller| caller.failure);
    let metrics = pool.metrics();
    println!("  calls       {calls}, {} of them waited; the slowest took {slowest:.1?}", metrics.waits);
    println!("  fetches     {}", metrics.fetches_ok);
    println!("  from store  {} tokens that another process had fetched", metrics.tokens_from_store);
    if metrics.store_errors > 0 {
        println!("  redis       {} operations failed; tokens were fetched without Redis", metrics.store_errors);
    }
    println!("  tenants     {} in the pool", pool.len());
    if let (Some(before), Some(now)) = (before, memory()) {
        let each = now.saturating_sub(before) as f64 / pool.len().max(1) as f64;
        println!("  memory      {each:.1} KiB per tenant");
    }
    if let Some(threads) = field("Threads:") {
        println!("  threads     {threads}: the main thread, and one that refreshes the tokens of all tenants");
    }
    failure.map_or(Ok(()), Err)
}

#[derive(Default)]
struct Caller {
    calls: u64,
    slowest: Duration,
    failure: Option<Error>,
}

fn ask_at_random(pool: &TokenPool<String>) -> Caller {
    let mut caller = Caller::default();
    let start = Instant::now();
    while start.elapsed() < DURATION {
        let tenant = format!("tenant-{}", fastrand::usize(..TENANTS));
        let asked = Instant::now();
        // The part that your own program needs: one line.
        let token = pool.manager(&tenant, || service(&tenant)).and_then(|tokens| tokens.token());
        caller.slowest = caller.slowest.max(asked.elapsed());
        caller.calls += 1;
        caller.failure = caller.failure.or(token.err());
    }
    caller
}

/// Returns the provider of one tenant. The pool calls this when it has no manager for the tenant.
fn service(tenant: &str) -> impl Provider + use<> {
    let secret = Secret::from(format!("the secret of {tenant}"));
    let text = format!("the-token-of-{tenant}");
    let service = provider::from_fn("invented-service", move |_context| {
        thread::sleep(Duration::from_millis(10));
        Ok(Grant::new(text.as_str(), Duration::from_secs(600)))
    });
    // Without these two parts of the identity, all tenants would share one token in a store.
    service.identity_part("tenant", tenant).secret(&secret)
}

fn store_from_arguments() -> Result<Option<Arc<dyn Store>>, Error> {
    let mut arguments = Arguments::from_env();
    let usage = || Error::new(ErrorKind::Config, "usage: many_tenants [--redis URL]");
    let url = arguments.opt_value_from_str::<_, String>("--redis").map_err(|_| usage())?;
    if arguments.finish().is_empty() { url.map(|url| redis_store(&url)).transpose() } else { Err(usage()) }
}

#[cfg(feature = "redis")]
fn redis_store(url: &str) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(evertoken::RedisStore::open(url)?))
}

#[cfg(not(feature = "redis"))]
fn redis_store(_url: &str) -> Result<Arc<dyn Store>, Error> {
    Err(Error::new(
        ErrorKind::Config,
        "--redis needs the feature redis: cargo run --features redis --example many_tenants",
    ))
}

/// Returns the resident memory of this process in KiB, on Linux.
fn memory() -> Option<u64> {
    field("VmRSS:")
}

fn field(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

const TENANTS: usize = 1_000;
const THREADS: usize = 32;
const DURATION: Duration = Duration::from_secs(2);
