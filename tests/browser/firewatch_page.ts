// SPDX-License-Identifier: Apache-2.0
// What the tests use: the page with a watch on its console, and what it says that it has drawn.
import { test as base, expect, type Page } from '@playwright/test';

export interface DrawnBox {
  x: number;
  y: number;
  width: number;
  height: number;
  name: string;
  node: number;
  merged: number;
}
interface Drawn {
  boxes: DrawnBox[];
  renderer: string;
  frameMs: number;
  settled: boolean;
}

declare global {
  interface Window {
    firewatchDrawn?: () => Drawn;
  }
}

// Texts of console errors that a test expects, because it causes them.
export interface Expected {
  allow(pattern: RegExp): void;
}

// Every test fails on an error in the console: exceptions, refused content (CSP), failed requests.
export const test = base.extend<{ expected: Expected }>({
  expected: [async ({ page }, use) => {
    const problems: string[] = [];
    const allowed: RegExp[] = [];
    page.on('console', (message) => {
      if (message.type() === 'error') problems.push(`${message.text()} (${message.location().url})`);
    });
    page.on('pageerror', (error) => problems.push(`exception: ${error.message}`));
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) =>
        console.error(`CSP ${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
    });
    await use({ allow: (pattern) => allowed.push(pattern) });
    // The page asks for its status now and then: an answer that a test makes may be under way.
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    expect(problems.filter((text) => !allowed.some((pattern) => pattern.test(text)))).toEqual([]);
  }, { auto: true }],
});

export { expect };

export async function drawn(page: Page): Promise<Drawn> {
  await page.waitForFunction(() => {
    const now = window.firewatchDrawn?.();
    return now !== undefined && now.settled && now.boxes.length > 1;
  });
  return page.evaluate(() => window.firewatchDrawn!());
}

// The page without "live", so that nothing moves below the test.
export async function open(page: Page, search = ''): Promise<Drawn> {
  await page.goto(`./?live=0${search}`);
  return drawn(page);
}

// A link to the 10 minutes up to a moment that no upload changes any more: the same answer at every
// load. Twenty seconds cover an agent's window, its delay, and a store that keeps rows of 10 s.
const kSettledMs = 20_000;
export async function fixedRange(page: Page): Promise<string> {
  let to = 0;
  await expect.poll(async () => {
    const { store } = await (await page.request.get('api/v1/status')).json();
    to = Math.floor((store.newest_ms - kSettledMs) / 10_000) * 10_000;
    return to - store.oldest_ms;
  }, { message: 'some seconds of settled data', timeout: 50_000, intervals: [1000] }).toBeGreaterThan(4000);
  return `&from=${to - 600_000}&to=${to}`;
}

// The widest frame that is narrower than the whole; wide enough to hit.
export function pickFrame(boxes: DrawnBox[]): DrawnBox {
  const whole = boxes[0].width;
  const fits = boxes.filter((box) => box.merged === 0 && box.node !== 0 && box.width > 3 && box.width < 0.9 * whole && box.y > 20);
  expect(fits.length, 'frames that are neither everything nor nothing').toBeGreaterThan(0);
  return fits.reduce((best, box) => (box.width > best.width ? box : best));
}

export async function clickFrame(page: Page, box: DrawnBox, button: 'left' | 'right' = 'left'): Promise<void> {
  await page.getByTestId('flame').click({ position: { x: box.x + box.width / 2, y: box.y + box.height / 2 }, button });
}
