//! Several programs start together, and there is no token yet: one of them fetches, and the others read its token.

use std::collections::HashSet;
use std::io::read_to_string;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use evertoken::testing::FakeVendor;

use crate::command;
use crate::common::{Table, median};

pub(crate) fn measure(program: &Path) {
    let title =
        format!("{PROCESSES} programs started together, there is no token, a fetch takes 200 ms, {ROUNDS} rounds");
    let mut table = Table::new(&title);
    let rounds: Vec<_> = (0..ROUNDS).map(|_| one_round(program)).collect();
    let fetches = rounds.iter().map(|round| round.fetches).max().unwrap();
    table.figure("fetches per round, at most", fetches, None, "1", fetches == 1);
    let after: Vec<_> = rounds.iter().map(|round| round.after).collect();
    let show = |wait: f64| format!("{wait:.1} ms");
    let worst = after.iter().copied().fold(0.0, f64::max);
    let typical = median(after);
    table.figure(
        "from the grant to the end of the last program, median",
        show(typical),
        None,
        "<= 60 ms",
        typical <= 60.0,
    );
    table.figure("the same, in the worst round", show(worst), None, "<= 60 ms", worst <= 60.0);
    let started = rounds.iter().map(|round| round.started).fold(0.0, f64::max);
    table.note("time to start all programs, in the worst round", show(started));
    table.end();
}

struct Round {
    fetches: usize,
    /// Milliseconds from the first start to the last.
    started: f64,
    /// Milliseconds from the grant to the end of the last process.
    after: f64,
}

fn one_round(program: &Path) -> Round {
    let (host, cache) = (FakeVendor::oauth2().delay(DELAY), tempfile::tempdir().unwrap());
    let first_start = Instant::now();
    let start = |_| command(program, cache.path(), &[host.token_url()]).stdout(Stdio::piped()).spawn().unwrap();
    let children: Vec<Child> = (0..PROCESSES).map(start).collect();
    let started = milliseconds(first_start.elapsed());
    assert!(host.wait_for_calls(1, Duration::from_secs(10)), "one program fetches");
    // The server counts a call when it arrives, and answers after `DELAY`.
    let granted = Instant::now() + DELAY;
    let mut outputs = Vec::new();
    for mut child in children {
        assert!(child.wait().unwrap().success());
        outputs.push(child.stdout.take().unwrap());
    }
    let after = milliseconds(granted.elapsed());
    let tokens: HashSet<_> = outputs.into_iter().map(|output| read_to_string(output).unwrap()).collect();
    assert_eq!(tokens.len(), 1, "all programs print the same token");
    Round { fetches: host.calls(), started, after }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const PROCESSES: usize = 8;
const ROUNDS: usize = 20;

/// Long enough for all programs to start before the token arrives, also on a busy machine.
const DELAY: Duration = Duration::from_millis(200);
