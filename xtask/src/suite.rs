//! The list of guest tests, `tests/kernels/suite.toml`: what to run and what must come of it.

mod judge;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::exec;
use crate::goes_on;
use crate::hermit;
use crate::job::{Job, Kill};
use crate::kernels::{self, Tar};
use crate::linux;
use crate::net_peer::{self, Link};
use crate::platform::Tools;

/// The file `suite.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    /// The tests, in the order in which they run.
    #[serde(rename = "test")]
    pub(crate) tests: Vec<Test>,
}

/// One run of one guest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    /// Unique.
    pub(crate) name: String,
    /// The binary in `tests/kernels` to boot.
    image: String,
    /// If there, the kernel is packed into a Hermit image tar with these settings.
    tar: Option<Tar>,
    /// Options of `vmm run` before the image.
    #[serde(default)]
    options: Vec<String>,
    /// A network card, and what the host does with it.
    net: Option<Net>,
    /// Arguments of the guest.
    #[serde(default)]
    args: Vec<String>,
    /// A shell script to run instead of the guest, for what has to be looked at from outside; `$1`
    /// is `vmm`, `$2` the image.
    script: Option<String>,
    /// Environment variables of the `vmm` process.
    #[serde(default)]
    env: std::collections::BTreeMap<String, String>,
    /// Text on standard input.
    #[serde(default)]
    stdin: String,
    /// `true` if standard input stays open after that.
    #[serde(default)]
    stdin_open: bool,
    /// Expected exit code of `vmm`.
    #[serde(default)]
    exit: i32,
    /// Texts that standard output must contain.
    #[serde(default)]
    stdout: Vec<String>,
    /// Further ones, on KVM.
    #[serde(default)]
    pub(crate) kvm_stdout: Vec<String>,
    /// Further ones, on the processor in software.
    #[serde(default)]
    pub(crate) software_stdout: Vec<String>,
    /// All of standard output, to the byte.
    stdout_exact: Option<String>,
    /// Texts that standard error must contain.
    #[serde(default)]
    stderr: Vec<String>,
    /// Texts that neither stream may contain.
    #[serde(default)]
    absent: Vec<String>,
    /// Seconds after which it hangs, whatever the host is doing.
    #[serde(default = "default_timeout")]
    timeout: u64,
    /// A signal to send to `vmm`.
    kill: Option<Kill>,
    /// The most lines on standard error.
    max_stderr_lines: Option<usize>,
    /// Reason for which the test runs on hardware KVM only.
    pub(crate) hardware_only: Option<String>,
    /// Reason why the test cannot run on the processor in software.
    pub(crate) kvm_only: Option<String>,
    /// Reason why the test cannot run on this host, on which the processor in software runs guests.
    pub(crate) not_on_host: Option<String>,
    /// `true` if it changes the network or mounts something, so that on this host it runs in
    /// namespaces of its own.
    #[serde(default)]
    namespaces: bool,
    /// `true` if it boots the real Hermit kernel, which takes minutes to build.
    #[serde(skip)]
    pub(crate) hermit: bool,
    /// `true` if its guest is not Hermit, and comes from Debian.
    #[serde(skip)]
    pub(crate) linux: bool,
}

/// A network card of a test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Net {
    /// Link by which it is connected.
    link: Link,
    /// Further options of `--net`.
    #[serde(default)]
    options: String,
    /// Exercises of the host.
    exercises: Vec<String>,
}

impl Net {
    /// The command that runs `vmm` with the card; this program does the host's part.
    fn wrap(&self, vmm: &[String], tools: &Tools) -> Vec<String> {
        let link = match self.link {
            Link::Tap => "tap",
            Link::Vhost => "vhost",
            Link::User => "user",
            Link::Offline => "offline",
            Link::Fd => "fd",
        };
        let mut command: Vec<String> =
            vec![tools.xtask.clone(), "net-peer".into(), "--link".into(), link.into()];
        if self.link == Link::Fd {
            command.push(format!("--opener={}", tools.host));
        }
        command.push(format!("--options={}", self.options));
        command.extend(self.exercises.iter().map(|exercise| format!("--exercise={exercise}")));
        command.push("--".to_owned());
        let (program, rest) = vmm.split_at(2);
        command.extend_from_slice(program);
        command.extend(["--net".to_owned(), net_peer::PLACE.to_owned()]);
        command.extend_from_slice(rest);
        command
    }
}

/// Placeholder of the image's folder in options and scripts. Files that are named by it are the
/// job's.
const FOLDER: &str = "{folder}";

/// Seconds that a reset of the card and an echo after it may take, on average.
const RESET_TIME: u64 = 5;

fn default_timeout() -> u64 {
    300
}

impl Suite {
    /// Reads the suite of this repository.
    pub(crate) fn load() -> Result<Self> {
        Self::read("suite.toml")
    }

    /// Reads the hostile guests.
    pub(crate) fn load_hostile() -> Result<Self> {
        Self::read("hostile.toml")
    }

    fn read(name: &str) -> Result<Self> {
        let path = kernels::source().join(name);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("bad test suite {}", path.display()))
    }

    /// Reads the tests of the real Hermit kernel.
    pub(crate) fn load_hermit() -> Result<Self> {
        let mut suite =
            Self::parse(&hermit::suite()?).context("bad test suite tests/hermit-app/suite.toml")?;
        suite.tests.iter_mut().for_each(|test| test.hermit = true);
        Ok(suite)
    }

    /// Reads the tests of guests that are not Hermit.
    pub(crate) fn load_linux() -> Result<Self> {
        let mut suite =
            Self::parse(&linux::suite()?).context("bad test suite tests/linux/suite.toml")?;
        suite.tests.iter_mut().for_each(|test| test.linux = true);
        Ok(suite)
    }

    fn parse(text: &str) -> Result<Self> {
        let suite: Self = toml::from_str(text)?;
        let mut names: Vec<&str> = suite.tests.iter().map(|test| test.name.as_str()).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            ensure!(pair[0] != pair[1], "two tests are called {}", pair[0]);
        }
        for test in &suite.tests {
            let checks =
                !test.stdout.is_empty() || test.stdout_exact.is_some() || !test.stderr.is_empty();
            ensure!(
                checks,
                "the test {} looks at no output, so it would pass without its guest",
                test.name
            );
            if let Some(kill) = &test.kill {
                let known = exec::signal_named(&kill.signal).is_some();
                ensure!(known, "the test {} sends an unknown signal, {}", test.name, kill.signal);
            }
        }
        Ok(suite)
    }
}

impl Test {
    /// Returns the job, with the kernels in the folder `kernels`; packs the image if the test
    /// asks for it. `tools` are our programs where guests run.
    pub(crate) fn job(
        &self,
        vmm: &Path,
        kernels: &Path,
        images: &Path,
        tools: &Tools,
    ) -> Result<Job> {
        let in_folder = |text: &str| text.replace(FOLDER, &kernels.display().to_string());
        let kernel = kernels.join(&self.image);
        let image = match &self.tar {
            None => kernel,
            Some(tar) => {
                let image = images.join(format!("{}.hermit", self.name.replace('/', "_")));
                tar.pack(&kernel, &image).with_context(|| format!("test {}", self.name))?;
                image
            }
        };
        ensure!(image.is_file(), "the test {} names an unknown image, {}", self.name, self.image);
        let mut command = vec![vmm.display().to_string(), "run".to_owned()];
        command.extend(self.options.iter().map(|option| in_folder(option)));
        command.push(image.display().to_string());
        if !self.args.is_empty() {
            command.push("--".to_owned());
            command.extend_from_slice(&self.args);
        }
        if let Some(script) = &self.script {
            let script = in_folder(&goes_on::expand(script)?);
            let words = ["/bin/sh", "-c", &script, "sh"].map(str::to_owned);
            command = words
                .into_iter()
                .chain([vmm.display().to_string(), image.display().to_string()])
                .collect();
        }
        let mut files = vec![vmm.to_owned(), image];
        files.extend(self.beside_the_image().map(|name| kernels.join(name)));
        if let Some(net) = &self.net {
            command = net.wrap(&command, tools);
        }
        Ok(Job {
            port: None,
            name: self.name.clone(),
            command,
            dir: None,
            own_folder: self.makes_files(),
            stdin: self.stdin.clone(),
            stdin_file: None,
            stdin_open: self.stdin_open,
            timeout: self.timeout.saturating_add(goes_on::patience()),
            files,
            kill: self.kill.clone(),
            env: self.env.clone().into_iter().chain(goes_on::count()).collect(),
        })
    }

    /// Names of files in the image's folder that options and script name.
    fn beside_the_image(&self) -> impl Iterator<Item = &str> {
        let texts = self.options.iter().chain(&self.script);
        texts.flat_map(|text| text.split(FOLDER).skip(1)).filter_map(|rest| {
            let name = rest.strip_prefix('/')?;
            name.split(|end: char| end.is_whitespace() || ",;\"'".contains(end)).next()
        })
    }

    /// Reason why the test cannot run on the processor in software, if there is one.
    pub(crate) fn kvm_only(&self) -> Option<&str> {
        if self.link() == Some(Link::Vhost) {
            return Some("vhost needs KVM");
        }
        self.kvm_only.as_deref()
    }

    /// `true` if an option or the script has this word.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        let script = self.script.as_deref().unwrap_or_default();
        script.contains(word) || self.options.iter().any(|option| option.starts_with(word))
    }

    /// Link of its network card, if `net` has one.
    pub(crate) fn link(&self) -> Option<Link> {
        self.net.as_ref().map(|net| net.link)
    }

    /// `true` if it makes files in its working directory.
    fn makes_files(&self) -> bool {
        let mounts = |option: &String| option.trim_start_matches("--mount=").starts_with(".:");
        self.script.is_some() || self.net.is_some() || self.options.iter().any(mounts)
    }

    /// `true` if on this host it runs in namespaces of its own.
    pub(crate) fn wants_namespaces(&self) -> bool {
        self.namespaces || matches!(self.link(), Some(Link::Tap | Link::Fd | Link::Offline))
    }

    /// The same guest whose card is reset so many times, in traffic, and nothing else; `None` if
    /// the test has no such exercise.
    pub(crate) fn with_resets(&self, count: usize) -> Option<Self> {
        let mut test = self.clone();
        let net = test.net.as_mut()?;
        net.exercises.iter().find(|exercise| exercise.starts_with("reset="))?;
        let reset = format!("reset={count}");
        test.stdout.retain(|text| !text.contains("host: "));
        test.stdout.push(format!("host: {reset}: ok"));
        net.exercises = vec![reset];
        test.timeout = test.timeout.saturating_add((count as u64).saturating_mul(RESET_TIME));
        Some(test)
    }

    /// The same test, with further texts that standard output must contain.
    pub(crate) fn expecting(&self, stdout: &[String]) -> Self {
        let mut test = self.clone();
        test.stdout.extend_from_slice(stdout);
        test
    }

    /// The same test for a guest that is handed over all the time: with any number of lines on
    /// standard error, and Linux with the options that docs/control.md names.
    pub(crate) fn handed_over(&self) -> Self {
        let mut test = Self { max_stderr_lines: None, ..self.clone() };
        if test.linux {
            for text in test.options.iter_mut().chain(&mut test.script) {
                *text = text.replace(" quiet ", " quiet noxsave no_timer_check ");
            }
        }
        test
    }

    /// The same test for a `vmm` with AddressSanitizer, which cannot be confined.
    pub(crate) fn sanitized(&self) -> Self {
        let mut test = self.clone();
        test.name = format!("{} (AddressSanitizer)", self.name);
        test.options.splice(0..0, ["--sandbox".to_owned(), "off".to_owned()]);
        test
    }
}

#[cfg(test)]
#[path = "suite_test.rs"]
mod tests;
