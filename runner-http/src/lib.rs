//! The Telegram Bot API over pluggable HTTP clients.

mod client;

pub use client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane, Limits};
