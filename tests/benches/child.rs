//! Other processes that compete: this program, started again.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The variable that makes this program such a process. It says where the servers are.
pub(crate) const SERVERS: &str = "LOCK_BENCH_PROCESS_SERVERS";

/// A process that does what it is told. It ends with whoever has started it.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(servers: &str) -> Self {
        let program = std::env::current_exe().expect("this program's file");
        let mut child = Command::new(program)
            .env(SERVERS, servers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts again");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self {
            child,
            input,
            output,
        }
    }

    pub(crate) fn tell(&mut self, words: &[&dyn std::fmt::Display]) {
        let words: Vec<_> = words.iter().map(ToString::to_string).collect();
        writeln!(self.input, "{}", words.join(" ")).expect("the process runs");
    }

    pub(crate) fn answer(&mut self) -> Vec<f64> {
        let line = self.output.next().expect("the process runs");
        let line = line.expect("its output is text");
        let numbers = line.split(' ').map(|word| word.parse().expect("a number"));
        numbers.collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
