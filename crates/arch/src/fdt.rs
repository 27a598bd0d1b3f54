//! The device tree (FDT) a Hermit guest reads its memory map and its arguments from (Devicetree
//! Specification 0.4).

use vm_fdt::{FdtReserveEntry, FdtWriter};

use crate::Error;

/// Contents of the device tree. Everything but memory is optional.
///
/// ```
/// use nerite_arch::fdt::Builder;
///
/// let blob = Builder::new()
///     .memory(0x1_0000_0000, 64 << 20)
///     .cpus(2)
///     .tsc_khz(2_400_000)
///     .kernel_args(["-ip", "10.0.5.3"])
///     .env("GREETING", "it's me")
///     .app_args(["--verbose", "two words", ""])
///     .finish()?;
/// assert_eq!(blob[..4], [0xd0, 0x0d, 0xfe, 0xed]);
/// # Ok::<(), nerite_arch::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Builder {
    memory: Vec<(u64, u64)>,
    cpus: u32,
    tsc_khz: Option<u32>,
    kernel_args: Vec<String>,
    env: Vec<(String, String)>,
    app_args: Vec<String>,
    initrd: Option<(u64, u64)>,
    mounts: Vec<String>,
}

impl Builder {
    /// An empty device tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `size` bytes of RAM at the guest-physical address `start`.
    #[must_use]
    pub fn memory(mut self, start: u64, size: u64) -> Self {
        self.memory.push((start, size));
        self
    }

    /// Sets the number of CPUs.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// Sets the frequency of the time-stamp counter in kHz.
    #[must_use]
    pub fn tsc_khz(mut self, khz: u32) -> Self {
        self.tsc_khz = Some(khz);
        self
    }

    /// Adds arguments of the kernel, such as `-ip` and its value, each a word of its own.
    #[must_use]
    pub fn kernel_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.kernel_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable. The guest takes the last of those with the same name.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Adds arguments of the application. They reach it exactly as they are.
    #[must_use]
    pub fn app_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.app_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets where the files of a Hermit image lie: `size` bytes at the guest-physical address
    /// `start`. The range is also reserved, so that the guest does not use it as free memory.
    #[must_use]
    pub fn initrd(mut self, start: u64, size: u64) -> Self {
        self.initrd = Some((start, size));
        self
    }

    /// Adds paths under which the guest finds files of the host.
    #[must_use]
    pub fn mounts<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.mounts.extend(paths.into_iter().map(Into::into));
        self
    }

    /// The kernel's command line: the kernel's arguments, the environment, then `--` and the
    /// application's arguments, each quoted so that splitting it like a shell gives them back.
    ///
    /// # Errors
    ///
    /// If a string holds a NUL, a kernel argument is `--`, or the name of a variable is empty or
    /// holds `=`.
    pub fn bootargs(&self) -> Result<String, Error> {
        let mut words = Vec::new();
        for arg in &self.kernel_args {
            if arg == "--" {
                return Err(Error::KernelArgument);
            }
            words.push(quote("kernel argument", arg)?);
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(Error::EnvironmentName { name: name.clone() });
            }
            words.push(quote("environment variable", &format!("env={name}={value}"))?);
        }
        if !self.app_args.is_empty() {
            words.push("--".to_owned());
        }
        for arg in &self.app_args {
            words.push(quote("argument", arg)?);
        }
        Ok(words.join(" "))
    }

    /// The device tree as bytes, to be placed at an address that is a multiple of 8.
    ///
    /// # Errors
    ///
    /// Those of [`Self::bootargs`], or if it becomes too large or the initrd's range is empty or
    /// wraps.
    pub fn finish(&self) -> Result<Vec<u8>, Error> {
        for path in &self.mounts {
            if path.contains('\0') {
                return Err(Error::Nul { what: "mount path", text: path.clone() });
            }
        }
        let bootargs = self.bootargs()?;
        self.write(&bootargs).map_err(|error| Error::DeviceTree(error.to_string()))
    }

    /// A size in bytes that [`Self::finish`] does not exceed, wherever memory and the initrd are
    /// placed later, in up to two regions of memory: for laying out memory before its addresses are
    /// known.
    ///
    /// # Errors
    ///
    /// Those of [`Self::finish`].
    pub fn size_bound(&self) -> Result<u64, Error> {
        let mut widest = self.clone();
        // The longest names and one more reservation are what addresses can add.
        widest.memory = vec![(u64::MAX, 0); self.memory.len().max(2)];
        widest.initrd = Some((u64::MAX - 1, 1));
        Ok(widest.finish()?.len() as u64)
    }

    fn write(&self, bootargs: &str) -> Result<Vec<u8>, vm_fdt::Error> {
        let reserved =
            self.initrd.map(|(start, size)| FdtReserveEntry::new(start, size)).transpose()?;
        let mut fdt = FdtWriter::new_with_mem_reserv(reserved.as_slice())?;
        let root = fdt.begin_node("")?;
        fdt.property_string("compatible", "hermit,uhyve")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        for &(start, size) in &self.memory {
            let node = fdt.begin_node(&format!("memory@{start:x}"))?;
            fdt.property_string("device_type", "memory")?;
            fdt.property_array_u64("reg", &[start, size])?;
            fdt.end_node(node)?;
        }
        self.write_cpus(&mut fdt)?;
        if let Some(khz) = self.tsc_khz {
            let node = fdt.begin_node("hermit,tsc")?;
            fdt.property_u32("khz", khz)?;
            fdt.end_node(node)?;
        }
        if !self.mounts.is_empty() {
            let node = fdt.begin_node("uhyve,mounts")?;
            fdt.property_string_list("mounts", self.mounts.clone())?;
            fdt.end_node(node)?;
        }
        let chosen = fdt.begin_node("chosen")?;
        fdt.property_string("bootargs", bootargs)?;
        if let Some((start, size)) = self.initrd {
            fdt.property_u64("linux,initrd-start", start)?;
            fdt.property_u64("linux,initrd-end", start.saturating_add(size))?;
        }
        fdt.end_node(chosen)?;
        fdt.end_node(root)?;
        fdt.finish()
    }

    fn write_cpus(&self, fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
        if self.cpus == 0 {
            return Ok(());
        }
        let cpus = fdt.begin_node("cpus")?;
        fdt.property_u32("#address-cells", 1)?;
        fdt.property_u32("#size-cells", 0)?;
        for index in 0..self.cpus {
            let node = fdt.begin_node(&format!("cpu@{index:x}"))?;
            fdt.property_string("device_type", "cpu")?;
            fdt.property_u32("reg", index)?;
            fdt.end_node(node)?;
        }
        fdt.end_node(cpus)
    }
}

fn quote(what: &'static str, word: &str) -> Result<String, Error> {
    let nul = |_| Error::Nul { what, text: word.to_owned() };
    Ok(shlex::try_quote(word).map_err(nul)?.into_owned())
}

#[cfg(test)]
#[path = "fdt_test.rs"]
mod tests;
