//! Digests of blobs.

use std::fmt::Write as _;
use std::io::{self, Read};

use oci_spec::image::{Descriptor, DigestAlgorithm};
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::text::short;

/// The digest of `bytes` as layouts write it: `sha256:` and hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Into a string, which does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Path in a layout of the blob that a descriptor names.
pub(crate) fn path(descriptor: &Descriptor) -> Result<String, Error> {
    let digest = descriptor.digest();
    // The digits have been checked when the digest was parsed: a path of it does not leave `blobs`.
    if *digest.algorithm() == DigestAlgorithm::Sha256 {
        return Ok(format!("blobs/sha256/{}", digest.digest()));
    }
    Err(Error::Algorithm { digest: short(digest.as_ref()) })
}

/// Checks the bytes of a blob.
pub(crate) fn check(descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
    let expected = descriptor.digest().to_string();
    let found = bytes.len() as u64;
    if found != descriptor.size() {
        return Err(Error::Size { digest: expected, expected: descriptor.size(), found });
    }
    let found = digest(bytes);
    if found != expected {
        return Err(Error::Digest { expected, found });
    }
    Ok(())
}

/// Reads to the end, or one byte more than `limit`.
pub(crate) fn read_limited(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
