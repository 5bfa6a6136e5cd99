//! Providers that are configured by environment variables, and the example program that reads them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::{env, fs};

use evertoken::provider::{Identity, Provider, TokenSource};
use evertoken::testing::{FakeVendor, VendorFault};
use evertoken::{ErrorKind, TokenManager, WeCom, provider};

use crate::common::alone::test_of;
use crate::common::http_host::closed_port;
use crate::configuration::{FILES, every_kind, file, filled};

// From here on: the environment. It is that of a child process, because a process has one only.

const CHILD: &str = "CONFIGURATION_TEST_CHILD";

type Variables<'a> = &'a [(&'a str, &'a str)];

/// The result of the test `name` in a new process with these variables only.
fn child(name: &str, variables: Variables<'_>) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env_clear().env(CHILD, name);
    outcome_of(command.envs(variables.iter().copied()))
}

fn outcome_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    said.split_once("OUTCOME(").unwrap().1.split_once(")OUTCOME").unwrap().0.to_owned()
}

/// True in a child process, which then prints the result of its environment.
fn is_child() -> bool {
    if env::var_os(CHILD).is_none() {
        return false;
    }
    let tokens = provider::from_env().and_then(|config| TokenManager::from_config(&config, |builder| builder));
    let outcome = match tokens {
        Ok(tokens) => mark(&tokens.identity()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error:?}").contains("hunter2"));
            error.to_string()
        }
    };
    // The process that started this one reads the outcome there.
    std::io::Write::write_all(&mut std::io::stdout(), format!("OUTCOME({outcome})OUTCOME\n").as_bytes()).unwrap();
    true
}

/// A valid configuration.
const WECOM: [(&str, &str); 3] =
    [("EVERTOKEN_PROVIDER", "wecom"), ("EVERTOKEN_CORP_ID", "c"), ("EVERTOKEN_SECRET", "hunter2")];

/// Identifies an identity in another process of this program.
fn mark(identity: &Identity) -> String {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// The variables of a configuration in JSON.
fn variables(prefix: &str, json: &serde_json::Value) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (field, value) in json.as_object().unwrap() {
        let name = format!("{prefix}{}", field.to_uppercase());
        match value {
            serde_json::Value::String(text) => variables.push((name, text.clone())),
            serde_json::Value::Array(list) => {
                let texts: Vec<_> = list.iter().map(|text| text.as_str().unwrap()).collect();
                variables.push((name, texts.join(" ")));
            }
            serde_json::Value::Object(place) if field != "parent" => {
                variables.push((format!("{name}_FILE"), place["file"].as_str().unwrap().to_owned()));
            }
            serde_json::Value::Object(_) => variables.extend(variables_of_parent(prefix, value)),
            _ => assert!(value.is_null()),
        }
    }
    variables
}

fn variables_of_parent(prefix: &str, json: &serde_json::Value) -> Vec<(String, String)> {
    variables(&format!("{prefix}PARENT_"), json)
}

#[test]
fn environment_variables_can_set_all_that_a_file_can() {
    let name = test_of(&|| ());
    if is_child() {
        return;
    }
    let mut tried = 0;
    for (json, by_hand) in every_kind() {
        // These two can be set in files only.
        if json.contains("\"params\"") || json.contains("\"claims\"") {
            continue;
        }
        let variables = variables("EVERTOKEN_", &serde_json::from_str(&filled(json)).unwrap());
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(child(name, &variables), mark(&by_hand.identity()), "{variables:?}");
        tried += 1;
    }
    assert!(tried > 30, "{tried}");
    assert_eq!(child(name, &WECOM), mark(&WeCom::new("c", "hunter2").identity()));
    // An empty variable counts as absent, and variables of Kubernetes are ignored.
    let more =
        [("EVERTOKEN_BASE_URL", ""), ("EVERTOKEN_SERVICE_HOST", "10.0.0.1"), ("EVERTOKEN_PORT", "tcp://10.0.0.1")];
    assert_eq!(child(name, &[&WECOM[..], &more].concat()), mark(&WeCom::new("c", "hunter2").identity()));
}

#[test]
fn an_error_in_the_environment_names_the_variable() {
    let name = test_of(&|| ());
    if is_child() {
        return;
    }
    let js_ticket = [("EVERTOKEN_PROVIDER", "wecom-js-ticket"), ("EVERTOKEN_KIND", "corp")];
    let feishu = [("EVERTOKEN_PROVIDER", "feishu"), ("EVERTOKEN_APP_ID", "a"), ("EVERTOKEN_SECRET", "hunter2")];
    let client = [
        ("EVERTOKEN_PROVIDER", "oauth2"),
        ("EVERTOKEN_TOKEN_URL", "https://h.example"),
        ("EVERTOKEN_CLIENT_ID", "c"),
        ("EVERTOKEN_SECRET", "hunter2"),
    ];
    let deep = format!("EVERTOKEN_{}PROVIDER", "PARENT_".repeat(9));
    let levels: Vec<_> = (0..9).map(|depth| format!("EVERTOKEN_{}PROVIDER", "PARENT_".repeat(depth))).collect();
    let mut many: Vec<_> = levels.iter().map(|name| (name.as_str(), "wecom-js-ticket")).collect();
    many.push((&deep, "wecom"));
    for (variables, wanted) in [
        (vec![], "EVERTOKEN_PROVIDER is not set or is empty; set it to the kind of token, such as wecom or oauth2"),
        (vec![("EVERTOKEN_PROVIDER", "")], "EVERTOKEN_PROVIDER is not set or is empty; "),
        (vec![("EVERTOKEN_CORP_ID", "c")], "EVERTOKEN_PROVIDER is not set or is empty; "),
        (vec![("EVERTOKEN_PROVIDER", "wechta")], "EVERTOKEN_PROVIDER has an unknown value; did you mean wechat?"),
        (
            vec![("EVERTOKEN_PROVIDER", "salesforce")],
            "EVERTOKEN_PROVIDER has an unknown value, expected one of wecom, wecom-service-provider, wecom-suite, ",
        ),
        (vec![("EVERTOKEN_PROVDER", "wecom")], "EVERTOKEN_PROVDER is not a setting; did you mean EVERTOKEN_PROVIDER?"),
        (WECOM[..2].to_vec(), "EVERTOKEN_SECRET (or EVERTOKEN_SECRET_FILE) is not set or is empty; wecom needs it"),
        (WECOM[..1].to_vec(), "EVERTOKEN_CORP_ID is not set or is empty; wecom needs it"),
        (
            [&WECOM[..], &[("EVERTOKEN_CORP_IP", "c")]].concat(),
            "EVERTOKEN_CORP_IP is not a setting of wecom; did you mean EVERTOKEN_CORP_ID?",
        ),
        (
            [&WECOM[..2], &[("EVERTOKEN_SECERT_FILE", "f")]].concat(),
            "EVERTOKEN_SECERT_FILE is not a setting of wecom; did you mean EVERTOKEN_SECRET_FILE?",
        ),
        (
            [&WECOM[..], &[("EVERTOKEN_TICKET", "hunter2")]].concat(),
            "EVERTOKEN_TICKET is not a setting of wecom, which has ",
        ),
        (
            [&WECOM[..], &[("EVERTOKEN_KEY_FILE", "k")]].concat(),
            "EVERTOKEN_KEY_FILE is not a setting of wecom, which has ",
        ),
        (
            [&WECOM[..], &[("EVERTOKEN_corp_ID", "c")]].concat(),
            "EVERTOKEN_corp_ID is not a setting; write the name in capital letters, EVERTOKEN_CORP_ID",
        ),
        (
            [&WECOM[..], &[("EVERTOKEN_PARENT", "c")]].concat(),
            "EVERTOKEN_PARENT is not a setting; the settings of the parent begin with EVERTOKEN_PARENT_, such as ",
        ),
        (
            [&WECOM[..], &[("EVERTOKEN_SECRET_FILE", "f")]].concat(),
            "EVERTOKEN_SECRET and EVERTOKEN_SECRET_FILE are both set; unset one of them",
        ),
        (
            [&WECOM[..2], &[("EVERTOKEN_SECRET", "hunter2\n")]].concat(),
            "secret: the environment variable EVERTOKEN_SECRET has blanks or line breaks around it; remove them",
        ),
        (js_ticket.to_vec(), "EVERTOKEN_PARENT_PROVIDER is not set or is empty; wecom-js-ticket needs it"),
        (
            [&js_ticket[..], &[("EVERTOKEN_PARENT_CORP_ID", "c")]].concat(),
            "EVERTOKEN_PARENT_PROVIDER is not set or is empty; ",
        ),
        (
            [&js_ticket[..], &[("EVERTOKEN_PARENT_PROVIDER", "wecom"), ("EVERTOKEN_PARENT_CORP_ID", "c")]].concat(),
            "EVERTOKEN_PARENT_SECRET (or EVERTOKEN_PARENT_SECRET_FILE) is not set or is empty; wecom needs it",
        ),
        (
            [
                &WECOM[..],
                &[
                    ("EVERTOKEN_PARENT_PROVIDER", "wecom-suite"),
                    ("EVERTOKEN_PARENT_SUITE_ID", "s"),
                    ("EVERTOKEN_PARENT_SECRET", "hunter2"),
                ],
            ]
            .concat(),
            "EVERTOKEN_PARENT_PROVIDER is not a setting of wecom, which has ",
        ),
        (many, "EVERTOKEN_PARENT_..: more than 8 parents are nested; use fewer of these prefixes"),
        (
            [&feishu[..], &[("EVERTOKEN_REGION", "moon")]].concat(),
            "EVERTOKEN_REGION has an unknown value, expected one of feishu, lark",
        ),
        (
            [&client[..], &[("EVERTOKEN_DEFAULT_LIFETIME", "soon")]].concat(),
            "EVERTOKEN_DEFAULT_LIFETIME is wrong; expected a whole number of seconds",
        ),
        (
            [&client[..], &[("EVERTOKEN_PARAMS", "a=b")]].concat(),
            "EVERTOKEN_PARAMS cannot be set in the environment; use a configuration file",
        ),
        (
            [&WECOM[..2], &[("EVERTOKEN_SECRET_FILE", "/missing/file")]].concat(),
            "secret: the file \"/missing/file\" does not exist",
        ),
    ] {
        let outcome = child(name, &variables);
        assert!(outcome.starts_with(wanted), "{variables:?}:\n{outcome}\n{wanted}");
    }
}

#[test]
fn a_variable_that_is_like_no_setting_is_none_of_this_crate() {
    let name = test_of(&|| ());
    if is_child() {
        return;
    }
    let others = [
        ("EVERTOKEN_ENCRYPTION_KEY", "hunter2"),
        ("EVERTOKEN_ENCRYPTION_KEY_FILE", "/hunter2"),
        ("EVERTOKEN_REDIS_SERVICE_HOST", "10.0.0.1"),
        ("EVERTOKEN_REDIS_SERVICE_PORT", "6379"),
        ("EVERTOKEN_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("EVERTOKEN_REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("EVERTOKEN_PARENT_SERVICE_HOST", "10.0.0.1"),
        ("EVERTOKEN_COLOUR", "red"),
        ("EVERTOKEN_LOG", "debug"),
    ];
    for other in others {
        assert_eq!(child(name, &[&WECOM[..], &[other]].concat()), mark(&WeCom::new("c", "hunter2").identity()));
    }
    // A setting of another kind of token is a mistake all the same.
    let wrong = [&WECOM[..], &[("EVERTOKEN_TENANT", "t")]].concat();
    assert!(child(name, &wrong).starts_with("EVERTOKEN_TENANT is not a setting of wecom, which has "));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let name = test_of(&|| ());
    if is_child() {
        return;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env_clear().env(CHILD, name);
    command.envs(WECOM).env("EVERTOKEN_SECRET", OsStr::from_bytes(b"hunter2\xff"));
    assert_eq!(outcome_of(&mut command), "EVERTOKEN_SECRET is not UTF-8");
}

// The example, as a program.

/// Builds the example, if it is not built yet, and runs it.
fn cli_token(arguments: &[&str], variables: Variables<'_>) -> Output {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = env::current_exe().unwrap();
        let place = program.parent().and_then(Path::parent).unwrap();
        let profile = match place.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let features = [
            ("platform-roots", cfg!(feature = "platform-roots")),
            ("redis", cfg!(feature = "redis")),
            ("redis-cluster", cfg!(feature = "redis-cluster")),
            ("redis-sentinel", cfg!(feature = "redis-sentinel")),
            ("redis-tls", cfg!(feature = "redis-tls")),
            ("encryption", cfg!(feature = "encryption")),
            ("testing", true),
        ];
        let features: Vec<_> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        let mut cargo = Command::new(env!("CARGO"));
        // Variables that cargo sets for a test would make it build some crates again.
        let of_the_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_the_test)) {
            cargo.env_remove(name);
        }
        let built = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--offline", "--example", "cli_token", "--profile", profile])
            .args(["--features", &features.join(",")])
            .arg("--target-dir")
            .arg(place.parent().unwrap())
            .status();
        assert!(built.unwrap().success());
        place.join("examples").join("cli_token").with_extension(env::consts::EXE_EXTENSION)
    });
    let mut command = Command::new(&*PROGRAM);
    // A cache directory for each run, so that runs are independent and leave the user's own alone.
    let cache = tempfile::tempdir().unwrap();
    command.args(arguments).env_clear().env("XDG_CACHE_HOME", cache.path()).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("hunter2"), "{said}");
    output
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_program_prints_the_token_and_nothing_else() {
    let host = FakeVendor::wecom().credential("c", "hunter2").granting("t-hunter2", 7200);
    let url = host.url();
    let secret = file("secret");
    let variables = [
        ("EVERTOKEN_PROVIDER", "wecom"),
        ("EVERTOKEN_CORP_ID", "c"),
        ("EVERTOKEN_SECRET_FILE", secret.to_str().unwrap()),
        ("EVERTOKEN_BASE_URL", &url),
    ];
    let (code, out, err) = said(&cli_token(&["--status"], &variables));
    assert_eq!((code, out.as_str()), (Some(0), "t-hunter2\n"), "{err}");
    assert!(err.contains("wecom") && err.contains("cli_token: valid for "), "{err}");
    // As above, from a file.
    let config = serde_json::json!({"provider": "wecom", "corp_id": "c", "secret": {"file": secret}, "base_url": url});
    let path = FILES.join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let (code, out, err) = said(&cli_token(&["--config", path.to_str().unwrap()], &[]));
    assert_eq!((code, out.as_str()), (Some(0), "t-hunter2\n"), "{err}");
    let (code, out, err) = said(&cli_token(&["--demo"], &[]));
    assert!(code == Some(0) && out.lines().count() == 1, "{err}");
}

#[test]
fn the_exit_code_of_the_program_depends_on_the_kind_of_error() {
    let host = FakeVendor::wecom().credential("c", "hunter2");
    let url = host.url();
    fn wecom<'a>(secret: &'a str, url: &'a str) -> [(&'a str, &'a str); 4] {
        let [provider, corp_id, _] = WECOM;
        [provider, corp_id, ("EVERTOKEN_SECRET", secret), ("EVERTOKEN_BASE_URL", url)]
    }
    let is_quiet = |output: &Output, code: i32| {
        let (found, out, err) = said(output);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{err}");
        err
    };
    assert!(is_quiet(&cli_token(&[], &[]), 2).contains("EVERTOKEN_PROVIDER is not set"));
    assert!(is_quiet(&cli_token(&["--stauts"], &[]), 2).contains("--status"));
    let path = FILES.join("pasted.json");
    fs::write(&path, r#"{"provider": "wecom", "corp_id": "c", "secret": "hunter2"}"#).unwrap();
    assert!(is_quiet(&cli_token(&["--config", path.to_str().unwrap()], &[]), 2).contains("must not contain a secret"));
    let err = is_quiet(&cli_token(&["--status"], &wecom("hunter2-wrong", &url)), 3);
    assert!(err.contains("wecom"), "{err}");
    host.fail_with(VendorFault::Status(503));
    is_quiet(&cli_token(&["--status"], &wecom("hunter2", &url)), 4);
    let closed = format!("http://127.0.0.1:{}", closed_port());
    is_quiet(&cli_token(&[], &wecom("hunter2", &closed)), 4);
    let suite = [("EVERTOKEN_PROVIDER", "wecom-suite"), ("EVERTOKEN_SUITE_ID", "s"), ("EVERTOKEN_SECRET", "hunter2")];
    assert!(is_quiet(&cli_token(&[], &suite), 1).contains("ticket"));
}
