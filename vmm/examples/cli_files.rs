//! Writes what a package of `vmm` has beside the program, all made from its command line: shell
//! completions and man pages.
//!
//!     cargo run -p nerite-vmm --example cli_files -- FOLDER
//!
//! An example, so that neither `vmm` nor what builds it carries what makes them.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;
use nerite_vmm::cli;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("which folder? pass its path")?);
    let (completions, man) = (folder.join("completions"), folder.join("man"));
    for folder in [&completions, &man] {
        fs::create_dir_all(folder)
            .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut cli::command(), "vmm", &completions)
            .map_err(|error| format!("cannot write completions for {shell}: {error}"))?;
    }
    clap_mangen::generate_to(cli::command(), &man)
        .map_err(|error| format!("cannot write man pages: {error}"))?;
    Ok(())
}
