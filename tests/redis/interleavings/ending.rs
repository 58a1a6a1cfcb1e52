//! How everybody comes to an end: whoever waits is served, and nothing is left.

use std::time::Duration;

use super::judge::Verdict;
use super::world::{Holding, Kind, Mode, State, World};

/// How long everybody may take to be served when nobody comes any more.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

impl World<'_> {
    pub(super) async fn everybody_is_served(&mut self) -> Verdict {
        let start = tokio::time::Instant::now();
        loop {
            let mut waits = false;
            for client in 0..self.clients.len() {
                match self.clients[client].state.clone() {
                    State::Idle => {}
                    State::Waiting(_) => waits = true,
                    State::Upgrading(upgrading) => {
                        waits = true;
                        if upgrading.reader.until <= self.now().await {
                            self.withdraw(client, upgrading).await?;
                        }
                    }
                    State::Polling { owner, lease } => {
                        waits = true;
                        self.poll_once(client, &owner, lease).await?;
                    }
                    State::Holding(holding) if self.clients[client].is_dotnet => {
                        self.hold_as_dotnet(client, holding).await?;
                    }
                    State::Holding(holding) => self.hold_until_released(client, holding).await?,
                }
            }
            if !waits {
                return Ok(());
            }
            if start.elapsed() > SERVED_WITHIN {
                return Err("somebody waits for ever".to_owned());
            }
            self.look().await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) async fn hold_until_released(&mut self, client: usize, holding: Holding) -> Verdict {
        if !holding.kept {
            let mode = holding.mode.text();
            self.script("RELEASE", &[&holding.owner, &mode]).await;
        } else if holding.until > self.now().await {
            return Ok(());
        }
        self.clients[client].state = State::Idle;
        self.settle(None).await
    }

    pub(super) async fn nothing_is_left(&mut self) -> Verdict {
        let start = tokio::time::Instant::now();
        let mode = match self.kind {
            Kind::ReadWrite => Mode::Write,
            Kind::Permits => Mode::Permits { limit: 2, take: 2 },
        };
        loop {
            // What crashed is dropped by whoever comes next.
            let owner = format!("lk1:host:1:{:032x}", self.number());
            let args = [owner.as_str(), "100", "1", "", &mode.text()];
            self.script("ACQUIRE", &args).await;
            self.script("RELEASE", &[&owner, &mode.text()]).await;
            let keys: Vec<String> = self.ask(&["KEYS", "*"]).await;
            let mut left = Vec::new();
            for key in keys.iter().filter(|key| *key != "lk1:fence") {
                let life: i64 = self.ask(&["PTTL", key]).await;
                left.push(format!("{key} for {life} ms"));
                if life == -1 {
                    return Err(format!("{key} lives for ever"));
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > SERVED_WITHIN {
                return Err(format!("left: {left:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
