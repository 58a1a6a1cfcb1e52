//! What the clients of the .NET library do.

use super::judge::Verdict;
use super::world::{Holding, LEASES, Mode, State, World};
use crate::dotnet::MARK;

impl World<'_> {
    pub(super) async fn come_as_dotnet(&mut self, client: usize) -> Verdict {
        let lease = self.rng.one_of(&LEASES);
        let owner = format!("net_{}", self.number());
        let before = self.now().await;
        let mode = match self.mode() {
            Mode::Permits { limit, .. } => Mode::Permits { limit, take: 1 },
            Mode::Upgradeable => Mode::Read,
            mode => mode,
        };
        let granted = match mode {
            Mode::Read | Mode::Upgradeable => self.dotnet.read(&owner, lease).await,
            Mode::Write => self.dotnet.write(&owner, lease).await,
            Mode::Permits { limit, .. } => self.dotnet.permit(&owner, lease, limit).await,
        };
        if granted {
            let until = before + lease;
            return self
                .granted(client, owner, mode, lease, until, None, true)
                .await;
        }
        if mode == Mode::Write && self.rng.below(2) == 0 {
            self.dotnet.mark(&owner, lease).await;
            self.clients[client].state = State::Polling { owner, lease };
        }
        Ok(())
    }

    pub(super) async fn poll(&mut self, client: usize, owner: &str, lease: u64) -> Verdict {
        match self.rng.below(10) {
            0..8 => self.poll_once(client, owner, lease).await,
            at => {
                if at == 8 {
                    self.dotnet.release_write(&format!("{owner}{MARK}")).await;
                }
                self.clients[client].state = State::Idle;
                Ok(())
            }
        }
    }

    pub(super) async fn poll_once(&mut self, client: usize, owner: &str, lease: u64) -> Verdict {
        let before = self.now().await;
        if self.dotnet.write(owner, lease).await {
            let (owner, until) = (owner.to_owned(), before + lease);
            return self
                .granted(client, owner, Mode::Write, lease, until, None, true)
                .await;
        }
        self.dotnet.mark(owner, lease).await;
        Ok(())
    }

    pub(super) async fn hold_as_dotnet(&mut self, client: usize, holding: Holding) -> Verdict {
        let at = self.rng.below(10);
        if at < 5 {
            return Ok(());
        }
        self.clients[client].state = State::Idle;
        if at < 9 {
            match holding.mode {
                Mode::Read | Mode::Upgradeable => self.dotnet.release_read(&holding.owner).await,
                Mode::Write => self.dotnet.release_write(&holding.owner).await,
                Mode::Permits { .. } => self.dotnet.release_permit(&holding.owner).await,
            }
        }
        Ok(())
    }
}
