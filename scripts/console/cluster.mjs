// The cluster behind the page.

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { CheckFailed } from './until.mjs';

const run = promisify(execFile);

/** scripts/part.sh ACTION PART; ends when the part is stopped, or healthy again. */
export async function part(action, name) {
    try {
        await run('scripts/part.sh', [action, name]);
    } catch (error) {
        throw new CheckFailed(`scripts/part.sh ${action} ${name} failed: ${error.stderr || error.message}`);
    }
}

/** Small orders in EUR and GBP, which the page has not placed, about that many a second, until the returned function is called. */
export function startOrders(perSecond) {
    const place = () => {
        const currency = ['EUR', 'GBP'][Math.floor(2 * Math.random())];
        const amount = (10 + 90 * Math.random()).toFixed(2);
        const headers = { 'content-type': 'application/json', ...(process.env.TOKEN && { authorization: `Bearer ${process.env.TOKEN}` }) };
        const body = JSON.stringify({ currency, amount, idempotence_key: randomUUID() });
        // One that is lost is not missed in a picture.
        fetch(`${process.env.CONSOLE_URL}/buy_order`, { method: 'PUT', headers, body }).catch(() => {});
    };
    const timer = setInterval(place, 1000 / perSecond);
    return () => clearInterval(timer);
}
