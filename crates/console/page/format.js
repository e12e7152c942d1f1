// How values are written. Money is text from the services: it is grouped as text, and never becomes a float.

export const UNKNOWN = '—';

const NARROW_SPACE = '\u202f';
// Between a number and its unit, so that no line ends there.
const SPACE = '\u00a0';

const groupThousands = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE);

/** An amount or a rate: `48478.88000000` as `48 478.88`, with 2 decimals at least. */
export function money(text) {
    const [whole, decimals = ''] = text.split('.');
    return `${groupThousands(whole)}.${decimals.replace(/0+$/, '').padEnd(2, '0')}`;
}

/** An amount of BTC, with all its decimals. */
export function btc(text) {
    const [whole, decimals] = text.split('.');
    return decimals === undefined ? groupThousands(whole) : `${groupThousands(whole)}.${decimals}`;
}

export const count = (value) => (value === null ? UNKNOWN : groupThousands(String(Math.round(value))));

/** A rate of events: 12.3, or 1 234. */
export const rate = (value) => (value === null ? UNKNOWN : value < 99.95 ? value.toFixed(1) : count(value));

export function milliseconds(value) {
    if (value < 9.95) return `${value.toFixed(1)}${SPACE}ms`;
    if (value < 999.5) return `${Math.round(value)}${SPACE}ms`;
    return seconds(value / 1000);
}

export function seconds(value) {
    if (value === null) return UNKNOWN;
    if (value === 0) return `0${SPACE}s`;
    if (value < 0.9995) return milliseconds(value * 1000);
    if (value < 9.95) return `${value.toFixed(1)}${SPACE}s`;
    const whole = Math.round(value);
    if (whole < 60) return `${whole}${SPACE}s`;
    if (whole < 3600) return `${Math.floor(whole / 60)}${SPACE}min ${whole % 60}${SPACE}s`;
    return `${Math.floor(whole / 3600)}${SPACE}h ${Math.floor((whole % 3600) / 60)} min`;
}

/** How old something is. It changes each second, so fractions would only flicker. */
export const age = (value) => seconds(Math.max(1, Math.round(value))).replace('.0', '');

/** A figure of a station in its unit. */
export function figure(value, unit) {
    if (value === null) return UNKNOWN;
    if (unit === '/s') return `${rate(value)}${SPACE}/s`;
    if (unit === 's') return seconds(value);
    if (unit === 'ms') return milliseconds(value);
    return unit ? `${count(value)}${SPACE}${unit}` : count(value);
}

/** `2026-11-28T23:40:00.123456Z` as `23:40:00.123`. */
export const timeOfDay = (rfc3339) => rfc3339.slice(11, 23).replace(/Z$/, '');

/** A list in words: `a, b and c`. */
export function inWords(items) {
    return items.length < 2 ? items.join('') : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`;
}
