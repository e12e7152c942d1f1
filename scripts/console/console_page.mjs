// What a person sees and does on the console's page.

import { must, until } from './until.mjs';

export const STATIONS = ['btc_price', 'create_buy_order', 'write_model', 'outbox', 'queue', 'read_model_sync', 'read_model', 'fetch_buy_orders', 'migration'];

const PASSED = ['create_buy_order', 'write_model', 'outbox', 'queue', 'read_model_sync', 'read_model', 'fetch_buy_orders'];

export const stateOf = (page, station) => page.getAttribute(`[data-station="${station}"]`, 'data-state');

export const textOf = async (page, selector) => (await page.textContent(selector)).replace(/[\u00a0\u202f]/g, ' ').trim();

export async function untilAllAreWell(page, withinS = 30) {
    const states = async () => Promise.all(STATIONS.map(async (name) => [name, await stateOf(page, name)]));
    const notWell = async () => (await states()).filter(([, state]) => state !== 'well').map(([name, state]) => `${name} is ${state}`);
    await until(withinS, async () => `not every station is well: ${(await notWell()).join(', ')}`, async () => (await notWell()).length === 0);
    const summary = await textOf(page, '#summary');
    must(summary === `All ${STATIONS.length} parts are well`, `every station is well, and the summary says: ${summary}`);
}

/** Presses the button, and gives a token if one is demanded. */
export async function place(page, { amount = '100.00' } = {}) {
    await page.fill('#amount', amount);
    await page.click('#place');
    await passToken(page, () => page.click('#place'));
}

/** Where a token is demanded, puts it in, and places the order once more. */
export async function passToken(page, again) {
    const said = () => textOf(page, '#progress');
    await until(20, async () => `the placed order has no result: ${await said()}`, async () => /Accepted after|Not accepted/.test(await said()));
    if (!(await page.isVisible('#token-field')) || !/Put a token/.test(await said())) return;
    must(process.env.TOKEN, 'the cluster demands a token, and scripts/token.sh gave none');
    await page.fill('#token', process.env.TOKEN);
    await again();
}

export const untilSaid = (page, text, withinS = 20) =>
    until(withinS, async () => `the page does not say "${text}" of the order, but: ${await textOf(page, '#progress')}`, async () => (await textOf(page, '#progress')).includes(text));

/** Until the order is on the page, in the book and at each station with its time. */
export async function untilArrived(page, withinS = 20) {
    await untilSaid(page, 'On the page after', withinS);
    await until(10, 'the order is not marked in the list of the newest orders', () => page.isVisible('#book-rows .own'));
    const passage = async (name) => [name, await textOf(page, `[data-station="${name}"] .passage`)];
    const untimed = async () => {
        const passages = await Promise.all(PASSED.map(passage));
        return passages.filter(([, text]) => !/^at [\d.]+ (ms|s|min)/.test(text)).map(([name, text]) => `${name} ("${text}")`);
    };
    await until(15, async () => `these stations do not show when the order was there: ${(await untimed()).join(', ')}`, async () => (await untimed()).length === 0);
    await until(5, 'the page does not show when the order was shown', async () => /^shown after/.test((await passage('page'))[1]));
    must(/^answered after/.test((await passage('client'))[1]), 'the client does not show when it was answered');
    must(/^(at|not asked)/.test((await passage('btc_price'))[1]), 'btc_price shows neither a time nor that it was not asked');
    must((await page.locator('#timeline li').count()) >= 5, 'the timeline has fewer than 5 spans');
}
