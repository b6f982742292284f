//! The Telegram Bot API over pluggable HTTP clients.
//!
//! [`BotApi`] calls any method and is where the runner gets its updates. It knows no executor; what
//! moves the bytes is an [`HttpClient`].
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `ureq` (default) | `UreqClient`: blocking connections on threads of its own; what `BotApi::new` uses |
//! | `hyper` | `HyperClient`: an async client for every runtime, for bots that send a lot |
//! | `native-certs` | `ClientOptions::system_roots`: trust the root certificates of the system |
//! | `test-util` | `testing`: a conformance suite for HTTP clients |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod api;
mod base_url;
mod classify;
mod client;
mod env;
mod envelope;
mod error;
mod flood;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod get_updates;
mod header;
mod incoming;
#[cfg(any(test, fuzzing))]
mod json_tree;
mod kind;
mod limits;
mod methods;
mod model;
mod outline;
mod scan;
mod split;
mod strict;
mod string;
#[cfg(feature = "test-util")]
pub mod testing;
mod timer;
mod token;
mod update;
mod walk;

#[cfg(feature = "hyper")]
pub use self::client::HyperClient;
#[cfg(feature = "ureq")]
pub use self::client::UreqClient;
#[cfg(any(feature = "hyper", feature = "ureq"))]
pub use self::client::{CertificateError, ClientOptions, Proxy, ProxyError};
pub use self::{
    api::BotApi,
    base_url::BaseUrlError,
    client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, Lane},
    env::EnvError,
    error::{ApiError, Body, ErrorParameters},
    get_updates::TypedUpdates,
    header::Header,
    incoming::{DecodeError, Incoming},
    kind::UpdateKind,
    limits::{LimitError, Limits},
    methods::{SentMessage, User},
    token::{Token, TokenError},
    update::{Command, Update},
};

// The code of the README is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
