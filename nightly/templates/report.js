(function () {
  "use strict";
  var form = document.getElementById("filter"), text = form.querySelector("input[type=search]"), said = document.getElementById("filtered");
  var boxes = Array.prototype.slice.call(form.querySelectorAll("input[type=checkbox]"));
  var items = Array.prototype.slice.call(document.querySelectorAll("[data-o]"));
  var folds = Array.prototype.slice.call(document.querySelectorAll("details.fold, details.area"));
  var words = new Map(), opened = [];
  form.hidden = false;

  function matches(item, wanted, outcomes) {
    if (outcomes.length && !outcomes.some(function (name) { return item.dataset.o.split("|").indexOf(name) >= 0; })) return false;
    if (!wanted) return true;
    if (!words.has(item)) words.set(item, item.textContent.toLowerCase());
    return words.get(item).indexOf(wanted) >= 0;
  }
  function apply() {
    var wanted = text.value.trim().toLowerCase(), shown = 0;
    var outcomes = boxes.filter(function (box) { return box.checked; }).map(function (box) { return box.value; });
    var active = wanted || outcomes.length;
    opened.forEach(function (fold) { fold.open = false; });
    opened = [];
    items.forEach(function (item) {
      var keep = !active || matches(item, wanted, outcomes);
      item.classList.toggle("off", !keep);
      shown += keep ? 1 : 0;
    });
    folds.forEach(function (fold) {
      var some = fold.querySelector("[data-o]:not(.off)");
      fold.classList.toggle("off", !!(active && !some && fold.querySelector("[data-o]")));
      if (active && some && !fold.open && shown <= 300) { fold.open = true; opened.push(fold); }
    });
    said.textContent = active ? shown + " of " + items.length + " entries" : "";
  }
  function reveal() {
    var place = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (var at = place; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (place) place.scrollIntoView();
  }
  var waiting;
  form.addEventListener("input", function () { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
  form.addEventListener("reset", function () { setTimeout(apply, 0); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  addEventListener("hashchange", reveal);
  reveal();
})();
