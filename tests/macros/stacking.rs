//! The attribute together with other attributes, in either order.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::extract::{Path, State};
use lock_runtime::{LockError, distributed_lock};
use tracing::field::Field;
use tracing::span;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{hold, is_held};

type Held = Result<bool, LockError>;

#[async_trait]
trait Billing: Sync {
    async fn settle(&self, id: u32) -> Held;
    async fn split(&self, pair: (u32, u32), point: Point) -> Result<u32, LockError>;
    async fn instrumented_above(&self, id: u32) -> Held;
    async fn instrumented_below(&mut self, id: u32) -> Held;

    #[distributed_lock(name = "stacking:default:{self.tenant()}", on_unavailable = "skip")]
    async fn nightly(&self) -> Option<bool> {
        Some(is_held(&format!("stacking:default:{}", self.tenant())).await)
    }

    #[distributed_lock(name = "stacking:unit", on_unavailable = "skip")]
    async fn unit(&self) {
        assert!(is_held("stacking:unit").await);
    }

    async fn named_only(&self, id: u32) -> Result<(), LockError>;
    fn tenant(&self) -> &str;
}

struct Point {
    x: u32,
    y: u32,
}

struct Shop {
    tenant: String,
}

#[async_trait]
impl Billing for Shop {
    #[distributed_lock(name = "stacking:settle:{self.tenant}:{id}", guard = lock)]
    async fn settle(&self, id: u32) -> Held {
        let name = format!("stacking:settle:{}:{id}", self.tenant);
        assert_eq!(*lock.name(), *name);
        Ok(is_held(&name).await)
    }

    #[distributed_lock(name = "stacking:split:{self.tenant}:{a}:{b}:{x}")]
    async fn split(
        &self,
        (a, mut b): (u32, u32),
        Point { x, y: z }: Point,
    ) -> Result<u32, LockError> {
        assert!(is_held(&format!("stacking:split:{}:{a}:{b}:{x}", self.tenant)).await);
        b += z;
        Ok(a + b + x)
    }

    #[tracing::instrument(skip(self))]
    #[distributed_lock(name = "stacking:above:{self.tenant}:{id}")]
    async fn instrumented_above(&self, id: u32) -> Held {
        Ok(is_held(&format!("stacking:above:{}:{id}", self.tenant)).await)
    }

    #[distributed_lock(name = "stacking:below:{self.tenant}:{id}")]
    #[tracing::instrument(skip(self))]
    async fn instrumented_below(&mut self, id: u32) -> Held {
        self.tenant.push('!');
        Ok(is_held(&format!("stacking:below:acme:{id}")).await)
    }

    // Its parameter is used by the name alone, and that is no reason for a warning.
    #[deny(unused_variables)]
    #[distributed_lock(name = "stacking:unused:{id}")]
    async fn named_only(&self, id: u32) -> Result<(), LockError> {
        Ok(())
    }

    fn tenant(&self) -> &str {
        &self.tenant
    }
}

#[tokio::test]
async fn methods_of_async_trait() {
    let mut shop = Shop {
        tenant: "acme".into(),
    };
    assert!(shop.settle(1).await.unwrap());
    assert_eq!(shop.split((1, 2), Point { x: 4, y: 8 }).await.unwrap(), 15);
    assert!(shop.instrumented_above(1).await.unwrap());
    assert!(shop.instrumented_below(1).await.unwrap());
    assert_eq!(shop.tenant, "acme!");
    let billing: &dyn Billing = &shop;
    assert_eq!(billing.nightly().await, Some(true));
    billing.unit().await;
    let _held = hold("stacking:default:acme!").await;
    assert_eq!(billing.nightly().await, None);
}

#[async_trait(?Send)]
trait Local {
    async fn local(&self, count: std::rc::Rc<u32>) -> Result<u32, LockError>;
}

#[async_trait(?Send)]
impl Local for Shop {
    #[distributed_lock(name = "stacking:local:{count}")]
    async fn local(&self, count: std::rc::Rc<u32>) -> Result<u32, LockError> {
        tokio::task::yield_now().await;
        Ok(*count)
    }
}

#[tokio::test]
async fn methods_of_async_trait_that_are_not_send() {
    assert_eq!(
        Shop {
            tenant: String::new()
        }
        .local(5.into())
        .await
        .unwrap(),
        5
    );
}

#[tracing::instrument]
#[distributed_lock(name = "stacking:instrument-above:{id}")]
async fn instrument_above(id: u32) -> Held {
    Ok(is_held(&format!("stacking:instrument-above:{id}")).await)
}

#[distributed_lock(name = "stacking:instrument-below:{id}")]
#[tracing::instrument(err, ret)]
async fn instrument_below(id: u32) -> Held {
    Ok(is_held(&format!("stacking:instrument-below:{id}")).await)
}

#[tokio::test]
async fn instrument() {
    assert!(instrument_above(1).await.unwrap());
    assert!(instrument_below(1).await.unwrap());
}

/// Notes the fields that are recorded after their span was made, with the span's name.
struct Recorded(Arc<Mutex<Vec<String>>>);

impl<S> Layer<S> for Recorded
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let name = context.span(id).expect("the span is open").name();
        let mut log = self.0.lock().unwrap();
        values.record(&mut |field: &Field, value: &dyn std::fmt::Debug| {
            if name != "distributed_lock" {
                log.push(format!("{name} {}={value:?}", field.name()));
            }
        });
    }
}

#[distributed_lock(name = "stacking:record-below:{id}", guard = lock)]
#[tracing::instrument(skip_all, fields(user = tracing::field::Empty))]
async fn record_below(id: u32) -> Result<(), LockError> {
    tracing::Span::current().record("user", id);
    tokio::task::yield_now().await;
    tracing::Span::current().record("user", lock.name().as_str());
    Ok(())
}

#[tracing::instrument(skip_all, fields(user = tracing::field::Empty))]
#[distributed_lock(name = "stacking:record-above:{id}", guard = lock)]
async fn record_above(id: u32) -> Result<(), LockError> {
    tracing::Span::current().record("user", id);
    tokio::task::yield_now().await;
    tracing::Span::current().record("user", lock.name().as_str());
    Ok(())
}

#[distributed_lock(name = "stacking:record-outside", on_unavailable = "skip")]
async fn record_outside() {
    tracing::Span::current().record("user", 3);
    tokio::task::yield_now().await;
    tracing::Span::current().record("user", 4);
}

#[tokio::test]
async fn the_current_span_is_the_one_without_the_attribute() {
    let log = Arc::default();
    let subscriber = tracing_subscriber::registry().with(Recorded(Arc::clone(&log)));
    let _default = tracing::subscriber::set_default(subscriber);
    record_below(1).await.unwrap();
    record_above(2).await.unwrap();
    let outside = tracing::info_span!("outside", user = tracing::field::Empty);
    tracing::Instrument::instrument(record_outside(), outside).await;
    assert_eq!(
        *log.lock().unwrap(),
        [
            "record_below user=1",
            "record_below user=\"stacking:record-below:1\"",
            "record_above user=2",
            "record_above user=\"stacking:record-above:2\"",
            "outside user=3",
            "outside user=4",
        ]
    );
}

struct NotDebug {
    id: u32,
}

/// An attribute below this one sees the signature as it was written.
#[distributed_lock(name = "stacking:pattern-below:{id}")]
#[tracing::instrument(fields(twice = id * 2))]
async fn pattern_below(
    NotDebug { id, .. }: NotDebug,
    _unused: u32,
    other: String,
) -> Result<u32, LockError> {
    Ok(id)
}

#[tracing::instrument(fields(twice = id * 2))]
#[distributed_lock(name = "stacking:pattern-above:{id}")]
async fn pattern_above(
    NotDebug { id, .. }: NotDebug,
    _unused: u32,
    other: String,
) -> Result<u32, LockError> {
    Ok(id)
}

#[tokio::test]
async fn patterns_under_instrument() {
    let call = pattern_below(NotDebug { id: 1 }, 2, String::new());
    assert_eq!(call.await.unwrap(), 1);
    let call = pattern_above(NotDebug { id: 2 }, 2, String::new());
    assert_eq!(call.await.unwrap(), 2);
}

#[tokio::test]
#[distributed_lock(name = "stacking:test-above")]
async fn tokio_test_above() -> Result<(), LockError> {
    assert!(is_held("stacking:test-above").await);
    Ok(())
}

#[distributed_lock(name = "stacking:test-below")]
#[tokio::test]
async fn tokio_test_below() -> Result<(), LockError> {
    assert!(is_held("stacking:test-below").await);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
#[distributed_lock(name = "stacking:main-above:{id}")]
async fn main_above(id: u32) -> Held {
    Ok(is_held(&format!("stacking:main-above:{id}")).await)
}

#[distributed_lock(name = "stacking:main-below:{id}")]
#[tokio::main(flavor = "current_thread")]
async fn main_below(id: u32) -> Held {
    Ok(is_held(&format!("stacking:main-below:{id}")).await)
}

#[tokio::main(flavor = "current_thread")]
#[distributed_lock(name = "stacking:main-unit", on_unavailable = "skip")]
async fn main_unit() {
    assert!(is_held("stacking:main-unit").await);
}

#[test]
fn tokio_main() {
    assert!(main_above(1).unwrap());
    assert!(main_below(1).unwrap());
    main_unit();
}

struct AppError(LockError);

impl From<LockError> for AppError {
    fn from(error: LockError) -> Self {
        Self(error)
    }
}

impl axum::response::IntoResponse for AppError {
    fn into_response(self) -> axum::response::Response {
        let status = match self.0.is_contention() {
            true => axum::http::StatusCode::CONFLICT,
            false => axum::http::StatusCode::SERVICE_UNAVAILABLE,
        };
        status.into_response()
    }
}

#[axum::debug_handler]
#[distributed_lock(name = "stacking:handler:{shop.tenant}:{id}")]
async fn handler_above(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u32>,
) -> Result<String, AppError> {
    Ok(is_held(&format!("stacking:handler:{}:{id}", shop.tenant))
        .await
        .to_string())
}

#[distributed_lock(name = "stacking:handler:{shop.tenant}:{id}")]
#[axum::debug_handler]
async fn handler_below(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u32>,
) -> Result<String, AppError> {
    Ok(is_held(&format!("stacking:handler:{}:{id}", shop.tenant))
        .await
        .to_string())
}

#[tokio::test]
async fn axum_handlers() {
    use axum::response::IntoResponse;
    let shop = Arc::new(Shop {
        tenant: "acme".into(),
    });
    // They are handlers.
    let _router: axum::Router = axum::Router::new()
        .route("/above/{id}", axum::routing::post(handler_above))
        .route("/below/{id}", axum::routing::post(handler_below))
        .with_state(shop.clone());
    let held = handler_above(State(shop.clone()), Path(1))
        .await
        .into_response();
    assert_eq!(held.status(), axum::http::StatusCode::OK);
    assert_eq!(
        handler_below(State(shop.clone()), Path(1))
            .await
            .ok()
            .unwrap(),
        "true"
    );
    let _held = hold("stacking:handler:acme:1").await;
    let refused = handler_below(State(shop), Path(1)).await.into_response();
    assert_eq!(refused.status(), axum::http::StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_parameter_may_be_used_by_the_name_alone() {
    Shop {
        tenant: "acme".to_owned(),
    }
    .named_only(1)
    .await
    .unwrap();
}
