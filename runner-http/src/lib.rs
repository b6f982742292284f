//! The Telegram Bot API over pluggable HTTP clients.

mod client;
#[cfg(feature = "test-util")]
pub mod testing;

pub use client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane, Limits};
#[cfg(feature = "hyper")]
pub use client::{HyperClient, HyperOptions};
#[cfg(feature = "ureq")]
pub use client::{UreqClient, UreqOptions};
