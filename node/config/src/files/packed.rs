//! Files that are packed with gzip, whatever they are called (CFG-008).

use std::borrow::Cow;
use std::io::{self, Read as _};

/// A packed file may not grow beyond this.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// Whether content is packed, by how it begins.
#[must_use]
pub fn is_packed(content: &[u8]) -> bool {
    content.starts_with(&[0x1f, 0x8b])
}

/// Content as it is read: unpacked if it is packed.
///
/// # Errors
/// It is damaged, or would unpack to more than 64 MiB.
pub fn unpacked(content: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    if !is_packed(content) {
        return Ok(content.into());
    }
    let mut unpacked = Vec::new();
    let mut packed = flate2::read::GzDecoder::new(content).take(MAX_UNPACKED_BYTES + 1);
    let read = packed.read_to_end(&mut unpacked);
    if unpacked.len() as u64 > MAX_UNPACKED_BYTES {
        let message = format!("unpacks to more than {MAX_UNPACKED_BYTES} bytes");
        return Err(io::Error::other(message));
    }
    read?;
    Ok(unpacked.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(content).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn cfg_008_packed_content_is_unpacked_up_to_a_bound() {
        assert!(matches!(unpacked(b"a: 1"), Ok(Cow::Borrowed(b"a: 1"))));
        assert_eq!(unpacked(&packed(b"a: 1")).unwrap(), &b"a: 1"[..]);
        let most = vec![b' '; usize::try_from(MAX_UNPACKED_BYTES).unwrap()];
        assert_eq!(unpacked(&packed(&most)).unwrap().len(), most.len());
        let more = packed(&[&most[..], b" "].concat());
        let told = unpacked(&more).unwrap_err().to_string();
        assert_eq!(told, "unpacks to more than 67108864 bytes");
        assert!(unpacked(&packed(b"a: 1")[..12]).is_err());
    }
}
