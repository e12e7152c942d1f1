// An order's passage through the picture: part after part, slow enough to be seen.

import { darkenParts, lightPart } from './flow.js';

const NEXT_PART_AFTER_MS = 180;

let stops = [];
let shown = 0;
let timer = null;

const isMotionReduced = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

export function startPassage() {
    endPassage();
    darkenParts(true);
}

export function endPassage() {
    clearTimeout(timer);
    timer = null;
    stops = [];
    shown = 0;
    darkenParts(false);
}

/** `stops` are those of journey.js, in the order of the way. Spans come in batches, so several stops are new at once. */
export function continuePassage(newStops) {
    // A stop can come late before one that is shown already.
    const known = new Set(stops.slice(0, shown).map(({ station }) => station));
    stops = newStops.filter(({ station }) => known.has(station)).concat(newStops.filter(({ station }) => !known.has(station)));
    shown = known.size;
    stops.slice(0, shown).forEach(lightPart);
    timer ??= setTimeout(lightNext, 0);
}

function lightNext() {
    timer = null;
    if (shown >= stops.length) return;
    lightPart(stops[shown]);
    shown += 1;
    timer = setTimeout(lightNext, isMotionReduced() ? 0 : NEXT_PART_AFTER_MS);
}
