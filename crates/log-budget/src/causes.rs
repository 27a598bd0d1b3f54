//! An error with its causes.

use std::error::Error;
use std::fmt;

/// An error with its causes, in one line for a log or an answer: `no disk: cannot open x: no such
/// file`.
///
/// Our errors leave out the cause, because it is their source. Those of other crates may repeat it:
/// a cause that the line already has is left out.
#[derive(Debug, Clone, Copy)]
pub struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        f.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|link| link as &dyn Error)
        }
    }

    #[test]
    fn causes_follow_unless_the_line_has_them() {
        let last = Link("no such file", None);
        let middle = Link("cannot open x: no such file", Some(Box::new(last)));
        let first = Link("no disk", Some(Box::new(middle)));
        assert_eq!(Causes(&first).to_string(), "no disk: cannot open x: no such file");
        let plain = Link("cannot open x", Some(Box::new(Link("no such file", None))));
        assert_eq!(Causes(&plain).to_string(), "cannot open x: no such file");
    }
}
