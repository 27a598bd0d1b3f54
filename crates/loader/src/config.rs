//! `hermit.toml`, the configuration of a Hermit image.

use hermit_entry::config::Config;

use crate::{Error, text};

/// Where the configuration is in the archive.
pub(crate) const NAME: &str = Config::DEFAULT_PATH;
/// Larger configurations are refused.
const MAX_SIZE: usize = 1 << 20;

/// What an image asks for. Command line and environment win over it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// Name of the kernel in the archive.
    pub kernel: String,
    /// Arguments of the kernel.
    pub kernel_args: Vec<String>,
    /// Arguments of the application, after its name.
    pub app_args: Vec<String>,
    /// Environment variables, `NAME=value`.
    pub env_vars: Vec<String>,
    /// The least memory it needs, in bytes, if it says.
    pub memory: Option<u64>,
    /// The fewest vCPUs it needs, if it says.
    pub cpus: Option<u32>,
}

impl ImageConfig {
    /// Parses a `hermit.toml`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_SIZE {
            return Err(problem(bytes, None, &format!("larger than {MAX_SIZE} bytes")));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| problem(bytes, Some(error.valid_up_to()), "not UTF-8"))?;
        let config: Config<'_> = toml::from_str(text)
            .map_err(|error| problem(bytes, error.span().map(|span| span.start), error.message()))?;
        let Config::V1 { input, requirements, kernel } = config;
        let owned = |texts: Vec<std::borrow::Cow<'_, str>>| texts.into_iter().map(Into::into).collect();
        Ok(Self {
            kernel: kernel.into_owned(),
            kernel_args: owned(input.kernel_args),
            app_args: owned(input.app_args),
            env_vars: owned(input.env_vars),
            memory: requirements.memory.map(|memory| memory.as_u64()),
            cpus: (requirements.cpus != 0).then_some(requirements.cpus),
        })
    }
}

/// An error at a byte offset, or in the first line if it has no place.
fn problem(bytes: &[u8], offset: Option<usize>, problem: &str) -> Error {
    let before = bytes.get(..offset.unwrap_or(0)).unwrap_or(bytes);
    let line = before.iter().filter(|&&byte| byte == b'\n').count().saturating_add(1);
    Error::Config { line, problem: text::printable(problem.as_bytes()) }
}
