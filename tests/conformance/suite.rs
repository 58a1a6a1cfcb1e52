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
                crate::fixture::check_groups(crate::fixture::$provider, groups);
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
    ($provider:ident => $module:ident: $($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                crate::fixture::run(crate::fixture::$provider, crate::cases::$module::$case);
            }
        )*
    };
}
