//! A resource that fences: it refuses a write with an older token than one that it has seen.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Registers by name. Each accepts a write only with a token that is not below the highest one that
/// it has accepted, and a read only with one that is not below that of the last write.
#[derive(Debug, Default)]
pub struct FencedRegister(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    highest: HashMap<String, u64>,
    last_write: HashMap<String, u64>,
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
        if accepted {
            state.last_write.insert(name.to_owned(), token);
        }
        state.count(accepted)
    }

    /// Tries a read, and tells whether it was accepted: nobody has written with a later token. From
    /// then on nobody writes with an earlier one.
    pub fn read(&self, name: &str, token: u64) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = token >= state.last_write.get(name).copied().unwrap_or(0);
        if accepted {
            let highest = state.highest.entry(name.to_owned()).or_insert(0);
            *highest = token.max(*highest);
        }
        state.count(accepted)
    }

    /// Returns how many reads and writes were accepted.
    pub fn accepted(&self) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .accepted
    }

    /// Returns how many reads and writes came with an old token.
    pub fn refused(&self) -> u64 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .refused
    }
}

impl State {
    fn count(&mut self, accepted: bool) -> bool {
        match accepted {
            true => self.accepted += 1,
            false => self.refused += 1,
        }
        accepted
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

    #[test]
    fn reads_stand_between_writes() {
        let register = FencedRegister::default();
        assert!(register.write("a", 5));
        assert!(!register.read("a", 4), "a stale reader");
        assert!(register.read("a", 8));
        assert!(
            register.read("a", 6),
            "readers have no order among each other"
        );
        assert!(!register.write("a", 7), "a writer from before a reader");
        assert!(register.write("a", 9));
        assert!(!register.read("a", 8));
        assert_eq!((register.accepted(), register.refused()), (4, 3));
    }
}
