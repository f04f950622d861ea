// SPDX-License-Identifier: Apache-2.0
// Draws a flame tree into a scroll area and says what is under the pointer. It knows nothing of the
// URL or the server: the component (flame_graph.tsx) feeds it a scene and listens.
//
// Three layers: a tall empty spacer that makes the scroll bar, a canvas of the size of the window
// for the boxes, one of the same size above it for labels and outlines. A canvas is never as tall as
// the stack: 2,800 frames would pass what browsers can draw. One frame costs a few binary searches
// per row (layout.ts) and one instanced draw call.
import { kInlined } from '../model/columns';
import { shortenName } from '../model/format';
import type { Matches } from '../model/search';
import { type FlameTree, nodeAt } from '../model/tree';
import { colorIndexes, type HueBook, kLabelColor, kMatchLabelColor, makePalette, type Palette, type Theme, toCss, pack } from './colors';
import { type Boxes, layout, makeBoxes } from './layout';
import { makeRenderer, RectangleList, type Renderer } from './renderers';

export const kRowHeight = 19;
const kFont = '11.5px "Inter", system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';
const kMinLabelWidth = 40;
const kPadding = 4;
const kZoomMs = 180;

export interface Scene {
  tree: FlameTree;
  focus: number;
  selected: number; // keyboard's node, or -1
  matches: Matches | null;
  mark: number; // name index of the function picked in the table, or -1
  theme: Theme;
  hues: HueBook;
}

export interface DrawnBox {
  x: number; // CSS pixels, seen from the top left of the window of the graph
  y: number;
  width: number;
  height: number;
  name: string;
  node: number;
  merged: number; // nodes drawn as this one box; 0: one
}

export class FlameView {
  private boxCanvas: HTMLCanvasElement;
  private readonly labelCanvas: HTMLCanvasElement;
  private readonly spacer: HTMLElement;
  private renderer: Renderer | null = null;
  private readonly observer: ResizeObserver;

  private scene: Scene | null = null;
  private colors: Uint8Array<ArrayBufferLike> = new Uint8Array();
  private palette: Palette = makePalette('light');
  private hovered = -1;
  private from = 0; // what the window shows, in units of value
  private to = 1;
  private animation: { from: number; to: number; begin: number } | null = null;
  private boxes: Boxes = makeBoxes();
  private readonly list = new RectangleList();
  private readonly labelWidths = new Map<string, number>();
  private readonly shortNames = new Map<string, string>();
  private frame = 0;
  private width = 0;
  private height = 0;
  lastFrameMs = 0; // of script, for budgets

  constructor(private readonly scroller: HTMLElement) {
    this.spacer = document.createElement('div');
    this.boxCanvas = this.makeCanvas();
    this.labelCanvas = this.makeCanvas();
    const window = document.createElement('div');
    window.className = 'flame-window';
    window.append(this.boxCanvas, this.labelCanvas);
    scroller.append(window, this.spacer);
    this.openRenderer(true);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(scroller);
    scroller.addEventListener('scroll', this.schedule, { passive: true });
  }

  dispose(): void {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.renderer?.dispose();
    this.scroller.replaceChildren();
  }

  private makeCanvas(): HTMLCanvasElement {
    const canvas = document.createElement('canvas');
    canvas.className = 'flame-canvas';
    canvas.setAttribute('aria-hidden', 'true');
    return canvas;
  }

  private openRenderer(webgl: boolean): void {
    const fallBack = () => {
      this.renderer?.dispose();
      const fresh = this.makeCanvas();
      this.boxCanvas.replaceWith(fresh);
      this.boxCanvas = fresh;
      this.openRenderer(false);
      this.resize();
    };
    try {
      this.renderer = makeRenderer(this.boxCanvas, webgl, fallBack);
    } catch (error) {
      if (!webgl) throw error;
      fallBack();
    }
  }

  // --- Scene -------------------------------------------------------------------------------------

  show(scene: Scene): void {
    const before = this.scene;
    this.scene = scene;
    if (before?.tree !== scene.tree) {
      this.colors = colorIndexes(scene.tree, scene.hues);
      this.hovered = -1;
    }
    if (before?.theme !== scene.theme) this.palette = makePalette(scene.theme);
    this.spacer.style.height = `${scene.tree.levels * kRowHeight + kPadding}px`;
    const from = scene.tree.start[scene.focus];
    const to = from + Math.max(1, scene.tree.total[scene.focus]);
    const zooms = before?.tree === scene.tree && before.focus !== scene.focus;
    if (zooms && !matchMedia('(prefers-reduced-motion: reduce)').matches) {
      this.animation = { from: this.from, to: this.to, begin: performance.now() };
    } else if (before?.tree !== scene.tree || zooms) {
      this.animation = null;
      this.from = from;
      this.to = to;
    }
    if (zooms) this.reveal(scene.focus);
    else if (before && before.selected !== scene.selected && scene.selected >= 0) this.reveal(scene.selected);
    this.schedule();
  }

  setHovered(node: number): void {
    if (node === this.hovered) return;
    this.hovered = node;
    this.schedule();
  }

  private reveal(node: number): void {
    const top = this.scene!.tree.depth[node] * kRowHeight;
    const { scrollTop } = this.scroller;
    if (top < scrollTop + 2 * kRowHeight) this.scroller.scrollTop = Math.max(0, top - 3 * kRowHeight);
    else if (top > scrollTop + this.height - 3 * kRowHeight) {
      this.scroller.scrollTop = top - this.height + 6 * kRowHeight;
    }
  }

  // Node under a pointer event, or -1.
  nodeUnder(event: { clientX: number; clientY: number }): number {
    if (!this.scene || this.width === 0) return -1;
    const area = this.scroller.getBoundingClientRect();
    const row = Math.floor((event.clientY - area.top + this.scroller.scrollTop) / kRowHeight);
    const x = event.clientX - area.left;
    if (x < 0 || x >= this.width) return -1;
    return nodeAt(this.scene.tree, row, this.from + (x / this.width) * (this.to - this.from));
  }

  // Where a node is drawn now, relative to the window; null when it is not in view.
  placeOf(node: number): { x: number; y: number; width: number } | null {
    if (!this.scene) return null;
    const { tree } = this.scene;
    const scale = this.width / (this.to - this.from);
    const left = Math.max(0, (tree.start[node] - this.from) * scale);
    const right = Math.min(this.width, (tree.start[node] + tree.total[node] - this.from) * scale);
    if (right <= left) return null;
    return { x: left, y: tree.depth[node] * kRowHeight - this.scroller.scrollTop, width: right - left };
  }

  // --- Drawing -----------------------------------------------------------------------------------

  private resize(): void {
    const { clientWidth, clientHeight } = this.scroller;
    this.width = clientWidth;
    this.height = clientHeight;
    const scale = devicePixelRatio || 1;
    for (const canvas of [this.boxCanvas, this.labelCanvas]) {
      canvas.width = Math.max(1, Math.round(clientWidth * scale));
      canvas.height = Math.max(1, Math.round(clientHeight * scale));
      canvas.style.width = `${clientWidth}px`;
      canvas.style.height = `${clientHeight}px`;
    }
    // At once: a resized canvas is blank, and the next frame would be a flash.
    this.draw();
  }

  private readonly schedule = () => {
    if (this.frame === 0) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.draw();
      });
    }
  };

  private animate(): void {
    if (!this.animation || !this.scene) return;
    const { tree, focus } = this.scene;
    const { from, to, begin } = this.animation;
    const time = Math.min(1, (performance.now() - begin) / kZoomMs);
    const eased = 1 - (1 - time) ** 3;
    const goal = tree.start[focus];
    this.from = from + (goal - from) * eased;
    this.to = to + (goal + Math.max(1, tree.total[focus]) - to) * eased;
    if (time < 1) this.schedule();
    else this.animation = null;
  }

  private draw(): void {
    const { scene } = this;
    if (!scene || !this.renderer || this.width === 0 || this.height === 0) return;
    const begin = performance.now();
    this.animate();
    const top = this.scroller.scrollTop;
    this.boxes = layout(
      scene.tree,
      {
        from: this.from,
        to: this.to,
        width: this.width,
        firstRow: Math.floor(top / kRowHeight),
        lastRow: Math.ceil((top + this.height) / kRowHeight),
      },
      this.boxes,
    );
    this.fillRectangles(scene, top);
    this.renderer.draw(this.list, this.width, this.height);
    this.drawLabels(scene, top);
    this.lastFrameMs = performance.now() - begin;
  }

  private hits(scene: Scene, box: number): boolean {
    const { tree, matches, mark } = scene;
    const node = this.boxes.node[box];
    const end = this.boxes.runEnd[box] || node + 1;
    if (matches) return matches.before[end] > matches.before[node];
    for (let i = node; i < end; ++i) if (tree.name[i] === mark) return true;
    return false;
  }

  private fillRectangles(scene: Scene, top: number): void {
    const { boxes, list, palette, colors } = this;
    const pixel = 1 / (devicePixelRatio || 1);
    const snap = (value: number) => Math.round(value / pixel) * pixel;
    const selects = scene.matches !== null || scene.mark >= 0;
    const focusDepth = scene.tree.depth[scene.focus];
    list.clear();
    for (let b = 0; b < boxes.count; ++b) {
      const node = boxes.node[b];
      const x = snap(boxes.x[b]);
      const right = snap(boxes.x[b] + boxes.width[b]);
      const width = Math.max(pixel, right - x - (right - x > 3 * pixel ? pixel : 0));
      const y = boxes.row[b] * kRowHeight - top;
      const dim = selects || boxes.row[b] < focusDepth;
      const color = selects && this.hits(scene, b) ? palette.match : (dim ? palette.dimmed : palette.fills)[colors[node]];
      list.push(x, y, width, kRowHeight - 1, color);
      if (width > 5 && scene.tree.flags[node] & kInlined && boxes.runEnd[b] === 0) {
        list.push(x + 2, y + kRowHeight - 3, width - 4, 1, palette.edge);
      }
    }
  }

  private drawLabels(scene: Scene, top: number): void {
    const context = this.labelCanvas.getContext('2d');
    if (!context) return;
    const scale = this.labelCanvas.width / this.width;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.font = kFont;
    context.textBaseline = 'middle';
    const plain = toCss(pack(kLabelColor[scene.theme]));
    const onMatch = toCss(pack(kMatchLabelColor));
    const selects = scene.matches !== null || scene.mark >= 0;
    const { boxes } = this;
    for (let b = 0; b < boxes.count; ++b) {
      if (boxes.width[b] < kMinLabelWidth || boxes.runEnd[b] > 0) continue;
      context.fillStyle = selects && this.hits(scene, b) ? onMatch : plain;
      const name = this.labelOf(scene, boxes.node[b]);
      const label = this.fitLabel(context, name, boxes.width[b] - 2 * kPadding);
      context.fillText(label, boxes.x[b] + kPadding, boxes.row[b] * kRowHeight - top + kRowHeight / 2);
    }
    this.outline(context, this.hovered, plain, 1.5);
    this.outline(context, scene.selected, plain, 2);
  }

  private labelOf(scene: Scene, node: number): string {
    return node === 0 ? 'total' : scene.tree.names[scene.tree.name[node]];
  }

  private outline(context: CanvasRenderingContext2D, node: number, color: string, line: number): void {
    const place = node >= 0 && node < (this.scene?.tree.size ?? 0) ? this.placeOf(node) : null;
    if (!place) return;
    context.strokeStyle = color;
    context.lineWidth = line;
    context.strokeRect(place.x + line / 2, place.y + line / 2, Math.max(1, place.width - 1 - line), kRowHeight - 1 - line);
  }

  // The name, else the short name, else its beginning and "…".
  private fitLabel(context: CanvasRenderingContext2D, name: string, room: number): string {
    if (this.measure(context, name) <= room) return name;
    let short = this.shortNames.get(name);
    if (short === undefined) {
      short = shortenName(name);
      this.shortNames.set(name, short);
    }
    const wide = this.measure(context, short);
    if (wide <= room) return short;
    let length = Math.floor((short.length * room) / wide);
    while (length > 0 && context.measureText(short.slice(0, length) + '…').width > room) --length;
    return length > 1 ? short.slice(0, length) + '…' : '';
  }

  private measure(context: CanvasRenderingContext2D, text: string): number {
    let width = this.labelWidths.get(text);
    if (width === undefined) {
      if (this.labelWidths.size > 50_000) this.labelWidths.clear();
      width = context.measureText(text).width;
      this.labelWidths.set(text, width);
    }
    return width;
  }

  // --- What tests may look at ------------------------------------------------------------------------

  drawnBoxes(): DrawnBox[] {
    const { scene, boxes } = this;
    if (!scene) return [];
    const top = this.scroller.scrollTop;
    return Array.from({ length: boxes.count }, (_, b) => ({
      x: boxes.x[b],
      y: boxes.row[b] * kRowHeight - top,
      width: boxes.width[b],
      height: kRowHeight - 1,
      name: scene.tree.names[scene.tree.name[boxes.node[b]]],
      node: boxes.node[b],
      merged: boxes.runEnd[b] ? boxes.runEnd[b] - boxes.node[b] : 0,
    }));
  }
  get rendererKind(): string {
    return this.renderer?.kind ?? 'none';
  }
  get animating(): boolean {
    return this.animation !== null || this.frame !== 0;
  }
}
