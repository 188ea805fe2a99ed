// Lets a reader change the films of cxrlib.show.film_explorer: the chosen film, its report and its
// scores stand beside those of the film as recorded, and a sentence says what changed.
(() => {
  const CHANGED = ["drain", "contrast", "site", "sex", "age"];
  const text = (score) => (score / 1000).toFixed(2);
  const signed = (x) => (Math.abs(x) < 5 ? "" : x > 0 ? "+" : "−") + text(Math.abs(x));
  const sentence = (words) => words[0].toUpperCase() + words.slice(1);

  function start(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const form = box.querySelector("form"), field = form.elements;
    const canvases = [...box.querySelectorAll("canvas")];
    const value = (column, film) => data.columns[column].entries[data.columns[column].codes[film]];
    const patients = data.columns.patient;
    const sheets = data.sheets.map(() => null);
    let films, recorded; // of the chosen patient

    function fill(select, entries, chosen, note = "") {
      select.replaceChildren(...entries.map((entry) =>
        new Option(entry + (entry === chosen ? note : ""), entry, false, entry === chosen)));
    }

    function choosePatient() {
      const patient = patients.entries.indexOf(field.patient.value);
      films = [...patients.codes.keys()].filter((film) => patients.codes[film] === patient);
      recorded = data.recorded.find((film) => films.includes(film));
      field.drain.checked = value("drain", recorded) === 1;
      for (const column of CHANGED.slice(1)) {
        const entries = [...new Set(films.map((film) => value(column, film)))];
        fill(field[column], entries, value(column, recorded), " (as recorded)");
      }
    }

    async function draw(pair) {
      const patient = patients.codes[recorded];
      const sheet = sheets[patient] ??= Object.assign(new Image(), { src: data.sheets[patient] });
      await sheet.decode();
      if (patient !== patients.codes[recorded]) return; // another was chosen meanwhile
      const side = data.size, wide = sheet.naturalWidth / side;
      pair.forEach((film, i) => {
        const at = films.indexOf(film);
        canvases[i].getContext("2d").drawImage(sheet, (at % wide) * side,
          Math.floor(at / wide) * side, side, side, 0, 0, side, side);
      });
    }

    function show() {
      const wanted = CHANGED.map((column) =>
        column === "drain" ? Number(field.drain.checked) : field[column].value);
      const film = films.find((one) =>
        CHANGED.every((column, i) => String(value(column, one)) === String(wanted[i])));
      const change = value("change", film), label = field.label.value;
      draw([recorded, film]);
      canvases[0].ariaLabel = `Film of patient ${field.patient.value}, as recorded`;
      canvases[1].ariaLabel = `Film of patient ${field.patient.value}, ${change}`;
      canvases[1].nextElementSibling.textContent = change;
      box.querySelector(".cxr-report").textContent = `Report: ${value("report", film)}`;
      const told = [], rows = [];
      for (const [model, scores] of Object.entries(data.scores[label])) {
        const [before, now] = [scores[recorded], scores[film]];
        told.push(`${model} ${text(before)}${film === recorded ? "" : ` → ${text(now)}`}`);
        const row = document.createElement("tr");
        row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: model }));
        for (const score of [before, now]) {
          const cell = row.insertCell();
          cell.textContent = text(score);
          cell.style.setProperty("--score", `${score / 10}%`);
        }
        row.insertCell().textContent = signed(now - before);
        for (const cell of row.cells) cell.className = cell.tagName === "TD" ? "number" : "";
        rows.push(row);
      }
      box.querySelector("tbody").replaceChildren(...rows);
      form.querySelector("[role=status]").textContent =
        `${sentence(change)}. Score for ${label.toLowerCase()}: ${told.join("; ")}.`;
    }

    fill(field.patient, patients.entries, patients.entries[0]);
    const labels = Object.keys(data.scores);
    fill(field.label, labels, labels[0]);
    choosePatient();
    form.addEventListener("input", (event) => {
      if (event.target === field.patient) choosePatient();
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    box.querySelector(".cxr-elsewhere").hidden = true;
    form.hidden = box.querySelector(".cxr-films-shown").hidden = false;
    show();
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const box of document.querySelectorAll(".cxr-films")) start(box);
  });
})();
