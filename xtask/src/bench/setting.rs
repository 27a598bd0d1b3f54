//! Programs and images of a bench.

use std::path::{Path, PathBuf};

/// Programs that are compared, and guests that there are.
pub(crate) struct Setting<'a> {
    pub(crate) vmm: &'a Path,
    pub(crate) peer: Option<&'a Path>,
    /// The folder of the test kernels.
    pub(crate) kernels: &'a Path,
    /// The guest that does nothing, without symbols: what is left is what every guest costs.
    pub(crate) empty: &'a Path,
    /// The example `loops` of `nerite-machine`.
    pub(crate) loops: &'a Path,
    /// Hermit images.
    pub(crate) images: &'a [PathBuf],
    /// Hermit images that serve echo, discard and characters.
    pub(crate) servers: &'a [PathBuf],
    /// This program, where guests run.
    pub(crate) myself: &'a str,
    /// Number of times that each case is timed; those that take long, half as often.
    pub(crate) rounds: usize,
}

/// Name of an image: its file and the folder it is in.
pub(super) fn image_name(image: &Path) -> String {
    let name = |path: Option<&Path>| {
        path.and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    format!("{}/{}", name(image.parent()), name(Some(image)))
}
