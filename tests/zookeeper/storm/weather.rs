//! What fails, when, and for how long.

use lock_tests::ZooKeeperServer;
use lock_tests::storm::Weather;
use lock_tests::workers::Workers;

pub(super) struct Sea {
    pub(super) server: ZooKeeperServer,
    pub(super) weather: Weather,
}

#[derive(Clone, Copy)]
enum Blow {
    Network,
    Reset,
    Freeze,
    Kill,
    FreezeServer,
    RestartServer,
}

/// Those that hit one process only come more often than those that stop all. Nobody closes a
/// session or deletes a node of others: the server lets the next one in before the holder is told.
const BLOWS: [Blow; 15] = [
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Network,
    Blow::Reset,
    Blow::Reset,
    Blow::Reset,
    Blow::Freeze,
    Blow::Freeze,
    Blow::Kill,
    Blow::FreezeServer,
    Blow::FreezeServer,
    Blow::RestartServer,
];

impl Sea {
    /// One more fault, and the end of those whose time is over.
    pub(super) async fn strike(&mut self, workers: &mut Workers) {
        let weather = &mut self.weather;
        let place = weather.gather(workers).await;
        match weather.seeded.one_of(&BLOWS) {
            Blow::Network => {
                let flow = weather.any_flow();
                weather.network(workers, place, flow, 20..4_000);
            }
            Blow::Reset => weather.reset(workers, place),
            Blow::Freeze => weather.freeze(workers, place, 20..5_000),
            Blow::Kill => weather.kill(workers, place).await,
            Blow::FreezeServer => {
                weather
                    .freeze_server(self.server.process(), 50..3_000)
                    .await;
            }
            Blow::RestartServer => {
                tokio::task::block_in_place(|| {
                    self.server.kill();
                    self.server.start_again();
                });
                weather.count("server restarted", 1);
            }
        }
    }
}
