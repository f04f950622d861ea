// SPDX-License-Identifier: Apache-2.0
// One colour per service, the same in ranking and time line: the largest seven of the unfiltered
// ranking have their own, the rest share grey. A service keeps its colour while the page is open.
import { computed } from '@preact/signals';
import { seriesColors } from '../flame/colors';
import { answers } from '../state';
import { theme } from '../theme';

export const kColoredServices = 7;
const slots = new Map<string, number>();

function slotOf(service: string): number {
  return slots.get(service) ?? kColoredServices;
}

const assigned = computed(() => {
  const groups = answers.value?.ranking.groups ?? [];
  const top = groups.slice(0, kColoredServices).map((group) => group.labels.service ?? '');
  for (const service of slots.keys()) if (!top.includes(service)) slots.delete(service);
  const free = Array.from({ length: kColoredServices }, (_, i) => i).filter((i) => ![...slots.values()].includes(i));
  for (const service of top) if (!slots.has(service)) slots.set(service, free.shift()!);
  return groups;
});

export function hasOwnColor(service: string): boolean {
  assigned.value;
  return slotOf(service) < kColoredServices;
}
export function colorOfService(service: string): string {
  assigned.value;
  return seriesColors(theme.value)[slotOf(service)];
}
export function colorOfRest(): string {
  return seriesColors(theme.value)[kColoredServices];
}
