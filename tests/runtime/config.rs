//! `LockConfig`, read from a file and the environment.

use std::error::Error;
use std::time::Duration;

use config::{Config, Environment, File, FileFormat};
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use lock_runtime::{DistributedLock, LockConfig, LockErrorKind, RegisterError, RegisterErrorKind};
use lock_tests::Scratch;
use tracing::Level;

use crate::log::Log;
use crate::own_process::in_own_process;
use crate::run;

const GUIDE: &str = include_str!("../../docs/configuration.md");

/// Returns the files that the guide shows, in order.
fn files_of_the_guide() -> Vec<&'static str> {
    let blocks = GUIDE.split("```toml\n").skip(1);
    let files = blocks.map(|block| block.split_once("```").expect("the block ends").0);
    files.collect()
}

/// Reads the table `lock` of a file and of the variables `SHOP_…`, with each crate.
fn read(toml: &str) -> [Result<LockConfig, String>; 2] {
    let figment = Figment::new()
        .merge(Toml::string(toml))
        .merge(Env::prefixed("SHOP_").split("__"));
    let environment = Environment::with_prefix("SHOP")
        .prefix_separator("_")
        .separator("__");
    let config = Config::builder()
        .add_source(File::from_str(toml, FileFormat::Toml))
        .add_source(environment)
        .build();
    [
        figment
            .extract_inner("lock")
            .map_err(|e| format!("{e} {e:?}")),
        config
            .and_then(|config| config.get("lock"))
            .map_err(|e| format!("{e} {e:?}")),
    ]
}

/// Returns what both crates say of a wrong file.
fn refused(settings: &str) -> Vec<String> {
    let read = read(&format!("[lock]\n{settings}"));
    read.map(|read| read.expect_err("it is wrong")).into()
}

fn in_the_guide() -> LockConfig {
    LockConfig::new("redis://127.0.0.1:6379")
        .key_prefix("shop:")
        .lease(Duration::from_secs(20))
        .connect_timeout(Duration::from_secs(3))
        .response_timeout(Duration::from_secs(1))
}

#[test]
fn the_guide_s_files_are_read() {
    let [shop, laptop] = files_of_the_guide()[..] else {
        panic!("the guide shows two files")
    };
    for locks in read(shop) {
        assert_eq!(locks, Ok(in_the_guide()));
    }
    let in_files = LockConfig::new("file:/tmp/shop-locks")
        .key_prefix("shop:")
        .lease(Duration::from_secs(20));
    for locks in read(laptop) {
        assert_eq!(locks, Ok(in_files.clone()));
    }
}

#[test]
fn the_environment_goes_before_the_file() {
    in_own_process(
        "config::the_environment_goes_before_the_file",
        &[
            ("SHOP_LOCK__URL", "rediss://shop:secret@redis.internal:6379"),
            ("SHOP_LOCK__LEASE", "30s"),
            ("SHOP_LOCK__KEY_PREFIX", "\"007\""),
        ],
        || {
            let [figment, config] = read(files_of_the_guide()[0]);
            let given = LockConfig::new("rediss://shop:secret@redis.internal:6379")
                .lease(Duration::from_secs(30))
                .connect_timeout(Duration::from_secs(3))
                .response_timeout(Duration::from_secs(1));
            assert_eq!(figment, Ok(given.clone().key_prefix("007")));
            // It takes what stands there as it is.
            assert_eq!(config, Ok(given.key_prefix("\"007\"")));
        },
    );
}

/// Nobody finds out that two services have the same prefix.
#[test]
fn a_number_in_the_environment_is_no_prefix() {
    in_own_process(
        "config::a_number_in_the_environment_is_no_prefix",
        &[("SHOP_LOCK__KEY_PREFIX", "007")],
        || {
            let [figment, config] = read("[lock]\nurl = \"memory:\"");
            let error = figment.expect_err("figment has read 7");
            assert!(
                error.contains("needs quotation marks; got a number"),
                "{error}"
            );
            assert_eq!(config, Ok(LockConfig::new("memory:").key_prefix("007")));
        },
    );
}

#[test]
fn settings_from_the_environment_alone_are_enough() {
    in_own_process(
        "config::settings_from_the_environment_alone_are_enough",
        &[
            ("LOCKS_URL", "zookeeper://a:1,b:2/x"),
            ("LOCKS_LEASE", "5s"),
        ],
        || {
            let given = LockConfig::new("zookeeper://a:1,b:2/x").lease(Duration::from_secs(5));
            let figment = Figment::from(Env::prefixed("LOCKS_")).extract::<LockConfig>();
            assert_eq!(figment.expect("both are known"), given);
            let config = Config::builder()
                .add_source(Environment::with_prefix("LOCKS"))
                .build();
            let config = config.and_then(Config::try_deserialize::<LockConfig>);
            assert_eq!(config.expect("both are known"), given);
        },
    );
}

#[test]
fn a_mistake_is_named_with_what_is_meant() {
    for (settings, said) in [
        (
            "url = \"memory:\"\nleese = \"5s\"",
            "unknown setting `leese`, did you mean `lease`? expected `url`, `key_prefix`, `lease`, \
             `connect_timeout`, `response_timeout`",
        ),
        (
            "url = \"memory:\"\nkey-prefix = \"\"",
            "did you mean `key_prefix`?",
        ),
        (
            "url = \"memory:\"\nkeyPrefix = \"\"",
            "did you mean `key_prefix`?",
        ),
        (
            "url = \"memory:\"\npassword = \"hunter2\"",
            "unknown setting `password`; expected `url`",
        ),
        ("lease = \"5s\"", "missing"),
        (
            "url = \"memory:\"\nlease = 5",
            "expected text such as \"5s\" for `lease`, with its unit; got a number",
        ),
        (
            "url = \"memory:\"\nlease = \"5\"",
            "expected a duration such as `30s`, `1m30s` or `500ms` for `lease`, got `5`",
        ),
        (
            "url = \"memory:\"\nconnect_timeout = \"soon\"",
            "for `connect_timeout`, got `soon`",
        ),
        ("url = true", "for `url`; got true or false"),
        ("url = [\"redis://u:hunter2@h\"]", "expected text"),
    ] {
        for error in refused(settings) {
            assert!(error.contains(said), "{settings}: {error}");
            assert!(!error.contains("hunter2"), "{settings}: {error}");
        }
    }
    for error in read("lock = \"redis://u:hunter2@h\"").map(|read| read.expect_err("no table")) {
        assert!(error.contains("a table with the settings `url`"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// Connects, and returns the error.
async fn not_connected(locks: &LockConfig) -> String {
    match locks.connect().await {
        Ok(provider) => panic!("connected to {}", provider.describe()),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[test]
fn a_setting_has_one_place() {
    type Set = fn(LockConfig) -> LockConfig;
    const SECOND: Duration = Duration::from_secs(1);
    let cases: [(&str, Set); 6] = [
        ("key_prefix=a", |locks| locks.key_prefix("b")),
        // Even if both say the same.
        ("key_prefix=a", |locks| locks.key_prefix("a")),
        ("lease=1s", |locks| locks.lease(SECOND)),
        ("%6Cease=1s", |locks| locks.lease(SECOND)),
        ("x=y&connect_timeout=1s", |locks| {
            locks.connect_timeout(SECOND)
        }),
        ("response_timeout=1s", |locks| {
            locks.response_timeout(SECOND)
        }),
    ];
    run(async move {
        for (parameter, set) in cases {
            for url in [
                "memory:",
                "file:/tmp/x",
                "redis://h",
                "postgres://h/d",
                "zookeeper://h",
            ] {
                let locks = set(LockConfig::new(format!("{url}?{parameter}")));
                let error = not_connected(&locks).await;
                let said = "is given twice, as a setting and as a parameter of the URL";
                assert!(error.contains(said), "{url} {parameter}: {error}");
            }
        }
    });
}

#[test]
fn what_no_provider_takes_is_refused() {
    run(async {
        let locks = || LockConfig::new("memory:");
        for (locks, said) in [
            (
                locks().lease(Duration::from_millis(99)),
                "a lease of 100 ms to 24 h, got 99ms",
            ),
            (locks().lease(Duration::MAX), "a lease of 100 ms to 24 h"),
            (
                locks().connect_timeout(Duration::ZERO),
                "expected a `connect_timeout` above zero",
            ),
            (
                locks().response_timeout(Duration::from_micros(1_500)),
                "a whole number of milliseconds, less than 2^64, for `response_timeout`, got 1.5ms",
            ),
            (locks().connect_timeout(Duration::MAX), "less than 2^64"),
            (
                LockConfig::new("nonsense"),
                "expected a URL that begins with",
            ),
            (
                LockConfig::new("radis://h").key_prefix("a"),
                "unknown URL scheme",
            ),
        ] {
            let error = not_connected(&locks).await;
            assert!(error.contains(said), "{locks:?}: {error}");
        }
    });
}

#[test]
fn settings_reach_the_provider() {
    run(async {
        let scratch = Scratch::new();
        let url = format!("file:{}", scratch.path().display());
        let locks = LockConfig::new(&url).key_prefix("a&b=c ?#@ü:");
        let provider = locks.connect().await.expect("the directory can be used");
        assert!(
            provider.describe().contains("prefix `a&b=c ?#@ü:`"),
            "{}",
            provider.describe()
        );
        let again = lock_runtime::connect(&url)
            .await
            .expect("the directory can be used");
        let held = DistributedLock::on(provider, "x");
        let held = held.acquire().await.expect("it is free");
        let prefixed = DistributedLock::on(again.clone(), "a&b=c ?#@ü:x");
        assert!(prefixed.try_acquire().await.expect("no error").is_none());
        let bare = DistributedLock::on(again, "x").try_acquire().await;
        assert!(bare.expect("no error").is_some());
        drop(held);
    });
}

#[test]
fn what_a_provider_does_not_have_is_ignored_and_said() {
    in_own_process(
        "config::what_a_provider_does_not_have_is_ignored_and_said",
        &[],
        || {
            let log = Log::install(Level::INFO);
            run(async move {
                let scratch = Scratch::new();
                let url = format!("file:{}", scratch.path().display());
                let locks = LockConfig::new(url).lease(Duration::from_secs(5));
                locks.connect().await.expect("a lease does no harm");
                assert!(log.line_with("has no `lease`").contains("INFO"));
            });
        },
    );
}

#[test]
fn a_configuration_is_registered_once() {
    in_own_process("config::a_configuration_is_registered_once", &[], || {
        run(async {
            let locks = LockConfig::new("memory:");
            locks.register().await.expect("it is the first");
            locks
                .register_named("other")
                .await
                .expect("it is the first");
            let error = locks.register().await.expect_err("it is the second");
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig);
            assert!(error.to_string().contains("registered already"), "{error}");
            let source = error
                .source()
                .and_then(|it| it.downcast_ref::<RegisterError>());
            let kind = source.map(RegisterError::kind);
            assert_eq!(kind, Some(RegisterErrorKind::AlreadyRegistered));
            let again = locks.register_named("other").await;
            assert_eq!(
                again.expect_err("it is the second").kind(),
                LockErrorKind::InvalidConfig
            );
        });
    });
}

#[test]
fn debug_shows_no_more_of_a_url_than_its_scheme() {
    let shown = |url: &str| format!("{:?}", LockConfig::new(url).key_prefix("shop:"));
    assert!(shown("REDIS://u:hunter2@h").contains("url: \"redis:…\", key_prefix: Some(\"shop:\")"));
    for url in [
        "redis://u:hunter2@h?lease=hunter2",
        "hunter2:x@redis",
        "hunter2",
        " redis:hunter2",
    ] {
        assert!(!shown(url).contains("hunter2"), "{}", shown(url));
    }
}
