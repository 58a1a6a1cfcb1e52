//! A turn: all servers are asked for their votes.

use std::num::NonZeroU32;

use redis::{RedisResult, Value};

use super::super::acquire_reply::{Answer, HeldBy, read};
use super::super::error::lock_error;
use super::super::numbers::milliseconds;
use super::super::script::{QUORUM_TELL, QUORUM_VOTE};
use super::held::Held;
use super::members::Members;
use super::round::Round;
use super::trace::Trace;
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{AcquireRequest, Grant};
use crate::providers::kit::error::unavailable;
use crate::token::FencingToken;

/// Why there is no grant.
pub(super) enum Failed {
    /// A majority has answered, and others have votes.
    Refused(LockError),
    /// Too few have answered.
    Unanswered(LockError),
}

/// One server's vote: the first and the last of the tokens that go with it.
struct Vote {
    number: usize,
    first: u64,
    last: u64,
}

/// What has been answered so far.
#[derive(Default)]
struct Count {
    votes: Vec<Vote>,
    refusals: Vec<(usize, HeldBy)>,
    error: Option<LockError>,
}

/// Asks all servers for their votes, and makes the grant if a majority gives them.
pub(super) async fn vote(
    members: &Members,
    request: &AcquireRequest,
    trace: &mut Trace<'_>,
) -> Result<Grant, Failed> {
    let name = trace.first_owner().to_owned();
    let owner = trace.new_owner();
    let sent_at = Timestamp::now();
    let mut round = Round::default();
    let mut asked = 0;
    let lease = milliseconds(request.lease());
    let wanted = request.tokens_wanted().to_string();
    let proposal = members.proposal().to_string();
    let patience = members.common().patience(request.lease());
    for (number, member) in members.all().iter().enumerate() {
        let Some(connection) = member.voting() else {
            continue;
        };
        let keys = keys(members, trace);
        let args = [&owner, &lease, &wanted, &proposal, &name];
        let args = args.map(String::clone).to_vec();
        let to = (&member.manager, &connection);
        round.ask(number, to, &QUORUM_VOTE, (keys, args), patience);
        trace.note(number, sent_at, &connection);
        asked += 1;
    }
    request.report_unanswered(true);
    let counted = count(members, &mut round, (asked, sent_at)).await;
    request.report_unanswered(false);
    let counted = counted?;
    let (first, last, is_known) = tokens(&counted.votes, members.majority());
    if !is_known {
        tell(members, trace, &counted.votes, (&owner, last)).await?;
    }
    if (sent_at + request.lease() / 2).has_passed() {
        return Err(Failed::Unanswered(unavailable(
            "the servers took half of a lease to vote",
        )));
    }
    let count = u32::try_from(last - first + 1).unwrap_or(u32::MAX);
    let count = NonZeroU32::new(count.min(request.tokens_wanted().get()));
    let held = Held::new(owner, trace.sent.clone());
    Ok(Grant::new(request, sent_at)
        .with_tokens(FencingToken::new(first), count.unwrap_or(NonZeroU32::MIN))
        .with_state(held))
}

/// Counts until there is a majority, or there can be none any more.
async fn count(
    members: &Members,
    round: &mut Round,
    (asked, sent_at): (usize, Timestamp),
) -> Result<Count, Failed> {
    let mut count = Count::default();
    let majority = members.majority();
    let mut waiting = asked;
    while count.votes.len() < majority && count.votes.len() + waiting >= majority {
        let Some((number, answer)) = round.next().await else {
            break;
        };
        waiting -= 1;
        count.add(members, (number, sent_at), answer);
    }
    if count.votes.len() >= majority {
        return Ok(count);
    }
    // Whoever is asked already may still say that a majority is there, and who holds the lock.
    while !round.is_over() && count.votes.len() + count.refusals.len() < majority {
        let Some((number, answer)) = round.next().await else {
            break;
        };
        count.add(members, (number, sent_at), answer);
    }
    Err(count.failed(members))
}

impl Count {
    fn add(
        &mut self,
        members: &Members,
        (number, sent_at): (usize, Timestamp),
        answer: RedisResult<Value>,
    ) {
        let answer = answer.and_then(|answer| match &answer {
            Value::Array(parts) if matches!(parts.first(), Some(Value::Int(_))) => {
                redis::from_redis_value::<(u64, u64, u64)>(answer)
                    .map(Ok)
                    .map_err(Into::into)
            }
            _ => read(answer).map(Err),
        });
        match answer {
            Ok(Ok((first, last, clock))) => {
                members.note_clock(number, clock, sent_at);
                self.votes.push(Vote {
                    number,
                    first,
                    last,
                });
            }
            Ok(Err(Answer::Held(holder))) => self.refusals.push((number, holder)),
            Ok(Err(_)) => {}
            Err(error) => self.error = Some(lock_error(error)),
        }
    }

    fn failed(mut self, members: &Members) -> Failed {
        let answered = self.votes.len() + self.refusals.len();
        let all = members.all();
        match self.refusals.pop() {
            Some((number, holder)) if answered >= members.majority() => {
                let naming = &all[number].manager.naming;
                let keys = "a key of the lock";
                Failed::Refused(holder.refusal(naming, keys))
            }
            _ => {
                let why = self
                    .error
                    .map_or(String::new(), |error| format!(" ({error})"));
                Failed::Unanswered(unavailable(format!(
                    "{} of {} servers did not answer{why}",
                    all.len() - answered,
                    all.len()
                )))
            }
        }
    }
}

/// Returns the first and last token, and whether a majority knows the last one.
///
/// All are above those of earlier grants: each of those was known to a majority, of which one server
/// has voted now, with a first token above it.
fn tokens(votes: &[Vote], majority: usize) -> (u64, u64, bool) {
    let same = |last: u64| votes.iter().filter(move |vote| vote.last == last);
    let agreed = votes
        .iter()
        .find(|vote| same(vote.last).count() >= majority);
    let last = votes.iter().map(|vote| vote.last).max().unwrap_or(0);
    let first = votes.iter().map(|vote| vote.first).max().unwrap_or(0);
    match agreed {
        Some(vote) => {
            let first = same(vote.last).map(|vote| vote.first).max();
            (first.unwrap_or(vote.last), vote.last, true)
        }
        None => (first, last, false),
    }
}

/// Makes the last token known to a majority of those that have voted.
async fn tell(
    members: &Members,
    trace: &Trace<'_>,
    votes: &[Vote],
    (owner, last): (&str, u64),
) -> Result<(), Failed> {
    let mut round = Round::default();
    for vote in votes {
        let member = &members.all()[vote.number];
        // Over the connection of the vote, which it must follow.
        let Some((_, connection)) = trace.sent[vote.number].last() else {
            continue;
        };
        let args = vec![owner.to_owned(), last.to_string()];
        let patience = members.common().response_timeout;
        let to = (&member.manager, connection);
        round.ask(
            vote.number,
            to,
            &QUORUM_TELL,
            (keys(members, trace), args),
            patience,
        );
    }
    let mut told = 0;
    let mut error = None;
    while let Some((_, answer)) = round.next().await {
        match answer {
            Ok(answer) => told += usize::from(answer == Value::Int(1)),
            Err(it) => error = Some(it),
        }
        if told >= members.majority() {
            return Ok(());
        }
    }
    let why = error.map_or(String::new(), |error| format!(" ({})", lock_error(error)));
    Err(Failed::Unanswered(unavailable(format!(
        "the fencing token could be made known to {told} of {} servers only{why}",
        members.all().len()
    ))))
}

/// Returns the keys of a script, which are the same on every server.
pub(super) fn keys(members: &Members, trace: &Trace<'_>) -> Vec<String> {
    let naming = &members.all()[0].manager.naming;
    let keys = naming.of_script(&trace.keys);
    keys.as_slice()
        .iter()
        .map(|key| (*key).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(votes: &[(u64, u64)], majority: usize) -> (u64, u64, bool) {
        let votes = votes.iter().enumerate();
        let votes: Vec<_> = votes
            .map(|(number, &(first, last))| Vote {
                number,
                first,
                last,
            })
            .collect();
        tokens(&votes, majority)
    }

    #[test]
    fn a_token_is_what_a_majority_has_answered() {
        assert_eq!(of(&[(7, 7), (7, 7)], 2), (7, 7, true));
        assert_eq!(of(&[(7, 7), (9, 9), (7, 7)], 2), (7, 7, true));
        // One that knows of an earlier token begins its block later.
        assert_eq!(of(&[(4, 9), (6, 9), (1, 9)], 3), (6, 9, true));
    }

    #[test]
    fn otherwise_the_highest_is_to_be_made_known() {
        assert_eq!(of(&[(7, 7), (9, 9)], 2), (9, 9, false));
        assert_eq!(of(&[(3, 7), (5, 9)], 2), (5, 9, false));
        assert_eq!(of(&[(7, 7), (7, 7), (9, 9), (8, 8)], 3), (9, 9, false));
    }
}
