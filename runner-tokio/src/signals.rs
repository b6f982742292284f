//! The signals that ask a process to end, as a stream.

use std::io;

use futures::{Stream, stream};

/// One item for every Ctrl-C (SIGINT) and SIGTERM; two in quick succession may be one.
///
/// Begins at the call. From then on, such a signal no longer ends the process by itself.
#[cfg(unix)]
pub(crate) fn signals() -> io::Result<impl Stream<Item = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(stream::poll_fn(move |cx| {
        let interrupted = interrupt.poll_recv(cx);
        if interrupted.is_ready() {
            return interrupted;
        }
        terminate.poll_recv(cx)
    }))
}

/// One item for every Ctrl-C; two in quick succession may be one.
///
/// Begins at the call. From then on, Ctrl-C no longer ends the process by itself.
#[cfg(windows)]
pub(crate) fn signals() -> io::Result<impl Stream<Item = ()> + Send> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(stream::poll_fn(move |cx| interrupt.poll_recv(cx)))
}

/// There are none on this system.
#[cfg(not(any(unix, windows)))]
pub(crate) fn signals() -> io::Result<impl Stream<Item = ()> + Send> {
    Ok(stream::pending())
}
