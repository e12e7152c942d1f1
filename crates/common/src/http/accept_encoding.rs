//! `Accept-Encoding` (RFC 9110, 12.5.3): whether a client accepts gzip.

use axum::http::HeaderValue;

/// The weights that a client gave to encodings, in thousandths. `None` if it did not name the encoding.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    gzip: Option<u16>,
    identity: Option<u16>,
    others: Option<u16>,
}

impl Accepted {
    /// Reads all lines of the header. A malformed weight counts as 0, because its meaning is unknown.
    pub(super) fn of<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut accepted = Self::default();
        let lines = lines.into_iter().filter_map(|line| line.to_str().ok());
        for element in lines.flat_map(|line| line.split(',')) {
            let (coding, parameters) = element.split_once(';').unwrap_or((element, "q=1"));
            let weight = Some(weight(parameters.trim()).unwrap_or(0));
            match coding.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => accepted.gzip = weight,
                "identity" => accepted.identity = weight,
                "*" => accepted.others = weight,
                _ => {}
            }
        }
        accepted
    }

    /// Whether gzip has at least the weight of no compression. A client without this header gets no gzip: it may not support it.
    pub(super) fn prefers_gzip(&self) -> bool {
        let gzip = self.gzip.or(self.others).unwrap_or(0);
        gzip > 0 && gzip >= self.identity.unwrap_or(0)
    }

    /// Whether the client accepts an uncompressed answer. It does unless it says otherwise.
    pub(super) fn takes_identity(&self) -> bool {
        self.identity.or(self.others) != Some(0)
    }
}

/// `q=0.123` in thousandths, at most 1000.
fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    let (whole, thousandths) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let is_weight = name.trim().eq_ignore_ascii_case("q")
        && matches!(whole, "0" | "1")
        && thousandths.len() <= 3
        && thousandths.bytes().all(|byte| byte.is_ascii_digit());
    let weight = format!("{whole}{thousandths:0<3}").parse().ok()?;
    (is_weight && weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether gzip is sent, and if not, whether no compression is taken.
    fn asked(lines: &[&'static str]) -> (bool, bool) {
        let lines: Vec<_> = lines.iter().map(|line| HeaderValue::from_static(line)).collect();
        let accepted = Accepted::of(&lines);
        (accepted.prefers_gzip(), accepted.takes_identity())
    }

    #[test]
    fn gzip_is_sent_to_those_who_want_it_at_least_as_much_as_the_plain_file() {
        for lines in [
            &["gzip, deflate, br, zstd"] as &[_],
            &["br", "gzip"],
            &["GZIP;Q=0.001"],
            &["x-gzip"],
            &["*"],
            &["identity;q=0.5, gzip ; q=0.5"],
            &["identity;q=0, *"],
            &["gzip;q=1.000"],
        ] {
            assert!(asked(lines).0, "{lines:?}");
        }
    }

    #[test]
    fn the_plain_file_is_sent_to_others() {
        for lines in [
            &[] as &[_],
            &[""],
            &["identity"],
            &["gzip;q=0, identity"],
            &["gzip;q=0"],
            &["gzip;q=0.000", "*"],
            &["gzip;q=0.5, identity"],
            &["br"],
            &["gzip;q=x"],
            &["gzip;q=2"],
            &["gzip;q=0.0001"],
            &["*;q=0, identity;q=0.1"],
        ] {
            assert_eq!(asked(lines), (false, true), "{lines:?}");
        }
    }

    #[test]
    fn a_client_can_refuse_both() {
        for lines in [
            &["gzip;q=0, identity;q=0"] as &[_],
            &["*;q=0"],
            &["br, identity;q=0"],
        ] {
            assert_eq!(asked(lines), (false, false), "{lines:?}");
        }
    }
}
