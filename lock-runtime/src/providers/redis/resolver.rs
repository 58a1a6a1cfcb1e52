//! Which server to connect to: always the same, or the one that sentinels name.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

use super::address::HostPort;
use super::client::Server;
use super::sentinel::Sentinels;
use crate::LockError;

pub(super) enum Resolver {
    Fixed(Box<Server>),
    Sentinels(Arc<Sentinels>),
}

impl Resolver {
    /// Returns the server to connect to now.
    ///
    /// # Errors
    ///
    /// If the sentinels do not name one.
    pub(super) async fn resolve(&self) -> Result<Server, LockError> {
        match self {
            Self::Fixed(server) => Ok(Server::clone(server)),
            Self::Sentinels(sentinels) => sentinels.resolve().await,
        }
    }

    /// Listens to what sentinels tell by themselves. To be called on the background runtime.
    pub(super) fn watch(&self) {
        if let Self::Sentinels(sentinels) = self {
            sentinels.watch();
        }
    }

    /// Returns what tells that another server is to be connected to.
    pub(super) fn moves(&self) -> Moves {
        match self {
            Self::Fixed(_) => Moves(None),
            Self::Sentinels(sentinels) => Moves(Some(sentinels.moves())),
        }
    }

    /// Says whether the server that sentinels know by this address is to be connected to no more.
    pub(super) fn has_left(&self, announced: Option<&HostPort>) -> bool {
        match (self, announced) {
            (Self::Sentinels(sentinels), Some(server)) => !sentinels.is_primary(server),
            _ => false,
        }
    }

    /// Returns what an error is about, if it is not about a server that was found.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Fixed(server) => format!("server `{}`", server.address()),
            Self::Sentinels(sentinels) => format!("service `{}`", sentinels.service()),
        }
    }

    /// Says in an error which server it is about, where the subject does not.
    pub(super) fn named(&self, server: &Server, error: LockError) -> LockError {
        match self {
            Self::Fixed(_) => error,
            Self::Sentinels(_) => error.about(format!("server `{}`", server.address())),
        }
    }

    /// Returns the place as a log shows it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Fixed(server) => server.address().to_string(),
            Self::Sentinels(sentinels) => {
                format!(
                    "{} of sentinels {}",
                    sentinels.service(),
                    sentinels.listed()
                )
            }
        }
    }
}

/// Tells of each move to another server, from when it was made.
pub(super) struct Moves(Option<watch::Receiver<u64>>);

impl Moves {
    /// Waits for the next move.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(super) async fn next(&mut self) {
        if !self.next_or_end().await {
            pending::<()>().await;
        }
    }

    /// Does the same, and returns false if there is nobody who could tell.
    pub(super) async fn next_or_end(&mut self) -> bool {
        match &mut self.0 {
            Some(moves) => moves.changed().await.is_ok(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn moves_end_with_those_who_could_tell_of_them() {
        assert!(!Moves(None).next_or_end().await);
        let (told, moves) = watch::channel(0);
        let mut moves = Moves(Some(moves));
        told.send_modify(|number| *number += 1);
        assert!(moves.next_or_end().await);
        drop(told);
        assert!(!moves.next_or_end().await);
    }
}
