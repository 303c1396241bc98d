// Line charts in SVG: a grid, one line a series, and a cross that follows the pointer or the arrow keys.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// The least of 1, 2, 2.5, 5 times a power of ten that is not less than `value`.
function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((nice) => nice >= value * 0.9999);
}

class LineChart {
  // `series` are {name, of}, where `of` takes a point to a number or null; `format` writes a value.
  constructor(host, title, series, format) {
    Object.assign(this, { host, title, series, format, points: [], step: 1, until: 0, seconds: 300, at: null });
    this.drawing = svg("svg", { role: "img", tabindex: "0" });
    this.legend = document.createElement("p");
    this.legend.className = "legend";
    host.append(this.drawing);
    host.after(this.legend);
    new ResizeObserver(() => this.draw()).observe(host);
    this.drawing.addEventListener("pointermove", (event) => this.point(event));
    this.drawing.addEventListener("pointerleave", () => this.choose(null));
    this.drawing.addEventListener("blur", () => this.choose(null));
    this.drawing.addEventListener("keydown", (event) => this.key(event));
  }

  show(points, step, until, seconds) {
    Object.assign(this, { points, step, until, seconds });
    this.draw();
  }

  shown() {
    return this.points.slice(-Math.ceil(this.seconds / this.step));
  }

  point(event) {
    const box = this.drawing.getBoundingClientRect();
    const share = (event.clientX - box.left - this.left) / (box.width - this.left - this.right);
    const slots = Math.ceil(this.seconds / this.step);
    const index = Math.round(share * (slots - 1)) - (slots - this.shown().length);
    this.choose(index >= 0 && index < this.shown().length ? index : null);
  }

  key(event) {
    const last = this.shown().length - 1;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.choose(null);
    if (!by || last < 0) return;
    event.preventDefault();
    this.choose(Math.min(last, Math.max(0, (this.at === null ? last + 1 : this.at) + by)));
  }

  choose(at) {
    if (at === this.at) return;
    this.at = at;
    this.draw();
  }

  draw() {
    const width = this.host.clientWidth, height = this.host.clientHeight;
    if (!width) return;
    const shown = this.shown(), slots = Math.ceil(this.seconds / this.step);
    const values = this.series.map((one) => shown.map(one.of));
    const top = niceCeiling(Math.max(0, ...values.flat().filter((value) => value !== null)) * 1.05);
    Object.assign(this, { left: 58, right: 10 });
    const [above, below] = [8, 24], wide = width - this.left - this.right, high = height - above - below;
    const x = (index) => this.left + ((slots - shown.length + index) / Math.max(1, slots - 1)) * wide;
    const y = (value) => above + high - (value / top) * high;
    const parts = [];
    for (let line = 0; line <= 4; line++) {
      const value = (top * line) / 4;
      parts.push(svg("line", { class: line ? "gridline" : "axis", x1: this.left, x2: width - this.right, y1: y(value), y2: y(value) }));
      parts.push(svg("text", { x: this.left - 8, y: y(value) + 4, "text-anchor": "end" }, this.format(value)));
    }
    const marks = width > 520 ? 4 : 2;
    for (let mark = 0; mark <= marks; mark++) {
      const at = new Date((this.until - this.seconds * (1 - mark / marks)) * 1000);
      const anchor = mark === 0 ? "start" : mark === marks ? "end" : "middle";
      const seconds = this.seconds <= 300 ? "2-digit" : undefined;
      const text = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds, hourCycle: "h23" });
      parts.push(svg("text", { x: this.left + (wide * mark) / marks, y: height - 4, "text-anchor": anchor }, this.until ? text : ""));
    }
    values.forEach((line, number) => this.line(parts, line, number, x, y));
    if (this.at !== null && this.at < shown.length) {
      parts.push(svg("line", { class: "cross", x1: x(this.at), x2: x(this.at), y1: above, y2: above + high }));
      values.forEach((line, number) => {
        if (line[this.at] !== null) parts.push(svg("circle", { class: `s${number}`, cx: x(this.at), cy: y(line[this.at]), r: 4 }));
      });
    }
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.replaceChildren(...parts);
    this.describe(values);
  }

  // A value that is not there leaves the line as it is: between two publications nothing is known.
  line(parts, values, number, x, y) {
    const known = values.map((value, index) => [index, value]).filter(([, value]) => value !== null);
    if (!known.length) return;
    const d = known.map(([index, value], n) => `${n ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    if (number === 0) {
      const ends = [known[known.length - 1][0], known[0][0]].map((index) => `L${x(index).toFixed(1)} ${y(0).toFixed(1)}`);
      parts.push(svg("path", { class: "area", d: `${d}${ends.join("")}Z` }));
    }
    if (known.length === 1) parts.push(svg("circle", { class: `s${number}`, cx: x(known[0][0]), cy: y(known[0][1]), r: 2.5 }));
    parts.push(svg("path", { class: `s${number}`, d }));
  }

  describe(values) {
    const chosen = this.at === null ? values[0].length - 1 : this.at;
    const told = this.series.map((one, number) => {
      const value = this.at === null ? values[number].findLast((known) => known !== null) : values[number][chosen];
      return [one.name, value === null || value === undefined ? "–" : this.format(value)];
    });
    const when = this.at === null ? "now" : new Date((this.until - (values[0].length - 1 - chosen) * this.step) * 1000).toLocaleTimeString([], { hourCycle: "h23" });
    this.legend.replaceChildren(document.createTextNode(when), ...told.map(([name, value], number) => {
      const entry = document.createElement("span"), line = document.createElement("i"), bold = document.createElement("b");
      line.className = `s${number}`;
      bold.textContent = ` ${value}`;
      entry.append(line, name, bold);
      return entry;
    }));
    this.drawing.setAttribute("aria-label", `${this.title}, ${when}: ${told.map(([name, value]) => `${name} ${value}`).join(", ")}. Arrow keys show earlier values.`);
  }
}
