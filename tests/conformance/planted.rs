//! Faults that are planted in a provider are found by the suite; without them, it passes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::cases::{modes_apart, permits, read_write, upgradeable};
use crate::double::{Double, Fault};
use crate::fixture::{BoxFixture, Fixture, run};

/// Long enough for what is right, and short enough to wait for what is wrong.
const BOUND: Duration = Duration::from_secs(3);

fn with(fault: Option<Fault>) -> BoxFixture {
    let double = Double::new(fault);
    let server = double.clone();
    // Each on an address of its own, and so a process of its own.
    let fixture = Fixture::new(Arc::new(double))
        .with_another(move || Arc::new(server.clone()))
        .with_bound(BOUND);
    Box::pin(async { Some(fixture) })
}

/// Makes the test that a case passes with the double as it should be, and fails with a fault.
macro_rules! planted {
    ($($test:ident: $fault:ident by $module:ident::$case:ident;)*) => {
        $(
            #[test]
            fn $test() {
                run(|| with(None), $module::$case);
                let faulty = || run(|| with(Some(Fault::$fault)), $module::$case);
                assert!(catch_unwind(AssertUnwindSafe(faulty)).is_err(), "it is not found");
            }
        )*
    };
}

planted! {
    a_reader_that_ignores_the_queue: ReaderIgnoresQueue
        by modes_apart::read_write_read_in_their_order;
    a_reader_that_ignores_the_order:
        ReaderIgnoresQueue by modes_apart::both_modes_are_served_in_arrival_order;
    readers_that_starve_a_writer:
        ReaderIgnoresQueue by modes_apart::endless_reads_let_a_writer_elsewhere_in;
    writers_that_starve_a_reader:
        WriterIgnoresQueue by modes_apart::endless_writes_let_a_reader_elsewhere_in;
    a_writer_of_which_nobody_is_told: NoMarker by modes_apart::read_write_read_in_their_order;
    a_process_that_shares_for_ever:
        SharesForEver by modes_apart::endless_reads_let_a_writer_elsewhere_in;
    a_writer_that_counts_no_readers:
        WriterCountsNoReaders by read_write::readers_share_and_a_writer_is_alone;
    windows_of_a_writer_that_counts_no_readers:
        WriterCountsNoReaders by read_write::windows_of_readers_and_writers;
    a_release_of_whatever_is_there: StaleRelease by modes_apart::a_second_release_touches_nobody;
    a_release_that_ends_the_others:
        ReleaseOfOneReaderEndsAll by read_write::a_writer_enters_after_the_last_of_two_readers;
    windows_of_a_release_that_ends_the_others:
        ReleaseOfOneReaderEndsAll by read_write::windows_of_readers_and_writers;
    a_token_that_is_not_drawn:
        ReadTokenNotDrawn by read_write::tokens_of_conflicting_grants_grow;
    windows_with_a_token_that_is_not_drawn:
        ReadTokenNotDrawn by read_write::windows_of_readers_and_writers;
    a_permit_that_is_counted_twice: PermitCountedTwice by permits::there_are_so_many_and_no_more;
    several_permits_that_are_counted_once:
        SeveralCountedOnce by permits::several_are_taken_together;
    windows_of_several_permits_that_are_counted_once:
        SeveralCountedOnce by permits::windows_of_permits;
    two_that_may_upgrade: ManyMayUpgrade by upgradeable::there_is_one_at_a_time;
    an_upgrade_that_counts_no_readers: UpgradeCountsNoReaders
        by upgradeable::an_upgrade_waits_for_readers_and_goes_before_a_writer;
    windows_of_an_upgrade_that_counts_no_readers:
        UpgradeCountsNoReaders by upgradeable::windows_with_upgrades;
    an_upgrade_that_holds_nobody_back:
        UpgradeHoldsNobodyBack by upgradeable::readers_elsewhere_wait_for_an_upgrade;
    a_failed_upgrade_that_stays:
        FailedUpgradeStays by upgradeable::who_fails_to_upgrade_is_still_a_reader;
    a_failed_upgrade_that_ends_the_reader:
        FailedUpgradeEndsReader by upgradeable::who_fails_to_upgrade_is_still_a_reader;
    permits_that_go_past_who_waits: PermitsOutOfTurn by modes_apart::who_waits_for_many_is_not_overtaken;
}
