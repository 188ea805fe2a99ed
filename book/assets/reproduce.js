// Beside the data of each figure and table stands the command that makes it again: one click copies
// and shows it. Without this script it is in the box at the top of the page.
(() => {
  // Where the controls of a figure are: the line with its data, or a new one below its cell.
  function below(figure) {
    const cell = figure.closest("article > .cell, article section > .cell") ?? figure;
    if (!cell.nextElementSibling?.matches(".cxr-data")) {
      cell.insertAdjacentHTML("afterend", '<p class="cxr-data"></p>');
    }
    return cell.nextElementSibling;
  }

  function offer(place, number) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "cxr-again";
    button.textContent = "Reproduce";
    button.title = "How to reproduce this: copies the command";
    button.setAttribute("aria-label", `Reproduce ${number}: copy the command`);
    const said = document.createElement("span");
    said.className = "cxr-copied";
    said.setAttribute("role", "status");
    place.append(" ", button, " ", said);
  }

  function show(trigger, what, command) {
    for (const said of document.querySelectorAll(".cxr-copied")) said.replaceChildren();
    const code = document.createElement("code");
    code.textContent = command;
    trigger.nextElementSibling.append(what, code);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const command = document.querySelector("article .cxr-command")?.textContent;
    if (!command) return;
    for (const number of document.querySelectorAll("figcaption .caption-number")) {
      offer(below(number.closest("figure")), number.textContent.trim());
    }
    for (const number of document.querySelectorAll(".cxr-caption .cxr-number")) {
      offer(number.parentElement, number.textContent.trim());
    }
    // of sphinx_copybutton, which copies code with it; works without a network and from disk
    new ClipboardJS(".cxr-again", { text: () => command })
      .on("success", (event) => {
        event.clearSelection();
        event.trigger.focus();
        show(event.trigger, "copied: ", command);
      })
      .on("error", (event) => show(event.trigger, "", command));
  });
})();
