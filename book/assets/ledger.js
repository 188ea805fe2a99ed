// Filters the ledger. Without this script the page shows every entry and no controls.
(() => {
  const form = document.getElementById("cxr-ledger-filter");
  const rows = [...document.querySelectorAll("tr[data-verdict]")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const sections = [...form.closest("section").querySelectorAll("section")];
  const status = form.querySelector("[role=status]");

  function apply() {
    const { verdict, paper, text } = form.elements;
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const fits =
        (!verdict.value || row.dataset.verdict === verdict.value) &&
        (!paper.value || row.dataset.paper === paper.value) &&
        words.every((word) => texts[i].includes(word));
      row.hidden = !fits;
      shown += fits;
    });
    for (const section of sections) {
      section.hidden = !section.querySelector("tr[data-verdict]:not([hidden])");
    }
    status.textContent = `${shown} of ${rows.length} entries shown`;
  }

  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
