//! Connections that outlive the nodes that use them.
//!
//! An exporter that is replaced, as one of its settings is another one, goes on with the connections of the one before
//! it, if what they depend on is the same. What nobody uses any more is closed.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What is in use, by who uses it. There is one of these in an agent; it keeps nothing alive by itself.
#[derive(Debug, Default)]
pub struct Connections {
    in_use: Mutex<Vec<(String, Weak<dyn Any + Send + Sync>)>>,
}

impl Connections {
    /// What `owner` uses already, if `fits` takes it; else what `make` makes.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn of<T: Any + Send + Sync, E>(
        &self,
        owner: &str,
        fits: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        in_use.retain(|(_, used)| used.strong_count() > 0);
        let mut own = in_use.iter().rev().filter(|(of, _)| of == owner);
        let found = own.find_map(|(_, used)| {
            let used = used.upgrade()?.downcast::<T>().ok()?;
            fits(&used).then_some(used)
        });
        if let Some(found) = found {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        let used: Weak<T> = Arc::downgrade(&made);
        in_use.push((owner.to_owned(), used));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: what is in use is found by its owner alone, and only if it fits; what nobody uses is not kept.
    #[test]
    fn what_is_in_use_is_found() {
        let all = Connections::default();
        let get = |owner: &str, value: u32| {
            let made = || Ok::<_, String>(value);
            all.of(owner, |v: &u32| *v == value, made).unwrap()
        };
        let first = get("a", 1);
        assert!(Arc::ptr_eq(&first, &get("a", 1)));
        assert!(!Arc::ptr_eq(&first, &get("b", 1)));
        let other = get("a", 2);
        assert!(!Arc::ptr_eq(&first, &other));
        // Both are in use: each is found.
        assert!(Arc::ptr_eq(&first, &get("a", 1)));
        assert!(Arc::ptr_eq(&other, &get("a", 2)));
        let gone = Arc::downgrade(&first);
        drop(first);
        assert!(gone.upgrade().is_none());
        let failed = all.of("a", |_: &u32| true, || Err("no"));
        assert_eq!(failed.map(|found| *found), Ok(2));
        drop(other);
        let failed = all.of("a", |_: &u32| true, || Err("no"));
        assert_eq!(failed, Err("no"));
    }
}
