//! One suite for every provider: what each of them must do alike, and what those that can do more
//! must do besides. Every provider is a line at the end of this file.

#[macro_use]
mod suite;

mod capabilities;
mod cases;
mod counted;
mod double;
mod filler;
mod fixture;
mod mutexes;
mod planted;
mod providers;
mod table;

#[cfg(feature = "file")]
mod file_modes;
#[cfg(feature = "file")]
mod file_only;
#[cfg(feature = "file")]
mod file_permits;
#[cfg(feature = "file")]
mod file_shared;

conformance!(in_process: several, tokens, read_write, upgradeable, permits, holders,
    holders_read_write, holders_permits);
conformance!(in_process_write: tokens);
conformance!(in_process_only_permit:);
conformance!(in_process_last_permit:);
// What users test their programs with behaves like the real ones.
conformance!(testing: several, tokens, leases, read_write, read_write_apart, read_write_losses,
    upgradeable, upgradeable_losses, permits, permits_apart, permits_losses, holders,
    holders_read_write, holders_permits);
// A provider as it was written before there were other kinds than mutexes.
conformance!(plain: several, tokens, leases, mutexes_only);
conformance!(testing_write: tokens, leases);
conformance!(testing_only_permit: leases);
conformance!(testing_last_permit: leases);
#[cfg(feature = "file")]
conformance!(file: several, several_processes, tokens, processes, read_write, read_write_apart,
    read_write_losses, read_write_processes, permits, permits_apart, permits_losses,
    permits_processes, holders, holders_read_write, holders_permits, holders_processes);
#[cfg(feature = "file")]
conformance!(file_write: tokens, processes);
#[cfg(feature = "file")]
conformance!(file_only_permit: processes);
#[cfg(feature = "file")]
conformance!(file_last_permit: processes);
#[cfg(feature = "postgres")]
conformance!(postgres: several, several_processes, several_leased_processes, tokens, processes,
    leases, leased_processes, read_write, read_write_apart, read_write_fair, read_write_processes,
    upgradeable, upgradeable_processes, permits, permits_apart, permits_processes, holders,
    holders_read_write, holders_permits, holders_processes);
#[cfg(feature = "postgres")]
conformance!(postgres_write: tokens, processes, leases, leased_processes);
#[cfg(feature = "postgres")]
conformance!(postgres_only_permit: processes, leases, leased_processes);
#[cfg(feature = "postgres")]
conformance!(postgres_last_permit: processes, leases, leased_processes);
#[cfg(not(feature = "postgres"))]
#[test]
fn postgres() {
    lock_tests::skip::because("the feature `postgres` is not compiled in");
}
#[cfg(feature = "redis")]
conformance!(redis: several, several_processes, several_leased_processes, tokens, processes, leases,
    leased_processes, read_write, read_write_apart, read_write_fair, read_write_losses,
    read_write_processes, upgradeable, upgradeable_processes, upgradeable_losses, permits,
    permits_apart, permits_losses, permits_processes, holders, holders_read_write, holders_permits,
    holders_processes);
#[cfg(feature = "redis")]
conformance!(redis_write: tokens, processes, leases, leased_processes);
#[cfg(feature = "redis")]
conformance!(redis_only_permit: processes, leases, leased_processes);
#[cfg(feature = "redis")]
conformance!(redis_last_permit: processes, leases, leased_processes);
// With nothing but the rights that the guide to Redis asks for.
#[cfg(feature = "redis")]
conformance!(redis_least_privilege: several, several_processes, several_leased_processes, tokens,
    processes, leases, leased_processes, read_write, read_write_apart, read_write_fair,
    read_write_processes, upgradeable, upgradeable_processes, permits, permits_apart,
    permits_processes, holders, holders_read_write, holders_permits, holders_processes);
// Behind a sentinel.
#[cfg(feature = "redis")]
conformance!(redis_sentinel: several, several_processes, several_leased_processes, tokens,
    processes, leases, leased_processes, read_write, read_write_apart, read_write_fair,
    read_write_processes, upgradeable, upgradeable_processes, permits, permits_apart,
    permits_processes, holders, holders_read_write, holders_permits, holders_processes);
// On a majority of three servers.
#[cfg(feature = "redis")]
conformance!(redis_quorum: several, several_processes, several_leased_processes, tokens, processes,
    leases, leased_processes, mutexes_only, holders, holders_processes);
#[cfg(not(feature = "redis"))]
#[test]
fn redis() {
    lock_tests::skip::because("the feature `redis` is not compiled in");
}
#[cfg(feature = "zookeeper")]
conformance!(zookeeper: several, several_processes, several_leased_processes, tokens, processes,
    leases, leased_processes, read_write, read_write_apart, read_write_fair, read_write_losses,
    read_write_processes, permits, permits_apart, permits_losses, permits_processes, holders,
    holders_read_write, holders_permits, holders_processes);
#[cfg(feature = "zookeeper")]
conformance!(zookeeper_write: tokens, processes, leases, leased_processes);
#[cfg(feature = "zookeeper")]
conformance!(zookeeper_only_permit: processes, leases, leased_processes);
#[cfg(feature = "zookeeper")]
conformance!(zookeeper_last_permit: processes, leases, leased_processes);
#[cfg(not(feature = "zookeeper"))]
#[test]
fn zookeeper() {
    lock_tests::skip::because("the feature `zookeeper` is not compiled in");
}
