//! Judges the outcome of a guest test.

use super::Test;
use crate::job::{Ending, Outcome};

/// Texts that standard error must never have: a panic, a sanitizer's report, a system call that was
/// not foreseen.
const VMM_FAULTS: [&str; 4] =
    ["panicked at", "AddressSanitizer", "LeakSanitizer", "vmm: system call "];

impl Test {
    /// Names what is wrong with the outcome; nothing if the test passed.
    pub(crate) fn judge(&self, outcome: &Outcome) -> Vec<String> {
        let mut wrong = self.judge_vmm(outcome);
        if outcome.ending != Ending::Exited(self.exit) {
            wrong.push(format!("expected exit code {}, got: {}", self.exit, outcome.ending));
        }
        let stdout = String::from_utf8_lossy(&outcome.stdout);
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        for (name, texts, stream) in
            [("stdout", &self.stdout, &stdout), ("stderr", &self.stderr, &stderr)]
        {
            let missing = texts.iter().filter(|text| !stream.contains(text.as_str()));
            wrong.extend(missing.map(|text| format!("expected on {name}: {text:?}")));
        }
        if let Some(exact) =
            self.stdout_exact.as_ref().filter(|exact| exact.as_bytes() != outcome.stdout)
        {
            wrong.push(format!("expected exactly this on stdout: {exact:?}"));
        }
        let unwanted =
            self.absent.iter().filter(|text| stdout.contains(*text) || stderr.contains(*text));
        wrong.extend(unwanted.map(|text| format!("must not be there: {text:?}")));
        wrong
    }

    /// Names what `vmm` must not do, whatever the guest does.
    fn judge_vmm(&self, outcome: &Outcome) -> Vec<String> {
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        let bad = VMM_FAULTS.iter().filter(|text| stderr.contains(**text));
        let mut wrong: Vec<String> =
            bad.map(|text| format!("a fault of vmm on stderr: {text:?}")).collect();
        let lines = stderr.lines().count();
        if let Some(most) = self.max_stderr_lines.filter(|most| lines > *most) {
            wrong.push(format!("{lines} lines on stderr instead of at most {most}"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::suite::Suite;

    const ONE: &str = "[[test]]\nname = 'a'\nimage = 'hello'\nstdout = ['hi']\nexit = 3\n";

    fn outcome(code: i32, stdout: &str) -> Outcome {
        let (stdout, stderr) = (stdout.as_bytes().to_vec(), Vec::new());
        Outcome { ending: Ending::Exited(code), stdout, stderr, time: Duration::ZERO }
    }

    #[test]
    fn an_outcome_is_judged_by_code_and_text() {
        let suite = Suite::parse(&format!("{ONE}absent = ['panic']")).unwrap();
        let test = &suite.tests[0];
        assert_eq!(test.judge(&outcome(3, "oh, hi there")), Vec::<String>::new());
        assert_eq!(test.judge(&outcome(0, "hi")), ["expected exit code 3, got: exit code 0"]);
        assert_eq!(test.judge(&outcome(3, "ho")), ["expected on stdout: \"hi\""]);
        assert_eq!(test.judge(&outcome(3, "hi panic")), ["must not be there: \"panic\""]);
        let late = Outcome { ending: Ending::TimedOut, ..outcome(3, "hi") };
        assert_eq!(test.judge(&late).len(), 1);
    }

    #[test]
    fn a_fault_of_vmm_is_one_whatever_was_expected() {
        let suite = Suite::parse(&format!("{ONE}max_stderr_lines = 2")).unwrap();
        let with = |stderr: &str| Outcome { stderr: stderr.into(), ..outcome(3, "hi") };
        assert!(suite.tests[0].judge(&with("a warning\nand another")).is_empty());
        for bad in [
            "a\nb\nc",
            "thread 'vcpu0' panicked at x",
            "==1==ERROR: AddressSanitizer: x",
            "vmm: system call 41",
        ] {
            assert_eq!(suite.tests[0].judge(&with(bad)).len(), 1, "{bad}");
        }
        let sanitized = suite.tests[0].sanitized();
        assert_eq!(sanitized.options, ["--sandbox", "off"]);
    }

    #[test]
    fn exact_output_is_exact() {
        let suite =
            Suite::parse("[[test]]\nname = 'a'\nimage = 'i'\nstdout_exact = \"x\\n\"").unwrap();
        let test = &suite.tests[0];
        assert!(test.judge(&outcome(0, "x\n")).is_empty());
        assert_eq!(test.judge(&outcome(0, "x")).len(), 1);
    }
}
