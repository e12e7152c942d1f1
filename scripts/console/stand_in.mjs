// A stand-in for the console's stream: states into which no cluster is brought for a check. Runs in the page.

/** Nothing comes. */
export function silentStream() {
    window.EventSource = class extends EventTarget {
        static CLOSED = 2;
        readyState = 1;
        close() {}
    };
}

/** Each second the same state, with the current time. */
export function streamOf(state) {
    window.EventSource = class extends EventTarget {
        static CLOSED = 2;
        readyState = 1;
        constructor() {
            super();
            const send = (type, data) => this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data) }));
            setTimeout(() => send('history', { points: [] }), 0);
            this.timer = setInterval(() => send('state', { ...state, at: new Date().toISOString(), point: { ...state.point, at: Date.now() / 1000 } }), 200);
        }
        close() {
            clearInterval(this.timer);
        }
    };
}

const station = (name, rest = {}) => ({ name, state: 'well', problems: [], replicas: [], figures: [], ...rest });

/** A text that would be seen as markup if it got into the page as such. */
export const MARKUP = '<img src="/nothing.png"> & <b>bold</b>';

/** Two replicas of which one is away, figures that nobody tells, dead letters, refusals, a currency without a price. */
export const TROUBLE = {
    stations: [
        station('btc_price', { state: 'away', problems: [{ text: 'btc_price does not answer', help: 'a-service-is-not-ready-or-down' }] }),
        station('create_buy_order', {
            state: 'trouble',
            problems: [{ text: '172.18.0.6:8080 does not answer', help: 'a-service-is-not-ready-or-down' }],
            replicas: [
                { address: '172.18.0.5:8080', state: 'well', text: '' },
                { address: '172.18.0.6:8080', state: 'away', text: 'does not answer' },
            ],
            figures: [{ name: 'accepted', value: 1234.5, unit: '/s' }],
        }),
        station('write_model'),
        station('outbox', { state: 'unknown', problems: [{ text: 'create_buy_order does not tell', help: null }], figures: [{ name: 'messages', value: null, unit: '' }] }),
        station('queue'),
        station('read_model_sync', { figures: [{ name: 'lag p99', value: 0.045, unit: 's' }] }),
        station('read_model'),
        station('fetch_buy_orders'),
        station('migration'),
    ],
    book: { total_btc: null, left_btc: null },
    prices: [
        { currency: 'EUR', rate: '44561.10000000', age_s: 0.4 },
        { currency: 'GBP', rate: null, age_s: null },
    ],
    refusals: [{ reason: 'no_price', per_s: 0.4 }],
    dead_letters: { ready: 1, recent: [{ failed_at: '2026-11-28T23:39:12.123456Z', message_id: null, type: null, reason: MARKUP }] },
    point: { accepted: 1234.5, repeated: 0, refused: 0.4, projected: 0, pages: null, lag_p50_s: null, lag_p99_s: null, outbox: null, outbox_age_s: null, queue: 3, dead_letters: 1 },
};
