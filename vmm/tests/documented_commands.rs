//! The commands that the documentation shows: all are parsed, and those that need no more than an
//! image are run, on the processor in software.

#![cfg(test)]

mod common;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::long_runs::{RIGHT, worker};
use common::{Done, Folder, image, wait, wait_until};

/// The Markdown files of the repository that are for users; none in a copy of this package alone.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("xtask").exists() {
        return Vec::new();
    }
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = docs.chain([root.join("README.md")]).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// The words of a command line, as a shell splits them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.extend(word.take()),
            ('#', None) if word.is_none() => break,
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "an open quote: {line}");
    words.extend(word);
    words
}

/// The commands of `vmm` in a page's indented blocks, without the lines that show a syntax.
fn commands(page: &str) -> Vec<Vec<String>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("    "));
    lines
        .filter(|line| line.starts_with("vmm ") && !line.contains(['[', '|']))
        .map(words)
        .filter(|words| words[1..] != ["ctl", "SOCKET", "COMMAND"])
        .collect()
}

#[test]
fn words_are_split_as_by_a_shell() {
    assert_eq!(words("vmm run  'a b'c \"\" # x"), ["vmm", "run", "a bc", ""]);
    assert_eq!(words("a#b"), ["a#b"]);
}

#[test]
fn every_command_shown_is_understood() {
    let pages = pages();
    let mut count = 0;
    for (name, page) in &pages {
        for words in commands(page) {
            if let Err(error) = nerite_vmm::cli::command().try_get_matches_from(&words) {
                panic!("{name}: {words:?}: {error}");
            }
            count += 1;
        }
    }
    assert!(pages.is_empty() || count >= 14, "{count} commands");
}

/// Runs commands, in the order in which the page shows them.
struct Shell {
    folder: Folder,
}

impl Shell {
    /// A folder with the image that pages call `IMAGE`, and a file that chooses the processor in
    /// software.
    fn new() -> Self {
        let folder = Folder::new();
        folder.file("home/.config/nerite/nerite.toml", "[cpu]\naccel = \"software\"\n");
        folder.file("IMAGE", image::elf(&worker(1)));
        Self { folder }
    }

    fn run(&self, words: &[String]) -> Done {
        let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        self.folder.run(&words)
    }

    /// Runs the first command beside the others, and stops it in the end. Returns the others'
    /// results.
    fn beside(&self, commands: &[Vec<String>]) -> Vec<Done> {
        let (first, rest) = commands.split_first().unwrap();
        let words: Vec<&str> = first[1..].iter().map(String::as_str).collect();
        let mut command = self.folder.vmm(&words);
        let guest = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let socket = self.folder.path("guest.sock");
        wait_until("the socket", || UnixStream::connect(&socket).is_ok());
        let done = rest.iter().map(|words| self.run(words)).collect();
        self.folder.run(&["ctl", "guest.sock", "stop"]);
        wait(guest);
        done
    }
}

/// The commands of a page before its first heading of the second level.
fn first_commands(name: &str) -> Option<Vec<Vec<String>>> {
    let pages = pages();
    let (_, page) = pages.iter().find(|(page, _)| page == name)?;
    Some(commands(page.split("\n## ").next().unwrap()))
}

#[test]
fn the_page_about_control_runs() {
    let Some(commands) = first_commands("control.md") else { return };
    assert_eq!(commands.len(), 2);
    let done = Shell::new().beside(&commands);
    assert!(done.iter().all(|done| done.code == 0), "{done:?}");
}

#[test]
fn the_page_about_snapshots_runs() {
    let Some(commands) = first_commands("snapshots.md") else { return };
    let (restore, before) = commands.split_last().unwrap();
    assert_eq!(before.len(), 3);
    let shell = Shell::new();
    let done = shell.beside(before);
    assert!(done.iter().all(|done| done.code == 0), "{done:?}");
    assert!(done[1].stdout.contains("hermit"), "{done:?}");
    assert_eq!(shell.run(restore).code, RIGHT);
}

#[test]
fn the_page_about_counting_runs() {
    let Some(commands) = first_commands("counting.md") else { return };
    assert_eq!(commands.len(), 1);
    let shell = Shell::new();
    let done = shell.run(&commands[0]);
    assert_eq!(done.code, RIGHT, "{done:?}");
    assert!(done.stderr.contains(" instructions\n"), "{done:?}");
}
