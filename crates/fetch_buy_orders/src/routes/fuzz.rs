//! What is promised of every query of `GET /buy_orders`, and of every `Order-Position`.

use axum::extract::FromRequestParts as _;
use axum::http::{HeaderValue, Request, Uri};
use common::http::{ORDER_POSITION, QueryFields};
use futures_util::FutureExt as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{MAX_PAGE_SIZE, PageQuery};
use crate::page::{BuyOrder, Page};

/// A page that is asked for is within its bounds, and the `Link` of a full one asks for the page after it, of the same size. A position that is
/// accepted is the same when it is written again. The first line of the data is the query, each other one is a header.
///
/// # Panics
///
/// If that is not so.
pub fn page_query(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let target = [b"?", lines.next().unwrap_or_default()].concat();
    let Some(query) = read(&target, lines) else {
        return;
    };
    if let Some(position) = query.position {
        let again = read(b"", [position.to_string().as_bytes()]).unwrap();
        assert_eq!(again.position, Some(position));
    }
    assert!((1..=MAX_PAGE_SIZE).contains(&query.page_size));
    let last = query.last_reference.unwrap_or(Uuid::from_u128(7));
    let page = Page::of(vec![order(last); query.page_size as usize]);
    let link = page.next(query.page_size).unwrap();
    let target = link
        .strip_prefix('<')
        .and_then(|link| link.strip_suffix(">; rel=\"next\""));
    let next = read(target.unwrap().as_bytes(), []);
    assert_eq!(
        next,
        Some(PageQuery {
            last_reference: Some(last),
            page_size: query.page_size,
            position: None,
        })
    );
}

/// `None` if it is no part of a URL, a position is no header, or one is refused.
fn read<'d>(query: &[u8], positions: impl IntoIterator<Item = &'d [u8]>) -> Option<PageQuery> {
    let uri = Uri::try_from([b"/buy_orders", query].concat()).ok()?;
    let (mut parts, ()) = Request::get(uri).body(()).unwrap().into_parts();
    for position in positions {
        parts
            .headers
            .append(ORDER_POSITION, HeaderValue::from_bytes(position).ok()?);
    }
    let fields = QueryFields::from_request_parts(&mut parts, &()).now_or_never()?;
    PageQuery::read(fields.unwrap(), &parts.headers).ok()
}

fn order(id: Uuid) -> BuyOrder {
    BuyOrder {
        id,
        created_at: OffsetDateTime::UNIX_EPOCH,
        currency: "USD".into(),
        currency_amount: "1.00".into(),
        btc_rate: "48478.88000000".into(),
        btc_amount: "0.00002063".into(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("page_query", super::page_query);
    }
}
