//! Reports of jobs that failed.

use crate::job::{Job, Outcome};

/// Lines that are shown of the beginning of a long output.
const FIRST: usize = 40;
/// Lines that are shown of its end.
const LAST: usize = 60;

/// All that is known of a run: the command, what was wrong, and its output.
pub(crate) fn text(job: &Job, outcome: &Outcome, wrong: &[String]) -> String {
    let mut lines = vec![format!("command: {}", shown(&job.command))];
    lines.extend(wrong.iter().cloned());
    for (name, bytes) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
        lines.push(format!("{name} ({} bytes):", bytes.len()));
        let text = String::from_utf8_lossy(bytes);
        let all: Vec<&str> = text.lines().collect();
        for (number, line) in all.iter().enumerate() {
            if number < FIRST || number + LAST >= all.len() {
                lines.push(format!("  {line}"));
            } else if number == FIRST {
                lines.push(format!("  ... {} lines left out", all.len() - FIRST - LAST));
            }
        }
    }
    lines.join("\n")
}

/// A command as it would be typed.
fn shown(command: &[String]) -> String {
    let words = command.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word.clone() } else { format!("{word:?}") }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::job::Ending;

    #[test]
    fn long_output_is_shown_without_its_middle() {
        let stdout: Vec<u8> = (0..200).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let outcome =
            Outcome { ending: Ending::Exited(1), stdout, stderr: Vec::new(), time: Duration::ZERO };
        let job = Job { command: vec!["a".to_owned(), "b c".to_owned()], ..Job::default() };
        let text = text(&job, &outcome, &["it is wrong".to_owned()]);
        assert!(
            text.starts_with("command: a \"b c\"\nit is wrong\nstdout (1690 bytes):\n  line 0\n")
        );
        assert!(text.contains("  line 39\n  ... 100 lines left out\n  line 140\n"));
        assert!(text.ends_with("  line 199\nstderr (0 bytes):"));
    }
}
