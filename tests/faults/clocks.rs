//! The clock that leases are counted on goes on while the machine sleeps.

use std::process::Command;
use std::time::Duration;

use lock_runtime::Timestamp;
use lock_tests::skip;

/// The variable that makes this process the child, which prints what the library's clock says.
const CHILD: &str = "LOCK_TESTS_CLOCK";
/// The time for which the machine seems to have slept.
const SLEPT: Duration = Duration::from_secs(1_000_000);

/// Suspend is the only difference between the system's two clocks. A process in a time namespace of
/// its own sees one as large as one likes.
#[test]
#[cfg(target_os = "linux")]
fn suspend_counts() {
    let now = format!("{:?}", Timestamp::now());
    if std::env::var_os(CHILD).is_some() {
        println!("child says {now}");
        return;
    }
    let program = std::env::current_exe().expect("a test knows its program");
    let seconds = SLEPT.as_secs().to_string();
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--time", "--boottime", &seconds]);
        command
    };
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => {}
        _ => return skip::because("no time namespaces here, or no right to make one"),
    }
    let output = unshare()
        .arg(program)
        .args(["--exact", "clocks::suspend_counts", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a test can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let theirs = text
        .lines()
        .find_map(|line| line.split_once("child says "))
        .unwrap_or_else(|| panic!("the child says its time: {text}"));
    let ahead = seconds_of(theirs.1).saturating_sub(seconds_of(&now));
    let slept = SLEPT.as_secs();
    assert!((slept..slept + 600).contains(&ahead), "{ahead} s ahead");
}

/// Reads the seconds of `Timestamp(123.456s)`.
fn seconds_of(timestamp: &str) -> u64 {
    let digits = timestamp.trim_start_matches("Timestamp(");
    let digits = digits.split('.').next().unwrap_or_default();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("a timestamp: {timestamp}"))
}
