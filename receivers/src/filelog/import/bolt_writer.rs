//! Writes bbolt databases for the tests of the reader, from the facts of the format alone.

use super::bolt::fnv1a;

/// How the bucket is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// The bucket's page inside the root's leaf.
    Inline,
    /// One leaf page, with overflow if need be.
    Leaf,
    /// A branch over one leaf per key.
    Branch,
}

fn page(page_bytes: usize, id: u64, flags: u16, count: usize, body: &[u8]) -> Vec<u8> {
    let pages = (16 + body.len()).div_ceil(page_bytes);
    let mut out = page_header(id, flags, count, pages as u32 - 1);
    out.extend_from_slice(body);
    out.resize(pages * page_bytes, 0);
    out
}

fn page_header(id: u64, flags: u16, count: usize, overflow: u32) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&(count as u16).to_le_bytes());
    out.extend_from_slice(&overflow.to_le_bytes());
    out
}

fn leaf_body(elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (i, (flags, key, value)) in elements.iter().enumerate() {
        let pos = (elements.len() - i) * 16 + data.len();
        for number in [*flags, pos as u32, key.len() as u32, value.len() as u32] {
            heads.extend_from_slice(&number.to_le_bytes());
        }
        data.extend_from_slice(key);
        data.extend_from_slice(value);
    }
    [heads, data].concat()
}

fn branch_body(children: &[(&[u8], u64)]) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (i, (key, id)) in children.iter().enumerate() {
        let pos = (children.len() - i) * 16 + data.len();
        heads.extend_from_slice(&(pos as u32).to_le_bytes());
        heads.extend_from_slice(&(key.len() as u32).to_le_bytes());
        heads.extend_from_slice(&id.to_le_bytes());
        data.extend_from_slice(key);
    }
    [heads, data].concat()
}

fn meta(page_bytes: usize, id: u64, root: u64, pages: u64, transaction: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for number in [0xED0C_DAED, 2, page_bytes as u32, 0] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    for number in [root, 0, 2, pages, transaction] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&fnv1a(&body).to_le_bytes());
    page(page_bytes, id, 4, 0, &body)
}

/// A database with one bucket.
pub fn database(
    page_bytes: usize,
    layout: Layout,
    name: &[u8],
    entries: &[(&[u8], &[u8])],
) -> Vec<u8> {
    let elements: Vec<_> = entries
        .iter()
        .map(|(key, value)| (0, *key, *value))
        .collect();
    // Pages 0 and 1 are metas, 2 the free list, 3 the root; the bucket follows.
    let mut pages = Vec::new();
    let next = |pages: &Vec<u8>| 4 + (pages.len() / page_bytes) as u64;
    let mut value = Vec::new();
    let bucket_root = match layout {
        Layout::Inline => 0,
        Layout::Leaf => {
            pages = page(page_bytes, 4, 2, elements.len(), &leaf_body(&elements));
            4
        }
        Layout::Branch => {
            let mut children = Vec::new();
            for element in &elements {
                let id = next(&pages);
                pages.extend(page(page_bytes, id, 2, 1, &leaf_body(&[*element])));
                children.push((element.1, id));
            }
            let id = next(&pages);
            pages.extend(page(
                page_bytes,
                id,
                1,
                children.len(),
                &branch_body(&children),
            ));
            id
        }
    };
    value.extend_from_slice(&bucket_root.to_le_bytes());
    value.extend_from_slice(&0u64.to_le_bytes());
    if layout == Layout::Inline {
        value.extend(page_header(0, 2, elements.len(), 0));
        value.extend(leaf_body(&elements));
    }
    let root = page(page_bytes, 3, 2, 1, &leaf_body(&[(1, name, &value)]));
    assert_eq!(root.len(), page_bytes, "the root fits its page");
    let count = next(&pages);
    [
        meta(page_bytes, 0, 3, count, 6),
        // The older one leads nowhere.
        meta(page_bytes, 1, 99, count, 5),
        page(page_bytes, 2, 16, 0, &[]),
        root,
        pages,
    ]
    .concat()
}
