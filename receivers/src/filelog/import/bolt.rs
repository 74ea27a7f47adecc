//! A read-only view of a bbolt database, for files of a few MiB held in memory.
//!
//! The format, integers little endian as on every machine that the collector is built for:
//!
//! ```text
//! page    id u64  flags u16 (1 branch, 2 leaf, 4 meta, 16 free list)  count u16  overflow u32
//!         a page with overflow n is n + 1 pages long
//! meta    (pages 0 and 1) magic u32 ED0CDAED  version u32 2  page size u32  flags u32
//!         root bucket {root page u64, sequence u64}  free list u64  pages in use u64
//!         transaction u64  checksum u64 (FNV-1a of the bytes before)
//! branch  count elements of pos u32  key size u32  page u64
//! leaf    count elements of flags u32 (1 = a bucket)  pos u32  key size u32  value size u32
//!         pos counts from the element itself; the value follows the key
//! bucket  value {root page u64, sequence u64}; root 0 = the page follows inside the value
//! ```
//!
//! Writing is copy-on-write: of the two metas the whole one with the higher transaction counts.

use super::ImportError;

const PAGE_HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const META_BYTES: usize = 64;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const FLAG_BRANCH: u16 = 1;
const FLAG_LEAF: u16 = 2;
const FLAG_META: u16 = 4;
const FLAG_BUCKET: u32 = 1;
const BUCKET_BYTES: usize = 16;
/// Page sizes that exist are powers of two in this range.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65536;
/// Deeper trees do not come from bbolt: it splits pages into at least two.
const DEPTH_MAX: u32 = 48;

fn damaged(what: impl Into<String>) -> ImportError {
    ImportError::Damaged(what.into())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u64::from_le_bytes(*b))
}

/// FNV-1a, 64 bits.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}

/// Where a bucket's pages begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bucket<'a> {
    Root(u64),
    /// The one page is inside the bucket's value.
    Inline(&'a [u8]),
}

struct Meta {
    page_bytes: usize,
    root: u64,
    transaction: u64,
}

/// See the module's documentation.
pub(super) struct Bolt<'a> {
    bytes: &'a [u8],
    page_bytes: usize,
    root: u64,
}

/// An element of a leaf.
struct Element<'a> {
    is_bucket: bool,
    key: &'a [u8],
    value: &'a [u8],
}

/// A walk's bound: no page is looked at twice, or pages form a loop.
struct Walk {
    pages_left: u64,
}

impl<'a> Bolt<'a> {
    /// Finds the newest whole meta page.
    pub fn open(bytes: &'a [u8]) -> Result<Bolt<'a>, ImportError> {
        let first = meta_at(bytes, 0);
        let second = match &first {
            Some(first) => meta_at(bytes, first.page_bytes),
            // The page size is in the damaged page: try those that there are.
            None => {
                let mut sizes = PAGE_BYTES.filter(|size| size.is_power_of_two());
                sizes.find_map(|size| meta_at(bytes, size).filter(|m| m.page_bytes == size))
            }
        };
        let newest = [first, second]
            .into_iter()
            .flatten()
            .max_by_key(|meta| meta.transaction);
        let Meta {
            page_bytes, root, ..
        } = newest.ok_or(ImportError::NotBolt(
            "neither of its two meta pages is whole",
        ))?;
        Ok(Bolt {
            bytes,
            page_bytes,
            root,
        })
    }

    fn new_walk(&self) -> Walk {
        Walk {
            pages_left: (self.bytes.len() / self.page_bytes) as u64 + 1,
        }
    }

    /// The top-level bucket of that name.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'a>>, ImportError> {
        let mut value = None;
        let mut walk = self.new_walk();
        self.walk_page(self.root, DEPTH_MAX, &mut walk, &mut |element| {
            if element.is_bucket && element.key == name {
                value = Some(element.value);
            }
        })?;
        let Some(value) = value else { return Ok(None) };
        let root = u64_at(value, 0).filter(|_| value.len() >= BUCKET_BYTES);
        match root.ok_or_else(|| damaged("a bucket is cut short"))? {
            0 => Ok(Some(Bucket::Inline(&value[BUCKET_BYTES..]))),
            root => Ok(Some(Bucket::Root(root))),
        }
    }

    /// Calls `visit` with each key and value of a bucket in order; buckets inside it are skipped.
    pub fn walk(
        &self,
        bucket: Bucket<'a>,
        visit: &mut dyn FnMut(&'a [u8], &'a [u8]),
    ) -> Result<(), ImportError> {
        let mut visit = |element: Element<'a>| {
            if !element.is_bucket {
                visit(element.key, element.value);
            }
        };
        match bucket {
            Bucket::Root(root) => self.walk_page(root, DEPTH_MAX, &mut self.new_walk(), &mut visit),
            Bucket::Inline(page) if u16_at(page, 8) == Some(FLAG_LEAF) => {
                walk_leaf(page, "an inline page", &mut visit)
            }
            Bucket::Inline(_) => Err(damaged("an inline page is no leaf")),
        }
    }

    fn walk_page(
        &self,
        id: u64,
        depth: u32,
        walk: &mut Walk,
        visit: &mut dyn FnMut(Element<'a>),
    ) -> Result<(), ImportError> {
        let page = self.page(id)?;
        let left = walk.pages_left.checked_sub(1).filter(|_| depth > 0);
        walk.pages_left = left.ok_or_else(|| damaged("its pages form a loop"))?;
        match u16_at(page, 8) {
            Some(FLAG_LEAF) => walk_leaf(page, &format!("page {id}"), visit),
            Some(FLAG_BRANCH) => {
                for index in 0..usize::from(u16_at(page, 10).unwrap_or(0)) {
                    let at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
                    let child = u64_at(page, at + 8);
                    let child = child.ok_or_else(|| damaged(format!("page {id} is cut short")))?;
                    self.walk_page(child, depth - 1, walk, visit)?;
                }
                Ok(())
            }
            _ => Err(damaged(format!("page {id} is neither branch nor leaf"))),
        }
    }

    /// A page with its overflow.
    fn page(&self, id: u64) -> Result<&'a [u8], ImportError> {
        let find = || {
            let start = usize::try_from(id).ok()?.checked_mul(self.page_bytes)?;
            let rest = self.bytes.get(start..)?;
            let pages = usize::try_from(u32_at(rest, 12)?).ok()?.checked_add(1)?;
            let page = rest.get(..pages.checked_mul(self.page_bytes)?)?;
            (u64_at(page, 0)? == id).then_some(page)
        };
        find().ok_or_else(|| damaged(format!("page {id} is not there as a whole")))
    }
}

/// The meta page at that offset, if it is whole.
fn meta_at(bytes: &[u8], offset: usize) -> Option<Meta> {
    let page = bytes.get(offset..)?;
    let meta = page.get(PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + META_BYTES)?;
    let page_bytes = usize::try_from(u32_at(meta, 8)?).ok()?;
    let is_whole = u16_at(page, 8)? == FLAG_META
        && u32_at(meta, 0)? == MAGIC
        && u32_at(meta, 4)? == VERSION
        && u64_at(meta, 56)? == fnv1a(&meta[..56])
        && PAGE_BYTES.contains(&page_bytes)
        && page_bytes.is_power_of_two();
    is_whole.then_some(Meta {
        page_bytes,
        root: u64_at(meta, 16)?,
        transaction: u64_at(meta, 48)?,
    })
}

fn walk_leaf<'a>(
    page: &'a [u8],
    name: &str,
    visit: &mut dyn FnMut(Element<'a>),
) -> Result<(), ImportError> {
    for index in 0..usize::from(u16_at(page, 10).unwrap_or(0)) {
        let at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
        let element = element_at(page, at);
        visit(element.ok_or_else(|| damaged(format!("element {index} of {name} is not whole")))?);
    }
    Ok(())
}

fn element_at(page: &[u8], at: usize) -> Option<Element<'_>> {
    let number = |offset| usize::try_from(u32_at(page, at + offset)?).ok();
    let start = at.checked_add(number(4)?)?;
    let middle = start.checked_add(number(8)?)?;
    let end = middle.checked_add(number(12)?)?;
    Some(Element {
        is_bucket: u32_at(page, at)? & FLAG_BUCKET != 0,
        key: page.get(start..middle)?,
        value: page.get(middle..end)?,
    })
}
