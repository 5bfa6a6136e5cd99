//! What a program pays for the crate: dependencies, and bytes of its binary.
//!
//! Both come from `cargo` itself: a minimal program is written below the target directory and built there, without
//! the features that this package's own benchmarks switch on.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use common::Table;

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
    let package = target().join("size").join("minimal");
    fs::create_dir_all(package.join("src/bin")).unwrap();
    let root = root().to_str().unwrap();
    fs::write(package.join("Cargo.toml"), MANIFEST.replace("ROOT", &format!("{root:?}"))).unwrap();
    // The same versions as everywhere.
    fs::copy(Path::new(root).join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    fs::write(package.join("src/bin/minimal.rs"), MINIMAL).unwrap();
    fs::write(package.join("src/bin/empty.rs"), "fn main() {}\n").unwrap();
    let built = target().join("size").join("target");
    let status = cargo(&["build", "--release", "--quiet", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&built)
        .status()
        .unwrap();
    assert!(status.success(), "the minimal program cannot be built");
    let size = |name: &str| fs::metadata(built.join("release").join(format!("{name}{EXE_SUFFIX}"))).unwrap().len();
    (size("minimal"), size("empty"))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(arguments);
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// This program lies in `<target>/release/deps`.
fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

const MANIFEST: &str = r#"[package]
name = "minimal"
version = "0.0.0"
edition = "2024"

[dependencies]
evertoken = { path = ROOT }

[profile.release]
strip = true

[workspace]
"#;

const MINIMAL: &str = r#"use evertoken::{TokenManager, WeCom};

fn main() -> Result<(), evertoken::Error> {
    let tokens = TokenManager::new(WeCom::new("corp-id", "app-secret"));
    println!("{:?}", tokens.token()?);
    Ok(())
}
"#;
