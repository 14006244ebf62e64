"use strict";
// Figures are Plotly's, with its own sliders, menus and zoom. Here: which request is shown, light
// or dark, and the order and filter of the table.
const read = id => JSON.parse(document.getElementById(id).textContent);
const themes = read("themes"), overviews = read("overviews");
const dark = matchMedia("(prefers-color-scheme: dark)");
const chooser = document.getElementById("case");
let printing = false;

function drawAll(specs, kind) {
  for (const figure of document.querySelectorAll(`figure.${kind}`)) {
    const spec = structuredClone(specs[figure.id]);
    figure.hidden = !spec;
    if (!spec) continue;
    spec.layout.template = themes[dark.matches && !printing ? "dark" : "light"];
    Plotly.react(figure.querySelector(".plot"), spec.data, spec.layout, {
      responsive: true, displaylogo: false, toImageButtonOptions: {format: "svg", filename: figure.id},
    });
  }
}
const drawCase = () => chooser && drawAll(read(`case-${chooser.value}`), "detail");
const draw = () => { drawAll(overviews, "overview"); drawCase(); };
const print = now => { printing = now; draw(); };

chooser?.addEventListener("change", drawCase);
dark.addEventListener("change", draw);
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
draw();

const table = document.getElementById("table"), body = table.tBodies[0];
const headings = [...table.tHead.rows[0].cells];
const key = (row, column) => row.cells[column].dataset.sort;

headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
  const down = heading.ariaSort === "ascending";
  for (const other of headings) other.ariaSort = null;
  heading.ariaSort = down ? "descending" : "ascending";
  const compare = (a, b) => {
    const [x, y] = [key(a, column), key(b, column)];
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
