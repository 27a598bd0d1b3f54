//! Errors of images.

use std::io;
use std::path::PathBuf;

/// An image cannot be read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the layout cannot be read.
    #[error("{}: cannot be read", .path.display())]
    Read {
        /// Its path in the layout, or that of the layout.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The directory or archive is no image layout.
    #[error("no OCI image layout: {reason}")]
    NoLayout {
        /// Reason.
        reason: String,
    },
    /// A document of the layout is not what it should be.
    #[error("{name}: malformed: {problem}")]
    Malformed {
        /// Its path in the layout.
        name: String,
        /// Fault, with its line and column.
        problem: String,
    },
    /// A document says what no image has.
    #[error("{name}: {reason}")]
    Unfit {
        /// Its path in the layout.
        name: String,
        /// Reason.
        reason: String,
    },
    /// A blob is not there.
    #[error("blob {digest} is missing")]
    MissingBlob {
        /// Its digest.
        digest: String,
    },
    /// A blob has another size than its descriptor says.
    #[error("blob {digest} has {found} bytes instead of {expected}")]
    Size {
        /// Its digest.
        digest: String,
        /// Size by its descriptor, in bytes.
        expected: u64,
        /// Size of the file, in bytes.
        found: u64,
    },
    /// A blob has other contents than its digest says.
    #[error("blob {expected} is damaged: its digest is {found}")]
    Digest {
        /// Digest by its descriptor.
        expected: String,
        /// Digest of the bytes.
        found: String,
    },
    /// A digest of an algorithm that is not supported.
    #[error("digest {digest} is not supported (sha256 is)")]
    Algorithm {
        /// The digest.
        digest: String,
    },
    /// A size or number is beyond a limit.
    #[error("{what}: more than {limit}, which is the limit")]
    Limit {
        /// Name of what is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The layout has no such tag.
    #[error("no image is tagged {tag:?} (there are: {tags})")]
    NoTag {
        /// The tag that was asked for.
        tag: String,
        /// Tags of the layout.
        tags: String,
    },
    /// The layout has several images, and none of them was named.
    #[error("several images, and none of them was named (there are: {tags})")]
    Ambiguous {
        /// Tags of the layout.
        tags: String,
    },
    /// No image is for this platform.
    #[error("no image is for linux/amd64 (there are: {platforms})")]
    Platform {
        /// Platforms of the layout.
        platforms: String,
    },
    /// A layer cannot be applied.
    #[error("layer {number}")]
    Layer {
        /// Its number, from 1 on.
        number: usize,
        /// Cause.
        source: LayerError,
    },
    /// The configuration names no application, or none that is there.
    #[error("application {name:?}: {reason}")]
    Application {
        /// Its name.
        name: String,
        /// Reason.
        reason: &'static str,
    },
    /// The configuration says what no guest can have.
    #[error("configuration: {reason}")]
    Config {
        /// Reason.
        reason: String,
    },
    /// The application is no image that can run.
    #[error("application {name:?}")]
    Image {
        /// Its name.
        name: String,
        /// Cause.
        source: nerite_loader::Error,
    },
    /// The image for the guest cannot be written.
    #[error("cannot write the guest's image")]
    Write(#[source] io::Error),
}

/// A layer cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Its compression is not supported.
    #[error("compressed with zstd, which is not supported (gzip is)")]
    Zstd,
    /// Its media type is not supported.
    #[error("media type {0:?} is not supported (tar and tar+gzip are)")]
    MediaType(String),
    /// It cannot be decompressed.
    #[error("cannot decompress it")]
    Gzip(#[source] io::Error),
    /// It is larger than the limit.
    #[error("decompressed, all layers have more than {limit} bytes, which is the limit")]
    Bomb {
        /// The limit in bytes.
        limit: u64,
    },
    /// Its contents are not those that the configuration names.
    #[error("its contents have the digest {found}, and {expected} in the configuration")]
    DiffId {
        /// Digest by the configuration.
        expected: String,
        /// Digest of the bytes.
        found: String,
    },
    /// Its archive is malformed.
    #[error(transparent)]
    Tar(#[from] nerite_loader::Error),
    /// An entry cannot be applied.
    #[error("entry {name:?}: {reason}")]
    Entry {
        /// Name of the entry.
        name: String,
        /// Reason.
        reason: &'static str,
    },
}

/// An image cannot be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The application cannot be one of an image.
    #[error(transparent)]
    Image(#[from] Error),
    /// The application has a name that it cannot have in an image.
    #[error("{name:?} cannot be the name of an application in an image")]
    Name {
        /// The name.
        name: String,
    },
    /// An image archive, and another configuration.
    #[error("the application is an image archive, which has a configuration of its own")]
    TwoConfigs,
    /// A file cannot be where it was to be.
    #[error("path {path} for the guest: {reason}")]
    Path {
        /// Its path for the guest.
        path: String,
        /// Reason.
        reason: &'static str,
    },
    /// The files are too large together.
    #[error("the image has more than {limit} bytes, which is the limit")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The layer cannot be made.
    #[error("cannot make the layer")]
    Compress {
        /// Cause.
        source: io::Error,
    },
    /// The text is no tag.
    #[error("{tag:?} is no tag (letters, digits, and `-._:@/+` in between)")]
    Tag {
        /// The text.
        tag: String,
    },
    /// The directory has other things in it.
    #[error("{}: neither empty nor an OCI image layout", .path.display())]
    NoLayout {
        /// The directory.
        path: PathBuf,
    },
    /// The layout cannot be written.
    #[error("{}: cannot write the image", .path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}
