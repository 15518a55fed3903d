// Sorts within each group, so that a network's rows stay together; missing numbers stay last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const place = [...head.parentNode.children].indexOf(head);
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.children[place];
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      return cell.matches(".label, .text") ? cell.textContent : null;
    };
    for (const body of head.closest("table").tBodies) {
      const rows = [...body.rows].filter((row) => !row.matches(".group"));
      rows.sort((one, two) => {
        const a = key(one), b = key(two);
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
        return falling ? -order : order;
      });
      body.append(...rows);
    }
  });
}
