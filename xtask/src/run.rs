//! `cargo xtask run`: boots a guest with our own `vmm`, wherever that can be done.

use std::process::Command;

use anyhow::{Context, Result};

use crate::guest_words::{self, Words};
use crate::lab::{self, forward};
use crate::platform::Platform;
use crate::{build, kernels};

/// `cargo xtask run`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "cargo xtask run [--release] [--lab] [--timeout SECONDS] [OPTIONS OF vmm run] [IMAGE [--] [ARGS]...]"
)]
pub(crate) struct Args {
    /// Kill the guest after this many seconds; stands before the words of `vmm run`
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Run the guest in the lab, on real KVM, also where the processor in software would do
    #[arg(long)]
    lab: bool,
    /// Build the vmm that ships, target/release/vmm, and not one that is quick to build
    #[arg(long)]
    release: bool,
    /// The words of `vmm run`: options, an image and its arguments. Without an image, a demo guest
    /// that is built from source
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    words: Vec<String>,
}

/// Runs the guest; its exit code is the result.
pub(crate) fn main(args: Args) -> Result<i32> {
    let platform = if args.lab { Platform::Lab } else { Platform::Hardware };
    guest_words::ensure_image_may_exist(&args.words)?;
    let vmm = if args.release { build::vmm()? } else { build::quick_vmm()? };
    let (options, is_demo) = match guest_words::check(&vmm, &args.words)? {
        Words::Wrong(code) => return Ok(code),
        Words::Image(at) => (args.words.get(..at).unwrap_or_default(), false),
        Words::NoImage => (&args.words[..], true),
    };
    let port = match platform {
        Platform::Lab => forward::debugger(options)?,
        Platform::Hardware => None,
    };
    let build_demo = || kernels::build_one("hello").map(|path| path.display().to_string());
    let image = is_demo.then(build_demo).transpose()?;
    let words = ["run".to_owned()].into_iter().chain(args.words).chain(image);
    match platform {
        Platform::Lab => lab::main(lab::Args::for_vmm(vmm, words, args.timeout, port)),
        Platform::Hardware => {
            // In the foreground: the guest has our terminal.
            let seconds = args.timeout.to_string();
            let status = Command::new("timeout")
                .args(["--foreground", &seconds])
                .arg(vmm)
                .args(words)
                .status();
            let status = status.context("cannot run timeout (package coreutils)")?;
            let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
            Ok(status.code().unwrap_or(128 + signal))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: super::Args,
    }

    #[test]
    fn words_are_those_of_vmm_run() {
        let words = |text: &str| {
            let cli =
                Cli::try_parse_from(["run"].into_iter().chain(text.split_whitespace())).unwrap();
            (cli.args.timeout, cli.args.words.join(" "))
        };
        assert_eq!(words("image a"), (600, "image a".to_owned()));
        assert_eq!(words("--timeout 5 -m 1G image -- -x"), (5, "-m 1G image -- -x".to_owned()));
        assert_eq!(words("image -- --timeout 3"), (600, "image -- --timeout 3".to_owned()));
        assert_eq!(words("-- -c 2 image"), (600, "-c 2 image".to_owned()));
        assert_eq!(words("--net user image"), (600, "--net user image".to_owned()));
        assert_eq!(words(""), (600, String::new()));
    }
}
