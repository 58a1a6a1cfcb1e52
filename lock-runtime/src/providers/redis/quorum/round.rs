//! One request to every server at once, and the answers as they come.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use redis::{ErrorKind, RedisResult, Value};

use super::super::connection::Connection;
use super::super::connection_manager::ConnectionManager;
use super::super::error::given_up;
use super::super::script::Script;
use crate::background;
use crate::future::{BoxFuture, join_all};

type Answer = (usize, RedisResult<Value>);

/// Requests under way. Those without an answer go on when this is dropped, so that a server that is
/// silent is found out.
#[derive(Default)]
pub(super) struct Round {
    pending: Vec<BoxFuture<'static, Answer>>,
}

impl Round {
    /// Asks one server more to run a script; its answer comes with the server's number. An answer
    /// that takes longer than `patience` is none.
    pub(super) fn ask(
        &mut self,
        number: usize,
        (manager, connection): (&Arc<ConnectionManager>, &Arc<Connection>),
        script: &'static Script,
        (keys, args): (Vec<String>, Vec<String>),
        patience: Duration,
    ) {
        let (manager, connection) = (Arc::clone(manager), Arc::clone(connection));
        let mut running: BoxFuture<'static, _> = Box::pin(async move {
            let keys: Vec<_> = keys.iter().map(String::as_str).collect();
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let answer = match connection.run(script, &keys, &args).await {
                // What comes over a connection that was given up means nothing.
                Ok(_) if connection.has_ended() => Err(given_up()),
                answer => answer,
            };
            if let Err(error) = &answer {
                manager.note(&connection, error);
            }
            answer
        });
        self.pending.push(Box::pin(async move {
            let answer = tokio::time::timeout(patience, running.as_mut()).await;
            let answer = answer.unwrap_or_else(|_| {
                // Without an answer the connection is given up, as for any request.
                background::spawn(async { drop(running.await) });
                Err(late())
            });
            (number, answer)
        }));
    }

    /// Returns the next answer; `None` if none is to come any more.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        poll_fn(|context| {
            let mut answer = None;
            // The first poll sends the request, so each gets one before any answer is taken.
            self.pending.retain_mut(|asking| {
                if answer.is_some() {
                    return true;
                }
                match asking.as_mut().poll(context) {
                    Poll::Ready(it) => {
                        answer = Some(it);
                        false
                    }
                    Poll::Pending => true,
                }
            });
            match answer {
                None if !self.pending.is_empty() => Poll::Pending,
                answer => Poll::Ready(answer),
            }
        })
        .await
    }

    pub(super) fn is_over(&self) -> bool {
        self.pending.is_empty()
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            background::spawn(async {
                join_all(pending).await;
            });
        }
    }
}

fn late() -> redis::RedisError {
    (ErrorKind::Io, "the server did not answer in time").into()
}
