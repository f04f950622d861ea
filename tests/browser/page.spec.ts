// SPDX-License-Identifier: Apache-2.0
// What a person does with the page, on whatever data the server has.
import { clickFrame, drawn, expect, fixedRange, open, pickFrame, test } from './firewatch_page';

test('opens with no input on ranking, time line, flame graph and table', async ({ page }) => {
  await page.goto('./');
  const { boxes } = await drawn(page);
  expect(boxes[0]).toMatchObject({ node: 0, name: 'total' });
  expect(boxes.length).toBeGreaterThan(10);
  await expect(page.getByTestId('ranking').getByRole('button').first()).toContainText(/\d%.*cores.*samples/);
  await expect(page.getByTestId('timeline').locator('canvas')).toBeVisible();
  await expect(page.getByTestId('table').locator('tbody button.function-name').first()).toBeVisible();
  await expect(page.getByTestId('live')).toHaveText(/Live/);
  await expect(page.locator('footer')).toContainText(/samples.*node.*lost/);
  expect(new URL(page.url()).search).toBe('');
  if (process.env.FIREWATCH_SCREENSHOT) await page.screenshot({ path: process.env.FIREWATCH_SCREENSHOT });
});

test('boxes lie inside their parents and fill the width', async ({ page }) => {
  const { boxes } = await open(page);
  const rows = new Map<number, typeof boxes>();
  for (const box of boxes) rows.set(box.y, [...(rows.get(box.y) ?? []), box]);
  const heights = [...rows.keys()].sort((a, b) => a - b);
  const area = await page.getByTestId('flame').evaluate((element) => element.clientWidth);
  expect(boxes[0].width).toBeCloseTo(area, 0);
  for (const [above, below] of heights.slice(1).map((y, i) => [heights[i], y])) {
    for (const box of rows.get(below)!) {
      if (box.merged > 0) continue; // a run may span parents
      const inside = rows.get(above)!.some((up) => up.x <= box.x + 1.1 && box.x + box.width <= up.x + up.width + 1.1);
      expect(inside, `${box.name} at ${box.x} in the row above`).toBe(true);
    }
  }
});

test('a click zooms, the link holds it, back undoes it', async ({ page }) => {
  const before = await open(page, await fixedRange(page));
  const frame = pickFrame(before.boxes);
  await clickFrame(page, frame);
  await expect(page).toHaveURL(/focus=[0-9a-f]{16}/);
  await expect(page.getByTestId('crumbs')).toContainText('of all');
  await expect.poll(async () => (await drawn(page)).boxes.find((box) => box.node === frame.node)?.width)
    .toBeCloseTo(before.boxes[0].width, 0);
  const zoomed = (await drawn(page)).boxes;
  const link = page.url();
  expect(link.length).toBeLessThan(2048);

  await page.reload();
  expect((await drawn(page)).boxes).toEqual(zoomed);

  await page.goBack();
  await expect(page).not.toHaveURL(/focus=/);
  await expect.poll(async () => (await drawn(page)).boxes).toEqual(before.boxes);
  await page.goForward();
  await expect(page).toHaveURL(link);
});

test('ways out of a zoom: reset, Escape, breadcrumb', async ({ page }) => {
  const frame = pickFrame((await open(page)).boxes);
  await clickFrame(page, frame);
  await page.getByTestId('reset').click();
  await expect(page).not.toHaveURL(/focus=/);
  await clickFrame(page, frame);
  await expect(page).toHaveURL(/focus=/);
  await page.keyboard.press('Escape');
  await expect(page).not.toHaveURL(/focus=/);
  await clickFrame(page, frame);
  await page.getByTestId('crumbs').getByRole('button', { name: 'total' }).click();
  await expect(page).not.toHaveURL(/focus=/);
});

test('the details line and the tooltip say the same numbers', async ({ page }) => {
  const frame = pickFrame((await open(page)).boxes);
  await page.getByTestId('flame').hover({ position: { x: frame.x + frame.width / 2, y: frame.y + 8 } });
  const tooltip = page.getByTestId('tooltip');
  await expect(tooltip).toContainText(frame.name);
  const total = /total([\d.,]+ \S*?)[\d.<]+% of all/.exec((await tooltip.textContent())!)![1];
  await expect(page.getByTestId('details')).toContainText(`${total} total`);
  await expect(page.getByTestId('details')).toContainText(frame.name);
});

test('search says its share, by text and by expression', async ({ page }) => {
  const { boxes } = await open(page);
  const name = pickFrame(boxes).name;
  const input = page.getByTestId('search');
  await input.fill(name.slice(0, 40));
  await expect(page.getByTestId('search-result')).toHaveText(/^[\d.]+% of all · [\d,]+ frames?/);
  await expect(page).toHaveURL(/search=/);
  await expect(page.getByTestId('table').locator('.function-name').first()).toBeVisible();
  await input.fill('/^./');
  await expect(page.getByTestId('search-result')).toHaveText(/^100% of all/);
  await input.fill('/(/');
  await expect(page.getByTestId('search-result')).toContainText(/expression/i);
  await input.fill('no such function anywhere');
  await expect(page.getByTestId('search-result')).toHaveText('no match');
  await input.press('Escape');
  await expect(input).toHaveValue('');
});

test('a service is one click away, and the way back is a chip', async ({ page }) => {
  await open(page);
  const first = page.getByTestId('ranking').getByRole('button').first();
  await first.click();
  await expect(first).toHaveAttribute('aria-pressed', 'true');
  await expect(page).toHaveURL(/query=\{service=/);
  await expect(page.getByTestId('query')).toHaveValue(/^\{service=".+"\}$/);
  const others = await page.getByTestId('ranking').getByRole('button').count();
  expect(others).toBeGreaterThan(1); // the other services stay in sight
  await page.getByTestId('chips').getByRole('button', { name: /Remove service/ }).click();
  await expect(page).not.toHaveURL(/query=/);
  await page.goBack();
  await expect(page).toHaveURL(/query=/);
});

test('dragging over the time line sets the range, a double click goes back', async ({ page }) => {
  await open(page);
  const over = page.getByTestId('timeline').locator('.u-over');
  const box = (await over.boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.5, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, box.y + 40, { steps: 6 });
  await page.mouse.up();
  await expect(page).toHaveURL(/from=\d{13}&to=\d{13}/);
  const parameters = new URL(page.url()).searchParams;
  const seconds = (Number(parameters.get('to')) - Number(parameters.get('from'))) / 1000;
  expect(seconds).toBeGreaterThan(0.35 * 900);
  expect(seconds).toBeLessThan(0.45 * 900);
  await expect(page.getByTestId('chips')).toContainText('–');
  await page.getByTestId('timeline').locator('.u-over').dblclick();
  await expect(page).not.toHaveURL(/from=/);
});

test('the table sorts by each column, and a click marks the function in the graph', async ({ page }) => {
  await open(page, await fixedRange(page));
  const names = () => page.getByTestId('table').locator('.function-text').allTextContents();
  const header = (name: string) => page.getByTestId('table').getByRole('columnheader', { name });
  await expect(header('Self')).toHaveAttribute('aria-sort', 'descending');
  const bySelf = await names();
  await header('Total').getByRole('button').click();
  await expect(header('Total')).toHaveAttribute('aria-sort', 'descending');
  await expect(page).toHaveURL(/sort=-total/);
  const shares = await page.getByTestId('table').locator('td:nth-child(3) .cell-share').allTextContents();
  const numbers = shares.map((text) => parseFloat(text.replace('<', '')));
  expect(numbers).toEqual([...numbers].sort((a, b) => b - a));
  await header('Function').getByRole('button').click();
  await expect(header('Function')).toHaveAttribute('aria-sort', 'ascending');
  await page.goto(page.url().replace(/&sort=name/, ''));
  await drawn(page);
  expect(await names()).toEqual(bySelf);

  const row = page.getByTestId('table').locator('.function-name').first();
  await row.click();
  await expect(row).toHaveAttribute('aria-pressed', 'true');
  await expect(page).toHaveURL(/mark=[0-9a-f]{16}/);
});

test('only this function: the graph keeps its stacks, the chip brings all back', async ({ page }) => {
  const before = await open(page, await fixedRange(page));
  const frame = pickFrame(before.boxes);
  await clickFrame(page, frame, 'right');
  await page.getByTestId('frame-menu').getByRole('menuitem', { name: /Only stacks/ }).click();
  await expect(page).toHaveURL(/only=[0-9a-f]{16}/);
  await expect.poll(async () => (await drawn(page)).boxes.some((box) => box.name === frame.name && box.width > frame.width)).toBe(true);
  await page.getByTestId('chips').getByRole('button', { name: /Remove only/ }).click();
  await expect.poll(async () => (await drawn(page)).boxes).toEqual(before.boxes);
});

test('the keyboard walks, zooms and comes back', async ({ page }) => {
  await open(page);
  const flame = page.getByTestId('flame');
  const details = page.getByTestId('details');
  await flame.focus();
  await page.keyboard.press('ArrowDown'); // takes up the root
  await page.keyboard.press('ArrowDown');
  const active = await flame.getAttribute('aria-activedescendant');
  expect(active).toMatch(/^frame-\d+$/);
  const spoken = page.locator(`[id="${active}"]`);
  await expect(spoken).toHaveAttribute('aria-level', '2');
  await expect(spoken).toContainText(/total, .*% of all.*self/);
  const name = (await spoken.textContent())!.split(',')[0];
  await expect(details).toContainText(name);
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowUp');
  await expect(flame).toHaveAttribute('aria-activedescendant', active!);
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/focus=/);
  await page.keyboard.press('Escape');
  await expect(page).not.toHaveURL(/focus=/);
  await page.keyboard.press('/');
  await expect(page.getByTestId('search')).toBeFocused();
});

test('the query suggests names and values, and runs on Enter', async ({ page }) => {
  await open(page);
  const query = page.getByTestId('query');
  await query.fill('ser');
  const name = page.getByRole('option', { name: 'service', exact: true });
  const answer = page.waitForResponse(/labels\/service\/values/);
  await name.click();
  await expect(query).toHaveValue('{service=');
  const { values } = (await (await answer).json()) as { values: string[] };
  const value = page.getByRole('listbox').getByRole('option').first();
  await expect(value).toBeVisible();
  await expect(name).toHaveCount(0);
  const text = await value.textContent();
  expect(values).toContain(text);
  await query.press('ArrowDown');
  await expect(value).toHaveAttribute('aria-selected', 'true');
  await query.press('Enter');
  await expect(query).toHaveValue(`{service="${text}"}`);
  await query.press('Escape');
  await query.press('Enter');
  await expect(page).toHaveURL(/query=/);
});

test('names are no choices for a value, however long the values take', async ({ page }) => {
  await open(page);
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  await page.route(/labels\/service\/values/, async (route) => {
    await held;
    await route.continue();
  });
  const query = page.getByTestId('query');
  await query.fill('ser');
  await page.getByRole('option', { name: 'service', exact: true }).click();
  await expect(query).toHaveValue('{service=');
  await expect(page.getByRole('option')).toHaveCount(0);
  await query.press('ArrowDown');
  await query.press('Enter');
  await expect(query).toHaveValue('{service=');
  release();
  await expect(page.getByRole('option', { name: 'service', exact: true })).toHaveCount(0);
});

test('frames without a name say why, and the list says what helps', async ({ page }) => {
  const { boxes } = await open(page);
  const share = page.getByTestId('unnamed-share');
  test.skip(await share.count() === 0, 'every frame of this data has a name');
  const bare = boxes.filter((box) => box.merged === 0 && /\+0x[0-9a-f]+$/.test(box.name));
  if (bare.length > 0) {
    const widest = bare.reduce((best, box) => (box.width > best.width ? box : best));
    await page.getByTestId('flame').hover({ position: { x: widest.x + widest.width / 2, y: widest.y + widest.height / 2 } });
    await expect(page.getByTestId('tooltip')).toContainText('No name:');
    await expect(page.getByTestId('reason')).not.toBeEmpty();
  }
  await share.click();
  const list = page.getByTestId('unnamed-list');
  await expect(list.getByRole('listitem').first()).toContainText('of frames');
  // Files that only need a moment come with no command.
  const commands = await list.locator('code').allTextContents();
  if (!process.env.FIREWATCH_URL) expect(commands.length).toBeGreaterThan(0);
  for (const command of commands) expect(command).toContain('firewatch debuginfo upload ');
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
});

test('a frame shows the file and line of its function, as far as they are known', async ({ page }) => {
  const { boxes } = await open(page);
  const source = page.getByTestId('source');
  for (const box of boxes.filter((one) => one.merged === 0 && one.width > 20)) {
    await page.getByTestId('flame').hover({ position: { x: box.x + box.width / 2, y: box.y + box.height / 2 } });
    if (await source.count() > 0) break;
  }
  test.skip(await source.count() === 0, 'no frame of this data has a source file');
  await expect(source).toHaveText(/\.\w+:\d+$|^[^:]+$/);
});

test('the question mark lists the keys, Escape closes the list and nothing else', async ({ page }) => {
  await clickFrame(page, pickFrame((await open(page)).boxes));
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog')).toContainText('siblings, parent, largest child');
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await expect(page).toHaveURL(/focus=/);
});
