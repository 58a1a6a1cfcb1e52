//! One suite for every provider: what each of them must do alike, and what those that can do more
//! must do besides. Every provider is a line at the end of this file.

#[macro_use]
mod suite;

mod cases;
mod fixture;
mod table;
#[cfg(feature = "file")]
mod windows;

#[cfg(feature = "file")]
mod file_modes;
#[cfg(feature = "file")]
mod file_only;
#[cfg(feature = "file")]
mod file_permits;
#[cfg(feature = "file")]
mod file_shared;

conformance!(in_process: tokens);
// What users test their programs with behaves like the real ones.
conformance!(testing: tokens, leases);
#[cfg(feature = "file")]
conformance!(file: tokens, processes);
#[cfg(feature = "postgres")]
conformance!(postgres: tokens, processes, leases, leased_processes);
#[cfg(not(feature = "postgres"))]
#[test]
fn postgres() {
    lock_tests::skip::because("the feature `postgres` is not compiled in");
}
#[cfg(feature = "redis")]
conformance!(redis: tokens, processes, leases, leased_processes);
// With nothing but the rights that the guide to Redis asks for.
#[cfg(feature = "redis")]
conformance!(redis_least_privilege: tokens, processes, leases, leased_processes);
#[cfg(not(feature = "redis"))]
#[test]
fn redis() {
    lock_tests::skip::because("the feature `redis` is not compiled in");
}
#[cfg(feature = "zookeeper")]
conformance!(zookeeper: tokens, processes, leases, leased_processes);
#[cfg(not(feature = "zookeeper"))]
#[test]
fn zookeeper() {
    lock_tests::skip::because("the feature `zookeeper` is not compiled in");
}
