//! Tips for command lines that clap refuses.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli;

/// Adds a tip to `error` if the words, the first of which is the program's name, are a known slip.
/// clap's own tip to write a misspelt option behind `--` is taken away: it would be the image.
pub(crate) fn add(error: &mut clap::Error, words: &[OsString]) {
    if error.kind() == ErrorKind::UnknownArgument {
        error.remove(ContextKind::Suggested);
    }
    if let Some(tip) = tip(error, words) {
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tips);
    }
}

fn tip(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let first = words.get(1)?.to_str()?;
    let command = cli::command();
    match error.kind() {
        ErrorKind::InvalidSubcommand => Some(format!("an image is run by `vmm run {first}`")),
        ErrorKind::UnknownArgument if first == "ctl" => {
            let known: Vec<_> = command
                .find_subcommand("ctl")?
                .get_subcommands()
                .map(clap::Command::get_name)
                .collect();
            Some(format!("commands of `vmm ctl` are {}", known.join(", ")))
        }
        ErrorKind::UnknownArgument if is_option_of_run(&command, first) => {
            Some(format!("`{first}` is an option of `vmm run` and comes after `run`"))
        }
        _ => None,
    }
}

fn is_option_of_run(command: &clap::Command, word: &str) -> bool {
    let Some(run) = command.find_subcommand("run") else { return false };
    let name = word.split('=').next().unwrap_or(word);
    run.get_opts().any(|option| match (name.strip_prefix("--"), name.strip_prefix('-')) {
        (Some(long), _) => option.get_long() == Some(long),
        (None, Some(short)) => option.get_short().is_some_and(|known| short.starts_with(known)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// Message for a wrong command line.
    fn message(words: &str) -> String {
        let words: Vec<OsString> = words.split(' ').map(Into::into).collect();
        let mut error = cli::Cli::try_parse_from(&words).unwrap_err();
        add(&mut error, &words);
        error.render().to_string()
    }

    #[test]
    fn an_image_without_run_is_pointed_to_run() {
        let text = message("vmm hello_world -m 1G");
        assert!(text.contains("tip: an image is run by `vmm run hello_world`"), "{text}");
    }

    #[test]
    fn options_before_run_are_pointed_behind_it() {
        for (words, option) in
            [("vmm -m 1G image", "-m"), ("vmm --net=user run image", "--net=user")]
        {
            let text = message(words);
            assert!(text.contains(&format!("tip: `{option}` is an option of `vmm run`")), "{text}");
        }
    }

    #[test]
    fn an_unknown_command_of_ctl_lists_the_known_ones() {
        let text = message("vmm ctl socket foo");
        assert!(text.contains("tip: commands of `vmm ctl` are pause, resume,"), "{text}");
    }

    #[test]
    fn a_misspelt_option_gets_the_right_one_alone() {
        let text = message("vmm run --memroy 1G image");
        assert!(text.contains("'--memory'") && !text.contains("as a value"), "{text}");
    }

    #[test]
    fn other_mistakes_get_no_tip_from_here() {
        assert!(!message("vmm run --bogus image").contains("`vmm run`"));
    }
}
