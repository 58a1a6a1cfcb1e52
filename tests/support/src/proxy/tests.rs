use std::io::ErrorKind;

use super::*;
use crate::harness::{eventually, run};

const BOUND: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(50);
const DELAY: Duration = Duration::from_millis(500);
const HALF: Duration = Duration::from_micros(500);

/// An echo server, and a connection to it through a proxy.
async fn echo() -> (FaultProxy, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let proxy = FaultProxy::start(port).await;
    let client = connect(&proxy).await;
    (proxy, client)
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))
        .await
        .unwrap()
}

async fn round_trip(client: &mut TcpStream) {
    client.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
}

#[test]
fn passes_and_counts() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        round_trip(&mut client).await;
        assert_eq!(proxy.counts().to_server.load(Ordering::Relaxed), 1);
        assert_eq!(proxy.counts().to_client.load(Ordering::Relaxed), 1);
        assert_eq!(proxy.counts().connections.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn swallows_replies_only() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        proxy.set(|fault| fault.to_client = Flow::Swallow);
        client.write_all(b"abc").await.unwrap();
        eventually("the reply vanished", BOUND, || async {
            proxy.swallowed() == 3
        })
        .await;
        assert_eq!(proxy.counts().to_server.load(Ordering::Relaxed), 3);
        proxy.heal();
        // A stream with a hole would be no stream.
        client.write_all(b"d").await.unwrap();
        eventually("nothing comes after it", BOUND, || async {
            proxy.swallowed() == 4
        })
        .await;
        let mut another = connect(&proxy).await;
        round_trip(&mut another).await;
    });
}

#[test]
fn holds_and_delays() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        proxy.set(|fault| fault.to_server = Flow::Hold);
        client.write_all(b"x").await.unwrap();
        assert!(
            tokio::time::timeout(SILENCE, client.read_u8())
                .await
                .is_err()
        );
        proxy.heal();
        assert_eq!(client.read_u8().await.unwrap(), b'x');

        proxy.set(|fault| fault.to_client = Flow::Delay(SILENCE));
        let start = Instant::now();
        round_trip(&mut client).await;
        assert!(start.elapsed() >= SILENCE);
    });
}

#[test]
fn delayed_pieces_do_not_wait_for_each_other() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        proxy.set(|fault| fault.to_server = Flow::Delay(DELAY));
        const PIECES: u64 = 10;
        let start = Instant::now();
        for piece in 1..=PIECES {
            client.write_all(b"x").await.unwrap();
            // Each byte is a piece of its own.
            let taken = || async { proxy.counts().delayed.load(Ordering::Relaxed) == piece };
            eventually("the piece is under way", BOUND, taken).await;
        }
        for _ in 0..PIECES {
            client.read_u8().await.unwrap();
        }
        let took = start.elapsed();
        assert!((DELAY..DELAY * 3).contains(&took), "{took:?}");
    });
}

#[test]
fn a_delay_may_be_shorter_than_a_timer_tick() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        proxy.set(|fault| {
            fault.to_server = Flow::Delay(HALF);
            fault.to_client = Flow::Delay(HALF);
        });
        let mut shortest = BOUND;
        for _ in 0..100 {
            let start = Instant::now();
            round_trip(&mut client).await;
            shortest = shortest.min(start.elapsed());
        }
        assert!((HALF * 2..HALF * 3).contains(&shortest), "{shortest:?}");
    });
}

#[test]
fn cuts_one_direction() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        round_trip(&mut client).await;
        proxy.set(|fault| fault.to_client = Flow::Cut);
        assert_eq!(
            client.read(&mut [0]).await.unwrap(),
            0,
            "the end of the stream"
        );
        client.write_all(b"x").await.unwrap();
        let passed = || async { proxy.counts().to_server.load(Ordering::Relaxed) == 2 };
        eventually("the other direction goes on", BOUND, passed).await;
        assert!(proxy.counts().broken.load(Ordering::Relaxed) >= 1);
    });
}

#[test]
fn resets_and_refuses() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        round_trip(&mut client).await;
        proxy.reset();
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);

        proxy.set(|fault| fault.refuse = true);
        let mut refused = connect(&proxy).await;
        assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!(proxy.counts().refused.load(Ordering::Relaxed), 1);
        proxy.heal();
        round_trip(&mut connect(&proxy).await).await;
    });
}

#[test]
fn leads_new_connections_elsewhere() {
    run(BOUND, async {
        let (proxy, mut client) = echo().await;
        // A connection that the proxy has not taken up yet would be led elsewhere too.
        round_trip(&mut client).await;
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        proxy.lead_to(other.local_addr().unwrap().port());
        let (mut another, accepted) = tokio::join!(connect(&proxy), other.accept());
        accepted.unwrap().0.write_all(b"y").await.unwrap();
        assert_eq!(another.read_u8().await.unwrap(), b'y');
        round_trip(&mut client).await;
    });
}
