//! The benches: which guests are run how.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::data::{Case, Who};
use super::setting::{Setting, image_name};
use crate::net_peer::TAP;

/// Name of the benches that compare the run loop with a bare one, instead of with the peer.
pub(crate) const LOOP: &str = "loop (ours: as in a machine, peer: bare)";

/// A guest and its options.
#[derive(Default)]
struct Guest<'a> {
    image: PathBuf,
    memory: Option<&'a str>,
    cpus: Option<u32>,
    /// A host folder that the guest sees as `/data`.
    data: Option<&'a str>,
    args: &'a [&'a str],
    expect: &'a str,
}

impl Guest<'_> {
    fn command(&self, who: Who, setting: &Setting<'_>) -> Option<Vec<String>> {
        let mut words: Vec<String> = match who {
            Who::Ours => vec![setting.vmm.display().to_string(), "run".to_owned()],
            Who::Peer => peer_words(setting.peer?),
        };
        // Both know these spellings.
        if let Some(memory) = self.memory {
            words.extend(["--memory-size".to_owned(), memory.to_owned()]);
        }
        if let Some(cpus) = self.cpus {
            words.extend(["--cpu-count".to_owned(), cpus.to_string()]);
        }
        if let Some(data) = self.data {
            words.extend(["--file-mapping".to_owned(), format!("{data}:/data")]);
        }
        words.push(self.image.display().to_string());
        if !self.args.is_empty() {
            words.push("--".to_owned());
            words.extend(self.args.iter().map(|&word| word.to_owned()));
        }
        Some(words)
    }
}

/// Returns `true` if the peer is an earlier `vmm`.
pub(super) fn is_ours(peer: &Path) -> bool {
    peer.file_name().is_some_and(|name| name == "vmm")
}

/// The words by which the peer runs an image: an earlier `vmm` has a subcommand for that.
fn peer_words(peer: &Path) -> Vec<String> {
    let program = peer.display().to_string();
    if is_ours(peer) { vec![program, "run".to_owned()] } else { vec![program] }
}

/// Amount of work for a bench.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    counted: bool,
}

struct Benches<'a> {
    setting: &'a Setting<'a>,
    cases: Vec<Case>,
}

impl Benches<'_> {
    /// Exits of this kind in the run loop as it is, and (as the peer's) in one that cannot be
    /// watched or controlled.
    fn add_loop(&mut self, kind: &str) {
        for (who, name) in [(Who::Ours, "full"), (Who::Peer, "bare")] {
            let path = |path: &Path| path.display().to_string();
            let words = [
                path(self.setting.loops),
                name.to_owned(),
                path(&self.setting.kernels.join("exits")),
            ];
            self.cases.push(Case {
                bench: format!("{LOOP} {kind}"),
                who,
                command: words.into_iter().chain(["10000".to_owned(), kind.to_owned()]).collect(),
                expect: "exits: ok".to_owned(),
                rounds: self.setting.rounds,
                counted: false,
                timeout: 60,
            });
        }
    }

    /// Writes to a network card's doorbell. The peer's card refuses our driver (see the benches of
    /// network cards).
    fn add_notifications(&mut self) {
        let words = [
            self.setting.vmm.display().to_string(),
            "run".to_owned(),
            "--net".to_owned(),
            format!("tap={TAP}"),
            self.setting.kernels.join("notify").display().to_string(),
        ];
        self.cases.push(Case {
            bench: "exits ioeventfd".to_owned(),
            who: Who::Ours,
            command: words.into_iter().chain(["--".to_owned(), "2000".to_owned()]).collect(),
            expect: "notify: ok".to_owned(),
            rounds: self.setting.rounds.div_ceil(2),
            // It shows that none of them is an exit.
            counted: true,
            timeout: 60,
        });
    }

    fn add(&mut self, bench: &str, guest: &Guest<'_>, effort: Effort) {
        for who in [Who::Ours, Who::Peer] {
            let Some(command) = guest.command(who, self.setting) else { continue };
            self.cases.push(Case {
                bench: bench.to_owned(),
                who,
                command,
                expect: guest.expect.to_owned(),
                rounds: effort.rounds,
                counted: effort.counted,
                timeout: 60,
            });
        }
    }
}

/// All cases, in order, of the benches with `filter` in their name.
pub(crate) fn all(setting: &Setting<'_>, filter: &str) -> Result<Vec<Case>> {
    let mut benches = Benches { setting, cases: Vec::new() };
    let kernel = |name: &str| setting.kernels.join(name);
    let often = Effort { rounds: setting.rounds, counted: true };
    let timed = Effort { rounds: setting.rounds.div_ceil(2), counted: false };
    let empty = |memory, cpus| Guest {
        image: setting.empty.to_owned(),
        memory,
        cpus,
        expect: "empty: ok",
        ..Guest::default()
    };

    benches.add("empty", &empty(None, None), often);
    for image in setting.images {
        let name = image_name(image);
        // What it says last is its own business; that it says something is not.
        let guest = Guest { image: image.clone(), expect: "\n", ..Guest::default() };
        benches.add(&format!("hermit {name}"), &guest, often);
    }
    for memory in ["64MiB", "1GiB", "4GiB", "16GiB"] {
        benches.add(&format!("memory {memory}"), &empty(Some(memory), None), timed);
    }
    for cpus in [2, 4, 8, 16] {
        let counted = Effort { counted: true, ..timed };
        benches.add(&format!("vcpus {cpus}"), &empty(None, Some(cpus)), counted);
    }
    for kind in ["out", "in", "mmio", "hypercall", "posted", "cpuid"] {
        let guest = Guest {
            image: kernel("exits"),
            args: &["2000", kind],
            expect: "exits: ok",
            ..Guest::default()
        };
        benches.add(&format!("exits {kind}"), &guest, timed);
    }
    benches.add_notifications();
    ["out", "in", "mmio"].into_iter().for_each(|kind| benches.add_loop(kind));
    for (bench, image, args) in
        [("console lines", "flood", ["4000"]), ("console bytes", "flood-v1", ["20000"])]
    {
        let expect = format!("{image}: ok");
        let guest =
            Guest { image: kernel(image), args: &args, expect: &expect, ..Guest::default() };
        benches.add(bench, &guest, Effort { counted: true, ..timed });
    }
    for (mib, kib) in [("2", "1"), ("8", "8"), ("8", "64"), ("8", "1024")] {
        let guest = Guest {
            image: kernel("file-rate"),
            args: &[mib, kib],
            data: Some("/tmp"),
            expect: "file-rate: ok",
            ..Guest::default()
        };
        benches.add(&format!("file {kib} KiB"), &guest, Effort { counted: true, ..timed });
    }
    benches.cases.extend(super::net::cases(setting));
    benches.cases.retain(|case| case.bench.contains(filter));
    Ok(benches.cases)
}

/// The Hermit images that `path` names: itself, or every `hello_world` in it and in the folders in
/// it.
pub(crate) fn images(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.push(path.to_owned());
    folders.sort();
    let images: Vec<PathBuf> = folders
        .iter()
        .map(|folder| folder.join("hello_world"))
        .filter(|image| image.is_file())
        .collect();
    ensure!(!images.is_empty(), "there is no hello_world in {} or a folder in it", path.display());
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting<'a>(peer: Option<&'a Path>, images: &'a [PathBuf]) -> Setting<'a> {
        Setting {
            vmm: Path::new("/vmm"),
            peer,
            kernels: Path::new("/k"),
            loops: Path::new("/l"),
            empty: Path::new("/e"),
            images,
            servers: &[],
            myself: "/xtask",
            rounds: 5,
        }
    }

    #[test]
    fn both_programs_are_given_the_same() {
        let images = [PathBuf::from("/i/0.13/hello_world")];
        let cases = all(&setting(Some(Path::new("/uhyve")), &images), "").unwrap();
        let of = |bench: &str| -> Vec<String> {
            cases
                .iter()
                .filter(|case| case.bench == bench)
                .map(|case| case.command.join(" "))
                .collect()
        };
        assert_eq!(
            of("vcpus 4"),
            ["/vmm run --cpu-count 4 /e", "/uhyve --cpu-count 4 /e"].map(str::to_owned)
        );
        assert_eq!(peer_words(Path::new("/before/vmm")), ["/before/vmm", "run"]);
        assert_eq!(of("hermit 0.13/hello_world")[1], "/uhyve /i/0.13/hello_world");
        assert_eq!(of("file 8 KiB")[0], "/vmm run --file-mapping /tmp:/data /k/file-rate -- 8 8");
        assert!(cases.iter().all(|case| !case.expect.is_empty()));
    }

    #[test]
    fn a_filter_and_a_missing_peer_leave_out() {
        let loops = all(&setting(None, &[]), LOOP).unwrap();
        assert_eq!(
            (loops.len(), loops[1].command.join(" ")),
            (6, "/l bare /k/exits 10000 out".to_owned())
        );
        let cases = all(&setting(None, &[]), "exits").unwrap();
        assert_eq!(cases.len(), 7);
        assert!(cases.iter().all(|case| case.who == Who::Ours && case.bench.starts_with("exits ")));
        assert_eq!(cases[6].command.join(" "), "/vmm run --net tap=nerite0 /k/notify -- 2000");
    }

    #[test]
    fn cards_are_compared_over_taps() {
        let images = [PathBuf::from("/i/netserve")];
        let setting = Setting { servers: &images, ..setting(Some(Path::new("/uhyve")), &[]) };
        let cases = all(&setting, "net tap").unwrap();
        let commands: Vec<_> = cases.iter().map(|case| case.command.join(" ")).collect();
        assert_eq!(cases.len(), 3);
        assert!(
            commands[0].starts_with("/xtask net-peer --link tap --exercise="),
            "{}",
            commands[0]
        );
        assert!(
            commands[0].ends_with(" -- /vmm run --net NET --memory-size 256MiB /k/net"),
            "{}",
            commands[0]
        );
        assert!(
            commands[2].contains(
                " --foreign -- /uhyve --net tap:nerite0 --memory-size 256MiB /i/netserve"
            )
        );
        assert_eq!(cases[2].bench, "net tap, i/netserve");
    }

    #[test]
    fn images_are_found_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        assert!(images(folder.path()).is_err());
        for name in ["b", "a"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("hello_world"), "x").unwrap();
        }
        let found = images(folder.path()).unwrap();
        assert_eq!(found, ["a", "b"].map(|name| folder.path().join(name).join("hello_world")));
        assert_eq!(images(&found[0]).unwrap(), [found[0].clone()]);
        assert_eq!(image_name(Path::new("/x/0.13/hello_world")), "0.13/hello_world");
    }
}
