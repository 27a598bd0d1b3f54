use clap::Parser;
use nerite_machine::config::Output;

use nerite_machine::config::{CpuConfig, MemoryConfig};

use super::*;
use crate::cli::{Action, Cli};

fn run(args: &[&str]) -> RunArgs {
    match Cli::try_parse_from(["vmm", "run"].iter().chain(args)).unwrap().action {
        Action::Run(run) => *run,
        other => panic!("not a run: {other:?}"),
    }
}

/// Environment with these variables, and a home that has no configuration file.
fn around(variables: &[(&str, &str)]) -> Environment {
    let home = [("XDG_CONFIG_HOME", "/nonexistent")];
    let variables =
        home.iter().chain(variables).map(|(name, value)| (name.into(), value.into())).collect();
    Environment { variables, cpus: Some(vec![0, 1, 2, 3]) }
}

fn config(args: &[&str], variables: &[(&str, &str)]) -> Config {
    resolve(run(args), &around(variables)).unwrap().config
}

fn usage_error(args: &[&str], variables: &[(&str, &str)]) -> String {
    match resolve(run(args), &around(variables)).unwrap_err() {
        Error::Usage(reason) => reason,
        other => panic!("not a usage error: {other}"),
    }
}

/// A configuration file that lives as long as the guard.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn nothing_said_is_the_default() {
    let expected = Config { image: "img".into(), ..Config::default() };
    assert_eq!(config(&["img"], &[]), expected);
}

#[test]
fn everything_said_arrives() {
    let args = [
        "-m",
        "1G",
        "-c",
        "2",
        "-e",
        "A=1",
        "-o",
        "out",
        "--no-aslr",
        "--thp",
        "--ksm",
        "-a",
        "1,0",
        "--cpu-pm",
        "--pit",
        "-k",
        "-ip",
        "-k",
        "10.0.5.3",
        "img",
        "x",
        "y",
    ];
    let config = config(&args, &[]);
    assert_eq!(config.image, PathBuf::from("img"));
    let memory =
        MemoryConfig { size: Some(1 << 30), aslr: false, thp: true, ksm: true, hugepages: false };
    assert_eq!(config.memory, memory);
    let cpus = CpuConfig {
        count: Some(2),
        affinity: vec![1, 0],
        power_management: true,
        pit: true,
        ..CpuConfig::default()
    };
    assert_eq!(config.cpus, cpus);
    assert_eq!(config.guest.kernel_args, ["-ip", "10.0.5.3"]);
    assert_eq!(config.guest.app_args, ["x", "y"]);
    assert_eq!(config.guest.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(config.output, Output::File("out".into()));
}

#[test]
fn command_line_over_environment_over_file() {
    let file = file("[memory]\nsize = '16M'\n[cpu]\ncount = 1\n");
    let path = file.path().to_str().unwrap();
    let size = |args: &[&str], variables: &[(&str, &str)]| {
        config(args, variables).memory.size.map(|size| size >> 20)
    };
    let variables = [("HERMIT_MEMORY_SIZE", "32M"), ("HERMIT_CPU_COUNT", "3")];
    assert_eq!(size(&["--config", path, "img"], &[]), Some(16));
    assert_eq!(size(&["--config", path, "img"], &variables), Some(32));
    assert_eq!(size(&["--config", path, "-m", "64M", "img"], &variables), Some(64));
    assert_eq!(config(&["--config", path, "img"], &variables).cpus.count, Some(3));
    assert_eq!(config(&["--config", path, "-c", "4", "img"], &variables).cpus.count, Some(4));
}

#[test]
fn the_command_line_turns_off_what_the_file_turns_on() {
    let file = file(
        "[memory]\nno_aslr = true\nthp = true\nksm = true\n[cpu]\npit = true\ncpu_pm = true\n[guest]\noutput = 'none'",
    );
    let path = file.path().to_str().unwrap();
    let on = config(&["--config", path, "img"], &[]);
    assert_eq!((on.memory.aslr, on.memory.thp, on.memory.ksm), (false, true, true));
    assert_eq!((on.cpus.pit, on.cpus.power_management, on.output), (true, true, Output::None));
    let switches = [
        "--no-aslr=false",
        "--thp=false",
        "--ksm=false",
        "--pit=false",
        "--cpu-pm=false",
        "-o",
        "-",
    ];
    let off = config(&[&["--config", path], &switches[..], &["img"]].concat(), &[]);
    assert_eq!(off, Config { image: "img".into(), ..Config::default() });
}

#[test]
fn the_file_comes_from_the_command_line_the_environment_or_the_xdg_folder() {
    let (one, two) = (file("[memory]\nsize = '16M'"), file("[memory]\nsize = '32M'"));
    let (one, two) = (one.path().to_str().unwrap(), two.path().to_str().unwrap());
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("nerite")).unwrap();
    std::fs::write(folder.path().join("nerite/nerite.toml"), "[memory]\nsize = '48M'").unwrap();
    let xdg = folder.path().to_str().unwrap();
    let size = |args: &[&str], variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let environment = Environment { variables, cpus: Some(Vec::new()) };
        resolve(run(args), &environment).unwrap().config.memory.size.map(|size| size >> 20)
    };
    assert_eq!(
        size(&["--config", one, "img"], &[("HERMIT_CONFIG", two), ("XDG_CONFIG_HOME", xdg)]),
        Some(16)
    );
    assert_eq!(size(&["img"], &[("HERMIT_CONFIG", two), ("XDG_CONFIG_HOME", xdg)]), Some(32));
    assert_eq!(size(&["img"], &[("HERMIT_CONFIG", ""), ("XDG_CONFIG_HOME", xdg)]), Some(48));
}

#[test]
fn a_named_file_must_exist() {
    for (args, variables) in [
        (&["--config", "/nonexistent/a.toml", "img"][..], &[][..]),
        (&["img"][..], &[("HERMIT_CONFIG", "/nonexistent/a.toml")][..]),
    ] {
        let error = resolve(run(args), &around(variables)).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit_code::CONFIG_FILE);
        assert!(error.to_string().contains("/nonexistent/a.toml"), "{error}");
    }
}

#[test]
fn set_variables_win_over_the_hosts_and_the_last_over_the_first() {
    let file = file("[guest]\nenv = ['A=file', 'B=file', 'host']");
    let path = file.path().to_str().unwrap();
    let config = config(
        &["--config", path, "-e", "B=x", "-e", "B=y", "-e", "D=a=b", "img"],
        &[("A", "host"), ("C", "host")],
    );
    let env: Vec<_> =
        config.guest.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("XDG_CONFIG_HOME", "/nonexistent"),
        ("C", "host"),
        ("A", "file"),
        ("B", "y"),
        ("D", "a=b"),
    ];
    assert_eq!(env, expected);
}

#[test]
fn the_hosts_variables_stay_out_unless_asked_for() {
    assert_eq!(config(&["img"], &[("A", "host")]).guest.env, []);
}

#[test]
fn variables_that_are_not_text_are_left_out_with_a_warning() {
    use std::os::unix::ffi::OsStrExt;
    let mut environment = around(&[("C", "host")]);
    environment.variables.push(("BAD".into(), OsStr::from_bytes(b"\xff").to_owned()));
    let resolved = resolve(run(&["-e", "host", "img"]), &environment).unwrap();
    assert!(resolved.config.guest.env.iter().all(|(name, _)| name != "BAD"));
    assert_eq!(resolved.warnings.len(), 1, "{:?}", resolved.warnings);
    assert!(resolved.warnings[0].contains("BAD"));
}

#[test]
fn the_environment_is_checked_by_name() {
    for (name, value) in
        [("HERMIT_MEMORY_SIZE", "lots"), ("HERMIT_CPU_COUNT", "0"), ("HERMIT_MEMORY_SIZE", "1M")]
    {
        let error = usage_error(&["img"], &[(name, value)]);
        assert!(error.contains(name) && error.contains(&format!("`{value}`")), "{error}");
    }
    assert_eq!(config(&["img"], &[("HERMIT_MEMORY_SIZE", "")]).memory.size, None);
}

#[test]
fn an_affinity_must_fit_the_vcpus_and_the_host() {
    assert!(usage_error(&["-a", "0,1", "-c", "3", "img"], &[]).contains("2 host CPUs for 3 vCPUs"));
    assert!(usage_error(&["-a", "7", "img"], &[]).contains("host CPU 7"));
    assert_eq!(config(&["-a", "3,0", "img"], &[]).cpus.affinity, [3, 0]);
    let file = file("[cpu]\naffinity = [0, 9]\ncount = 2");
    let path = file.path().to_str().unwrap();
    let error = resolve(run(&["--config", path, "img"]), &around(&[])).unwrap_err();
    assert_eq!(error.exit_code(), crate::exit_code::CONFIG_FILE);
    assert!(
        error.to_string().contains("host CPU 9") && error.to_string().contains(path),
        "{error}"
    );
}

#[test]
fn contradictions_are_refused() {
    for other in ["--thp", "--ksm"] {
        let error = usage_error(&["--hugepages", other, "img"], &[]);
        assert!(error.contains("`hugepages`") && error.contains(&other[2..]), "{error}");
    }
    assert!(usage_error(&["-k", "--", "img"], &[]).contains("`--`"));
    assert!(usage_error(&[""], &[]).contains("empty"));
}

#[test]
fn arguments_must_be_text_but_the_image_may_be_any_path() {
    use std::os::unix::ffi::OsStrExt;
    let bad = OsStr::from_bytes(b"\xff");
    let mut args = run(&["img"]);
    args.image_and_args = vec![bad.to_owned()];
    assert_eq!(resolve(args, &around(&[])).unwrap().config.image, PathBuf::from(bad));
    let mut args = run(&["img"]);
    args.image_and_args = vec!["img".into(), bad.to_owned()];
    assert!(
        matches!(resolve(args, &around(&[])).unwrap_err(), Error::Usage(reason) if reason.contains("\\xFF"))
    );
}

#[test]
fn a_crash_and_the_processors_are_the_command_lines_before_the_files() {
    use nerite_machine::config::{Irqchip, MsrPolicy, OnCrash};
    let file = file("[cpu]\nmsr = \"ignore\"\nirqchip = \"user\"\n[guest]\non_crash = \"dump\"\n");
    let path = file.path().to_str().unwrap();
    let from_file = config(&["--config", path, "a/img"], &[]);
    assert_eq!((from_file.cpus.msr, from_file.cpus.irqchip), (MsrPolicy::Ignore, Irqchip::User));
    assert_eq!(from_file.observe.on_crash, OnCrash::Dump("img.core".into()));
    let words =
        ["--config", path, "--msr", "report", "--irqchip", "kernel", "--on-crash", "report", "img"];
    let from_line = config(&words, &[]);
    assert_eq!((from_line.cpus.msr, from_line.cpus.irqchip), (MsrPolicy::Report, Irqchip::Kernel));
    assert_eq!(from_line.observe.on_crash, OnCrash::Report);
    // GDB can come to a crash as if the option had been given.
    let gdb = self::file("[guest]\non_crash = \"gdb:1234\"\n");
    let run = run(&["--config", gdb.path().to_str().unwrap(), "img"]);
    let resolved = resolve(run, &around(&[])).unwrap();
    assert!(resolved.options.debugger().is_some() && resolved.config.observe.debug.is_some());
}

#[test]
fn counted_instructions_have_the_virtual_clock_unless_another_is_set() {
    use nerite_machine::config::Clock;
    let clock = |words: &[&str]| {
        let config = config(words, &[]);
        (config.cpus.clock, config.observe.count)
    };
    assert_eq!(clock(&["img"]), (Clock::Host, false));
    assert_eq!(clock(&["--count", "img"]), (Clock::Virtual, true));
    assert_eq!(clock(&["--count=file", "--clock", "host", "img"]), (Clock::Host, true));
    let file = file("[cpu]\nclock = \"virtual\"\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(clock(&["--config", path, "img"]), (Clock::Virtual, false));
    assert_eq!(clock(&["--config", path, "--clock", "host", "img"]), (Clock::Host, false));
}
