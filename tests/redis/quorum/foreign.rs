//! Clients of Redlock that are not ours: `SET NX PX` and compare-and-delete on a majority.

use super::{YOUNG, lock, take, with_servers};

#[test]
fn a_foreign_majority_and_we_exclude_each_other() {
    // Whichever of the servers it has not.
    for left_out in 0..3 {
        with_servers(3, move |servers| async move {
            let provider = servers.provider(YOUNG).await;
            let majority = (0..3).filter(|number| *number != left_out);
            for number in majority.clone() {
                assert!(servers.0[number].raw.set_nx("order", "foreign").await);
            }
            let tried = lock(&provider, "order").try_acquire().await;
            assert!(tried.expect("a majority answers").is_none());
            // A try leaves nothing that would be in the way of others.
            assert!(servers.0[left_out].raw.get("order").await.is_none());
            let waiting = tokio::spawn(async move { take(&provider, "order").await });
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            assert!(!waiting.is_finished());
            for number in majority {
                servers.0[number].raw.ask::<u8>("DEL order").await;
            }
            let guard = waiting.await.expect("no panic");
            for server in &servers.0 {
                assert!(!server.raw.set_nx("order", "foreign").await);
            }
            guard.release().await.expect("it was held");
            for server in &servers.0 {
                assert!(server.raw.set_nx("order", "foreign").await);
            }
        });
    }
}

#[test]
fn a_foreign_minority_is_no_holder() {
    with_servers(5, |servers| async move {
        let provider = servers.provider(YOUNG).await;
        for number in [2, 4] {
            assert!(servers.0[number].raw.set_nx("order", "foreign").await);
        }
        let guard = lock(&provider, "order").try_acquire().await;
        let guard = guard
            .expect("a majority answers")
            .expect("a majority votes");
        guard.release().await.expect("it was held");
        // Only one's own is released.
        assert_eq!(
            servers.0[2].raw.get("order").await.as_deref(),
            Some("foreign")
        );
        assert!(servers.0[0].raw.get("order").await.is_none());
    });
}

/// Keys and values are those of one server.
#[test]
fn the_keys_are_plain_strings_with_a_lease() {
    with_servers(3, |servers| async move {
        let parameters = format!("{YOUNG}&key_prefix=App:&lease=20s");
        let provider = servers.provider(&parameters).await;
        let _guard = take(&provider, "order").await;
        let first = servers.0[0].raw.get("App:order").await.expect("a value");
        assert!(first.starts_with("lk1:"), "{first}");
        for server in &servers.0 {
            assert_eq!(server.raw.get("App:order").await.as_ref(), Some(&first));
            let left: u64 = server.raw.ask("PTTL App:order").await;
            assert!((10_000..=20_000).contains(&left), "{left}");
        }
    });
}
