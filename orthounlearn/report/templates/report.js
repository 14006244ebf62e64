"use strict";
// Figures are Plotly's, with its own sliders, menus and zoom. Here: which request is shown, light
// or dark, and the order and filter of the table.
const read = id => JSON.parse(document.getElementById(id).textContent);
const themes = read("themes"), overviews = read("overviews");
const dark = matchMedia("(prefers-color-scheme: dark)");
const chooser = document.getElementById("case");
const waiting = new Map();  // figures that nobody has seen yet: a page of many opens at once
const paper = {most: 520, split: 1000};  // pixels: what a page holds; taller figures go on over the next
let printing = false;

function heightOf(layout) {
  return printing && layout.height < paper.split ? Math.min(layout.height, paper.most) : layout.height;
}

function paint(figure) {
  const spec = structuredClone(waiting.get(figure));
  waiting.delete(figure);
  near.unobserve(figure);
  spec.layout.height = heightOf(spec.layout);
  spec.layout.template = themes[dark.matches && !printing ? "dark" : "light"];
  Plotly.react(figure.querySelector(".plot"), spec.data, spec.layout, {
    responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg", filename: figure.id},
  });
}
const near = new IntersectionObserver(
  entries => entries.filter(e => e.isIntersecting && waiting.has(e.target)).forEach(e => paint(e.target)),
  {rootMargin: "400px"},
);

function show(specs, kind) {
  for (const figure of document.querySelectorAll(`figure.${kind}`)) {
    const spec = specs[figure.id], missing = figure.querySelector(".missing");
    figure.hidden = !spec && !missing;
    figure.querySelector(".wide").hidden = !spec;
    if (missing) missing.hidden = Boolean(spec);
    if (!spec) {
      waiting.delete(figure);  // of the request before
      near.unobserve(figure);
      continue;
    }
    figure.querySelector(".plot").style.minHeight = `${heightOf(spec.layout)}px`;
    waiting.set(figure, spec);
    near.unobserve(figure);
    near.observe(figure);
  }
}
const showCase = () => chooser && show(read(`case-${chooser.value}`), "detail");
const showAll = () => { show(overviews, "overview"); showCase(); };
const print = now => {
  printing = now;
  document.body.classList.toggle("printing", now);  // the width of paper, before figures are drawn
  document.querySelectorAll("figure .plot").forEach(plot => Plotly.purge(plot));  // drawn ones would keep theirs
  showAll();
  [...waiting.keys()].forEach(paint);
  for (const part of document.querySelectorAll(now ? "details:not([open])" : "details.opened")) {
    part.classList.toggle("opened", now);
    part.open = now;
  }
};

chooser?.addEventListener("change", showCase);
dark.addEventListener("change", showAll);
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
showAll();

const table = document.getElementById("table"), body = table.tBodies[0];
const headings = [...table.tHead.rows[0].cells];

const told = document.getElementById("told");
const tell = event => {
  const said = event.target.closest("[title]")?.title;
  if (said) told.textContent = said;
};
table.addEventListener("click", tell);
table.addEventListener("focusin", tell);
new ResizeObserver(() => {  // columns of names stay beside each other, however wide they are
  let left = 0;
  headings.filter(heading => heading.classList.contains("name")).forEach((heading, place) => {
    table.style.setProperty(`--left-${place}`, `${left}px`);
    left += heading.getBoundingClientRect().width;
  });
}).observe(table);

headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
  const down = heading.ariaSort === "ascending";
  for (const other of headings) other.ariaSort = null;
  heading.ariaSort = down ? "descending" : "ascending";
  const compare = (a, b) => {
    const [x, y] = [a, b].map(row => row.cells[column].dataset.sort);
    if (x === "" || y === "") return (x === "") - (y === "");  // empty cells last, either way
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}));

const filters = [...document.querySelectorAll("select[data-filter]")];
for (const filter of filters) filter.addEventListener("change", () => {
  for (const row of body.rows)
    row.hidden = filters.some(f => f.value && row.dataset[f.dataset.filter] !== f.value);
});
