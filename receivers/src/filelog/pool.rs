//! Read buffers that come back when the last slice of them is gone.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;

/// Spare buffers kept for reuse.
const SPARE_MAX: usize = 16;
/// A buffer that grew beyond this for one long line is not kept.
const KEEP_BYTES_MAX: usize = 512 << 10;

/// A pool of read buffers of one shard's source. Locked once per read.
#[derive(Debug, Default)]
pub struct BufferPool {
    spare: Mutex<Vec<Vec<u8>>>,
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
    /// An empty buffer with room for `capacity` bytes.
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(|e| e.into_inner());
        let fits = spare.iter().position(|b| b.capacity() >= capacity);
        let buf = fits.map(|i| spare.swap_remove(i));
        buf.unwrap_or_else(|| Vec::with_capacity(capacity))
    }

    /// Takes an unused buffer back.
    pub fn put(&self, mut buf: Vec<u8>) {
        buf.clear();
        let mut spare = self.spare.lock().unwrap_or_else(|e| e.into_inner());
        if spare.len() < SPARE_MAX && buf.capacity() <= KEEP_BYTES_MAX {
            spare.push(buf);
        }
    }

    /// Shares what was read. A buffer that is mostly empty is not pinned by it: its content is
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
        assert_eq!(pool.spare.lock().unwrap().len(), 0);
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
        assert_eq!((shared.len(), pool.spare.lock().unwrap().len()), (1, 1));
    }
}
