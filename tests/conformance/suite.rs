//! The list of cases, by what a provider must be able to do for them to apply.

/// Makes the tests of one provider, named `provider::case`: the cases for all providers, and the
/// groups of cases that are named.
///
/// The function that sets the provider up has the same name, in `fixture`. One more case checks
/// that the groups are those that the provider's capabilities call for.
macro_rules! conformance {
    ($provider:ident: $($group:ident),*) => {
        mod $provider {
            cases!(all $provider);
            $(cases!($group $provider);)*

            #[test]
            fn groups_match_the_capabilities() {
                let groups = &[$(stringify!($group)),*];
                crate::fixture::check_groups(crate::providers::$provider, groups);
            }
        }
    };
}

macro_rules! cases {
    (all $provider:ident) => {
        cases!($provider => basic:
            acquire_and_release, reacquire, dropped_guard_is_released, guard_knows_its_name,
            two_names_do_not_clash, two_locks_of_one_name_exclude);
        cases!($provider => names:
            case_sensitivity, odd_names_are_distinct, longest_name, bad_names);
        cases!($provider => timeouts:
            zero_timeout_is_contended, short_timeout, long_timeout_is_granted, waits_for_ever,
            endless_timeout, timed_out_waiter_stops_nobody, a_timeout_is_exact,
            free_names_are_never_held_elsewhere, min_hold_outlasts_the_guard,
            a_body_may_outlast_its_min_hold);
        cases!($provider => cancellation:
            dropped_waiter_leaves_nothing, dropped_at_every_poll_when_free,
            dropped_at_every_poll_when_held, aborted_task, dropped_when_just_granted);
        cases!($provider => order:
            mutual_exclusion, arrival_order, hundred_tasks, hundred_names);
        cases!($provider => abandonment:
            dropped_on_a_plain_thread, dropped_in_a_panic, dropped_in_a_thread_local,
            dropped_with_its_runtime, waiter_dropped_with_its_runtime,
            released_after_its_runtime);
        cases!($provider => background_release:
            free_for_this_process_at_once, a_waiter_has_it_at_once, outlives_the_runtime);
        cases!($provider => loss:
            no_loss_while_held, no_loss_on_release, late_release_is_still_safe);
    };
    (tokens $provider:ident) => {
        cases!($provider => tokens:
            tokens_grow, tokens_grow_in_a_crowd, tokens_grow_over_providers);
    };
    (processes $provider:ident) => {
        cases!($provider => processes:
            other_process_holds, other_process_exits, other_process_is_killed,
            child_process_does_not_inherit, processes_never_overlap, killed_in_the_middle_of_work,
            dead_waiter_stops_nobody, waiters_of_a_process_are_served_by_another,
            names_exclude_across_processes, nothing_stays_in_the_process);
        cases!($provider => background_release: survives_the_end_of_the_process);
    };
    (leases $provider:ident) => {
        cases!($provider => leases:
            leases_can_be_renewed, renewed_for_many_leases, busy_runtime_keeps_the_lock);
    };
    (leased_processes $provider:ident) => {
        cases!($provider => leased_processes:
            frozen_holder_is_lost, killed_holder_costs_a_lease);
    };
    (several $provider:ident) => {
        cases!($provider => several:
            all_or_none_are_held, several_dropped_at_every_poll, several_never_wait_in_a_circle);
    };
    (several_processes $provider:ident) => {
        cases!($provider => several_processes:
            a_killed_holder_of_several_costs_a_lease, a_killed_waiter_for_several_leaves_nothing);
    };
    (several_leased_processes $provider:ident) => {
        cases!($provider => several_processes: a_frozen_holder_of_several_is_lost);
    };
    (holders $provider:ident) => {
        cases!($provider => holders: a_holder_of_this_process_is_told);
    };
    (holders_read_write $provider:ident) => {
        cases!($provider => holders:
            readers_and_the_writer_are_told, those_who_wait_are_counted);
    };
    (holders_permits $provider:ident) => {
        cases!($provider => holders: permits_are_counted);
    };
    (holders_processes $provider:ident) => {
        cases!($provider => holders: a_holder_in_another_process_is_told);
    };
    (mutexes_only $provider:ident) => {
        cases!($provider => mutexes_only: other_kinds_are_unsupported_at_once);
    };
    (read_write $provider:ident) => {
        cases!($provider => read_write:
            readers_share_and_a_writer_is_alone, guards_know_their_names,
            a_writer_enters_after_the_last_of_two_readers, a_read_is_refused_while_a_writer_waits,
            neighbours_enter_together, readers_of_a_process_share_one_grant,
            who_leaves_keeps_the_others_grant, readers_and_writers_dropped_at_every_poll,
            readers_and_writers_dropped_when_just_granted, kinds_are_not_mixed,
            tokens_of_conflicting_grants_grow, windows_of_readers_and_writers,
            writers_without_a_pause_let_readers_in);
        cases!($provider => ends:
            the_last_reader_ends_anywhere, a_written_lock_keeps_its_min_hold);
        cases!($provider => nested:
            a_nested_read_joins_past_a_waiting_writer, what_waits_for_itself_is_told);
    };
    (read_write_apart $provider:ident) => {
        cases!($provider => modes_apart:
            read_write_read_in_their_order, endless_reads_let_a_writer_elsewhere_in,
            a_second_release_touches_nobody);
    };
    (read_write_fair $provider:ident) => {
        cases!($provider => modes_apart:
            both_modes_are_served_in_arrival_order, endless_writes_let_a_reader_elsewhere_in);
    };
    (read_write_losses $provider:ident) => {
        cases!($provider => shared_losses: a_loss_reaches_every_reader);
    };
    (read_write_processes $provider:ident) => {
        cases!($provider => modes_processes:
            readers_of_processes_share, a_killed_reader_costs_a_lease,
            a_killed_reader_does_not_live_on_by_others, a_killed_waiting_writer_lets_readers_in,
            windows_of_processes);
    };
    (upgradeable $provider:ident) => {
        cases!($provider => upgradeable:
            it_reads_beside_readers_and_upgrades_alone, there_is_one_at_a_time,
            an_upgrade_waits_for_readers_and_goes_before_a_writer,
            readers_elsewhere_wait_for_an_upgrade, who_fails_to_upgrade_is_still_a_reader,
            two_that_upgrade_do_not_wait_for_each_other, upgrades_dropped_at_every_poll,
            windows_with_upgrades);
    };
    (upgradeable_losses $provider:ident) => {
        cases!($provider => upgradeable: a_loss_ends_an_upgrade);
    };
    (upgradeable_processes $provider:ident) => {
        cases!($provider => upgradeable_processes:
            a_killed_reader_that_may_upgrade_costs_a_lease, a_killed_upgrade_lets_readers_in,
            a_killed_writer_that_was_upgraded_costs_a_lease,
            a_frozen_one_that_may_upgrade_is_lost);
    };
    (permits $provider:ident) => {
        cases!($provider => permits:
            there_are_so_many_and_no_more, numbers_that_cannot_be_are_refused,
            exactly_one_two_and_three_are_inside, a_hundred_tasks_reach_exactly_ten,
            they_are_drained_and_filled, there_may_be_as_many_as_a_number_can_say,
            several_are_taken_together, who_wants_many_is_not_starved, permits_in_arrival_order,
            limits_may_differ, windows_of_permits, permits_dropped_at_every_poll,
            permits_dropped_when_just_granted, permits_are_no_other_kind);
        cases!($provider => ends: permits_end_anywhere, permits_keep_their_min_hold);
        cases!($provider => nested: permits_that_cannot_be_had_are_told);
    };
    (permits_apart $provider:ident) => {
        cases!($provider => modes_apart: who_waits_for_many_is_not_overtaken);
    };
    (permits_losses $provider:ident) => {
        cases!($provider => shared_losses: a_loss_of_permits_is_told);
    };
    (permits_processes $provider:ident) => {
        cases!($provider => modes_processes:
            killed_holders_of_permits_cost_a_lease, a_killed_waiter_for_permits_stops_nobody);
    };
    ($provider:ident => $module:ident: $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                crate::fixture::run(crate::providers::$provider, crate::cases::$module::$case);
            }
        )*
    };
}
