//! The server that the nemesis attacks, and the faults that it chooses from.

use std::time::{Duration, Instant};

use lock_tests::PostgresServer;
use lock_tests::nemesis::Nemesis;
use lock_tests::proxy::Flow;
use lock_tests::workers::Workers;
use rustix::process::{Pid, Signal, kill_process};

pub(super) struct Cluster {
    pub(super) server: PostgresServer,
    pub(super) nemesis: Nemesis,
    pub(super) faults: &'static [Fault],
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Network,
    SlowNetwork,
    Reset,
    Cut,
    Freeze,
    Kill,
    Cancel,
    Terminate,
    FreezeServer,
    CrashOneProcess,
    CrashServer,
}

/// The choices. A fault of one process comes more often than one that stops all of them.
pub(super) const SLOW: [Fault; 12] = [
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::SlowNetwork,
    Fault::Freeze,
    Fault::Freeze,
    Fault::Kill,
    Fault::Cancel,
    Fault::Cancel,
    Fault::FreezeServer,
];

/// The choices among which none keeps a holder from hearing that its session has ended.
pub(super) const SUDDEN: [Fault; 14] = [
    Fault::SlowNetwork,
    Fault::SlowNetwork,
    Fault::Reset,
    Fault::Reset,
    Fault::Reset,
    Fault::Cut,
    Fault::Cut,
    Fault::Kill,
    Fault::Cancel,
    Fault::Terminate,
    Fault::Terminate,
    Fault::Terminate,
    Fault::CrashOneProcess,
    Fault::CrashServer,
];

impl Cluster {
    /// Injects one more fault, and ends those whose time is over.
    pub(super) async fn inject(&mut self, workers: &mut Workers) {
        let nemesis = &mut self.nemesis;
        let place = nemesis.next_target(workers).await;
        match nemesis.rng.one_of(self.faults) {
            Fault::Network => {
                let delay = nemesis.rng.millis(5..400);
                let flows = [Flow::Delay(delay), Flow::Swallow, Flow::Hold];
                let flow = nemesis.rng.one_of(&flows);
                nemesis.network(workers, place, flow, 20..2_500);
            }
            Fault::SlowNetwork => {
                let delay = Flow::Delay(nemesis.rng.millis(1..30));
                nemesis.network(workers, place, delay, 20..1_000);
            }
            Fault::Cut => nemesis.network(workers, place, Flow::Cut, 5..300),
            Fault::Reset => nemesis.reset(workers, place),
            Fault::Freeze => nemesis.freeze(workers, place, 20..3_000),
            Fault::Kill => nemesis.kill(workers, place).await,
            Fault::FreezeServer => {
                self.server.freeze();
                tokio::time::sleep(self.nemesis.rng.millis(50..1_500)).await;
                self.server.thaw();
                self.nemesis.count("server frozen", 1);
            }
            Fault::Cancel => {
                let cancelled = self.of_locks("count(pg_cancel_backend(pid))");
                self.nemesis.count("requests cancelled", cancelled);
            }
            Fault::Terminate => {
                let ended = self.of_locks("count(pg_terminate_backend(pid))");
                self.nemesis.count("sessions ended", ended);
            }
            Fault::CrashOneProcess => {
                let victim = Pid::from_raw(self.of_locks("max(pid)") as i32);
                if victim.is_some_and(|victim| kill_process(victim, Signal::KILL).is_ok()) {
                    self.nemesis.count("server's processes crashed", 1);
                }
            }
            Fault::CrashServer => {
                tokio::task::block_in_place(|| {
                    self.server.kill();
                    self.server.start_again();
                });
                self.nemesis.count("server crashed", 1);
            }
        }
    }

    /// Ends every fault, and waits until the server works again.
    pub(super) async fn clear(&mut self, workers: &mut Workers) {
        self.nemesis.clear(workers);
        // One that has crashed may still be coming back.
        let start = Instant::now();
        while self.server.psql("postgres", "SELECT 1").is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "it comes back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks for `what` of the sessions that hold an advisory lock or wait for one. Answers zero if
    /// the server is away.
    fn of_locks(&self, what: &str) -> u64 {
        let sql = format!(
            "SELECT {what} FROM \
             (SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory') AS of"
        );
        let answer = tokio::task::block_in_place(|| self.server.psql("postgres", &sql));
        answer.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}
