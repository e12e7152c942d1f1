// The picture of the README: 1600 px wide, light, with orders that come in, and one that has just arrived.

import { close, openConsole } from './browser.mjs';
import { startOrders } from './cluster.mjs';
import { place, untilAllAreWell, untilArrived } from './console_page.mjs';

const PLOTTED_S = 120;

export async function writePicture(file) {
    const page = await openConsole();
    await untilAllAreWell(page);
    const stop = startOrders(3);
    await page.waitForFunction((plotted) => performance.now() > 1000 * plotted, PLOTTED_S, { timeout: 2000 * PLOTTED_S });
    // Nobody has just asked for a price in this currency, so the order passes btc_price, too.
    await place(page, { amount: '123.45' });
    await untilArrived(page);
    stop();
    // Nothing is marked as focused.
    await page.evaluate(() => document.activeElement.blur());
    await page.screenshot({ path: file, fullPage: true, animations: 'disabled' });
    await close(page);
}
