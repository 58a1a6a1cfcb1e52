//! The transactions of the ensemble that this process has seen, and which of them are fencing
//! tokens.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::token::FencingToken;

#[derive(Default)]
pub(super) struct Transactions {
    /// The highest that this process has seen.
    newest: AtomicI64,
    /// Below this, tokens are not above those that were given.
    no_tokens_below: AtomicI64,
}

impl Transactions {
    /// Returns the newest transaction of the ensemble so far.
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Takes note of the transaction that a request has made, which was sent after `before` was the
    /// newest. Says whether it is the first to show that the ensemble has lost its data.
    pub(super) fn saw(&self, transaction: i64, before: i64) -> bool {
        self.newest.fetch_max(transaction, Ordering::AcqRel);
        transaction < before && self.no_tokens_below.fetch_max(before, Ordering::AcqRel) < before
    }

    /// Returns the fencing token of a node, if it is above those given before.
    pub(super) fn token(&self, created: i64) -> Option<FencingToken> {
        let is_above = created > self.no_tokens_below.load(Ordering::Acquire);
        is_above.then(|| FencingToken::new(created.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_tokens_below_those_given_before_the_data_was_lost() {
        let transactions = Transactions::default();
        assert!(!transactions.saw(100, 0));
        assert!(transactions.saw(3, 100) && !transactions.saw(4, 100));
        assert_eq!(transactions.token(100), None);
        assert_eq!(transactions.token(101), Some(FencingToken::new(101)));
    }
}
