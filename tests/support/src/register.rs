//! A resource that fences: it refuses a write with an older token than one that it has seen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Registers by name. Each accepts a write only with a token that is not below the highest one that
/// it has accepted.
#[derive(Debug, Default)]
pub struct FencedRegister(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    highest: HashMap<String, u64>,
    accepted: u64,
    refused: u64,
}

impl FencedRegister {
    /// Tries a write, and tells whether it was accepted.
    pub fn write(&self, name: &str, token: u64) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = state.highest.entry(name.to_owned()).or_insert(0);
        let accepted = token >= *highest;
        *highest = token.max(*highest);
        match accepted {
            true => state.accepted += 1,
            false => state.refused += 1,
        }
        accepted
    }

    /// Returns how many writes were accepted.
    pub fn accepted(&self) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .accepted
    }

    /// Returns how many writes came with an old token.
    pub fn refused(&self) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_is_refused() {
        let register = FencedRegister::default();
        assert!(register.write("a", 5));
        assert!(register.write("a", 5), "one grant may write twice");
        assert!(!register.write("a", 4));
        assert!(register.write("b", 1), "names are independent");
        assert_eq!((register.accepted(), register.refused()), (3, 1));
    }
}
