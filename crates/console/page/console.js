// Operators' page: connects the stream of figures with what shows them.

import { refreshBook, rereadBook } from './book.js';
import { byId, setText } from './dom.js';
import { subscribe } from './events.js';
import { makeFlow, showFlow } from './flow.js';
import { age, inWords, timeOfDay } from './format.js';
import { makeOrderForm, rememberStations } from './order.js';
import { showPanels } from './panels.js';
import { addPoint, makePlots, showHistory } from './plots.js';

const WORST_FIRST = ['away', 'trouble', 'unknown', 'well'];
const IN_WORDS = { away: 'away', trouble: 'in trouble', unknown: 'not known' };

function showSummary({ stations }) {
    const named = (state) => stations.filter((station) => station.state === state).map(({ name }) => name);
    const worst = WORST_FIRST.find((state) => named(state).length > 0) ?? 'unknown';
    const clauses = WORST_FIRST.filter((state) => state !== 'well' && named(state).length > 0).map(
        (state) => `${inWords(named(state))} ${named(state).length === 1 ? 'is' : 'are'} ${IN_WORDS[state]}`,
    );
    const text = clauses.join('; ') || `All ${stations.length} parts are well`;
    byId('summary').dataset.state = worst;
    setText(byId('summary'), text);
    document.title = worst === 'well' ? 'Console' : `${text} · Console`;
}

function showState(state) {
    setText(byId('clock'), `${timeOfDay(state.at).slice(0, 8)} UTC`);
    byId('clock').dateTime = state.at;
    showSummary(state);
    showFlow(state);
    showPanels(state);
    addPoint(state.point);
    rememberStations(state);
    refreshBook(state);
}

let wasConnected = true;

function showConnection(isConnected, ageMs, refusal) {
    if (isConnected && !wasConnected) rereadBook();
    wasConnected = isConnected;
    document.body.classList.toggle('is-stale', !isConnected);
    const banner = byId('banner');
    banner.hidden = isConnected;
    if (isConnected) return;
    document.title = 'No figures · Console';
    // The age changes each second: it is said beside the clock, not in the alert, which would be read aloud each time.
    const why = refusal === null ? 'The console does not answer; trying again.' : `The console gives no figures: ${refusal}. Trying again.`;
    setText(banner, ageMs === null ? why : `${why} The figures below are the last ones that it sent.`);
    if (ageMs !== null) setText(byId('clock'), `${age(ageMs / 1000)} ago`);
}

makeFlow();
makePlots();
makeOrderForm();
subscribe({ onHistory: showHistory, onState: showState, onConnection: showConnection });
