//! The command line: what `vmm` understands, as clap sees it.
//!
//! [`command`] is the whole parser, for shell completions and the man page; [`Cli`] is what comes out of it.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use nerite_machine::config::{CardSpec, Mount};

use crate::affinity::Affinity;
use crate::boot::BootArgs;
use crate::containment::Containment;
use crate::ctl::CtlArgs;
use crate::devices::DeviceArgs;
use crate::exit_code;
use crate::observe::ObserveArgs;
use crate::settings::{
    CpuCount, EnvSetting, FileCount, OutputSetting, file_mapping, parse_rate, read_only_mount,
};
use crate::size::{MemorySize, parse_bytes};

/// Runs Hermit unikernels on Linux/KVM.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, about, long_about = None, args_override_self = true, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_long_help = exit_code::HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,

    /// Say more on standard error: -v progress, -vv details, -vvv everything
    ///
    /// Without it, the environment variable RUST_LOG decides (for example `nerite_machine=debug`), and if that is not
    /// set either, warnings and errors are shown.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Action {
    /// Run a Hermit image
    Run(Box<RunArgs>),
    /// Print what an image is: entry, versions, segments, TLS, relocations, tar contents
    Inspect(InspectArgs),
    /// Ask a running guest that has a control socket: pause, resume, stop, registers, memory
    Ctl(CtlArgs),
    /// Print whether this host can run guests: hardware, emulating or none
    #[command(hide = true)]
    Probe,
}

/// `vmm inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image: a Hermit ELF file, or a gzip'd tar with a hermit.toml in it
    #[arg(value_hint = ValueHint::FilePath)]
    pub image: PathBuf,

    /// How vmm confines itself.
    #[command(flatten)]
    pub containment: Containment,
}

/// `vmm run`.
#[derive(Debug, Args)]
#[command(override_usage = "vmm run [OPTIONS] <IMAGE> [--] [ARGS]...")]
#[command(after_long_help = exit_code::HELP, args_override_self = true)]
pub struct RunArgs {
    /// The image (a Hermit ELF file, or a gzip'd tar with a hermit.toml in it), then the application's arguments
    ///
    /// Every word after the image goes to the application as it is, options too. One `--` straight after the image is
    /// taken away, so that both `vmm run image a b` and `vmm run image -- a b` pass `a` and `b`.
    #[arg(value_names = ["IMAGE", "ARGS"], num_args = 1.., required = true, trailing_var_arg = true)]
    #[arg(allow_hyphen_values = false, value_hint = ValueHint::FilePath)]
    pub image_and_args: Vec<OsString>,

    /// Read settings from this TOML file [env: HERMIT_CONFIG]
    ///
    /// Without it, the first of these that exists is read: ./nerite.toml, $XDG_CONFIG_HOME/nerite/nerite.toml
    /// (~/.config/nerite/nerite.toml if XDG_CONFIG_HOME is not set). The command line wins over the environment, the environment over the file, and the
    /// file over what the image itself asks for. A uhyve.toml is understood, too.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,

    /// Memory, machine and guest.
    #[command(flatten)]
    pub settings: SettingsArgs,

    /// Statistics, limits and control.
    #[command(flatten)]
    pub observe: ObserveArgs,
}

/// The options of `vmm run` that a configuration file can hold, too.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// How the guest is started.
    #[command(flatten)]
    pub boot: BootArgs,

    /// Guest memory, such as 64M or 1.5GiB [env: HERMIT_MEMORY_SIZE] [default: what the image asks for, or 64M]
    ///
    /// K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; KB, MB, GB, TB are powers of 1000; a number alone is in
    /// bytes. At least 16M, and a multiple of 2M.
    #[arg(short, long, alias = "memory-size", value_name = "SIZE", help_heading = "Memory")]
    pub memory: Option<MemorySize>,

    /// Put the guest at a fixed guest-physical address
    ///
    /// Without it, an image that can be relocated is put at a random address.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Memory", hide_possible_values = true)]
    pub no_aslr: Option<bool>,

    /// Advise the host to use transparent huge pages
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Memory", hide_possible_values = true)]
    pub thp: Option<bool>,

    /// Advise the host to merge equal pages (kernel same-page merging)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Memory", hide_possible_values = true)]
    pub ksm: Option<bool>,

    /// Back the memory with huge pages of 2 MiB that the host has reserved
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Memory", hide_possible_values = true)]
    pub hugepages: Option<bool>,

    /// Number of vCPUs, 1 to 16 [env: HERMIT_CPU_COUNT] [default: what the image asks for, or 1]
    #[arg(short, long, alias = "cpu-count", value_name = "N", help_heading = "CPUs")]
    pub cpus: Option<CpuCount>,

    /// Run each vCPU on a host CPU of its own, such as 0-1,4 or "0 1 4": one for each vCPU, in order
    #[arg(short, long, value_name = "CPUS", help_heading = "CPUs")]
    pub affinity: Option<Affinity>,

    /// Let the guest manage the power states of the host's CPUs
    ///
    /// Waking up gets faster for the guest and slower for everything else on these CPUs, and the host counts them as busy
    /// all the time.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "CPUs", hide_possible_values = true)]
    pub cpu_pm: Option<bool>,

    /// Give the guest an i8254 interval timer
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "CPUs", hide_possible_values = true)]
    pub pit: Option<bool>,

    /// Set an environment variable of the application; `host` passes all of vmm's own (repeatable)
    ///
    /// A variable that is set wins over the host's of the same name, and the last of several wins.
    #[arg(short, long, alias = "env-vars", value_name = "NAME=VALUE|host", help_heading = "Guest")]
    #[arg(action = clap::ArgAction::Append)]
    pub env: Vec<EnvSetting>,

    /// Pass an argument to the kernel (repeatable), such as -k -ip -k 10.0.5.3
    #[arg(short, long, value_name = "ARG", help_heading = "Guest", allow_hyphen_values = true)]
    #[arg(action = clap::ArgAction::Append)]
    pub kernel_arg: Vec<String>,

    /// Let the guest see a file or directory of the host (repeatable), such as ./site:/www:ro
    ///
    /// `ro` is for reading only and the default, `rw` for changing it, too. The guest path is absolute. Nothing else of
    /// the host is visible; what a guest creates elsewhere is gone when it ends. Links are followed only inside of the
    /// directory.
    #[arg(long, value_name = "HOST:GUEST[:ro|rw]", help_heading = "Files")]
    #[arg(action = clap::ArgAction::Append, value_parser = read_only_mount)]
    pub mount: Vec<Mount>,

    /// The same as --mount HOST:GUEST:rw, as uhyve spells it (repeatable)
    #[arg(long, value_name = "HOST:GUEST", help_heading = "Files")]
    #[arg(action = clap::ArgAction::Append, value_parser = file_mapping)]
    pub file_mapping: Vec<Mount>,

    /// How many files the guest may have open at a time [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Files")]
    pub max_open_files: Option<FileCount>,

    /// How much the guest may write to files in all, such as 10G [default: no limit]
    #[arg(long, value_name = "SIZE", help_heading = "Files", value_parser = parse_bytes)]
    pub max_written: Option<u64>,

    /// How large the guest's temporary files may be together [default: 256M]
    ///
    /// They are what it creates where nothing is mounted, in memory and without names on the host, at most 1024 of them. 0
    /// allows only empty ones.
    #[arg(long, value_name = "SIZE", help_heading = "Files", value_parser = parse_bytes)]
    pub max_temporary: Option<u64>,

    /// Give the guest a network card (repeatable), such as tap=tap0 or user,hostfwd=tcp:8080:80
    ///
    /// tap=NAME is a tap of the host, made if it is not there and vmm may make it; with vhost=on the host's kernel moves the
    /// frames, queues=N asks for several queue pairs. user needs no privileges, but the program passt: the guest is 10.0.5.3,
    /// its gateway 10.0.5.1, DHCP says so, too; hostfwd=tcp:HOSTPORT:GUESTPORT lets a port of 127.0.0.1 lead to the guest, and host=on
    /// the gateway to the host. fd=N is a tap that the parent process has opened. All take mac=ADDRESS and mtu=BYTES.
    #[arg(long, value_name = "LINK[,OPTION=VALUE...]", help_heading = "Network")]
    #[arg(action = clap::ArgAction::Append)]
    pub net: Vec<CardSpec>,

    /// Disks and other devices.
    #[command(flatten)]
    pub devices: DeviceArgs,

    /// Write the guest's output to this file; `none` discards it, `-` is standard output [default: -]
    #[arg(short, long, value_name = "FILE|none|-", help_heading = "Guest", value_hint = ValueHint::FilePath)]
    #[arg(value_parser = OsStringValueParser::new().try_map(OutputSetting::try_from))]
    pub output: Option<OutputSetting>,

    /// How much the guest may write to its output in a second, such as 1M [default: no limit]
    ///
    /// A guest that writes more is slowed down.
    #[arg(long, value_name = "SIZE", help_heading = "Guest", value_parser = parse_rate)]
    pub max_output_rate: Option<NonZeroU64>,

    /// How many lines the log may have about hypercalls the guest gets wrong [default: 64]
    #[arg(long, value_name = "N", help_heading = "Guest")]
    pub max_log_lines: Option<u32>,

    /// How vmm confines itself.
    #[command(flatten)]
    pub containment: Containment,
}

impl RunArgs {
    /// The image's path, and the application's arguments.
    #[must_use]
    pub fn image_and_args(&self) -> (PathBuf, &[OsString]) {
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

#[cfg(test)]
mod tests {
    use nerite_machine::config::Access;

    use super::*;

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
        ];
        for (words, expected) in cases {
            let run = run(words);
            let (image, args) = run.image_and_args();
            assert_eq!(image, PathBuf::from("img"), "{words:?}");
            assert_eq!(args, expected.iter().map(OsString::from).collect::<Vec<_>>(), "{words:?}");
        }
    }

    #[test]
    fn switches_can_be_turned_off_again() {
        assert_eq!(run(&["img"]).settings.thp, None);
        assert_eq!(run(&["--thp", "img"]).settings.thp, Some(true));
        assert_eq!(run(&["--thp=false", "img"]).settings.thp, Some(false));
        assert_eq!(run(&["--no-aslr=false", "img"]).settings.no_aslr, Some(false));
        assert!(error(&["--thp=maybe", "img"]).contains("maybe"));
    }

    #[test]
    fn the_last_of_an_option_wins() {
        let run = run(&["-m", "32M", "--memory=64M", "--memory-size", "128M", "--thp", "--thp=false", "img"]);
        assert_eq!(run.settings.memory.map(MemorySize::bytes), Some(128 << 20));
        assert_eq!(run.settings.thp, Some(false));
    }

    #[test]
    fn the_peers_spellings_work() {
        let run =
            run(&["--memory-size", "32MiB", "--cpu-count", "2", "--env-vars", "A=b", "-e", "host", "img"]);
        assert_eq!(run.settings.memory.map(MemorySize::bytes), Some(32 << 20));
        assert_eq!(run.settings.cpus.map(CpuCount::get), Some(2));
        assert_eq!(run.settings.env, [EnvSetting::set("A", "b"), EnvSetting::Host]);
    }

    #[test]
    fn kernel_arguments_may_begin_with_a_hyphen() {
        let run = run(&["-k", "-ip", "-k", "10.0.5.3", "--kernel-arg=-x", "-k--y", "img"]);
        assert_eq!(run.settings.kernel_arg, ["-ip", "10.0.5.3", "-x", "--y"]);
    }

    #[test]
    fn mounts_are_read_only_unless_they_say_so() {
        let run = run(&[
            "--mount",
            "a:/b",
            "--mount=c:/d:rw",
            "--file-mapping",
            "e:/f",
            "--max-written",
            "1G",
            "img",
        ]);
        let mounts = [&run.settings.mount[..], &run.settings.file_mapping].concat();
        let all: Vec<_> = mounts.iter().map(|mount| (mount.guest.as_str(), mount.access)).collect();
        assert_eq!(all, [("/b", Access::ReadOnly), ("/d", Access::ReadWrite), ("/f", Access::ReadWrite)]);
        assert_eq!(run.settings.max_written, Some(1 << 30));
    }

    #[test]
    fn bad_values_name_the_option() {
        for (words, parts) in [
            (&["-m", "1M", "img"], ["--memory <SIZE>", "16 MiB"]),
            (&["-m", "x", "img"], ["--memory <SIZE>", "not a size"]),
            (&["-c", "0", "img"], ["--cpus <N>", "1 to 16"]),
            (&["-c", "17", "img"], ["--cpus <N>", "1 to 16"]),
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
