//! Child processes of a test. Each is the test's own program, started again for the same test, and obeys commands that
//! it reads from a socket.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::wait::{PATIENCE, eventually};

/// A child process. Dropping this value ends it.
pub(crate) struct Process {
    child: Child,
    stream: TcpStream,
    lines: Lines<BufReader<TcpStream>>,
}

impl Process {
    pub(crate) fn start(test: &str) -> Process {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", test, "--nocapture", "--include-ignored"]).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.env(PORT, listener.local_addr().unwrap().port().to_string()).spawn().unwrap();
        let mut accepted = None;
        eventually("the process starts", || {
            accepted = match listener.accept() {
                Ok((stream, _)) => Some(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("{error}"),
            };
            accepted.is_some()
        });
        let stream = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        Process { child, stream, lines }
    }

    /// Sends a command.
    pub(crate) fn send_line(&mut self, what: &str) {
        writeln!(self.stream, "{what}").unwrap();
    }

    /// Waits for the reply to a command.
    pub(crate) fn read_line(&mut self) -> String {
        self.lines.next().expect("the process lives").unwrap()
    }

    pub(crate) fn ask(&mut self, what: &str) -> String {
        self.send_line(what);
        self.read_line()
    }

    /// Closes the connection and waits until the process ends by itself.
    pub(crate) fn end(mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn stop(&self) {
        // SAFETY: a plain system call. The child has not been waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(self.pid(), libc::SIGSTOP) }, 0);
        self.wait_until_stopped();
    }

    pub(crate) fn wait_until_stopped(&self) {
        let mut status = 0;
        // SAFETY: waits for a child of this process for which no other code waits.
        let waited = unsafe { libc::waitpid(self.pid(), &mut status, libc::WUNTRACED) };
        assert!(waited == self.pid() && libc::WIFSTOPPED(status), "{status}");
    }

    pub(crate) fn go_on(&self) {
        // SAFETY: a plain system call. The child has not been waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(self.pid(), libc::SIGCONT) }, 0);
    }

    pub(crate) fn pid(&self) -> libc::pid_t {
        self.child.id().try_into().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both calls do nothing when the child has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a command to all processes, then waits for all replies.
pub(crate) fn each(processes: &mut [Process], what: &str) -> Vec<String> {
    processes.iter_mut().for_each(|process| process.send_line(what));
    processes.iter_mut().map(Process::read_line).collect()
}

/// The port of the test that started this process, if a test did.
pub(crate) fn port() -> Option<String> {
    std::env::var(PORT).ok()
}

const PORT: &str = "EVERTOKEN_TEST_PORT";
