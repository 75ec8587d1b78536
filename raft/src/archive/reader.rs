//! Finished history for whoever does not block.

use std::{io, ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{Archive, Row};

/// Reads finished history by key.
#[derive(Debug, Clone)]
pub struct ArchiveReader(pub(crate) Arc<Archive>);

impl ArchiveReader {
    pub async fn get(&self, key: Bytes) -> io::Result<Option<Bytes>> {
        let archive = Arc::clone(&self.0);
        self.0.host().io(move || archive.get(&key)).await
    }

    /// Up to `limit` rows with keys in `range`, in order of their keys, or in reverse.
    pub async fn range(
        &self,
        range: (Bound<Bytes>, Bound<Bytes>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        let archive = Arc::clone(&self.0);
        let reading = self.0.host().io(move || {
            let range = (
                range.0.as_ref().map(AsRef::as_ref),
                range.1.as_ref().map(AsRef::as_ref),
            );
            archive.range(range, reverse, limit)
        });
        reading.await
    }
}
