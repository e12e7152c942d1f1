//! Reads the answers of a server: `{"ack": chunk}`.

use std::io::{Cursor, ErrorKind};

use rmp::Marker;
use rmp_serde::decode::Error;
use serde::Deserialize;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

/// An answer that is still incomplete after this many bytes is not an acknowledgement.
const MAX_BYTES: usize = 4096;

/// An answer that is not an acknowledgement.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unexpected {
    #[error("the server asks for authentication, which this client does not support")]
    Authentication,
    #[error("the server sent something that is not an acknowledgement")]
    NoAck,
}

/// The id may be text or binary: old versions of MessagePack do not distinguish them.
#[derive(Deserialize)]
struct Ack {
    ack: String,
}

/// Removes the first acknowledgement from `received` and returns its chunk id; `None` if it is still incomplete.
pub(crate) fn take(received: &mut Vec<u8>) -> Result<Option<String>, Unexpected> {
    if let Some(&first) = received.first()
        && matches!(Marker::from_u8(first), Marker::FixArray(_))
    {
        return Err(Unexpected::Authentication);
    }
    let mut answer = rmp_serde::Deserializer::new(Cursor::new(received.as_slice()));
    match Ack::deserialize(&mut answer) {
        Ok(Ack { ack }) => {
            let used = usize::try_from(answer.position()).unwrap_or(received.len());
            received.drain(..used);
            Ok(Some(ack))
        }
        Err(Error::InvalidMarkerRead(error) | Error::InvalidDataRead(error))
            if error.kind() == ErrorKind::UnexpectedEof && received.len() <= MAX_BYTES =>
        {
            Ok(None)
        }
        Err(_) => Err(Unexpected::NoAck),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_taken_one_by_one() {
        let mut received = b"\x81\xa3ack\xa2c1\x81\xa3ack\xc4\x02c2\x81".to_vec();
        assert_eq!(take(&mut received), Ok(Some("c1".into())));
        assert_eq!(take(&mut received), Ok(Some("c2".into())));
        assert_eq!(take(&mut received), Ok(None));
        assert_eq!(received, b"\x81");
    }

    #[test]
    fn every_cut_of_an_ack_is_incomplete() {
        let whole = b"\x82\xa1x\xa1y\xa3ack\xd9\x03abc";
        for cut in 0..whole.len() {
            assert_eq!(take(&mut whole[..cut].to_vec()), Ok(None), "cut at {cut}");
        }
        assert_eq!(take(&mut whole.to_vec()), Ok(Some("abc".into())));
    }

    #[test]
    fn other_answers_are_faults() {
        assert_eq!(
            take(&mut b"\x92\xa4HELO\x80".to_vec()),
            Err(Unexpected::Authentication)
        );
        assert_eq!(
            take(&mut b"HTTP/1.1 400 Bad Request".to_vec()),
            Err(Unexpected::NoAck)
        );
        assert_eq!(take(&mut b"\x81\xa3nak\xa1x".to_vec()), Err(Unexpected::NoAck));
        assert_eq!(take(&mut b"\x81\xa3ack\x01".to_vec()), Err(Unexpected::NoAck));
        let mut endless = b"\x81\xa3ack\xda\xff\xff".to_vec();
        endless.resize(MAX_BYTES + 1, b'x');
        assert_eq!(take(&mut endless), Err(Unexpected::NoAck));
    }
}
