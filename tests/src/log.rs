//! What processes have written, judged: lines that nobody expected, and words that must never be there.

/// Lines of levels WARN and ERROR, reports of a failed command, and panics, but for those with an expected part.
pub fn unexpected<'l>(log: &'l str, expected: &[String]) -> Vec<&'l str> {
    log.lines().filter(|line| needs_a_look(line) && !expected.iter().any(|part| line.contains(part.as_str()))).collect()
}

/// `2026-11-22T10:00:00.000000Z  WARN span: message`, `{"level":"WARN",…}`, `error: message`, `thread '…' panicked at …`.
fn needs_a_look(line: &str) -> bool {
    let level = line.split_whitespace().nth(1);
    matches!(level, Some("WARN" | "ERROR")) && line.starts_with(|c: char| c.is_ascii_digit())
        || line.starts_with("error: ")
        || line.contains("panicked at ")
        || ["WARN", "ERROR"].iter().any(|level| line.contains(&format!("\"level\":\"{level}\"")))
}

/// Which of the secrets a text repeats, as they are or percent-encoded.
pub fn repeats<'s>(text: &str, secrets: &'s [String]) -> Option<&'s str> {
    secrets.iter().find(|secret| text.contains(secret.as_str())).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_need_a_look_are_found_by_their_level() {
        let log = "2026-11-22T10:00:00.000000Z  INFO running WARN\n\
                   2026-11-22T10:00:01.000000Z  WARN the store is away; trying again error=x\n\
                   2026-11-22T10:00:02.000000Z ERROR a row goes round\n\
                   error: another process has taken over\n\
                   hint: nothing to do\n\
                   thread 'main' panicked at src/main.rs:1:1\n\
                   {\"timestamp\":\"…\",\"level\":\"WARN\",\"fields\":{}}";
        assert_eq!(unexpected(log, &[]).len(), 5);
        let expected = ["the store is away", "taken over", "goes round", "panicked", "\"WARN\""].map(str::to_owned);
        assert!(unexpected(log, &expected).is_empty());
        assert_eq!(unexpected(log, &expected[1..]).len(), 1);
    }

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        let secrets = ["s3same".to_owned(), "0pen".to_owned()];
        assert_eq!(repeats("mysql://u:0pen@h", &secrets), Some("0pen"));
        assert_eq!(repeats("mysql://u:***@h", &secrets), None);
    }
}
