//! What cannot be seen from outside: names, the counter's records, URLs, file systems.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::directory::network_file_system;
use super::lock_file::{Access, LockFile, Opened};
use super::permits::collect;
use super::settings::Settings;
use super::shared::Shared;
use super::wanted::{Found, Slots};
use super::{FileProvider, counter, name};
use crate::{LockErrorKind, OwnerId, Timestamp};

/// The vectors of the .NET library's own tests.
#[test]
fn file_names() {
    let owls = "🦉".repeat(63) + "123";
    let underscores = "_".repeat(27);
    let vectors = [
        ("", "P6AD62YPPHO33YTKIBUM5WBQHQVBCSXA.lock".to_owned()),
        (".", "_LIYISOQPXAPX3NYVHPC2EK4WEOU6OW7Y.lock".to_owned()),
        ("abc", "abc56LLTQOSBT6ULGHITLS4KQEIRREMO53J.lock".to_owned()),
        ("ABC", "ABCZJ4QR6TVN4A3KMGQ4BUKHOWQYFRLXSB3.lock".to_owned()),
        (
            "cool<>!/:x\\zzz",
            "cool_____x_zzzATJSHZSADXN7WTL4DBU6JULFTEDVFF3L.lock".to_owned(),
        ),
        (
            &owls,
            format!("{underscores}VA7XJG3JUQKTL6AU2KWPHVQFK43N4DVW.lock"),
        ),
    ];
    for (key, file) in vectors {
        assert_eq!(name::file_name(key), file, "{key:?}");
    }
}

/// A letter is what .NET calls one: a letter number, a vowel sign, a superscript and half a
/// surrogate pair are none.
#[test]
fn letters_are_those_of_dotnet() {
    let name = name::file_name("äß漢٣Ⅷ²का𝐀_-");
    assert!(name.starts_with("äß漢٣__क_____"), "{name}");
    assert!(!name.starts_with("äß漢٣__क______"), "{name}");
    // 27 units in all, and the last may be half a pair.
    let long = name::file_name(&("a".repeat(26) + "🦉b"));
    assert!(long.starts_with(&("a".repeat(26) + "_")), "{long}");
    assert_eq!(long.len(), 64);
}

#[test]
fn names_of_turnstiles_and_permits() {
    let lock = name::file_name("abc");
    let turnstile = name::writer_file_name(&lock);
    assert_eq!(turnstile, "abc56LLTQOSBT6ULGHITLS4KQEIRREMO53J.lk1-writer");
    assert_eq!(
        name::permits_file_name("abc"),
        name::file_name("abc\0permits")
    );
    let tenth = name::permit_file_name("abc", 10);
    assert_eq!(tenth, name::file_name("abc\0permit10"));
    assert!(tenth.starts_with("abc_permit10"), "{tenth}");
    let long = "x".repeat(300);
    assert_ne!(
        name::permit_file_name(&long, 1),
        name::permit_file_name(&long, 2)
    );
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let id = OwnerId::random().expect("random numbers");
        let path = std::env::temp_dir().join(format!("lock-runtime-{id}"));
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    fn counter(&self) -> File {
        let path = self.0.join("counter");
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn clock() -> u64 {
    crate::clock::since_epoch().as_micros() as u64
}

#[test]
fn tokens_start_at_the_clock_and_grow_past_it() {
    let scratch = Scratch::new();
    let before = clock();
    let first = counter::advance(&scratch.counter(), 32, 0).unwrap();
    assert!((before..=clock()).contains(&first));

    // A clock that was set back an hour: the record is what counts.
    let ahead = clock() + Duration::from_secs(3600).as_micros() as u64;
    scratch
        .counter()
        .write_all_at(format!("{ahead:020} {ahead:020}\n").as_bytes(), 0)
        .unwrap();
    assert_eq!(
        counter::advance(&scratch.counter(), 5, 0).unwrap(),
        ahead + 1
    );
    assert_eq!(
        counter::advance(&scratch.counter(), 1, 0).unwrap(),
        ahead + 6
    );
    assert_eq!(
        counter::advance(&scratch.counter(), 1, 0).unwrap(),
        ahead + 7
    );
}

#[test]
fn a_counter_at_its_end_gives_no_token() {
    let scratch = Scratch::new();
    for last in [u64::MAX, u64::MAX - 1] {
        let record = format!("{last:020} {last:020}\n");
        scratch
            .counter()
            .write_all_at(record.as_bytes(), 0)
            .unwrap();
        let error = counter::advance(&scratch.counter(), 2, 0).unwrap_err();
        assert!(error.to_string().contains("highest number"), "{error}");
    }
}

/// Between the removal of a file and its unlocking, whoever has opened it before finds it locked.
#[test]
fn a_removed_file_that_is_still_locked_is_not_held() {
    let scratch = Scratch::new();
    let path = scratch.0.join("counter");
    let (holder, opened) = (scratch.counter(), scratch.counter());
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let try_it = |file: &File| {
        let status = file.metadata().unwrap();
        LockFile::lock_opened(&path, file.try_clone().unwrap(), status, Access::Exclusive).unwrap()
    };
    assert!(matches!(try_it(&opened), Opened::Busy(Some(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(try_it(&opened), Opened::Replaced));
    let _successor = scratch.counter();
    assert!(matches!(try_it(&opened), Opened::Replaced));
}

#[test]
fn tokens_are_above_the_floor() {
    let scratch = Scratch::new();
    let floor = clock() * 2;
    assert_eq!(
        counter::advance(&scratch.counter(), 5, floor).unwrap(),
        floor + 1
    );
    assert_eq!(
        counter::advance(&scratch.counter(), 1, floor).unwrap(),
        floor + 6
    );
    assert_eq!(
        counter::advance(&scratch.counter(), 1, 0).unwrap(),
        floor + 7
    );
}

/// A writer that dies at any byte of its record (its line end adds nothing) leaves the last token
/// that was given.
#[test]
fn a_half_written_record_does_not_count() {
    let ahead = clock() + Duration::from_secs(3600).as_micros() as u64;
    let record = |token: u64| format!("{token:020} {token:020}\n");
    for length in 0..record(0).len() - 1 {
        for half_written_at in [0, 42] {
            let scratch = Scratch::new();
            let file = scratch.counter();
            let (older, newer) = (ahead + 8, ahead + 9);
            let records = match half_written_at {
                0 => record(older) + &record(newer),
                _ => record(newer) + &record(older),
            };
            file.write_all_at(records.as_bytes(), 0).unwrap();
            let torn = &record(ahead + 1_000_000)[..length];
            file.write_all_at(torn.as_bytes(), half_written_at).unwrap();
            let next = counter::advance(&file, 1, 0).unwrap();
            assert_eq!(next, newer + 1, "{length} bytes at {half_written_at}");
        }
    }
}

#[test]
fn names_share_sixteen_counters() {
    let counters: std::collections::HashSet<_> = (0..1_000)
        .map(|n| counter::file_name(&name::file_name(&format!("name-{n}"))))
        .collect();
    assert_eq!(counters.len(), 16);
    assert!(counters.iter().all(|name| !name.ends_with(".lock")));
}

/// Whoever waits tells the holder when it looks again, and the holder's process leaves it the permit.
#[test]
fn a_permit_is_left_to_who_waits_for_it() {
    let scratch = Scratch::new();
    let shared = Shared::new(&Settings::new(scratch.0.clone()));
    let slots = Slots {
        key: "abc".to_owned(),
        limit: 1,
        take: 1,
        start: 0,
    };
    let look = |next_look| {
        let mut collected = Vec::new();
        let found = collect(&shared, &slots, &mut collected, next_look).unwrap();
        (found, collected)
    };
    let (found, held) = look(None);
    assert!(found == Found::All);
    let next_look = Timestamp::now() + Duration::from_secs(1);
    assert!(look(Some(next_look)).0 == Found::Held);
    let held = held.into_iter().next().expect("a permit");
    assert_eq!(held.next_look(), Some(next_look));
    let name = held.name().to_owned();
    assert!(held.release().unwrap());
    loop {
        let left_until = Timestamp::now() + Duration::from_millis(40);
        shared.yields.add(&name, Some(left_until));
        let (found, _) = look(Some(left_until));
        // A machine that is so slow says nothing.
        if !left_until.has_passed() {
            assert!(found == Found::Held);
            assert!(look(None).0 == Found::All, "a try does not wait");
            return;
        }
    }
}

#[test]
fn urls() {
    for (url, directory, prefix) in [
        ("file:/var/lock/app", "/var/lock/app", ""),
        (
            "file:///var/lock/app?key_prefix=MyApp1:",
            "/var/lock/app",
            "MyApp1:",
        ),
        ("file://localhost/a", "/a", ""),
        ("FILE:locks/here", "locks/here", ""),
        ("file:/a%20b+c?key_prefix=a+b%26", "/a b+c", "a b&"),
    ] {
        let provider = FileProvider::from_url(url).expect(url);
        // A relative one begins at the working directory of this moment.
        let directory = std::path::absolute(directory).expect(url);
        assert_eq!(provider.shared.directory.path(), directory, "{url}");
        assert_eq!(provider.key_prefix, prefix, "{url}");
    }
}

#[test]
fn wrong_urls() {
    for (url, said) in [
        ("redis://localhost", "got `redis:`"),
        ("/var/lock", "expected `file:`"),
        ("file:", "expected the path"),
        ("file://server/share", "expected no host"),
        ("file://localhosts/share", "expected no host"),
        (
            "file:/a?lease=3s",
            "unknown URL parameter `lease`; expected `key_prefix`, `mode`, `token_floor`",
        ),
        ("file:/a?key_prefix=a&key_prefix=b", "given twice"),
        ("file:/a?mode=rw", "octal"),
        ("file:/a?mode=0460", "owner may read and write"),
        ("file:/a?mode=0770", "nobody may execute"),
        ("file:/a?token_floor=-1", "whole number"),
        ("file:/a?token_floor=9223372036854775807", "at most"),
        ("file:/a%2", "two hexadecimal digits"),
        ("file:/a%+1", "two hexadecimal digits"),
        ("file:/a%00", "two hexadecimal digits"),
        ("file:/a#b", "%23"),
    ] {
        let error = FileProvider::from_url(url).expect_err(url);
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{url}");
        assert!(error.to_string().contains(said), "{url}: {error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn network_file_systems() {
    assert_eq!(network_file_system(0x6969), Some("NFS"));
    assert_eq!(
        network_file_system(0xFF53_4D42_u32 as rustix::fs::FsWord),
        Some("CIFS")
    );
    assert_eq!(
        network_file_system(0xFF53_4D42_u32.cast_signed() as rustix::fs::FsWord),
        Some("CIFS")
    );
    assert_eq!(network_file_system(0xEF53), None, "ext4");
    assert_eq!(network_file_system(0x0102_1994), None, "tmpfs");
}
