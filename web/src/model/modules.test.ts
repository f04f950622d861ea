// SPDX-License-Identifier: Apache-2.0
import { describe, expect, test } from 'vitest';
import type { NodeModule, NodeStatus } from '../api';
import { moduleReasons, moduleText, summarizeModules } from './modules';

const node = (name: string, ...modules: [string, NodeModule['state'], string?][]): NodeStatus => ({
  node: name, last_seen_ms: 0, hz: 19, agent_version: '1',
  modules: modules.map(([module, state, why = '']) => ({ name: module, state, why })),
});
const texts = (...nodes: NodeStatus[]) => summarizeModules(nodes).map(moduleText);

describe('modules of all nodes', () => {
  test('a state that all have needs no count', () => {
    expect(texts(node('a', ['cpu', 'active'], ['network', 'off']))).toEqual(['cpu', 'network off']);
    expect(texts(node('a', ['network', 'degraded']), node('b', ['network', 'degraded']))).toEqual(['network degraded']);
  });
  test('a state that some have says how many, of those with the module', () => {
    const nodes = [node('a', ['cpu', 'active'], ['network', 'off']), node('b', ['cpu', 'active'], ['network', 'degraded']), node('c', ['cpu', 'active'])];
    expect(texts(...nodes)).toEqual(['cpu', 'network off on 1 of 2, degraded on 1 of 2']);
  });
  test('agents that list none are no error', () => {
    expect(summarizeModules([{ node: 'old', last_seen_ms: 0, hz: 19, agent_version: '0' }])).toEqual([]);
  });
  test('one reason of many nodes is one line; the worst and the most frequent come first', () => {
    const reasons = moduleReasons([
      node('a', ['cpu', 'active'], ['network', 'degraded', 'old kernel']),
      node('b', ['cpu', 'active'], ['network', 'degraded', 'no BTF']),
      node('c', ['cpu', 'active'], ['network', 'degraded', 'old kernel'], ['enforce', 'off', 'no interface']),
    ]);
    expect(reasons.map(({ name, state, nodes }) => [name, state, nodes.join()])).toEqual([
      ['enforce', 'off', 'c'], ['network', 'degraded', 'a,c'], ['network', 'degraded', 'b'], ['cpu', 'active', 'a,b,c'],
    ]);
  });
});
