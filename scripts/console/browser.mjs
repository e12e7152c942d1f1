// Chromium, and pages of the console in it, with what the browser's log says of them.

import { createRequire } from 'node:module';
import { must } from './until.mjs';

const { chromium } = createRequire(`${process.env.INSTALLED}/`)('playwright-core');

const ARGUMENTS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'];

export const ADDRESS = process.env.CONSOLE_URL;

let browser = null;

export async function withBrowser(action) {
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ARGUMENTS });
    try {
        await action();
    } finally {
        await browser.close();
    }
}

/**
 * Opens the console. `standIn`: a script in place of the console's stream, for states that a cluster is not brought into.
 * `page.log` is what the browser complains about.
 */
export async function openConsole({ width = 1600, height = 1000, colorScheme = 'light', reducedMotion = 'no-preference', standIn = null, argument = null } = {}) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion, locale: 'en-GB', timezoneId: 'Asia/Tokyo' });
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    page.log = [];
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && page.log.push(message.text()));
    page.on('pageerror', (error) => page.log.push(`uncaught: ${error.message}`));
    page.on('requestfailed', (request) => page.log.push(`request failed: ${request.url()}: ${request.failure()?.errorText}`));
    if (standIn) await page.addInitScript(standIn, argument);
    await page.goto(ADDRESS);
    return page;
}

export async function close(page) {
    await page.context().close();
}

/** What a check that failed has left open: writes target/console/NAME_1.png and so on. */
export async function closeAll(name) {
    let number = 0;
    for (const context of browser.contexts()) {
        for (const page of context.pages()) await screenshot(page, `${name}_${(number += 1)}`);
        await context.close();
    }
}

export function mustHaveCleanLog(page, when) {
    must(page.log.length === 0, `the browser's log has errors ${when}:\n  ${page.log.join('\n  ')}`);
}

/** Answers that fail are in the log of a browser, too. Errors of the page itself may never be. */
export function mustHaveNoOwnErrors(page, when) {
    const own = page.log.filter((line) => !/^(Failed to load resource|request failed)/.test(line));
    must(own.length === 0, `the page has errors ${when}:\n  ${own.join('\n  ')}`);
}

/** Writes target/console/NAME.png. */
export async function screenshot(page, name) {
    await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png`, fullPage: true, animations: 'disabled' });
}
