// Each check of the console: a sentence, and what proves it. In this order.

import { ADDRESS, close, mustHaveCleanLog, mustHaveNoOwnErrors, openConsole, screenshot } from './browser.mjs';
import { part } from './cluster.mjs';
import { STATIONS, passToken, place, stateOf, textOf, untilAllAreWell, untilArrived, untilSaid } from './console_page.mjs';
import { mustFit, mustHaveContrast, tabTo } from './layout.mjs';
import { MARKUP, TROUBLE, silentStream, streamOf } from './stand_in.mjs';
import { must, until } from './until.mjs';

const RED_WITHIN_S = 3;
const BACK_WITHIN_S = 90;

async function anOrderPlacedByAClickAppears() {
    const page = await openConsole();
    await untilAllAreWell(page);
    await place(page);
    await untilArrived(page);
    if (!process.env.TOKEN) mustHaveCleanLog(page, 'while an order is placed');
    await screenshot(page, 'well');
    await close(page);
}

async function anOrderCanBePlacedByKeyboard() {
    const page = await openConsole({ reducedMotion: 'reduce' });
    await untilAllAreWell(page);
    await tabTo(page, '#amount');
    await page.keyboard.press('Control+A');
    await page.keyboard.type('12.34');
    await page.keyboard.press('Enter');
    await passToken(page, () => page.keyboard.press('Enter'));
    await untilArrived(page);
    const own = await textOf(page, '#book-rows .own');
    must(own.includes('12.34'), `the own order in the book is not the one of 12.34 that was typed: ${own}`);
    await tabTo(page, '#place');
    mustHaveNoOwnErrors(page, 'while an order is placed by keyboard');
    await close(page);
}

async function everyWidthAndSchemeIsReadable() {
    const backgrounds = {};
    for (const width of [360, 800, 1600]) {
        for (const colorScheme of ['light', 'dark']) {
            const page = await openConsole({ width, height: 800, colorScheme });
            await untilAllAreWell(page);
            await until(10, 'there are no plots', () => page.isVisible('#plots canvas'));
            await place(page);
            await untilArrived(page);
            await mustFit(page, width);
            await mustHaveContrast(page, colorScheme);
            backgrounds[colorScheme] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
            if (!process.env.TOKEN) mustHaveCleanLog(page, `at ${width} px, ${colorScheme}`);
            await screenshot(page, `well_${width}_${colorScheme}`);
            await close(page);
        }
    }
    must(backgrounds.light !== backgrounds.dark, 'dark mode has the background of light mode');
}

async function troubleIsSaidInWords() {
    for (const [width, colorScheme] of [[1600, 'light'], [1600, 'dark'], [360, 'light']]) {
        const page = await openConsole({ width, colorScheme, standIn: streamOf, argument: TROUBLE });
        await until(10, 'the stand-in stream is not shown', async () => (await stateOf(page, 'btc_price')) === 'away');
        const summary = await textOf(page, '#summary');
        must(summary === 'btc_price is away; create_buy_order is in trouble; outbox is not known', `the summary of trouble is: ${summary}`);
        const creator = await textOf(page, '[data-station="create_buy_order"]');
        must(creator.includes('172.18.0.6:8080: does not answer') && creator.includes('172.18.0.5:8080: well'), `not both replicas are listed: ${creator}`);
        must(creator.includes('1 235 /s'), `the rate is not grouped: ${creator}`);
        const unknown = page.locator('[data-station="outbox"] dd');
        must((await unknown.textContent()) === '—' && (await unknown.getAttribute('title')), 'an unknown figure is not a dash with a reason');
        must((await textOf(page, '#book-total')) === '—', 'an unknown total is not a dash');
        must((await textOf(page, '.reason')) === MARKUP, 'the reason of a dead letter is not shown as text');
        must((await textOf(page, '#dead-letters-ready')).startsWith('1 is in the queue'), 'the number of dead letters is not said');
        must((await textOf(page, '#refusals')).includes('there is no recent price'), 'a refusal is not said in words');
        await mustFit(page, width);
        await mustHaveContrast(page, colorScheme);
        mustHaveNoOwnErrors(page, 'in trouble');
        await screenshot(page, `trouble_${width}_${colorScheme}`);
        await close(page);
    }
}

async function everyLinkToOperationsLeadsSomewhere() {
    const page = await openConsole({ standIn: streamOf, argument: TROUBLE });
    await until(10, 'the stand-in stream is not shown', async () => (await stateOf(page, 'btc_price')) === 'away');
    const links = await page.$$eval('a[href^="/operations#"]', (found) => found.map((link) => link.getAttribute('href').split('#')[1]));
    const ofReasons = await page.evaluate(async () => Object.values((await import('/panels.js')).REASONS).flatMap(([, id]) => id ?? []));
    must(links.length > 0, 'no station links to /operations');
    await page.goto(`${ADDRESS}/operations`);
    for (const id of new Set([...links, ...ofReasons])) must((await page.locator(`[id="${id}"]`).count()) === 1, `/operations has no section "${id}"`);
    await mustFit(page, 1600);
    await page.setViewportSize({ width: 360, height: 800 });
    await mustFit(page, 360);
    await close(page);
}

async function nothingIsBlankBeforeTheFirstFigures() {
    const page = await openConsole({ standIn: silentStream });
    must((await textOf(page, '#summary')) === 'Waiting for the first figures', 'the page does not say that it waits');
    for (const name of STATIONS) must((await textOf(page, `[data-station="${name}"] .state`)) === 'no data yet', `${name} does not say that there are no data yet`);
    for (const id of ['prices', 'refusals-hint', 'plots-hint', 'dead-letters-ready']) must((await textOf(page, `#${id}`)).startsWith('No data yet'), `#${id} does not say that there are no data yet`);
    await screenshot(page, 'no_data');
    await close(page);
}

async function aTokenIsAskedForAndABusyServiceIsAskedAgain() {
    const page = await openConsole();
    await untilAllAreWell(page);
    const keys = [];
    let answers = [401, 503];
    await page.route('**/buy_order', (route) => {
        keys.push(route.request().postDataJSON().idempotence_key);
        const status = answers.shift();
        if (!status) return route.continue();
        return route.fulfill({ status, headers: { 'retry-after': '1' }, json: { detail: status === 401 ? 'a token is needed' : 'try again shortly' } });
    });
    await page.click('#place');
    await until(10, 'an answer of 401 shows no field for a token', () => page.isVisible('#token'));
    must(await page.evaluate(() => document.activeElement.id === 'token'), 'the field for a token has not got the focus');
    await screenshot(page, 'token_is_asked_for');
    await page.fill('#token', process.env.TOKEN ?? '');
    await page.keyboard.press('Enter');
    await untilSaid(page, 'The page sends the order again with the same key, every 1 s');
    await untilArrived(page);
    must(keys.length === 3 && keys[1] === keys[2], 'the order was not sent again with the same key');
    mustHaveNoOwnErrors(page, 'when an order is sent again');
    await close(page);
}

async function aStoppedQueueIsRedAndOrdersWaitForIt() {
    const page = await openConsole();
    await untilAllAreWell(page);
    try {
        await part('stop', 'queue');
        await until(RED_WITHIN_S, async () => `the queue is stopped, and its station is ${await stateOf(page, 'queue')}, not red`, async () => (await stateOf(page, 'queue')) === 'away');
        await place(page);
        await untilSaid(page, 'Accepted after');
        await untilSaid(page, 'It waits in the outbox');
        await until(10, 'the outbox does not show that the order is there', async () => (await page.getAttribute('[data-station="outbox"]', 'data-waiting')) !== null);
        await screenshot(page, 'queue_away');
        mustHaveNoOwnErrors(page, 'while the queue is away');
    } finally {
        await part('start', 'queue');
    }
    await untilAllAreWell(page, BACK_WITHIN_S);
    await untilArrived(page, BACK_WITHIN_S);
    mustHaveNoOwnErrors(page, 'when the queue is back');
    await screenshot(page, 'queue_back');
    await close(page);
}

async function aConsoleThatIsAwayIsSaid() {
    const page = await openConsole();
    await untilAllAreWell(page);
    try {
        await part('stop', 'console');
        await until(10, 'the console is stopped, and the page does not say so', () => page.isVisible('#banner'));
        must(/does not answer; trying again/.test(await textOf(page, '#banner')), 'the banner does not say what is wrong');
        await until(10, 'the age of the old figures is not said', async () => /\d+ s ago/.test(await textOf(page, '#clock')));
        await screenshot(page, 'console_away');
    } finally {
        await part('start', 'console');
    }
    await until(30, 'the console is back, and the banner has not gone', () => page.isHidden('#banner'));
    await untilAllAreWell(page);
    await part('restart', 'console');
    await page.reload();
    await untilAllAreWell(page);
    mustHaveNoOwnErrors(page, 'when the console was away');
    await close(page);
}

export const CHECKS = [
    ['an order that is placed by a click appears, with its time at each station', anOrderPlacedByAClickAppears],
    ['an order can be placed by keyboard alone', anOrderCanBePlacedByKeyboard],
    ['360, 800 and 1600 px, light and dark: nothing scrolls sideways, every text has contrast, the log is clean', everyWidthAndSchemeIsReadable],
    ['before the first figures, nothing is blank', nothingIsBlankBeforeTheFirstFigures],
    ['trouble, replicas and unknown figures are said in words, and foreign text stays text', troubleIsSaidInWords],
    ['every link to /operations leads to a section', everyLinkToOperationsLeadsSomewhere],
    ['a token is asked for, and an order is sent again with the same key', aTokenIsAskedForAndABusyServiceIsAskedAgain],
    ['a stopped queue is red within 3 s, an order waits for it, and arrives when it is back', aStoppedQueueIsRedAndOrdersWaitForIt],
    ['a console that is away is said, and the page recovers', aConsoleThatIsAwayIsSaid],
];
