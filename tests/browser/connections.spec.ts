// SPDX-License-Identifier: Apache-2.0
// Who talks to whom: a recorded answer about processes that this server has profiles of, so that the
// way to the flame graph is real; and the server's own answer, where it has one.
import axe from 'axe-core';
import type { Page } from '@playwright/test';
import { drawn, expect, fixedRange, test } from './firewatch_page';

const kNumbers = {
  opened: 0, closed: 0, failed: 0, resets_sent: 0, resets_received: 0, retransmits: 0, syn_retransmits: 0, bytes_sent: 0,
  bytes_received: 0, segments_sent: 0, segments_received: 0, duration_us: 0, rtt_us: 0, living: 0,
};
type Row = typeof kNumbers & { labels: Record<string, string>; role: string; remote: string; port: number };

// The labels of the process that burns most in the range.
async function busiest(page: Page, range: string): Promise<Record<string, string>> {
  const api = async (path: string) => (await page.request.get(`api/v1/${path}`)).json();
  const { groups } = await api(`series?group_by=service&step=600000${range}`);
  const service: string = groups[0].labels.service;
  const query = encodeURIComponent(`{service="${service}"}`);
  const one = async (name: string): Promise<string> => (await api(`labels/${name}/values?query=${query}${range}`)).values[0];
  return { node: await one('node'), service, exe: await one('exe'), container_id: '' };
}

function recorded(labels: Record<string, string>): Row[] {
  const row = (change: Partial<Row>): Row => ({ ...kNumbers, labels, role: 'connect', remote: '10.0.0.1', port: 80, ...change });
  return [
    row({ remote: '10.0.0.7', port: 5432, retransmits: 40, segments_sent: 1000, bytes_sent: 5 << 20, rtt_us: 250, opened: 7, living: 2 }),
    row({ remote: '10.0.0.9', port: 443, retransmits: 3, segments_sent: 9000, bytes_sent: 80 << 20, rtt_us: 31_000, opened: 2, resets_sent: 1, resets_received: 4 }),
    row({ remote: 'fd00::25', port: 25, failed: 12, syn_retransmits: 60 }),
    row({ labels: { ...labels, service: 'elsewhere', exe: '/opt/else where/"run"' }, role: 'accept', remote: '10.0.0.3', port: 8080, bytes_received: 9 << 20, opened: 900 }),
  ];
}

const kKeys: Record<string, (row: Row) => number> = {
  retransmits: (row) => row.retransmits, bytes: (row) => row.bytes_sent + row.bytes_received, failed: (row) => row.failed,
  opened: (row) => row.opened, rtt: (row) => row.rtt_us,
};

// Answers as the server does: its order, at most `limit` rows, the rest in the total.
async function record(page: Page, rows: Row[]): Promise<URL[]> {
  const asked: URL[] = [];
  await page.route('**/api/v1/connections?*', async (route) => {
    const url = new URL(route.request().url());
    asked.push(url);
    const by = kKeys[url.searchParams.get('sort')!];
    const listed = [...rows].sort((a, b) => by(b) - by(a)).slice(0, Number(url.searchParams.get('limit')));
    const total = Object.fromEntries(Object.keys(kNumbers).map((name) => [name, rows.reduce((sum, row) => sum + row[name as keyof typeof kNumbers], 0)]));
    await route.fulfill({ json: { from_ms: 0, to_ms: 1, rows: listed, total, left_out: rows.length - listed.length, windows: 1 } });
  });
  return asked;
}

const table = (page: Page) => page.getByTestId('connections');
const peers = async (page: Page) => (await table(page).locator('td.column-remote').allTextContents()).slice(1).map((text) => text.replace(/^.(to|from) /, ''));
const header = (page: Page, name: string) => table(page).getByRole('columnheader', { name });

test('rows by retransmits, each column sorts, the link keeps the order', async ({ page }) => {
  const range = await fixedRange(page);
  const asked = await record(page, recorded(await busiest(page, range)));
  await page.goto(`./?${range.slice(1)}`);
  await page.getByTestId('pages').getByRole('button', { name: 'Connections' }).click();
  await expect(page).toHaveURL(/view=connections/);
  await expect(header(page, 'Retransmits')).toHaveAttribute('aria-sort', 'descending');
  const byRetransmits = ['10.0.0.7:5432', '10.0.0.9:443', '10.0.0.3 on :8080', '[fd00::25]:25'];
  expect(await peers(page)).toEqual(byRetransmits);
  const first = table(page).locator('tbody tr').first();
  await expect(first).toContainText('4.00%'); // 40 of 1,000 segments
  await expect(first).toContainText('5.00 MiB');
  await expect(first).toContainText('250 µs');
  await expect(page.getByTestId('connections-total')).toContainText(/Total.*43.*0\.43%.*12.*60 SYN.*909/);
  await expect(page.getByTestId('connections-note')).toHaveText('4 rows');
  expect(asked[0].searchParams.get('from')).toBe(/from=(\d+)/.exec(range)![1]);
  expect(asked[0].searchParams.get('sort')).toBe('retransmits');

  const orders: [string, string, string][] = [
    ['Failed', '[fd00::25]:25', 'descending'], ['Sent', '10.0.0.9:443', 'descending'], ['Received', '10.0.0.3 on :8080', 'descending'],
    ['Resets', '10.0.0.9:443', 'descending'], ['RTT', '10.0.0.9:443', 'descending'], ['Opened', '10.0.0.3 on :8080', 'descending'],
    ['Living', '10.0.0.7:5432', 'descending'], ['Peer', '10.0.0.3 on :8080', 'ascending'],
  ];
  for (const [name, top, direction] of orders) {
    await header(page, name).getByRole('button').click();
    await expect(header(page, name)).toHaveAttribute('aria-sort', direction);
    expect((await peers(page))[0], `by ${name}`).toBe(top);
  }
  await header(page, 'RTT').getByRole('button').click();
  await header(page, 'RTT').getByRole('button').click();
  await expect(page).toHaveURL(/order=rtt/);
  const byRtt = await peers(page);
  expect(byRtt[0]).toBe('10.0.0.7:5432'); // what is not known is last
  await page.reload();
  await expect(header(page, 'RTT')).toHaveAttribute('aria-sort', 'ascending');
  expect(await peers(page)).toEqual(byRtt);
  await page.goBack();
  await expect(page.getByTestId('flame')).toBeVisible();
});

test('the filter narrows rows and sum, by text and by expression', async ({ page }) => {
  const range = await fixedRange(page);
  await record(page, recorded(await busiest(page, range)));
  await page.goto(`./?view=connections${range}`);
  await expect(table(page)).toBeVisible();
  await page.keyboard.press('/');
  const input = page.getByTestId('find');
  await expect(input).toBeFocused();
  await input.fill('10.0.0.9');
  await expect(table(page).locator('tbody tr')).toHaveCount(1);
  await expect(page).toHaveURL(/find=10\.0\.0\.9/);
  await expect(page.getByTestId('connections-note')).toHaveText('1 of 4 rows');
  await expect(page.getByTestId('connections-total')).toContainText(/Sum of matches.*80\.0 MiB/);
  await page.reload();
  await expect(input).toHaveValue('10.0.0.9');
  await expect(table(page).locator('tbody tr')).toHaveCount(1);
  await input.fill('/:(25|443)$/');
  await expect(table(page).locator('tbody tr')).toHaveCount(2);
  await input.fill('/(/');
  await expect(page.locator('#find-problem')).toContainText(/expression/i);
  await expect(table(page).locator('tbody tr')).toHaveCount(4);
  await input.fill('nobody');
  await expect(page.getByText('No connection matches the filter.')).toBeVisible();
  await input.press('Escape');
  await expect(input).toHaveValue('');
  await expect(page).not.toHaveURL(/find=/);
});

test('a process leads to its flame graph of the same time, back to its connections', async ({ page }) => {
  const range = await fixedRange(page);
  const labels = await busiest(page, range);
  await record(page, recorded(labels));
  await page.goto(`./?view=connections&order=-sent${range}`);
  await expect(table(page)).toBeVisible();
  const before = page.url();
  const link = table(page).locator('tbody tr').first().getByRole('link');
  expect(await link.getAttribute('href')).toContain('query={service='); // another tab works, too
  await link.click();
  const { boxes } = await drawn(page);
  expect(boxes.length).toBeGreaterThan(1);
  const parameters = new URL(page.url()).searchParams;
  expect(parameters.get('view')).toBeNull();
  expect(`&from=${parameters.get('from')}&to=${parameters.get('to')}`).toBe(range);
  expect(parameters.get('query')).toBe(`{service="${labels.service}", exe="${labels.exe}", node="${labels.node}"}`);
  await expect(page.getByTestId('chips').getByRole('button', { name: /Remove service/ })).toBeVisible();
  await page.goBack();
  await expect(page).toHaveURL(before);
  await expect(table(page).locator('tbody tr')).toHaveCount(4);
});

test('the keyboard goes from process to process and opens one', async ({ page }) => {
  const range = await fixedRange(page);
  await record(page, recorded(await busiest(page, range)));
  await page.goto(`./?view=connections${range}`);
  const links = table(page).locator('tbody').getByRole('link');
  await links.first().focus();
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  await expect(links.nth(2)).toBeFocused();
  await page.keyboard.press('ArrowUp');
  await expect(links.nth(1)).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/query=\{service=/);
  await drawn(page);
});

test('of many rows few are in the document, and what is not listed is said', async ({ page }) => {
  const rows: Row[] = Array.from({ length: 5000 }, (_, i) => ({
    ...kNumbers, labels: { node: 'n', service: `s${i}`, exe: `/bin/s${i}` }, role: 'connect', remote: `10.0.${i >> 8}.${i & 255}`, port: 80,
    retransmits: i, failed: 5000 - i, segments_sent: 10_000,
  }));
  const asked = await record(page, rows);
  await page.goto('./?live=0&view=connections');
  await expect(page.getByTestId('connections-note')).toHaveText('the 1,000 with most retransmits of 5,000 rows');
  await expect(page.getByTestId('connections-total')).toContainText('with 4,000 not listed');
  expect(await table(page).locator('tbody tr').count()).toBeLessThan(100);
  await expect(table(page)).toHaveAttribute('aria-rowcount', '1002');
  await table(page).evaluate((element) => (element.parentElement!.scrollTop = 500 * 26));
  await expect(table(page).locator('tr[aria-rowindex="503"]')).toContainText('s4499');
  expect(await table(page).locator('tbody tr').count()).toBeLessThan(100);
  // Another order is another choice of rows, which the server makes.
  await header(page, 'Failed').getByRole('button').click();
  await expect(page.getByTestId('connections-note')).toHaveText('the 1,000 with most failures of 5,000 rows');
  expect(asked.map((url) => url.searchParams.get('sort'))).toEqual(['retransmits', 'failed']);
  await table(page).evaluate((element) => (element.parentElement!.scrollTop = 0));
  await expect(table(page).locator('tr[aria-rowindex="3"]')).toContainText('s0');
});

test('live asks for connections again, and for no profile meanwhile', async ({ page }) => {
  const asked = await record(page, recorded({ node: 'n', service: 's', exe: '/bin/s' }));
  let profiles = 0;
  page.on('request', (request) => {
    if (request.url().includes('/api/v1/profile')) ++profiles;
  });
  await page.clock.install();
  await page.goto('./?view=connections');
  await expect.poll(() => asked.length).toBe(1);
  await page.clock.runFor(500);
  await expect(table(page)).toBeVisible();
  await page.clock.runFor(10_500);
  await expect.poll(() => asked.length).toBe(2);
  expect(profiles).toBe(0);
});

async function withModules(page: Page, modules: unknown[] | undefined): Promise<void> {
  await page.route('**/api/v1/status', async (route) => {
    const status = await (await route.fetch({ maxRetries: 3 })).json();
    status.nodes = [{ node: 'n1', last_seen_ms: status.now_ms, hz: 19, agent_version: '1', modules }];
    await route.fulfill({ json: status });
  });
}

test('nothing to see says why: no module, module off, no traffic, no match', async ({ page }) => {
  await record(page, []);
  const empty = page.getByTestId('empty');
  await withModules(page, [{ name: 'cpu', state: 'active', why: '' }]);
  await page.goto('./?live=0&view=connections');
  await expect(empty).toContainText('No agent watches connections');
  await expect(empty).toContainText('--modules cpu,network');
  await page.unroute('**/api/v1/status');
  await withModules(page, [{ name: 'network', state: 'off', why: 'no BPF here' }]);
  await page.reload();
  await expect(empty).toContainText(/network is off.*n1 off: no BPF here/);
  await page.unroute('**/api/v1/status');
  await withModules(page, [{ name: 'network', state: 'degraded', why: 'old kernel' }]);
  await page.reload();
  await expect(empty).toContainText(/No TCP connections in this range.*n1 degraded: old kernel/);
  await page.goto('./?live=0&view=connections&query={service="none"}');
  await expect(empty).toContainText('No connection matches this query');
  await empty.getByRole('button', { name: 'Clear the query' }).click();
  await expect(page).not.toHaveURL(/query=/);
  await expect(page).toHaveURL(/view=connections/);
});

test('a server from before connections is named, the rest of the page works', async ({ page, expected }) => {
  expected.allow(/404/);
  await page.route('**/api/v1/connections?*', (route) => route.fulfill({ status: 404, json: { error: 'there is nothing at this path' } }));
  await page.goto('./?live=0&view=connections');
  await expect(page.getByTestId('empty')).toContainText('This server keeps no connections');
  await expect(page.getByTestId('error')).toHaveCount(0);
  await expect(page.getByTestId('ranking').getByRole('button').first()).toBeVisible();
  await page.getByTestId('empty').getByRole('button', { name: 'Back to the profile' }).click();
  await drawn(page);
});

test('a failure keeps what was there, damage is named', async ({ page, expected }) => {
  expected.allow(/503|Failed to load/);
  const range = await fixedRange(page);
  await record(page, recorded(await busiest(page, range)));
  await page.goto(`./?view=connections${range}`);
  await expect(table(page).locator('tbody tr')).toHaveCount(4);
  await page.unroute('**/api/v1/connections?*');
  await page.route('**/api/v1/connections?*', (route) => route.fulfill({ status: 503, json: { error: 'the store is busy' } }));
  await page.getByRole('button', { name: 'Samples', exact: true }).click();
  await expect(page.getByTestId('error')).toContainText('the store is busy');
  await expect(table(page).locator('tbody tr')).toHaveCount(4);
  await page.unroute('**/api/v1/connections?*');
  await page.route('**/api/v1/connections?*', (route) => route.fulfill({ json: { rows: 5 } }));
  await page.getByTestId('error').getByRole('button', { name: 'Retry' }).click();
  await expect(page.getByTestId('error')).toContainText('Connections damaged: rows is no list');
});

test('the server’s own answer is shown', async ({ page }) => {
  const answer = await page.request.get('api/v1/connections?from=now-1h&to=now&sort=bytes&limit=1000');
  test.skip(answer.status() === 404, 'this server has no connections');
  expect(answer.status()).toBe(200);
  const { rows, left_out } = await answer.json();
  test.skip(rows.length === 0, 'no agent of this run watches connections');
  await page.goto('./?live=0&view=connections&from=now-1h&order=-sent');
  await expect(table(page).locator('tbody').getByRole('row').first()).toBeVisible();
  if (left_out === 0) await expect(page.getByTestId('connections-note')).toHaveText(/^[\d,]+ rows?$/);
  await expect(page.getByTestId('error')).toHaveCount(0);
});

test('modules stand in the footer, why one is not active behind them', async ({ page }) => {
  await withModules(page, [{ name: 'cpu', state: 'active', why: '' }, { name: 'network', state: 'degraded', why: 'old kernel' }, { name: 'enforce', state: 'off', why: 'no interface' }]);
  await page.goto('./?live=0');
  const modules = page.getByTestId('modules');
  await expect(modules).toHaveText('modules cpu, network degraded, enforce off');
  await modules.click();
  const list = page.getByTestId('modules-list').getByRole('listitem');
  await expect(list.first()).toHaveText(/enforce off.*no interface.*n1/);
  await expect(list.nth(1)).toHaveText(/network degraded.*old kernel/);
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
});

for (const scheme of ['light', 'dark'] as const) {
  test(`axe finds nothing serious in connections (${scheme})`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
    const range = await fixedRange(page);
    await record(page, recorded(await busiest(page, range)));
    const findings = async () => {
      await page.evaluate(axe.source);
      const results = await page.evaluate(() => (window as any).axe.run(document, { resultTypes: ['violations'] }));
      return results.violations
        .filter((finding: any) => finding.impact === 'serious' || finding.impact === 'critical')
        .map((finding: any) => `${finding.id}: ${finding.nodes.map((node: any) => node.html.slice(0, 160)).slice(0, 3).join(' | ')}`);
    };
    await page.goto(`./?view=connections${range}`);
    await expect(table(page)).toBeVisible();
    await table(page).locator('tbody tr').first().hover();
    expect(await findings()).toEqual([]);
    if (await page.getByTestId('modules').count() > 0) {
      await page.getByTestId('modules').click();
      expect(await findings()).toEqual([]);
    }
    await page.setViewportSize({ width: 480, height: 800 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(480);
  });
}
