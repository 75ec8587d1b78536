//! Reading closed segments again, to find what has rotted before it is needed.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    WalError,
    log::Segment,
    record::{
        MAX_PAYLOAD_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, find, read_segment_header,
    },
};
use crate::disk::{DiskFile, read_exact_at};

/// A segment that is not written to any more. Stays readable though its name may go.
#[derive(Debug)]
pub(crate) struct ClosedSegment {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    end: u64,
}

impl ClosedSegment {
    pub(super) fn new(number: u64, segment: &Segment, end: u64) -> Self {
        Self {
            number,
            path: segment.path.clone(),
            file: Arc::clone(&segment.file),
            end,
        }
    }

    /// Length of what was written.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// Checks every record. `pace` is told the bytes of each and ends the check with false. Blocks.
    pub(crate) fn verify(&self, mut pace: impl FnMut(usize) -> bool) -> Result<(), WalError> {
        let header = self.read(0, SEGMENT_HEADER_BYTES)?;
        if read_segment_header(self.number, &header).is_err() {
            return Err(self.damaged(0, "the segment's header is broken"));
        }
        let mut at = SEGMENT_HEADER_BYTES as u64;
        while at < self.end {
            let header = self.read(at, RECORD_HEADER_BYTES)?;
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            if length > MAX_PAYLOAD_BYTES {
                return Err(self.damaged(at, "the record's length is impossible"));
            }
            let record = self.read(at, RECORD_HEADER_BYTES + length)?;
            let Some(found) = find(self.number, &record, 0) else {
                return Err(self.damaged(at, "the checksum does not match"));
            };
            if !pace(record.len()) {
                return Ok(());
            }
            at += found.next as u64;
        }
        Ok(())
    }

    fn read(&self, at: u64, length: usize) -> Result<Bytes, WalError> {
        let mut bytes = vec![0; length];
        read_exact_at(&*self.file, at, &mut bytes).map_err(WalError::io("reading", &self.path))?;
        Ok(bytes.into())
    }

    fn damaged(&self, offset: u64, what: &str) -> WalError {
        WalError::Damaged {
            file: self.path.clone(),
            offset,
            what: what.to_owned(),
        }
    }
}
