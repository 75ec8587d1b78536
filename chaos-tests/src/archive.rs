//! All rows of an archive, page by page.

use std::{io, ops::Bound};

use bytes::Bytes;
use trireme_raft::Store;

/// Rows read at once.
const PAGE: usize = 1000;

/// Hands each page to `take`, in order of the keys.
pub(crate) async fn each_page(
    store: &Store,
    mut take: impl FnMut(Vec<(Bytes, Bytes)>),
) -> io::Result<()> {
    let archive = store.archive();
    let mut from = Bound::Unbounded;
    loop {
        let page = archive.range((from, Bound::Unbounded), false, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        from = Bound::Excluded(last.clone());
        take(page);
    }
}
