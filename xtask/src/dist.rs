//! `cargo xtask dist`: what a package of `vmm` is made of, in `target/dist`: the stripped program, shell completions and
//! man pages.
//!
//! Only this command needs vmm's parser. So that the others do not wait for all of vmm to be built, it is a feature of
//! xtask, and without it this builds another xtask that has it.

use anyhow::Result;

#[cfg(not(feature = "dist"))]
pub(crate) fn main() -> Result<()> {
    let mut command = crate::build::cargo();
    command.args(["run", "--quiet", "--package", "xtask", "--features", "dist", "--target-dir"]);
    command.arg(crate::paths::target()).args(["--", "dist"]);
    crate::build::run(&mut command, "shell completions and man pages")
}

#[cfg(feature = "dist")]
pub(crate) fn main() -> Result<()> {
    use std::fs;
    use std::process::Command;

    use anyhow::{Context, ensure};
    use clap_complete::Shell;

    use crate::{build, paths, progress};

    let folder = paths::target().join("dist");
    let (completions, man) = (folder.join("completions"), folder.join("man"));
    for folder in [&completions, &man] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut nerite_vmm::cli::command(), "vmm", &completions)
            .with_context(|| format!("cannot write completions for {shell}"))?;
    }
    clap_mangen::generate_to(nerite_vmm::cli::command(), &man).context("cannot write man pages")?;
    let program = folder.join("vmm");
    fs::copy(build::vmm()?, &program).with_context(|| format!("cannot write {}", program.display()))?;
    let status = Command::new("strip").arg(&program).status();
    let status = status.context("cannot run strip (package binutils, which comes with a C compiler)")?;
    ensure!(status.success(), "strip failed on {}", program.display());
    progress::say(&format!("{} holds vmm, completions and man pages", folder.display()));
    Ok(())
}
