//! Documentation compared with the program: options, exit codes, configuration files.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file of the repository, or nothing in a copy of this package alone.
fn text(name: &str) -> Option<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    let alone = !Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask").exists();
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(_) if alone => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The fenced blocks of a language in a Markdown text.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    text.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_option_is_described() {
    let Some(text) = text("docs/cli.md") else { return };
    let command = nerite_vmm::cli::command();
    let run = command.find_subcommand("run").unwrap();
    let mut count = 0;
    for option in run.get_opts() {
        let long = option.get_long().unwrap();
        assert!(
            text.contains(&format!("`--{long}")) || text.contains(&format!(", `--{long}")),
            "--{long} is missing"
        );
        if let Some(short) = option.get_short() {
            assert!(text.contains(&format!("| `-{short}`, `--{long}")), "-{short} is missing");
        }
        for alias in option.get_all_aliases().unwrap_or_default() {
            assert!(text.contains(&format!("| `--{alias}` |")), "--{alias} is missing");
        }
        count += 1;
    }
    assert!(count > 12, "{count} options");
}

#[test]
fn every_exit_code_is_described() {
    for name in ["docs/cli.md", "README.md"] {
        let Some(text) = text(name) else { continue };
        for code in nerite_vmm::exit_code::OWN {
            assert!(text.contains(&format!("| {code} |")), "{name}: {code} is missing");
        }
        assert!(text.contains("| 128+n |") && text.contains("| 0-255 |"), "{name}");
    }
}

#[test]
fn the_configuration_files_shown_load() {
    let Some(text) = text("docs/config.md") else { return };
    let blocks = blocks(&text, "toml");
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let loaded = nerite_vmm::config_file::parse(Path::new("config.md"), block).unwrap();
        assert_eq!(loaded.warnings, [""; 0]);
        assert!(loaded.options.memory.size.is_some() && loaded.options.cpu.count.is_some());
    }
    // Every key has its place in one of them: an unknown key makes the parser name them all.
    for table in ["memory", "cpu", "guest", "files", "sandbox", "uhyve"] {
        let message =
            nerite_vmm::config_file::parse(Path::new("x"), &format!("[{table}]\nnonsense = 1"))
                .unwrap_err();
        let message = message.to_string();
        let keys = message.split("expected one of ").nth(1).unwrap();
        for key in keys.split(", in `").next().unwrap().split(", ") {
            let key = key.trim_matches('`');
            let shown = text.contains(&format!("\n{key} = ")) || text.contains(&format!("`{key}`"));
            assert!(shown, "{key} of [{table}] is missing");
        }
    }
}

/// The example in the README is that of a crate, where it is compiled and run as a test.
#[test]
fn the_example_of_the_readme_is_tested() {
    let (Some(readme), Some(of_crate)) = (text("README.md"), text("crates/arch/README.md")) else {
        return;
    };
    let examples = blocks(&readme, "rust");
    assert_eq!(examples.len(), 1);
    assert!(blocks(&of_crate, "rust").contains(&examples[0]), "copy it from crates/arch/README.md");
}

/// The guide's program is an example, which is run with a kernel.
#[test]
fn the_guides_vmm_is_the_example_and_has_100_lines() {
    let (Some(guide), Some(example)) =
        (text("docs/vmm-in-100-lines.md"), text("crates/machine/examples/hundred_lines.rs"))
    else {
        return;
    };
    assert_eq!(blocks(&guide, "rust"), [example.as_str()], "copy the example into the guide");
    assert!(example.lines().count() <= 100, "{} lines", example.lines().count());
    let crates: BTreeSet<String> = example
        .split("use nerite_")
        .skip(1)
        .map(|rest| rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next().unwrap())
        .map(|name| format!("nerite-{} = \"0.1\"", name.replace('_', "-")))
        .collect();
    let dependencies = blocks(&guide, "toml");
    let shown = dependencies[0].lines().skip(1).map(str::to_owned).collect();
    assert_eq!(crates, shown);
}

/// Text in backticks.
fn code_words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn commands_for_those_who_come_from_uhyve_are_understood() {
    let Some(text) = text("docs/cli.md") else { return };
    let table = text.split("| uhyve | vmm |").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<_> =
        code_words(table).filter(|words| words.starts_with("vmm run ")).collect();
    assert!(commands.len() > 4, "{commands:?}");
    for words in commands {
        let parsed = nerite_vmm::cli::command().try_get_matches_from(words.split(' '));
        assert!(parsed.is_ok(), "{words}: {parsed:?}");
    }
}

#[test]
fn every_proof_of_security_exists() {
    let Some(text) = text("SECURITY.md") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = text.split("| promise | proved by |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut count = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let proofs = row.split(" | ").nth(1).unwrap();
        // "`crates/x`: `a.rs`, `b.rs`" and "`vmm/tests/a.rs`, `b.rs`" name files of one folder.
        let mut folder = PathBuf::new();
        for name in code_words(proofs) {
            let guest = format!("tests/kernels/guests/src/bin/{name}.rs");
            let target = format!("fuzz/fuzz_targets/{name}.rs");
            let candidates = [
                PathBuf::from(name),
                folder.join(name),
                folder.join("src").join(name),
                guest.into(),
                target.into(),
            ];
            // A command, or names of tests from a suite.
            let is_command = name.contains(' ');
            let found = candidates.iter().find(|path| root.join(path).exists());
            assert!(is_command || found.is_some(), "{name} does not exist: {row}");
            if root.join(name).is_dir() {
                folder = name.into();
            } else if root.join(name).is_file() {
                folder = Path::new(name).parent().unwrap().to_owned();
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count} proofs");
}

#[test]
fn the_book_has_every_page_and_links_within_itself() {
    let Some(summary) = text("docs/SUMMARY.md") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".md") {
            continue;
        }
        let is_listed = name == "SUMMARY.md" || summary.contains(&format!("({name})"));
        assert!(is_listed, "{name} is not in SUMMARY.md");
        let page = text(&format!("docs/{name}")).unwrap();
        for link in page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let target = link.split('#').next().unwrap();
            let is_elsewhere = link.starts_with("https://") || target.is_empty();
            let is_page = !target.contains('/') && folder.join(target).is_file();
            assert!(is_elsewhere || is_page, "{name}: {link} is no page");
        }
        count += 1;
    }
    assert!(count > 10, "{count} pages");
}
