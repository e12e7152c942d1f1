//! Finds the first fault in a text that is not JSON, with the offset and the message of CPython's `json.loads`, which clients of FastAPI know.
//!
//! `serde_json` parses the bodies, but its positions cannot be mapped: for an unterminated string it reports the end, CPython the beginning.
//! So a text that `serde_json` refused is scanned again by CPython's rules (Modules/_json.c, 3.11). CPython accepts `NaN` and `Infinity`;
//! here they are faults, as JSON says.

/// The first fault of a text: its offset in characters, and CPython's message. `None` if the text is JSON.
pub(super) fn find(text: &str) -> Option<(usize, &'static str)> {
    let text: Vec<char> = text.chars().collect();
    let mut scanner = Scanner { text: &text, at: 0 };
    let message = scanner.document().err()?;
    Some((scanner.at, message))
}

/// Where a method fails, `at` is the offset of the fault.
struct Scanner<'a> {
    text: &'a [char],
    at: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), &'static str> {
        // The closing brackets of the open objects and arrays. They are on the heap because a body can be nested deeper than the call stack.
        let mut closings = Vec::new();
        self.skip_blanks();
        loop {
            if closings.last() == Some(&'}') {
                self.name()?;
            }
            match self.peek() {
                Some(opening @ ('{' | '[')) => {
                    let closing = if opening == '{' { '}' } else { ']' };
                    closings.push(closing);
                    self.skip_mark();
                    if self.peek() != Some(closing) {
                        continue;
                    }
                }
                Some('"') => self.string()?,
                _ => self.literal()?,
            }
            self.skip_blanks();
            while closings.pop_if(|closing| self.peek() == Some(*closing)).is_some() {
                self.skip_mark();
            }
            match (closings.last(), self.peek()) {
                (None, None) => return Ok(()),
                (None, Some(_)) => return Err("Extra data"),
                (Some(_), Some(',')) => self.skip_mark(),
                (Some(_), _) => return Err("Expecting ',' delimiter"),
            }
        }
    }

    /// The name of a member, and the colon.
    fn name(&mut self) -> Result<(), &'static str> {
        if self.peek() != Some('"') {
            return Err("Expecting property name enclosed in double quotes");
        }
        self.string()?;
        self.skip_blanks();
        if self.peek() != Some(':') {
            return Err("Expecting ':' delimiter");
        }
        self.skip_mark();
        Ok(())
    }

    fn string(&mut self) -> Result<(), &'static str> {
        let begin = self.at;
        self.at += 1;
        loop {
            match self.rest() {
                ['"', ..] => {
                    self.at += 1;
                    return Ok(());
                }
                ['\\', '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't', ..] => self.at += 2,
                // CPython also requires a character after the four digits.
                ['\\', 'u', a, b, c, d, _, ..] if [a, b, c, d].into_iter().all(char::is_ascii_hexdigit) => {
                    self.at += 6;
                }
                ['\\', 'u', ..] => {
                    self.at += 1;
                    return Err("Invalid \\uXXXX escape");
                }
                ['\\', _, ..] => return Err("Invalid \\escape"),
                ['\0'..='\x1f', ..] => return Err("Invalid control character at"),
                [] | ['\\'] => {
                    self.at = begin;
                    return Err("Unterminated string starting at");
                }
                _ => self.at += 1,
            }
        }
    }

    /// A number, `true`, `false` or `null`. A number ends as early as it can: the fault in `01` is the character after the 0.
    fn literal(&mut self) -> Result<(), &'static str> {
        for word in ["true", "false", "null"] {
            if self.rest().iter().copied().take(word.len()).eq(word.chars()) {
                self.at += word.len();
                return Ok(());
            }
        }
        match self.rest() {
            ['0', ..] => self.at += 1,
            ['-', '0', ..] => self.at += 2,
            ['1'..='9', ..] | ['-', '1'..='9', ..] => {
                self.at += 1;
                self.skip_digits();
            }
            _ => return Err("Expecting value"),
        }
        if let ['.', '0'..='9', ..] = self.rest() {
            self.at += 1;
            self.skip_digits();
        }
        if let ['e' | 'E', '0'..='9', ..] | ['e' | 'E', '+' | '-', '0'..='9', ..] = self.rest() {
            self.at += 2;
            self.skip_digits();
        }
        Ok(())
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|next| next.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// A bracket, comma or colon, and the blanks behind it.
    fn skip_mark(&mut self) {
        self.at += 1;
        self.skip_blanks();
    }

    fn skip_blanks(&mut self) {
        while let Some(' ' | '\t' | '\n' | '\r') = self.peek() {
            self.at += 1;
        }
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
    use serde_json::value::RawValue;

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
            assert_eq!(find(text), Some((at, message)), "{text:?}");
        }
    }

    #[test]
    fn json_has_no_fault() {
        for text in [
            " {} ",
            "[[], {}, [{}]]",
            r#"{"a": [1, -0.5e-3, 1E+2, 10], "b": {"c": null}, "d": [true, false]}"#,
            "[\"\\u00e4\\ud800 \\\" \\/ \u{7f}\"]",
            &("[".repeat(8000) + &"]".repeat(8000)),
        ] {
            assert_eq!(find(text), None, "{text:?}");
            assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "{text:?}");
        }
    }
}
