// Placing an order, and watching it on its way.

import { PAGE_SIZE, markOwn, rereadBook, showBook } from './book.js';
import { byId, element, setText } from './dom.js';
import { noteOnFlow } from './flow.js';
import { btc, milliseconds, money } from './format.js';
import { isComplete, landmarks, showTimeline, stopsOf } from './journey.js';
import { continuePassage, endPassage, startPassage } from './passage.js';
import { detailOf, getJourney, getOrders, newKey, newTraceId, pause, putOrder, retryAfterS } from './requests.js';

const SPANS_EXPECTED_WITHIN_MS = 10_000;
const SPANS_AWAITED_FOR_MS = 60_000;
const MAX_LINES = 8;
const WATCHED_FOR_MS = 15 * 60_000;
// Services export their spans in batches: after the last one that the picture needs, others may still come.
const STRAGGLERS_FOR_MS = 2000;
const SHOWN_WITHOUT_SPANS_AFTER_MS = 3000;

// Only the order that was placed last is watched.
let watched = null;
let stations = [];

export function rememberStations(state) {
    stations = state.stations;
}

export function makeOrderForm() {
    byId('order-form').addEventListener('submit', (event) => {
        event.preventDefault();
        void place();
    });
    byId('give-up').addEventListener('click', giveUp);
}

function say(text, kind = null) {
    const lines = byId('progress');
    if (lines.lastElementChild?.textContent === text) return;
    lines.append(element('li', { class: kind }, text));
    // After the first two, which say what was sent and accepted, the newest count.
    if (lines.children.length > MAX_LINES) lines.children[2].remove();
}

function setBusy(isBusy) {
    // Not `disabled`: a disabled button loses the focus, and with it the place of who works by keyboard.
    byId('place').setAttribute('aria-disabled', String(isBusy));
    byId('give-up').hidden = true;
}

function giveUp() {
    if (watched) watched.isGivenUp = true;
    // The button that has the focus is about to go.
    byId('place').focus();
    setBusy(false);
    endPassage();
    say('Stopped. It is not known whether one of the tries has arrived. The next click places another order.', 'failed');
    noteOnFlow('Nothing travels.');
    setText(byId('timeline-hint'), 'There is no answer, so there is no way to show.');
}

async function place() {
    if (byId('place').getAttribute('aria-disabled') === 'true') return;
    const order = { currency: byId('currency').value, amount: byId('amount').value.trim(), idempotence_key: newKey() };
    const journey = { traceId: newTraceId(), spans: [], answeredMs: null, shownMs: null, hasWaitedForSpans: false, isGivenUp: false, clickedAt: performance.now() };
    watched = journey;
    setBusy(true);
    byId('progress').replaceChildren();
    byId('timeline').replaceChildren();
    setText(byId('timeline-hint'), 'Waiting for the first spans.');
    startPassage();
    noteOnFlow('Your order is on its way.');
    say(`Sent: ${order.amount} ${order.currency}, with the key ${order.idempotence_key}.`);
    const answer = await send(order, journey);
    if (answer && watched === journey && !journey.isGivenUp) {
        setBusy(false);
        if (answer.status === 200) await watch(answer, journey);
        else sayRefused(answer);
    }
}

const canBeRepeated = (status) => [0, 429, 502, 503, 504].includes(status);

/** Sends it until there is an answer that lasts. The key makes that safe: there is one order, however often it is sent. */
async function send(order, journey) {
    for (let tries = 1; !journey.isGivenUp; tries += 1) {
        const sentAt = performance.now();
        const answer = await putOrder(order, journey.traceId);
        journey.answeredMs = performance.now() - journey.clickedAt;
        if (!canBeRepeated(answer.status)) {
            if (tries > 1) journey.clickedAt = sentAt;
            journey.answeredMs = performance.now() - journey.clickedAt;
            return answer;
        }
        journey.answeredMs = null;
        if (journey.isGivenUp) break;
        const waitS = retryAfterS(answer);
        byId('give-up').hidden = false;
        const status = answer.status ? `Not accepted yet, HTTP ${answer.status}: ` : 'Not accepted yet: ';
        // Once, and not for each try: it is read aloud.
        say(`${status}${detailOf(answer)}. The page sends the order again with the same key, every ${waitS} s.`, 'waiting');
        noteOnFlow(tries === 1 ? 'Your order was sent once, without success yet.' : `Your order was sent ${tries} times, without success yet.`);
        await pause(1000 * waitS);
    }
    return null;
}

function sayRefused(answer) {
    noteOnFlow('The order was not accepted. Nothing travels.');
    endPassage();
    setText(byId('timeline-hint'), 'The order was not accepted, so it has no way to show.');
    if (answer.status === 401) {
        byId('token-field').hidden = false;
        byId('token').focus();
        say(`Not accepted: ${detailOf(answer)}. Put a token into the field above, and place the order again.`, 'failed');
    } else {
        say(`Not accepted, HTTP ${answer.status}: ${detailOf(answer)}.`, 'failed');
    }
}

async function watch({ body, headers }, journey) {
    const order = body.buy_order;
    const again = headers.get('Idempotent-Replayed') === 'true' ? ' An earlier try had arrived; there is one order.' : '';
    say(`Accepted after ${milliseconds(journey.answeredMs)}: ${btc(order.btc_amount)} BTC at ${money(order.btc_rate)} ${order.currency}.${again}`, 'good');
    markOwn(order.id);
    rereadBook();
    await Promise.all([watchPage(headers.get('Order-Position') ?? order.id, journey), watchSpans(journey)]);
}

const isWatched = (journey) => watched === journey && performance.now() - journey.clickedAt < WATCHED_FOR_MS;

/** Waits until the order is on the pages. */
async function watchPage(position, journey) {
    // Only the first request and the last one are recorded: the console keeps 64 spans of a trace, and a long wait must not fill them.
    let isRecorded = true;
    while (isWatched(journey)) {
        if (partThatHoldsIt()) {
            sayThatItWaits(wordsForPart(partThatHoldsIt()));
            isRecorded = false;
            await untilProjected(journey, () => !partThatHoldsIt());
            if (watched !== journey) return;
        }
        const answer = await getOrders(PAGE_SIZE, { position, traceId: journey.traceId, isRecorded });
        if (watched !== journey) return;
        if (answer.status === 200) {
            journey.shownMs = performance.now() - journey.clickedAt;
            showBook(answer.body.rows);
            showStops(journey);
            say(`On the page after ${milliseconds(journey.shownMs)}.`, 'good');
            noteOnFlow('Your order has arrived. The picture shows it slower than it was. Times count from create_buy_order; those of client and page from the click.');
            if (!isRecorded) await getOrders(PAGE_SIZE, { position, traceId: journey.traceId, isRecorded: true });
            return;
        }
        isRecorded = false;
        if (answer.status !== 0 && !canBeRepeated(answer.status)) {
            say(`Accepted. Whether it is on the pages cannot be read: ${detailOf(answer)}.`, 'failed');
            return;
        }
        sayThatItWaits(partThatHoldsIt() ? wordsForPart(partThatHoldsIt()) : 'It is on its way, and not on the pages yet');
        await pause(1000 * retryAfterS(answer));
    }
}

function sayThatItWaits(where) {
    say(`Accepted, and safe. ${where}.`, 'waiting');
    noteOnFlow('Your order is accepted and waits. It goes on by itself.');
}

/** Until its spans say that it was projected, or another reason to ask for the page again. */
async function untilProjected(journey, isEnough) {
    while (isWatched(journey) && !landmarks(journey.spans).process && !isEnough()) await pause(100);
}

const WAITS_AT = {
    queue: 'It waits in the outbox',
    read_model_sync: 'It waits in the queue',
    read_model: 'It waits in the queue',
    fetch_buy_orders: 'Whether it is on the pages cannot be read',
};

/** The part that is away, so that the order does not come to the pages now. */
function partThatHoldsIt() {
    return Object.keys(WAITS_AT).map((name) => stations.find((station) => station.name === name)).find((station) => station?.state === 'away');
}

const wordsForPart = ({ name, problems }) => `${WAITS_AT[name]}: ${problems[0]?.text ?? `${name} is away`}`;

const showStops = (journey) => continuePassage(stopsOf(journey.spans, journey));

/** Reads the spans of the trace until all have come. */
async function watchSpans(journey) {
    let completeAt = null;
    const startedAt = performance.now();
    while (isWatched(journey)) {
        const answer = await getJourney(journey.traceId);
        if (watched !== journey) return;
        if (answer.status === 404) {
            journey.hasWaitedForSpans = true;
            showStops(journey);
            setText(byId('timeline-hint'), `The console was restarted and has forgotten the trace ${journey.traceId}. No more of its spans are shown.`);
            return;
        }
        if (answer.status === 200 && answer.body.spans.length !== journey.spans.length) {
            journey.spans = answer.body.spans;
            setText(byId('timeline-hint'), `Trace ${journey.traceId}. Times count from the first span.`);
            showTimeline(journey.spans);
        }
        const now = performance.now();
        journey.hasWaitedForSpans = now - startedAt > SHOWN_WITHOUT_SPANS_AFTER_MS;
        showStops(journey);
        if (isComplete(landmarks(journey.spans))) completeAt ??= now;
        if (completeAt !== null && now - completeAt > STRAGGLERS_FOR_MS) return;
        if (journey.shownMs !== null && now - startedAt > SPANS_AWAITED_FOR_MS) return;
        if (journey.spans.length === 0 && now - startedAt > SPANS_EXPECTED_WITHIN_MS) {
            setText(
                byId('timeline-hint'),
                `No spans came here within 10 s. If OTEL_EXPORTER_OTLP_ENDPOINT is set, they are in the collector that it names: look for the trace ${journey.traceId}.`,
            );
            if (journey.shownMs !== null) noteOnFlow('Your order has arrived. Its times at the parts are not known here.');
        }
        await pause(now - startedAt < SPANS_EXPECTED_WITHIN_MS ? 250 : 1000);
    }
}
