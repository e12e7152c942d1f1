//! Finds the first fault in a text that is not JSON, with the offset and the message of CPython's `json.loads`, which clients of FastAPI know.
//!
//! `serde_json` parses the bodies, but its positions cannot be mapped: for an unterminated string it reports the end, CPython the beginning.
//! So a text that `serde_json` refused is scanned again by CPython's rules (Modules/_json.c, 3.11). CPython accepts `NaN` and `Infinity`;
//! here they are faults, as JSON says.

/// The first fault of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Offset in characters from the start.
    pub(super) at: usize,
    /// CPython's message.
    pub(super) message: &'static str,
}

/// The first fault of a text. `None` if it is JSON.
pub(super) fn find(text: &str) -> Option<Fault> {
    let text: Vec<char> = text.chars().collect();
    Scanner { text: &text, at: 0 }.document().err()
}

struct Scanner<'a> {
    text: &'a [char],
    at: usize,
}

const fn fault(at: usize, message: &'static str) -> Fault {
    Fault { at, message }
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        // The closing brackets of the open objects and arrays. They are on the heap because a body can be nested deeper than the call stack.
        let mut closings = Vec::new();
        self.skip_blanks();
        loop {
            let opened = match self.peek() {
                Some('{') => Some('}'),
                Some('[') => Some(']'),
                _ => None,
            };
            if let Some(closing) = opened {
                self.skip(1);
                self.skip_blanks();
                if self.peek() != Some(closing) {
                    closings.push(closing);
                    if closing == '}' {
                        self.name()?;
                    }
                    continue;
                }
                self.skip(1);
            } else if self.peek() == Some('"') {
                self.string()?;
            } else {
                self.literal()?;
            }
            self.skip_blanks();
            while let Some(closing) = closings.last().copied()
                && self.peek() == Some(closing)
            {
                closings.pop();
                self.skip(1);
                self.skip_blanks();
            }
            match (closings.last(), self.peek()) {
                (None, None) => return Ok(()),
                (None, Some(_)) => return Err(fault(self.at, "Extra data")),
                (Some(closing), Some(',')) => {
                    let in_object = *closing == '}';
                    self.skip(1);
                    self.skip_blanks();
                    if in_object {
                        self.name()?;
                    }
                }
                (Some(_), _) => return Err(fault(self.at, "Expecting ',' delimiter")),
            }
        }
    }

    /// The name of a member, and the colon.
    fn name(&mut self) -> Result<(), Fault> {
        if self.peek() != Some('"') {
            return Err(fault(
                self.at,
                "Expecting property name enclosed in double quotes",
            ));
        }
        self.string()?;
        self.skip_blanks();
        if self.peek() != Some(':') {
            return Err(fault(self.at, "Expecting ':' delimiter"));
        }
        self.skip(1);
        self.skip_blanks();
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        let begin = self.at;
        self.skip(1);
        loop {
            match self.peek() {
                Some('"') => {
                    self.skip(1);
                    return Ok(());
                }
                Some('\\') => self.escape(begin)?,
                Some('\0'..='\x1f') => return Err(fault(self.at, "Invalid control character at")),
                Some(_) => self.skip(1),
                None => return Err(fault(begin, "Unterminated string starting at")),
            }
        }
    }

    fn escape(&mut self, begin: usize) -> Result<(), Fault> {
        match self.rest().get(1) {
            Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => self.skip(2),
            Some('u') => {
                // CPython also requires a character after the four digits.
                let has_digits = self
                    .rest()
                    .get(2..6)
                    .is_some_and(|digits| digits.iter().all(char::is_ascii_hexdigit));
                if !has_digits || self.rest().len() < 7 {
                    return Err(fault(self.at.saturating_add(1), "Invalid \\uXXXX escape"));
                }
                self.skip(6);
            }
            Some(_) => return Err(fault(self.at, "Invalid \\escape")),
            None => return Err(fault(begin, "Unterminated string starting at")),
        }
        Ok(())
    }

    /// A number, `true`, `false` or `null`. A number ends as early as it can: the fault in `01` is the character after the 0.
    fn literal(&mut self) -> Result<(), Fault> {
        for word in ["true", "false", "null"] {
            if self.rest().iter().copied().take(word.len()).eq(word.chars()) {
                self.skip(word.len());
                return Ok(());
            }
        }
        let begin = self.at;
        if self.peek() == Some('-') {
            self.skip(1);
        }
        match self.peek() {
            Some('0') => self.skip(1),
            Some('1'..='9') => self.skip_digits(),
            _ => return Err(fault(begin, "Expecting value")),
        }
        if let ['.', '0'..='9', ..] = self.rest() {
            self.skip(1);
            self.skip_digits();
        }
        if let ['e' | 'E', '0'..='9', ..] | ['e' | 'E', '+' | '-', '0'..='9', ..] = self.rest() {
            self.skip(2);
            self.skip_digits();
        }
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|next| next.is_ascii_digit()) {
            self.skip(1);
        }
    }

    fn skip_blanks(&mut self) {
        while let Some(' ' | '\t' | '\n' | '\r') = self.peek() {
            self.skip(1);
        }
    }

    fn skip(&mut self, characters: usize) {
        self.at = self.at.saturating_add(characters);
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &[char] {
        self.text.get(self.at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults that CPython 3.11 reports. A test of `create_buy_order` compares many more bodies with the CPython of the machine.
    #[test]
    fn faults_are_where_cpython_finds_them_and_in_its_words() {
        const NAME: &str = "Expecting property name enclosed in double quotes";
        const VALUE: &str = "Expecting value";
        const COMMA: &str = "Expecting ',' delimiter";
        const CONTROL: &str = "Invalid control character at";
        const UNTERMINATED: &str = "Unterminated string starting at";
        const UNICODE: &str = "Invalid \\uXXXX escape";
        for (text, at, message) in [
            ("", 0, VALUE),
            ("  ", 2, VALUE),
            ("{", 1, NAME),
            ("{bad", 1, NAME),
            ("{ \n1: 2}", 3, NAME),
            (r#"{"a":1,}"#, 7, NAME),
            (r#"{"a" 1}"#, 5, "Expecting ':' delimiter"),
            (r#"{"a""#, 4, "Expecting ':' delimiter"),
            (r#"{"a":"#, 5, VALUE),
            (r#"{"a": nul}"#, 6, VALUE),
            (r#"{"a": NaN}"#, 6, VALUE),
            (r#"{"a": +1}"#, 6, VALUE),
            (r#"{"a": -}"#, 6, VALUE),
            (r#"{"a": 01}"#, 7, COMMA),
            (r#"{"a": 1.}"#, 7, COMMA),
            (r#"{"a": 1e+}"#, 7, COMMA),
            (r#"{"a": 1 "b": 2}"#, 8, COMMA),
            ("[1, [2, {}], ]", 13, VALUE),
            ("[1, 2", 5, COMMA),
            ("[1]]", 3, "Extra data"),
            ("{\"c\":\"U\0SD\"}", 7, CONTROL),
            ("{\"\u{e4}\": \"\t\"}", 7, CONTROL),
            (r#"{"c":"USD}"#, 5, UNTERMINATED),
            (r#"["\"#, 1, UNTERMINATED),
            (r#"["\x"]"#, 2, "Invalid \\escape"),
            (r#"["\ud80x"]"#, 3, UNICODE),
            (r#"["\ud800"#, 3, UNICODE),
            (r#"["\ud800\u12"]"#, 9, UNICODE),
        ] {
            assert_eq!(find(text), Some(fault(at, message)), "{text:?}");
        }
    }

    #[test]
    fn json_has_no_fault() {
        for text in [
            " {} ",
            "[[], {}, [{}]]",
            r#"{"a": [1, -0.5e-3, 1E+2, 10], "b": {"c": null}, "d": [true, false]}"#,
            "[\"\\u00e4\\ud800 \\\" \\/ \u{7f}\"]",
            &"[".repeat(8000)
                .chars()
                .chain("]".repeat(8000).chars())
                .collect::<String>(),
        ] {
            assert_eq!(find(text), None, "{text:?}");
            assert!(
                serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(),
                "{text:?}"
            );
        }
    }
}
