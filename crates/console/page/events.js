// The stream of figures from the console, and whether the console is there.

const SILENT_AFTER_MS = 3500;
const RECONNECT_AFTER_MS = 1000;

/**
 * Calls `onHistory(points)` and `onState(state)` for each event, and `onConnection(isConnected, ageMs, refusal)` every second. `ageMs` is null
 * before the first figures. `refusal` is what the console says if it answers, and gives no figures; else null.
 *
 * EventSource itself gives up after an answer other than 200, and does not notice a connection that is silent. So it is opened anew here.
 */
export function subscribe({ onHistory, onState, onConnection }) {
    let source = null;
    let openedAt = 0;
    let receivedAt = null;
    let isConnected = true;
    let refusal = null;

    const report = () => onConnection(isConnected, receivedAt === null ? null : performance.now() - receivedAt, refusal);

    function open() {
        source?.close();
        openedAt = performance.now();
        source = new EventSource('/events');
        source.addEventListener('history', (event) => onHistory(JSON.parse(event.data).points));
        source.addEventListener('state', (event) => {
            receivedAt = performance.now();
            isConnected = true;
            refusal = null;
            report();
            onState(JSON.parse(event.data));
        });
        source.addEventListener('error', () => {
            source.close();
            isConnected = false;
            report();
            void askWhy();
        });
    }

    /** An EventSource does not tell why it got no stream. */
    async function askWhy() {
        const ended = new AbortController();
        try {
            const answer = await fetch('/events', { signal: ended.signal });
            refusal = answer.ok ? null : ((await answer.json()).detail ?? `HTTP ${answer.status}`);
        } catch {
            refusal = null;
        } finally {
            ended.abort();
        }
        report();
    }

    function watch() {
        const now = performance.now();
        const isSilent = now - Math.max(receivedAt ?? 0, openedAt) > SILENT_AFTER_MS;
        if (isSilent) isConnected = false;
        const mayOpen = now - openedAt > RECONNECT_AFTER_MS;
        if (isSilent || (source.readyState === EventSource.CLOSED && mayOpen)) open();
        report();
    }

    open();
    setInterval(watch, RECONNECT_AFTER_MS);
}
