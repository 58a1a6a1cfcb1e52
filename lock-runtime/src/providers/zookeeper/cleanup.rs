//! Taking back nodes that nobody wants, or that a lost request may have created.

use std::time::Duration;

use zookeeper_client::Error;

use super::node::{Created, LONGEST_PAUSE, Node, PAUSE};
use crate::background;
use crate::clock::Timestamp;
use crate::providers::kit::backoff::Pauses;
use crate::providers::kit::cleanup::{Attempt, repeat};
use crate::providers::kit::fault::Fault;

impl Node {
    /// Takes the node back before anybody is told, if the ensemble answers in time; else
    /// afterwards.
    pub(super) async fn release_unconfirmed(self, created: Option<Created>, limit: Duration) {
        if !self.session.is_connected() {
            return self.release_unconfirmed_later(created);
        }
        let removing = async {
            match &created {
                Some(created) => self.remove(created, &mut false).await.map(drop),
                None => self.remove_any(None).await,
            }
        };
        match tokio::time::timeout(limit, removing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if self.session.note(&error) == Fault::Ended => {}
            _ => self.release_unconfirmed_later(created),
        }
    }

    /// Takes the node back in the background, until that is certain to have worked, or until the
    /// session has ended, and all its nodes with it.
    pub(super) fn release_unconfirmed_later(self, created: Option<Created>) {
        background::spawn_beside(async move {
            let attempt = || async {
                if self.session.has_ended() {
                    return Attempt::Done;
                }
                match self.remove_any(created.as_ref()).await {
                    Ok(()) => Attempt::Done,
                    Err(error) => match self.session.note(&error) {
                        Fault::Ended => Attempt::Done,
                        Fault::Interrupted | Fault::Unanswered => Attempt::Interrupted,
                        Fault::Busy | Fault::Refused => Attempt::Failed,
                    },
                }
            };
            let pauses = Pauses::new(PAUSE, LONGEST_PAUSE);
            repeat(pauses, Timestamp::FAR_FUTURE, attempt).await;
        });
    }

    /// Removes the node, or, if it is not known, whatever node this owner has on this session.
    async fn remove_any(&self, created: Option<&Created>) -> Result<(), Error> {
        let found = match created {
            Some(_) => None,
            None => self.find().await?,
        };
        match created.or(found.as_ref()) {
            Some(created) => {
                // A removal may have been asked for before, for all that is known here.
                let mut asked = true;
                self.remove(created, &mut asked).await?;
            }
            // A lost request may have created the lock's node for nothing.
            None => self.remove_empty_lock().await,
        }
        Ok(())
    }
}
