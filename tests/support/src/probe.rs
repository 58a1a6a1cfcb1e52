//! Another process that takes locks on command: the program `lock-probe` of this package.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::child::{end, freeze, signal};
use crate::history::Held;
use crate::unprivileged::unprivileged;

/// A process that takes one lock of a provider, line by line as the test tells it.
///
/// Dropping it kills the process. These are the commands, and what it answers:
///
/// - `as MODE`: nothing. From now on its lock is of this mode: `exclusive`, as at first, `read`,
///   `write`, `upgradeable` or `TAKE/LIMIT`.
/// - `acquire`, `acquire-for MS` and `try`: `acquired NANOS TOKEN`, or `failed KIND MESSAGE`.
/// - `upgrade`: the same. Its upgradeable read becomes a write.
/// - `several NAMES`: the same, with the token 0, for the mutexes of these names, which are separated
///   by commas. `several-lost` answers as `is-lost` does.
/// - `hammer`: `acquired NANOS -` when it has the lock. It tries again and again without a pause.
/// - `job MS`: `job ran NANOS` or `job skipped`. It calls a job with this `min_hold`, under a
///   lock of its mode, which is skipped where the lock is held.
/// - `wait MODE` and `try MODE`: `granted NANOS TOKEN`, or `failed KIND MESSAGE`. They ask the
///   provider itself.
/// - `give-back`: `given-back` or `failed KIND MESSAGE`.
/// - `mix MS SEED MODE…`: `window NAME MODE FROM UNTIL TOKEN` for each grant, then `done`. It
///   takes these modes at random.
/// - `release`: `releasing NANOS`, then `released` or `failed KIND MESSAGE`.
/// - `drop`: `dropped`. The guard is dropped, not released.
/// - `is-lost`: `lost NANOS` or `valid NANOS`.
/// - `watch`: `lost NANOS` when the loss is signalled.
/// - `work ROUNDS FILE`: `held FROM UNTIL TOKEN` for each round, then `done`. It adds one to the
///   number in the file in each round, without any other protection.
/// - `contend PORT SEED`: `contending`, then `grant NAME FROM UNTIL TOKEN` for each grant. It
///   contends for each of the locks in `NAME`, which are separated by commas. It writes to the
///   [`RegisterServer`](crate::RegisterServer) at the port. Where a write was refused under a lock
///   that is not lost, `refused NAME TOKEN NANOS` follows.
/// - `contend-modes PORT SEED`: the same for locks of other kinds. Names that contain `rw` are
///   reader–writer locks, those that contain `permits` are semaphores. It says
///   `window NAME MODE FROM UNTIL TOKEN` for each grant. With port 0 there is no register.
/// - `share NAMES MS`: `shared WORST FEWEST MOST SECTIONS`. It contends for so many names for so
///   long, as [`contend`](crate::fairness::contend) does; the first number is in microseconds.
/// - `stop`: `done` when it contends no more.
/// - `child`: `child PID`. It starts a process that outlives the probe.
/// - `keys`: `keys N`, the number of keys in use in its process.
/// - `leave MILLIS exit` or `leave MILLIS kill`: `leaving`, and it ends. It calls a function that
///   holds the lock for so long, whose release is not waited for. It ends in the moment in which
///   that returns.
/// - `exit`: nothing. It ends at once, without releasing.
///
/// `NANOS` are those of [`boot_nanos`](crate::boot_nanos), and a missing token is 0.
#[derive(Debug)]
pub struct Probe {
    child: Child,
    input: Option<ChildStdin>,
    lines: UnboundedReceiver<String>,
    name: String,
}

impl Probe {
    /// Starts the program for the lock of this name on the provider with this URL.
    pub fn start(program: &Path, url: &str, name: &str) -> Self {
        Self::run(Command::new(program), url, name)
    }

    /// Starts the program as another user, where the tests run as root.
    pub fn start_unprivileged(program: &Path, url: &str, name: &str) -> Self {
        Self::run(unprivileged(Command::new(program)), url, name)
    }

    fn run(mut command: Command, url: &str, name: &str) -> Self {
        command
            .args([url, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the probe starts");
        let output = child.stdout.take().expect("its output is piped");
        let (sender, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        Self {
            child,
            input,
            lines,
            name: name.to_owned(),
        }
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        let status = self.child.try_wait();
        status
            .expect("a child can be asked for its state")
            .is_none()
    }

    /// Sends a command.
    pub fn tell(&mut self, command: &str) {
        let input = self.input.as_mut().expect("the probe takes commands");
        writeln!(input, "{command}").expect("the probe takes commands");
    }

    /// Waits for the next line, and returns its words. The first word must be this one.
    ///
    /// # Panics
    ///
    /// If another line comes, or none within the bound.
    pub async fn expect(&mut self, word: &str, bound: Duration) -> Vec<String> {
        let line = match tokio::time::timeout(bound, self.lines.recv()).await {
            Ok(line) => line.unwrap_or_else(|| panic!("expected `{word}`, and the probe ended")),
            Err(_) => panic!("expected `{word}` within {bound:?}"),
        };
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(words[0], word, "the probe said: {line}");
        words
    }

    /// Returns a line that has come and was not asked for.
    pub fn surprise(&mut self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Sends a command and awaits its answer.
    pub async fn ask(&mut self, command: &str, word: &str, bound: Duration) -> Vec<String> {
        self.tell(command);
        self.expect(word, bound).await
    }

    /// Waits for a line that consists of this word, or for the end of a probe that was killed.
    /// Returns the lines before.
    pub async fn lines_until(&mut self, last: &str, bound: Duration) -> Vec<String> {
        let all = async {
            let mut lines = Vec::new();
            while let Some(line) = self.lines.recv().await {
                if line == last {
                    break;
                }
                lines.push(line);
            }
            lines
        };
        let lines = tokio::time::timeout(bound, all).await;
        lines.unwrap_or_else(|_| panic!("expected `{last}` within {bound:?}"))
    }

    /// Waits for the `done` of a `work` command, and returns the grants.
    pub async fn finish_work(&mut self, bound: Duration) -> Vec<Held> {
        let all = async {
            let mut grants = Vec::new();
            while let Some(line) = self.lines.recv().await {
                if line == "done" {
                    return grants;
                }
                grants.push(self.parse_held(&line));
            }
            panic!("the probe ended at its work, after {} grants", grants.len());
        };
        tokio::time::timeout(bound, all)
            .await
            .expect("the work is done within the bound")
    }

    fn parse_held(&self, line: &str) -> Held {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!(
            (words[0], words.len()),
            ("held", 4),
            "the probe said: {line}"
        );
        let numbers: Vec<u64> = words[1..]
            .iter()
            .map(|word| word.parse().unwrap())
            .collect();
        Held {
            name: self.name.clone(),
            holder: self.id().to_string(),
            from: numbers[0],
            until: numbers[1],
            token: Some(numbers[2]).filter(|token| *token > 0),
        }
    }

    /// Stops it with `SIGSTOP`, and returns when it has stopped.
    pub fn freeze(&self) {
        freeze(&self.child);
    }

    /// Lets it go on with `SIGCONT`.
    pub fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Ends it with `SIGKILL` and waits until it is gone.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    ///
    /// If it has not within the bound.
    pub async fn ended(&mut self, bound: Duration) {
        // Its output ends a moment before it does.
        let last = tokio::time::timeout(bound, self.lines.recv()).await;
        match last {
            Ok(None) => {}
            Ok(Some(line)) => panic!("expected its end, the probe said: {line}"),
            Err(_) => panic!("it has not ended within {bound:?}"),
        }
        self.child.wait().expect("the probe can be waited for");
    }

    /// Tells it to end without releasing, and waits until it is gone.
    pub fn exit(&mut self) {
        self.tell("exit");
        let status = self.child.wait().expect("the probe can be waited for");
        assert!(status.success(), "the probe ended with {status}");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.kill();
    }
}
