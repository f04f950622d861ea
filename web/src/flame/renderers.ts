// SPDX-License-Identifier: Apache-2.0
// Two ways to fill rectangles from one list: instanced quads in WebGL2, and Canvas2D where that is
// missing. Labels are drawn by flame_view.ts on a canvas above.

// Five words per rectangle: x, y, width, height as float32 in CSS pixels, colour as bytes r g b a.
export class RectangleList {
  private words = new Float32Array(5 * 8192);
  private colors = new Uint32Array(this.words.buffer);
  count = 0;

  clear(): void {
    this.count = 0;
  }
  push(x: number, y: number, width: number, height: number, color: number): void {
    let at = 5 * this.count++;
    if (at + 5 > this.words.length) {
      const larger = new Float32Array(2 * this.words.length);
      larger.set(this.words);
      this.words = larger;
      this.colors = new Uint32Array(larger.buffer);
    }
    this.words[at++] = x;
    this.words[at++] = y;
    this.words[at++] = width;
    this.words[at++] = height;
    this.colors[at] = color;
  }
  get data(): Float32Array {
    return this.words.subarray(0, 5 * this.count);
  }
  color(index: number): number {
    return this.colors[5 * index + 4];
  }
}

export interface Renderer {
  readonly kind: 'webgl2' | 'canvas2d';
  draw(list: RectangleList, width: number, height: number): void;
  dispose(): void;
}

const kVertexShader = `#version 300 es
layout(location = 0) in vec4 box;
layout(location = 1) in vec4 fill;
uniform vec2 size;
out lowp vec4 color;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  vec2 at = (box.xy + corner * box.zw) / size * 2.0 - 1.0;
  gl_Position = vec4(at.x, -at.y, 0.0, 1.0);
  color = fill;
}`;
const kFragmentShader = `#version 300 es
precision lowp float;
in lowp vec4 color;
out vec4 result;
void main() { result = color; }`;

class WebGlRenderer implements Renderer {
  readonly kind = 'webgl2';
  private program: WebGLProgram | null = null;
  private size: WebGLUniformLocation | null = null;

  // Throws when the context cannot compile our shaders.
  constructor(
    private readonly gl: WebGL2RenderingContext,
    private readonly onLost: () => void,
  ) {
    gl.canvas.addEventListener('webglcontextlost', this.lost);
    this.setUp();
  }

  // A page has about 16 contexts; the browser takes ours back without asking. Canvas2D goes on.
  private lost = (event: Event) => {
    event.preventDefault();
    this.onLost();
  };

  private setUp(): void {
    const { gl } = this;
    const program = gl.createProgram()!;
    for (const [type, source] of [[gl.VERTEX_SHADER, kVertexShader], [gl.FRAGMENT_SHADER, kFragmentShader]] as const) {
      const shader = gl.createShader(type)!;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      throw new Error(`WebGL2 program: ${gl.getProgramInfoLog(program)}`);
    }
    this.program = program;
    this.size = gl.getUniformLocation(program, 'size');
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 4, gl.FLOAT, false, 20, 0);
    gl.vertexAttribDivisor(0, 1);
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(1, 4, gl.UNSIGNED_BYTE, true, 20, 16);
    gl.vertexAttribDivisor(1, 1);
  }

  draw(list: RectangleList, width: number, height: number): void {
    const { gl } = this;
    gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.uniform2f(this.size, width, height);
    gl.bufferData(gl.ARRAY_BUFFER, list.data, gl.STREAM_DRAW);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, list.count);
  }

  dispose(): void {
    this.gl.canvas.removeEventListener('webglcontextlost', this.lost);
  }
}

class Canvas2dRenderer implements Renderer {
  readonly kind = 'canvas2d';
  private styles = new Map<number, string>();
  constructor(private readonly context: CanvasRenderingContext2D) {}

  draw(list: RectangleList, width: number, height: number): void {
    const { context, styles } = this;
    const scale = context.canvas.width / width;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const { data } = list;
    let last = -1;
    for (let i = 0; i < list.count; ++i) {
      const color = list.color(i);
      if (color !== last) {
        let style = styles.get(color);
        if (!style) {
          style = `rgb(${color & 255},${(color >>> 8) & 255},${(color >>> 16) & 255})`;
          styles.set(color, style);
        }
        context.fillStyle = style;
        last = color;
      }
      context.fillRect(data[5 * i], data[5 * i + 1], data[5 * i + 2], data[5 * i + 3]);
    }
  }

  dispose(): void {}
}

// `onLost` is called when the WebGL context is gone: the caller puts a new canvas in place (a canvas
// never changes its kind of context) and asks again with webgl = false.
export function makeRenderer(canvas: HTMLCanvasElement, webgl: boolean, onLost: () => void): Renderer | null {
  const gl = webgl ? canvas.getContext('webgl2', { antialias: false, depth: false, stencil: false, powerPreference: 'low-power' }) : null;
  if (gl) return new WebGlRenderer(gl, onLost);
  const context = canvas.getContext('2d');
  return context ? new Canvas2dRenderer(context) : null;
}
