//! Checksums of request bodies: reading `Upload-Checksum`, and following a body.
//!
//! Laws
//! - A checksum is checked over the bytes as they are received, whatever they are cut into.
//! - A name that is not in [`Algorithm::ALL`] is refused before a byte of the body is taken.
//!
//! Source: tus 1.0.0, extension checksum; the digest is the raw bytes in Base64, a CRC its four
//! bytes in network order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;

/// What a body can be summed up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, which every tus server has.
    Sha1,
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// BLAKE3, 32 bytes.
    Blake3,
}

impl Algorithm {
    /// Every algorithm, in the order of their announcement.
    pub const ALL: [Self; 5] = [
        Self::Sha1,
        Self::Sha256,
        Self::Md5,
        Self::Crc32c,
        Self::Blake3,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
            Self::Crc32c => "crc32c",
            Self::Blake3 => "blake3",
        }
    }

    /// Bytes of a digest.
    const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 | Self::Blake3 => 32,
            Self::Md5 => 16,
            Self::Crc32c => 4,
        }
    }
}

/// The value of `Tus-Checksum-Algorithm`.
pub fn names() -> String {
    Algorithm::ALL.map(Algorithm::name).join(",")
}

/// Why a checksum header is refused: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumError {
    /// Not a name, a blank and a digest in Base64.
    Malformed,
    /// An algorithm that is not offered.
    Unsupported,
    /// The digest has not the length of its algorithm.
    WrongLength,
}

impl std::fmt::Display for ChecksumError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "Upload-Checksum is not an algorithm and a digest in Base64",
            Self::Unsupported => "Upload-Checksum names an algorithm that is not offered",
            Self::WrongLength => "the digest of Upload-Checksum has the wrong length",
        })
    }
}

impl std::error::Error for ChecksumError {}

/// What a body must be summed up to, and the sum so far.
#[derive(Clone, Debug)]
pub struct Checksum {
    expected: Vec<u8>,
    hasher: Hasher,
}

#[derive(Clone, Debug)]
enum Hasher {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Md5(md5::Md5),
    Crc32c(u32),
    // Two kilobytes of state.
    Blake3(Box<blake3::Hasher>),
}

impl Checksum {
    /// Reads an `Upload-Checksum` header.
    ///
    /// # Errors
    /// See [`ChecksumError`]; 400.
    pub fn parse(value: &[u8]) -> Result<Self, ChecksumError> {
        let text = std::str::from_utf8(value).map_err(|_| ChecksumError::Malformed)?;
        let (name, digest) = text
            .trim()
            .split_once(' ')
            .ok_or(ChecksumError::Malformed)?;
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name))
            .ok_or(ChecksumError::Unsupported)?;
        let expected = STANDARD
            .decode(digest.trim())
            .map_err(|_| ChecksumError::Malformed)?;
        if expected.len() != algorithm.bytes() {
            return Err(ChecksumError::WrongLength);
        }
        let hasher = match algorithm {
            Algorithm::Sha1 => Hasher::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Md5 => Hasher::Md5(md5::Md5::new()),
            Algorithm::Crc32c => Hasher::Crc32c(0),
            Algorithm::Blake3 => Hasher::Blake3(Box::default()),
        };
        Ok(Self { expected, hasher })
    }

    /// Adds the next bytes of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha1(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Md5(hasher) => hasher.update(bytes),
            Hasher::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
            Hasher::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// Whether the bytes so far are the ones expected.
    pub fn holds(&self) -> bool {
        let expected = self.expected.as_slice();
        match &self.hasher {
            Hasher::Sha1(hasher) => hasher.clone().finalize()[..] == *expected,
            Hasher::Sha256(hasher) => hasher.clone().finalize()[..] == *expected,
            Hasher::Md5(hasher) => hasher.clone().finalize()[..] == *expected,
            Hasher::Crc32c(sum) => sum.to_be_bytes() == *expected,
            Hasher::Blake3(hasher) => hasher.finalize().as_bytes()[..] == *expected,
        }
    }
}

/// The digest of some bytes, to compare them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Sums up some bytes, such that no others have the same digest.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}
