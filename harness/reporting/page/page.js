"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
// Controls that need this script are hidden until it runs.
for (const each of all("[data-script]")) each.hidden = false;
// Tables: a click on a heading sorts, words in the box above filter. What has no value sorts last.
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = heading.classList.contains("number");
      const value = (row) => row.cells[column].dataset.value ?? (numeric ? "" : row.cells[column].textContent.trim());
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return (numeric ? Number(x) - Number(y) : x.localeCompare(y)) * (down ? -1 : 1);
      };
      body.append(...[...body.rows].sort(compare));
      table.parentElement.scrollTop = 0;
    });
  });
}
for (const input of all(".filter input")) {
  const body = document.getElementById(input.dataset.table).tBodies[0];
  const shown = document.getElementById(`${input.dataset.table}-shown`);
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = count ? `${count} of ${body.rows.length} rows` : `no row holds “${input.value.trim()}”`;
  };
  input.addEventListener("input", filter);
  filter();
}
// One ranking at a time: the one chosen by data set, network, metric and protocol, which the address keeps.
const choices = all("select[data-board]");
const boards = all(".board");
const agrees = (board, select) => board.dataset[select.dataset.board] === select.value;
const choose = (changed) => {
  // Not every data set has every network: the ranking that agrees with the choice just made, then with most others.
  const agreement = (board) => choices.filter((select) => agrees(board, select)).length + (changed && agrees(board, changed) ? choices.length : 0);
  const best = boards.reduce((found, board) => (agreement(board) > agreement(found) ? board : found));
  boards.forEach((board) => { board.hidden = board !== best; });
  choices.forEach((select) => { select.value = best.dataset[select.dataset.board]; });
};
if (choices.length) {
  const asked = new URLSearchParams(location.search);
  for (const select of choices) {
    const value = asked.get(select.dataset.board);
    if ([...select.options].some((option) => option.value === value)) select.value = value;
    select.addEventListener("change", () => {
      choose(select);
      const address = new URL(location.href);
      choices.forEach((each) => address.searchParams.set(each.dataset.board, each.value));
      history.replaceState(null, "", address);
    });
  }
  choose();
}
// A number tells which runs it was made of.
const told = document.getElementById("runs");
if (told) {
  const runs = JSON.parse(told.textContent);
  const dialog = document.getElementById("provenance");
  for (const span of all("[data-runs]")) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", title: span.title, textContent: span.textContent });
    button.dataset.runs = span.dataset.runs;
    button.setAttribute("aria-haspopup", "dialog");
    span.replaceWith(button);
    button.addEventListener("click", () => {
      document.getElementById("provenance-runs").replaceChildren(...button.dataset.runs.split(" ").map((key) => {
        const part = document.createElement("dl");
        for (const [name, text] of Object.entries(runs[key])) {
          const [term, description] = ["dt", "dd"].map((tag) => document.createElement(tag));
          term.textContent = name;
          description.textContent = text;
          part.append(term, description);
        }
        return part;
      }));
      dialog.showModal();
    });
  }
}
// A link into a folded section opens it; printing opens all.
// #NAME of an arm is its row of the ranking.
const open = () => {
  const name = decodeURIComponent(location.hash.slice(1));
  if (!document.getElementById(name) && document.getElementById(`arm-${name}`)) return location.replace(`#arm-${name}`);
  const target = name && document.getElementById(name);
  for (let each = target; each; each = each.parentElement) if (each.matches("details")) each.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", open);
open();
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  folded.forEach((each) => { each.open = true; });
});
addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
// The figures of a section show one arm beside the baseline: other curves fade, and other rows of panels go.
const showArm = (svg, arm, baseline) => {
  const away = (name) => arm && name !== arm && name !== baseline;
  for (const each of all("[data-arm]", svg)) each.style.opacity = away(each.dataset.arm) ? 0.15 : "";
  const panels = all("[data-row]", svg);
  const note = svg.querySelector("[data-note]");
  for (const each of [...panels, note]) each?.removeAttribute("transform");
  for (const each of panels) each.style.display = "";
  svg.dataset.height ??= svg.viewBox.baseVal.height;
  // Where each row ends, measured while all are shown.
  const ends = new Map(panels.map((each) => [each.dataset.row, each.getBBox()]).map(([name, box]) => [name, box.y + box.height]));
  const rows = [...ends.keys()];
  const kept = rows.filter((name) => !away(name));
  for (const each of panels) {
    const place = kept.indexOf(each.dataset.row);
    if (place < 0) each.style.display = "none";
    else each.setAttribute("transform", `translate(0 ${ends.get(rows[place]) - ends.get(each.dataset.row)})`);
  }
  const less = kept.length ? ends.get(rows.at(-1)) - ends.get(rows[kept.length - 1]) : 0;
  note?.setAttribute("transform", `translate(0 ${-less})`);
  svg.setAttribute("viewBox", `0 0 ${svg.viewBox.baseVal.width} ${svg.dataset.height - less}`);
};
for (const select of all("[data-section-arm]")) {
  select.addEventListener("change", () => {
    for (const svg of all(".drawing svg", select.closest("details"))) showArm(svg, select.value, select.dataset.sectionArm);
  });
}
// Examples: one image at a time, one arm beside the baseline.
for (const compare of all(".compare")) {
  const images = all("[data-image]", compare);
  const arm = compare.querySelector("[data-arm-choice]");
  const truth = compare.querySelector("[data-truth]");
  let place = 0;
  const show = () => {
    images.forEach((image, number) => { image.hidden = number !== place; });
    for (const view of all("[data-arm]", compare)) view.hidden = view.dataset.arm !== arm.value;
    compare.querySelector("output").textContent = `${place + 1} of ${images.length}`;
  };
  const step = (by) => { place = (place + by + images.length) % images.length; show(); };
  const flip = () => truth.setAttribute("aria-pressed", compare.classList.toggle("showing-truth"));
  arm.addEventListener("change", show);
  for (const button of all("[data-step]", compare)) button.addEventListener("click", () => step(Number(button.dataset.step)));
  truth.addEventListener("click", flip);
  for (const slider of all("[data-set]", compare)) {
    slider.addEventListener("input", () => compare.style.setProperty(slider.dataset.set, slider.value));
  }
  compare.addEventListener("keydown", (event) => {
    if (event.target === arm || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { n: () => step(1), p: () => step(-1), t: flip }[event.key.toLowerCase()];
    if (act) act();
  });
  show();
}
// A figure as a file: with the colours of white paper, whatever the page shows.
const PAPER = { "--ground": "#ffffff", "--line": "#d5d5d5", "--text-quiet": "#595959" };
const save = (name, address) => Object.assign(document.createElement("a"), { download: name, href: address }).click();
for (const button of all("button[data-save]")) {
  button.addEventListener("click", () => {
    const figure = button.closest("figure");
    const copy = figure.querySelector("svg").cloneNode(true);
    const { width, height } = copy.viewBox.baseVal;
    const attributes = { xmlns: "http://www.w3.org/2000/svg", width, height, style: "color: #1b1f24; background: #ffffff" };
    for (const [key, value] of Object.entries({ ...attributes, "font-family": "sans-serif" })) copy.setAttribute(key, value);
    const style = document.createElementNS(attributes.xmlns, "style");
    style.textContent = "text { fill: currentColor } * { stroke-linejoin: round }";
    copy.prepend(style);
    const text = new XMLSerializer().serializeToString(copy).replace(/var\((--[a-z-]+)\)/g, (_, key) => PAPER[key]);
    const address = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    const name = `${figure.dataset.name}.${button.dataset.save}`;
    if (button.dataset.save === "svg") return save(name, address);
    const image = new Image();
    image.addEventListener("load", () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 4 * width, height: 4 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      save(name, canvas.toDataURL("image/png"));
    });
    image.src = address;
  });
}
