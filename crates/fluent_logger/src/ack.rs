//! What a server says: `{"ack": chunk}`.

use rmp::Marker;
use rmp::decode::{ValueReadError, read_map_len, read_marker};

/// Longest answer that is taken for an acknowledgement still on its way.
const MAX_BYTES: usize = 4096;

/// An answer that is no acknowledgement.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unexpected {
    #[error("the server asks for authentication, which this client does not speak")]
    Authentication,
    #[error("the server sent something that is no acknowledgement")]
    NoAck,
}

/// Takes one acknowledged chunk id off the front of what was received; `None` while it is incomplete.
pub(crate) fn take(received: &mut Vec<u8>) -> Result<Option<String>, Unexpected> {
    let mut rest = received.as_slice();
    match parse(&mut rest)? {
        Some(id) => {
            let used = received.len() - rest.len();
            received.drain(..used);
            Ok(Some(id))
        }
        None if received.len() > MAX_BYTES => Err(Unexpected::NoAck),
        None => Ok(None),
    }
}

fn parse(rest: &mut &[u8]) -> Result<Option<String>, Unexpected> {
    if let Some(&first) = rest.first()
        && matches!(Marker::from_u8(first), Marker::FixArray(_))
    {
        return Err(Unexpected::Authentication);
    }
    let fields = match read_map_len(rest) {
        Ok(fields) => fields,
        Err(ValueReadError::TypeMismatch(_)) => return Err(Unexpected::NoAck),
        Err(_) => return Ok(None),
    };
    let mut ack = None;
    for _ in 0..fields {
        let Some(name) = text(rest)? else { return Ok(None) };
        let Some(value) = text(rest)? else { return Ok(None) };
        if name == b"ack" {
            ack = Some(String::from_utf8(value.to_vec()).map_err(|_| Unexpected::NoAck)?);
        }
    }
    ack.ok_or(Unexpected::NoAck).map(Some)
}

/// A text or binary string: old servers know no difference.
fn text<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Unexpected> {
    let Ok(marker) = read_marker(rest) else {
        return Ok(None);
    };
    let length_bytes = match marker {
        Marker::FixStr(_) => 0,
        Marker::Str8 | Marker::Bin8 => 1,
        Marker::Str16 | Marker::Bin16 => 2,
        _ => return Err(Unexpected::NoAck),
    };
    let Some((head, tail)) = rest.split_at_checked(length_bytes) else {
        return Ok(None);
    };
    let length = match marker {
        Marker::FixStr(length) => usize::from(length),
        _ => head
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte)),
    };
    let Some((text, tail)) = tail.split_at_checked(length) else {
        return Ok(None);
    };
    *rest = tail;
    Ok(Some(text))
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
