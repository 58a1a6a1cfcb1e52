//! Sentinels that talk nonsense, hang up, come and go; and that nobody listens to them for longer
//! than there is a provider.

use std::time::Duration;

use lock_runtime::LockErrorKind;
use lock_tests::{ClosedPort, eventually};

use super::resolution::{another, is_on, of};
use super::service::until_heard;
use super::stub::{Says, Stub};
use crate::common::{BOUND, connected, with_server};

/// Each of these is one sentinel less, and no more than that.
#[test]
fn errors_and_nonsense_of_one_sentinel_are_outvoted() {
    with_server(|server| async move {
        let says = || Says::primary(server.process.port(), 1);
        let (one, two) = (Stub::start(says()).await, Stub::start(says()).await);
        let wrong = Stub::start(says()).await;
        for (nonsense, alone) in [
            ("-NOPERM it may not\r\n", LockErrorKind::InvalidConfig),
            ("-ERR at a loss\r\n", LockErrorKind::ProviderUnavailable),
            (":7\r\n", LockErrorKind::ProviderUnavailable),
            ("*0\r\n", LockErrorKind::ProviderUnavailable),
            ("$-1\r\n", LockErrorKind::InvalidConfig),
            (
                "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
                LockErrorKind::ProviderUnavailable,
            ),
            ("!?\r\n", LockErrorKind::ProviderUnavailable),
        ] {
            wrong.say(|says| says.nonsense = Some(nonsense));
            let provider = connected(of(&[&wrong, &one, &two])).await;
            assert!(is_on(&provider, &server).await, "{nonsense:?}");
            let error = of(&[&wrong]).connect().await.unwrap_err();
            assert_eq!(error.kind(), alone, "{nonsense:?}: {error}");
            let text = error.to_string();
            assert!(text.contains("sentinel"), "{text}");
        }
    });
}

/// Whoever wanted the provider has gone away, at whatever moment.
#[test]
fn a_connect_that_is_dropped_leaves_nobody_who_listens() {
    with_server(|server| async move {
        let stub = Stub::start(Says {
            delay: Duration::from_millis(5),
            ..Says::primary(server.process.port(), 0)
        })
        .await;
        for milliseconds in 0..30 {
            let limit = Duration::from_millis(milliseconds);
            let connecting = tokio::time::timeout(limit, of(&[&stub]).connect());
            drop(connecting.await);
        }
        assert!(stub.asked() > 0);
        until_heard(&[&stub], 0).await;
        let channels = || async { server.raw.ask::<Vec<String>>("PUBSUB CHANNELS *").await };
        eventually("its connections end", BOUND, || async {
            channels().await.is_empty()
        })
        .await;
    });
}

/// It is connected to again and again, with pauses. Its last word is heard all the same.
#[test]
fn a_sentinel_that_hangs_up_after_each_answer_is_no_storm() {
    with_server(|server| async move {
        let stub = Stub::start(Says {
            hangs_up: true,
            ..Says::primary(server.process.port(), 0)
        })
        .await;
        let provider = connected(of(&[&stub])).await;
        let before = stub.asked();
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Three questions each time.
        let times = (stub.asked() - before) / 3;
        assert!((2..10).contains(&times), "{times} connections in a second");
        assert!(is_on(&provider, &server).await);
    });
}

/// So many have come and gone, each with another address, that no more would be listened to.
#[test]
fn sentinels_that_are_gone_make_room_for_those_that_come() {
    with_server(|old| async move {
        let new = another().await;
        let [old_port, new_port] = [&old, &new].map(|it| it.process.port());
        let found = Stub::start(Says::primary(old_port, 0)).await;
        let gone: Vec<_> = (0..40).map(|_| ClosedPort::new()).collect();
        let ports = gone.iter().map(|port| port.address().port());
        let listed = Stub::start(Says {
            others: ports.chain([found.port]).collect(),
            ..Says::primary(old_port, 0)
        })
        .await;
        let provider = connected(of(&[&listed])).await;
        until_heard(&[&listed, &found], 1).await;
        found.say(|says| *says = Says::primary(new_port, 1));
        found.switch(old_port, new_port);
        eventually("it has moved", BOUND, || is_on(&provider, &new)).await;
    });
}

/// The code of others may panic. The sentinels that are known already are enough.
#[test]
fn an_address_map_that_panics_costs_no_more_than_what_it_was_asked_for() {
    with_server(|server| async move {
        let port = server.process.port();
        let found = Stub::start(Says::primary(port, 0)).await;
        let listed = Stub::start(Says {
            others: vec![found.port],
            ..Says::primary(port, 0)
        })
        .await;
        let builder = of(&[&listed]).address_map(move |host, asked| {
            assert_eq!(asked, port, "on purpose");
            (host.to_owned(), asked)
        });
        let provider = connected(builder).await;
        until_heard(&[&listed], 1).await;
        assert!(is_on(&provider, &server).await);
        assert_eq!(found.asked(), 0);
    });
}

/// Nothing of a provider that is gone listens any more.
#[test]
fn a_provider_that_is_dropped_listens_no_more() {
    with_server(|server| async move {
        let stub = Stub::start(Says::primary(server.process.port(), 0)).await;
        let provider = connected(of(&[&stub])).await;
        until_heard(&[&stub], 1).await;
        drop(provider);
        until_heard(&[&stub], 0).await;
    });
}
