//! The Bot API of one bot: [`BotApi`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

#[cfg(feature = "ureq")]
use crate::UreqClient;
use crate::{
    ApiError, BaseUrlError, EnvError, HttpClient, HttpErrorKind, HttpRequest, HttpResponse,
    LimitError, Limits, Token, TokenError, base_url, classify, env, envelope,
    error::{Body, json_fault},
    flood::Flood,
    incoming::too_deep,
    scan::levels,
};

macro_rules! bot_api {
    ($($default:tt)*) => {
        /// The Bot API of one bot: calls any method, and is where the runner gets its updates.
        ///
        /// A clone is cheap and shares the connections: give one to every handler.
        ///
        /// `Debug` shows the bot's id and the server, never the token.
        ///
        /// ```no_run
        /// use runner_http::BotApi;
        /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
        /// # #[cfg(feature = "ureq")]
        /// # {
        /// let api = BotApi::from_env("BOT_TOKEN")?;
        /// api.send_message(700_100_200, "hello").await?;
        /// let count: i32 = api
        ///     .call("getChatMemberCount", &serde_json::json!({"chat_id": -1_001_900_000_001_i64}))
        ///     .await?;
        /// # }
        /// # Ok(())
        /// # }
        /// ```
        pub struct BotApi<C $($default)*> {
            inner: Arc<Inner<C>>,
        }
    };
}

// Features only add: without this one there is no client to default to.
#[cfg(feature = "ureq")]
bot_api!(= UreqClient);
#[cfg(not(feature = "ureq"))]
bot_api!();

#[cfg(feature = "ureq")]
impl BotApi {
    /// The bot of this token, over the default client.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the token cannot be one. Nothing is sent yet.
    pub fn new(token: impl AsRef<str>) -> Result<Self, TokenError> {
        Self::with_client(token, UreqClient::new())
    }

    /// The bot whose token is in this environment variable, over the default client.
    ///
    /// The server is the one in the variable `BOT_API_URL`, if it is set and not empty, as by
    /// [`base_url`](Self::base_url): a local server for a try, or a Bot API server of your own. Who can
    /// set it can read the token anyway, which is in the same environment.
    ///
    /// # Errors
    ///
    /// [`EnvError`] if the variable is not set, the token cannot be one, or `BOT_API_URL` is no
    /// address. Nothing is sent yet.
    pub fn from_env(variable: &str) -> Result<Self, EnvError> {
        Self::from_env_with(variable, UreqClient::new())
    }
}

impl<C: HttpClient> BotApi<C> {
    /// The bot of this token, over an HTTP client of your choice.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the token cannot be one. Nothing is sent yet.
    pub fn with_client(token: impl AsRef<str>, client: C) -> Result<Self, TokenError> {
        Ok(Self::from_parts(Token::new(token.as_ref())?, client))
    }

    /// The bot that the environment describes, as by `from_env`, over an HTTP client of your choice.
    ///
    /// # Errors
    ///
    /// [`EnvError`], as from `from_env`.
    pub fn from_env_with(variable: &str, client: C) -> Result<Self, EnvError> {
        let (token, base) = env::read(variable)?;
        let api = Self::from_parts(token, client);
        Ok(match base {
            Some(base) => api.change(|inner| inner.base = base),
            None => api,
        })
    }

    /// Uses another server. Default: `https://api.telegram.org`.
    ///
    /// `http://` is accepted for servers of your own; the token is then readable on the way.
    ///
    /// # Errors
    ///
    /// [`BaseUrlError`] if it is no address to which the token and a method can be added.
    pub fn base_url(self, url: impl AsRef<str>) -> Result<Self, BaseUrlError> {
        let base = base_url::check(url.as_ref())?;
        Ok(self.change(|inner| {
            inner.base = base;
            inner.has_worked = Arc::default();
        }))
    }

    /// Uses Telegram's test environment, whose bots and users are apart from the real ones.
    #[must_use]
    pub fn test_environment(self) -> Self {
        self.change(|inner| inner.is_test = true)
    }

    /// How long the parts of one call may take, and how large its answer may be. Default:
    /// [`Limits::default`].
    ///
    /// A poll adds its own timeout to [`Limits::answer`].
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        self.change(|inner| inner.limits = limits)
    }

    /// How long a call may wait because of 429s, in total. Default: 60 s, which covers the limits of
    /// one minute that the Bot API has for groups.
    ///
    /// A 429 says that the call had no effect and when to repeat it, so [`call`](Self::call) waits that
    /// long and repeats it. Calls to the same chat wait as well instead of going out; without a chat,
    /// calls of the same method do. A 429 that asks for more than what is left of this limit is
    /// returned at once.
    ///
    /// [`Duration::ZERO`] returns every 429. Choose it if you retry by an error policy, or in tests on a
    /// simulated clock: these waits follow the clock of the system.
    ///
    /// Polls do not count: the runner waits for them.
    #[must_use]
    pub fn flood_wait(self, limit: Duration) -> Self {
        self.change(|inner| inner.flood_wait = limit)
    }

    /// Calls a method and decodes its result.
    ///
    /// `params` is anything that serialises to a JSON object, such as a struct or
    /// `serde_json::json!({…})`; `&()` sends none. What it serialises is sent as it is, and some
    /// parameters mean something else as `null` than left out: give `Option` fields
    /// `#[serde(skip_serializing_if = "Option::is_none")]`.
    ///
    /// A call that gets a 429 is repeated when the server allows it, see
    /// [`flood_wait`](Self::flood_wait). Nothing else is repeated: the call may have had its effect.
    ///
    /// # Errors
    ///
    /// [`ApiError`]; [`may_have_had_an_effect`](ApiError::may_have_had_an_effect) says whether it is
    /// safe to repeat the call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the request, or the wait; the call may have had its effect.
    pub fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> impl Future<Output = Result<T, ApiError>> + Send {
        // Encoded at the call and not at the first poll, so that `params` need not be `Sync`.
        let request = self.request(method, params);
        let method = method.to_owned();
        let api = self.clone();
        async move {
            let response = api.send_patiently(&method, request?).await?;
            let result = api.note(envelope::open::<&RawValue>(&response, api.token()))?;
            let result = result.unwrap_or(RawValue::NULL).get();
            if let Some(limit) = too_deep(levels(result), api.inner.limits.max_depth) {
                return Err(ApiError::Limit(limit));
            }
            serde_json::from_str(result).map_err(|error| ApiError::Decode {
                body: Body::bounded(&response.body),
                source: json_fault(&error, Some(api.token())),
            })
        }
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.inner.token
    }

    fn from_parts(token: Token, client: C) -> Self {
        Self {
            inner: Arc::new(Inner {
                client: Arc::new(client),
                token,
                base: base_url::CLOUD.into(),
                is_test: false,
                limits: Limits::default(),
                has_worked: Arc::default(),
                flood: Arc::default(),
                flood_wait: FLOOD_WAIT,
            }),
        }
    }

    pub(crate) fn request<P>(&self, method: &str, params: &P) -> Result<HttpRequest, ApiError>
    where
        P: Serialize + ?Sized,
    {
        let mut request = HttpRequest::new(self.inner.url(method)?, encode(params)?);
        request.limits = self.inner.limits;
        Ok(request)
    }

    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ApiError> {
        let max = request.limits.max_body;
        let answer = self.inner.client.send(request).await;
        let mut answer = answer.map_err(|error| match error.kind() {
            HttpErrorKind::TooLarge => ApiError::Limit(LimitError::Body { max }),
            _ => ApiError::Http(error),
        })?;
        if answer.body.starts_with(BYTE_ORDER_MARK) {
            answer.body = answer.body.slice(BYTE_ORDER_MARK.len()..);
        }
        Ok(answer)
    }

    /// Sends the request, and again after every 429 that can be waited out.
    async fn send_patiently(
        &self,
        method: &str,
        request: HttpRequest,
    ) -> Result<HttpResponse, ApiError> {
        let flood = &self.inner.flood;
        let mut left = self.inner.flood_wait;
        let mut wait = async |until: Instant| -> bool {
            let delay = until.saturating_duration_since(Instant::now());
            let Some(rest) = left.checked_sub(delay) else {
                return false;
            };
            left = rest;
            flood.timer.sleep_until(until).await.is_ok()
        };
        loop {
            while let Some(until) = flood.until(method, &request.body, Instant::now())
                && wait(until).await
            {}
            let response = self.send(request.clone()).await?;
            let Some(delay) = envelope::too_many_requests(&response, self.token()) else {
                return Ok(response);
            };
            let now = Instant::now();
            let delay = classify::delay(delay);
            flood.refused(method, &request.body, delay, now);
            match now.checked_add(delay) {
                Some(until) if wait(until).await => {}
                _ => return Ok(response),
            }
        }
    }

    /// Remembers whether the Bot API has answered, and lets failures know.
    pub(crate) fn note<T>(&self, mut outcome: Result<T, ApiError>) -> Result<T, ApiError> {
        let known = &self.inner.has_worked;
        match &mut outcome {
            Ok(_) => known.store(true, Ordering::Relaxed),
            Err(ApiError::Status { has_worked, .. }) => *has_worked = known.load(Ordering::Relaxed),
            Err(_) => {}
        }
        outcome
    }

    pub(crate) fn current_limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn change(self, change: impl FnOnce(&mut Inner<C>)) -> Self {
        // Another clone keeps its own settings; only the client is shared.
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl<C> Clone for BotApi<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<C: fmt::Debug> fmt::Debug for BotApi<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BotApi")
            .field("token", &self.inner.token)
            .field("base_url", &self.inner.base)
            .field("test_environment", &self.inner.is_test)
            .field("client", &self.inner.client)
            .finish_non_exhaustive()
    }
}

struct Inner<C> {
    client: Arc<C>,
    token: Token,
    base: String,
    is_test: bool,
    limits: Limits,
    /// Whether the Bot API has answered a call. All clones share it.
    has_worked: Arc<AtomicBool>,
    flood: Arc<Flood>,
    flood_wait: Duration,
}

impl<C> Inner<C> {
    fn url(&self, method: &str) -> Result<String, ApiError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if method.is_empty() || method.len() > MAX_METHOD || !method.bytes().all(is_name) {
            return Err(ApiError::Method {
                name: self
                    .token
                    .redact(method.into())
                    .chars()
                    .take(MAX_METHOD)
                    .collect(),
            });
        }
        let token = self.token.expose();
        let test = if self.is_test { "/test" } else { "" };
        Ok(format!("{}/bot{token}{test}/{method}", self.base))
    }
}

impl<C> Clone for Inner<C> {
    fn clone(&self) -> Self {
        Self {
            client: Arc::clone(&self.client),
            token: self.token.clone(),
            base: self.base.clone(),
            has_worked: Arc::clone(&self.has_worked),
            flood: Arc::clone(&self.flood),
            ..*self
        }
    }
}

/// A JSON object; the server takes anything else as no parameters at all, without an error.
fn encode<P: Serialize + ?Sized>(params: &P) -> Result<Bytes, ApiError> {
    let body = serde_json::to_vec(params).map_err(|error| ApiError::Encode(error.into()))?;
    match body.first() {
        Some(b'{') => Ok(body.into()),
        _ if body == b"null" => Ok(Bytes::from_static(b"{}")),
        _ => Err(ApiError::Encode(
            "they are a JSON value of another type; use a struct, a map or json!({…})".into(),
        )),
    }
}

/// The Bot API limits messages to a group by the minute.
const FLOOD_WAIT: Duration = Duration::from_secs(60);

/// Some proxies and servers of others begin a UTF-8 text with it; no JSON reader takes it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Longer than any method's name.
const MAX_METHOD: usize = 64;
