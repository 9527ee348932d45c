import { expect, it } from "vitest";
import type { AccountProof, Cause } from "../core/types";
import { waterfall } from "./waterfall";

function account(gl: string, subledger: string, ...amounts: string[]): AccountProof {
  const causes = amounts.map(
    (amount): Cause => ({ name: "manual", count: 1, amount, meaning: "", next_step: "", fault: false, examples: [] }),
  );
  return { ledger: "supplier", account_number: "2400", gl_balance: gl, subledger_balance: subledger, difference: "", causes };
}

it("leads from the general ledger to the subledger", () => {
  const { gl, causes, subledger, broken } = waterfall(account("100.00", "50.00", "70.00", "-20.00"));
  expect(broken).toBe(false);
  expect(gl).toEqual({ from: 0, to: 100 });
  expect(causes.map((bar) => [bar.from, bar.to])).toEqual([
    [100, 30],
    [30, 50],
  ]);
  expect(subledger).toEqual({ from: 0, to: 50 });
});

it("starts away from zero when the causes are small, and says so", () => {
  const { causes, broken } = waterfall(account("1000000.00", "999990.00", "10.00"));
  expect(broken).toBe(true);
  expect(causes[0]!.from - causes[0]!.to).toBeGreaterThan(50);
});

it("keeps zero when balances lie on both sides of it", () => {
  const { gl, subledger, broken } = waterfall(account("10.00", "-10.00", "20.00"));
  expect(broken).toBe(false);
  expect(gl).toEqual({ from: 50, to: 100 });
  expect(subledger).toEqual({ from: 50, to: 0 });
});

it("stands empty books", () => {
  expect(waterfall(account("0.00", "0.00")).gl).toEqual({ from: 0, to: 0 });
});
