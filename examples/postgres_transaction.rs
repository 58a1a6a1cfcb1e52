//! One lock from two sides: annotated functions of one program, and plain SQL of another.
//!
//! A service keeps its accounts in PostgreSQL and takes the lock of an account there too. A report
//! written in SQL alone takes the same lock inside its own transaction, by the key that
//! `advisory_key` gives, and neither sees the other's half-done work.
//!
//! It needs a PostgreSQL server, 14 or newer, which is named by the environment; without the
//! variable it only shows the SQL. It writes nothing to the database.
//!
//! ```text
//! POSTGRES_URL=postgres://app@127.0.0.1/app cargo run --example postgres_transaction
//! ```

use std::error::Error;
use std::time::Duration;

use lock_runtime::postgres::advisory_key;
use lock_runtime::{LockError, PostgresProvider, distributed_lock};

const PREFIX: &str = "MyApp1:";

#[distributed_lock(name = "account:{account}", timeout = "5s", guard = guard)]
async fn settle(account: u32) -> Result<(), LockError> {
    // The token goes with what is written, so that late writes of a lost lock can be refused.
    println!(
        "settling account {account} with {:?}",
        guard.fencing_token()
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("the same lock in somebody's own transaction:");
    let key = advisory_key(&format!("{PREFIX}account:7"));
    println!("    BEGIN;\n    SELECT pg_advisory_xact_lock({key});\n    -- …\n    COMMIT;");
    let Ok(url) = std::env::var("POSTGRES_URL") else {
        println!("set POSTGRES_URL to see it taken");
        return Ok(());
    };
    let locks = PostgresProvider::builder(url)
        .key_prefix(PREFIX)
        .lease(Duration::from_secs(15));
    lock_runtime::register(locks.connect().await?)?;
    settle(7).await?;
    lock_runtime::shutdown().await;
    Ok(())
}
