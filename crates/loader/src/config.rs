//! `hermit.toml`, the configuration of a Hermit image.

use hermit_entry::config::{Config, Input, Requirements};
use serde::Deserialize as _;
use toml::de::{DeTable, ValueDeserializer};

use crate::{Error, text};

/// Path of the configuration in the archive.
pub(crate) const NAME: &str = Config::DEFAULT_PATH;
/// Largest configuration in bytes. A parsed one takes some 60 times as much memory.
const MAX_SIZE: usize = 256 << 10;

/// Wishes of an image. Command line and environment override them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// Name of the kernel in the archive.
    pub kernel: String,
    /// Arguments of the kernel.
    pub kernel_args: Vec<String>,
    /// Arguments of the application, after its name.
    pub app_args: Vec<String>,
    /// Environment variables as they are given, which should be `NAME=value`: see [`Self::env`].
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
        let config: Config<'_> = toml::from_str(text).map_err(|error| explain(text, &error))?;
        let Config::V1 { input, requirements, kernel } = config;
        let owned =
            |texts: Vec<std::borrow::Cow<'_, str>>| texts.into_iter().map(Into::into).collect();
        let config = Self {
            kernel: kernel.into_owned(),
            kernel_args: owned(input.kernel_args),
            app_args: owned(input.app_args),
            env_vars: owned(input.env_vars),
            memory: requirements.memory.map(|memory| memory.as_u64()),
            cpus: (requirements.cpus != 0).then_some(requirements.cpus),
        };
        config.check().map_err(|what| problem(bytes, None, what))?;
        Ok(config)
    }

    /// The environment variables as names and values, in order; what is not `NAME=value` is left
    /// out.
    pub fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env_vars.iter().filter_map(|text| assignment(text))
    }

    /// Checks for text that TOML can express and a guest cannot receive: its strings end at the
    /// first NUL.
    fn check(&self) -> Result<(), &'static str> {
        let texts = [&self.kernel_args, &self.app_args, &self.env_vars];
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            return Err("an argument or environment variable has a NUL character");
        }
        Ok(())
    }
}

/// Name and value of an environment variable.
pub(crate) fn assignment(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(name, _)| !name.is_empty())
}

/// An error of the TOML parser, with its line where that can be found.
fn explain(text: &str, error: &toml::de::Error) -> Error {
    let bytes = text.as_bytes();
    if let Some(span) = error.span().filter(|span| !span.is_empty() || span.start > 0) {
        return problem(bytes, Some(span.start), error.message());
    }
    // A type chosen by a tag, as hermit-entry's is, loses the places of its fields. So look at them
    // one by one.
    match locate(text) {
        Some((offset, what)) => problem(bytes, Some(offset), &what),
        None => problem(bytes, None, error.message()),
    }
}

/// Byte offset and description of the first field with a value that does not fit.
fn locate(text: &str) -> Option<(usize, String)> {
    let table = DeTable::parse(text).ok()?;
    table.into_inner().into_iter().find_map(|(key, value)| {
        let span = value.span();
        let error = match key.get_ref().as_ref() {
            "kernel" => String::deserialize(ValueDeserializer::from(value)).err(),
            "input" => Input::deserialize(ValueDeserializer::from(value)).err(),
            "requirements" => Requirements::deserialize(ValueDeserializer::from(value)).err(),
            _ => None,
        }?;
        Some((error.span().unwrap_or(span).start, error.message().to_owned()))
    })
}

/// An error at a byte offset, if it has one.
fn problem(bytes: &[u8], offset: Option<usize>, problem: &str) -> Error {
    let line = offset.map(|offset| {
        let before = bytes.get(..offset).unwrap_or(bytes);
        before.iter().filter(|&&byte| byte == b'\n').count().saturating_add(1)
    });
    Error::Config { line, problem: text::printable(problem.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "version = \"1\"\nkernel = \"app\"\n\n[input]\nkernel_args = []\napp_args = []\n";

    fn error(text: &str) -> String {
        ImageConfig::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn minimal() {
        let config = ImageConfig::parse(MINIMAL.as_bytes()).unwrap();
        assert_eq!(config, ImageConfig { kernel: "app".into(), ..ImageConfig::default() });
    }

    #[test]
    fn everything() {
        let text = r#"
            version = "1"
            kernel = "/bin/app"
            unknown = true
            [input]
            kernel_args = ["-ip", "10.0.5.3"]
            app_args = ["a b", "", "gr\u00fcn"]
            env_vars = ["A=1", "B="]
            [requirements]
            memory = "32 MiB"
            cpus = 2
        "#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.kernel, "/bin/app");
        assert_eq!(config.kernel_args, ["-ip", "10.0.5.3"]);
        assert_eq!(config.app_args, ["a b", "", "gr\u{fc}n"]);
        assert_eq!(config.env_vars, ["A=1", "B="]);
        assert_eq!((config.memory, config.cpus), (Some(32 << 20), Some(2)));
        let bytes = format!("{MINIMAL}[requirements]\nmemory = '33554432'\n");
        assert_eq!(ImageConfig::parse(bytes.as_bytes()).unwrap().memory, Some(32 << 20));
    }

    #[test]
    fn errors_name_the_line() {
        let unknown = MINIMAL.replace("\"1\"", "\"2\"");
        assert_eq!(error(&unknown), "hermit.toml, line 1: unknown variant `2`, expected `1`");
        let number = MINIMAL.replace("\"app\"", "7");
        assert_eq!(
            error(&number),
            "hermit.toml, line 2: invalid type: integer `7`, expected a string"
        );
        let argument = MINIMAL.replace("app_args = []", "app_args = [\n  \"a\",\n  7]");
        assert_eq!(
            error(&argument),
            "hermit.toml, line 8: invalid type: integer `7`, expected a string"
        );
        let cpus = format!("{MINIMAL}\n[requirements]\ncpus = -1\n");
        assert_eq!(error(&cpus), "hermit.toml, line 9: invalid value: integer `-1`, expected u32");
        let memory = format!("{MINIMAL}[requirements]\nmemory = \"x\"\n");
        assert!(error(&memory).starts_with("hermit.toml, line 8: "), "{}", error(&memory));
        let twice = format!("kernel = \"b\"\n{MINIMAL}");
        assert_eq!(error(&twice), "hermit.toml, line 3: duplicate key");
        assert_eq!(
            error(&MINIMAL.replace("[input]", "[input")).split(':').next(),
            Some("hermit.toml, line 4")
        );
        assert_eq!(
            ImageConfig::parse(b"\n\n\xff").unwrap_err().to_string(),
            "hermit.toml, line 3: not UTF-8"
        );
    }

    #[test]
    fn what_is_missing_has_no_line() {
        assert_eq!(error(""), "hermit.toml: missing field `version`");
        assert_eq!(error("version = \"1\"\nkernel = \"a\""), "hermit.toml: missing field `input`");
    }

    #[test]
    fn what_no_guest_can_be_told_is_refused() {
        let nul = MINIMAL.replace("app_args = []", r#"app_args = ["a\u0000b"]"#);
        assert!(error(&nul).contains("NUL"));
    }

    #[test]
    fn env_leaves_out_what_is_no_assignment() {
        let env = format!("{MINIMAL}env_vars = ['host', 'A=1', '=2', '', 'B=c=d', 'C=']");
        let config = ImageConfig::parse(env.as_bytes()).unwrap();
        assert_eq!(config.env().collect::<Vec<_>>(), [("A", "1"), ("B", "c=d"), ("C", "")]);
    }

    #[test]
    fn size_and_depth_are_limited() {
        assert!(error(&" ".repeat(MAX_SIZE + 1)).contains("larger than"));
        let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(error(&deep).starts_with("hermit.toml, line 1: "));
        // Whatever else can be nested, up to the size that is let through: no stack overflow, no
        // long wait.
        let count = MAX_SIZE / 4;
        for text in [
            format!("{}a = 1", "a.".repeat(count)),
            format!("[{}a]\nb = 1", "a.".repeat(count)),
            format!("[[{}a]]\nb = 1", "a.".repeat(count)),
            format!("a = {}", "{a=".repeat(count)),
            format!("{MINIMAL}{}a = 1", "a.".repeat(count)),
            "[[a]]\n".repeat(count / 2),
            (0..count / 3).map(|i| format!("[a{i}]\n")).collect(),
            (0..count / 4).map(|i| format!("a.b{i}.c=1\n")).collect(),
        ] {
            assert!(ImageConfig::parse(text.as_bytes()).is_err());
        }
    }
}
