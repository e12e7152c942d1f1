//! A line of a log for a person: short enough for a terminal.

use serde_json::Value;

/// Columns of a terminal, without those of an indented message.
const MAX_CHARACTERS: usize = 76;

/// An event as its time (UTC), its name and what it says; any other line as it is. Cut to the width of a terminal. `None` for an empty line.
pub(super) fn summary(line: &str) -> Option<String> {
    let text = event(line).unwrap_or_else(|| line.trim().to_owned());
    if text.is_empty() {
        return None;
    }
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= MAX_CHARACTERS {
        return Some(printable.collect());
    }
    Some(printable.take(MAX_CHARACTERS - 1).chain(['…']).collect())
}

fn event(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| event.get(name)?.as_str();
    let time = field("logged_at")?.get(11..19)?;
    let said = ["error", "info", "error_text", "text"]
        .iter()
        .find_map(|name| field(name));
    let exit_code = event.get("exit_code").map(|code| format!(" {code}"));
    let more = said.map(|text| format!(" {text}")).or(exit_code);
    Some(format!("{time} {}{}", field("event")?, more.unwrap_or_default()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_of_a_terminal() {
        let line = r#"{"event":"model_update_failed","model":"read_model","info":"it is away","level":"WARN","service":"read_model_sync","logged_at":"2026-11-28T20:56:40.870401Z"}"#;
        assert_eq!(summary(line).unwrap(), "20:56:40 model_update_failed it is away");
        let line = r#"{"event":"service_shut_down","exit_code":1,"logged_at":"2026-11-28T20:56:40.870401Z"}"#;
        assert_eq!(summary(line).unwrap(), "20:56:40 service_shut_down 1");
        assert_eq!(
            summary(" thread 'main' panicked\u{1b}[31m").unwrap(),
            "thread 'main' panicked [31m"
        );
        assert_eq!(summary("{\"event\":1}").unwrap(), "{\"event\":1}");
        assert_eq!(summary("  "), None);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = summary(&"ü".repeat(300)).unwrap();
        assert_eq!(long, "ü".repeat(75) + "…");
        assert_eq!(summary(&"ü".repeat(76)).unwrap(), "ü".repeat(76));
    }
}
