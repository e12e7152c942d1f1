//! Finds messages of a PostgreSQL client that commit: a `COMMIT`, or a call of `accept_orders` or `void_order`, which is a transaction of its
//! own.

use std::collections::HashSet;

const QUERY: u8 = b'Q';
const PARSE: u8 = b'P';
const BIND: u8 = b'B';
const SYNC: u8 = b'S';
const COMMIT: &[u8] = b"COMMIT\0";
const CALLS: [&[u8]; 2] = [b"FROM accept_orders(", b"FROM void_order("];
/// Length of a message's header: the type, and the length of the message without the type.
const HEADER: usize = 5;
/// Length of the header of the first message, which has no type: its length, and the version or a request code.
const START: usize = 8;
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
/// The bytes at the beginning of a message that are inspected.
const INSPECTED: usize = 512;

/// The beginning of `ReadyForQuery`, with which the server ends an answer. One byte follows.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];

/// The state of the parser of a client's stream. A stream of another protocol does no harm.
#[derive(Debug, Default)]
pub(super) struct CommitFinder {
    /// The first message has been seen.
    started: bool,
    /// The beginning of the current message, until it is known how much can be skipped.
    head: Vec<u8>,
    /// Bytes of the current message to skip.
    skip: usize,
    /// Names of the prepared statements that commit.
    committing: HashSet<Vec<u8>>,
    /// Whether one of them is bound, and so is executed at the next `Sync`.
    is_bound: bool,
}

impl CommitFinder {
    /// Whether a message that commits ends within these bytes, which follow those of the last call.
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
            found |= self.decide();
        }
        found
    }

    /// Handles the head once it is complete. Returns whether the message commits.
    fn decide(&mut self) -> bool {
        if !self.started {
            if self.head.len() == START {
                self.started = !ENCRYPTION_REQUESTS.contains(&self.number_at(4));
                self.skip = self.length_at(0).saturating_sub(START);
                self.head.clear();
            }
            return false;
        }
        if self.head.len() < HEADER {
            return false;
        }
        let length = self.length_at(1).saturating_add(1).max(HEADER);
        let inspected = match self.head[0] {
            QUERY | PARSE | BIND => length.min(INSPECTED),
            _ => HEADER,
        };
        if self.head.len() < inspected {
            return false;
        }
        let commits = self.commits();
        self.skip = length - self.head.len();
        self.head.clear();
        commits
    }

    fn commits(&mut self) -> bool {
        let body = self.head.get(HEADER..).unwrap_or_default();
        let (name, rest) = text(body);
        match self.head[0] {
            QUERY => body.eq_ignore_ascii_case(COMMIT),
            PARSE => {
                let (statement, _) = text(rest);
                let calls = |call: &&[u8]| statement.windows(call.len()).any(|part| part == *call);
                let commits = CALLS.iter().any(calls);
                if commits {
                    self.committing.insert(name.to_vec());
                } else {
                    self.committing.remove(name);
                }
                false
            }
            // The first text is the name of the portal, the second that of the statement.
            BIND => {
                self.is_bound |= self.committing.contains(text(rest).0);
                false
            }
            SYNC => std::mem::take(&mut self.is_bound),
            _ => false,
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

/// Splits a zero-terminated text from the rest.
fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[]),
    }
}

/// Finds the end of an answer of the server. A long answer begins before the commit.
#[derive(Debug, Default)]
pub(super) struct AnswerEnd(Vec<u8>);

impl AnswerEnd {
    /// Whether an answer ends with these bytes, which follow those of the last call.
    pub(super) fn is_reached(&mut self, bytes: &[u8]) -> bool {
        self.0.extend(bytes);
        self.0.drain(..self.0.len().saturating_sub(READY.len() + 1));
        self.0.starts_with(&READY)
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
        let ssl_request = [8_u32.to_be_bytes(), ENCRYPTION_REQUESTS[0].to_be_bytes()].concat();
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
    fn a_call_that_writes_is_found_when_all_of_it_is_sent() {
        let void = b"s_3\0SELECT verdict FROM void_order($1, $2)\0\0\0";
        let accept = b"s_1\0SELECT index FROM accept_orders($1)\0\0\0";
        let other = b"s_2\0SELECT 1\0\0\0";
        let sync = message(SYNC, b"");
        let prepare = |statement: &[u8]| [message(PARSE, statement), sync.clone()].concat();
        let execute = |name: &[u8]| {
            [
                message(BIND, &[b"\0", name, &[0; 600]].concat()),
                message(b'E', b"\0\0\0\0\0"),
            ]
            .concat()
        };
        let mut finder = CommitFinder::default();
        for nothing in [
            start(),
            prepare(accept),
            prepare(other),
            execute(b"s_2\0"),
            sync.clone(),
            execute(b"s_1\0"),
        ] {
            assert!(!finder.finds_commit(&nothing), "{nothing:?}");
        }
        assert!(finder.finds_commit(&sync));
        assert!(!finder.finds_commit(&sync), "once");
        assert!(finder.finds_commit(&[prepare(void), execute(b"s_3\0"), sync.clone()].concat()));
        // The name is given to another statement.
        let renamed = b"s_1\0SELECT 1\0\0\0";
        assert!(!finder.finds_commit(&[prepare(renamed), execute(b"s_1\0"), sync].concat()));
    }

    #[test]
    fn an_answer_has_ended_when_the_server_waits_for_the_next_message() {
        let answer = [
            &message(b'D', &[1; 100])[..],
            &message(b'C', b"SELECT 1\0"),
            &message(b'Z', b"I"),
        ]
        .concat();
        let mut whole = AnswerEnd::default();
        assert!(whole.is_reached(&answer));
        let mut end = AnswerEnd::default();
        let (last, first) = answer.split_last().unwrap_or((&0, &[]));
        assert!(first.iter().all(|byte| !end.is_reached(&[*byte])));
        assert!(end.is_reached(&[*last]));
    }

    #[test]
    fn another_protocol_is_followed_without_harm() {
        let mut finder = CommitFinder::default();
        assert!(!finder.finds_commit(b"GET / HTTP/1.1\r\n\r\nCOMMIT\0"));
        assert!(!finder.finds_commit(&[0; 1000]));
        assert!(!finder.finds_commit(&[255; 1000]));
    }
}
