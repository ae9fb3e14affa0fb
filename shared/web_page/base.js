"use strict";
// Data reaches the page as text only: make() and draw() append strings, which are never read as markup.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = (selector) => document.querySelector(selector);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS($("svg").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function moveFocus(elements, steps) {
  const next = elements[elements.indexOf(document.activeElement) + steps] || elements[steps > 0 ? 0 : elements.length - 1];
  if (next) next.focus();
}

// Does what a key is for, but in `fields`, where only Escape is none of the text.
function hearKeys(actions, fields) {
  document.addEventListener("keydown", (event) => {
    const inField = event.target.matches(fields) && event.key !== "Escape";
    if (inField || event.ctrlKey || event.metaKey || event.altKey || !(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });
}

