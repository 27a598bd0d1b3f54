//! `cargo xtask run`: boots a guest with our own `vmm`, wherever that can be done.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::platform::Platform;
use crate::{build, kernels, lab};

/// `cargo xtask run`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "cargo xtask run [--timeout SECONDS] [IMAGE] [-- VMM_OPTIONS... [IMAGE [ARGS...]]]"
)]
pub(crate) struct Args {
    /// Kill the guest after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// The image to boot; without one, a demo guest that is built from source
    image: Option<String>,
    /// Options of `vmm run`; an image and its arguments may follow
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Runs the guest; its exit code is the result.
pub(crate) fn main(args: Args) -> Result<i32> {
    let platform = Platform::choose();
    let image = match args.image {
        Some(image) => Some(image),
        None if args.rest.iter().any(|word| is_image(Path::new(word))) => None,
        None => Some(kernels::build_one("hello")?.display().to_string()),
    };
    let words = ["run".to_owned()].into_iter().chain(args.rest).chain(image);
    match platform {
        Platform::Lab => {
            let command = ["vmm".to_owned()].into_iter().chain(words).collect();
            lab::main(lab::Args::for_command(command, args.timeout))
        }
        Platform::Hardware => {
            // In the foreground: the guest has our terminal.
            let vmm = build::vmm()?;
            let seconds = args.timeout.to_string();
            let status =
                Command::new("timeout").args(["--foreground", &seconds]).arg(vmm).args(words).status();
            let status = status.context("cannot run timeout (package coreutils)")?;
            let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
            Ok(status.code().unwrap_or(128 + signal))
        }
    }
}

/// Whether the file is a guest: an ELF file or something compressed with gzip. Options have other values.
fn is_image(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && (magic == *b"\x7fELF" || magic.starts_with(&[0x1f, 0x8b]))
}
