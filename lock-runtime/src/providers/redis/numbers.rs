//! Numbers as the server reads them.

use std::time::Duration;

/// Writes whole milliseconds, rounded up, as the server counts.
pub(super) fn milliseconds(lease: Duration) -> String {
    lease.as_nanos().div_ceil(1_000_000).to_string()
}

/// Writes the number in decimal digits, into `digits`.
pub(super) fn decimal(number: u32, digits: &mut [u8; 10]) -> &str {
    let mut rest = number;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[at..]).unwrap_or("1")
}
