//! Errors, for people and for the engine.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::SystemTime;

use crate::cli::{Global, LogFormat};

/// Reports an error with its causes on one line: on standard error and in the log file.
pub(crate) fn error(global: &Global, error: &anyhow::Error) {
    let text = format!("{error:#}").replace('\n', " ");
    let mut stderr = std::io::stderr().lock();
    // There is nowhere to say that neither of them can be written.
    let _ = writeln!(stderr, "nerite-oci: {text}");
    if let Some(path) = &global.log
        && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "{}", line(global.log_format, &text, SystemTime::now()));
    }
}

fn line(format: LogFormat, text: &str, now: SystemTime) -> String {
    let time = humantime::format_rfc3339_seconds(now);
    match format {
        LogFormat::Text => format!("{time} error: {text}"),
        LogFormat::Json => serde_json::json!({
            "level": "error", "msg": text, "time": time.to_string(),
        })
        .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_of_each_format() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(3);
        assert_eq!(line(LogFormat::Text, "a \"b\"", now), "1970-01-01T00:00:03Z error: a \"b\"");
        assert_eq!(
            line(LogFormat::Json, "a \"b\"", now),
            r#"{"level":"error","msg":"a \"b\"","time":"1970-01-01T00:00:03Z"}"#
        );
    }
}
