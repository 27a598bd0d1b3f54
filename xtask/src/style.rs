//! Rules of style that no compiler checks, and how far the tree keeps them.
//!
//! Some rules hold everywhere ([`files`]). Others are newer than the tree: for these,
//! `xtask/style.toml` has the number of faults that each crate still has, which may only fall
//! ([`ratchet`]).

mod circles;
mod files;
mod imports;
mod prose;
mod ratchet;
mod wrap;

use std::path::Path;

use anyhow::{Result, bail};

pub(crate) use self::files::collect;
use self::prose::Words;
use self::ratchet::{Fault, Ratchet};
use crate::{paths, progress};

/// `cargo xtask style`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the numbers that have fallen to xtask/style.toml
    #[arg(long)]
    lower: bool,
    /// Wrap the comments that are too wide, in crates with this text in their folder
    #[arg(long, value_name = "CRATE", conflicts_with = "list")]
    wrap: Option<String>,
    /// Print every fault that is counted, of crates with this text in their folder
    #[arg(long, value_name = "CRATE", num_args = 0..=1, default_missing_value = "")]
    list: Option<String>,
}

/// Checks the style, and does what the options ask for; the status is 1 if a rule is broken.
pub(crate) fn main(args: &Args) -> Result<i32> {
    if let Some(filter) = &args.list {
        let faults = faults(&Ratchet::load()?.words()?)?;
        let wanted = faults.iter().filter(|fault| fault.package.contains(filter.as_str()));
        wanted.for_each(|fault| progress::print(&fault.to_string()));
        return Ok(0);
    }
    if let Some(filter) = &args.wrap {
        wrap_comments(filter)?;
    }
    if args.lower {
        let mut ratchet = Ratchet::load()?;
        let faults = faults(&ratchet.words()?)?;
        ratchet.lower(&faults);
        ratchet.save()?;
    }
    check()?;
    Ok(0)
}

/// Wraps the comments of crates with this text in their folder.
fn wrap_comments(filter: &str) -> Result<()> {
    let root = paths::root();
    for file in files::all(&root)? {
        let name = relative(&root, &file);
        if name.ends_with(".rs") && package(&name).contains(filter) {
            let text = std::fs::read_to_string(&file)?;
            let wrapped = wrap::wrap(&text);
            if wrapped != text {
                std::fs::write(&file, wrapped)?;
                progress::print(&format!("wrapped comments of {name}"));
            }
        }
    }
    Ok(())
}

/// Looks at every source file, and names those that break a rule.
pub(crate) fn check() -> Result<()> {
    files::check()?;
    let ratchet = Ratchet::load()?;
    let verdict = ratchet.judge(&faults(&ratchet.words()?)?);
    if !verdict.fallen.is_empty() {
        let fallen = verdict.fallen.join("\n");
        progress::print(&format!(
            "fewer faults than xtask/style.toml says: cargo xtask style --lower\n{fallen}"
        ));
    }
    if !verdict.risen.is_empty() {
        bail!("more faults of style than xtask/style.toml allows:\n{}", verdict.risen.join("\n"));
    }
    Ok(())
}

/// All faults of the counted rules.
fn faults(words: &Words) -> Result<Vec<Fault>> {
    let root = paths::root();
    let mut faults = Vec::new();
    let mut files = files::all(&root)?;
    files.extend(["README.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name)));
    for file in files.iter().filter(|file| file.is_file()) {
        let name = relative(&root, file);
        let text = std::fs::read_to_string(file)?;
        let package = package(&name);
        faults.extend(prose::faults(&text, &name, words).into_iter().map(|(rule, line, what)| {
            Fault { rule, package: package.clone(), place: format!("{name}:{line}"), what }
        }));
    }
    for package in ratchet::packages(&root)? {
        let circles = circles::faults(&root.join(&package).join("src"))?;
        faults.extend(circles.into_iter().map(|(module, what)| Fault {
            rule: "circles",
            package: package.clone(),
            place: format!("{package}: {module}"),
            what,
        }));
    }
    Ok(faults)
}

fn relative(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

/// Folder of the crate to which a file belongs; the top folder of what belongs to none.
fn package(name: &str) -> String {
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("crates"), Some(package), Some(_)) => format!("crates/{package}"),
        (Some(folder), Some(_), _) => folder.to_owned(),
        _ => "root".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_belongs_to_a_package() {
        assert_eq!(package("crates/net/src/lib.rs"), "crates/net");
        assert_eq!(package("vmm/src/main.rs"), "vmm");
        assert_eq!(package("README.md"), "root");
    }
}
