# The loops of this repository; `just` alone lists them. CONTRIBUTING.md names them by task.

# Lists the recipes.
default:
    @just --list

# Format, lints and unit tests: before each commit.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo test -p lock-macros -p lock-runtime --all-features --lib

# Everything; installs missing servers on Debian as root. Arguments go to `cargo test`.
test *ARGS:
    tests/run {{ ARGS }}

# Conformance, own tests and faults of one provider: file, redis, postgres or zookeeper.
test-server NAME:
    #!/usr/bin/env bash
    set -euo pipefail
    case {{ NAME }} in
    file) own=() ;;
    redis) own=(--test redis --test faults) ;;
    postgres | zookeeper) own=(--test {{ NAME }}) ;;
    *) echo "expected file, redis, postgres or zookeeper, got {{ NAME }}" >&2; exit 2 ;;
    esac
    export LOCK_TESTS_REQUIRE={{ NAME }}
    cargo test -p lock-runtime --features {{ NAME }} --lib providers::{{ NAME }}
    cargo test -p lock-tests --features {{ NAME }} --test conformance {{ NAME }}
    if [ "${#own[@]}" -gt 0 ]; then
        cargo test -p lock-tests --features {{ NAME }} "${own[@]}"
    fi

# Random faults at one part for long: gate, redis, postgres or zookeeper.
soak NAME SECONDS="30" SEEDS="100":
    #!/usr/bin/env bash
    set -euo pipefail
    export LOCK_STORM_SECONDS={{ SECONDS }} LOCK_STORM_SEEDS={{ SEEDS }}
    case {{ NAME }} in
    gate) export LOCK_TESTS_SEEDS=1000
        exec cargo test -p lock-tests --test runtime nemesis -- --nocapture ;;
    redis) own=faults ;;
    postgres | zookeeper) own={{ NAME }} ;;
    *) echo "expected gate, redis, postgres or zookeeper, got {{ NAME }}" >&2; exit 2 ;;
    esac
    export LOCK_TESTS_REQUIRE={{ NAME }}
    exec cargo test -p lock-tests --features {{ NAME }} --test "$own" nemesis -- --nocapture

# Renews the expected compile errors; read the difference.
ui:
    TRYBUILD=overwrite cargo test -p lock-ui-tests --test ui

# Renews the snapshots of expansions; read the difference.
snapshots:
    UPDATE_EXPECT=1 cargo test -p lock-macros

# The documentation with all features, and the code in every page without and with them.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
    cargo test --doc -p lock-runtime
    cargo test --doc -p lock-runtime --all-features

# Runs a command beside servers of its own: `just serve "redis postgres" cargo run --example redis`.
serve SERVERS +COMMAND:
    cargo run -p lock-tests --all-features --bin lock-serve -- {{ SERVERS }} -- {{ COMMAND }}

# What must hold before a change lands.
ci:
    .ci/run
