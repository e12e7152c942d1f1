//! Encodes events and messages of the forward protocol, version 1:
//! <https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1>.

use std::time::{SystemTime, UNIX_EPOCH};

use rmp::encode::{
    ByteBuf, write_array_len, write_bin_len, write_ext_meta, write_map_len, write_str, write_uint,
};

use crate::record::Record;

const EVENT_TIME_EXT_TYPE: i8 = 0;
const EVENT_TIME_BYTES: u32 = 8;

/// One event of a PackedForward entry stream: `[EventTime, record]`.
pub(crate) fn event(time: SystemTime, record: &Record) -> Vec<u8> {
    const HEADER_BYTES: usize = 16;
    let mut out = ByteBuf::with_capacity(HEADER_BYTES + record.encoded.len());
    let Ok(_) = write_array_len(&mut out, 2);
    write_event_time(&mut out, time);
    let Ok(_) = write_map_len(&mut out, record.len);
    out.as_mut_vec().extend_from_slice(&record.encoded);
    out.into_vec()
}

/// A PackedForward message: `[tag, entries, {"chunk": id, "size": events}]`, which the server answers with
/// `{"ack": id}`.
pub(crate) fn packed_forward(tag: &str, entries: &[&[u8]], chunk_id: &str) -> Vec<u8> {
    let bytes: usize = entries.iter().map(|entry| entry.len()).sum();
    let mut out = ByteBuf::with_capacity(bytes + tag.len() + 64);
    let Ok(_) = write_array_len(&mut out, 3);
    let Ok(()) = write_str(&mut out, tag);
    // Fits: the buffer closes batches at about 1 MiB.
    let Ok(_) = write_bin_len(&mut out, u32::try_from(bytes).unwrap_or(u32::MAX));
    for entry in entries {
        out.as_mut_vec().extend_from_slice(entry);
    }
    let Ok(_) = write_map_len(&mut out, 2);
    let Ok(()) = write_str(&mut out, "chunk");
    let Ok(()) = write_str(&mut out, chunk_id);
    let Ok(()) = write_str(&mut out, "size");
    let Ok(_) = write_uint(&mut out, entries.len() as u64);
    out.into_vec()
}

/// Seconds and nanoseconds since 1970, 4 bytes each. Times before 1970 or after 2106 become the nearest time within.
fn write_event_time(out: &mut ByteBuf, time: SystemTime) {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (
            u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
            since.subsec_nanos(),
        ),
        Err(_) => (0, 0),
    };
    let Ok(_) = write_ext_meta(out, EVENT_TIME_BYTES, EVENT_TIME_EXT_TYPE);
    out.as_mut_vec().extend_from_slice(&seconds.to_be_bytes());
    out.as_mut_vec().extend_from_slice(&nanos.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_is_event_time_and_record() {
        let time = UNIX_EPOCH + Duration::new(1_441_588_984, 123_456_789);
        let record = Record::new().with("message", "foo");
        // 0xd7 0x00: the specification's fixext 8 of type 0; 1441588984 = 0x55ece6f8, 123456789 = 0x075bcd15.
        let mut expected = vec![0x92, 0xd7, 0x00, 0x55, 0xec, 0xe6, 0xf8, 0x07, 0x5b, 0xcd, 0x15];
        expected.extend_from_slice(b"\x81\xa7message\xa3foo");
        assert_eq!(event(time, &record), expected);
    }

    #[test]
    fn times_outside_of_32_bits_become_the_nearest_inside() {
        let before = event(UNIX_EPOCH - Duration::from_secs(1), &Record::new());
        assert_eq!(before, [0x92, 0xd7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
        let after = event(UNIX_EPOCH + Duration::new(1 << 33, 5), &Record::new());
        assert_eq!(after, [0x92, 0xd7, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 5, 0x80]);
    }

    #[test]
    fn a_packed_forward_message_is_tag_entries_and_options() {
        let message = packed_forward("tag.name", &[b"\x92\x01\x80", b"\x92\x02\x80"], "cDg0YjNhMTI=");
        let mut expected = b"\x93\xa8tag.name\xc4\x06\x92\x01\x80\x92\x02\x80".to_vec();
        expected.extend_from_slice(b"\x82\xa5chunk\xaccDg0YjNhMTI=\xa4size\x02");
        assert_eq!(message, expected);
    }

    #[test]
    fn long_entry_streams_use_wider_bin_headers() {
        let entry = vec![0x80; 300];
        assert!(packed_forward("t", &[&entry], "c").starts_with(b"\x93\xa1t\xc5\x01\x2c\x80"));
        let entry = vec![0x80; 70_000];
        assert!(packed_forward("t", &[&entry], "c").starts_with(b"\x93\xa1t\xc6\x00\x01\x11\x70\x80"));
    }
}
