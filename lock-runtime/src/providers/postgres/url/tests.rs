use std::time::Duration;

use super::*;

fn settings(url: &str) -> Settings {
    read(url, Options::default()).unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn refusal(url: &str) -> LockError {
    read(url, Options::default()).err().expect(url)
}

#[test]
fn what_the_builder_says_wins_over_the_url() {
    let url =
        "postgres://localhost/db?key_prefix=A+b:&lease=5s&connect_timeout=3&options=-c%20a%3Db";
    let mut options = Options::default();
    options.common.lease = Some(Duration::from_secs(7));
    let settings = read(url, options).unwrap();
    assert_eq!(settings.key_prefix, "A b:");
    assert_eq!(settings.lease, Duration::from_secs(7));
    assert_eq!(settings.connect_timeout, Duration::from_secs(3));
    assert_eq!(settings.target.config.get_options(), Some("-c a=b"));
    assert_eq!(settings.target.config.get_dbname(), Some("db"));
}

#[test]
fn tls_is_required_off_the_machine() {
    for (url, mode) in [
        ("postgres://localhost", SslMode::Disable),
        ("postgresql://127.0.0.1:5433/x", SslMode::Disable),
        ("postgres://[::1]", SslMode::Disable),
        ("postgres:///x?host=/run/postgresql", SslMode::Disable),
        ("postgres://db.example", SslMode::Require),
        ("postgres://localhost,db.example", SslMode::Require),
        ("postgres://db.example?sslmode=prefer", SslMode::Prefer),
        ("postgres://db.example?sslmode=disable", SslMode::Disable),
        ("postgres://localhost?sslmode=verify-full", SslMode::Require),
    ] {
        assert_eq!(settings(url).target.config.get_ssl_mode(), mode, "{url}");
    }
}

#[test]
fn what_may_be_a_part_of_a_password_is_not_repeated() {
    for wrong in [
        "postgres://user:pass?lease=hunter2@host/db",
        "postgres://user:5432?hunter2@host/db",
        "postgres://user:5432?sslmode=hunter2@host/db",
    ] {
        let error = refusal(wrong).to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("%40"), "{error}");
    }
}

/// What the client would not take for a URL is not repeated by it either.
#[test]
fn what_is_no_url_is_not_repeated() {
    for wrong in [
        "postgres:u:hunter2@h/d?application_name=x",
        "postgres:/u:hunter2=@h/d",
        "postgress://u:hunter2@h/d?application_name=x",
        " postgres://u:hunter2@h/d?application_name=x",
        "\"postgres://u:hunter2@h/d?application_name=x",
        "u:hunter2@h/d?application_name=x",
        "host=h password=hunter2 nonsense=x",
        "postgres://u:hunter2#x@h/d",
        "postgres://u:p@hunter2@h/d",
        "postgres://u:p@hunter2@h,other/d",
    ] {
        let error = refusal(wrong);
        assert_eq!(error.kind(), crate::LockErrorKind::InvalidConfig, "{wrong}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn the_scheme_may_be_in_any_case() {
    for url in [
        "POSTGRES://app@db.example/d",
        "PostgreSQL://app@db.example/d",
    ] {
        assert_eq!(settings(url).server_name, "db.example:5432", "{url}");
    }
}

#[test]
fn a_fragment_is_refused_and_not_cut_off() {
    for wrong in ["postgres://h/d?key_prefix=A#1", "postgres://h/d#1"] {
        let error = refusal(wrong).to_string();
        assert!(error.contains("%23"), "{error}");
    }
}

#[test]
fn there_may_be_as_many_waiting_sessions_as_can_be_counted() {
    let url = format!("postgres://localhost?waiting_sessions={}", usize::MAX);
    // More would make the pool panic.
    let most = tokio::sync::Semaphore::MAX_PERMITS;
    assert_eq!(settings(&url).waiting_sessions, most);
}
