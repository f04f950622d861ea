// SPDX-License-Identifier: Apache-2.0
// What the page says when there is nothing to show, when something fails, and to whom it shows it.
import axe from 'axe-core';
import type { Page } from '@playwright/test';
import { clickFrame, drawn, expect, fixedRange, open, pickFrame, test } from './firewatch_page';

test('a filter that matches nothing says so and offers to clear it', async ({ page }) => {
  await page.goto('./?live=0&query={service="no-such-service"}');
  await expect(page.getByTestId('empty')).toContainText('No sample matches this filter');
  await page.getByRole('button', { name: 'Clear the filter' }).click();
  await expect(page).not.toHaveURL(/query=/);
  await drawn(page);
});

test('a query that does not parse stays, with the reason, and is not run', async ({ page }) => {
  await open(page);
  const query = page.getByTestId('query');
  await query.fill('{service=nginx}');
  await query.press('Enter');
  await expect(page.getByRole('alert').filter({ hasText: 'column 10' })).toBeVisible();
  await expect(query).toHaveValue('{service=nginx}');
  await expect(page).not.toHaveURL(/query=/);
});

test('an expression that the server refuses is shown with the server’s words', async ({ page, expected }) => {
  expected.allow(/400/);
  await open(page);
  await page.getByTestId('query').fill('{service=~"("}');
  await page.getByTestId('query').press('Enter');
  await expect(page).toHaveURL(/query=/);
  await expect(page.locator('#query-problem')).toContainText(/\(/);
});

test('what a link holds and the page does not know is named', async ({ page }) => {
  await open(page, '&service=nginx');
  await expect(page.getByRole('alert').filter({ hasText: 'service=nginx' })).toBeVisible();
});

async function pretend(page: Page, change: (status: Record<string, any>) => void): Promise<void> {
  await page.route('**/api/v1/status', async (route) => {
    const status = await (await route.fetch({ maxRetries: 3 })).json();
    change(status);
    await route.fulfill({ json: status });
  });
  await page.route('**/api/v1/series?*', async (route) => {
    const series = await (await route.fetch({ maxRetries: 3 })).json();
    await route.fulfill({ json: { ...series, total: 0, groups: [] } });
  });
  const empty = Buffer.from([0x46, 0x57, 0x46, 0x54, 2, 1, 2, 5, ...Buffer.from('total'), 0, 0, 0, 0, 0, 0, 1, 1, 0]);
  await page.route('**/api/v1/profile?*', (route) =>
    route.fulfill({ body: empty, contentType: 'application/octet-stream', headers: { 'X-Firewatch-Unit': 'nanoseconds' } }));
}

test('a server that no agent has reported to says how to start one', async ({ page }) => {
  await pretend(page, (status) => {
    status.nodes = [];
    status.store.newest_ms = 0;
    status.store.oldest_ms = 0;
  });
  await page.goto('./');
  await expect(page.getByTestId('empty')).toContainText('No agent has ever reported');
  await expect(page.getByTestId('empty')).toContainText('firewatch-agent --server');
});

test('silent agents: since when, and the way to what there is', async ({ page }) => {
  await pretend(page, (status) => {
    for (const node of status.nodes) node.last_seen_ms = status.now_ms - 7_200_000;
    status.store.newest_ms = status.now_ms - 7_200_000;
  });
  await page.goto('./');
  await expect(page.getByTestId('empty')).toContainText(/silent since .* 2 h ago/);
  await page.getByRole('button', { name: /Show the last/ }).click();
  await expect(page).toHaveURL(/from=\d+&to=\d+/);
  await page.unrouteAll({ behavior: 'ignoreErrors' });
});

test('a range outside of what is stored leads to the newest', async ({ page }) => {
  await page.goto('./?from=1000000000000&to=1000000900000');
  await expect(page.getByTestId('empty')).toContainText(/Nothing is stored for this range/);
  await page.getByRole('button', { name: 'Show the newest' }).click();
  await drawn(page);
});

test('a failed request is shown, keeps what was there, and can be retried', async ({ page, expected }) => {
  expected.allow(/ERR_FAILED|Failed to load/);
  const before = await open(page);
  await page.route('**/api/v1/**', (route) => route.abort());
  await page.getByRole('button', { name: 'Samples', exact: true }).click();
  await expect(page.getByTestId('error')).toContainText('does not answer');
  expect((await drawn(page)).boxes.slice(0, 8)).toEqual(before.boxes.slice(0, 8)); // the message takes some rows
  await page.unroute('**/api/v1/**');
  await page.getByTestId('error').getByRole('button', { name: 'Retry' }).click();
  await expect(page.getByTestId('error')).toHaveCount(0);
  await expect(page.getByTestId('crumbs')).toContainText('samples in view');
});

test('damaged bytes are an error with a reason, not a wrong graph', async ({ page }) => {
  await page.route('**/api/v1/profile?*', async (route) => {
    // The server closes a connection that was idle for five seconds; a request may meet that moment.
    const body = await (await route.fetch({ maxRetries: 3 })).body();
    await route.fulfill({ body: body.subarray(0, body.length - 5), contentType: 'application/octet-stream' });
  });
  await page.goto('./');
  await expect(page.getByTestId('error')).toContainText(/Profile damaged: .*ends early|do not fit/);
});

test('live asks again every 10 seconds, and not while paused', async ({ page }) => {
  let asked = 0;
  page.on('request', (request) => {
    if (request.url().includes('/api/v1/profile')) ++asked;
  });
  await page.clock.install();
  await page.goto('./');
  await expect.poll(() => asked).toBe(1);
  await page.clock.runFor(500);
  await expect(page.getByTestId('ranking').getByRole('button').first()).toBeVisible();
  await page.clock.runFor(10_500);
  await expect.poll(() => asked).toBe(2);
  await page.clock.runFor(500);
  await page.getByTestId('live').click();
  await expect(page.getByTestId('live')).toHaveText(/Paused/);
  await page.clock.runFor(35_000);
  expect(asked).toBe(2);
});

test('without WebGL the same boxes are drawn on a plain canvas', async ({ page }) => {
  const range = await fixedRange(page);
  const first = await open(page, range);
  await page.addInitScript(() => {
    const original = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (this: HTMLCanvasElement, kind: string, ...rest: unknown[]) {
      return kind === 'webgl2' ? null : (original as any).call(this, kind, ...rest);
    } as typeof original;
  });
  const second = await open(page, range);
  expect(first.renderer).toBe('webgl2');
  expect(second.renderer).toBe('canvas2d');
  expect(second.boxes).toEqual(first.boxes);
});

test('a lost WebGL context is replaced', async ({ page }) => {
  await open(page);
  await page.evaluate(() => {
    const canvas = document.querySelector<HTMLCanvasElement>('.flame-canvas')!;
    canvas.getContext('webgl2')!.getExtension('WEBGL_lose_context')!.loseContext();
  });
  await expect.poll(() => page.evaluate(() => window.firewatchDrawn!().renderer)).toBe('canvas2d');
  expect((await drawn(page)).boxes.length).toBeGreaterThan(5);
});

test('script time per frame stays small while zooming', async ({ page }) => {
  const { boxes } = await open(page);
  const times: number[] = [];
  for (let round = 0; round < 5; ++round) {
    await clickFrame(page, pickFrame(boxes));
    times.push((await drawn(page)).frameMs);
    await page.keyboard.press('Escape');
    times.push((await drawn(page)).frameMs);
  }
  times.sort((a, b) => a - b);
  console.log(`script per frame: median ${times[5].toFixed(1)} ms, worst ${times[9].toFixed(1)} ms`);
  expect(times[5]).toBeLessThan(100);
});

async function seriousFindings(page: Page): Promise<string[]> {
  await page.evaluate(axe.source); // by the debugger: the page's own policy stays as it is
  const results = await page.evaluate(() => (window as any).axe.run(document, { resultTypes: ['violations'] }));
  return results.violations
    .filter((finding: any) => finding.impact === 'serious' || finding.impact === 'critical')
    .map((finding: any) => `${finding.id}: ${finding.nodes.map((node: any) => node.html.slice(0, 160)).slice(0, 3).join(' | ')}`);
}

for (const scheme of ['light', 'dark'] as const) {
  test(`axe finds nothing serious (${scheme})`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    const { boxes } = await open(page);
    expect(await seriousFindings(page)).toEqual([]);
    await clickFrame(page, pickFrame(boxes));
    await page.getByTestId('ranking').getByRole('button').first().click();
    await page.getByTestId('search').fill('a');
    await page.getByTestId('table').locator('.function-name').first().hover();
    expect(await seriousFindings(page)).toEqual([]);
    await page.getByRole('button', { name: 'Custom' }).click();
    expect(await seriousFindings(page)).toEqual([]);
  });
}

test('axe finds nothing serious on an empty page', async ({ page }) => {
  await page.goto('./?live=0&query={service="no-such-service"}');
  await expect(page.getByTestId('empty')).toBeVisible();
  expect(await seriousFindings(page)).toEqual([]);
});

test('a narrow window scrolls as a page and nothing is cut off sideways', async ({ page }) => {
  await page.setViewportSize({ width: 480, height: 800 });
  await open(page);
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(480);
});

test('the page answers under a policy that allows nothing foreign or inline', async ({ page }) => {
  const answer = await page.goto('./');
  const policy = answer!.headers()['content-security-policy'];
  expect(policy).toContain("default-src 'self'");
  expect(policy).not.toContain('unsafe');
  const hosts = new Set<string>();
  page.on('request', (request) => hosts.add(new URL(request.url()).host));
  await page.reload();
  await drawn(page);
  expect([...hosts]).toEqual([new URL(page.url()).host]);
});
