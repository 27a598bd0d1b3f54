//! Programs that run `vmm` with further options, for tests that know only its path.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths;

/// Writes a program of this name that does what `vmm` does, but `run` with `options`, after the
/// shell commands `before`, each of which ends its line.
pub(crate) fn write(name: &str, vmm: &Path, before: &str, options: &str) -> Result<PathBuf> {
    let path = paths::target().join(name);
    let vmm = shlex::try_quote(vmm.to_str().context("the path of vmm is not UTF-8")?)?.into_owned();
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in\nrun) shift\n{before}exec {vmm} run {options} \"$@\" ;;\n\
         *) exec {vmm} \"$@\" ;;\nesac\n"
    );
    fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_run_gets_the_options() {
        let path = write("wrapper-test", Path::new("/bin/echo"), "word=b\n", "--a $word").unwrap();
        let said = |words: &[&str]| {
            // Another thread may start a program while the script is open for writing.
            let output = Command::new("/bin/sh").arg(&path).args(words).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(said(&["run", "image", "x y"]), "run --a b image x y\n");
        assert_eq!(said(&["ctl", "socket"]), "ctl socket\n");
        fs::remove_file(path).unwrap();
    }
}
