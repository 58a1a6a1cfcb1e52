//! What several sentinels answer to one question, together.

use super::told::{Answer, Told};
use crate::LockError;
use crate::name::Escaped;
use crate::providers::kit::error::{invalid, unavailable};

/// The answers so far.
pub(super) struct Tally {
    asked: usize,
    counted: usize,
    /// How many must name a primary for the newest to be believed.
    majority: usize,
    told: usize,
    /// How many have named one, be it believed or not.
    answered: usize,
    newest: Option<Told>,
    unknown: usize,
    /// The first that refuses, and the first that cannot be asked.
    refused: Option<LockError>,
    unreachable: Option<LockError>,
}

impl Tally {
    /// Makes one for so many sentinels, of which the majority is that of `counted`.
    pub(super) fn new(asked: usize, counted: usize) -> Self {
        Self {
            asked,
            counted,
            majority: counted / 2 + 1,
            told: 0,
            answered: 0,
            newest: None,
            unknown: 0,
            refused: None,
            unreachable: None,
        }
    }

    /// Adds an answer. What is not `believed` counts for no majority.
    pub(super) fn add(
        &mut self,
        answer: Result<Answer, LockError>,
        believed: impl FnOnce(&Told) -> bool,
    ) {
        match answer.map(|answer| answer.told) {
            Ok(Some(told)) => {
                self.answered += 1;
                self.told += usize::from(believed(&told));
                let is_newer = |newest: &Told| told.epoch > newest.epoch;
                if self.newest.as_ref().is_none_or(is_newer) {
                    self.newest = Some(told);
                }
            }
            Ok(None) => self.unknown += 1,
            Err(error) if error.is_retryable() => {
                self.unreachable.get_or_insert(error);
            }
            Err(error) => {
                self.refused.get_or_insert(error);
            }
        }
    }

    pub(super) fn names_one(&self) -> bool {
        self.newest.is_some()
    }

    pub(super) fn has_majority(&self) -> bool {
        self.told >= self.majority
    }

    /// Says whether a sentinel that counts has named no primary, and may know of another one.
    pub(super) fn misses_any(&self) -> bool {
        self.answered < self.counted
    }

    /// Returns the primary of the newest configuration.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) if the sentinels that answer do not
    /// know the service, or one refuses to answer;
    /// [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable) if none can be asked.
    pub(super) fn outcome(self, service: &str) -> Result<Told, LockError> {
        if let Some(newest) = self.newest {
            return Ok(newest);
        }
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        if self.unknown > 0 {
            return Err(invalid(format!(
                "no sentinel that answers knows the service `{}`",
                Escaped(service)
            )));
        }
        let none = match self.asked {
            1 => "the only sentinel does not answer".to_owned(),
            asked => format!("none of the {asked} sentinels answers"),
        };
        Err(match self.unreachable {
            Some(error) => error.about(none),
            None => unavailable(none),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::address::HostPort;
    use super::*;
    use crate::LockErrorKind;

    fn told(port: u16, epoch: u64) -> Result<Answer, LockError> {
        let address = HostPort::new("a", port);
        Ok(Answer {
            told: Some(Told { address, epoch }),
            others: Vec::new(),
        })
    }

    fn unknown() -> Result<Answer, LockError> {
        Ok(Answer {
            told: None,
            others: Vec::new(),
        })
    }

    fn outcome(answers: Vec<Result<Answer, LockError>>) -> Result<Told, LockError> {
        let mut tally = Tally::new(answers.len(), answers.len());
        answers
            .into_iter()
            .for_each(|answer| tally.add(answer, |_| true));
        tally.outcome("orders")
    }

    #[test]
    fn the_newest_configuration_wins_whoever_is_first() {
        for answers in [
            vec![told(1, 4), told(2, 5), told(1, 4)],
            vec![told(2, 5), unknown(), Err(unavailable("gone"))],
        ] {
            assert_eq!(outcome(answers).unwrap().address.port(), 2);
        }
    }

    #[test]
    fn a_majority_is_of_those_that_name_a_primary() {
        let mut tally = Tally::new(4, 3);
        tally.add(unknown(), |_| true);
        tally.add(told(1, 0), |_| true);
        tally.add(told(1, 0), |_| false);
        assert!(tally.names_one() && !tally.has_majority() && tally.misses_any());
        tally.add(told(1, 0), |_| true);
        assert!(tally.has_majority() && !tally.misses_any());
    }

    #[test]
    fn without_a_primary_the_reason_is_said() {
        let gone = || Err(unavailable("sentinel `a`: gone"));
        let error = outcome(vec![gone(), unknown(), unknown()]).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig);
        assert!(
            error.to_string().contains("knows the service `orders`"),
            "{error}"
        );
        let error = outcome(vec![gone(), Err(invalid("wrong password")), unknown()]).unwrap_err();
        assert!(error.to_string().contains("wrong password"), "{error}");
        let error = outcome(vec![gone(), gone(), gone()]).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
        let text = error.to_string();
        assert!(
            text.contains("none of the 3 sentinels answers: sentinel `a`: gone"),
            "{text}"
        );
    }
}
