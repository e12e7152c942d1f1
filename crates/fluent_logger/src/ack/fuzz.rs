//! What is promised of every answer of a server.

use super::{MAX_BYTES, Unexpected, take};

/// However an answer is cut into pieces on its way, the same acknowledgements and the same fault are read.
///
/// # Panics
///
/// If that is not so.
pub fn ack(data: &[u8]) {
    // A longer one that is incomplete is a fault.
    let data = data.get(..MAX_BYTES).unwrap_or(data);
    let whole = read(data.chunks(MAX_BYTES));
    assert_eq!(read(data.chunks(1)), whole);
    assert_eq!(read(data.chunks(7)), whole);
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Option<Unexpected>) {
    let (mut acks, mut received) = (Vec::new(), Vec::new());
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            match take(&mut received) {
                Ok(Some(ack)) => acks.push(ack),
                Ok(None) => break,
                Err(fault) => return (acks, Some(fault)),
            }
        }
    }
    (acks, None)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("ack", super::ack);
    }
}
