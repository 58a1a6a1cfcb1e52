//! Several servers, of which one leads, and the ways between them.

use super::{Installation, ZooKeeperServer};
use crate::proxy::{FaultProxy, Flow};
use crate::scratch::{Scratch, free_port};

/// An ensemble on this machine. Each server reaches each other one through a proxy of its own.
#[derive(Debug)]
pub struct Ensemble {
    /// Its servers.
    pub servers: Vec<ZooKeeperServer>,
    ways: Vec<Way>,
}

/// From one server to another, for what followers and leaders tell each other and for elections.
#[derive(Debug)]
struct Way {
    from: usize,
    to: usize,
    quorum: FaultProxy,
    election: FaultProxy,
}

impl Ensemble {
    /// Starts so many servers, which take each other for dead after so many ticks of silence, and
    /// waits until all serve; `None` where none is installed.
    pub async fn start(size: usize, sync_limit: u32) -> Option<Self> {
        let installation = Installation::find()?;
        for _ in 0..5 {
            let mut ensemble = Self::new(&installation, size, sync_limit).await;
            let servers = &mut ensemble.servers;
            let launched = servers.iter_mut().all(|server| server.launch().is_ok());
            let mut serve = || {
                servers
                    .iter_mut()
                    .all(|server| server.until_serving().is_ok())
            };
            if launched && tokio::task::block_in_place(&mut serve) {
                return Some(ensemble);
            }
        }
        panic!("the ensemble did not start in five attempts; its logs are above");
    }

    async fn new(installation: &Installation, size: usize, sync_limit: u32) -> Self {
        let ports: Vec<_> = (0..size).map(|_| (free_port(), free_port())).collect();
        let mut ways = Vec::new();
        let mut servers = Vec::new();
        for from in 0..size {
            let mut settings = vec!["initLimit=20".to_owned(), format!("syncLimit={sync_limit}")];
            for (to, &(mut quorum, mut election)) in ports.iter().enumerate() {
                if from != to {
                    let way = Way {
                        from,
                        to,
                        quorum: FaultProxy::start(quorum).await,
                        election: FaultProxy::start(election).await,
                    };
                    (quorum, election) = (way.quorum.port(), way.election.port());
                    ways.push(way);
                }
                settings.push(format!("server.{}=127.0.0.1:{quorum}:{election}", to + 1));
            }
            let scratch = Scratch::new();
            let id = (from + 1).to_string();
            std::fs::write(scratch.join("myid"), id).expect("scratch is writable");
            servers.push(ZooKeeperServer::new(
                installation,
                free_port(),
                scratch,
                settings,
            ));
        }
        Self { servers, ways }
    }

    /// Which one leads, and believes so; not this one.
    pub fn leader_but(&self, not: Option<usize>) -> Option<usize> {
        (0..self.servers.len()).find(|&place| Some(place) != not && self.servers[place].leads())
    }

    /// The clients' addresses of some of its servers.
    pub fn hosts(&self, places: impl IntoIterator<Item = usize>) -> String {
        let hosts: Vec<_> = places
            .into_iter()
            .map(|place| format!("127.0.0.1:{}", self.servers[place].port()))
            .collect();
        hosts.join(",")
    }

    /// What its servers have printed.
    pub fn logs(&self) -> String {
        let logs = self.servers.iter().zip(1..);
        logs.map(|(server, id)| format!("server {id}:\n{}\n", server.log()))
            .collect()
    }

    /// Cuts one server off from all others, but not from its clients. The others notice at once; it
    /// does only when it has not heard of them for long.
    pub fn cut_off(&self, place: usize) {
        for way in &self.ways {
            if way.from != place && way.to != place {
                continue;
            }
            way.election.set(|fault| fault.refuse = true);
            way.election.reset();
            way.quorum.set(|fault| {
                fault.refuse = true;
                fault.hides_close = true;
                fault.to_server = Flow::Swallow;
                fault.to_client = Flow::Swallow;
            });
            if way.to == place {
                way.quorum.set(|fault| fault.to_client = Flow::Cut);
            }
        }
    }
}
