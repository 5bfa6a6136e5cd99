//! Files of the repository that have to follow changes of the code.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_changelog_knows_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(read("CHANGELOG.md").lines().any(|line| line.starts_with(&heading)), "no {heading} in CHANGELOG.md");
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme = read("README.md");
    for command in ["cargo run --example quickstart", "bash tests/run.sh"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
    }
}

#[test]
fn every_feature_has_a_section_in_features_md() {
    let manifest = read("Cargo.toml");
    let features = manifest.split("[features]\n").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap_or_default();
    let named = features.lines().filter_map(|line| line.split_once(" =")).map(|(name, _)| name);
    let named: Vec<_> = named.filter(|name| *name != "default").collect();
    assert!(!named.is_empty());
    let sections = read("features.md");
    for name in named {
        assert_eq!(sections.matches(&format!("## `{name}`")).count(), 1, "features.md and the feature {name}");
    }
}

#[test]
fn no_source_has_a_todo() {
    // Put together, so that the search does not match this file.
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let marks = ["TO", "FIX", "XX"].iter().zip(["DO", "ME", "X"]).map(|(one, two)| format!("{one}{two}"));
    let words: Vec<_> = words.into_iter().chain(marks).collect();
    let mut paths = Vec::new();
    ["src", "tests", "examples", "benches"].iter().for_each(|folder| collect(&root().join(folder), &mut paths));
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for word in &words {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
}

#[test]
fn both_licences_are_present() {
    assert!(read("LICENSE-MIT").starts_with("MIT License"));
    assert!(read("LICENSE-APACHE").contains("Version 2.0, January 2004"));
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
