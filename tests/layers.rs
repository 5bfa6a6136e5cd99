//! The layers of the modules: which module may import which, and which module alone may use a dependency.
//!
//! The sources are read as text, because a review sees a violation as text.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. A module imports from the layers below its own.
const LAYERS: [&[&str]; 7] = [
    // Values: no I/O. `lock` and `thread` are helpers as small as values.
    &["secret", "error", "key", "clock", "token", "policy", "lock", "thread", "name", "version"],
    // The edges: one dependency each.
    &["http", "store", "metrics", "event"],
    // Modules that use the edges.
    &["provider", "lease", "idempotency"],
    // Modules that know tokens and time.
    &["token_cache", "in_flight", "scheduler"],
    // Modules that decide.
    &["core"],
    // Modules that put everything together.
    &["manager", "builder", "pool", "request", "testing"],
    // Names and documentation only.
    &["lib", "guide"],
];

/// Modules of one layer that import each other, in one direction only, so that there is no circle.
const SAME_LAYER_IMPORTS: &[(&str, &[&str])] = &[
    ("key", &["secret", "error"]),
    ("version", &["secret"]),
    ("name", &["secret", "error"]),
    ("token", &["secret", "clock", "error", "key"]),
    ("policy", &["error", "clock"]),
    ("thread", &["clock", "error", "lock"]),
    ("scheduler", &["in_flight"]),
    ("builder", &["manager"]),
    ("pool", &["builder", "manager"]),
    ("request", &["manager"]),
    ("testing", &["manager", "builder"]),
];

#[test]
fn imports_go_down_the_layers_or_stay_in_their_folder() {
    let mut faults = Vec::new();
    for file in sources() {
        for import in file.imports() {
            let below = layer(&import) < layer(&file.module);
            if !below && import != file.module && !same_layer_imports(&file.module).contains(&import.as_str()) {
                faults.push(format!("{} imports {import}", file.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "imports that go up or sideways:\n{}", faults.join("\n"));
}

#[test]
fn token_cache_in_flight_and_scheduler_import_no_provider_no_store_and_no_http() {
    let mut faults = Vec::new();
    for file in sources().iter().filter(|file| layer(&file.module) == 3) {
        let values = |import: &str| LAYERS[0].contains(&import) || LAYERS[3].contains(&import);
        let strangers = file.imports().into_iter().filter(|import| !values(import));
        faults.extend(strangers.map(|import| format!("{} imports {import}", file.path.display())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let impure = [
        "std::thread",
        "std::sync",
        "std::fs",
        "std::net",
        "std::io",
        "std::env",
        "Instant",
        "SystemTime",
        "Mutex",
        "thread_local",
        "static ",
        "fastrand",
        "log::",
        "once_cell",
        "crossbeam",
        "crate::store",
        "crate::http",
        "crate::lease",
        "crate::manager",
        "unwrap()",
        "expect(",
        "panic!",
    ];
    let mut faults = Vec::new();
    for file in sources().iter().filter(|file| file.module == "core") {
        let said = impure.iter().filter(|word| file.code.contains(**word));
        faults.extend(said.map(|word| format!("{} says {word}", file.path.display())));
    }
    assert!(faults.is_empty(), "the core decides and does nothing else:\n{}", faults.join("\n"));
    assert!(sources().iter().any(|file| file.module == "core"), "the core was not found");
}

#[test]
fn the_core_has_short_functions_and_short_files() {
    let mut faults = Vec::new();
    for file in sources().iter().filter(|file| file.module == "core") {
        let lines =
            fs::read_to_string(root().join("src").join(&file.path)).expect("a source can be read").lines().count();
        if lines > 500 {
            faults.push(format!("{} has {lines} lines", file.path.display()));
        }
        let long = functions(&file.code).into_iter().filter(|(_, lines)| *lines > 60);
        faults.extend(long.map(|(name, lines)| format!("{}: {name} has {lines} lines", file.path.display())));
    }
    assert!(faults.is_empty(), "more than 60 lines in a function or 500 in a file:\n{}", faults.join("\n"));
}

/// Returns the functions of formatted code, and how many lines each has.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let Some((before, name)) = text.split_once("fn ") else { continue };
        if !before.is_empty() && !before.starts_with("pub") {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let is_one_line = line.ends_with('}') || line.ends_with(';');
        let length = lines[start..].iter().position(|line| *line == end).map_or(1, |length| length + 1);
        let length = if is_one_line { 1 } else { length };
        found.push((name.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect(), length));
    }
    found
}

#[test]
fn ureq_is_used_in_http_request_and_the_builder_only() {
    // lib.rs only exports the crate.
    assert_only_in(&["http", "request", "builder", "lib"], &["ureq"]);
    assert_eq!(count("lib.rs", "ureq"), 1);
}

#[test]
fn redis_is_used_in_its_store_only() {
    let is_inside = |file: &SourceFile| file.path.starts_with("store/redis");
    for file in sources().iter().filter(|file| !is_inside(file)) {
        let code = file
            .code
            .replace("self::redis::", "")
            .replace("store::redis::", "")
            .replace("mod redis;", "")
            .replace("= \"redis\"", "");
        assert!(!code.contains("redis::"), "{} says redis", file.path.display());
    }
    assert!(sources().iter().any(is_inside), "src/store/redis was not found");
}

#[test]
fn clocks_are_read_in_one_place() {
    assert_only_in(&["clock"], &["Instant::now", "SystemTime::now", "UNIX_EPOCH.elapsed", "clock_gettime"]);
}

#[test]
fn no_source_is_unsafe() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("there is a lib.rs");
    assert!(lib.lines().any(|line| line == "#![forbid(unsafe_code)]"));
}

#[test]
fn every_module_has_a_layer() {
    for file in sources() {
        // Panics when the module has no layer.
        layer(&file.module);
    }
}

#[test]
fn the_text_that_is_read_is_the_code_without_comments_and_tests() {
    let text = "//! crate::a\nuse crate::key::Key; // crate::b\n/// crate::c\nlet x = \"//\"; crate::lock::lock(x);\n\
                #[cfg(test)]\nmod tests {\n    use crate::testing::context;\n}\n";
    let file = SourceFile { path: PathBuf::new(), module: String::new(), code: code_of(text) };
    assert_eq!(file.imports(), ["key", "lock"]);
}

#[test]
fn an_import_out_of_a_group_or_of_a_name_of_the_crate_counts() {
    let text =
        "use crate::{http, secret::Secret};\nlet kind = crate::ErrorKind::Config;\npub(in crate::manager) x: u8,\n";
    let file = SourceFile { path: PathBuf::new(), module: String::new(), code: code_of(text) };
    assert_eq!(file.imports(), ["http", "secret", "lib", "manager"]);
}

/// The number of times that the code of a file has a word.
fn count(path: &str, word: &str) -> usize {
    let file = sources().into_iter().find(|file| file.path == Path::new(path)).expect("the file exists");
    file.code.matches(word).count()
}

fn assert_only_in(modules: &[&str], words: &[&str]) {
    let mut faults = Vec::new();
    for file in sources().iter().filter(|file| !modules.contains(&file.module.as_str())) {
        let said = words.iter().filter(|word| file.code.contains(**word));
        faults.extend(said.map(|word| format!("{} says {word}", file.path.display())));
    }
    assert!(faults.is_empty(), "only for {modules:?}:\n{}", faults.join("\n"));
}

/// A file of `src`: its code without comments and tests.
struct SourceFile {
    path: PathBuf,
    /// The top-level module of the file.
    module: String,
    code: String,
}

impl SourceFile {
    /// The top-level modules in paths after `crate::`; `lib` for re-exports of the crate.
    fn imports(&self) -> Vec<String> {
        let mut found = Vec::new();
        // The text before `crate` may be `pub(in ` or a blank; `$crate` and longer words do not count.
        for after in self.code.split("crate::").skip(1) {
            match after.strip_prefix('{') {
                Some(group) => found.extend(top_level(group).iter().map(|entry| module_of(entry))),
                None => found.push(module_of(after)),
            }
        }
        found
    }
}

/// The entries of a group up to its closing brace.
fn top_level(group: &str) -> Vec<String> {
    let (mut entries, mut depth) = (vec![String::new()], 0);
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => entries.push(String::new()),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                entries.last_mut().expect("there is one from the start").push(letter);
            }
        }
    }
    entries.into_iter().map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
}

fn module_of(path: &str) -> String {
    let name: String = path.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    if name.starts_with(char::is_uppercase) { "lib".to_owned() } else { name }
}

fn layer(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("the module {module} has no layer; add it to LAYERS"))
}

fn same_layer_imports(module: &str) -> &'static [&'static str] {
    SAME_LAYER_IMPORTS.iter().find(|(name, _)| *name == module).map_or(&[], |(_, imports)| imports)
}

fn sources() -> Vec<SourceFile> {
    let folder = root().join("src");
    let mut paths = Vec::new();
    collect(&folder, &mut paths);
    assert!(paths.len() > 20, "the sources were not found");
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&folder).expect("it was found in there").to_owned();
        let first = inside.iter().next().expect("a file has a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("a source can be read");
        SourceFile { module: first.trim_end_matches(".rs").to_owned(), path: inside, code: code_of(&text) }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources can be read") {
        let path = entry.expect("an entry of a folder can be read").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The code before the tests, without comments.
fn code_of(text: &str) -> String {
    let text = text.split_once("#[cfg(test)]\nmod tests").map_or(text, |(code, _)| code);
    let without = |line: &str| match line.split_once("//") {
        // Inside a string, as in a URL, `//` is no comment.
        Some((code, _)) if code.matches('"').count().is_multiple_of(2) => code.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
