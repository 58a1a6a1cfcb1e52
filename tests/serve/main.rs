//! Runs a command beside servers of its own: `lock-serve redis postgres -- command arguments`.
//!
//! Each server is started on a free loopback port, the command finds it by `REDIS_URL`,
//! `POSTGRES_URL` or `ZOOKEEPER_URL`, and all end with the command.

use std::process::{Command, ExitCode};

use lock_tests::postgres::PostgresOptions;
use lock_tests::{RedisServer, ZooKeeperServer};

const USAGE: &str = "usage: lock-serve [redis|postgres|zookeeper]... -- command [argument]...";

/// A server, and what the command knows it by.
struct Served {
    variable: &'static str,
    url: String,
    /// Ends the server when it is dropped.
    _server: Box<dyn std::any::Any>,
}

fn start(server: &str) -> Result<Served, String> {
    let missing = || format!("{server} is not installed");
    Ok(match server {
        "redis" => {
            let server = RedisServer::start_plain().ok_or_else(missing)?;
            Served {
                variable: "REDIS_URL",
                url: server.url(),
                _server: Box::new(server),
            }
        }
        "postgres" => {
            let server = PostgresOptions::default().start().ok_or_else(missing)?;
            Served {
                variable: "POSTGRES_URL",
                url: server.url(),
                _server: Box::new(server),
            }
        }
        "zookeeper" => {
            let server = ZooKeeperServer::start().ok_or_else(missing)?;
            Served {
                variable: "ZOOKEEPER_URL",
                url: server.url(),
                _server: Box::new(server),
            }
        }
        other => return Err(format!("{other} is no server\n{USAGE}")),
    })
}

fn serve(words: &[String]) -> Result<ExitCode, String> {
    let (servers, command) = words
        .iter()
        .position(|word| word == "--")
        .map(|at| (&words[..at], &words[at + 1..]))
        .ok_or(USAGE)?;
    let (program, arguments) = command.split_first().ok_or(USAGE)?;
    let served = servers
        .iter()
        .map(|server| start(server))
        .collect::<Result<Vec<_>, _>>()?;
    let status = Command::new(program)
        .args(arguments)
        .envs(served.iter().map(|served| (served.variable, &served.url)))
        .status()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    // One that a signal ended has no code.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    serve(&words).unwrap_or_else(|problem| {
        eprintln!("{problem}");
        ExitCode::FAILURE
    })
}
