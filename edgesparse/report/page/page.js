"use strict";
// Tables that can be sorted; everything else is there without this.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
      const number = (text) => (text.trim() === "" || isNaN(text) ? null : Number(text));
      const rows = [...body.rows].sort((one, two) => {
        const [a, b] = [value(one), value(two)];
        const [x, y] = [number(a), number(b)];
        // What has no value comes last, whichever way.
        if ((x === null) !== (y === null)) return x === null ? 1 : -1;
        return (x === null ? a.localeCompare(b) : x - y) * (down ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
for (const event of ["beforeprint"]) {
  addEventListener(event, () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
}
