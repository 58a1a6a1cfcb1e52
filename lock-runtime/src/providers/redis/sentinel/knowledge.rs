//! What this process knows of the primary, from all sentinels together.

use std::time::Duration;

use super::super::address::HostPort;
use super::told::Told;
use crate::LockError;
use crate::clock::Timestamp;
use crate::providers::kit::error::unavailable;

/// How long a primary that was left, by a sentinel's word, is not believed in. The sentinel that
/// said so is asked at once, and its answer ends this. Should there be none, the other sentinels know
/// by then: they tell each other every two seconds.
const DISTRUST: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct Knowledge {
    /// The newest configuration that any sentinel has told of.
    newest: Option<Told>,
    /// Until when the primary of that configuration counts as left.
    left_until: Option<Timestamp>,
}

/// What has come of an answer.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Learnt {
    Nothing,
    /// Another server is the primary now.
    Moved,
}

impl Knowledge {
    /// Takes a message that this server has become the primary. True if that is news; then the
    /// sentinel that sent it is to be asked.
    pub(super) fn switched(&mut self, to: &HostPort) -> bool {
        let is_news = self
            .newest
            .as_ref()
            .is_some_and(|newest| newest.address != *to);
        if is_news {
            self.left_until = Some(Timestamp::now() + DISTRUST);
        }
        is_news
    }

    /// Takes what one sentinel tells. Only a newer configuration is news: of two of the same epoch,
    /// one sentinel cannot tell which is right.
    pub(super) fn learn(&mut self, told: &Told) -> Learnt {
        match &self.newest {
            Some(newest) if newest.epoch >= told.epoch => Learnt::Nothing,
            _ => self.adopt(told),
        }
    }

    /// Takes the answer of a sentinel that had sent a message before.
    pub(super) fn learn_from_sender(&mut self, told: &Told) -> Learnt {
        if self.newest.as_ref() == Some(told) {
            // The message had been on its way for long, and is over.
            self.left_until = None;
        }
        self.learn(told)
    }

    /// Says whether what a sentinel tells may be true still.
    pub(super) fn believes(&self, told: &Told) -> bool {
        self.newest.as_ref().is_none_or(|newest| {
            newest.epoch < told.epoch
                || (newest.epoch == told.epoch && (newest != told || !self.is_distrusted()))
        })
    }

    /// Returns the server to connect to: the newest of what several sentinels tell, or a newer one
    /// that this process has been told of, where a sentinel that knows of it may be `missing`.
    ///
    /// # Errors
    ///
    /// If all sentinels tell of an older one, or a message says that the primary is another one.
    pub(super) fn settle(
        &mut self,
        told: &Told,
        missing: bool,
    ) -> Result<(Told, Learnt), LockError> {
        match &self.newest {
            Some(newest) if newest.epoch > told.epoch && !missing => Err(unavailable(format!(
                "all sentinels name the primary of configuration {}, and {} has been seen",
                told.epoch, newest.epoch
            ))),
            Some(newest) if newest.epoch > told.epoch || newest == told => {
                match self.is_distrusted() {
                    true => Err(unavailable("the primary is changing")),
                    false => Ok((newest.clone(), Learnt::Nothing)),
                }
            }
            _ => Ok((told.clone(), self.adopt(told))),
        }
    }

    /// Says whether no sentinel was believed yet.
    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    fn adopt(&mut self, told: &Told) -> Learnt {
        let moved = self
            .newest
            .as_ref()
            .is_some_and(|newest| newest.address != told.address);
        self.newest = Some(told.clone());
        self.left_until = None;
        match moved {
            true => Learnt::Moved,
            false => Learnt::Nothing,
        }
    }

    fn is_distrusted(&self) -> bool {
        self.left_until.is_some_and(|until| !until.has_passed())
    }

    /// Says whether a server is the primary, as far as is known.
    pub(super) fn is_primary(&self, address: &HostPort) -> bool {
        let newest = self.newest.as_ref();
        newest.is_some_and(|newest| newest.address == *address) && !self.is_distrusted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> HostPort {
        HostPort::new("a", port)
    }

    fn told(port: u16, epoch: u64) -> Told {
        Told {
            address: server(port),
            epoch,
        }
    }

    /// Settles on a server that all sentinels name.
    fn settle(knowledge: &mut Knowledge, port: u16, epoch: u64) -> Learnt {
        let told = told(port, epoch);
        let (settled, learnt) = knowledge.settle(&told, false).unwrap();
        assert_eq!(settled, told);
        learnt
    }

    fn knowing(port: u16, epoch: u64) -> Knowledge {
        let mut knowledge = Knowledge::default();
        assert_eq!(settle(&mut knowledge, port, epoch), Learnt::Nothing);
        assert!(knowledge.is_primary(&server(port)));
        knowledge
    }

    #[test]
    fn an_older_configuration_is_refused() {
        let mut knowledge = knowing(1, 5);
        let error = knowledge
            .settle(&told(2, 4), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("configuration 4, and 5"), "{error}");
        assert!(!knowledge.believes(&told(1, 4)) && knowledge.believes(&told(1, 5)));
        assert_eq!(knowledge.learn(&told(2, 4)), Learnt::Nothing);
        assert!(knowledge.is_primary(&server(1)));
        assert_eq!(settle(&mut knowledge, 2, 6), Learnt::Moved);
        assert!(knowledge.is_primary(&server(2)) && !knowledge.is_primary(&server(1)));
    }

    #[test]
    fn the_newest_configuration_is_remembered_while_a_sentinel_that_knows_it_is_missing() {
        let mut knowledge = knowing(1, 5);
        let settled = knowledge.settle(&told(2, 4), true).unwrap();
        assert_eq!(settled, (told(1, 5), Learnt::Nothing));
        assert!(knowledge.switched(&server(3)));
        assert!(knowledge.settle(&told(2, 4), true).is_err(), "it was left");
    }

    #[test]
    fn of_equal_configurations_only_several_sentinels_can_tell() {
        let mut knowledge = knowing(1, 0);
        assert_eq!(knowledge.learn(&told(2, 0)), Learnt::Nothing);
        assert!(knowledge.is_primary(&server(1)));
        assert_eq!(settle(&mut knowledge, 2, 0), Learnt::Moved);
        assert!(knowledge.is_primary(&server(2)));
    }

    #[test]
    fn a_message_makes_the_old_primary_one_no_more() {
        let mut knowledge = knowing(1, 0);
        assert!(!knowledge.switched(&server(1)), "it is known");
        assert!(knowledge.switched(&server(2)));
        assert!(!knowledge.is_primary(&server(1)));
        // Those that have not heard of it yet are not believed.
        assert!(!knowledge.believes(&told(1, 0)) && knowledge.believes(&told(2, 0)));
        assert!(knowledge.settle(&told(1, 0), true).is_err());
        assert_eq!(knowledge.learn_from_sender(&told(2, 1)), Learnt::Moved);
        assert!(knowledge.is_primary(&server(2)));
        assert!(!knowledge.switched(&server(2)), "another one's message");
    }

    #[test]
    fn an_old_message_is_found_out() {
        let mut knowledge = knowing(1, 2);
        assert!(knowledge.switched(&server(2)));
        assert_eq!(knowledge.learn_from_sender(&told(1, 2)), Learnt::Nothing);
        assert!(knowledge.is_primary(&server(1)));
        assert_eq!(settle(&mut knowledge, 1, 2), Learnt::Nothing);
    }

    #[test]
    fn nothing_is_news_before_anything_is_known() {
        let mut knowledge = Knowledge::default();
        assert!(!knowledge.switched(&server(1)));
        assert!(!knowledge.is_primary(&server(1)));
    }
}
