//! A sentinel that the test plays. It says whatever the test wants, also what real ones say only in
//! rare moments.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

/// What it says.
#[derive(Clone, Debug)]
pub(crate) struct Says {
    pub(crate) service: &'static str,
    pub(crate) primary: u16,
    pub(crate) epoch: u64,
    /// The ports of the other sentinels.
    pub(crate) others: Vec<u16>,
    /// How long it takes to answer what is asked about the service.
    pub(crate) delay: Duration,
    /// What it answers, as it stands, to all questions about the service in place of the truth.
    pub(crate) nonsense: Option<&'static str>,
    /// Whether it hangs up after each answer about the service.
    pub(crate) hangs_up: bool,
}

impl Says {
    pub(crate) fn primary(port: u16, epoch: u64) -> Self {
        Self {
            service: "orders",
            primary: port,
            epoch,
            others: Vec::new(),
            delay: Duration::ZERO,
            nonsense: None,
            hangs_up: false,
        }
    }
}

pub(crate) struct Stub {
    pub(crate) port: u16,
    says: Arc<Mutex<Says>>,
    switches: broadcast::Sender<String>,
    asked: Arc<Mutex<u32>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Stub {
    pub(crate) async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let says = Arc::new(Mutex::new(says));
        let asked = Arc::new(Mutex::new(0));
        let (switches, _) = broadcast::channel(16);
        let accepting = tokio::spawn({
            let (says, switches, asked) = (says.clone(), switches.clone(), asked.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let served = serve(client, says.clone(), switches.subscribe(), asked.clone());
                    tokio::spawn(served);
                }
            }
        });
        Self {
            port,
            says,
            switches,
            asked,
            accepting,
        }
    }

    pub(crate) fn say(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.says.lock().unwrap());
    }

    /// Tells those who listen that the primary has changed.
    pub(crate) fn switch(&self, from: u16, to: u16) {
        let service = self.says.lock().unwrap().service;
        let message = format!("{service} 127.0.0.1 {from} 127.0.0.1 {to}");
        let _ = self.switches.send(message);
    }

    /// Ends all connections, and takes no more.
    pub(crate) fn hang_up(&self) {
        self.accepting.abort();
        // It is no message of any service.
        let _ = self.switches.send(String::new());
    }

    /// Returns how many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.switches.receiver_count()
    }

    /// Returns how often it was asked for a primary.
    pub(crate) fn asked(&self) -> u32 {
        *self.asked.lock().unwrap()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    client: TcpStream,
    says: Arc<Mutex<Says>>,
    mut switches: broadcast::Receiver<String>,
    asked: Arc<Mutex<u32>>,
) {
    let _ = client.set_nodelay(true);
    let (commands, mut answers) = client.into_split();
    let mut commands = BufReader::new(commands);
    loop {
        let command = tokio::select! {
            command = read(&mut commands) => command,
            message = switches.recv() => {
                let Ok(message) = message else { return };
                if message.is_empty() {
                    return;
                }
                let message = array('>', &["message", "+switch-master", &message]);
                if answers.write_all(message.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(command) = command else { return };
        let is_about =
            command.first().is_some_and(|word| word == "SENTINEL") && command[1] != "MYID";
        if is_about {
            *asked.lock().unwrap() += 1;
            let delay = says.lock().unwrap().delay;
            tokio::time::sleep(delay).await;
        }
        let answer = {
            let says = says.lock().unwrap();
            match says.nonsense.filter(|_| is_about) {
                Some(nonsense) => nonsense.to_owned(),
                None => answer(&command, &says),
            }
        };
        if answers.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        // The last of the three questions.
        let is_last = is_about && command[1] == "SENTINELS";
        if is_last && says.lock().unwrap().hangs_up {
            return;
        }
    }
}

/// Reads one command. It is given up only between commands, where nothing is lost.
async fn read(commands: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<String>> {
    // This waits for the beginning without taking it.
    if commands.fill_buf().await.ok()?.is_empty() {
        return None;
    }
    let count = number(commands).await?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number(commands).await? + 2];
        commands.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}

async fn number(commands: &mut (impl AsyncBufReadExt + Unpin)) -> Option<usize> {
    let mut line = String::new();
    commands.read_line(&mut line).await.ok()?;
    line.trim_end().get(1..)?.parse().ok()
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn array(kind: char, texts: &[&str]) -> String {
    let count = match kind {
        '%' => texts.len() / 2,
        _ => texts.len(),
    };
    let texts: String = texts.iter().map(|text| bulk(text)).collect();
    format!("{kind}{count}\r\n{texts}")
}

fn answer(command: &[String], says: &Says) -> String {
    let words: Vec<_> = command.iter().map(String::as_str).collect();
    let port = says.primary.to_string();
    match words.as_slice() {
        ["HELLO", ..] => array('%', &["version", "7.0.0", "mode", "sentinel"]),
        ["SUBSCRIBE", channel] => {
            format!(">3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel))
        }
        ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", service] => match *service == says.service {
            true => array('*', &["127.0.0.1", &port]),
            false => "*-1\r\n".to_owned(),
        },
        ["SENTINEL", _, service] if *service != says.service => {
            "-ERR No such master with that name\r\n".to_owned()
        }
        ["SENTINEL", "MASTER", _] => {
            let epoch = says.epoch.to_string();
            array(
                '%',
                &["ip", "127.0.0.1", "port", &port, "config-epoch", &epoch],
            )
        }
        ["SENTINEL", "SENTINELS", _] => {
            let others = says.others.iter().map(|port| {
                let port = port.to_string();
                array('%', &["ip", "127.0.0.1", "port", &port, "runid", &port])
            });
            format!("*{}\r\n{}", says.others.len(), others.collect::<String>())
        }
        ["SENTINEL", "MYID"] => "-ERR unknown\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    }
}
