//! Buffers that come back when the last slice of them is gone.
//!
//! What is read, and what is sent, lives in large buffers that are needed for moments. Taken from
//! the allocator anew each time they cost memory long after they were given back: it returns pages
//! to the system late.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

/// Bytes of spare buffers that are kept for reuse.
const SPARE_BYTES_MAX: usize = 2 << 20;
/// A buffer that grew beyond this is not kept.
const KEEP_BYTES_MAX: usize = 512 << 10;

/// A pool of buffers of one owner in one shard. Locked once per buffer.
#[derive(Debug, Default)]
pub struct BufferPool {
    spare: Mutex<Spare>,
}

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// Gives its buffer back on drop.
struct Pooled {
    buf: Vec<u8>,
    pool: Weak<BufferPool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buf
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(std::mem::take(&mut self.buf));
        }
    }
}

impl BufferPool {
    /// An empty buffer with room for `capacity` bytes, and not for more than twice as much if it
    /// was used before.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(|e| e.into_inner());
        let fits = |b: &Vec<u8>| (capacity..=capacity * 2).contains(&b.capacity());
        // The one that came back last is the likeliest to be in the processor's cache.
        let Some(i) = spare.buffers.iter().rposition(fits) else {
            return Vec::with_capacity(capacity);
        };
        let buf = spare.buffers.swap_remove(i);
        spare.bytes -= buf.capacity();
        buf
    }

    /// Takes an unused buffer back.
    pub fn put(&self, mut buf: Vec<u8>) {
        buf.clear();
        let mut spare = self.spare.lock().unwrap_or_else(|e| e.into_inner());
        let capacity = buf.capacity();
        if capacity > 0 && capacity <= KEEP_BYTES_MAX && spare.bytes + capacity <= SPARE_BYTES_MAX {
            spare.bytes += capacity;
            spare.buffers.push(buf);
        }
    }

    /// Shares what was written into a buffer. A buffer that is mostly empty is not pinned by it: its content is
    /// copied into one of its own size.
    pub fn share(self: &Arc<BufferPool>, buf: Vec<u8>) -> Bytes {
        if buf.len() < buf.capacity() / 4 {
            let small = Bytes::copy_from_slice(&buf);
            self.put(buf);
            return small;
        }
        Bytes::from_owner(Pooled {
            buf,
            pool: Arc::downgrade(self),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice() {
        let pool = Arc::new(BufferPool::default());
        let mut buf = pool.take(1000);
        buf.resize(900, 1);
        let at = buf.as_ptr() as usize;
        let shared = pool.share(buf);
        let slice = shared.slice(10..20);
        drop(shared);
        assert_eq!(pool.spare.lock().unwrap().buffers.len(), 0);
        drop(slice);
        let again = pool.take(1000);
        assert_eq!(again.as_ptr() as usize, at);
    }

    #[test]
    fn little_content_does_not_pin_a_large_buffer() {
        let pool = Arc::new(BufferPool::default());
        let mut buf = pool.take(1000);
        buf.push(1);
        let shared = pool.share(buf);
        assert_eq!(
            (shared.len(), pool.spare.lock().unwrap().buffers.len()),
            (1, 1)
        );
    }
}
