// What makes a page readable: its width, its contrast, its focus.

import { must } from './until.mjs';

export async function mustFit(page, width) {
    const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    must(tooWide <= 0, `at ${width} px the page is ${tooWide} px too wide, and scrolls sideways`);
}

/** Every text against what is behind it, by WCAG 2, level AA. */
export async function mustHaveContrast(page, scheme) {
    const faint = await page.evaluate(() => {
        const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const rgba = (colour) => {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data];
        };
        const luminance = ([red, green, blue]) => {
            const [r, g, b] = [red, green, blue].map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (element) => {
            for (let at = element; at; at = at.parentElement) {
                const colour = rgba(getComputedStyle(at).backgroundColor);
                if (colour[3] === 255) return colour;
            }
            return [255, 255, 255, 255];
        };
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const found = new Set();
        while (texts.nextNode()) {
            const element = texts.currentNode.parentElement;
            if (!texts.currentNode.textContent.trim() || !element.checkVisibility()) continue;
            const [light, dark] = [luminance(rgba(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a);
            const ratio = (light + 0.05) / (dark + 0.05);
            if (ratio < 4.5) found.add(`${ratio.toFixed(2)}: "${texts.currentNode.textContent.trim().slice(0, 40)}"`);
        }
        return [...found];
    });
    must(faint.length === 0, `in ${scheme} mode these texts have a contrast below 4.5:\n  ${faint.join('\n  ')}`);
}

/** Presses Tab until the element has the focus. Each element on the way must show that it has it. */
export async function tabTo(page, selector) {
    const passed = [];
    for (let presses = 0; presses < 40; presses += 1) {
        await page.keyboard.press('Tab');
        const focused = await page.evaluate((wanted) => {
            const element = document.activeElement;
            const { outlineStyle, outlineWidth } = getComputedStyle(element);
            return { isWanted: element.matches(wanted), name: element.id || element.textContent.slice(0, 30), isVisible: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2 };
        }, selector);
        must(focused.isVisible, `"${focused.name}" does not show that it has the focus`);
        if (focused.isWanted) return;
        passed.push(focused.name);
    }
    must(false, `40 presses of Tab do not reach ${selector}, but: ${passed.join(', ')}`);
}
