//! The server that the nemesis attacks, and the faults that it chooses from.

use lock_tests::ZooKeeperServer;
use lock_tests::nemesis::Nemesis;
use lock_tests::workers::Workers;

pub(super) struct Cluster {
    pub(super) server: ZooKeeperServer,
    pub(super) nemesis: Nemesis,
}

#[derive(Clone, Copy)]
enum Fault {
    Network,
    Reset,
    Freeze,
    Kill,
    FreezeServer,
    RestartServer,
}

/// The choices. A fault of one process comes more often than one that stops all of them. No
/// fault closes a session or deletes a node: the server would let the next one in before the holder
/// is told.
const FAULTS: [Fault; 15] = [
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Network,
    Fault::Reset,
    Fault::Reset,
    Fault::Reset,
    Fault::Freeze,
    Fault::Freeze,
    Fault::Kill,
    Fault::FreezeServer,
    Fault::FreezeServer,
    Fault::RestartServer,
];

impl Cluster {
    /// Injects one more fault, and ends those whose time is over.
    pub(super) async fn inject(&mut self, workers: &mut Workers) {
        let nemesis = &mut self.nemesis;
        let place = nemesis.next_target(workers).await;
        match nemesis.rng.one_of(&FAULTS) {
            Fault::Network => {
                let flow = nemesis.any_flow();
                nemesis.network(workers, place, flow, 20..4_000);
            }
            Fault::Reset => nemesis.reset(workers, place),
            Fault::Freeze => nemesis.freeze(workers, place, 20..5_000),
            Fault::Kill => nemesis.kill(workers, place).await,
            Fault::FreezeServer => {
                nemesis
                    .freeze_server(self.server.process(), 50..3_000)
                    .await;
            }
            Fault::RestartServer => {
                tokio::task::block_in_place(|| {
                    self.server.kill();
                    self.server.start_again();
                });
                nemesis.count("server restarted", 1);
            }
        }
    }
}
