//! The requests of one connection, sent together where several are asked for in the same moment.
//!
//! A request of its own costs the client a future of a kilobyte and a timer; many of them share one
//! here.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// No more than this are sent together. Their answers come together too, and with many of them the
/// server and this process would take turns at being idle.
const TOGETHER: usize = 16;

/// The requests that are due on a connection, and the connection.
pub(super) struct RequestPipeline {
    connection: MultiplexedConnection,
    /// The runtime of the connection. A call may be polled on another one, which may end before its
    /// turn.
    runtime: Handle,
    /// They are taken from the front, a few at a time, however many there are.
    due: Mutex<VecDeque<Request>>,
}

struct Request {
    command: Cmd,
    answer: oneshot::Sender<RedisResult<Value>>,
}

impl RequestPipeline {
    /// Makes one for a connection. To be called on the runtime that the connection is to live on.
    pub(super) fn new(connection: MultiplexedConnection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            runtime: Handle::current(),
            due: Mutex::default(),
        })
    }

    /// Sends a command, after those that were asked for before, and waits for its answer.
    ///
    /// # Cancel safety
    ///
    /// A request that was asked for is sent, even if nobody waits for its answer.
    pub(super) async fn ask(self: &Arc<Self>, command: Cmd) -> RedisResult<Value> {
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut due = self.due();
            due.push_back(Request { command, answer });
            due.len() == 1
        };
        if first {
            // What else is asked for until this task's turn comes goes with it.
            self.runtime.spawn(Arc::clone(self).send());
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Sends commands in one go, and returns an answer for each, in order.
    pub(super) async fn ask_all(
        &self,
        commands: &Pipeline,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let answers = self
            .connection
            .clone()
            .send_packed_commands(commands, 0, commands.len())
            .await?;
        Ok(answers.into_iter().map(Value::extract_error).collect())
    }

    async fn send(self: Arc<Self>) {
        let (commands, waiting) = self.take_due();
        match self.ask_all(&commands).await {
            Ok(answers) => {
                for (waiter, answer) in waiting.into_iter().zip(answers) {
                    // Whoever asked may have gone away.
                    let _ = waiter.send(answer);
                }
            }
            Err(error) => {
                for waiter in waiting {
                    let _ = waiter.send(Err(error.clone()));
                }
            }
        }
    }

    fn take_due(self: &Arc<Self>) -> (Pipeline, Vec<oneshot::Sender<RedisResult<Value>>>) {
        let mut due = self.due();
        let requests = if due.len() > TOGETHER {
            // The rest has its turn after this.
            self.runtime.spawn(Arc::clone(self).send());
            due.drain(..TOGETHER).collect()
        } else {
            mem::take(&mut *due)
        };
        drop(due);
        let mut commands = Pipeline::with_capacity(requests.len());
        let waiting = requests.into_iter().map(|request| {
            commands.add_command(request.command);
            request.answer
        });
        let waiting = waiting.collect();
        (commands, waiting)
    }

    fn due(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone() -> RedisError {
    (ErrorKind::Io, "the connection was given up").into()
}
