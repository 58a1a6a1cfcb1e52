//! The ways to connect.

use std::sync::Arc;

use redis::Client;

use super::builder::RedisProviderBuilder;
use super::provider::RedisProvider;
use crate::LockError;
use crate::provider::LockProvider;

impl RedisProvider {
    /// Connects to the server of this URL: `redis://user:password@host:port/database`, or
    /// `rediss:` for TLS, also written `valkey:` and `valkeys:`; or, for a Unix socket,
    /// `unix:///path?db=0&user=name&pass=word`, also written `redis+unix:`.
    ///
    /// Behind sentinels, it is `redis-sentinel://user:password@host:26379,host/0?service=name`, or
    /// `redis+sentinel://user:password@host:26379,host/name/0`, or `rediss-` and `rediss+`. User
    /// and password are the servers'; the sentinels' are the parameters `sentinel_username` and
    /// `sentinel_password`.
    ///
    /// Parameters `key_prefix`, `lease`, `connect_timeout`, `response_timeout`, `failover_timeout`,
    /// `restart_delay` and `token_floor` set what the builder's methods of that name set.
    ///
    /// # Errors
    ///
    /// As [`RedisProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn connect(url: impl Into<String>) -> Result<Self, LockError> {
        Self::builder(url).connect().await
    }

    /// Begins the settings for the server of this URL; see [`connect`](Self::connect).
    pub fn builder(url: impl Into<String>) -> RedisProviderBuilder {
        RedisProviderBuilder::from_url(url.into())
    }

    /// Begins the settings for the primary of this service, as the sentinels name it. Each sentinel
    /// is written as `host`, `host:26379`, or as a URL, `redis://user:password@host:26379`, whose
    /// credentials are that sentinel's; those of the servers are set by
    /// [`username`](RedisProviderBuilder::username) and
    /// [`password`](RedisProviderBuilder::password). With `rediss:`, both speak TLS.
    ///
    /// One sentinel that can be reached is enough; it names the others, which get the credentials of
    /// the first in the list. Several are needed for the start if one of them may be gone.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use lock_runtime::RedisProvider;
    ///
    /// let sentinels = ["10.0.0.1:26379", "10.0.0.2:26379", "10.0.0.3:26379"];
    /// let provider = RedisProvider::sentinel("orders", sentinels).connect().await?;
    /// lock_runtime::register(provider)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sentinel(
        service: impl Into<String>,
        sentinels: impl IntoIterator<Item = impl Into<String>>,
    ) -> RedisProviderBuilder {
        let urls = sentinels.into_iter().map(Into::into).collect();
        RedisProviderBuilder::of_sentinels(service.into(), urls)
    }

    /// Connects as this client would: with its address, certificates and credentials, though with
    /// RESP3 and with TCP settings of the library's own.
    ///
    /// The client is that of the crate `redis` in the version that this crate depends on. A new
    /// major version of `redis` changes this method's type with a minor version of this crate; a
    /// URL does not.
    ///
    /// # Errors
    ///
    /// As [`RedisProviderBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    pub async fn from_client(client: Client) -> Result<Self, LockError> {
        Self::builder_from_client(client).connect().await
    }

    /// Begins the settings for connecting as this client would; see
    /// [`from_client`](Self::from_client).
    pub fn builder_from_client(client: Client) -> RedisProviderBuilder {
        RedisProviderBuilder::from_client(client)
    }
}

pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    Ok(Arc::new(RedisProvider::connect(url).await?))
}
