//! Code of the user that panics must harm nothing but the update at hand.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Calls `code`; a panic in it becomes its text.
pub(crate) fn guarded<T>(code: impl FnOnce() -> T) -> Result<T, Arc<str>> {
    // What `code` touches is dropped or never looked at again once it has panicked.
    catch_unwind(AssertUnwindSafe(code)).map_err(text)
}

/// Drops `value`; a panic in its destructor is swallowed.
pub(crate) fn discard<T>(value: T) {
    // The payload of such a panic is dropped by `text`, which guards that in turn.
    let _ = guarded(|| drop(value));
}

/// The message of a panic. A payload is not `Sync` and cannot be kept itself.
fn text(payload: Box<dyn Any + Send>) -> Arc<str> {
    let text: Arc<str> = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).into()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.as_str().into()
    } else {
        "(a value that is not text)".into()
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // A destructor that panics with a payload whose destructor panics: enough.
        std::mem::forget(again);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_panic_is_kept() {
        assert_eq!(&*guarded(|| panic!("plain")).unwrap_err(), "plain");
        assert_eq!(&*guarded(|| panic!("made {}", 1)).unwrap_err(), "made 1");
        assert_eq!(guarded(|| 7), Ok(7));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                std::panic::panic_any(Self);
            }
        }
        assert!(guarded(|| std::panic::panic_any(Bomb)).is_err());
        discard(Bomb);
    }
}
