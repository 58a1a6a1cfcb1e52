//! Which runtime reads, seen from a server that the test plays.

use std::io::Read;
use std::sync::mpsc;
use std::thread;

use super::super::pipeline::tests::{Connected, PATIENCE, is_pending, pong, runtime};
use super::*;
use crate::clock::Timestamp;

/// Asks as often as it takes until the runtime that polls this reads.
async fn ask_often(connected: &mut Connected) {
    // The last but one has the socket handed out.
    for _ in 0..=ENOUGH {
        let mut ping = connected.ping();
        assert!(is_pending(&mut ping));
        connected.is_asked();
        connected.answers();
        assert_eq!(ping.await, pong());
    }
    // The task has its first turn.
    tokio::task::yield_now().await;
}

/// Asks once more. The request is sent at once, and answered by the server.
async fn ask(connected: &mut Connected) {
    let mut ping = connected.ping();
    assert!(is_pending(&mut ping));
    connected.is_asked();
    connected.answers();
    assert_eq!(ping.await, pong());
}

#[test]
fn the_runtime_that_asks_often_reads_without_the_background_thread() {
    let mut connected = Connected::start(PATIENCE);
    runtime().block_on(async {
        ask_often(&mut connected).await;
        let free = connected.block();
        for _ in 0..3 {
            ask(&mut connected).await;
        }
        drop(free);
    });
}

#[test]
fn a_runtime_that_asks_now_and_then_does_not_read() {
    let mut connected = Connected::start(PATIENCE);
    let (first, second) = (runtime(), runtime());
    for _ in 0..ENOUGH {
        first.block_on(ask(&mut connected));
        second.block_on(ask(&mut connected));
    }
    let free = connected.block();
    first.block_on(async {
        tokio::task::yield_now().await;
        let mut ping = connected.ping();
        assert!(is_pending(&mut ping));
        connected.is_asked();
        connected.answers();
        for _ in 0..50 {
            tokio::task::yield_now().await;
            thread::sleep(Duration::from_millis(1));
            assert!(is_pending(&mut ping), "nobody has read it");
        }
        drop(free);
        assert_eq!(ping.await, pong());
    });
}

#[test]
fn when_that_runtime_is_blocked_the_background_thread_reads() {
    let mut connected = Connected::start(PATIENCE);
    let user = runtime();
    user.block_on(ask_often(&mut connected));
    // Nobody drives that runtime now.
    for _ in 0..3 {
        let began = Timestamp::now();
        runtime().block_on(ask(&mut connected));
        assert!(Timestamp::now().since(began) < Duration::from_secs(5));
    }
    // It is there all the same.
    user.block_on(ask(&mut connected));
}

#[test]
fn when_that_runtime_is_gone_the_background_thread_reads() {
    let mut connected = Connected::start(PATIENCE);
    let user = runtime();
    user.block_on(ask_often(&mut connected));
    drop(user);
    runtime().block_on(ask(&mut connected));
}

/// A task that has its first turn after its time must not keep the background thread from reading.
#[test]
fn a_runtime_that_begins_late_does_not_read() {
    let mut connected = Connected::start(PATIENCE);
    let user = runtime();
    {
        let _entered = user.enter();
        for _ in 0..=ENOUGH {
            let mut ping = connected.ping();
            assert!(is_pending(&mut ping));
            connected.is_asked();
            connected.answers();
            assert_eq!(runtime().block_on(ping), pong());
        }
    }
    thread::sleep(TICK * (IDLE_TICKS + 10));
    user.block_on(async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    });
    runtime().block_on(ask(&mut connected));
}

#[test]
fn what_comes_unasked_is_read_after_a_pause() {
    let mut connected = Connected::start(PATIENCE);
    let user = runtime();
    user.block_on(ask_often(&mut connected));
    thread::sleep(TICK * (IDLE_TICKS + 10));
    // The connection's end is such a thing too.
    connected
        .server
        .shutdown(std::net::Shutdown::Both)
        .expect("it is open");
    let error = runtime().block_on(async {
        loop {
            match connected.ping().await {
                Ok(_) => continue,
                Err(error) => break error,
            }
        }
    });
    assert!(!error.is_timeout());
}

/// A socket that has ended is readable for ever.
#[test]
fn the_end_of_the_connection_is_read_once() {
    let mut connected = Connected::start(PATIENCE);
    runtime().block_on(async {
        ask_often(&mut connected).await;
        let mut ping = connected.ping();
        assert!(is_pending(&mut ping));
        connected.is_asked();
        connected
            .server
            .shutdown(std::net::Shutdown::Both)
            .expect("it is open");
        assert!(!ping.await.expect_err("it has ended").is_timeout());
        let turns = Timestamp::now();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(
            Timestamp::now().since(turns) < PATIENCE / 2,
            "others have their turns"
        );
    });
}

#[test]
fn a_connection_is_closed_though_that_runtime_is_blocked() {
    let mut connected = Connected::start(PATIENCE);
    let user = runtime();
    user.block_on(ask_often(&mut connected));
    let mut server = connected.server.try_clone().expect("a descriptor is free");
    drop(connected);
    assert_eq!(
        server.read(&mut [0; 1]).expect("in time"),
        0,
        "it is closed"
    );
    drop(user);
}

/// It says so by a panic, which is caught.
#[test]
fn a_runtime_without_io_does_not_read() {
    let mut connected = Connected::start(PATIENCE);
    let (sender, receiver) = mpsc::channel();
    let asking = thread::spawn(move || {
        let user = runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime can be made");
        user.block_on(async {
            ask_often(&mut connected).await;
            for _ in 0..2 * ENOUGH {
                ask(&mut connected).await;
            }
        });
        sender.send(()).expect("the test waits");
    });
    receiver.recv_timeout(PATIENCE).expect("all is answered");
    asking.join().expect("no panic");
}
