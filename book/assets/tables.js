// Long tables of results get a search box. Without this script they show every row.
(() => {
  const LONG = 15; // rows

  function search(box, number) {
    const rows = [...box.querySelectorAll("tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const form = document.createElement("form");
    form.className = "cxr-filter";
    form.innerHTML =
      `<label for="cxr-filter-${number}">Rows with</label>` +
      `<input id="cxr-filter-${number}" type="search"><p role="status"></p>`;
    const input = form.querySelector("input");
    const status = form.querySelector("[role=status]");

    function apply() {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += !row.hidden;
      });
      status.textContent = `${shown} of ${rows.length} rows shown`;
    }

    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    box.before(form);
    apply();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const tables = [...document.querySelectorAll(".cxr-scroll > table:not(.cxr-ledger)")];
    tables
      .filter((table) => table.tBodies[0].rows.length > LONG)
      .forEach((table, i) => search(table.parentElement, i + 1));
  });
})();
