// The small panels: the cap of the book, prices, refusals, dead letters.

import { byId, element, help, render, setText } from './dom.js';
import { UNKNOWN, btc, count, money, rate, seconds, timeOfDay } from './format.js';

export function showPanels(state) {
    showCap(state.book);
    showCurrencies(state.prices);
    showPrices(state.prices);
    showRefusals(state.refusals);
    showDeadLetters(state.dead_letters);
}

const CAP_BTC = 100;
const NOT_KNOWN = 'This figure is not known now: create_buy_order does not tell it, because it or write_model does not answer.';

function showCap({ total_btc: total, left_btc: left }) {
    const isKnown = total !== null;
    setText(byId('book-total'), isKnown ? `${btc(total)} BTC` : UNKNOWN);
    setText(byId('book-left'), left === null ? UNKNOWN : `${btc(left)} BTC`);
    byId('book-total').title = isKnown ? '' : NOT_KNOWN;
    byId('book-left').title = left === null ? NOT_KNOWN : '';
    const gauge = byId('gauge');
    // The width of a bar may be a float. The amounts above are text.
    const percent = isKnown ? Math.min(100, (100 * Number(total)) / CAP_BTC) : 0;
    gauge.classList.toggle('is-unknown', !isKnown);
    gauge.setAttribute('aria-valuenow', percent.toFixed(2));
    gauge.setAttribute('aria-valuetext', isKnown ? `${btc(total)} of ${CAP_BTC} BTC` : 'not known');
    byId('gauge-bar').style.width = `${percent}%`;
}

function showCurrencies(prices) {
    const select = byId('currency');
    const codes = prices.map(({ currency }) => currency);
    if (codes.length === 0 || codes.join() === [...select.options].map((option) => option.value).join()) return;
    const chosen = select.value;
    select.replaceChildren(...codes.map((code) => element('option', {}, code)));
    if (codes.includes(chosen)) select.value = chosen;
}

function showPrices(prices) {
    render(byId('prices'), prices, () =>
        prices.map(({ currency, rate: price, age_s: age }) => {
            const title = price === null ? 'btc_price has quoted none since it started, or does not answer.' : null;
            return element(
                'tr',
                {},
                element('th', { scope: 'row' }, currency),
                element('td', { class: 'number', title: title ?? price }, price === null ? UNKNOWN : money(price)),
                element('td', { class: 'number', title }, age === null ? UNKNOWN : seconds(age)),
            );
        }),
    );
}

/** The values of the label `reason` of buy_orders_refused_total, in words, and where more is said of them. */
export const REASONS = {
    invalid: ['the request is faulty', null],
    over_cap: ['the book would pass 100 BTC', 'the-book-is-full'],
    over_client_limit: ['the client would pass its limit', 'the-book-is-full'],
    voided: ['the order was voided', null],
    too_small: ['the order is too small', 'orders-are-too-small-or-too-large'],
    too_large: ['the order is too large', 'orders-are-too-small-or-too-large'],
    rate_above_max: ['the price is above its max_rate', null],
    no_currency: ['write_model has no such currency', 'the-schema-is-older-than-a-service'],
    no_client: ['write_model has no clients', 'the-schema-is-older-than-a-service'],
    unknown_client: ['the client is unknown', 'clients-are-refused'],
    no_price: ['there is no recent price', 'no-prices'],
    not_read: ['write_model cannot be read', 'the-write-model-is-away-full-or-slow'],
    busy: ['too many orders wait for write_model', 'the-write-model-is-away-full-or-slow'],
    timed_out: ['write_model is too slow', 'the-write-model-is-away-full-or-slow'],
    stopping: ['the service is stopping', null],
    not_written: ['write_model cannot be written', 'the-write-model-is-away-full-or-slow'],
};

function showRefusals(refusals) {
    setText(byId('refusals-hint'), refusals.length === 0 ? 'No order was refused in the last 10 s.' : 'In the last 10 s, by reason:');
    render(byId('refusals'), refusals, () =>
        refusals.map(({ reason, per_s: perSecond }) => {
            const [words, id] = REASONS[reason] ?? [reason, null];
            return element('li', {}, element('span', { class: 'number' }, `${rate(perSecond)} /s`), element('span', {}, words, ' ', element('code', {}, reason), id ? ' ' : null, help(id)));
        }),
    );
}

function showDeadLetters({ ready, recent }) {
    const said =
        ready === null ? 'How many are in the queue is not known now.' : ready === 0 ? 'None is in the queue.' : `${count(ready)} ${ready === 1 ? 'is' : 'are'} in the queue.`;
    const since = recent.length === 0 ? ' None came since read_model_sync started.' : ' The latest since read_model_sync started:';
    setText(byId('dead-letters-ready'), said + since);
    byId('dead-letters').hidden = recent.length === 0;
    render(byId('dead-letters-rows'), recent, () =>
        recent.map((letter) =>
            element(
                'tr',
                {},
                element('td', { title: letter.failed_at }, timeOfDay(letter.failed_at)),
                element('td', { 'data-label': 'Type' }, letter.type ?? 'none'),
                element('td', { 'data-label': 'Message' }, letter.message_id ?? 'no id'),
                element('td', { class: 'reason' }, letter.reason),
            ),
        ),
    );
}
