//! Finds `COMMIT` in what a client of PostgreSQL sends, by the framing of its messages.

const QUERY: u8 = b'Q';
const COMMIT: &[u8] = b"COMMIT\0";
/// Of a message: its type and its length, which counts itself.
const HEADER: usize = 5;
/// Of the first message, which has no type: its length and the version or a request's code.
const START: usize = 8;
const ASKS_FOR_ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

/// Where in a client's stream we are. A stream that is not PostgreSQL's is followed to no avail and no harm.
#[derive(Debug, Default)]
pub(super) struct CommitFinder {
    /// The first message has been seen.
    started: bool,
    /// The beginning of the current message, until it tells how much of it may be skipped.
    head: Vec<u8>,
    /// Bytes of the current message that are of no interest.
    skip: usize,
}

impl CommitFinder {
    /// Whether a `COMMIT` ends in these bytes, which follow those of the last call.
    pub(super) fn finds_commit(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            self.head.push(first);
            found |= self.is_commit();
            self.decide();
        }
        found
    }

    fn is_commit(&self) -> bool {
        let body = self.head.get(HEADER..).unwrap_or_default();
        self.started && self.head[0] == QUERY && body.eq_ignore_ascii_case(COMMIT)
    }

    /// Ends the head when it has told what follows.
    fn decide(&mut self) {
        if !self.started {
            if self.head.len() == START {
                self.started = !ASKS_FOR_ENCRYPTION.contains(&self.number_at(4));
                self.skip = self.length_at(0).saturating_sub(START);
                self.head.clear();
            }
            return;
        }
        if self.head.len() < HEADER {
            return;
        }
        let length = self.length_at(1).saturating_add(1).max(HEADER);
        let may_be_commit = self.head[0] == QUERY && length == HEADER + COMMIT.len();
        if !may_be_commit || self.head.len() == length {
            self.skip = length - self.head.len();
            self.head.clear();
        }
    }

    fn length_at(&self, at: usize) -> usize {
        self.number_at(at) as usize
    }

    fn number_at(&self, at: usize) -> u32 {
        let bytes = self.head.get(at..at + 4).unwrap_or_default();
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap_or_default() + 4;
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn start() -> Vec<u8> {
        let ssl_request = [8_u32.to_be_bytes(), ASKS_FOR_ENCRYPTION[0].to_be_bytes()].concat();
        let startup = [&17_u32.to_be_bytes()[..], &[0, 3, 0, 0], b"user\0q\0\0\0"].concat();
        [ssl_request, startup].concat()
    }

    #[test]
    fn a_commit_is_found_wherever_the_stream_is_cut() {
        let stream = [
            start(),
            message(b'p', b"password\0"),
            message(QUERY, b"BEGIN\0"),
            message(b'P', &[0; 70_000]),
            message(QUERY, COMMIT),
            message(b'X', b""),
        ]
        .concat();
        let end = stream.len() - message(b'X', b"").len();
        for cut in (1..200).chain(end - 20..end) {
            let mut finder = CommitFinder::default();
            assert!(!finder.finds_commit(&stream[..cut]), "cut at {cut}");
            assert!(finder.finds_commit(&stream[cut..]), "cut at {cut}");
        }
        let mut finder = CommitFinder::default();
        let found: Vec<usize> = (0..stream.len())
            .filter(|at| finder.finds_commit(&stream[*at..=*at]))
            .collect();
        assert_eq!(found, [end - 1]);
    }

    #[test]
    fn the_word_within_a_value_or_another_statement_is_no_commit() {
        let mut finder = CommitFinder::default();
        let commit = message(QUERY, COMMIT);
        let stream = [
            start(),
            message(b'B', &commit),
            message(QUERY, b"COMMIT PREPARED 'x'\0"),
            message(QUERY, b"SELECT\0"),
        ];
        assert!(!finder.finds_commit(&stream.concat()));
        assert!(finder.finds_commit(&commit));
    }

    #[test]
    fn another_protocol_is_followed_without_harm() {
        let mut finder = CommitFinder::default();
        assert!(!finder.finds_commit(b"GET / HTTP/1.1\r\n\r\nCOMMIT\0"));
        assert!(!finder.finds_commit(&[0; 1000]));
        assert!(!finder.finds_commit(&[255; 1000]));
    }
}
