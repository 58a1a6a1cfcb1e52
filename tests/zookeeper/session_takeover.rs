//! A client that takes over another one's session and closes it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Closes the session with this id, as another client of the same session would. The first client
/// may take it back meanwhile; then it is taken over again.
pub(crate) fn close_session(port: u16, id: i64) {
    let mut message = Vec::new();
    message.extend(45_i32.to_be_bytes()); // length
    message.extend(0_i32.to_be_bytes()); // protocol
    message.extend(0_i64.to_be_bytes()); // last transaction seen
    message.extend(120_000_i32.to_be_bytes()); // timeout
    message.extend(id.to_be_bytes());
    message.extend(16_i32.to_be_bytes());
    message.extend(password(id));
    message.push(0); // not read-only
    message.extend(8_i32.to_be_bytes()); // length
    message.extend(1_i32.to_be_bytes()); // number of the request
    message.extend((-11_i32).to_be_bytes()); // close
    for attempt in 0..100 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).expect("above zero");
        stream.write_all(&message).expect("the server reads");
        let Some(answer) = receive(&mut stream) else {
            continue;
        };
        if answer[8..16] == [0; 8] {
            assert!(attempt > 0, "there is such a session");
            return;
        }
        assert_eq!(
            answer[8..16],
            id.to_be_bytes(),
            "the session was taken over"
        );
        if receive(&mut stream).is_some() {
            return;
        }
    }
    panic!("the session was taken back again and again");
}

/// Computes the password of a session, as `ZooKeeperServer.generatePasswd` makes it.
fn password(id: i64) -> [u8; 16] {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut seed = (id.cast_unsigned() ^ 0xB341_5C00 ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for word in password.chunks_mut(4) {
        seed = (seed.wrapping_mul(MULTIPLIER) + 0xB) & MASK;
        word.copy_from_slice(&((seed >> 16) as u32).to_le_bytes());
    }
    password
}

/// Receives one message. `None` if the connection is lost.
fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}
