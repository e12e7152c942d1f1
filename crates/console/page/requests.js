// The two requests that this page makes in the name of the person: as any client would, but in a trace that the console keeps.

import { byId } from './dom.js';

function randomHex(bytes) {
    return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A random UUID. Browsers offer randomUUID on https and on localhost only. */
export function newKey() {
    if (crypto.randomUUID) return crypto.randomUUID();
    const hex = randomHex(16);
    const variant = '89ab'[parseInt(hex[16], 16) % 4];
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
}

export const newTraceId = () => randomHex(16);

/** W3C Trace Context. Without the flag, the services keep the id in their logs and record no spans. */
const traceparent = (traceId, isRecorded) => `00-${traceId}-${randomHex(8)}-${isRecorded ? '01' : '00'}`;

function withToken(headers) {
    const token = byId('token').value.trim();
    return token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
}

/** The answer of the console or of a service. Status 0: there was no answer. */
async function ask(path, options) {
    try {
        const response = await fetch(path, { cache: 'no-store', ...options });
        const text = await response.text();
        let body = null;
        try {
            body = JSON.parse(text);
        } catch {
            // What is not JSON is not an answer of a service: its status says enough.
        }
        return { status: response.status, headers: response.headers, body };
    } catch {
        return { status: 0, headers: new Headers(), body: { detail: 'the console does not answer' } };
    }
}

export const putOrder = (order, traceId) =>
    ask('/buy_order', {
        method: 'PUT',
        headers: withToken({ 'Content-Type': 'application/json', traceparent: traceparent(traceId, true) }),
        body: JSON.stringify(order),
    });

/** The first page. With a position, it waits for that order, at most 2 s. */
export const getOrders = (pageSize, { position, traceId, isRecorded, signal } = {}) =>
    ask(`/buy_orders?page_size=${pageSize}`, {
        signal,
        headers: withToken(position ? { 'Order-Position': position, traceparent: traceparent(traceId, isRecorded) } : {}),
    });

export const getJourney = (traceId) => ask(`/journeys/${traceId}`);

/** What an answer says is wrong, in words: `detail` is a sentence, or a list with an item for each faulty field. */
export function detailOf({ status, body }) {
    const detail = body?.detail;
    if (typeof detail === 'string') return detail;
    if (Array.isArray(detail)) return detail.map(({ loc, msg }) => `${(loc ?? []).at(-1) ?? 'request'}: ${msg}`).join('; ');
    return `HTTP ${status}`;
}

/** For how long the answer asks to wait. */
export const retryAfterS = ({ headers }) => Math.min(30, Math.max(1, Number(headers.get('Retry-After')) || 2));

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
