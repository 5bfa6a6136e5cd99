//! The size of the crate: the number of its dependencies, and the size of a minimal program.
//!
//! `cargo tree` counts the dependencies. The program is written below the target directory and built there, without the
//! features that the benchmarks need.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use common::Table;
use common::programs::{self, cargo, root};

fn main() {
    if !common::asked_to_measure() {
        return;
    }
    let mut table = Table::new("size with default features");
    let crates = crates();
    table.figure(
        "crates in the normal dependency tree, including this one",
        crates.len(),
        None,
        "<= 45",
        crates.len() <= 45,
    );
    let (minimal, empty) = binaries();
    table.figure(
        "stripped release binary (baseline: fn main() {})",
        megabytes(minimal),
        Some(megabytes(empty)),
        "<= 3.0 MB",
        minimal <= 3_000_000,
    );
    table.end();
}

fn crates() -> BTreeSet<String> {
    let output = cargo(&["tree", "--edges", "normal", "--prefix", "none", "--no-dedupe", "--format", "{p}"])
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree has failed");
    // The name and version of a local package are followed by its path.
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(name_and_version).collect()
}

/// Returns the sizes in bytes of a program that gets one token, and of one that does nothing.
fn binaries() -> (u64, u64) {
    let built = programs::build("size", "evertoken = { path = ROOT }", &[("minimal", MINIMAL), ("empty", EMPTY)]);
    let size = |name: &str| fs::metadata(built(name)).unwrap().len();
    (size("minimal"), size("empty"))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

const MINIMAL: &str = r#"use evertoken::{TokenManager, WeCom};

fn main() -> Result<(), evertoken::Error> {
    let tokens = TokenManager::new(WeCom::new("corp-id", "app-secret"));
    println!("{:?}", tokens.token()?);
    Ok(())
}
"#;

const EMPTY: &str = "fn main() {}\n";
