//! The bill of materials of `vmm`: a CycloneDX 1.5 document with each crate in it, its licence and
//! the digest of its source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::build::{TARGET, cargo};
use crate::paths;

/// The package that the document is about.
const PROGRAM: &str = "nerite-vmm";

/// Output of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` for what is linked, not for tests or build scripts.
    kind: Option<String>,
}

/// Digests of sources by name and version, as `Cargo.lock` has them.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Package {
    /// Package URL, which also names the component in the document.
    fn url(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn component(&self, kind: &str, checksum: Option<&str>) -> Value {
        let mut component = json!({
            "type": kind,
            "bom-ref": self.url(),
            "name": self.name,
            "version": self.version,
            "purl": self.url(),
        });
        if let (Some(fields), Some(license)) = (component.as_object_mut(), &self.license) {
            // The old spelling of OR, which is no expression.
            let expression = license.replace('/', " OR ");
            fields.insert("licenses".to_owned(), json!([{ "expression": expression }]));
        }
        if let (Some(fields), Some(checksum)) = (component.as_object_mut(), checksum) {
            let hashes = json!([{ "alg": "SHA-256", "content": checksum }]);
            fields.insert("hashes".to_owned(), hashes);
        }
        component
    }
}

/// Makes the document. It is the same for the same sources.
pub(super) fn document() -> Result<String> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET])
        .current_dir(paths::root())
        .output()
        .context("cannot run cargo")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata failed: {}", errors.trim());
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata says")?;
    let lock = fs::read_to_string(paths::root().join("Cargo.lock")).context("no Cargo.lock")?;
    let document = render(&metadata, &toml::from_str(&lock).context("bad Cargo.lock")?)?;
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn render(metadata: &Metadata, lock: &Lock) -> Result<Value> {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let checksums: BTreeMap<(&str, &str), &str> = lock
        .package
        .iter()
        .filter_map(|p| Some(((p.name.as_str(), p.version.as_str()), p.checksum.as_deref()?)))
        .collect();
    let program = metadata.packages.iter().find(|package| package.name == PROGRAM);
    let program = program.with_context(|| format!("there is no package {PROGRAM}"))?;
    let mut components = BTreeMap::new();
    let mut dependencies = BTreeMap::new();
    let mut todo = vec![program];
    while let Some(package) = todo.pop() {
        if dependencies.contains_key(&package.url()) {
            continue;
        }
        let node = nodes.get(package.id.as_str()).context("a package without dependencies")?;
        let linked = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|k| k.kind.is_none()));
        let linked: Vec<&Package> =
            linked.filter_map(|dep| packages.get(dep.pkg.as_str()).copied()).collect();
        let needs: BTreeSet<String> = linked.iter().map(|package| package.url()).collect();
        dependencies.insert(package.url(), json!({ "ref": package.url(), "dependsOn": needs }));
        if package.id != program.id {
            let key = (package.name.as_str(), package.version.as_str());
            let component = package.component("library", checksums.get(&key).copied());
            components.insert(package.url(), component);
        }
        todo.extend(linked);
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": program.component("application", None) },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies.into_values().collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed() {
        let document: Value = serde_json::from_str(&document().unwrap()).unwrap();
        assert_eq!(document["metadata"]["component"]["name"], PROGRAM);
        let components = document["components"].as_array().unwrap();
        let find = |name| components.iter().find(|component| component["name"] == name);
        let clap = find("clap").unwrap();
        assert_eq!(clap["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert_eq!(clap["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert!(find("nerite-machine").unwrap().get("hashes").is_none());
        for absent in ["proptest", "xtask", "nerite-testkit", PROGRAM] {
            assert!(find(absent).is_none(), "{absent}");
        }
        let names: BTreeSet<&str> = components.iter().filter_map(|c| c["purl"].as_str()).collect();
        assert_eq!(names.len(), components.len(), "each once");
        for dependency in document["dependencies"].as_array().unwrap() {
            for needed in dependency["dependsOn"].as_array().unwrap() {
                assert!(names.contains(needed.as_str().unwrap()), "{needed}");
            }
        }
        assert!(components.iter().all(|component| component.get("licenses").is_some()));
    }
}
