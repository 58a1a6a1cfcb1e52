//! The ways in which a bench with servers is started.

use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

/// Tells whether figures are wanted. `cargo bench` wants them; `cargo test --benches` only wants to
/// see that the bench runs.
pub(crate) fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Ends the bench where a server is missing: there are no figures then, and nothing to see.
pub(crate) fn without_server() -> ExitCode {
    if measures() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Tells whether work of this title is to be done. Arguments are parts of titles; without any, all
/// work is.
pub(crate) fn wants(title: &str) -> bool {
    let mut parts = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let Some(first) = parts.next() else {
        return true;
    };
    title.contains(&first) || parts.any(|part| title.contains(&part))
}

pub(crate) fn runtime() -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime starts")
}
