// Waiting for conditions, and sentences for what did not come true.

export class CheckFailed extends Error {}

export function must(condition, sentence) {
    if (!condition) throw new CheckFailed(sentence);
}

/** Waits until the function gives something true, and returns it. The sentence is said when it did not within the time. */
export async function until(withinS, sentence, condition) {
    const deadline = performance.now() + 1000 * withinS;
    for (;;) {
        const value = await condition();
        if (value) return value;
        if (performance.now() > deadline) throw new CheckFailed(`${typeof sentence === 'function' ? await sentence() : sentence}, within ${withinS} s`);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}
