//! Programs of a crate's README, each in a project that depends on that crate alone.
//!
//! They are documentation tests as well, but those see all dependencies of their crate, and of its
//! tests: a program that names one of them builds there, and nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::build::cargo;

/// The most crates that a client of the control socket may bring, itself among them.
const CLIENT_CRATES: usize = 24;

/// A project that depends on one crate.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Project {
    /// Name of the project.
    pub(super) name: String,
    /// Dependency as the README has it, or none if the crate's name is enough.
    dependency: toml::Table,
    /// Texts of the programs.
    programs: Vec<String>,
}

/// Writes the projects of the package `krate`, unpacked in the folder `source`, into `folder`.
pub(super) fn write(folder: &Path, krate: &str, source: &Path) -> Result<Vec<Project>> {
    let file = source.join("README.md");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let projects = of_readme(krate, &text).with_context(|| file.display().to_string())?;
    for project in &projects {
        project.write(folder, krate, source)?;
    }
    Ok(projects)
}

/// The projects of a README: one for the programs that need the crate as it is, and one for those
/// behind each dependency with features that the README shows.
fn of_readme(krate: &str, text: &str) -> Result<Vec<Project>> {
    let (mut projects, mut lines) = (vec![Project::default()], text.lines());
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if language.starts_with("rust") {
            projects.last_mut().context("no project")?.programs.push(program(&block));
        } else if language == "toml" {
            let table: toml::Table = block.join("\n").parse().context("malformed TOML")?;
            let own = table.get("dependencies").and_then(|all| all.get(krate)?.as_table().cloned());
            projects.extend(own.map(|dependency| Project { dependency, ..Project::default() }));
        }
    }
    projects.retain(|project| !project.programs.is_empty());
    for (number, project) in projects.iter_mut().enumerate() {
        project.name = format!("{krate}-program-{number}");
    }
    Ok(projects)
}

impl Project {
    /// Writes the project; the crate `krate` is in the folder `source`.
    fn write(&self, folder: &Path, krate: &str, source: &Path) -> Result<()> {
        let programs = folder.join(&self.name).join("src/bin");
        fs::create_dir_all(&programs)
            .with_context(|| format!("cannot make {}", programs.display()))?;
        for (number, program) in self.programs.iter().enumerate() {
            fs::write(programs.join(format!("program-{number}.rs")), program)
                .context("cannot write a program")?;
        }
        let mut dependency = self.dependency.clone();
        dependency.remove("version");
        dependency.insert("path".to_owned(), source.display().to_string().into());
        let package = [("name", self.name.as_str()), ("edition", "2024")];
        let package = package.map(|(key, value)| (key.to_owned(), value.into()));
        let dependencies = [(krate.to_owned(), toml::Value::from(dependency))];
        let manifest = toml::Table::from_iter([
            ("package".to_owned(), toml::Table::from_iter(package).into()),
            ("dependencies".to_owned(), toml::Table::from_iter(dependencies).into()),
        ]);
        let text = toml::to_string(&manifest).context("cannot write a manifest")?;
        fs::write(folder.join(&self.name).join("Cargo.toml"), text)
            .context("cannot write a manifest")
    }
}

/// The whole program of a documentation test: without the marks of hidden lines, and in a function
/// where it has none.
fn program(block: &[&str]) -> String {
    let shown = |line: &&str| match line.strip_prefix("# ") {
        // Of the crate; a reader sees none of it.
        Some(hidden) if hidden.starts_with("#[cfg(feature") => String::new(),
        Some(hidden) => hidden.to_owned(),
        None if *line == "#" => String::new(),
        None => (*line).to_owned(),
    };
    let body = block.iter().map(shown).collect::<Vec<_>>().join("\n");
    if body.contains("fn main()") {
        body
    } else if body.ends_with("(())") {
        format!("fn main() -> Result<(), impl std::fmt::Debug> {{\n{body}\n}}\n")
    } else {
        format!("fn main() {{\n{body}\n}}\n")
    }
}

/// Checks that who only talks to a running machine does not build one.
pub(super) fn client_is_small(folder: &Path) -> Result<()> {
    let mut command = cargo();
    command.args(["tree", "--offline", "--edges", "normal", "--prefix", "none"]);
    command
        .args(["--format", "{lib}", "--package", "nerite-control-program-0"])
        .current_dir(folder);
    let output = command.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo tree failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let crates: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let count = crates.len();
    ensure!(
        crates.contains("nerite_control") && count <= CLIENT_CRATES,
        "a client of nerite-control builds {count} crates, which may be {CLIENT_CRATES}: {crates:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_wrapped_as_documentation_tests_are() {
        assert_eq!(program(&["one();", "# two();"]), "fn main() {\none();\ntwo();\n}\n");
        assert_eq!(
            program(&["# Ok::<(), Error>(())"]),
            "fn main() -> Result<(), impl std::fmt::Debug> {\nOk::<(), Error>(())\n}\n"
        );
        assert_eq!(program(&["fn main() {}"]), "fn main() {}");
    }

    #[test]
    fn features_are_those_that_the_readme_names() {
        let text = "x\n```rust,no_run\na();\n```\n```toml\n[dependencies]\na = { version = \"0.1\", \
                    features = [\"b\"] }\n```\n```rust\nb();\n```\n```sh\nls\n```\n";
        let projects = of_readme("a", text).unwrap();
        assert_eq!(projects[0].programs, ["fn main() {\na();\n}\n"]);
        assert_eq!(projects[1].programs, ["fn main() {\nb();\n}\n"]);
        assert!(projects[0].dependency.is_empty());
        assert_eq!(projects[1].dependency["features"].as_array().map(Vec::len), Some(1));
        assert_eq!(of_readme("a", "```sh\nls\n```").unwrap(), []);
    }
}
