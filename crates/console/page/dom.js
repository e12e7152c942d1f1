// Small helpers for the page. All data gets into the page as text.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children. A child is a node or a text; null is left out. */
export function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [attribute, value] of Object.entries(attributes)) {
        if (value !== null && value !== undefined && value !== false) made.setAttribute(attribute, value === true ? '' : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
}

/** Changes the text only if it differs, so that selections and screen readers are left in peace. */
export function setText(target, text) {
    if (target.textContent !== text) target.textContent = text;
}

/** Puts the children into the parent in this order, and moves only those that are elsewhere. */
export function setChildren(parent, children) {
    children.forEach((child, index) => {
        if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    });
    while (parent.children.length > children.length) parent.lastElementChild.remove();
}

/** Makes the children again, but only if what they show has changed. */
export function render(parent, shown, makeChildren) {
    const key = JSON.stringify(shown);
    if (parent.dataset.shown === key) return;
    parent.dataset.shown = key;
    parent.replaceChildren(...makeChildren());
}

const SVG = 'http://www.w3.org/2000/svg';

/** The shape of a state: the states can be told apart without colours. */
export function stateIcon(state) {
    const icon = document.createElementNS(SVG, 'svg');
    icon.setAttribute('class', 'icon');
    icon.setAttribute('aria-hidden', 'true');
    const use = document.createElementNS(SVG, 'use');
    use.setAttribute('href', `#state-${state}`);
    icon.append(use);
    return icon;
}

/** A link into the page of operations, or nothing. */
export function help(id, text = 'What to do') {
    return id ? element('a', { href: `/operations#${encodeURIComponent(id)}` }, text) : null;
}
