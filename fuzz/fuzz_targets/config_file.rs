//! Any text as a configuration file, merged with a command line.
#![no_main]

use std::ffi::OsString;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;

use clap::Parser as _;
use nerite_vmm::cli::{Action, Cli};
use nerite_vmm::config_file;
use nerite_vmm::resolve::{self, Environment};

libfuzzer_sys::fuzz_target!(|input: (&str, Vec<(String, String)>)| {
    let (text, variables) = input;
    let path = std::path::Path::new("nerite.toml");
    let loaded = config_file::parse(path, text);
    if let Err(error) = &loaded {
        assert!(!error.to_string().is_empty());
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let Action::Run(run) =
        Cli::try_parse_from(["vmm", "run", "--config", &path, "-e", "host", "-m", "32M", "image"])
            .unwrap()
            .action
    else {
        panic!("it is `run`")
    };
    let variables: Vec<(OsString, OsString)> =
        variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let resolved = resolve::resolve(*run, &Environment { variables, cpus: Some(vec![0, 1, 2, 3]) });
    let Ok(resolved) = resolved else { return };
    // What cannot be read alone is not merged either, and the command line wins.
    assert!(loaded.is_ok());
    assert_eq!(resolved.config.memory.size, Some(32 << 20));
    let env = &resolved.config.guest.env;
    let names: std::collections::HashSet<_> = env.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), env.len(), "each name once");
});
