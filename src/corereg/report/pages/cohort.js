"use strict";
(() => {
  const table = document.getElementById("pairs-table");
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent;
    return cell.dataset.value === "" || cell.dataset.value === "nan" ? NaN : Number(cell.dataset.value.replace("inf", "Infinity"));
  };
  const compare = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a - b;
  };
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column))));
  }));
  document.getElementById("pairs-group")?.addEventListener("input", event => {
    for (const row of body.rows) row.hidden = event.target.value !== "" && row.dataset.group !== event.target.value;
  });
  document.documentElement.classList.add("js");
})();
