// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import { FormatError } from './columns';
import {
  type Connection, filterConnections, kConnectionSorts, peerText, processMatchers, readConnections, readSort,
  serverSort, sortConnections, sumConnections,
} from './connections';
import { compileSearch } from './search';
import { formatSelector, parseSelector } from './selector';

const kZero = {
  opened: 0, closed: 0, failed: 0, resets_sent: 0, resets_received: 0, retransmits: 0, syn_retransmits: 0,
  bytes_sent: 0, bytes_received: 0, segments_sent: 0, segments_received: 0, duration_us: 0, rtt_us: 0, living: 0,
};

function answerRow(service: string, numbers: Partial<typeof kZero> = {}, more: Record<string, unknown> = {}) {
  return {
    labels: { node: 'n1', service, exe: `/usr/bin/${service}`, container_id: '' },
    role: 'connect', remote: '10.0.0.1', port: 80, ...kZero, ...numbers, ...more,
  };
}
const answer = (rows: unknown[], more: Record<string, unknown> = {}) => ({ from_ms: 1, to_ms: 2, rows, total: kZero, left_out: 0, windows: 1, ...more });
const rowsOf = (...rows: unknown[]) => readConnections(answer(rows)).rows;
const services = (rows: Connection[]) => rows.map(({ labels }) => labels.service);

describe('the answer', () => {
  test('each number lands in its own field', () => {
    const numbers = Object.fromEntries(Object.keys(kZero).map((name, i) => [name, i + 1])) as typeof kZero;
    const { rows, total, leftOut, windows } = readConnections(answer([answerRow('a', numbers)], { total: numbers, left_out: 12, windows: 30 }));
    const wanted = {
      opened: 1, closed: 2, failed: 3, resetsSent: 4, resetsReceived: 5, retransmits: 6, synRetransmits: 7, bytesSent: 8,
      bytesReceived: 9, segmentsSent: 10, segmentsReceived: 11, durationUs: 12, rttUs: 13, living: 14,
    };
    expect(rows[0]).toMatchObject({ ...wanted, role: 'connect', remote: '10.0.0.1', port: 80 });
    expect(total).toEqual(wanted);
    expect([leftOut, windows]).toEqual([12, 30]);
  });

  test('a number that a server does not know is 0', () => {
    const { living, ...rest } = answerRow('a', { living: 4 });
    expect(living).toBe(4);
    expect(rowsOf(rest)[0].living).toBe(0);
  });

  test('what is no answer is an error that says what is wrong', () => {
    const wrong: [unknown, string][] = [
      [null, 'the answer is no object'],
      [[], 'the answer is no object'],
      [{}, 'rows is no list'],
      [answer([], { total: null }), 'total is no object'],
      [answer([7]), 'a row is no object'],
      [answer([answerRow('a', {}, { labels: 'x' })]), 'labels is no object'],
      [answer([answerRow('a', {}, { labels: { service: 3 } })]), 'label service is no text'],
      [answer([answerRow('a', {}, { role: 'listen' })]), 'role is neither'],
      [answer([answerRow('a', {}, { remote: 5 })]), 'remote is no text'],
      [answer([answerRow('a', {}, { bytes_sent: '5' })]), 'bytes_sent is no number'],
      [answer([answerRow('a', {}, { port: -1 })]), 'port is no number'],
    ];
    for (const [value, text] of wrong) {
      expect(() => readConnections(value)).toThrow(FormatError);
      expect(() => readConnections(value)).toThrow(text);
    }
  });

  test('a row has the same key in every answer, and no other row has it', () => {
    const [a] = rowsOf(answerRow('a', { opened: 1 }));
    const [b] = rowsOf({ ...answerRow('a', { opened: 2 }), labels: { exe: '/usr/bin/a', container_id: '', service: 'a', node: 'n1' } });
    expect(b.key).toBe(a.key);
    const others = rowsOf(answerRow('a', {}, { port: 81 }), answerRow('a', {}, { role: 'accept' }), answerRow('a', {}, { remote: '10.0.0.2' }), answerRow('b'));
    expect(new Set([a.key, ...others.map(({ key }) => key)]).size).toBe(5);
  });
});

describe('order', () => {
  const rows = rowsOf(
    answerRow('a', { retransmits: 3, bytes_sent: 10, rtt_us: 0, failed: 1, resets_sent: 1 }, { remote: '10.0.0.10' }),
    answerRow('b', { retransmits: 9, bytes_sent: 5, rtt_us: 70, failed: 0, resets_received: 2 }, { remote: '10.0.0.9' }),
    answerRow('c', { retransmits: 3, bytes_sent: 20, rtt_us: 30, failed: 7 }, { remote: 'fd00::1' }),
  );
  const sorted = (text: string) => services(sortConnections(rows, readSort(text))).join('');

  test('by numbers, equal ones by bytes', () => {
    expect(sorted('-retransmits')).toBe('bca');
    expect(sorted('retransmits')).toBe('cab');
    expect(sorted('-failed')).toBe('cab');
    expect(sorted('-sent')).toBe('cab');
    expect(sorted('-resets')).toBe('bac');
  });
  test('addresses by their numbers, names by letters', () => {
    expect(sorted('remote')).toBe('bac');
    expect(sorted('-process')).toBe('cba');
  });
  test('a round trip that is not known is last, whichever way', () => {
    expect(sorted('-rtt')).toBe('bca');
    expect(sorted('rtt')).toBe('cba');
  });
  test('does not depend on the order of the answer', () => {
    const same = rowsOf(...['x', 'y', 'z'].map((name) => answerRow(name)));
    for (const key of kConnectionSorts) {
      const sort = readSort(`-${key}`);
      expect(services(sortConnections([...same].reverse(), sort))).toEqual(services(sortConnections(same, sort)));
    }
  });
  test('the server is asked for an order that it has', () => {
    const known = ['retransmits', 'bytes', 'failed', 'opened', 'rtt'];
    for (const key of kConnectionSorts) expect(known).toContain(serverSort(key));
    expect([serverSort('sent'), serverSort('retransmits'), serverSort('failed')]).toEqual(['bytes', 'retransmits', 'failed']);
  });
});

describe('filter and sums', () => {
  const rows = rowsOf(
    answerRow('cart', { opened: 2, bytes_sent: 100, rtt_us: 40 }),
    answerRow('cart', { opened: 3, bytes_sent: 11, rtt_us: 60 }, { role: 'accept', remote: 'fd00::7', port: 8080 }),
    answerRow('redis', { opened: 1 }, { remote: '', port: 0 }),
  );
  const filtered = (text: string) => filterConnections(rows, compileSearch(text)).map((row) => rows.indexOf(row));

  test('peers as people write them', () => {
    expect(rows.map(peerText)).toEqual(['10.0.0.1:80', 'fd00::7 on :8080', 'other peers']);
    expect(peerText({ role: 'connect', remote: 'fd00::7', port: 443 })).toBe('[fd00::7]:443');
  });
  test('finds by process, peer, port, direction and node', () => {
    expect(filtered('')).toEqual([0, 1, 2]);
    expect(filtered('CART')).toEqual([0, 1]);
    expect(filtered('/bin/redis')).toEqual([2]);
    expect(filtered(':8080')).toEqual([1]);
    expect(filtered('accept')).toEqual([1]);
    expect(filtered('/^10\\./')).toEqual([0]);
    expect(filtered('n1')).toEqual([0, 1, 2]);
    expect(filtered('nobody')).toEqual([]);
  });
  test('sums add everything but the mean', () => {
    expect(sumConnections(rows)).toMatchObject({ opened: 6, bytesSent: 111, rttUs: 0 });
    expect(sumConnections([rows[1]]).rttUs).toBe(60);
    expect(sumConnections([])).toMatchObject({ opened: 0, living: 0 });
  });
});

describe('the way to the flame graph', () => {
  const go = (query: string, labels: Record<string, string>) => {
    const parsed = parseSelector(query);
    return parsed.ok ? formatSelector(processMatchers(parsed.matchers, labels)) : 'no query';
  };
  test('sets what names the process, keeps the rest', () => {
    expect(go('', { service: 'a', exe: '/bin/a', node: 'n', container_id: '', comm: 'x' })).toBe('{service="a", exe="/bin/a", node="n"}');
    expect(go('{service=~"a|b", zone="z"}', { service: 'a', container_id: 'c1' })).toBe('{zone="z", service="a", container_id="c1"}');
  });
  test('hostile names come back as they are', () => {
    const exe = '/tmp/a "b", x="\\n\n';
    const parsed = parseSelector(go('', { exe }));
    expect(parsed).toEqual({ ok: true, matchers: [{ name: 'exe', op: '=', value: exe }] });
  });
});
