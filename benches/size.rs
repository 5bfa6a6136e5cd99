//! What a program pays for the crate: dependencies, and bytes of its binary.
//!
//! Both come from `cargo` itself: a minimal program is written below the target directory and built there, without
//! the features that this package's own benchmarks switch on.

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
    let mut table = Table::new("what a program pays, default features");
    let crates = crates();
    table.figure("crates in the normal dependency tree, this one too", crates.len(), None, "<= 45", crates.len() <= 45);
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
    // A package of this machine's disk is followed by its path.
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(name_and_version).collect()
}

/// Bytes of a program that asks for one token, and of one that does nothing.
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
