import { LedgerSyncConsole } from "./console/console";
import "./ledger-sync-modal";
import { define } from "./ui/piece";

// The page has no style sheet of its own: without this a white frame would stay around the console.
const sheet = new CSSStyleSheet();
sheet.replaceSync("body { margin: 0 }");
document.adoptedStyleSheets.push(sheet);

define("ledger-sync-console", LedgerSyncConsole);

export { LedgerSyncConsole };
