//! Transactions of a ZooKeeper server that is not running, so that it finds what no client can
//! bring about in the time of a test.

use std::path::Path;

/// The transaction comes after all others of a test's server.
const TRANSACTION: i64 = 1 << 32;
/// A transaction of this type creates a node.
const CREATE: i32 = 1;
const ALL_RIGHTS: i32 = 31;
/// What stands at the beginning of a file of this kind, version and database.
const HEADER: &[u8; 16] = b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0";
const END_OF_TRANSACTION: u8 = b'B';

/// Writes down that a child of a node was created, as the newest of so many.
pub(super) fn add_child(data: &Path, node: &str, child: &str, count: i32) {
    let mut transaction = Vec::new();
    // No session, its request, the transaction, and the time.
    transaction.extend(0_i64.to_be_bytes());
    transaction.extend(0_i32.to_be_bytes());
    transaction.extend(TRANSACTION.to_be_bytes());
    transaction.extend(0_i64.to_be_bytes());
    transaction.extend(CREATE.to_be_bytes());
    put_text(&mut transaction, &format!("{node}/{child}"));
    // No data, and one who has rights.
    put_text(&mut transaction, "");
    transaction.extend(1_i32.to_be_bytes());
    transaction.extend(ALL_RIGHTS.to_be_bytes());
    put_text(&mut transaction, "world");
    put_text(&mut transaction, "anyone");
    // It goes with no session.
    transaction.push(0);
    transaction.extend(count.to_be_bytes());

    let mut file = HEADER.to_vec();
    file.extend(i64::from(adler32(&transaction)).to_be_bytes());
    put_length(&mut file, transaction.len());
    file.extend(transaction);
    file.push(END_OF_TRANSACTION);
    std::fs::write(data.join(format!("log.{TRANSACTION:x}")), file).expect("its data is writable");
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_length(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = i32::try_from(length).expect("a short text");
    bytes.extend(length.to_be_bytes());
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % MODULUS;
        (low, (high + low) % MODULUS)
    });
    high << 16 | low
}
