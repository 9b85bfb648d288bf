// Small line charts as SVG, in the page's colours.
const NAMES = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, TOP] = [640, 90, 44, 18];

export function svg(tag, fields, text) {
  const node = document.createElementNS(NAMES, tag);
  for (const [name, value] of Object.entries(fields)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// `series` are [class, values or nulls]; `rules` are places of vertical lines.
export function chart(title, xs, series, rules = [], { height = HEIGHT, zero = true } = {}) {
  const box = svg("svg", { viewBox: `0 0 ${WIDTH} ${height + TOP + 16}`, role: "img", "aria-label": title });
  const all = series.flatMap(([, ys]) => ys).filter((y) => Number.isFinite(y));
  const flatX = Array.isArray(xs[0]) ? xs.flat() : xs;
  const [low, high] = [zero ? Math.min(0, ...all) : Math.min(...all), Math.max(...all, zero ? 1e-9 : -Infinity)];
  const [from, to] = [Math.min(...flatX), Math.max(...flatX)];
  const x = (value) => LEFT + ((value - from) / (to - from || 1)) * (WIDTH - LEFT - 8);
  const y = (value) => TOP + height - ((value - low) / (high - low || 1)) * height;
  box.append(svg("text", { x: 0, y: 11 }, title));
  for (const value of [low, high]) box.append(svg("text", { x: 0, y: y(value) + 4 }, short(value)));
  for (const value of [from, to]) {
    box.append(svg("text", { x: x(value), y: height + TOP + 13, "text-anchor": value === to ? "end" : "start" }, short(value)));
  }
  for (const place of rules) box.append(svg("line", { class: "rule", x1: x(place), x2: x(place), y1: TOP, y2: TOP + height }));
  series.forEach(([name, ys], number) => {
    const places = Array.isArray(xs[0]) ? xs[number] : xs;
    const points = ys.map((value, place) => [places[place], value]).filter(([, value]) => Number.isFinite(value));
    box.append(svg("polyline", { class: name, points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }));
  });
  return box;
}

const short = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));
