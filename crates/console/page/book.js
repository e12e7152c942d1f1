// The newest orders, as they are projected.

import { byId, element, setChildren, setText } from './dom.js';
import { age, btc, money, timeOfDay } from './format.js';
import { detailOf, getOrders } from './requests.js';

export const PAGE_SIZE = 12;
const READ_EVERY_MS = 1000;
const READ_FAILED_EVERY_MS = 3000;
const NEW_FOR_MS = 2500;

const ownIds = new Set();
let rowsById = new Map();
let lastRead = -Infinity;
let shownAt = null;
let isReading = false;
let isStale = true;
let failure = null;
let needsToken = false;

/** The book says from now on that this order is the person's own. */
export function markOwn(id) {
    ownIds.add(id);
    rowsById.get(id)?.classList.add('own');
    isStale = true;
}

/** With each state: reads the first page again if it may have changed, at most once a second. */
export function refreshBook(state) {
    if (state.point.projected > 0 && !needsToken) isStale = true;
    const now = performance.now();
    if (isStale && !isReading && now - lastRead > (failure === null ? READ_EVERY_MS : READ_FAILED_EVERY_MS) - 100) void readBook(now);
    describe();
}

/** What was read may be old: after the console was away, and with another token. */
export const rereadBook = () => {
    isStale = true;
};

async function readBook(now) {
    isReading = true;
    lastRead = now;
    const answer = await getOrders(PAGE_SIZE, { signal: AbortSignal.timeout(10_000) });
    isReading = false;
    if (answer.status === 200) {
        isStale = false;
        showBook(answer.body.rows);
    } else {
        needsToken = answer.status === 401;
        if (needsToken) isStale = false;
        failure = needsToken ? 'a token is needed. Place an order with one, and the newest orders are shown, too' : detailOf(answer);
        describe();
    }
}

export function showBook(orders) {
    failure = null;
    needsToken = false;
    const isFirst = shownAt === null;
    shownAt = performance.now();
    const rows = new Map();
    for (const order of orders) {
        const row = rowsById.get(order.id) ?? makeRow(order, !isFirst);
        row.classList.toggle('own', ownIds.has(order.id));
        rows.set(order.id, row);
    }
    rowsById = rows;
    setChildren(byId('book-rows'), [...rows.values()]);
    byId('book').hidden = rows.size === 0;
    byId('book').classList.toggle('many-new', 2 * byId('book-rows').querySelectorAll('.new').length > rows.size);
    describe();
}

function makeRow(order, isNew) {
    const row = element(
        'tr',
        { 'data-id': order.id },
        element('td', { title: order.created_at }, timeOfDay(order.created_at), element('span', { class: 'own-mark' }, 'yours')),
        element('td', { class: 'number', title: order.currency_amount }, `${money(order.currency_amount)} ${order.currency}`),
        element('td', { class: 'number' }, btc(order.btc_amount)),
        element('td', { class: 'number rate', title: order.btc_rate }, money(order.btc_rate)),
        element('td', { class: 'id', title: order.id }, order.id.slice(0, 8)),
    );
    if (isNew) {
        row.classList.add('new');
        setTimeout(() => row.classList.remove('new'), NEW_FOR_MS);
    }
    return row;
}

function describe() {
    const hint = byId('book-hint');
    if (failure !== null) {
        const old = shownAt === null ? '' : ` What is below is ${age((performance.now() - shownAt) / 1000)} old.`;
        setText(hint, `The newest orders cannot be read: ${failure}.${old}`);
    } else if (shownAt !== null) {
        setText(hint, rowsById.size === 0 ? 'No orders yet. Place the first one.' : `The newest ${rowsById.size}, as they are projected.`);
    }
    hint.classList.toggle('failed', failure !== null);
}
