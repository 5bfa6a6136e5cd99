//! Builds and runs small programs that use the crate as users do, without the features that the benchmarks need.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs};

/// Writes a package with `programs` below the target directory and builds it in release mode, stripped.
///
/// Returns a function from a program's name to its path. `ROOT` in `dependencies` stands for the folder of this crate.
pub(crate) fn build(name: &str, dependencies: &str, programs: &[(&str, &str)]) -> impl Fn(&str) -> PathBuf {
    let folder = target().join(name);
    let package = folder.join("minimal");
    fs::create_dir_all(package.join("src/bin")).unwrap();
    let manifest = MANIFEST.replace("DEPENDENCIES", dependencies).replace("ROOT", &format!("{:?}", root()));
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    // Use the same versions of all dependencies as the crate itself.
    fs::copy(root().join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    for (program, text) in programs {
        fs::write(package.join(format!("src/bin/{program}.rs")), text).unwrap();
    }
    let built = folder.join("target");
    let status = cargo(&["build", "--release", "--quiet", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&built)
        .status()
        .unwrap();
    assert!(status.success(), "the programs of {name} cannot be built");
    move |program| built.join("release").join(format!("{program}{EXE_SUFFIX}"))
}

/// Runs a program and returns the microseconds from its start to its end.
pub(crate) fn run(command: &mut Command) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().unwrap();
    let took = start.elapsed();
    assert!(status.success(), "{command:?} has failed");
    took.as_nanos() as f64 / 1e3
}

/// Runs each program `starts` times, in turn, and returns the durations for each program.
pub(crate) fn interleaved<const COUNT: usize>(
    programs: [&str; COUNT],
    starts: usize,
    run: impl Fn(&str) -> f64,
) -> [Vec<f64>; COUNT] {
    let mut times = programs.map(|_| Vec::new());
    for start in 0..starts {
        for turn in 0..COUNT {
            // The order rotates, because a program may leave caches warm or cold for the next one.
            let program = (start + turn) % COUNT;
            times[program].push(run(programs[program]));
        }
    }
    times
}

pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(arguments);
    command
}

/// Returns the folder of this crate.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the target directory: the benchmark's own program is `<target>/release/deps/..`.
fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

const MANIFEST: &str = r#"[package]
name = "minimal"
version = "0.0.0"
edition = "2024"

[dependencies]
DEPENDENCIES

[profile.release]
strip = true

[workspace]
"#;
