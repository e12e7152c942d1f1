// The last 5 minutes, second by second, by uPlot.

/* global uPlot */
import { byId, element, setText } from './dom.js';
import { count, rate, seconds } from './format.js';

const SHOWN_S = 300;
const HEIGHT = 150;
const DASHES = [[], [6, 4], [2, 3]];

const PLOTS = [
    { title: 'Orders per second', format: rate, series: [['accepted', 'accepted'], ['repeated', 'repeated'], ['refused', 'refused']] },
    { title: 'Projected and pages per second', format: rate, series: [['projected', 'projected'], ['pages', 'pages']] },
    { title: 'Lag, from accepted to projected', format: seconds, series: [['p50', 'lag_p50_s'], ['p99', 'lag_p99_s']], empty: 'Nothing was projected in this time.' },
    { title: 'Messages that wait', format: count, isCount: true, series: [['outbox', 'outbox'], ['queue', 'queue'], ['dead letters', 'dead_letters']] },
];

const points = [];
const plots = [];

export function makePlots() {
    byId('plots').replaceChildren(...PLOTS.map(makeFigure));
    new ResizeObserver(() => plots.forEach(fit)).observe(byId('plots'));
    // A canvas keeps its colours, so it is drawn anew.
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
        for (const plot of plots) {
            plot.chart?.destroy();
            plot.chart = null;
        }
        draw();
    });
}

function makeFigure(description) {
    const plot = { ...description, chart: null, canvas: element('div', { class: 'plot', role: 'img' }), empty: element('p', { class: 'plot-empty', hidden: true }, description.empty ?? 'Not known in this time.') };
    plot.values = description.series.map(() => element('span', { class: 'value' }, '—'));
    const legend = element(
        'ul',
        { class: 'legend' },
        ...description.series.map(([name], index) => element('li', { 'data-series': index + 1 }, element('span', { class: 'swatch', 'aria-hidden': 'true' }), `${name} `, plot.values[index])),
    );
    plots.push(plot);
    return element('figure', {}, element('figcaption', {}, element('h3', {}, description.title), legend), plot.canvas, plot.empty);
}

export function showHistory(history) {
    points.splice(0, points.length, ...history);
    draw();
}

export function addPoint(point) {
    // After a reconnection, the history may have this point already.
    if (points.length > 0 && point.at <= points.at(-1).at) return;
    points.push(point);
    while (points[0].at < point.at - SHOWN_S) points.shift();
    draw();
}

function draw() {
    byId('plots-hint').hidden = points.length > 0;
    byId('plots').hidden = points.length === 0;
    if (points.length === 0) return;
    const times = points.map((point) => point.at);
    for (const plot of plots) {
        const data = [times, ...plot.series.map(([, key]) => points.map((point) => point[key]))];
        plot.chart ??= makeChart(plot, data);
        plot.chart.setData(data);
        plot.empty.hidden = data.slice(1).some((values) => values.some((value) => value !== null));
        showValues(plot, null);
        const latest = plot.series.map(([name, key]) => `${name} ${plot.format(points.at(-1)[key])}`).join(', ');
        plot.canvas.setAttribute('aria-label', `${plot.title}, the latest: ${latest}`);
    }
}

/** The values under the pointer, else the latest. */
function showValues(plot, index) {
    plot.series.forEach(([, key], series) => {
        setText(plot.values[series], plot.format((points[index ?? points.length - 1] ?? points.at(-1))[key]));
    });
}

const fit = (plot) => plot.chart?.setSize({ width: plot.canvas.clientWidth, height: HEIGHT });

function makeChart(plot, data) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour('--muted'), font: `11px ${style.fontFamily}`, grid: { stroke: colour('--grid'), width: 1 }, ticks: { show: false } };
    return new uPlot(
        {
            width: plot.canvas.clientWidth,
            height: HEIGHT,
            padding: [8, 18, 0, 0],
            legend: { show: false },
            cursor: { sync: { key: 'time' }, y: false, drag: { x: false, y: false }, points: { size: 5 } },
            tzDate: (at) => uPlot.tzDate(new Date(at * 1000), 'Etc/UTC'),
            scales: {
                x: { range: () => [points.at(-1).at - SHOWN_S, points.at(-1).at] },
                // From 0, and never flat: a line of zeros lies on the axis.
                y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] },
            },
            axes: [
                { ...axis, space: 70, size: 24, values: (_, times) => times.map((at) => new Date(at * 1000).toISOString().slice(11, 16)), incrs: [60, 120] },
                { ...axis, space: 34, size: 52, incrs: plot.isCount ? wholeSteps() : undefined, values: (_, values) => values.map((value) => axisText(plot, value)) },
            ],
            series: [
                {},
                ...plot.series.map(([label], index) => ({ label, stroke: colour(`--series-${index + 1}`), width: 1.5, dash: DASHES[index], points: { show: false } })),
            ],
            hooks: { setCursor: [(chart) => showValues(plot, chart.cursor.idx ?? null)] },
        },
        data,
        plot.canvas,
    );
}

const wholeSteps = () => Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

// Axes are shorter than figures: 5 and not 5.0, 90 s and not 1 min 30 s.
function axisText(plot, value) {
    if (plot.format !== seconds) return String(Number(value.toPrecision(6)));
    return value > 0 && value < 1 ? `${Number((1000 * value).toPrecision(6))} ms` : `${Number(value.toPrecision(6))} s`;
}
