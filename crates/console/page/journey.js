// From the spans of an order's trace to its stops in the picture, and to the timeline.

import { byId, element } from './dom.js';
import { milliseconds } from './format.js';

const end = (span) => span.began_ms + span.duration_ms;

/** What failed is tried again, and the last good try counts. */
const find = (spans, service, prefix) => spans.findLast((span) => span.service === service && span.name.startsWith(prefix) && !span.failed);

/** The spans that the stops are read from. Each may be missing. */
export function landmarks(spans) {
    return {
        put: find(spans, 'create_buy_order', 'PUT /buy_order'),
        quote: find(spans, 'btc_price', 'GET /buy'),
        accept: find(spans, 'create_buy_order', 'SELECT accept_orders'),
        publish: find(spans, 'create_buy_order', 'publish '),
        process: find(spans, 'read_model_sync', 'process '),
        page: find(spans, 'fetch_buy_orders', 'GET /buy_orders'),
    };
}

export const isComplete = ({ put, accept, publish, process, page }) => Boolean(put && accept && publish && process && page);

/** Clocks of two processes may differ by a little: no wait is negative. */
const wait = (from, to) => Math.max(0, to - from);

const passed = (station, atMs, tookMs, title) => ({
    station,
    isPassed: true,
    text: tookMs === null ? `at ${milliseconds(atMs)}` : `at ${milliseconds(atMs)}, took\u00a0${milliseconds(tookMs)}`,
    title,
});
const waiting = (station, text) => ({ station, isPassed: false, text });

/**
 * A stop for each part that the order has reached: when it came there after create_buy_order got the request, and how long it stayed.
 * `seen`: `answeredMs` and `shownMs`, as measured by this page from the click; null for what has not happened yet. `hasWaitedForSpans`: no
 * spans may come.
 */
export function stopsOf(spans, seen) {
    const { put, quote, accept, publish, process, page } = landmarks(spans);
    const start = put?.began_ms ?? 0;
    const at = (ms) => wait(start, ms);
    const stops = [];
    if (seen.answeredMs !== null) {
        stops.push({ station: 'client', isPassed: true, text: `answered after ${milliseconds(seen.answeredMs)}`, title: 'From the click to the answer, measured by this page' });
    }
    if (put) {
        stops.push(passed('create_buy_order', 0, put.duration_ms, 'From the request to its answer'));
        if (!quote) stops.push({ station: 'btc_price', isPassed: false, text: 'not asked: the last quote is fresh' });
    }
    if (quote) stops.push(passed('btc_price', at(quote.began_ms), quote.duration_ms, 'From its request to its quote'));
    if (accept) {
        stops.push(passed('write_model', at(accept.began_ms), accept.duration_ms, 'From the hand-over to the writer to the commit'));
        const left = publish?.began_ms;
        stops.push(left === undefined ? waiting('outbox', `since ${milliseconds(at(end(accept)))}`) : passed('outbox', at(end(accept)), wait(end(accept), left), 'From the commit until the relay took the message'));
    }
    if (publish) {
        const left = process?.began_ms;
        stops.push(left === undefined ? waiting('queue', `since ${milliseconds(at(publish.began_ms))}`) : passed('queue', at(publish.began_ms), wait(publish.began_ms, left), 'From the relay until the projector took the message'));
    }
    if (process) {
        stops.push(passed('read_model_sync', at(process.began_ms), process.duration_ms, 'From the delivery to the commit'));
        stops.push(passed('read_model', at(end(process)), null, 'Committed there'));
    }
    if (page) stops.push(passed('fetch_buy_orders', at(page.began_ms), page.duration_ms, 'The page that waited for this order'));
    // Not before the parts on the way, whose spans come a moment later.
    if (seen.shownMs !== null && (page || seen.hasWaitedForSpans)) {
        stops.push({ station: 'page', isPassed: true, text: `shown after ${milliseconds(seen.shownMs)}`, title: 'From the click until this page showed the order' });
    }
    return stops;
}

/** A row for each span: who, what, when, how long. */
export function showTimeline(spans) {
    const first = Math.min(...spans.map((span) => span.began_ms));
    const total = Math.max(...spans.map(end)) - first || 1;
    byId('timeline').replaceChildren(
        ...[...spans]
            .sort((a, b) => a.began_ms - b.began_ms)
            .map((span) => {
                const bar = element('span', { class: 'bar' });
                bar.style.left = `${(100 * (span.began_ms - first)) / total}%`;
                bar.style.width = `${(100 * span.duration_ms) / total}%`;
                return element(
                    'li',
                    { 'data-service': span.service, class: span.failed ? 'failed' : null },
                    element('span', { class: 'what' }, element('b', {}, span.service), ` ${span.name}${span.failed ? ' (failed)' : ''}`),
                    element('span', { class: 'when' }, `at ${milliseconds(span.began_ms - first)}, took ${milliseconds(span.duration_ms)}`),
                    element('span', { class: 'track', 'aria-hidden': 'true' }, bar),
                );
            }),
    );
}
