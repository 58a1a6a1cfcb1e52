//! The operations that the recipe needs at least, in two flights: the creations and the removals. A
//! runtime of another thread drives the session, as it drives this library's.

use std::future::{Future, pending};
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions};

use crate::lock::Lock;

const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const SEQUENTIAL: CreateOptions<'static> =
    CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());

#[derive(Clone)]
pub(crate) struct RawZooKeeper(Client);

impl RawZooKeeper {
    pub(crate) async fn connect(url: &str) -> Self {
        let cluster = url.replace("zookeeper://", "");
        let (connected, client) = oneshot::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async {
                let connecting = Client::connect(&cluster).await;
                let _ = connected.send(connecting.expect("the server answers"));
                pending::<()>().await;
            });
        });
        Self(client.await.expect("connected"))
    }

    pub(crate) fn lock(&self, number: u64) -> impl Lock {
        RawLock {
            client: self.0.clone(),
            node: format!("/raw-{number}"),
        }
    }
}

struct RawLock {
    client: Client,
    node: String,
}

impl Lock for RawLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let client = &self.client;
        let prefix = format!("{}/lock-", self.node);
        let parent = client.create(&self.node, b"", &PERSISTENT);
        let child = client.create(&prefix, b"0123456789abcdef0123456789abcdef", &SEQUENTIAL);
        let children = client.list_children(&self.node);
        parent.await.expect("it was missing");
        let (_, sequence) = child.await.expect("its parent is there");
        assert_eq!(children.await.expect("it is there").len(), 1, "it is free");
        section.await;
        let child = client.delete(&format!("{prefix}{sequence}"), None);
        let parent = client.delete(&self.node, None);
        child.await.expect("it was held");
        parent.await.expect("nobody else is there");
    }
}
