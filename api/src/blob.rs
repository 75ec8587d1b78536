//! Values too large for one log entry: cut into chunks that a later command names as a whole.
//!
//! Chunks carry the zstd form of the value; the name is the sha256 of the value itself, so that the same content is
//! stored once whatever compressed it.

use std::io::Read as _;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use trireme_proto::state::{BlobRef, PutBlobChunk};

/// Bytes of compressed data in one chunk.
pub const CHUNK_BYTES: usize = 512 * 1024;

/// zstd's fast end: doors compress while a client waits.
const LEVEL: i32 = 1;

/// Why a value could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("blob {0} is not complete in the state")]
    Missing(String),
    #[error("blob {name} does not decompress: {source}")]
    Broken {
        name: String,
        source: std::io::Error,
    },
    #[error("blob {0} has another content or size than its name says")]
    Mismatch(String),
}

/// Compresses a value.
///
/// # Errors
/// When zstd runs out of memory.
pub fn compress(value: &[u8]) -> std::io::Result<Bytes> {
    zstd::bulk::compress(value, LEVEL).map(Bytes::from)
}

/// Decompresses a value whose size is known; more than that is refused.
///
/// # Errors
/// When the data is not zstd or longer than `size`.
pub fn decompress(data: &[u8], size: usize) -> std::io::Result<Bytes> {
    let mut value = Vec::with_capacity(size.min(data.len().saturating_mul(4)));
    zstd::stream::Decoder::new(data)?
        .take(size as u64 + 1)
        .read_to_end(&mut value)?;
    if value.len() > size {
        return Err(std::io::Error::other("longer than its declared size"));
    }
    Ok(Bytes::from(value))
}

/// The name of a value.
#[must_use]
pub fn name(value: &[u8]) -> BlobRef {
    BlobRef {
        sha256: Bytes::copy_from_slice(&Sha256::digest(value)),
        size: value.len() as u64,
    }
}

/// The value as commands to put before the one that names it.
///
/// # Errors
/// When it cannot be compressed.
pub fn chunks(value: &[u8]) -> std::io::Result<(BlobRef, Vec<PutBlobChunk>)> {
    let blob = name(value);
    let data = compress(value)?;
    let count =
        u32::try_from(data.len().div_ceil(CHUNK_BYTES).max(1)).map_err(std::io::Error::other)?;
    let chunks = (0..count)
        .map(|index| {
            let from = index as usize * CHUNK_BYTES;
            PutBlobChunk {
                blob: Some(blob.clone()),
                index,
                count,
                data: data.slice(from..data.len().min(from + CHUNK_BYTES)),
            }
        })
        .collect();
    Ok((blob, chunks))
}

/// Reads a value from its chunks, in order.
///
/// # Errors
/// When the chunks are not those of `blob`.
pub fn join<'a>(
    blob: &BlobRef,
    chunks: impl IntoIterator<Item = &'a Bytes>,
) -> Result<Bytes, BlobError> {
    let label = || hex::encode(&blob.sha256);
    let mut data = BytesMut::new();
    for chunk in chunks {
        data.extend_from_slice(chunk);
    }
    let size = usize::try_from(blob.size).map_err(|_| BlobError::Mismatch(label()))?;
    let value = decompress(&data, size).map_err(|source| BlobError::Broken {
        name: label(),
        source,
    })?;
    if name(&value) == *blob {
        Ok(value)
    } else {
        Err(BlobError::Mismatch(label()))
    }
}

/// Reads a value from the state.
///
/// # Errors
/// When the state does not hold it whole.
pub fn read(state: &trireme_state::State, blob: &BlobRef) -> Result<Bytes, BlobError> {
    let chunks = state
        .blob(&blob.sha256)
        .ok_or_else(|| BlobError::Missing(hex::encode(&blob.sha256)))?;
    join(blob, chunks.iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_many_chunks_comes_back_and_a_changed_one_does_not() {
        // Does not compress: a xorshift's output.
        let mut noise = 1_u64;
        let value: Vec<u8> = std::iter::repeat_with(|| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        })
        .take(200_000)
        .flatten()
        .collect();
        let (blob, chunks) = chunks(&value).unwrap();
        assert!(chunks.len() > 1, "{}", chunks.len());
        let mut data: Vec<Bytes> = chunks.into_iter().map(|chunk| chunk.data).collect();
        assert_eq!(join(&blob, &data).unwrap(), value);
        data.swap(0, 1);
        assert!(join(&blob, &data).is_err());
        let other = name(b"other");
        assert!(matches!(
            join(
                &BlobRef {
                    size: blob.size,
                    ..other
                },
                &data[..0]
            ),
            Err(BlobError::Broken { .. } | BlobError::Mismatch(_))
        ));
    }

    #[test]
    fn a_value_longer_than_declared_is_refused() {
        let data = compress(&[0; 1000]).unwrap();
        assert!(decompress(&data, 999).is_err());
        assert_eq!(decompress(&data, 1000).unwrap().len(), 1000);
    }
}
