//! Arguments and environment as hypercall interface v1 hands them over.

use nerite_hypercall::v1::{CmdsizeParams, MAX_ARGC_ENVC};

use crate::Error;

/// Minimum number of environment strings for a kernel that forgets the null pointer after the last
/// one. Its table then is large enough to come from memory that was never used, and is zero,
/// instead of the remains of a smaller allocation.
const UNTERMINATED_MINIMUM: usize = 16;

/// The application's arguments and environment, ready to be copied into the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CommandLine {
    /// Each with its final zero byte; the first is the path of the image.
    arguments: Vec<Vec<u8>>,
    /// `KEY=value`, each with its final zero byte.
    environment: Vec<Vec<u8>>,
    /// Number of environment variables, without what fills the list up, for a kernel that does not
    /// end it.
    unterminated: Option<usize>,
}

impl CommandLine {
    /// Takes the path of the image, the application's arguments and the environment.
    ///
    /// Hermit kernels before 0.10 do not put a null pointer after the last environment string. For
    /// those (`terminates_environment` is `false`) the list is filled up with empty strings, which
    /// are no variables, and [`Self::unterminated`] tells where they begin.
    ///
    /// # Errors
    /// If there are more than interface v1 can carry: 128 each, the path included.
    pub(crate) fn new(
        path: &str,
        arguments: &[String],
        environment: &[(String, String)],
        terminates_environment: bool,
    ) -> Result<Self, Error> {
        let with_zero = |text: String| {
            let mut bytes = text.into_bytes();
            bytes.push(0);
            bytes
        };
        let mut line = Self {
            arguments: std::iter::once(path)
                .chain(arguments.iter().map(String::as_str))
                .map(|argument| with_zero(argument.to_owned()))
                .collect(),
            environment: environment
                .iter()
                .map(|(key, value)| with_zero(format!("{key}={value}")))
                .collect(),
            unterminated: (!terminates_environment).then_some(environment.len()),
        };
        if !terminates_environment && line.environment.len() < UNTERMINATED_MINIMUM {
            line.environment.resize_with(UNTERMINATED_MINIMUM, || with_zero(String::new()));
        }
        for (what, list) in
            [("arguments", &line.arguments), ("environment variables", &line.environment)]
        {
            if list.len() > MAX_ARGC_ENVC {
                return Err(Error::TooManyStrings {
                    what,
                    given: list.len(),
                    allowed: MAX_ARGC_ENVC,
                });
            }
        }
        Ok(line)
    }

    /// The strings' numbers and lengths.
    pub(super) fn sizes(&self) -> CmdsizeParams {
        let mut params = CmdsizeParams::default();
        let fill = |count: &mut i32, list: &[Vec<u8>]| {
            *count = i32::try_from(list.len()).unwrap_or(i32::MAX);
            let mut sizes = [0_i32; MAX_ARGC_ENVC];
            for (size, string) in sizes.iter_mut().zip(list) {
                *size = i32::try_from(string.len()).unwrap_or(i32::MAX);
            }
            sizes
        };
        let (mut argc, mut envc) = (0, 0);
        params.argsz = fill(&mut argc, &self.arguments);
        params.envsz = fill(&mut envc, &self.environment);
        params.argc = argc;
        params.envc = envc;
        params
    }

    /// The arguments, each with its final zero byte.
    pub(super) fn arguments(&self) -> &[Vec<u8>] {
        &self.arguments
    }

    /// The environment, `KEY=value`, each with its final zero byte.
    pub(super) fn environment(&self) -> &[Vec<u8>] {
        &self.environment
    }

    /// Number of environment variables, for a kernel that does not end their list.
    pub(super) fn unterminated(&self) -> Option<usize> {
        self.unterminated
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(arguments: usize, environment: usize, terminates: bool) -> Result<CommandLine, Error> {
        let environment: Vec<_> =
            (0..environment).map(|n| (format!("K{n}"), String::new())).collect();
        CommandLine::new("path", &vec![String::new(); arguments], &environment, terminates)
    }

    #[test]
    fn as_many_strings_fit_as_the_interface_has_room_for() {
        // The path is one more.
        let full = line(MAX_ARGC_ENVC - 1, MAX_ARGC_ENVC, true).unwrap();
        let sizes = full.sizes();
        assert_eq!(({ sizes.argc }, { sizes.envc }), (128, 128));
        for (arguments, environment, what) in [
            (MAX_ARGC_ENVC, 0, "129 arguments"),
            (0, MAX_ARGC_ENVC + 1, "129 environment variables"),
        ] {
            let error = line(arguments, environment, true).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("128"), "{error}");
        }
    }

    #[test]
    fn kernels_that_forget_the_end_of_the_list_get_a_long_one() {
        for given in [0, 3, 15, 16, 40] {
            let line = line(0, given, false).unwrap();
            assert_eq!(line.environment().len(), given.max(UNTERMINATED_MINIMUM));
            assert!(line.environment()[given..].iter().all(|empty| empty == b"\0"));
        }
        assert_eq!(line(0, 3, true).unwrap().environment().len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sizes_are_those_of_the_strings(
            path: String,
            arguments in proptest::collection::vec(any::<String>(), 0..20),
            environment in proptest::collection::vec(any::<(String, String)>(), 0..20),
            terminates: bool,
        ) {
            let line = CommandLine::new(&path, &arguments, &environment, terminates).unwrap();
            let sizes = line.sizes();
            let (argsz, envsz) = (sizes.argsz, sizes.envsz);
            let lists = [(sizes.argc, argsz, line.arguments()), (sizes.envc, envsz, line.environment())];
            for (count, sizes, strings) in lists {
                prop_assert_eq!(usize::try_from(count).unwrap(), strings.len());
                for (size, string) in sizes.iter().zip(strings) {
                    prop_assert_eq!(usize::try_from(*size).unwrap(), string.len());
                    prop_assert_eq!(string.last(), Some(&0));
                }
            }
            prop_assert_eq!(&line.arguments()[0][..path.len()], path.as_bytes());
            for (string, argument) in line.arguments()[1..].iter().zip(&arguments) {
                prop_assert_eq!(&string[..argument.len()], argument.as_bytes());
            }
            for (string, (key, value)) in line.environment().iter().zip(&environment) {
                let variable = format!("{key}={value}\0");
                prop_assert_eq!(string.as_slice(), variable.as_bytes());
            }
        }
    }
}
