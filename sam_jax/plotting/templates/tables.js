// Tables sort by a click on a head. A cell whose text has no order says by data-value what it sorts by.

// The first number of a cell; NaN for a text. "−" is a minus, "∞" a number.
function numberOf(text) {
  const plain = text.trim().replace(/−/g, "-").replace(/(\d)[,\u202f](?=\d{3})/g, "$1");
  if (/^[+-]?∞/.test(plain)) return plain[0] === "-" ? -Infinity : Infinity;
  const found = plain.match(/^[<≤≥~]?\s*([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)(?![\w])/i);
  return found ? Number(found[1]) : NaN;
}

function compareCells(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (!isNaN(x) && !isNaN(y)) return x - y || a.localeCompare(b);
  if (isNaN(x) && isNaN(y)) return a.localeCompare(b, "en", { numeric: true });
  return isNaN(x) ? 1 : -1;
}

// What has no number stays below in both orders.
function sortRows(table, column, descending) {
  const text = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const missing = (t) => /^(—|not measured|no data|)$/.test(t.trim());
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [s, t] = [text(a), text(b)];
    if (missing(s) || missing(t)) return missing(s) - missing(t);
    return (descending ? -1 : 1) * compareCells(s, t);
  });
  table.tBodies[0].append(...rows);
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.title = "Sort by this column";
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortRows(table, column, descending);
    });
  });
}
