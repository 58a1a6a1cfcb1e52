//! Another process that competes.

use std::future::ready;
use std::process::ExitCode;
use std::time::Duration;

use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, boot_nanos};
use tokio::runtime::Runtime;

use crate::child::SERVERS;
use crate::leases;
use crate::locks::{Clients, Kind, Way};
use crate::raw::Channel;
use crate::usage::{Crowd, Hold, Incessant, Repeat};

/// The channel to which raw messages are published.
pub(crate) const CHANNEL: &str = "raw:channel";

/// Serves as such a process until its input ends. `None` if this process is not one.
pub(crate) fn serve(runtime: &Runtime) -> Option<ExitCode> {
    let url = std::env::var(SERVERS).ok()?;
    let mut process = Served {
        clients: Clients::new(url),
        channel: None,
        link: None,
    };
    for line in std::io::stdin().lines() {
        let line = line.expect("commands are text");
        let words: Vec<_> = line.split(' ').collect();
        let numbers = runtime.block_on(process.obey(&words));
        let words: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        println!("{}", words.join(" "));
    }
    Some(ExitCode::SUCCESS)
}

struct Served {
    clients: Clients,
    channel: Option<Channel>,
    link: Option<FaultProxy>,
}

impl Served {
    /// Obeys one line, and answers with numbers.
    async fn obey(&mut self, words: &[&str]) -> Vec<f64> {
        let clients = &self.clients;
        match words {
            ["hold", way @ .., number] => {
                let number = std::iter::once(parse(number));
                let hold = clients.with_locks(read(way), number, Hold(ready(())));
                vec![hold.await.0 as f64]
            }
            ["subscribe"] => {
                self.channel = Some(Channel::subscribe(&clients.url, CHANNEL).await);
                vec![0.0]
            }
            ["hear"] => {
                let channel = self.channel.as_ref().expect("subscribed before");
                channel.hear().await;
                vec![boot_nanos() as f64]
            }
            ["crowd", way @ .., number, tasks, sections] => {
                let (way, sections) = (read(way), parse(sections));
                let numbers = (0..parse(tasks)).map(|_| parse(number));
                let (at_once, hold) = (way.kind.at_once(), Duration::ZERO);
                let crowd = Crowd {
                    sections,
                    at_once,
                    hold,
                };
                vec![clients.with_locks(way, numbers, crowd).await.as_secs_f64()]
            }
            ["incessant", way @ .., number, tasks, hold_in_ms, time_in_ms] => {
                let numbers = (0..parse(tasks)).map(|_| parse(number));
                let millis = |word| Duration::from_millis(parse(word));
                let (hold, time) = (millis(hold_in_ms), millis(time_in_ms));
                let incessant = Incessant { hold, time };
                vec![clients.with_locks(read(way), numbers, incessant).await as f64]
            }
            ["repeat", way @ .., first, tasks, operations] => {
                let numbers = parse(first)..parse(first) + parse(tasks);
                let repeat = clients.with_locks(read(way), numbers, Repeat(parse(operations)));
                vec![repeat.await.as_secs_f64()]
            }
            // It goes on by itself, and answers with the port on which it listens.
            ["link", port, micros] => {
                let link = FaultProxy::start(parse(port) as u16).await;
                let delay = Flow::Delay(Duration::from_micros(parse(micros)));
                link.set(|fault| (fault.to_server, fault.to_client) = (delay, delay));
                vec![f64::from(self.link.insert(link).port())]
            }
            ["leases", kind, count, millis] => {
                let kind = Kind::parse(kind).expect("a kind");
                let lease = Duration::from_millis(parse(millis));
                let cost = leases::hold(clients, kind, parse(count), lease).await;
                vec![cost.lost, cost.cpu, cost.bytes]
            }
            unknown => panic!("unknown command {unknown:?}"),
        }
    }
}

fn read(way: &[&str]) -> Way {
    let [kind, retry] = way else {
        panic!("expected a kind and a pause, got {way:?}");
    };
    let kind = Kind::parse(kind).expect("a kind");
    kind.every(Duration::from_millis(parse(retry)))
}

fn parse(word: &str) -> u64 {
    word.parse().expect("a number")
}
