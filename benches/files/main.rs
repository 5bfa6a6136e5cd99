//! Programs that keep their token in a file: `cargo bench --bench files`
//!
//! Measures the start of a program that finds its token in the file, several programs that start together without a
//! token, and idempotent operations in a file store.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod once;
mod start;
mod together;

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{cores, processor, programs};

fn main() {
    if !common::asked_to_measure() {
        return;
    }
    println!("cargo bench --bench files");
    println!("{} cores, {}, {}", cores(), processor(), env::consts::OS);
    let texts = [("kept", KEPT), ("memory", MEMORY), ("plain", PLAIN), ("idle", IDLE)];
    let built = programs::build("files", "evertoken = { path = ROOT }", &texts);
    start::measure(&built);
    together::measure(&built("kept"));
    once::measure();
}

/// Returns the command that starts `program` with this cache directory and these arguments.
fn command(program: &Path, cache: &Path, words: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(words).env("XDG_CACHE_HOME", cache).stdin(Stdio::null());
    command
}

const KEPT: &str = r#"use evertoken::{Error, FileStore, OAuth2, TokenManager};

fn main() -> Result<(), Error> {
    let words: Vec<_> = std::env::args().collect();
    let provider = OAuth2::new(&*words[1], "client", "secret");
    let tokens = TokenManager::builder(provider).store(FileStore::new()?).build()?;
    println!("{}", tokens.token()?.expose());
    Ok(())
}
"#;

const MEMORY: &str = r#"use evertoken::{Error, OAuth2, TokenManager};

fn main() -> Result<(), Error> {
    let words: Vec<_> = std::env::args().collect();
    let tokens = TokenManager::new(OAuth2::new(&*words[1], "client", "secret"));
    println!("{}", tokens.token()?.expose());
    Ok(())
}
"#;

const PLAIN: &str = r#"fn main() -> std::io::Result<()> {
    let words: Vec<_> = std::env::args().collect();
    println!("{}", std::fs::read(&words[2])?.len());
    Ok(())
}
"#;

const IDLE: &str = "fn main() {}\n";
