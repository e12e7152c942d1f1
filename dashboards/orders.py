"""Orders as their clients see them: rate, errors, duration."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from panels import Panel, Query, Row, Unit, dashboard, of, quantiles, rate

_CLIENTS = 'service=~"create_buy_order|fetch_buy_orders"'
_ANSWERS = of("http_requests_total", _CLIENTS)
_FAILED = of("http_requests_total", _CLIENTS, 'status=~"5.."')

_RATE = Row(
    "Rate",
    (
        Panel(
            "Orders",
            Unit.REQUESTS_PER_SECOND,
            "Orders that were committed, and repeats that got the answer of their order, by replica of create_buy_order.",
            (
                Query(f"sum by (instance) ({rate(of('buy_orders_created_total'))})", "created {{instance}}"),
                Query(f"sum by (instance) ({rate(of('buy_orders_replayed_total'))})", "repeated {{instance}}"),
            ),
        ),
        Panel(
            "Answers to orders",
            Unit.REQUESTS_PER_SECOND,
            "Answers to PUT /buy_order, by status. 4xx: the client can mend it. 503: something is away, and the client may repeat the request.",
            (Query(f"sum by (status) ({rate(of('http_requests_total', route='/buy_order'))})", "{{status}}"),),
            stacked=True,
        ),
        Panel(
            "Pages",
            Unit.REQUESTS_PER_SECOND,
            "Pages of orders that were served, by replica of fetch_buy_orders.",
            (Query(f"sum by (instance) ({rate(of('buy_order_pages_served_total'))})", "{{instance}}"),),
        ),
    ),
)

_ERRORS = Row(
    "Errors",
    (
        Panel(
            "Refused orders",
            Unit.REQUESTS_PER_SECOND,
            "Orders that were refused, by reason. Alerts: OrdersNotWritten, OrdersWithoutPrice.",
            (Query(f"sum by (reason) ({rate(of('buy_orders_refused_total'))})", "{{reason}}"),),
        ),
        Panel(
            "Share of answers 5xx",
            Unit.RATIO,
            "The part of all answers to clients that says that this system cannot do it now (503) or has a fault (500).",
            (Query(f"(sum({rate(_FAILED)}) or vector(0)) / sum({rate(_ANSWERS)})", "5xx"),),
        ),
        Panel(
            "Requests without a valid token",
            Unit.REQUESTS_PER_SECOND,
            "Requests that were refused with 401 or 403, by reason. Always 0 with AUTH_MODE=none.",
            (Query(f"sum by (reason) ({rate(of('requests_not_authorized_total'))})", "{{reason}}"),),
        ),
    ),
)

_DURATION = Row(
    "Duration",
    (
        Panel(
            "Duration of an order",
            Unit.SECONDS,
            "From the request PUT /buy_order to its answer, by replica.",
            quantiles("http_request_duration_seconds", route="/buy_order"),
        ),
        Panel(
            "Duration of a page",
            Unit.SECONDS,
            "From the request GET /buy_orders to its answer, by replica. It includes up to 2 s of waiting for a client's own order.",
            quantiles("http_request_duration_seconds", route="/buy_orders"),
        ),
        Panel(
            "Waiting for an own order",
            Unit.SECONDS,
            "How long pages with the header Order-Position wait until that order is in the read model, by outcome.",
            quantiles("order_position_wait_seconds", outcome="projected"),
        ),
    ),
)

_BOOK = Row(
    "Book and prices",
    (
        Panel(
            "BTC left in the book",
            Unit.BTC,
            "What is left until the book of 100 BTC is full. Alert: CapNearlyReached.",
            (Query(f"min({of('order_book_left_btc')})", "left"),),
            newest_only=True,
        ),
        Panel(
            "Requests for prices",
            Unit.REQUESTS_PER_SECOND,
            "Requests to Coinbase, by outcome: all but `price` are failures. Alerts: NoPrices, PriceDeviates, CoinbaseRateLimits.",
            (Query(f"sum by (outcome) ({rate(of('coinbase_requests_total'))})", "{{outcome}}"),),
        ),
        Panel(
            "Age of prices",
            Unit.SECONDS,
            "Age of the last good price, by replica of btc_price. It grows while nobody asks: only with requests for prices it is a fault.",
            (Query(f"max by (currency, instance) ({of('quote_age_seconds')})", "{{currency}} {{instance}}"),),
        ),
    ),
)


def made() -> Dashboard:
    return dashboard(
        "pydist-orders",
        "Orders",
        "Orders and pages as clients see them: rate, errors, duration.",
        (_RATE, _ERRORS, _DURATION, _BOOK),
    )
