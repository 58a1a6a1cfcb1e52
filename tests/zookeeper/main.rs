//! What is ZooKeeper's own: the nodes that clients leave there, other programs on the same nodes,
//! and faults of server, network and session. What every provider must do alike is in the
//! conformance suite.

mod common;

mod cancellation;
mod connecting;
mod ensemble;
mod example;
mod faults;
mod loss;
mod nemesis;
mod nodes;
mod outage;
mod restart;
mod sessions;
mod table;
mod thief;
mod tls;
mod tokens;
mod trial;
mod unanswered;
