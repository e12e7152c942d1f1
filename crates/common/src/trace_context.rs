//! W3C Trace Context, level 1: the `traceparent` that a request brings or is given, and that its event carries on.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The name of the HTTP header, and of the message header.
pub const TRACEPARENT: &str = "traceparent";

/// Which trace something belongs to, and which span of it was the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

/// The text is no `traceparent`: by the specification a new trace begins then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct Malformed;

impl TraceContext {
    /// A new, sampled trace.
    #[must_use]
    pub fn generate() -> Self {
        const SAMPLED: u8 = 1;
        // A version 4 UUID is random, and never zero, in either half; zero would mean "no trace".
        Self {
            trace_id: Uuid::new_v4().as_u128(),
            parent_id: random_id(),
            flags: SAMPLED,
        }
    }

    /// The context that a caller sent, or a new one when it sent none or nonsense.
    #[must_use]
    pub fn from_header(text: Option<&str>) -> Self {
        text.and_then(|text| text.parse().ok())
            .unwrap_or_else(Self::generate)
    }

    /// The same trace, with a new span as the caller of what comes next.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            parent_id: random_id(),
            ..self
        }
    }

    /// The 32 hexadecimal digits that all spans of the trace share.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

fn random_id() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.parent_id, self.flags
        )
    }
}

impl FromStr for TraceContext {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.splitn(5, '-');
        let mut part = |digits: usize| {
            let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts
                .next()
                .filter(|part| part.len() == digits && part.bytes().all(lower_hex))
                .ok_or(Malformed)
        };
        let version = part(2)?;
        let trace_id = u128::from_str_radix(part(32)?, 16).map_err(|_| Malformed)?;
        let parent_id = u64::from_str_radix(part(16)?, 16).map_err(|_| Malformed)?;
        let flags = u8::from_str_radix(part(2)?, 16).map_err(|_| Malformed)?;
        // A later version may append parts that this one ignores; ff is forbidden for good.
        let surplus = parts.next().is_some();
        if version == "ff" || (version == "00" && surplus) || trace_id == 0 || parent_id == 0 {
            return Err(Malformed);
        }
        Ok(Self {
            trace_id,
            parent_id,
            flags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_example_is_read_and_written_back() {
        assert_eq!(
            EXAMPLE.parse::<TraceContext>().map(|context| context.to_string()),
            Ok(EXAMPLE.to_owned())
        );
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let text = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-next";
        assert_eq!(
            text.parse::<TraceContext>().map(|context| context.to_string()),
            Ok(EXAMPLE.to_owned())
        );
    }

    #[test]
    fn a_child_stays_in_the_trace_under_a_new_span() {
        let context = TraceContext::generate();
        let child = context.child();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child, context);
        assert_eq!(child.to_string().parse(), Ok(child));
    }

    #[test]
    fn nonsense_begins_a_new_trace() {
        assert_ne!(
            TraceContext::from_header(Some("nonsense")),
            TraceContext::from_header(None)
        );
        assert_eq!(TraceContext::from_header(Some(EXAMPLE)).to_string(), EXAMPLE);
    }
}
