//! The signals that ask a process to end, as a stream.

use std::{future::ready, io};

use async_signal::{Signal, Signals};
use futures::{Stream, StreamExt};

/// One item for every Ctrl-C (SIGINT) and, on Unix, every SIGTERM.
///
/// Begins at the call. From then on, such a signal no longer ends the process by itself.
pub(crate) fn signals() -> io::Result<impl Stream<Item = ()> + Send> {
    let wanted = [
        Signal::Int,
        #[cfg(unix)]
        Signal::Term,
    ];
    // An error is no wish to end, but reading on might fail for ever.
    Ok(Signals::new(wanted)?
        .take_while(|signal| ready(signal.is_ok()))
        .map(drop))
}
