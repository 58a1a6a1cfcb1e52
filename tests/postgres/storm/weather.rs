//! What fails, when, and for how long.

use std::time::{Duration, Instant};

use lock_tests::PostgresServer;
use lock_tests::proxy::Flow;
use lock_tests::storm::Weather;
use lock_tests::workers::Workers;
use rustix::process::{Pid, Signal, kill_process};

pub(super) struct Sea {
    pub(super) server: PostgresServer,
    pub(super) weather: Weather,
    pub(super) blows: &'static [Blow],
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Blow {
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

/// Those that hit one process only come more often than those that stop all.
pub(super) const SLOW: [Blow; 12] = [
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::SlowNetwork,
    Blow::Freeze,
    Blow::Freeze,
    Blow::Kill,
    Blow::Cancel,
    Blow::Cancel,
    Blow::FreezeServer,
];

/// Nothing here keeps a holder from hearing that its session has ended.
pub(super) const SUDDEN: [Blow; 14] = [
    Blow::SlowNetwork,
    Blow::SlowNetwork,
    Blow::Reset,
    Blow::Reset,
    Blow::Reset,
    Blow::Cut,
    Blow::Cut,
    Blow::Kill,
    Blow::Cancel,
    Blow::Terminate,
    Blow::Terminate,
    Blow::Terminate,
    Blow::CrashOneProcess,
    Blow::CrashServer,
];

impl Sea {
    /// One more fault, and the end of those whose time is over.
    pub(super) async fn strike(&mut self, workers: &mut Workers) {
        let weather = &mut self.weather;
        let place = weather.gather(workers).await;
        match weather.seeded.one_of(self.blows) {
            Blow::Network => {
                let delay = weather.seeded.millis(5..400);
                let flows = [Flow::Delay(delay), Flow::Swallow, Flow::Hold];
                let flow = weather.seeded.one_of(&flows);
                weather.network(workers, place, flow, 20..2_500);
            }
            Blow::SlowNetwork => {
                let delay = Flow::Delay(weather.seeded.millis(1..30));
                weather.network(workers, place, delay, 20..1_000);
            }
            Blow::Cut => weather.network(workers, place, Flow::Cut, 5..300),
            Blow::Reset => weather.reset(workers, place),
            Blow::Freeze => weather.freeze(workers, place, 20..3_000),
            Blow::Kill => weather.kill(workers, place).await,
            Blow::FreezeServer => {
                self.server.freeze();
                tokio::time::sleep(self.weather.seeded.millis(50..1_500)).await;
                self.server.thaw();
                self.weather.count("server frozen", 1);
            }
            Blow::Cancel => {
                let cancelled = self.of_locks("count(pg_cancel_backend(pid))");
                self.weather.count("requests cancelled", cancelled);
            }
            Blow::Terminate => {
                let ended = self.of_locks("count(pg_terminate_backend(pid))");
                self.weather.count("sessions ended", ended);
            }
            Blow::CrashOneProcess => {
                let victim = Pid::from_raw(self.of_locks("max(pid)") as i32);
                if victim.is_some_and(|victim| kill_process(victim, Signal::KILL).is_ok()) {
                    self.weather.count("server's processes crashed", 1);
                }
            }
            Blow::CrashServer => {
                tokio::task::block_in_place(|| {
                    self.server.kill();
                    self.server.start_again();
                });
                self.weather.count("server crashed", 1);
            }
        }
    }

    /// Everything works again.
    pub(super) async fn clear(&mut self, workers: &mut Workers) {
        self.weather.clear(workers);
        // One that has crashed may still be coming back.
        let start = Instant::now();
        while self.server.psql("postgres", "SELECT 1").is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "it comes back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Of the sessions that hold an advisory lock or wait for one; zero if the server is away.
    fn of_locks(&self, what: &str) -> u64 {
        let sql = format!(
            "SELECT {what} FROM (SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory') AS of"
        );
        let answer = tokio::task::block_in_place(|| self.server.psql("postgres", &sql));
        answer.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}
