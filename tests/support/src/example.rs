//! Runs the examples, as a person would.

use std::process::{Command, Output};

/// Runs an example that finds its server by the variable, to its end.
pub fn run(program: &str, arguments: &[&str], (variable, url): (&str, &str)) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env(variable, url);
    command.output().expect("the example runs")
}

/// Runs an example that must succeed, and returns what it prints.
///
/// # Panics
///
/// If the example fails.
pub async fn printed(
    program: &'static str,
    arguments: &'static [&'static str],
    (variable, url): (&'static str, String),
) -> String {
    let running =
        tokio::task::spawn_blocking(move || run(program, arguments, (variable, url.as_str())));
    text_of(running.await.expect("it does not panic"))
}

/// Runs an example that must succeed without a server, although the variable may name one, and
/// returns what it prints.
///
/// # Panics
///
/// If the example fails.
pub fn printed_without(program: &str, variable: &str) -> String {
    let output = Command::new(program).env_remove(variable).output();
    text_of(output.expect("the example runs"))
}

fn text_of(output: Output) -> String {
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}
