//! Programs and images of a bench.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Processor of this host, and the date: what figures of other runs may differ by.
pub(super) fn circumstances() -> String {
    let table = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor(&table).unwrap_or("unknown processor");
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{processor}, {}", date.unwrap_or_default())
}

/// Model of the first processor.
fn processor(table: &str) -> Option<&str> {
    let line = table.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circumstances_are_processor_and_date() {
        let table = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n";
        assert_eq!(processor(table), Some("Some CPU @ 2 GHz"));
        assert_eq!(processor(""), None);
        let text = circumstances();
        let (_, date) = text.rsplit_once(", ").unwrap();
        assert!(date.len() == 10 && date.starts_with("20"), "{text}");
    }
}
