//! Records: the fields of an event.

use rmp_serde::encode::write_named;
use serde::Serialize;

/// A map of names to values, encoded as MessagePack while it is filled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(crate) len: u32,
    pub(crate) encoded: Vec<u8>,
}

impl Record {
    /// A record without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field; a name must not be added twice. A value that MessagePack cannot hold is left out.
    pub fn insert(&mut self, name: &str, value: impl Serialize) {
        let start = self.encoded.len();
        let written =
            write_named(&mut self.encoded, name).and_then(|()| write_named(&mut self.encoded, &value));
        match written {
            Ok(()) => self.len += 1,
            Err(_) => self.encoded.truncate(start),
        }
    }

    /// [`insert`](Self::insert) for chains.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.insert(name, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use serde::Serializer;

    use super::*;

    fn encoded(value: impl Serialize) -> Vec<u8> {
        let record = Record::new().with("k", value);
        assert_eq!((record.len, &record.encoded[..2]), (1, &b"\xa1k"[..]));
        record.encoded[2..].to_vec()
    }

    #[test]
    fn values_take_the_shortest_form_of_messagepack() {
        assert_eq!(encoded(None::<bool>), [0xc0]);
        assert_eq!(encoded(false), [0xc2]);
        assert_eq!(encoded(true), [0xc3]);
        assert_eq!(encoded(127_u64), [0x7f]);
        assert_eq!(encoded(128_i64), [0xcc, 0x80]);
        assert_eq!(encoded(-1_i64), [0xff]);
        assert_eq!(encoded(-33_i64), [0xd0, 0xdf]);
        assert_eq!(encoded(i64::MIN), [0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            encoded(u64::MAX),
            [0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
        );
        assert_eq!(encoded(1.5), [0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded("é"), [0xa2, 0xc3, 0xa9]);
        assert_eq!(encoded("x".repeat(32))[..2], [0xd9, 32]);
        assert_eq!(encoded(vec!["a", "b"]), *b"\x92\xa1a\xa1b");
        assert_eq!(encoded(serde_json::json!({"k": [1]})), *b"\x81\xa1k\x91\x01");
    }

    #[test]
    fn fields_keep_their_order_and_a_value_that_cannot_be_encoded_is_left_out() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("broken"))
            }
        }
        let record = Record::new().with("b", 1).with("broken", Broken).with("a", "x");
        assert_eq!(
            (record.len, &record.encoded[..]),
            (2, &b"\xa1b\x01\xa1a\xa1x"[..])
        );
    }
}
