//! What must hold, whatever the order of things.

use super::world::{Client, Holding, Mode, State};

/// What was broken, if anything.
pub(crate) type Verdict = Result<(), String>;

pub(crate) const HIGHEST_LIMIT: u32 = 3;

/// What was granted so far.
#[derive(Default)]
pub(crate) struct Judge {
    last_write: u64,
    last_of_all: u64,
}

impl Judge {
    /// Judges a grant that was made by `now`, among the others. A holder counts on less time than the
    /// server gives it, so who counts on it now was a holder at the grant. One that is not new was
    /// made before: others with higher limits may have come since.
    pub(crate) fn grant(
        &mut self,
        clients: &[Client],
        grant: &Holding,
        token: Option<u64>,
        is_new: bool,
        now: u64,
    ) -> Verdict {
        let others = clients.iter().filter_map(|client| match &client.state {
            State::Holding(other) if other.until > now => Some(other),
            State::Upgrading(other) if other.reader.until > now => Some(&other.reader),
            _ => None,
        });
        let upgrades = clients.iter().find(|client| {
            matches!(&client.state, State::Upgrading(upgrading) if upgrading.holds_back(now))
        });
        if let Some(upgrades) = upgrades
            && is_new
        {
            return Err(format!("{grant:?} past {:?} at {now}", upgrades.state));
        }
        let mut out = 0;
        for other in others {
            match (grant.mode, other.mode) {
                (Mode::Read, Mode::Read | Mode::Upgradeable) | (Mode::Upgradeable, Mode::Read) => {}
                (Mode::Permits { .. }, Mode::Permits { take, .. }) => out += take,
                _ => return Err(format!("{grant:?} beside {other:?} at {now}")),
            }
        }
        if let Mode::Permits { limit, take } = grant.mode
            && out + take > if is_new { limit } else { HIGHEST_LIMIT }
        {
            return Err(format!("{grant:?} beside {out} others"));
        }
        let Some(token) = token else {
            return Ok(());
        };
        let above = match grant.mode {
            Mode::Read | Mode::Upgradeable => self.last_write,
            Mode::Write => self.last_of_all,
            Mode::Permits { .. } => 0,
        };
        if token <= above {
            return Err(format!("{grant:?} has {token} after {above}"));
        }
        if grant.mode == Mode::Write {
            self.last_write = token;
        }
        self.last_of_all = self.last_of_all.max(token);
        Ok(())
    }

    /// Judges the order of those that were granted the lock in one step: nobody waits who came
    /// before.
    pub(crate) fn in_order(&self, clients: &[Client], granted: &[u64], now: u64) -> Verdict {
        let Some(last) = granted.iter().max() else {
            return Ok(());
        };
        let passed_over = clients.iter().find(|client| {
            matches!(&client.state, State::Waiting(waiting)
                if waiting.order < *last
                    && waiting.lasts_until() > now
                    && waiting.is_sure
                    && !waiting.unheard)
        });
        match passed_over {
            Some(client) => Err(format!("{last} came before {:?} at {now}", client.state)),
            None => Ok(()),
        }
    }

    /// Judges that a process may share its read grant.
    pub(crate) fn nobody_waits(&self, clients: &[Client], now: u64) -> Verdict {
        let waits = clients.iter().find(|client| {
            matches!(&client.state, State::Waiting(waiting)
                if waiting.lasts_until() > now && !waiting.unheard)
                || matches!(&client.state, State::Upgrading(upgrading)
                    if upgrading.holds_back(now))
        });
        match waits {
            Some(client) => Err(format!("readers join although {:?}", client.state)),
            None => Ok(()),
        }
    }
}
