//! Rules that hold everywhere: a limit for the length of a source, and clean text.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths;

/// Lines a source file may have.
const MAX_LINES: usize = 400;
/// Folders of our own sources.
const FOLDERS: [&str; 7] = ["crates", "oci", "vmm", "xtask", "tests", "fuzz", "docs"];

/// Looks at every source file and names those that break a rule.
pub(crate) fn check() -> Result<()> {
    let root = paths::root();
    let files = all(&root)?;
    let mut wrong = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file).display();
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        wrong.extend(faults(&text, file).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// All text files of our own.
pub(super) fn all(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in FOLDERS.map(|name| root.join(name)) {
        if folder.is_dir() {
            collect(&folder, &mut files)?;
        }
    }
    Ok(files)
}

fn faults(text: &str, path: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES && path.extension().is_some_and(|extension| extension == "rs") {
        faults.push(format!("{lines} lines, more than {MAX_LINES}"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push("no newline at its end".to_owned());
    }
    for (number, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            faults.push(format!("line {} ends with white space", number + 1));
        }
    }
    faults
}

/// The text files under `folder`, without what is built.
pub(crate) fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != "corpus" && name != "artifacts" {
                collect(&path, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| ["rs", "toml", "md"].iter().any(|e| extension == *e))
        {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found() {
        let rust = Path::new("a.rs");
        assert!(faults("fn a() {}\n", rust).is_empty());
        assert_eq!(faults("fn a() {}", rust).len(), 1);
        assert_eq!(faults("fn a() {} \n", rust), ["line 1 ends with white space"]);
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(faults(&long, rust), ["401 lines, more than 400"]);
        assert!(faults(&long, Path::new("a.md")).is_empty());
    }
}
