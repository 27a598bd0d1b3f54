//! The command line: what `vmm` understands, as clap sees it.
//!
//! [`command`] is the whole parser, for shell completions and the man page; [`Cli`] is what comes
//! out of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use nerite_machine::config::OnChanged;

use crate::ctl::CtlArgs;
use crate::exit_code;
use crate::options::{Options, SandboxOptions};
use crate::pack::ImageArgs;

/// Runs Hermit unikernels and other kernels, on KVM or on a processor in software.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, about, long_about = None, args_override_self = true, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_long_help = exit_code::HELP)]
pub struct Cli {
    /// Subcommand.
    #[command(subcommand)]
    pub action: Action,

    /// Say more on standard error: -v progress, -vv details, -vvv everything
    ///
    /// Without it, the environment variable RUST_LOG decides (for example `nerite_machine=debug`),
    /// and if that is not set either, warnings and errors are shown.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Write what vmm has to say to this file, which is created or emptied, and not to standard
    /// error
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,

    /// Begin each line of the log with the time (UTC)
    #[arg(long, global = true)]
    pub log_time: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Action {
    /// Run an image: of Hermit, or a Linux, PVH or multiboot kernel
    Run(Box<RunArgs>),
    /// Print what an image or a snapshot is: entry, versions, segments, TLS, relocations, contents;
    /// or what processors guests can have here
    Inspect(InspectArgs),
    /// Ask a running guest that has a control socket: pause, resume, stop, registers, memory
    Ctl(CtlArgs),
    /// Keep processes ready that continue a snapshot at once, each for one guest
    Clones(Box<ClonesArgs>),
    /// Make images of containers
    Image(ImageArgs),
    /// Print whether this host can run guests: hardware, emulating or none
    #[command(hide = true)]
    Probe,
}

/// `vmm clones`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct ClonesArgs {
    /// Directory of the snapshot, which must not change while the server runs
    #[arg(value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,

    /// Socket for `vmm ctl SOCKET clone`, which is made for this user alone
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub listen: PathBuf,

    /// Number of processes that are kept ready
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub pool: u32,

    /// Number of clones that run at a time at most; more requests wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_running: u32,

    /// Compare all memory of the snapshot with its digest, in each process
    #[arg(long)]
    pub verify: bool,

    /// As for `vmm run --restore` [default: refuse]
    #[arg(long, value_name = "POLICY", value_parser = parse_on_changed)]
    pub on_changed: Option<OnChanged>,

    /// Read settings from this TOML file [env: HERMIT_CONFIG]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// The machine and its guest.
    #[command(flatten)]
    pub options: Options,
}

/// `vmm inspect`.
#[derive(Debug, Args)]
#[command(override_usage = "vmm inspect [OPTIONS] <IMAGE|DIR>\n       vmm inspect --host [--json]")]
pub struct InspectArgs {
    /// The image: a Hermit ELF file, or a gzip'd tar with a hermit.toml in it; or the directory of
    /// a snapshot; `-` is an image on standard input, `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`
    /// are those of OCI image layouts
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "host")]
    pub image: Option<PathBuf>,

    /// Print the CPU features that guests can have on this host, for --cpu of `vmm run`
    #[arg(long, conflicts_with_all = ["image", "verify"])]
    pub host: bool,

    /// Compare the files of a snapshot with their digests
    #[arg(long)]
    pub verify: bool,

    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,

    /// Confinement of `vmm`.
    #[command(flatten)]
    pub sandbox: SandboxOptions,
}

/// `vmm run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "vmm run [OPTIONS] <IMAGE> [--] [ARGS]...\n       vmm run [OPTIONS] --restore <DIR> [-- ARGS...]"
)]
#[command(after_long_help = exit_code::HELP, args_override_self = true)]
pub struct RunArgs {
    /// The image (a Hermit ELF file, or a gzip'd tar with a hermit.toml in it), then the
    /// application's arguments
    ///
    /// Every word after the image goes to the application as it is, options too. One `--` straight
    /// after the image is taken away, so that both `vmm run image a b` and `vmm run image -- a b`
    /// pass `a` and `b`. `-` reads the image from standard input, which the guest then finds at its
    /// end. `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]` are images of containers in an OCI image
    /// layout: with their arguments, environment and files.
    #[arg(value_names = ["IMAGE", "ARGS"], num_args = 1.., trailing_var_arg = true)]
    #[arg(required_unless_present = "restore")]
    #[arg(allow_hyphen_values = false, value_hint = ValueHint::FilePath)]
    pub image_and_args: Vec<OsString>,

    /// Resume the guest of a snapshot, which `vmm ctl SOCKET snapshot DIR` has made
    ///
    /// In place of an image. Mounts, disks and network cards of the guest are given anew, with
    /// the host's files of now; so are the output and everything that watches or confines the run.
    /// Arguments, --env and the address of a network card (mac=) take the place of those that the
    /// guest was started with, if it has not read them yet.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub restore: Option<PathBuf>,

    /// Compare all memory of the snapshot with its digest before the guest resumes
    #[arg(long)]
    pub verify: bool,

    /// Treatment of a file that the guest had open and that has changed since: `refuse` does not
    /// restore the guest, `eio` answers its accesses with an I/O error [default: refuse]
    #[arg(long, value_name = "POLICY", value_parser = parse_on_changed)]
    pub on_changed: Option<OnChanged>,

    /// Read settings from this TOML file [env: HERMIT_CONFIG]
    ///
    /// Without it, the first of these that exists is read: ./nerite.toml,
    /// $XDG_CONFIG_HOME/nerite/nerite.toml (~/.config/nerite/nerite.toml if XDG_CONFIG_HOME is not
    /// set). The command line wins over the environment, the environment over the file, and the
    /// file over what the image itself asks for. A uhyve.toml is understood, too.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// The machine and its guest.
    #[command(flatten)]
    pub options: Options,
}

impl RunArgs {
    /// The path of the image or snapshot, and the application's arguments.
    #[must_use]
    pub fn image_and_args(&self) -> (PathBuf, &[OsString]) {
        if let Some(directory) = &self.restore {
            return (directory.clone(), &self.image_and_args);
        }
        let (image, args) = match self.image_and_args.split_first() {
            Some((image, args)) => (PathBuf::from(image), args),
            None => (PathBuf::new(), &[][..]),
        };
        match args.split_first() {
            Some((separator, rest)) if separator == "--" => (image, rest),
            _ => (image, args),
        }
    }
}

/// The whole parser, for completions and the man page.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads a policy for files that have changed.
pub(crate) fn parse_on_changed(text: &str) -> Result<OnChanged, String> {
    match text {
        "refuse" => Ok(OnChanged::Refuse),
        "eio" => Ok(OnChanged::Eio),
        _ => Err(format!("unknown policy {text:?} (expected `refuse` or `eio`)")),
    }
}

#[cfg(test)]
mod tests {
    use nerite_machine::config::Access;

    use super::*;
    use crate::options::value::Bytes;
    use crate::options::{CpuCount, EnvSetting};
    use crate::size::MemorySize;

    fn run(args: &[&str]) -> RunArgs {
        let words = ["vmm", "run"].iter().chain(args);
        match Cli::try_parse_from(words).unwrap().action {
            Action::Run(run) => *run,
            other => panic!("not a run: {other:?}"),
        }
    }

    fn error(args: &[&str]) -> String {
        Cli::try_parse_from(["vmm", "run"].iter().chain(args)).unwrap_err().to_string()
    }

    #[test]
    fn the_parser_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn words_after_the_image_are_the_applications() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["img"], &[]),
            (&["img", "a", "b"], &["a", "b"]),
            (&["img", "--", "a", "b"], &["a", "b"]),
            (&["img", "-m", "1G"], &["-m", "1G"]),
            (&["img", "--", "-m", "--help"], &["-m", "--help"]),
            (&["img", "--help", "-v", "--bogus"], &["--help", "-v", "--bogus"]),
            (&["img", "a", "--", "b"], &["a", "--", "b"]),
            (&["img", "--", "--", "b"], &["--", "b"]),
            (&["img", "", " ", "ä\"'\\"], &["", " ", "ä\"'\\"]),
            (&["--", "img", "a"], &["a"]),
            (&["--", "img", "--", "-a"], &["-a"]),
            (&["-m", "32M", "img", "-c", "9"], &["-c", "9"]),
            (&["-m", "32M", "-", "-c", "9"], &["-c", "9"]),
        ];
        for (words, expected) in cases {
            let run = run(words);
            let (image, args) = run.image_and_args();
            let expected_image = if words.contains(&"img") { "img" } else { "-" };
            assert_eq!(image, PathBuf::from(expected_image), "{words:?}");
            assert_eq!(args, expected.iter().map(OsString::from).collect::<Vec<_>>(), "{words:?}");
        }
    }

    #[test]
    fn switches_can_be_turned_off_again() {
        assert_eq!(run(&["img"]).options.memory.thp, None);
        assert_eq!(run(&["--thp", "img"]).options.memory.thp, Some(true));
        assert_eq!(run(&["--thp=false", "img"]).options.memory.thp, Some(false));
        assert_eq!(run(&["--no-aslr=false", "img"]).options.memory.no_aslr, Some(false));
        assert!(error(&["--thp=maybe", "img"]).contains("maybe"));
    }

    #[test]
    fn the_last_of_an_option_wins() {
        let run = run(&[
            "-m",
            "32M",
            "--memory=64M",
            "--memory-size",
            "128M",
            "--thp",
            "--thp=false",
            "img",
        ]);
        assert_eq!(run.options.memory.size.map(MemorySize::bytes), Some(128 << 20));
        assert_eq!(run.options.memory.thp, Some(false));
    }

    #[test]
    fn the_peers_spellings_work() {
        let run = run(&[
            "--memory-size",
            "32MiB",
            "--cpu-count",
            "2",
            "--env-vars",
            "A=b",
            "-e",
            "host",
            "-n",
            "tap:tap10",
            "img",
        ]);
        assert_eq!(run.options.memory.size.map(MemorySize::bytes), Some(32 << 20));
        assert_eq!(run.options.cpu.count.map(CpuCount::get), Some(2));
        assert_eq!(run.options.guest.env, [EnvSetting::set("A", "b"), EnvSetting::Host]);
        assert_eq!(run.options.net.cards, ["tap=tap10".parse().unwrap()]);
    }

    #[test]
    fn the_peers_port_of_gdb_stands_after_a_space_too() {
        let address = |words: &[&str]| {
            let mut run = run(words);
            run.options.normalize().unwrap();
            run.options.debugger().map(|(address, _)| address.to_string())
        };
        for (words, port) in [
            (&["-s", "1234", "img"][..], "127.0.0.1:1234"),
            (&["--gdb-port", "1234", "img"], "127.0.0.1:1234"),
            (&["--gdb-port=1234", "img"], "127.0.0.1:1234"),
            (&["-s", "--", "img"], "127.0.0.1:6677"),
            (&["--gdb-port", "-c", "2", "img"], "127.0.0.1:6677"),
            (&["--gdb", "img"], "127.0.0.1:6677"),
            (&["-s", "1", "--gdb=2", "img"], "127.0.0.1:2"),
        ] {
            assert_eq!(address(words).as_deref(), Some(port), "{words:?}");
        }
        assert!(error(&["-s", "img"]).contains("--gdb-port"));
        assert!(error(&["-s", "1", "--gdb-attach", "img"]).contains("--gdb-attach"));
    }

    #[test]
    fn kernel_arguments_may_begin_with_a_hyphen() {
        let run = run(&["-k", "-ip", "-k", "10.0.5.3", "--kernel-arg=-x", "-k--y", "img"]);
        assert_eq!(run.options.guest.kernel_args, ["-ip", "10.0.5.3", "-x", "--y"]);
    }

    #[test]
    fn mounts_are_read_only_unless_they_say_so() {
        let mut run = run(&[
            "--mount",
            "a:/b",
            "--mount=c:/d:rw",
            "--file-mapping",
            "e:/f",
            "--max-written",
            "1G",
            "img",
        ]);
        run.options.normalize().unwrap();
        let mounts = &run.options.files.mounts;
        let all: Vec<_> = mounts.iter().map(|mount| (mount.guest.as_str(), mount.access)).collect();
        assert_eq!(
            all,
            [("/b", Access::ReadOnly), ("/d", Access::ReadWrite), ("/f", Access::ReadWriteName)]
        );
        assert_eq!(run.options.files.max_written, Some(Bytes(1 << 30)));
    }

    #[test]
    fn bad_values_name_the_option() {
        for (words, parts) in [
            (&["-m", "1M", "img"], ["--memory <SIZE>", "16 MiB"]),
            (&["-m", "x", "img"], ["--memory <SIZE>", "not a size"]),
            (&["-c", "0", "img"], ["--cpus <N>", "1 to 16"]),
            (&["-c", "17", "img"], ["--cpus <N>", "1 to 16"]),
            (&["--cpu", "+axv2", "img"], ["--cpu <FEATURES>", "similar: avx2"]),
            (&["--cpu", "-lm", "img"], ["--cpu <FEATURES>", "cannot be turned off"]),
            (&["-a", "2-1", "img"], ["--affinity <CPUS>", "backwards"]),
            (&["-e", "FOO", "img"], ["--env", "NAME=VALUE"]),
            (&["-e", "=x", "img"], ["--env", "name"]),
            (&["--mount", "x", "img"], ["--mount <HOST:GUEST[:ro|rw]>", "guest path is missing"]),
            (&["--mount", "x:y", "img"], ["--mount", "slash"]),
            (&["--file-mapping", ":/y", "img"], ["--file-mapping", "host path is empty"]),
            (&["--max-open-files", "0", "img"], ["--max-open-files", "1 to"]),
            (&["--max-output-rate", "0", "img"], ["--max-output-rate", "at least one byte"]),
            (&["--max-temporary", "x", "img"], ["--max-temporary", "not a size"]),
        ] {
            let error = error(words);
            assert!(parts.iter().all(|part| error.contains(part)), "{words:?}: {error}");
        }
    }
}
