//! The server that the nemesis attacks, and the faults that it chooses from.

use lock_tests::RedisServer;
use lock_tests::nemesis::Nemesis;
use lock_tests::workers::Workers;

use crate::common::Raw;

pub(super) struct Cluster {
    pub(super) server: RedisServer,
    pub(super) nemesis: Nemesis,
    /// The key of the fencing tokens.
    pub(super) counter: String,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Network,
    Reset,
    Freeze,
    Kill,
    ClientKill,
    ClientPause,
    ScriptFlush,
    LostCounter,
    FullServer,
    FreezeServer,
    RestartServer,
}

/// The choices. A fault of one process comes more often than one that stops all of them.
const FAULTS: [Fault; 17] = [
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Reset,
    Fault::Reset,
    Fault::Freeze,
    Fault::Freeze,
    Fault::Kill,
    Fault::ClientKill,
    Fault::ClientPause,
    Fault::ScriptFlush,
    Fault::LostCounter,
    Fault::FullServer,
    Fault::FreezeServer,
    Fault::RestartServer,
];

impl Cluster {
    /// Injects one more fault, and ends those whose time is over.
    pub(super) async fn inject(&mut self, workers: &mut Workers) {
        let nemesis = &mut self.nemesis;
        let place = nemesis.next_target(workers).await;
        let fault = nemesis.rng.one_of(&FAULTS);
        match fault {
            Fault::Network => {
                let flow = nemesis.any_flow();
                nemesis.network(workers, place, flow, 20..2_500);
            }
            Fault::Reset => nemesis.reset(workers, place),
            Fault::Freeze => nemesis.freeze(workers, place, 20..3_000),
            Fault::Kill => nemesis.kill(workers, place).await,
            Fault::FreezeServer => {
                nemesis
                    .freeze_server(self.server.process(), 50..1_200)
                    .await;
            }
            Fault::RestartServer => {
                tokio::task::block_in_place(|| self.server.restart());
                nemesis.count("server restarted", 1);
            }
            Fault::ClientKill
            | Fault::ClientPause
            | Fault::ScriptFlush
            | Fault::LostCounter
            | Fault::FullServer => self.command(fault).await,
        }
    }

    async fn command(&mut self, fault: Fault) {
        let raw = Raw::connect(&self.server.url()).await;
        match fault {
            Fault::ClientKill => {
                let kind = self.nemesis.rng.one_of(&["pubsub", "normal"]);
                let killed = raw.ask(&format!("CLIENT KILL TYPE {kind}")).await;
                self.nemesis.count("clients killed", killed);
            }
            Fault::ClientPause => {
                let pause = self.nemesis.rng.millis(20..600);
                let which = self.nemesis.rng.one_of(&["ALL", "WRITE"]);
                let pausing = format!("CLIENT PAUSE {} {which}", pause.as_millis());
                raw.ask::<String>(&pausing).await;
                // Nobody can connect meanwhile, not even who is to come next.
                tokio::time::sleep(pause).await;
                self.nemesis.count("clients paused", 1);
            }
            Fault::ScriptFlush => {
                raw.ask::<String>("SCRIPT FLUSH").await;
                self.nemesis.count("scripts flushed", 1);
            }
            Fault::FullServer => {
                raw.ask::<String>("CONFIG SET maxmemory 1").await;
                tokio::time::sleep(self.nemesis.rng.millis(20..1_500)).await;
                raw.ask::<String>("CONFIG SET maxmemory 0").await;
                self.nemesis.count("memory full", 1);
            }
            _ => {
                let deleted = raw.ask(&format!("DEL {}", self.counter)).await;
                self.nemesis.count("counter deleted", deleted);
            }
        }
    }
}
