//! The library's scripts as they are, and with faults planted in them.

use std::collections::HashMap;
use std::path::PathBuf;

use redis::aio::MultiplexedConnection;
use redis::{Script, Value};

/// The scripts by their names in `script.rs`.
pub(crate) struct Scripts(HashMap<String, Script>);

/// A fault in a script: a file, a text in it, and what stands there instead.
pub(crate) type Fault = (&'static str, &'static str, &'static str);

impl Scripts {
    pub(crate) fn real() -> Self {
        Self::with(&[])
    }

    /// Reads the scripts, and plants the faults.
    pub(crate) fn with(faults: &[Fault]) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let folder = folder.join("../lock-runtime/src/providers/redis");
        let table = std::fs::read_to_string(folder.join("script.rs")).expect("the table");
        let table = table.split_once("scripts! {").expect("the scripts").1;
        let table = table.split_once("\n}").expect("their end").0;
        let mut planted = vec![0; faults.len()];
        let mut scripts = HashMap::new();
        for entry in table.split(';') {
            let Some((name, files)) = entry.split_once('=') else {
                continue;
            };
            let mut text = String::new();
            for file in files.split('"').skip(1).step_by(2) {
                let path = folder.join("scripts").join(file);
                let mut part = std::fs::read_to_string(path).expect("a script");
                for ((faulty, from, to), planted) in faults.iter().zip(&mut planted) {
                    if *faulty == file && part.contains(from) {
                        part = part.replace(from, to);
                        *planted += 1;
                    }
                }
                text += &part;
            }
            let name = name.trim().lines().last().expect("a name").trim();
            scripts.insert(name.to_owned(), Script::new(&text));
        }
        assert!(planted.iter().all(|count| *count > 0), "{faults:?}");
        Self(scripts)
    }

    pub(crate) async fn run(
        &self,
        server: &MultiplexedConnection,
        name: &str,
        keys: &[String],
        args: &[&str],
    ) -> Value {
        let mut invocation = self.0[name].prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in args {
            invocation.arg(*argument);
        }
        let answer = invocation.invoke_async(&mut server.clone()).await;
        answer.unwrap_or_else(|error| panic!("{name} {keys:?} {args:?}: {error}"))
    }
}
