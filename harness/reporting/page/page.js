"use strict";
// Tables: a click on a heading sorts, words in the box above filter. What has no value sorts last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
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
  }));
}
for (const input of document.querySelectorAll(".filter input")) {
  const table = document.getElementById(input.dataset.table);
  const shown = document.getElementById(`${input.dataset.table}-shown`);
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${table.tBodies[0].rows.length} rows`;
  };
  input.addEventListener("input", filter);
  filter();
}
// A number tells which runs it was made of.
const runs = JSON.parse(document.getElementById("runs").textContent);
const dialog = document.getElementById("provenance");
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-runs]");
  if (!button) return;
  const list = document.getElementById("provenance-runs");
  list.replaceChildren(...button.dataset.runs.split(" ").map((key) => {
    const part = document.createElement("dl");
    for (const [name, text] of Object.entries(runs[key])) {
      const term = document.createElement("dt");
      const description = document.createElement("dd");
      term.textContent = name;
      description.textContent = text;
      part.append(term, description);
    }
    return part;
  }));
  dialog.showModal();
});
// Examples: one arm at a time beside the image and its ground truth.
for (const chooser of document.querySelectorAll("fieldset[data-examples]")) {
  chooser.addEventListener("change", (event) => {
    for (const picture of document.querySelectorAll(`#${chooser.dataset.examples} [data-arm]`)) {
      picture.hidden = picture.dataset.arm !== event.target.value;
    }
  });
}
