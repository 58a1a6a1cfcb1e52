//! What fails, when, and for how long.

use lock_tests::RedisServer;
use lock_tests::storm::Weather;
use lock_tests::workers::Workers;

use crate::common::Raw;

pub(super) struct Sea {
    pub(super) server: RedisServer,
    pub(super) weather: Weather,
    /// The key of the fencing tokens.
    pub(super) counter: String,
}

#[derive(Debug, Clone, Copy)]
enum Blow {
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

/// Those that hit one process only come more often than those that stop all.
const BLOWS: [Blow; 17] = [
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Reset,
    Blow::Reset,
    Blow::Freeze,
    Blow::Freeze,
    Blow::Kill,
    Blow::ClientKill,
    Blow::ClientPause,
    Blow::ScriptFlush,
    Blow::LostCounter,
    Blow::FullServer,
    Blow::FreezeServer,
    Blow::RestartServer,
];

impl Sea {
    /// One more fault, and the end of those whose time is over.
    pub(super) async fn strike(&mut self, workers: &mut Workers) {
        let weather = &mut self.weather;
        let place = weather.gather(workers).await;
        let blow = weather.seeded.one_of(&BLOWS);
        match blow {
            Blow::Network => {
                let flow = weather.any_flow();
                weather.network(workers, place, flow, 20..2_500);
            }
            Blow::Reset => weather.reset(workers, place),
            Blow::Freeze => weather.freeze(workers, place, 20..3_000),
            Blow::Kill => weather.kill(workers, place).await,
            Blow::FreezeServer => {
                weather
                    .freeze_server(self.server.process(), 50..1_200)
                    .await;
            }
            Blow::RestartServer => {
                tokio::task::block_in_place(|| self.server.restart());
                weather.count("server restarted", 1);
            }
            Blow::ClientKill
            | Blow::ClientPause
            | Blow::ScriptFlush
            | Blow::LostCounter
            | Blow::FullServer => self.command(blow).await,
        }
    }

    async fn command(&mut self, blow: Blow) {
        let raw = Raw::connect(&self.server.url()).await;
        match blow {
            Blow::ClientKill => {
                let kind = self.weather.seeded.one_of(&["pubsub", "normal"]);
                let killed = raw.ask(&format!("CLIENT KILL TYPE {kind}")).await;
                self.weather.count("clients killed", killed);
            }
            Blow::ClientPause => {
                let pause = self.weather.seeded.millis(20..600);
                let which = self.weather.seeded.one_of(&["ALL", "WRITE"]);
                let pausing = format!("CLIENT PAUSE {} {which}", pause.as_millis());
                raw.ask::<String>(&pausing).await;
                // Nobody can connect meanwhile, not even who is to come next.
                tokio::time::sleep(pause).await;
                self.weather.count("clients paused", 1);
            }
            Blow::ScriptFlush => {
                raw.ask::<String>("SCRIPT FLUSH").await;
                self.weather.count("scripts flushed", 1);
            }
            Blow::FullServer => {
                raw.ask::<String>("CONFIG SET maxmemory 1").await;
                tokio::time::sleep(self.weather.seeded.millis(20..1_500)).await;
                raw.ask::<String>("CONFIG SET maxmemory 0").await;
                self.weather.count("memory full", 1);
            }
            _ => {
                let deleted = raw.ask(&format!("DEL {}", self.counter)).await;
                self.weather.count("counter deleted", deleted);
            }
        }
    }
}
