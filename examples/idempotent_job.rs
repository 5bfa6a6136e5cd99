//! Sends a message once, however often it is started: `cargo run --example idempotent_job -- --id order-17`
//!
//! Four threads try to send the message at the same moment, like four workers that got the same job. One of them sends
//! the message, and all four get its receipt. Start the program again with the same id: nothing is sent. `--text`
//! changes the message; with an id that was used before for another text, the program reports an error, because two
//! jobs have been mixed up.
//!
//! The vendor is a fake WeCom server on a loopback port.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::convert::Infallible;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use evertoken::idempotency::{Idempotency, RunError};
use evertoken::testing::FakeVendor;
use evertoken::{Error, ErrorKind, FileStore, TokenManager, WeCom};
use pico_args::Arguments;
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::Request;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idempotent_job: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::from_arguments()?;
    let vendor = Vendor::fake();
    let once = Idempotency::new(store(&job)?).namespace("idempotent_job");
    let answers = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| send_once(&once, &job, &vendor))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).collect::<Vec<_>>()
    });
    for (worker, answer) in (1..).zip(answers) {
        match answer {
            Ok(receipt) => println!("worker {worker}: {} is sent as message {}", job.id, receipt.message),
            Err(RunError::Mismatch) => return Err(format!("{} was sent with another text", job.id).into()),
            // The message is sent, but the store has no record of that, so the next start will send it again. The
            // vendor drops the second message: see `enable_duplicate_check` below.
            Err(RunError::Unrecorded { result, error }) => {
                println!("worker {worker}: {} is sent as message {}, but {error}", job.id, result.message);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match vendor.host.api_calls() {
        0 => println!("{}: it was sent before, and this start has sent nothing", job.id),
        requests => println!("{}: this start has sent {requests} request(s)", job.id),
    }
    if let Some(record) = once.get::<Receipt>(&job.id)? {
        let (started, hours) = (httpdate::fmt_http_date(record.created()), record.remaining().as_secs_f64() / 3600.0);
        println!("{}: started on {started}; the record is kept for another {hours:.1} h", job.id);
    }
    Ok(())
}

/// Returns the store that records what has been sent, for all processes of this machine. A `RedisStore` does the same
/// for workers on several hosts.
fn store(job: &Job) -> Result<FileStore, Error> {
    job.directory.as_ref().map_or_else(FileStore::new, |directory| Ok(FileStore::at(directory)))
}

/// The part that your own program needs: one call.
fn send_once(once: &Idempotency, job: &Job, vendor: &Vendor) -> Result<Receipt, RunError<Receipt, Error>> {
    once.run_within(&job.id, &job.text, PATIENCE, || vendor.send(&job.text))
}

/// The result of a job, which the store keeps.
#[derive(Serialize, Deserialize)]
struct Receipt {
    message: String,
}

struct Vendor {
    host: FakeVendor,
    tokens: TokenManager,
    agent: Agent,
}

impl Vendor {
    fn fake() -> Vendor {
        // The message id shows which process has sent the message.
        let message = format!("m-{}", std::process::id());
        let reply = serde_json::json!({"errcode": 0, "errmsg": "ok", "msgid": message});
        let host = FakeVendor::wecom().api_reply(200, &[], &reply.to_string());
        let tokens = TokenManager::new(WeCom::new("corp", "secret").base_url(host.url()));
        let agent = Agent::config_builder().timeout_global(Some(PATIENCE)).build().new_agent();
        Vendor { host, tokens, agent }
    }

    fn send(&self, text: &str) -> Result<Receipt, Error> {
        // If the response is lost, the message may have been sent. `run_within` lets another worker try again after an
        // error, so this asks WeCom to drop a message that it has already sent.
        let message = serde_json::json!({
            "touser": "@all", "msgtype": "text", "agentid": 1, "text": {"content": text},
            "enable_duplicate_check": 1, "duplicate_check_interval": 1800,
        });
        let request = Request::post(self.host.api_url()).body(message.to_string());
        let request = request.map_err(|_| Error::new(ErrorKind::Config, "the vendor's URL is not valid"))?;
        let mut response = self.tokens.send(&self.agent, request)?;
        let answer = response.body_mut().read_to_vec().ok();
        let answer: Option<serde_json::Value> = answer.and_then(|body| serde_json::from_slice(&body).ok());
        let message = answer.as_ref().and_then(|answer| answer["msgid"].as_str());
        let refused = || Error::new(ErrorKind::InvalidResponse, "the vendor did not accept the message");
        Ok(Receipt { message: message.ok_or_else(refused)?.to_owned() })
    }
}

struct Job {
    id: String,
    text: String,
    directory: Option<PathBuf>,
}

impl Job {
    fn from_arguments() -> Result<Job, Error> {
        let mut arguments = Arguments::from_env();
        let usage = || Error::new(ErrorKind::Config, "usage: idempotent_job --id ID [--text MESSAGE] [--store DIR]");
        let id = arguments.value_from_str("--id").map_err(|_| usage())?;
        let text = arguments.opt_value_from_str("--text").map_err(|_| usage())?;
        let path = |text: &OsStr| Ok::<_, Infallible>(PathBuf::from(text));
        let directory = arguments.opt_value_from_os_str("--store", path).map_err(|_| usage())?;
        let is_complete = arguments.finish().is_empty();
        let text = text.unwrap_or_else(|| "the goods have left".to_owned());
        is_complete.then_some(Job { id, text, directory }).ok_or_else(usage)
    }
}

const WORKERS: usize = 4;

/// How long a worker waits for another worker, and for the vendor.
const PATIENCE: Duration = Duration::from_secs(10);
