"use strict";
// Sorts a table by the column whose heading is pressed, block by block; again turns it round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = table.querySelectorAll("thead tr:last-child th");
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].map((row) => [key(row.cells[place].textContent), row]);
        rows.sort(([a], [b]) => compare(a, b, turn));
        body.append(...rows.map(([, row]) => row));
      }
    });
  });
}
function key(text) {
  const number = parseFloat(text.replace("\u2212", "-"));
  return Number.isNaN(number) ? text : number;
}
function compare(a, b, turn) {
  // Numbers before words; what is not known is a word, and stays last whatever the turn.
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  if (typeof a === "number") return turn * (a - b);
  return turn * a.localeCompare(b, "en", { numeric: true });
}
