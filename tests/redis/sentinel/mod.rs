//! Sentinels: how they are named and asked, and what becomes of locks when they change the primary.

mod failover;
mod leaving;
mod naming;
mod outage;
mod peers;
mod resolution;
mod secrets;
mod service;
mod stub;
