// Runs all checks, or with a file as its argument writes the picture of the README. Called by scripts/check_console.sh.

import { closeAll, withBrowser } from './browser.mjs';
import { CHECKS } from './checks.mjs';
import { writePicture } from './picture.mjs';
import { CheckFailed } from './until.mjs';

const [file] = process.argv.slice(2);

async function runChecks() {
    let failures = 0;
    for (const [sentence, check] of CHECKS) {
        const startedAt = performance.now();
        try {
            await check();
            console.log(`ok      ${sentence} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)`);
        } catch (error) {
            failures += 1;
            console.log(`FAILED  ${sentence}\n        ${error instanceof CheckFailed ? error.message : error.stack}`);
            await closeAll(`failed_${failures}`);
        }
    }
    return failures;
}

await withBrowser(async () => {
    try {
        if (file) await writePicture(file);
        else process.exitCode = (await runChecks()) === 0 ? 0 : 1;
    } catch (error) {
        console.log(`FAILED  ${error instanceof CheckFailed ? error.message : error.stack}`);
        process.exitCode = 1;
    }
});
