//! What became of resources, so that it is worked out once.

use std::sync::Arc;

use tailwater_pdata::Map;

/// Resources as they came and what became of them. Both are held, so that an address cannot come to
/// mean another resource. The most recent ones are at the end.
#[derive(Default)]
pub(crate) struct Remembered(Vec<(Arc<Map>, Arc<Map>)>);

impl Remembered {
    /// How many are remembered.
    pub const MAX: usize = 256;

    /// What `change` makes of a resource. One that it leaves as it is stays itself.
    pub fn of(&mut self, resource: &Arc<Map>, change: impl FnOnce(&mut Map)) -> Arc<Map> {
        let known = |(from, _): &(Arc<Map>, Arc<Map>)| Arc::ptr_eq(from, resource);
        if let Some(at) = self.0.iter().rposition(known) {
            let entry = self.0.remove(at);
            let to = entry.1.clone();
            self.0.push(entry);
            return to;
        }
        let mut map = (**resource).clone();
        change(&mut map);
        let to = match map == **resource {
            true => resource.clone(),
            false => Arc::new(map),
        };
        if self.0.len() == Self::MAX {
            self.0.remove(0);
        }
        self.0.push((resource.clone(), to.clone()));
        to
    }

    /// Nothing is remembered any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
