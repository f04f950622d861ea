// SPDX-License-Identifier: Apache-2.0
// The agents' modules over all nodes: how many of each are active, and who is not for which reason.
import type { NodeModule, NodeStatus } from '../api';

export interface ModuleSummary {
  name: string;
  nodes: number; // that have it enabled
  degraded: number;
  off: number;
}
export interface ModuleReason {
  name: string;
  state: NodeModule['state'];
  why: string;
  nodes: string[];
}

// In the order in which agents list them.
export function summarizeModules(nodes: NodeStatus[]): ModuleSummary[] {
  const all = new Map<string, ModuleSummary>();
  for (const { modules = [] } of nodes) {
    for (const { name, state } of modules) {
      const one = all.get(name) ?? { name, nodes: 0, degraded: 0, off: 0 };
      ++one.nodes;
      if (state !== 'active') ++one[state];
      all.set(name, one);
    }
  }
  return [...all.values()];
}

// "network", "network degraded", "network off on 2 of 40" (nodes that have it).
export function moduleText({ name, nodes, degraded, off }: ModuleSummary): string {
  const share = (count: number) => (count === nodes ? '' : ` on ${count} of ${nodes}`);
  const states = [off > 0 ? `off${share(off)}` : '', degraded > 0 ? `degraded${share(degraded)}` : ''].filter((text) => text);
  return states.length === 0 ? name : `${name} ${states.join(', ')}`;
}

// Equal reasons of many nodes are one; what is worst comes first, then what holds for most.
const kRank = { off: 0, degraded: 1, active: 2 };
export function moduleReasons(nodes: NodeStatus[]): ModuleReason[] {
  const all = new Map<string, ModuleReason>();
  for (const { node, modules = [] } of nodes) {
    for (const { name, state, why } of modules) {
      const key = JSON.stringify([name, state, why]);
      const one = all.get(key) ?? { name, state, why, nodes: [] };
      one.nodes.push(node);
      all.set(key, one);
    }
  }
  return [...all.values()].sort((a, b) => kRank[a.state] - kRank[b.state] || b.nodes.length - a.nodes.length);
}
