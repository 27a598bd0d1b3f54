//! Circles of imports: modules beside each other that need each other.
//!
//! A module and its submodules count as one beside its neighbours; a module and its own submodules
//! may need each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::imports::{self, Imports, Parts};

/// Exports that are followed from one to the next.
const STEPS: usize = 8;

/// Modules of a crate by path; that of the crate's root is empty.
type Modules = BTreeMap<Parts, Imports>;

/// Modules in circles: where each is, and what it needs of the circle.
pub(super) fn faults(source: &Path) -> Result<Vec<(String, String)>> {
    let mut modules = Modules::new();
    load(source, &[], &mut modules)?;
    Ok(circles(&modules))
}

/// Reads the modules of a folder.
fn load(folder: &Path, path: &[String], modules: &mut Modules) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_for_tests = name == "tests" || name == "bin" || name.ends_with("_test");
        if is_for_tests {
            continue;
        }
        let module = match name.as_str() {
            "lib" | "main" | "mod" => path.to_vec(),
            _ => [path, std::slice::from_ref(&name)].concat(),
        };
        if entry.is_dir() {
            load(&entry, &module, modules)?;
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry)
                .with_context(|| format!("cannot read {}", entry.display()))?;
            let read = imports::read(&text);
            // A library and a program may share a root.
            let known = modules.entry(module).or_default();
            known.paths.extend(read.paths);
            known.exports.extend(read.exports);
        }
    }
    Ok(())
}

fn circles(modules: &Modules) -> Vec<(String, String)> {
    // For each module with submodules, which of these need which.
    let mut levels: BTreeMap<Parts, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, imports) in modules {
        for path in &imports.paths {
            let Some(target) = resolve(modules, module, path, STEPS) else { continue };
            let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                let level =
                    levels.entry(module.iter().take(common).cloned().collect()).or_default();
                level.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    let mut found = Vec::new();
    for (level, needs) in &levels {
        for (from, to) in needs {
            let circle: Vec<&str> =
                to.iter().filter(|to| reaches(needs, to, from)).map(String::as_str).collect();
            if !circle.is_empty() {
                let name = [level.as_slice(), std::slice::from_ref(from)].concat().join("::");
                found.push((name, format!("in a circle of imports through {}", circle.join(", "))));
            }
        }
    }
    found
}

/// `true` if a module needs another, directly or not.
fn reaches(needs: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            next.extend(needs.get(module).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// The module in which a path that `module` names ends; `None` if that is in another crate.
fn resolve(modules: &Modules, module: &[String], path: &[String], steps: usize) -> Option<Parts> {
    let mut here: Parts = Vec::new();
    let mut rest = path.iter();
    match path.first()?.as_str() {
        "crate" => drop(rest.next()),
        "self" => {
            here = module.to_vec();
            rest.next();
        }
        "super" => {
            here = module.to_vec();
            while rest.as_slice().first().is_some_and(|part| part == "super") {
                here.pop();
                rest.next();
            }
        }
        first => {
            let child = [module, &[first.to_owned()]].concat();
            modules.contains_key(&child).then_some(())?;
            here = module.to_vec();
        }
    }
    for part in rest {
        let child = [here.as_slice(), std::slice::from_ref(part)].concat();
        if modules.contains_key(&child) {
            here = child;
            continue;
        }
        let export = modules.get(&here).and_then(|module| module.exports.get(part));
        return match export {
            Some(export) if steps > 0 => resolve(modules, &here, export, steps - 1),
            _ => Some(here),
        };
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sources: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in sources {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        faults(folder.path()).unwrap().into_iter().map(|(module, _)| module).collect()
    }

    #[test]
    fn modules_that_need_each_other_are_a_circle() {
        let circle = [
            ("lib.rs", ""),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "use crate::c;"),
            ("c.rs", "fn f() { crate::a::g() }"),
        ];
        assert_eq!(found(&circle), ["a", "b", "c"]);
        assert_eq!(found(&circle[..3]), Vec::<String>::new());
    }

    #[test]
    fn submodules_stand_for_their_module() {
        let sources = [
            ("lib.rs", ""),
            ("a.rs", ""),
            ("a/x.rs", "use crate::b::B;"),
            ("b/mod.rs", "use super::a::A;"),
        ];
        assert_eq!(found(&sources), ["a", "b"]);
        let inside = [
            ("lib.rs", "use a::A;"),
            ("a.rs", "use x::X;"),
            ("a/x.rs", "use super::A; use crate::Y;"),
        ];
        assert_eq!(found(&inside), Vec::<String>::new());
        let beside = [
            ("lib.rs", ""),
            ("a.rs", ""),
            ("a/x.rs", "use super::y;"),
            ("a/y.rs", "use super::x;"),
        ];
        assert_eq!(found(&beside), ["a::x", "a::y"]);
    }

    #[test]
    fn exports_lead_to_where_a_name_comes_from() {
        let sources =
            [("lib.rs", "pub use a::A;"), ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::A;")];
        assert_eq!(found(&sources), ["a", "b"]);
    }
}
