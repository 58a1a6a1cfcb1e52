//! Who holds a lock: the gate's answer for locks of this process, and the provider's for others.

use std::sync::Arc;
use std::time::Duration;

use crate::background;
use crate::call::{Panicked, measured};
use crate::error::{LockError, LockErrorKind};
use crate::future::{First, select};
use crate::gate::SlotRef;
use crate::provider::{Holder, LockState};

/// How long an answer may take, if the provider names no bound.
const ONE_ANSWER: Duration = Duration::from_secs(2);

/// Tells who holds the lock of this slot, and how many wait for it.
pub(crate) async fn inspect(slot: SlotRef) -> Result<LockState, LockError> {
    let named = |error: LockError| error.with_name(slot.name.clone());
    let facts = slot.source().ask().map_err(named)?;
    if facts.in_process {
        return Ok(slot.state_inside());
    }
    let capabilities = facts.capabilities;
    if !capabilities.holders {
        let detail = format!("`{}` cannot tell who holds a lock", capabilities.provider);
        return Err(slot.error(LockErrorKind::Unsupported).with_detail(detail));
    }
    let source = Arc::clone(slot.source());
    let (name, kind) = (slot.name.clone(), slot.kind());
    let bound = capabilities.response_timeout.unwrap_or(ONE_ANSWER);
    let asking = background::run_here(async move {
        let answer = measured(source.name(), "inspect", async {
            source.provider.inspect(&name, kind).await
        });
        match select(answer, tokio::time::sleep(bound)).await {
            First::Left(answer) => answer.unwrap_or_else(|Panicked| Err(Panicked.into())),
            First::Right(()) => Err(LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail(format!("no answer within {bound:?}"))),
        }
    });
    let state = asking.await.and_then(|answer| answer).map_err(named)?;
    Ok(slot.add_what_is_known(state))
}

/// Adds how many of so many permits are left, if it is known how many are taken.
pub(crate) fn count_left(state: LockState, permits: u32) -> LockState {
    let taken = state.holders().iter().map(Holder::permits);
    let taken: Option<u64> = taken.map(|permits| permits.map(u64::from)).sum();
    match taken {
        Some(taken) => {
            let left = u64::from(permits).saturating_sub(taken);
            state.with_available(u32::try_from(left).unwrap_or(u32::MAX))
        }
        None => state,
    }
}
