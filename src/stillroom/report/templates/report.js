"use strict";
// Marks in the contents the section that crosses the upper quarter of the window; at the end of the page, where the last ones
// cannot, the one that was asked for, or the last.
(() => {
  const links = new Map([...document.querySelectorAll(".contents a")].map(
    (link) => [document.getElementById(link.hash.slice(1)).closest("section"), link]));
  const crossing = new Set();
  let asked = null;
  const mark = (current) => {
    for (const [section, link] of links) {
      if (section === current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
  };
  const ended = () => scrollY > 0 && innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
  const follow = () => {
    const current = ended() ? asked ?? [...links.keys()].at(-1) : [...links.keys()].find((section) => crossing.has(section));
    if (current) mark(current);  // between two sections the last one stays marked
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) crossing[isIntersecting ? "add" : "delete"](target);
    follow();
  }, { rootMargin: "-25% 0px -74% 0px" });
  addEventListener("click", ({ target }) => {
    const link = target.closest('a[href^="#"]');
    if (link) asked = document.getElementById(link.hash.slice(1)).closest("section");
  });
  addEventListener("scroll", follow, { passive: true });
  addEventListener("scrollend", () => { if (!ended()) asked = null; });
  mark([...links.keys()][0]);
  for (const section of links.keys()) watch.observe(section);
})();
