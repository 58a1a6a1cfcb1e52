//! Every form of a name template, and how two calls are kept from meeting by accident.
//!
//! It needs no server: no provider is registered, so the locks are held in this process.
//!
//! ```text
//! cargo run --example name_template
//! ```

use lock_runtime::{LockError, LockName, distributed_lock};

// `guard = lock` lets the body see its guard, and a guard knows the name of its lock.
type Named = Result<String, LockError>;

struct Order {
    customer: String,
    key: (u32, u32),
}

impl Order {
    fn number(&self) -> String {
        format!("{}-{}", self.key.0, self.key.1)
    }
}

struct Shop {
    tenant: &'static str,
}

impl Shop {
    /// `self`, and a field of it.
    #[distributed_lock(name = "stock:{self.tenant}", guard = lock)]
    async fn count_stock(&self) -> Named {
        Ok(lock.name().to_string())
    }

    /// Several placeholders: fields of parameters and calls without arguments.
    #[distributed_lock(
        name = "order:{self.tenant}:{order.customer}:{order.number()}",
        guard = lock,
    )]
    async fn ship(&self, order: &Order) -> Named {
        Ok(lock.name().to_string())
    }
}

/// No placeholder: one lock for all calls.
#[distributed_lock(name = "nightly-report", guard = lock)]
async fn report() -> Named {
    Ok(lock.name().to_string())
}

/// A parameter.
#[distributed_lock(name = "invoice:{id}", guard = lock)]
async fn settle(id: u64) -> Named {
    Ok(lock.name().to_string())
}

/// An element of a tuple.
#[distributed_lock(name = "shelf:{order.key.0}", guard = lock)]
async fn pick(order: &Order) -> Named {
    Ok(lock.name().to_string())
}

/// A format, as in `format!`: here six digits with zeros in front.
#[distributed_lock(name = "batch-{number:06}", guard = lock)]
async fn print_batch(number: u32) -> Named {
    Ok(lock.name().to_string())
}

/// Doubled braces stand for braces: `{tag}` is what a Redis cluster chooses the slot by.
#[distributed_lock(name = "{{jobs}}:{queue}", guard = lock)]
async fn drain(queue: &str) -> Named {
    Ok(lock.name().to_string())
}

/// An expression, for names that no template can say. Encoding it is then up to the caller.
#[distributed_lock(name = LockName::from(path.join("/")), guard = lock)]
async fn open(path: &[&str]) -> Named {
    Ok(lock.name().to_string())
}

/// Two placeholders, and values that contain what stands between them.
#[distributed_lock(name = "transfer:{from}:{to}", guard = lock)]
async fn transfer(from: &str, to: &str) -> Named {
    Ok(lock.name().to_string())
}

#[tokio::main]
async fn main() -> Result<(), LockError> {
    let shop = Shop { tenant: "acme" };
    let order = Order {
        customer: "Ada Lovelace".to_owned(),
        key: (2024, 7),
    };

    println!("template                                                name");
    expect("nightly-report", report().await?, "nightly-report");
    expect("invoice:{id}", settle(7).await?, "invoice:7");
    expect(
        "stock:{self.tenant}",
        shop.count_stock().await?,
        "stock:acme",
    );
    expect("shelf:{order.key.0}", pick(&order).await?, "shelf:2024");
    expect(
        "order:{self.tenant}:{order.customer}:{order.number()}",
        shop.ship(&order).await?,
        "order:acme:Ada Lovelace:2024-7",
    );
    expect("batch-{number:06}", print_batch(42).await?, "batch-000042");
    expect("{{jobs}}:{queue}", drain("mail").await?, "{jobs}:mail");
    expect(
        "LockName::from(path.join(\"/\"))",
        open(&["etc", "hosts"]).await?,
        "etc/hosts",
    );

    // A template with one placeholder renders its value as it is; with several, a value cannot
    // pretend to be two.
    println!("\ntransfer:{{from}}:{{to}}, called with");
    let calls = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("100%", "c")];
    let mut names = Vec::new();
    for (from, to) in calls {
        let name = transfer(from, to).await?;
        println!("  {:<24} → {name}", format!("({from:?}, {to:?})"));
        assert!(!names.contains(&name), "two calls share the name {name}");
        names.push(name);
    }
    assert_eq!(
        names,
        [
            "transfer:a:b:c",
            "transfer:a%3Ab:c",
            "transfer:a%253Ab:c",
            "transfer:100%25:c",
        ]
    );
    Ok(())
}

fn expect(template: &str, name: String, expected: &str) {
    println!("{template:<55} {name}");
    assert_eq!(name, expected);
}
