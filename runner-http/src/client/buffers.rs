//! The memory of answers, used again: [`BufferPool`].

use bytes::Bytes;

/// The last large bodies of a connection, to read the next ones into.
///
/// Memory of this size is given back to the system when it is freed, and comes back page by page: in
/// a backlog that would cost more than to read it. Answers of unknown length, and compressed ones that
/// say a smaller one, get fresh memory.
#[derive(Default)]
pub(super) struct BufferPool {
    kept: Vec<Bytes>,
}

impl BufferPool {
    /// Room for a body of which the head says that it has this length. What is in it is left over.
    ///
    /// It may be wrong, so no more is reserved than a hundred updates have.
    pub(super) fn take(&mut self, length: u64) -> Vec<u8> {
        let length = length.min(MAX as u64) as usize;
        if length >= MIN
            && let Some(free) = self.kept.iter().position(Bytes::is_unique)
        {
            // Nobody else holds it, so this does not copy.
            let mut content = Vec::from(self.kept.remove(free));
            if content.capacity() < length {
                // Nothing in it is worth moving.
                content.clear();
                content.reserve(length);
            }
            return content;
        }
        Vec::with_capacity(length)
    }

    /// Remembers a body that was given away.
    pub(super) fn keep(&mut self, body: &Bytes) {
        if (MIN..=MAX).contains(&body.len()) {
            if self.kept.len() == COUNT {
                self.kept.remove(0);
            }
            self.kept.push(body.clone());
        }
    }
}

/// What is smaller costs little.
const MIN: usize = 32 << 10;

/// More than a hundred updates have.
const MAX: usize = 256 << 10;

/// One is read while the updates of the one before are handled.
const COUNT: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_nobody_holds_it() {
        let mut buffers = BufferPool::default();
        let body = Bytes::from(vec![1; MIN]);
        let at = body.as_ptr();
        buffers.keep(&body);
        let other = buffers.take(MIN as u64);
        assert_ne!(other.as_ptr(), at, "it is still held");
        let update = body.slice(7..9);
        drop(body);
        let other = buffers.take(MIN as u64);
        assert_ne!(other.as_ptr(), at, "a part of it is still held");
        assert_eq!(&update[..], [1, 1]);
        drop(update);
        let content = buffers.take(MIN as u64);
        assert_eq!(content.as_ptr(), at);
        assert_eq!(content.len(), MIN, "it need not be filled with zeros again");
        assert!(buffers.kept.is_empty());
        buffers.keep(&Bytes::from(content));
        let content = buffers.take(2 * MIN as u64);
        assert!(content.is_empty() && content.capacity() >= 2 * MIN);
    }

    #[test]
    fn neither_much_is_kept_nor_much_reserved() {
        let mut buffers = BufferPool::default();
        for length in [0, MIN - 1, MAX + 1] {
            buffers.keep(&Bytes::from(vec![0; length]));
        }
        assert!(buffers.kept.is_empty());
        for _ in 0..=COUNT {
            buffers.keep(&Bytes::from(vec![0; MIN]));
        }
        assert_eq!(buffers.kept.len(), COUNT);
        assert!(buffers.take(u64::MAX).capacity() < 2 * MAX);
        assert!(
            buffers.take(10).capacity() < MIN,
            "a small one takes no large one"
        );
        assert_eq!(buffers.kept.len(), COUNT - 1);
    }
}
