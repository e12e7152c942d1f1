// The picture: the way of an order through the parts of the cluster.

import { byId, element, help, render, setText, stateIcon } from './dom.js';
import { figure } from './format.js';

/** In the order of the way. `beside`: not on the main line, but asked or written by the part before. */
const PARTS = [
    { name: 'client', role: 'places orders', isEnd: true },
    { name: 'create_buy_order', role: 'accepts orders' },
    { name: 'btc_price', role: 'quotes BTC', beside: true },
    { name: 'write_model', role: 'stores orders; the outbox is one of its tables', beside: true },
    { name: 'outbox', role: 'keeps messages until the queue has them' },
    { name: 'queue', role: 'keeps messages until they are projected' },
    { name: 'read_model_sync', role: 'projects orders' },
    { name: 'read_model', role: 'stores orders for reading' },
    { name: 'migration', role: 'keeps schemas and queues up to date', beside: true, isSmall: true },
    { name: 'fetch_buy_orders', role: 'serves pages of orders' },
    { name: 'page', role: 'shows the newest orders', isEnd: true },
];

const UNKNOWN_FIGURE = 'Not known now: there was nothing to measure, or the part that tells it does not answer.';

const parts = new Map();

// A name may break after each underscore.
const breakable = (name) => name.split('_').flatMap((word, index) => (index === 0 ? [word] : ['_', element('wbr'), word]));

function makePart({ name, role, beside, isEnd, isSmall }) {
    const part = {
        state: element('p', { class: 'state' }),
        figures: element('dl', { class: 'figures' }),
        problems: element('ul', { class: 'problems' }),
        replicas: element('ul', { class: 'replicas' }),
        passage: element('p', { class: 'passage' }),
    };
    const kind = ['station', beside && 'beside', isEnd && 'end', isSmall && 'small'].filter(Boolean).join(' ');
    part.item = element(
        'li',
        { class: kind, 'data-station': name, 'data-state': isEnd ? null : 'unknown' },
        element('h3', {}, ...breakable(name)),
        isEnd ? null : part.state,
        element('p', { class: 'role' }, role),
        part.figures,
        part.problems,
        isEnd ? null : part.replicas,
        part.passage,
    );
    parts.set(name, part);
    return part.item;
}

export function makeFlow() {
    const note = element('li', { class: 'flow-note' }, element('p', { id: 'flow-note' }, 'Place an order below. Each part that it passes then shows its time here.'));
    byId('flow').replaceChildren(...PARTS.map(makePart), note);
    for (const { name, isEnd } of PARTS) if (!isEnd) showState(parts.get(name), 'unknown', 'no data yet');
}

function showState(part, state, words = state) {
    part.item.dataset.state = state;
    render(part.state, [state, words], () => [stateIcon(state), element('span', {}, words)]);
}

function showFigures(part, figures) {
    render(part.figures, figures, () =>
        figures.map(({ name, value, unit }) =>
            element('div', {}, element('dt', {}, name), element('dd', { title: value === null ? UNKNOWN_FIGURE : null }, figure(value, unit))),
        ),
    );
}

function showStation(station) {
    const part = parts.get(station.name);
    if (!part) return;
    showState(part, station.state);
    showFigures(part, station.figures);
    render(part.problems, station.problems, () =>
        station.problems.map((problem) => element('li', {}, problem.text, problem.help ? ' ' : null, help(problem.help))),
    );
    const replicas = station.replicas.length > 1 ? station.replicas : [];
    render(part.replicas, replicas, () =>
        replicas.map(({ address, state, text }) =>
            element('li', { 'data-state': state }, stateIcon(state), element('span', {}, `${address}: ${text || state}`)),
        ),
    );
}

export function showFlow(state) {
    state.stations.forEach(showStation);
    const { accepted, repeated, refused, pages } = state.point;
    const asked = [accepted, repeated, refused].includes(null) ? null : accepted + repeated + refused;
    showFigures(parts.get('client'), [{ name: 'requests', value: asked, unit: '/s' }]);
    showFigures(parts.get('page'), [{ name: 'pages', value: pages, unit: '/s' }]);
}

/** Lights the part that the order has passed, with its time there; or marks that it waits there. */
export function lightPart({ station, isPassed, text, title }) {
    const part = parts.get(station);
    part.item.toggleAttribute('data-passed', isPassed);
    part.item.toggleAttribute('data-waiting', !isPassed);
    setText(part.passage, text);
    part.passage.title = title ?? '';
}

export function darkenParts(isTravelled) {
    byId('flow').classList.toggle('travelled', isTravelled);
    for (const part of parts.values()) {
        part.item.removeAttribute('data-passed');
        part.item.removeAttribute('data-waiting');
        setText(part.passage, '');
    }
}

export const noteOnFlow = (text) => setText(byId('flow-note'), text);
