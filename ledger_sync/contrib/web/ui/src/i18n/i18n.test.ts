/// <reference types="vite/client" />
import { describe, expect, it } from "vitest";
import { langOf, named, TEXTS } from ".";

type Table = Record<string, unknown>;

/** Every key of a table with what kind of thing it holds. */
function shape(table: Table, path = ""): string[] {
  return Object.entries(table).flatMap(([key, value]) => {
    const at = `${path}${key}`;
    return value !== null && typeof value === "object" && !Array.isArray(value)
      ? shape(value as Table, `${at}.`)
      : [`${at}: ${typeof value}`];
  });
}

function empty(table: Table, path = ""): string[] {
  return Object.entries(table).flatMap(([key, value]) => {
    if (value === "") return [`${path}${key}`];
    return value !== null && typeof value === "object" ? empty(value as Table, `${path}${key}.`) : [];
  });
}

const { meanings: ofEn, ruleTexts: rulesOfEn, ...en } = TEXTS.en;
const { meanings: ofNb, ruleTexts: rulesOfNb, ...nb } = TEXTS.nb;

describe("the languages", () => {
  it("have the same texts", () => {
    expect(shape(nb)).toEqual(shape(en));
  });

  it("leave nothing empty but what has nothing to say", () => {
    expect(empty(en)).toEqual(["linkNames.idle"]);
    expect(empty(nb)).toEqual(["linkNames.idle"]);
  });

  it("have no text that nothing shows", () => {
    const sources = import.meta.glob<string>("../**/*.ts", { query: "?raw", import: "default", eager: true });
    const code = Object.entries(sources).flatMap(([path, text]) => (/^\.\/|i18n|test/.test(path) ? [] : [text]));
    expect(Object.keys(TEXTS.en).filter((key) => !code.some((text) => new RegExp(`\\b${key}\\b`).test(text)))).toEqual([]);
  });

  it("have a Norwegian meaning for every name that the proof uses", () => {
    expect([ofEn, rulesOfEn]).toEqual([{}, {}]);
    expect(empty(rulesOfNb)).toEqual([]);
    expect(Object.keys(ofNb).sort()).toEqual([...Object.keys(en.reasons), ...Object.keys(en.findingNames)].sort());
  });
});

describe("langOf", () => {
  it.each([
    ["nb", "nb"],
    ["nb-NO", "nb"],
    ["no", "nb"],
    ["nn-NO", "nb"],
    ["en-GB", "en"],
    ["de", "en"],
    ["", "en"],
    [null, "en"],
  ])("%s is %s", (tag, lang) => {
    expect(langOf(tag)).toBe(lang);
  });
});

it("names what it does not know as the server does", () => {
  expect(named(TEXTS.en.reasons, "brand_new_reason")).toBe("Brand new reason");
  expect(named(TEXTS.en.reasons, "constructor")).toBe("Constructor");
});
