import { describe, expect, it } from "vitest";
import { amountText, countText, isZero, percentText, rateText, spanOf, sumAmounts } from "./amounts";

describe("amountText", () => {
  it.each([
    ["1234.50", "1,234.50", "1\u00a0234,50"],
    ["0", "0.00", "0,00"],
    ["-0.00", "0.00", "0,00"],
    ["-1234567.8", "\u22121,234,567.80", "\u22121\u00a0234\u00a0567,80"],
    ["999", "999.00", "999,00"],
    ["1000.1234", "1,000.1234", "1\u00a0000,1234"],
    // more digits than a float holds
    ["90071992547409931234.07", "90,071,992,547,409,931,234.07", "90\u00a0071\u00a0992\u00a0547\u00a0409\u00a0931\u00a0234,07"],
  ])("%s", (amount, en, nb) => {
    expect(amountText(amount, "en")).toBe(en);
    expect(amountText(amount, "nb")).toBe(nb);
  });

  it("shows what is no amount as it came", () => {
    expect(amountText("1E+3", "en")).toBe("1E+3");
  });
});

describe("sumAmounts", () => {
  it("is exact", () => {
    expect(sumAmounts(["0.10", "0.20"])).toBe("0.30");
    expect(sumAmounts(["90071992547409931234.07", "0.01", "-1"])).toBe("90071992547409931233.08");
    expect(sumAmounts(["-0.05", "0.02"])).toBe("-0.03");
    expect(sumAmounts(["1.005", "1"])).toBe("2.005");
    expect(sumAmounts([])).toBe("0.00");
  });

  it("refuses what is no amount", () => {
    expect(() => sumAmounts(["1", "x"])).toThrow(RangeError);
  });
});

describe("numbers", () => {
  it("groups counts", () => {
    expect(countText(1234567, "en")).toBe("1,234,567");
    expect(countText(1234567, "nb")).toBe("1\u00a0234\u00a0567");
    expect(countText(-12, "en")).toBe("\u221212");
  });

  it("never rounds a percentage up", () => {
    expect(percentText(99.97, "en")).toBe("99.9%");
    expect(percentText(100, "en")).toBe("100%");
    expect(percentText(41.3, "nb")).toBe("41,3\u00a0%");
    expect(percentText(0, "en")).toBe("0%");
  });

  it("shows small rates with a decimal", () => {
    expect(rateText(1234.6, "en")).toBe("1,235");
    expect(rateText(3.14, "nb")).toBe("3,1");
  });

  it("knows nothing when it sees it", () => {
    expect(isZero("-0.00")).toBe(true);
    expect(isZero("0.01")).toBe(false);
  });
});

it("writes a span of days as people do", () => {
  expect([spanOf("1-30"), spanOf("over 90")]).toEqual(["1–30", "Over 90"]);
});
