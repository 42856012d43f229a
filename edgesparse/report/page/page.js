"use strict";
// Makes tables sortable; the page is complete without it.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[index].dataset.value ?? row.cells[index].textContent;
      const number = (text) => (text.trim() === "" || isNaN(text) ? null : Number(text));
      const rows = [...body.rows].sort((first, second) => {
        const [a, b] = [value(first), value(second)];
        const [x, y] = [number(a), number(b)];
        // Rows without a value come last in both directions.
        if ((x === null) !== (y === null)) return x === null ? 1 : -1;
        return (x === null ? a.localeCompare(b) : x - y) * (down ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
