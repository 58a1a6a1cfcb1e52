//! A process that ends with its owner.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// A child process whose output goes to a log file.
///
/// Dropping it kills the process, and shows the end of the log if the test is failing.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    log: PathBuf,
}

/// Ends a process when this one ends, however that happens. A server that several tests share is in
/// a static, which nobody drops.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Watches over the process with this id.
    pub fn over(id: u32) -> std::io::Result<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-c", "cat >/dev/null; kill -9 \"$0\"", &id.to_string()])
            // Closed by the system when this process is gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Watchdog {
    /// Leaves the process alone, since its id may soon be another one's.
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

impl ChildProcess {
    /// Starts the command, whose output is appended to the log.
    pub fn spawn(mut command: Command, log: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self {
            child: command.spawn()?,
            log: log.to_owned(),
        })
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns how it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("a child can be asked for its state")
    }

    /// Stops it with `SIGSTOP`, and returns when it has stopped. Its connections stay open, and
    /// nothing answers.
    pub fn freeze(&self) {
        freeze(&self.child);
    }

    /// Lets it go on with `SIGCONT`.
    pub fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Asks it to end at once, with `SIGQUIT`, and waits until it is gone.
    pub fn quit(&mut self) {
        if self.exit_status().is_none() {
            signal(&self.child, Signal::QUIT);
            let _ = self.child.wait();
        }
    }

    /// Ends it with `SIGKILL` and waits until it is gone.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the last lines of {}:", self.log.display());
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("    {line}");
            }
        }
    }
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a child that runs takes signals");
}

/// Stops a child and waits until all of its threads have stopped, which is later than the signal.
pub(crate) fn freeze(child: &Child) {
    signal(child, Signal::STOP);
    let status = waitpid(Some(Pid::from_child(child)), WaitOptions::UNTRACED);
    let (_, status) = status
        .expect("a child can be waited for")
        .expect("it has stopped");
    assert!(status.stopped(), "the child ended: {status:?}");
}

/// Kills a child, which may be stopped or gone, and waits for it.
pub(crate) fn end(child: &mut Child) {
    // Both fail only for a child that was waited for, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}
