//! `X-Forwarded-For`: the address of the client, as the proxy in front of the service says.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};

const HEADER: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of a client, kept in the context in which its request is handled. It is for the log only: where no proxy replaces the header, a
/// client may write into it what it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// The last address of the list, which the nearest proxy has added. `None` if it is no address.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let last = headers.get_all(HEADER).iter().next_back()?.to_str().ok()?;
        let address = last.rsplit(',').next()?.trim().parse();
        address.map(Self).ok()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn address_of(lines: &[&str]) -> Option<String> {
        let values = lines.iter().filter_map(|line| HeaderValue::from_str(line).ok());
        let headers: HeaderMap = values.map(|value| (HEADER, value)).collect();
        ClientAddress::from_headers(&headers).map(|address| address.0.to_string())
    }

    #[test]
    fn it_is_the_last_address_of_the_last_line() {
        for (lines, address) in [
            (&["192.0.2.7"][..], "192.0.2.7"),
            (&["10.0.0.1, 192.0.2.7"], "192.0.2.7"),
            (&["10.0.0.1,2001:db8::7 "], "2001:db8::7"),
            (&["10.0.0.1", "192.0.2.7"], "192.0.2.7"),
        ] {
            assert_eq!(address_of(lines).as_deref(), Some(address), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        for lines in [
            &[][..],
            &[""],
            &["192.0.2.7,"],
            &["unknown"],
            &["192.0.2.7:80"],
            &["192.0.2.7 <script>"],
        ] {
            assert_eq!(address_of(lines), None, "{lines:?}");
        }
    }
}
